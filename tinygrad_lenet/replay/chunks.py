"""A program that goes through the batch in chunks: each fits into the cache, and the cores share them.

Most ops of a network treat the rows of a batch one by one. :class:`Chunks` finds them: the steps between the first use
of the batch and the sums over it, such as a loss and the gradients of weights. They are traced again for a chunk. The
sums of the chunks are added in order, so results do not depend on the number of threads; they differ from those of the
whole batch by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..core.modes import no_grad, tracing
from ..core.tensor import Tensor
from ..kernels.threads import WORTH, parallel
from ..ops.reduction import mean, sum
from ..ops.shape import axes_of, reshape
from .program import Program
from .trace import Step, Trace, Value, values_in

_ROWS = 64  # of a chunk, at most, and half of it at least; with fewer, calls take longer than the arithmetic


class Chunks:
    """A program whose steps are divided: those before the chunks, those of a chunk, and those after."""

    def __init__(self, steps: Sequence[Step], outputs: Sequence[Value], inputs: Sequence[Value]) -> None:
        self.batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
        sizes = range(_ROWS, _ROWS // 2 - 1, -1)
        self.size = next((n for n in sizes if n < self.batch and self.batch % n == 0), self.batch)
        self.outputs, self.inputs = outputs, inputs
        self.before: list[Step] = []
        self.inside: list[Step] = []
        self.after: list[Step] = []
        self.rows = {v for v in inputs if v.shape[:1] == (self.batch,)}  # values with a row for each of the batch
        self.sums: list[Value] = []  # values that are added up over the chunks
        self.means: set[Value] = set()  # those that are divided by the number of chunks
        self._made: set[Value] = set()  # values that are computed in chunks
        self._late: set[Value] = set()  # values that depend on these sums, or mix rows
        for step in steps:
            self._part(step).append(step)

    def _part(self, step: Step) -> list[Step]:
        """The part of the program to which a step belongs."""
        op, out, used = step.op, step.out, values_in(step.args)
        written = any(other.out is None for other in self.after)  # tensors that this step may read
        if out is not None and not written and self._late.isdisjoint(used):
            places = {i for i, a in enumerate(step.args) if isinstance(a, Value) and a in self.rows}
            whole, ranks = out.shape[:1] == (self.batch,), {len(step.args[i].shape) for i in places}
            across = op in (sum.op, mean.op) and 0 in axes_of(step.args[1], len(used[0].shape))
            if places and whole and not across and _apart(step, places, ranks):
                self.rows.add(out)
                self._made.add(out)
                return self.inside
            if places and (across or not whole or op.rows is None) and places <= {*(op.added or ())}:
                self.sums.append(out)
                self.means |= {out} if op is mean.op else set()
                self._late.add(out)
                return self.inside
            if self._made.isdisjoint(used):
                return self.before
        self._late |= {out} if out is not None else set()
        return self.after

    def worth(self) -> bool:
        """Whether chunks pay: all work on rows is inside of them, and the sums are small beside the rows."""
        rows, sums = (math.fsum(math.prod(v.shape) * v.dtype.itemsize for v in some) for some in (self.rows, self.sums))
        mixed = any(not self.rows.isdisjoint(values_in(step.args)) for step in self.after)
        return self.size < self.batch and not mixed and 0 < 4 * (self.batch // self.size) * sums <= rows

    def bind(self) -> Chunks:
        """Make the programs."""
        later = {v for step in (*self.inside, *self.after) for v in values_in(step.args)} | {*self.outputs}
        made = [step.out for step in self.before if step.out in later]
        self.first = Program(self.before, made, self.inputs)
        self.arrays = self.first.arrays
        for value in (*made, *self.inputs):
            value.array = self.first.array(value)
            if value in made and value.whole is value:
                value.array[...] = 0  # valid numbers for the trace of a chunk
        self.collected = [v for v in self.rows.intersection(self.outputs) if v.array is None]
        for value in (*self.sums, *self.collected):
            value.array = Program((), (), [value]).array(value)
        for value in self.inputs:
            np.copyto(value.array, value.tensor._data)
        self._trace()
        self.last = Program(self.after, self.outputs, ())
        self._idle: list[Program] = []
        self._parts = [np.empty((self.batch // self.size, *v.shape), v.dtype) for v in self.sums]
        return self

    def _trace(self) -> None:
        """Trace the steps of a chunk."""
        trace = Trace(())
        known: dict[Value, Tensor] = {}
        self.sources: list[tuple[Value, Any]] = []  # for each value with rows, the one in a chunk, and the whole array

        def chunk(step: Step, i: int, leaf: Any) -> Any:
            """An argument in a chunk."""
            if not isinstance(leaf, Value):
                return leaf
            if leaf not in known and self._has_rows(step, i, leaf):
                known[leaf] = Tensor._wrap(np.array(leaf.array[: self.size]))
                self.sources.append((trace.input(known[leaf]), leaf.array))
            return known[leaf] if leaf in known else Tensor._wrap(leaf.array)

        with tracing(trace), no_grad(), np.errstate(all="ignore"):
            for step in self.inside:
                args = tuple([chunk(step, i, a) for i, a in enumerate(step.args)])
                if step.op is reshape.op:
                    args = (args[0], self.size, *step.out.shape[1:])
                known[step.out] = step.op.result(*step.op.signature.compute(args, {}))
        self.steps = trace.steps
        for step, original in zip(self.steps, self.inside, strict=True):
            step.line = original.line
        self.results = [trace.value(known[v]._data) for v in (*self.sums, *self.collected)]

    def _has_rows(self, step: Step, i: int, value: Value) -> bool:
        """Whether an argument of a step in a chunk has a row for each of the batch."""
        if value.shape[:1] != (self.batch,):
            return False
        if step.op.rows == ():
            return len(value.shape) == len(step.out.shape)
        return value in self.rows or i in (step.op.rows or ()) or i in (step.op.added or ())

    @property
    def note(self) -> str:
        """How the batch is divided."""
        return f"; {self.batch // self.size} chunks of {self.size} rows, of which one is timed"

    @property
    def bytes(self) -> int:
        """The size of its memory."""
        return int(math.fsum(program.bytes for program in (self.first, self.last, *self._idle)))

    def parts(self) -> Iterator[tuple[Step, list[Callable[[], object]]]]:
        """The calls of each step, in one chunk."""
        for program in (self.first, self._idle[0], self.last):
            yield from program.parts()

    def array(self, value: Value) -> Any:
        """The array of a value."""
        return self.last.array(value)

    def run(self, last: None = None) -> None:
        """Compute everything once."""
        self.first.run()
        count = self.batch // self.size
        parallel(self._some, count, WORTH * count)
        for value, parts in zip(self.sums, self._parts, strict=True):
            np.copyto(value.array, parts[0])
            for part in parts[1:]:
                np.add(value.array, part, value.array)
            if value in self.means:
                np.divide(value.array, count, value.array)
        self.last.run()

    def _some(self, start: int, stop: int) -> None:
        """Compute some chunks, in a program that no other thread uses."""
        program = self._idle.pop() if self._idle else Program(self.steps, self.results, [v for v, _ in self.sources], 1)
        for i in range(start, stop):
            rows = slice(i * self.size, (i + 1) * self.size)
            for value, whole in self.sources:
                np.copyto(program.arrays[value], whole[rows])
            program.run()
            targets = [parts[i, ...] for parts in self._parts] + [v.array[rows] for v in self.collected]
            for value, target in zip(self.results, targets, strict=True):
                np.copyto(target, program.array(value))
        self._idle.append(program)


def _apart(step: Step, places: set[int], ranks: set[int]) -> bool:
    """Whether a step treats rows one by one, of which it has those at these places, with these numbers of axes."""
    rows = step.op.rows
    if rows is None:
        return False
    return ranks == {len(step.out.shape)} if rows == () else places <= {*rows}
