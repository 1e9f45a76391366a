"""A rewrite of a trace: its steps on the rows of a batch become one step that takes the rows chunk by chunk.

Most ops of a network treat the rows of a batch one by one. :class:`Chunks` finds the steps between the first use of the
batch and the sums over it, such as a loss and the gradients of weights. A chunk fits into the cache, and the cores
share the chunks. Their sums are added in order, so results do not depend on the number of threads; they differ from
those of the whole batch by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..kernels.threads import WORTH, parallel
from ..ops.reduction import mean, sum
from ..ops.shape import axes_of
from .program import Lease, Program
from .trace import Step, Value, values_in

_ROWS = 64  # of a chunk, at most, and half of it at least; with fewer, calls take longer than the arithmetic


def divided(steps: Sequence[Step], outputs: Sequence[Value], inputs: Sequence[Value]) -> Sequence[Step]:
    """The steps, with one step for those on rows of the batch if that pays. The first input says how long it is."""
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
    size = next((n for n in range(_ROWS, _ROWS // 2 - 1, -1) if n < batch and batch % n == 0), 0)
    chunks = Chunks(steps, outputs, inputs, batch, size) if size else None
    return chunks.rewritten() if chunks is not None and chunks.pay() else steps


class Chunks:
    """The steps before the chunks, those of a chunk, and those after. It is the op of the step for all chunks."""

    name = "chunks"

    def __init__(
        self, steps: Sequence[Step], outputs: Sequence[Value], inputs: Sequence[Value], batch: int, size: int
    ) -> None:
        self.batch, self.size, self.count = batch, size, batch // size
        self.before: list[Step] = []
        self.inside: list[Step] = []
        self.after: list[Step] = []
        self.sums: list[Step] = []  # those inside whose results are added up over the chunks
        self.rows = {v for v in inputs if v.shape[:1] == (batch,)}  # values with a row for each of the batch
        self._made: set[Value] = set()  # those of them that are computed in chunks
        self._late: set[Value] = set()  # values that depend on the sums, or mix rows
        for step in steps:
            self._part(step).append(step)
        self.collected = [v for v in outputs if v in self._made]
        self.idle: list[Program] = []  # a program computes one chunk at a time

    def _part(self, step: Step) -> list[Step]:
        """The part to which a step belongs."""
        op, out, used = step.op, step.out, values_in(step.args)
        written = any(other.out is None for other in self.after)  # tensors that this step may read
        if out is not None and not written and self._late.isdisjoint(used):
            places = {i for i, a in enumerate(step.args) if isinstance(a, Value) and a in self.rows}
            whole, ranks = out.shape[:1] == (self.batch,), {len(step.args[i].shape) for i in places}
            across = op in (sum.op, mean.op) and 0 in axes_of(step.args[1], len(used[0].shape))
            apart = ranks == {len(out.shape)} if op.rows == () else op.rows is not None and places <= {*op.rows}
            if places and whole and not across and apart:
                self.rows.add(out)
                self._made.add(out)
                return self.inside
            if places and (across or not whole or op.rows is None) and places <= {*(op.added or ())}:
                self.sums.append(step)
                self._late.add(out)
                return self.inside
            if self._made.isdisjoint(used):
                return self.before
        self._late |= {out} if out is not None else set()
        return self.after

    def pay(self) -> bool:
        """Whether chunks pay: all work on rows is inside of them, and the sums are small beside the rows."""
        values = self.rows, [step.out for step in self.sums]
        rows, sums = (math.fsum(math.prod(v.shape) * v.dtype.itemsize for v in some) for some in values)
        mixed = any(not self.rows.isdisjoint(values_in(step.args)) for step in self.after)
        return not mixed and 0 < 4 * self.count * sums <= rows

    def rewritten(self) -> list[Step]:
        """The steps before, one for all chunks, and the steps after."""
        self.sources: dict[Value, Value] = {}  # values with rows that a chunk begins with, and their rows in a chunk
        self.steps: list[Step] = []  # for one chunk
        twins: dict[Value, Value] = {}  # the values of the batch, and those in a chunk
        arrays: dict[Value, Any] = {}  # as large as those of a chunk, for their layout

        def twin(value: Value, parent: Value | None = None) -> Value:
            header = as_strided(np.empty((), value.dtype), (self.size, *value.shape[1:]), value.strides)
            if parent is None:
                arrays[value] = np.empty_like(header)
            else:  # a view: of the rows, only reshape makes views
                arrays[value] = arrays[parent].reshape(header.shape)
            twins[value] = Value("result", arrays[value], None, [twins[parent]] if parent else ())
            return twins[value]

        for step in self.inside:
            new, args, out = copy(step), [*step.args], step.out
            for i, a in enumerate(args):
                if isinstance(a, Value) and self._has_rows(step, i, a):
                    if a not in twins:
                        self.sources[a] = twin(a)
                    args[i] = twins[a]
            new.args = tuple(args)
            if out in self._made:
                new.out = twin(out, step.args[0] if out.whole is not out else None)
            else:
                new.out = twins[out] = out.twin()
            self.steps.append(new)
        self.results = [twins[v] for v in (*(step.out for step in self.sums), *self.collected)]
        inner = {*twins.values()}
        used = dict.fromkeys(v for step in self.steps for v in values_in(step.args) if v.array is None)
        self.shared = [v for v in used if v not in inner]
        parts = [Value("result", np.empty((self.count, *v.shape), v.dtype)) for v in self.results[: len(self.sums)]]
        step = copy(self.inside[0])
        step.op, step.out = self, None
        step.args = [*self.sources], self.shared, parts, [step.out for step in self.sums], self.collected
        return [*self.before, step, *self.after]

    def _has_rows(self, step: Step, i: int, value: Value) -> bool:
        """Whether an argument of a step has a row for each of the batch."""
        if value.shape[:1] != (self.batch,):
            return False
        if step.op.rows == ():
            return len(value.shape) == len(step.out.shape)
        return value in self.rows or i in (step.op.rows or ()) or i in (step.op.added or ())

    def __call__(self, sources: Any, shared: Any, parts: Any, sums: Any, collected: Any) -> None:
        """Compute all chunks. The arguments are the arrays of values outside of the chunks."""

        def program() -> Program:
            known = dict(zip(self.shared, shared, strict=True))
            return Program(self.steps, self.sources.values(), self.results, known, 1)

        def some(start: int, stop: int) -> None:
            lease = Lease(self.idle, program)  # no other thread uses its program
            chunk = lease.program
            for i in range(start, stop):
                rows = slice(i * self.size, (i + 1) * self.size)
                for value, whole in zip(self.sources.values(), sources, strict=True):
                    np.copyto(chunk.array(value), whole[rows])
                chunk.run()
                targets = [part[i, ...] for part in parts] + [whole[rows] for whole in collected]
                for value, target in zip(self.results, targets, strict=True):
                    np.copyto(target, chunk.array(value))

        parallel(some, self.count, WORTH * self.count)
        for step, total, part in zip(self.sums, sums, parts, strict=True):
            np.add.reduce(part, 0, out=total)
            if step.op is mean.op:
                np.divide(total, self.count, total)
