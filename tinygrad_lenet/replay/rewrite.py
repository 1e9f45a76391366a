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
from typing import Any

import numpy as np

from ..core.values import mapped
from ..kernels.threads import WORTH, parallel
from ..ops import reduction
from ..ops.activations import _where_positive, relu
from ..ops.pooling import _max_pool2d, _unpool
from ..ops.shape import axes_of, reshape
from .program import Programs
from .trace import Step, Value, values_in

_ROWS = 64  # of a chunk, at most, and three quarters of it at least; with fewer, calls take longer than the arithmetic


def pool_first(steps: Sequence[Step], outputs: Sequence[Value]) -> None:
    """Replace ``max_pool2d(relu(x))`` by ``relu(max_pool2d(x))``, forward and backward, in place.

    ReLU is monotone, so both are equal, and with windows of 2 x 2 a quarter of the elements goes through it. The
    gradient is masked before it is distributed to the pixels. A window whose maximum is 0 or less passes on nothing in
    either order; in any other, the first maximum is the same pixel. Not in float16, where ReLU leaves -0.0 as it is, so
    a maximum of 0 may have either sign.
    """
    uses: dict[Value, list[Step]] = defaultdict(list)
    for step in steps:
        for value in values_in(step.args):
            uses[value].append(step)
    ops = [_max_pool2d.op, _unpool.op, _where_positive.op]
    for activation in [step for step in steps if step.op is relu.op and step.out not in outputs]:
        users = uses[activation.out] if activation.out.dtype != np.float16 else []
        found, backward = [step.op for step in users], users[1:]
        if found not in (ops, ops[:1]) or (backward and uses[backward[0].out] != backward[1:]):
            continue
        pool = users[0]
        (x,), (_, at), peak = activation.args, pool.args, pool.out.twin()
        activation.op, activation.args, activation.out = pool.op, (x, at), peak
        pool.op, pool.args = relu.op, (peak,)
        if backward:
            back, mask = backward
            g, masked = back.args[0], back.args[0].twin()
            back.op, back.args, back.out = _where_positive.op, (g, pool.out), masked
            mask.op, mask.args = _unpool.op, (masked, x, peak, at)


def divided(steps: list[Step], inputs: Sequence[Value], outputs: Sequence[Value]) -> list[Step]:
    """The steps, with one step for those on rows of the batch if that pays. The first input says how long the batch is.

    It pays if all work on rows is inside of that step, and the sums are small beside the rows.
    """
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
    size = next((n for n in range(_ROWS, _ROWS * 3 // 4 - 1, -1) if n < batch and batch % n == 0), 0)
    if not size:
        return steps
    chunks, before, after = Chunks(batch, size, inputs), list[Step](), list[Step]()
    effect = next((i for i, step in enumerate(steps) if step.out is None), len(steps))
    when: dict[Value, int] = {}  # 0: before the chunks; 1: inside of them; 2: after them, as are their sums
    for step in steps[:effect]:
        now = max((when.get(v, 0) for v in values_in(step.args)), default=0)
        if now < 2 and chunks.take(step):
            when[step.out] = 2 if step.out in chunks.sums else 1
        else:
            (after if now else before).append(step)
            when[step.out] = 2 if now else 0
    after += steps[effect:]  # they may read what the effect has changed
    return chunks.joined(before, after, outputs) or steps


class Chunks:
    """The op of the step that computes all chunks. Its program is the steps inside, for the values of one chunk."""

    name = "chunks"

    def __init__(self, batch: int, size: int, inputs: Sequence[Value]) -> None:
        self.batch, self.size, self.count = batch, size, batch // size
        # Values with a row for each of the batch, and sums over rows; and those of a chunk.
        self.twins = {v: v.twin(size) for v in inputs if v.shape[:1] == (batch,)}
        self.made: set[Value] = set()  # those of them that steps inside compute
        self.steps: list[Step] = []  # of one chunk
        self.sums: dict[Value, Any] = {}  # results that are sums over rows; and the function that joins those of chunks

    def take(self, step: Step) -> bool:
        """Take a step inside and return True, if it treats rows one by one, or adds them up."""
        op, args, out = step.op, step.args, step.out
        # Positions of arguments as long as the batch. They may have this length by chance: the op declares where it
        # takes rows one by one, and where it adds them up.
        long = {i for i, a in enumerate(args) if isinstance(a, Value) and a.shape[:1] == (self.batch,)}
        known = {i for i in long if args[i] in self.twins}
        across = op in (reduction.sum.op, reduction.mean.op) and 0 in axes_of(args[1], len(args[0].shape))
        by_row = out.shape[:1] == (self.batch,) and not across and op.rows is not None
        same_rank = [i for i in long if len(args[i].shape) == len(out.shape)]
        places = long.intersection((op.rows or same_rank) if by_row else op.added or ())
        if not known or not known <= places:
            return False
        self.twins |= {args[i]: args[i].twin(self.size) for i in places - known}
        args = mapped(args, lambda leaf: self.twins.get(leaf, leaf) if isinstance(leaf, Value) else leaf)
        twin = self.twins[out] = out.twin(self.size) if by_row else out.twin()
        self.made.add(out)
        self.steps.append(Step(op, (args[0], *twin.shape) if op is reshape.op else args, twin, step.line))
        if not by_row:
            self.sums[out] = np.mean if op is reduction.mean.op else np.sum
        return True

    def joined(self, before: list[Step], after: list[Step], outputs: Sequence[Value]) -> list[Step]:
        """The steps before the chunks, one step for all chunks, and the steps after them; none if chunks do not pay."""
        sums, rows = [*self.sums], self.twins.keys() - self.sums.keys()
        small = 0 < 4 * self.count * sum(v.high - v.low for v in sums) <= sum(v.high - v.low for v in rows)
        if not small or not rows.isdisjoint(values_in([step.args for step in after])):
            return []
        used = dict.fromkeys(values_in([step.args for step in self.steps])).keys()
        sources = [v for v, twin in self.twins.items() if twin in used and v not in self.made]
        shared = [v for v in used - {*self.twins.values()} if v.array is None]
        collected = [v for v in outputs if v in self.made and v in rows]
        self.results = [self.twins[v] for v in (*sums, *collected)]
        self.programs = Programs(self.steps, [*(self.twins[v] for v in sources), *shared], self.results, 1)
        parts = [Value("result", np.empty((self.count, *v.shape), v.dtype)) for v in sums]  # a row for each chunk
        step = Step(self, (sources, shared, parts + collected, sums), None, self.steps[0].line)
        return [*before, step, *after]

    def __call__(self, sources: Any, shared: Any, results: Any, sums: Any) -> None:
        """Compute all chunks. The arguments are the arrays of values outside of the chunks."""

        def compute(start: int, stop: int) -> None:
            lease = self.programs.lent()
            chunk = next(lease)
            for i in range(start, stop):
                chunk.load([*(self._part(i, array) for array in sources), *shared])
                chunk.run()
                for value, array in zip(self.results, results, strict=True):
                    np.copyto(self._part(i, array), chunk.array(value))

        parallel(compute, self.count, WORTH * self.count)
        for join, parts, total in zip(self.sums.values(), results, sums, strict=False):
            join(parts, 0, out=total)

    def _part(self, i: int, array: Any) -> Any:
        """The rows of chunk i of an array."""
        length = len(array) // self.count
        return array[i * length : (i + 1) * length]
