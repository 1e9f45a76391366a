"""Rewrites of a trace: pooling before ReLU, and chunks of the batch.

Most ops of a network treat the rows of a batch (the elements of its first axis, such as images) one by one. The steps
between the first use of the batch and the sums over it, such as a loss and the gradients of weights, are replaced by
one step, whose op is a :class:`Chunks`. It computes them for one chunk of the rows after another. A chunk fits into the
cache, and the cores share the chunks. Their sums are added in order, so results do not depend on the number of threads;
they differ from those of the whole batch by rounding.

An op declares how it treats rows (:meth:`Primitive.planned`). ``op.rows`` are the positions of the arguments that it
takes row by row: row i of the result depends on their rows i. With an empty ``rows`` it is elementwise. ``op.added``
are the positions of the arguments over whose rows the result is a sum.
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
    either order; in any other, the first maximum is the same pixel.

    The steps are changed where they are:

        a = relu(x)                           p = max_pool2d(x)
        y = max_pool2d(a)                     y = relu(p)
        ...                                   ...
        u = _unpool(g, a, y)                  u = _where_positive(g, y)    # g where y > 0, else 0
        v = _where_positive(u, a)             v = _unpool(u, x, p)
    """
    uses: dict[Value, list[Step]] = defaultdict(list)
    for step in steps:
        for value in values_in(step.args):
            uses[value].append(step)
    ops = [_max_pool2d.op, _unpool.op, _where_positive.op]
    for activation in [step for step in steps if step.op is relu.op and step.out not in outputs]:
        users = uses[activation.out]
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
    """The steps, with one step for those on rows of the batch if that pays; else the steps as they are.

    The first input says how long the batch is. It pays if all work on rows is inside of that step, and the sums are
    small beside the rows.
    """
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else 0
    size = next((n for n in range(_ROWS, _ROWS * 3 // 4 - 1, -1) if n < batch and batch % n == 0), 0)
    if not size:
        return steps
    chunks, before, after = Chunks(batch, size, inputs), list[Step](), list[Step]()
    effect = next((i for i, step in enumerate(steps) if step.out is None), len(steps))  # the first
    when: dict[Value, int] = {}  # known 0: before the chunks; 1: inside of them; 2: after them, as are their sums
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
    """The op of the step that computes all chunks. Its program is the steps inside, for the values of one chunk.

    It is filled by :meth:`take`, step by step, and finished by :meth:`joined`.
    """

    name = "chunks"

    def __init__(self, batch: int, size: int, inputs: Sequence[Value]) -> None:
        self.batch, self.size, self.count = batch, size, batch // size
        # For values with the rows of the batch, and for sums over its rows, the value of the same in one chunk.
        self.twins = {v: v.twin(size) for v in inputs if v.shape[:1] == (batch,)}
        self.steps: list[Step] = []  # of one chunk
        self.sums: dict[Value, Any] = {}  # sums or means over the rows, and the function that joins those of the chunks

    def take(self, step: Step) -> bool:
        """Take a step inside and return True, if it treats rows of the batch one by one, or adds them up."""
        op, args, out = step.op, step.args, step.out
        # Positions of arguments as long as the batch. They may have this length by chance, as a square weight has. So
        # each that is known to have rows of the batch must be where the op takes rows, or adds them up.
        long = {i for i, a in enumerate(args) if isinstance(a, Value) and a.shape[:1] == (self.batch,)}
        known = {i for i in long if args[i] in self.twins}
        across = op in (reduction.sum.op, reduction.mean.op) and 0 in axes_of(args[1], len(args[0].shape))
        by_row = out.shape[:1] == (self.batch,) and not across and op.rows is not None
        # An elementwise op takes rows of the arguments with as many axes as the result: others are broadcast to rows.
        same_rank = [i for i in long if len(args[i].shape) == len(out.shape)]
        places = long.intersection((op.rows or same_rank) if by_row else op.added or ())
        if not known or not known <= places:
            return False
        self.twins |= {args[i]: args[i].twin(self.size) for i in places - known}
        args = mapped(args, lambda leaf: self.twins.get(leaf, leaf) if isinstance(leaf, Value) else leaf)
        twin = self.twins[out] = out.twin(self.size) if by_row else out.twin()
        self.steps.append(Step(op, (args[0], *twin.shape) if op is reshape.op else args, twin, step.line))
        if not by_row:
            self.sums[out] = np.mean if op is reduction.mean.op else np.sum
        return True

    def joined(self, before: list[Step], after: list[Step], outputs: Sequence[Value]) -> list[Step]:
        """The steps before the chunks, one step for all chunks, and the steps after them; none if chunks do not pay."""
        # The sums of all chunks are kept until they are joined. No step after the chunks may need rows: these exist for
        # one chunk at a time, but for outputs of the function, which are collected.
        sums, rows = [*self.sums], self.twins.keys() - self.sums.keys()
        small = 0 < 4 * self.count * sum(v.high - v.low for v in sums) <= sum(v.high - v.low for v in rows)
        if not small or not rows.isdisjoint(values_in([step.args for step in after])):
            return []
        used = dict.fromkeys(values_in([step.args for step in self.steps])).keys()
        made = {step.out for step in self.steps}
        # The chunks get rows (sources) and whole values (shared) from other steps. Arrays from outside stay in place.
        sources = [v for v, twin in self.twins.items() if twin in used and twin not in made]
        shared = [v for v in used - {*self.twins.values()} if v.array is None]
        collected = [v for v in outputs if v in rows and self.twins[v] in made]
        self.results = [self.twins[v] for v in (*sums, *collected)]
        self.programs = Programs(self.steps, [*(self.twins[v] for v in sources), *shared], self.results, 1)
        parts = [Value("result", np.empty((self.count, *v.shape), v.dtype)) for v in sums]  # a row for each chunk
        step = Step(self, (sources, shared, parts + collected, sums), None, self.steps[0].line)
        return [*before, step, *after]

    def __call__(self, sources: Any, shared: Any, results: Any, sums: Any) -> None:
        """Compute all chunks. The arguments are lists of arrays of the whole program.

        They are the inputs with rows and those without; for each result of a chunk, an array for those of all chunks,
        one after the other; and the arrays for the joined sums.
        """

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
