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
