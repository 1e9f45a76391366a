"""Schedules of the learning rate: each a formula of the step, with PyTorch's names and values."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import ArgumentError
from .optimizers import Optimizer


class Schedule:
    """Base: sets the ``lr`` of every group of an optimiser, at construction and at each :meth:`step`.

    Call :meth:`step` after ``optimizer.step()``, once an epoch or once a batch, as the schedule is meant.

    >>> import tinygrad_lenet as tl
    >>> class Inverse(tl.optim.Schedule):
    ...     def rate(self, t, base):
    ...         return base / (1 + t)
    >>> schedule = Inverse(tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
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

    Raises:
        ArgumentError: ``step_size`` is below 1.

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
    """``base * gamma ** t``.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = tl.optim.ExponentialLR(optimizer, gamma=0.5)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        return float(base * self.gamma**t)


class MultiStepLR(Schedule):
    """``base * gamma ** k`` after ``k`` of the milestones; one that is named twice counts twice.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = tl.optim.MultiStepLR(optimizer, milestones=[1, 3], gamma=0.5)
    >>> for _ in range(4):
    ...     print(schedule.get_last_lr())
    ...     schedule.step()
    [1.0]
    [0.5]
    [0.5]
    [0.25]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        return float(base * self.gamma ** bisect.bisect_right(self.milestones, t))


class LinearLR(Schedule):
    """From ``base * start_factor`` in a straight line to ``base * end_factor``, in ``total_iters`` steps: a warm-up.

    Raises:
        ArgumentError: a factor outside of 0 … 1, or ``total_iters`` below 1.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = tl.optim.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> for _ in range(4):
    ...     print(schedule.get_last_lr())
    ...     schedule.step()
    [0.5]
    [0.75]
    [1.0]
    [1.0]
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1:
            raise ArgumentError(
                f"LinearLR: start_factor lies above 0 and end_factor from 0 on, both up to 1; got {start_factor}, "
                f"{end_factor}"
            )
        if total_iters < 1:
            raise ArgumentError(f"LinearLR: total_iters must be at least 1, got {total_iters}")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def rate(self, t: int, base: float) -> float:
        """See the class."""
        return base * _linear(self.start_factor, self.end_factor, min(t / self.total_iters, 1.0))


class SequentialLR(Schedule):
    """One schedule after the other: number ``i + 1`` begins, from its start, at step ``milestones[i]``.

    Raises:
        ArgumentError: not one schedule more than milestones, milestones that do not grow, or another optimiser.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0)
    >>> warm_up = tl.optim.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> decay = tl.optim.ExponentialLR(optimizer, gamma=0.1)
    >>> schedule = tl.optim.SequentialLR(optimizer, [warm_up, decay], milestones=[2])
    >>> for _ in range(4):
    ...     print(schedule.get_last_lr())
    ...     schedule.step()
    [0.5]
    [0.75]
    [1.0]
    [0.1]
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[Schedule], milestones: Sequence[int]) -> None:
        if len(schedulers) != len(milestones) + 1 or list(milestones) != sorted({*milestones}):
            raise ArgumentError(
                f"SequentialLR: expected one schedule more than milestones, and milestones that grow; got "
                f"{len(schedulers)} schedules, milestones={list(milestones)}"
            )
        if any(schedule.optimizer is not optimizer for schedule in schedulers):
            raise ArgumentError("SequentialLR: all schedules must be made with the same optimizer as this one")
        self.schedulers, self.milestones = list(schedulers), list(milestones)
        super().__init__(optimizer)

    def _apply(self) -> None:
        now = bisect.bisect_right(self.milestones, self.last_epoch)
        current = self.schedulers[now]
        current.last_epoch = self.last_epoch - (self.milestones[now - 1] if now else 0)
        current._apply()

    def state_dict(self) -> dict[str, Any]:
        """Where the schedules stand."""
        return {**super().state_dict(), "schedulers": [schedule.state_dict() for schedule in self.schedulers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for schedule, its in zip(self.schedulers, state["schedulers"], strict=True):
            schedule.load_state_dict(its)
        super().load_state_dict(state)


class ReduceLROnPlateau:
    """Multiply the learning rate by ``factor`` when a figure has not got better for more than ``patience`` steps.

    Call ``step(figure)`` once an epoch, with the validation loss or the like.

    Args:
        optimizer: whose learning rates to change.
        mode: ``"min"``: smaller is better; ``"max"``: larger.
        factor: below 1.
        patience: steps without progress that are let pass.
        threshold: how much better counts: a share of the best figure so far, or a difference.
        threshold_mode: ``"rel"`` or ``"abs"``.
        cooldown: steps after a change in which none is counted.
        min_lr: the lowest learning rate; one for all groups, or a list.
        eps: a change smaller than this is not made.

    Raises:
        ArgumentError: an unknown mode, a ``factor`` of 1 or more, or not as many ``min_lr`` as groups.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = tl.optim.ReduceLROnPlateau(optimizer, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 1.0):
    ...     schedule.step(loss)
    ...     print(schedule.get_last_lr())
    [1.0]
    [1.0]
    [1.0]
    [0.1]
    [0.1]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ArgumentError(
                f"ReduceLROnPlateau: mode is 'min' or 'max', threshold_mode 'rel' or 'abs'; got {mode!r}, "
                f"{threshold_mode!r}"
            )
        if not factor < 1:
            raise ArgumentError(f"ReduceLROnPlateau: factor must be below 1, got {factor}")
        groups = optimizer.param_groups
        self.min_lrs = list(min_lr) if isinstance(min_lr, (list, tuple)) else [min_lr] * len(groups)
        if len(self.min_lrs) != len(groups):
            raise ArgumentError(f"ReduceLROnPlateau: {len(groups)} groups need as many min_lr, got {min_lr}")
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Go on by one, with the figure that was reached."""
        figure = float(metrics)
        self.last_epoch += 1
        if self._better(figure):
            self.best, self.num_bad_epochs = figure, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
                lower = max(group["lr"] * self.factor, least)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower

    def _better(self, figure: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * figure > sign * self.best * (1 + sign * self.threshold)
        return sign * figure > sign * self.best + self.threshold

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands."""
        return {name: getattr(self, name) for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for name in self.state_dict():
            setattr(self, name, state[name])


class CosineAnnealingLR(Schedule):
    """``eta_min + (base - eta_min) * (1 + cos(pi * t / T_max)) / 2`` (Loshchilov & Hutter, *SGDR*, 2017, equation 5):
    half a cosine down, and up again after ``T_max`` steps.

    Raises:
        ArgumentError: ``T_max`` is below 1.

    >>> import tinygrad_lenet as tl
    >>> optimizer = tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = tl.optim.CosineAnnealingLR(optimizer, T_max=2)
    >>> for _ in range(3):
    ...     print(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    1.0
    0.5
    0.0
    """

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
