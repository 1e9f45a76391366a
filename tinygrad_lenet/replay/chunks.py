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
    size = next((n for n in range(_ROWS, _ROWS // 2 - 1, -1) if n < batch and batch % n == 0), batch)
    chunks = Chunks(steps, outputs, inputs, batch, size)
    return [*chunks.before, chunks.step(), *chunks.after] if size < batch and chunks.pay() else steps


class Chunks:
    """The steps of a chunk, and those before and after. It is the op of the step that computes all chunks."""

    name = "chunks"

    def __init__(
        self, steps: Sequence[Step], outputs: Sequence[Value], inputs: Sequence[Value], batch: int, size: int
    ) -> None:
        self.batch, self.size, self.count = batch, size, batch // max(1, size)
        self.before: list[Step] = []
        self.steps: list[Step] = []
        self.after: list[Step] = []
        self.twins: dict[Value, Value] = {}  # values that are computed in chunks, and those of a chunk
        self.sources: dict[Value, Value] = {}  # other values with rows, and their rows in a chunk
        self.sums: list[Step] = []  # steps whose results are added up over the chunks
        self._rows = {v for v in inputs if v.shape[:1] == (batch,)}  # values with a row for each of the batch
        self._late: set[Value] = set()  # values that depend on sums, or mix rows
        for step in steps:
            used = values_in(step.args)
            if step.out is not None and self._late.isdisjoint(used) and not any(s.out is None for s in self.after):
                if self._divide(step):
                    continue
                if self.twins.keys().isdisjoint(used):
                    self.before.append(step)
                    continue
            self.after.append(step)  # after an effect, a step may read what it has changed
            self._late.add(step.out)
        self.collected = [v for v in outputs if v in self.twins and v in self._rows]
        self.idle: list[Program] = []  # a program computes one chunk at a time

    def _divide(self, step: Step) -> bool:
        """Add a step to those of a chunk, if it treats rows one by one or adds them up."""
        op, args, out = step.op, step.args, step.out
        with_rows = {i for i, a in enumerate(args) if isinstance(a, Value) and a.shape[:1] == (self.batch,)}
        known = {i for i in with_rows if args[i] in self._rows}
        same = {i for i in with_rows if len(args[i].shape) == len(out.shape)}
        across = op in (sum.op, mean.op) and 0 in axes_of(args[1], len(args[0].shape))
        whole = out.shape[:1] == (self.batch,) and not across and op.rows is not None
        places = with_rows.intersection((same if op.rows == () else op.rows) if whole else op.added or ())
        if not known or not known <= places:
            return False
        new = copy(step)
        new.args = tuple([self._in_chunk(a) if i in places else a for i, a in enumerate(args)])
        new.out = self.twins[out] = out.twin(*[self.size] * whole)
        self.steps.append(new)
        if whole:
            self._rows.add(out)
        else:
            self.sums.append(step)
            self._late.add(out)
        return True

    def _in_chunk(self, value: Value) -> Value:
        """The rows of a chunk."""
        return self.twins[value] if value in self.twins else self.sources.setdefault(value, value.twin(self.size))

    def pay(self) -> bool:
        """Whether chunks pay: all work on rows is inside of them, and the sums are small beside the rows."""
        values = self._rows, [step.out for step in self.sums]
        rows, sums = (math.fsum(math.prod(v.shape) * v.dtype.itemsize for v in some) for some in values)
        mixed = any(not self._rows.isdisjoint(values_in(step.args)) for step in self.after)
        return not mixed and 0 < 4 * self.count * sums <= rows

    def step(self) -> Step:
        """The step for all chunks."""
        sums = [step.out for step in self.sums]
        self.results = [self.twins[v] for v in (*sums, *self.collected)]
        inside = {*self.twins.values(), *self.sources.values()}
        self.shared = [v for v in values_in([step.args for step in self.steps]) if v not in inside and v.array is None]
        parts = [Value("result", np.empty((self.count, *v.shape), v.dtype)) for v in sums]
        step = Step(self, ([*self.sources], self.shared, parts, sums, self.collected), None)
        step.line = self.steps[0].line
        return step

    def __call__(self, sources: Any, shared: Any, parts: Any, sums: Any, collected: Any) -> None:
        """Compute all chunks. The arguments are the arrays of values outside of the chunks."""
        sources, collected = ([x.reshape(self.count, -1, *x.shape[1:]) for x in some] for some in (sources, collected))
        for value, array in zip(self.shared, shared, strict=True):
            value.array = array

        def compute(start: int, stop: int) -> None:
            lease = Lease(self.idle, lambda: Program(self.steps, self.sources.values(), self.results, 1))
            chunk = lease.program
            for i in range(start, stop):
                for value, rows in zip(self.sources.values(), sources, strict=True):
                    np.copyto(chunk.array(value), rows[i])
                chunk.run()
                for value, rows in zip(self.results, (*parts, *collected), strict=True):
                    np.copyto(rows[i, ...], chunk.array(value))

        parallel(compute, self.count, WORTH * self.count)
        for step, total, part in zip(self.sums, sums, parts, strict=True):
            np.add.reduce(part, 0, out=total)
            if step.op is mean.op:
                np.divide(total, self.count, total)
