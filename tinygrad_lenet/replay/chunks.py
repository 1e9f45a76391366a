"""A program that goes through the batch in chunks: each fits into the cache, and the cores share them.

Most ops of a network treat the rows of a batch one by one. :class:`Chunks` finds them: the steps between the first use
of the batch and the sums over it, such as a loss and the gradients of weights. They are traced again for a chunk. The
sums of the chunks are added in order, so results do not depend on the number of threads; they differ from those of the
whole batch by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..core.modes import no_grad, tracing
from ..core.tensor import Tensor
from ..core.values import mapped
from ..kernels.threads import WORTH, parallel
from ..ops.activations import _sigmoid_grad, _tanh_grad, _where_positive, relu, sigmoid, tanh
from ..ops.convolution import _conv2d, conv2d_input_grad, conv2d_weight_grad
from ..ops.elementwise import add, cast, clone, div, mul, neg, sub
from ..ops.losses import class_index, count_classes
from ..ops.maths import pow, square
from ..ops.pooling import _avg_pool2d, _avg_unpool, _max_pool2d, _unpool
from ..ops.products import _linear_weight_grad, linear
from ..ops.reduction import axes_of, mean, sum
from ..ops.shape import broadcast_to, reshape
from ..ops.softmax import _softmax_nll_grad, softmax_nll
from .program import Program
from .trace import Step, Trace, Value, values_in

_ROWS = 32  # of a chunk, at most; with half as many, calls take longer than the arithmetic
_ELEMENTWISE = {f.op for f in (relu, _where_positive, tanh, _tanh_grad, sigmoid, _sigmoid_grad, clone, cast)}
_ELEMENTWISE |= {f.op for f in (add, sub, mul, div, neg, square, pow)}
# Row i of the result depends on row i of these arguments, and on others that have no rows.
_EACH = {f.op: [0] for f in (_conv2d, conv2d_input_grad, _max_pool2d, _avg_pool2d, _avg_unpool, linear, reshape)}
_EACH |= {_unpool.op: [0, 1, 2], softmax_nll.op: [0, 1], _softmax_nll_grad.op: [1, 2], broadcast_to.op: [0]}
# The result is a sum, or the mean, over the rows of these arguments.
_ADDED = {conv2d_weight_grad.op: [0, 1], _linear_weight_grad.op: [0, 1], softmax_nll.op: [0, 1], sum.op: [0]}
_ADDED |= {mean.op: [0]}
_ONCE = {class_index.op, count_classes.op}  # for the whole batch, before the chunks


class Chunks:
    """A program whose steps are divided: those before the chunks, those of a chunk, and those after."""

    def __init__(self, steps: Sequence[Step], outputs: Sequence[Value], inputs: Sequence[Value]) -> None:
        self.batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
        self.size = next((n for n in range(_ROWS, _ROWS // 2 - 1, -1) if self.batch % n == 0), self.batch)
        self.outputs, self.inputs = outputs, inputs
        self.before: list[Step] = []
        self.inside: list[Step] = []
        self.after: list[Step] = []
        self.rows = {v for v in inputs if v.shape[:1] == (self.batch,)}  # values with a row for each of the batch
        self.sums: list[Value] = []  # values that are added up over the chunks
        self.means: set[Value] = set()  # those that are divided by the number of chunks
        self._late: set[Value] = set()  # values that depend on these sums, or mix rows
        for step in steps:
            self._part(step).append(step)

    def _part(self, step: Step) -> list[Step]:
        """The part of the program to which a step belongs."""
        op, out, used = step.op, step.out, values_in(step.args)
        places = [i for i, a in enumerate(step.args) if isinstance(a, Value) and a in self.rows]
        written = any(other.out is None for other in self.after)  # tensors that this step may read
        if out is not None and self._late.isdisjoint(used) and not written:
            whole = out.shape[:1] == (self.batch,)
            if not places or op in _ONCE:
                self.rows |= {out} if places and whole else set()
                return self.before
            ranks = {len(step.args[i].shape) for i in places}
            across = op in (sum.op, mean.op) and 0 in axes_of(step.args[1], *ranks)
            aligned = (
                {len(out.shape)} == ranks if op in _ELEMENTWISE or op is broadcast_to.op else places == _EACH.get(op)
            )
            if whole and aligned and not across:
                self.rows.add(out)
                return self.inside
            if _ADDED.get(op) == places and (across or not whole):
                self.sums.append(out)
                self.means |= {out} if op is mean.op else set()
                self._late.add(out)
                return self.inside
        self._late |= {out} if out is not None else set()
        return self.after

    def worth(self) -> bool:
        """Whether chunks pay: all work on rows is inside of them, and the sums are small beside the rows."""
        rows, sums = (math.fsum(math.prod(v.shape) * v.dtype.itemsize for v in some) for some in (self.rows, self.sums))
        mixed = any(not self.rows.isdisjoint(values_in(step.args)) for step in self.after)
        return not mixed and 0 < 4 * (self.batch // self.size) * sums <= rows and self.size < self.batch

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

        def of(leaf: Any, step: Step) -> Any:
            if not isinstance(leaf, Value):
                return leaf
            if leaf not in known:
                mask = step.op in _ELEMENTWISE and step.out is not None and leaf.shape[:1] == step.out.shape[:1]
                if leaf in self.rows or (mask and len(leaf.shape) == len(step.out.shape)):
                    known[leaf] = Tensor._wrap(np.array(leaf.array[: self.size]))
                    self.sources.append((trace.input(known[leaf]), leaf.array))
                else:
                    return Tensor._wrap(leaf.array)
            return known[leaf]

        with tracing(trace), no_grad(), np.errstate(all="ignore"):
            for step in self.inside:
                args = mapped(step.args, partial(of, step=step))
                if step.op in (reshape.op, broadcast_to.op):  # the new shape
                    args = (args[0], (self.size, *args[1][1:]))
                known[step.out] = step.op.result(*step.op.signature.compute(args, {}))
        self.steps = trace.steps
        for step, original in zip(self.steps, self.inside, strict=True):
            step.line = original.line
        self.results = [trace.value(known[v]._data) for v in (*self.sums, *self.collected)]

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
