"""A schedule that overwrites the learning rate, and momentum too."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from ..checks import Decay, NonNegative, PositiveReal, Probability, instance, integer
from ..core.signature import checked
from ..errors import ArgumentError
from .base import Optimizer
from .schedules import Schedule, _cosine, _linear, _Standing

Steps: TypeAlias = Annotated[int, partial(integer, least=1, most=2**53)]


class OneCycleLR(Schedule):
    """Up from ``max_lr / div_factor`` to ``max_lr``, then down to that start divided by ``final_div_factor``; one step
    a batch.

    Momentum (or Adam's first beta) goes the other way (Smith & Topin, *Super-convergence*, 2018; PyTorch's two phases,
    or three: up, down to the start, down to the end).

    Args:
        optimizer: its learning rate is overwritten.
        max_lr: the highest learning rate.
        total_steps: the number of steps; or ``epochs`` and ``steps_per_epoch``, whose product it is.
        epochs: see ``total_steps``.
        steps_per_epoch: see ``total_steps``.
        pct_start: the part of the steps that go up.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum: whether momentum changes too.
        base_momentum: its lowest value.
        max_momentum: its highest value.
        div_factor: see above.
        final_div_factor: see above.
        three_phase: see above.

    Raises:
        ArgumentError: no number of steps, an option outside of its range, or an optimiser without momentum.

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

    @checked
    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: NonNegative,
        total_steps: Steps | None = None,
        epochs: Steps | None = None,
        steps_per_epoch: Steps | None = None,
        pct_start: Probability = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: Decay = 0.85,
        max_momentum: Decay = 0.95,
        div_factor: PositiveReal = 25.0,
        final_div_factor: PositiveReal = 1e4,
        three_phase: bool = False,
    ) -> None:
        instance("optimizer", optimizer, Optimizer)
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = integer("epochs * steps_per_epoch", epochs * steps_per_epoch, 1, 2**53)
        if total_steps is None:
            raise ArgumentError("give total_steps, or epochs and steps_per_epoch, all at least 1")
        self.total_steps = total_steps
        self.anneal = _cosine if anneal_strategy == "cos" else _linear
        low, end = max_lr / div_factor, max_lr / div_factor / final_div_factor
        up = float(pct_start * total_steps) - 1
        # (last step, learning rate there, momentum there), and where the first phase begins
        self.start = (low, max_momentum)
        self.phases = [(up, max_lr, base_momentum), (total_steps - 1, end, max_momentum)]
        if three_phase:
            self.phases[1:] = [(2 * up, low, max_momentum), (total_steps - 1, end, max_momentum)]
        self.cycle_momentum = cycle_momentum
        if cycle_momentum and not {"momentum", "betas"} & set(optimizer.defaults):
            raise ArgumentError(f"{type(optimizer).__name__} has no momentum to cycle; pass cycle_momentum=False")
        before = [dict(group) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["initial_lr"] = low
        try:
            super().__init__(optimizer)
        except Exception:
            for group, old in zip(optimizer.param_groups, before, strict=True):
                group.clear()
                group.update(old)
            raise

    def _at(self, t: int) -> tuple[float, float]:
        """Learning rate and momentum at step ``t``."""
        if t > self.total_steps:
            raise ArgumentError(
                f"step {t} of total_steps={self.total_steps}; make the schedule as long as the training"
            )
        begin, (lr, momentum) = 0.0, self.start
        for i, (end, next_lr, next_momentum) in enumerate(self.phases, 1):
            if t <= end or i == len(self.phases):
                part = (t - begin) / (end - begin) if end != begin else 1.0
                return self.anneal(lr, next_lr, part), self.anneal(momentum, next_momentum, part)
            begin, lr, momentum = end, next_lr, next_momentum
        raise AssertionError("the last phase takes every step")

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        return self._at(t)[0]

    def _chained(self, t: int, lr: float, base: float) -> float:
        return self.rate(t, base)

    def _set(self, t: int, rates: list[float]) -> None:
        super()._set(t, rates)
        if self.cycle_momentum:
            self._set_momentum(t)

    def _set_momentum(self, t: int) -> None:
        momentum = self._at(t)[1]
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum

    def _standing(self, state: dict[str, Any]) -> _Standing:
        standing = super()._standing(state)
        self._at(standing.last_epoch)  # refuses what is beyond the last step
        return standing

    def _take(self, standing: _Standing) -> None:
        super()._take(standing)
        groups = self.optimizer.param_groups
        if self.cycle_momentum and all(
            group.get("betas", [group.get("momentum")])[0] == self.start[1] for group in groups
        ):
            self._set_momentum(standing.last_epoch)  # it is what making this schedule set
