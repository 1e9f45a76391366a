"""A schedule that overwrites the learning rate and the momentum."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from ..checks import Decay, PositiveReal, Probability, instance, integer
from ..errors import ArgumentError
from .base import Optimizer, declared
from .schedule import Schedule, per_group
from .schedules import _cosine, _linear

__all__ = ["OneCycleLR"]

Steps: TypeAlias = Annotated[int, partial(integer, least=1, most=2**53)]


@declared
class OneCycleLR(Schedule):
    """Raise the learning rate from ``max_lr / div_factor`` to ``max_lr``, then lower it far below the start.

    Call :meth:`step` once a batch. Momentum, or Adam's first beta, goes the other way (Smith & Topin,
    *Super-convergence*, 2018). The last rate is ``max_lr / div_factor / final_div_factor``.

    Args:
        optimizer: the optimiser whose learning rate is overwritten.
        max_lr: the highest learning rate: a number for all groups, or a list.
        total_steps: the number of steps; or give ``epochs`` and ``steps_per_epoch``, whose product it is.
        epochs: see ``total_steps``.
        steps_per_epoch: see ``total_steps``.
        pct_start: the fraction of the steps during which the rate rises.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: whether momentum changes too.
        base_momentum: its lowest value.
        max_momentum: its highest value.
        div_factor: the highest rate divided by the first.
        final_div_factor: the first rate divided by the last.
        three_phase: whether the rate falls in two phases: to its start, as steeply as it rose, and then to its end.

    Raises:
        ArgumentError: no number of steps, an option outside its range, an optimiser without momentum, or a list
            ``max_lr`` of another length than the groups.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    >>> schedule = tl.optim.OneCycleLR(optimizer, max_lr=1.0, total_steps=5, pct_start=0.4)
    >>> for _ in range(5):
    ...     print(f"{optimizer.param_groups[0]['lr']:.3g} {optimizer.param_groups[0]['momentum']:.3g}")
    ...     schedule.step()
    0.04 0.95
    1 0.85
    0.75 0.875
    0.25 0.925
    4e-06 0.95
    """

    max_lr: float | Sequence[float]
    total_steps: Steps | None = None
    epochs: Steps | None = None
    steps_per_epoch: Steps | None = None
    pct_start: Probability = 0.3
    anneal_strategy: Literal["cos", "linear"] = "cos"
    cycle_momentum: bool = True
    base_momentum: Decay = 0.85
    max_momentum: Decay = 0.95
    div_factor: PositiveReal = 25.0
    final_div_factor: PositiveReal = 1e4
    three_phase: bool = False

    def __post_init__(self) -> None:
        optimizer = instance("optimizer", self.optimizer, Optimizer)
        if self.total_steps is None and self.epochs and self.steps_per_epoch:
            self.total_steps = integer("epochs * steps_per_epoch", self.epochs * self.steps_per_epoch, 1, 2**53)
        if self.total_steps is None:
            raise ArgumentError("give total_steps, or epochs and steps_per_epoch, all at least 1")
        if self.cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ArgumentError(f"{type(optimizer).__name__} has no momentum to cycle; pass cycle_momentum=False")
        self.anneal = _cosine if self.anneal_strategy == "cos" else _linear
        highest = per_group("max_lr", self.max_lr, len(optimizer.param_groups))
        self.max_lr = highest if isinstance(self.max_lr, (list, tuple)) else highest[0]
        for group, most in zip(optimizer.param_groups, highest, strict=True):
            group["initial_lr"] = most / self.div_factor
        super().__post_init__()

    def _at(self, t: int, highest: float) -> tuple[float, float]:
        """Learning rate and momentum at step ``t``."""
        total: Any = self.total_steps
        if t > total:
            raise ArgumentError(f"step {t} of total_steps={total}; make the schedule longer")
        low, peak = highest / self.div_factor, float(self.pct_start * total) - 1
        # The start, and the end of each phase, as step, rate and momentum.
        phases = [(0.0, low, self.max_momentum), (peak, highest, self.base_momentum)]
        if self.three_phase:
            phases.append((2 * peak, low, self.max_momentum))
        phases.append((total - 1, low / self.final_div_factor, self.max_momentum))
        phase = bisect.bisect_left([end for end, *_ in phases[1:-1]], t)
        begin, lr, momentum = phases[phase]
        end, next_lr, next_momentum = phases[phase + 1]
        part = (t - begin) / (end - begin) if end != begin else 1.0
        return self.anneal(lr, next_lr, part), self.anneal(momentum, next_momentum, part)

    def _chained(self, t: int, lr: float, base: float) -> float:
        return self.rate(t, base)

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        highest: Any = base * self.div_factor if isinstance(self.max_lr, list) else self.max_lr
        return self._at(t, highest)[0]

    def _take(self, state: dict[str, Any]) -> None:
        super()._take(state)
        momentum = self._at(self.last_epoch, 1.0)[1]
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
