"""A rewrite of a trace that leaves every bit as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ..ops.activations import _where_positive, relu
from ..ops.pooling import _max_pool2d, _unpool
from .trace import Step, Value, values_in


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
    for activation in [step for step in steps if step.op is relu.op and step.out not in outputs]:
        y = activation.out
        by_op = {step.op: step for step in uses[y]} if y is not None else {}
        pool, back, mask = (by_op.pop(f.op, None) for f in (_max_pool2d, _unpool, _where_positive))
        if y is None or pool is None or pool.out is None or by_op or (back is None) != (mask is None):
            continue
        if len(uses[y]) > 1 + 2 * (back is not None) or (back is not None and uses[back.out] != [mask]):
            continue
        (x,), (_, at), peak, out = activation.args, pool.args, pool.out.twin(), pool.out
        activation.op, activation.args, activation.out = pool.op, (x, at), peak
        pool.op, pool.args, pool.out = relu.op, (peak,), out
        if back is not None and mask is not None:
            g = back.args[0]
            masked = g.twin()
            back.op, back.args, back.out = _where_positive.op, (g, out), masked
            mask.op, mask.args = _unpool.op, (masked, x, peak, at)
