"""Rewrites of a trace: pooling before ReLU, and chunks of the batch.

Most ops of a network treat the rows of a batch one by one. :class:`Chunks` finds the steps between the first use of the
batch and the sums over it, such as a loss and the gradients of weights. One step takes their place: it computes them
for one chunk of the rows after another. A chunk fits into the cache, and the cores share the chunks. Their sums are
added in order, so results do not depend on the number of threads; they differ from those of the whole batch by
rounding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np

from ..core.values import mapped
from ..kernels.threads import WORTH, parallel
from ..ops import reduction
from ..ops.activations import _where_positive, relu
from ..ops.pooling import _max_pool2d, _unpool
from ..ops.shape import axes_of, reshape
from .program import Lease, Program
from .trace import Step, Value, values_in

_ROWS = 64  # of a chunk, at most, and three quarters of it at least; with fewer, calls take longer than the arithmetic


def pool_first(steps: Sequence[Step], outputs: Sequence[Value]) -> None:
    """Replace ``max_pool2d(relu(x))`` by ``relu(max_pool2d(x))``, forward and backward, in place.

    ReLU is monotone, so both are equal, and with windows of 2 x 2 a quarter of the elements goes through it. The
    gradient is masked before it is distributed to the pixels. A window whose maximum is 0 or less passes on nothing in
    either order; in any other, the first maximum is the same pixel.
    """
    uses: dict[Value, list[Step]] = defaultdict(list)
    for step in steps:
        for value in values_in(step.args):
            uses[value].append(step)
    ops = [_max_pool2d.op, _unpool.op, _where_positive.op]
    for activation in [step for step in steps if step.op is relu.op and step.out not in outputs]:
        pool, *backward = uses[activation.out]
        found = [step.op for step in (pool, *backward)]
        if found not in (ops, ops[:1]) or (backward and uses[backward[0].out] != backward[1:]):
            continue
        (x,), (_, at), peak = activation.args, pool.args, pool.out.twin()
        activation.op, activation.args, activation.out = pool.op, (x, at), peak
        pool.op, pool.args = relu.op, (peak,)
        if backward:
            back, mask = backward
            g, masked = back.args[0], back.args[0].twin()
            back.op, back.args, back.out = _where_positive.op, (g, pool.out), masked
            mask.op, mask.args = _unpool.op, (masked, x, peak, at)


def divided(steps: list[Step], inputs: Sequence[Value], outputs: Sequence[Value]) -> list[Step]:
    """The steps, with one step for those on rows of the batch if that pays. The first input says how long it is."""
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
    size = next((n for n in range(_ROWS, _ROWS * 3 // 4 - 1, -1) if n < batch and batch % n == 0), 0)
    rows = {v: v.twin(size) for v in inputs if v.shape[:1] == (batch,)} if size else {}
    return (rows and Chunks(batch, size, rows).rewritten(steps, outputs)) or steps


class Chunks:
    """The op of the step that computes all chunks. Its program is the steps inside, for the values of one chunk."""

    name = "chunks"

    def __init__(self, batch: int, size: int, twins: dict[Value, Value]) -> None:
        self.batch, self.size, self.count = batch, size, batch // size
        self.twins = twins  # values with a row for each of the batch, and sums over rows; and those of a chunk
        self.inside: list[Step] = []
        self.sums: dict[Value, Step] = {}  # the steps inside whose results are added up over the chunks
        self._whole: set[Value] = set()  # values as long as the batch that a step inside needs as a whole
        self.idle: list[Program] = []  # a program computes one chunk at a time

    def rewritten(self, steps: Sequence[Step], outputs: Sequence[Value]) -> list[Step]:
        """The steps before the chunks, one step for all chunks, and the steps after them; nothing if chunks do not pay.

        They pay if all work on rows is inside of them, and the sums are small beside the rows.
        """
        before, after = list[Step](), list[Step]()
        made, late = set[Value](), set[Value]()  # values that depend on the rows; on sums over them
        for step in steps:
            used = values_in(step.args)
            early = step.out is not None and late.isdisjoint(used) and not any(s.out is None for s in after)
            if early and self._divide(step):
                made.add(step.out)
                late |= self.sums.keys()
            elif early and made.isdisjoint(used):
                before.append(step)
            else:
                after.append(step)  # after an effect, a step may read what it has changed
                late.add(step.out)
        rows, sums = self.twins.keys() - self.sums.keys(), [*self.sums]
        small = 0 < 4 * self.count * sum(v.high - v.low for v in sums) <= sum(v.high - v.low for v in rows)
        if not small or any(not rows.isdisjoint(values_in(step.args)) for step in after):
            return []
        used = [*dict.fromkeys(values_in([step.args for step in self.inside]))]
        sources = [v for v in used if v in self.twins and v not in made]
        collected = [v for v in outputs if v in made and v not in self.sums]
        self.shared = [v for v in used if v not in self.twins and v.array is None]
        self.sources, self.results = ([self.twins[v] for v in some] for some in (sources, sums + collected))
        self.steps = [self._in_chunk(step) for step in self.inside]
        parts = [Value("result", np.empty((self.count, *v.shape), v.dtype)) for v in sums]  # a row for each chunk
        step = copy(self.inside[0])
        step.op, step.args, step.out = self, (sources, self.shared, parts + collected, sums), None
        return [*before, step, *after]

    def _divide(self, step: Step) -> bool:
        """Whether a step treats rows one by one, or adds them up; then it is one of those inside."""
        op, args, out = step.op, step.args, step.out
        # Positions of arguments as long as the batch. They may have this length by chance: the op declares where it
        # takes rows one by one, and where it adds them up.
        long = {i for i, a in enumerate(args) if isinstance(a, Value) and a.shape[:1] == (self.batch,)}
        known = {i for i in long if args[i] in self.twins}
        across = op in (reduction.sum.op, reduction.mean.op) and 0 in axes_of(args[1], len(args[0].shape))
        by_row = out.shape[:1] == (self.batch,) and not across and op.rows is not None
        same_rank = [i for i in long if len(args[i].shape) == len(out.shape)]
        places = long.intersection((op.rows or same_rank) if by_row else op.added or ())
        fresh = {args[i] for i in places - known}
        if not known or not known <= places or not fresh.isdisjoint(self._whole):
            return False
        self._whole.update(args[i] for i in long - places)
        self.twins |= {value: value.twin(self.size) for value in fresh}
        self.twins[out] = out.twin(self.size) if by_row else out.twin()
        self.sums |= {} if by_row else {out: step}
        self.inside.append(step)
        return True

    def _in_chunk(self, step: Step) -> Step:
        """A step of a chunk."""
        new = copy(step)
        new.args = mapped(step.args, lambda leaf: self.twins.get(leaf, leaf) if isinstance(leaf, Value) else leaf)
        new.out = self.twins[step.out]
        if step.op is reshape.op:
            new.args = (new.args[0], *new.out.shape)
        return new

    def __call__(self, sources: Any, shared: Any, results: Any, sums: Any) -> None:
        """Compute all chunks. The arguments are the arrays of values outside of the chunks."""
        given, found = ([self._split(array) for array in some] for some in (sources, results))
        for value, array in zip(self.shared, shared, strict=True):
            value.array = array

        def compute(start: int, stop: int) -> None:
            lease = Lease(self.idle, lambda: Program(self.steps, self.sources, self.results, 1))
            chunk = lease.program
            for i in range(start, stop):
                for value, array in zip(self.sources, given, strict=True):
                    np.copyto(chunk.array(value), array[i])
                chunk.run()
                for value, array in zip(self.results, found, strict=True):
                    np.copyto(array[i], chunk.array(value))

        parallel(compute, self.count, WORTH * self.count)
        for step, total, parts in zip(self.sums.values(), sums, results, strict=False):
            np.add.reduce(parts, 0, out=total)
            if step.op is reduction.mean.op:
                np.divide(total, self.count, total)

    def _split(self, array: Any) -> Any:
        """A view of an array with an axis of chunks before that of its rows."""
        return array.reshape(self.count, len(array) // self.count, *array.shape[1:])
