"""Schedules of the learning rate: each a formula of the step, with PyTorch's names and values."""

from __future__ import annotations

import math
from typing import Any

from ..errors import ArgumentError
from .optimizers import Optimizer


class Schedule:
    """Base: sets the ``lr`` of every group of an optimiser, at construction and at each :meth:`step`.

    Call :meth:`step` after ``optimizer.step()``, once an epoch or once a batch, as the schedule is meant.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.base_lrs: list[Any] = [group.setdefault("initial_lr", group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._apply()

    def rate(self, t: int, base: float) -> float:
        """The learning rate after ``t`` steps of a group that began with ``base``."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on by one."""
        self.last_epoch += 1
        self._apply()

    def _apply(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.rate(self.last_epoch, base)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.last_epoch, self.base_lrs = int(state["last_epoch"]), list(state["base_lrs"])
        self._apply()


class StepLR(Schedule):
    """``base * gamma ** floor(t / step_size)``.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = tl.optim.StepLR(optimizer, step_size=2)
    >>> for _ in range(4):
    ...     print(schedule.get_last_lr())
    ...     schedule.step()
    [1.0]
    [1.0]
    [0.1]
    [0.1]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise ArgumentError(f"StepLR: step_size must be at least 1, got {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        return float(base * self.gamma ** (t // self.step_size))


class ExponentialLR(Schedule):
    """``base * gamma ** t``."""

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        return float(base * self.gamma**t)


class CosineAnnealingLR(Schedule):
    """``eta_min + (base - eta_min) * (1 + cos(pi * t / T_max)) / 2`` (Loshchilov & Hutter, SGDR, 2017, equation 5)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise ArgumentError(f"CosineAnnealingLR: T_max must be at least 1, got {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        return _cosine(base, self.eta_min, t / self.T_max)


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2


def _linear(start: float, end: float, part: float) -> float:
    return start + (end - start) * part


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
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = epochs * steps_per_epoch
        if total_steps is None or total_steps < 1:
            raise ArgumentError("OneCycleLR: give total_steps, or epochs and steps_per_epoch, all at least 1")
        if not 0 <= pct_start <= 1:
            raise ArgumentError(f"OneCycleLR: pct_start lies between 0 and 1, got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(f"OneCycleLR: anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
        for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            if not value > 0:
                raise ArgumentError(f"OneCycleLR: {name} must be above 0, got {value}")
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
            raise ArgumentError(
                f"OneCycleLR: {type(optimizer).__name__} has no momentum to cycle; pass cycle_momentum=False"
            )
        for group in optimizer.param_groups:
            group["initial_lr"] = low
        super().__init__(optimizer)

    def _at(self, t: int) -> tuple[float, float]:
        """Learning rate and momentum at step ``t``."""
        if t > self.total_steps:
            raise ArgumentError(
                f"OneCycleLR: step {t} of {self.total_steps}; make the schedule as long as the training"
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

    def _apply(self) -> None:
        super()._apply()
        if self.cycle_momentum:
            momentum = self._at(self.last_epoch)[1]
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
