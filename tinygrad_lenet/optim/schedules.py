"""Schedules of the learning rate: each a formula of the step, with PyTorch's names and values."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ..arguments import choice, entries, flag, instance, integer, listed, number
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
        name = type(self).__name__
        self.optimizer = instance(name, "optimizer", optimizer, Optimizer, "give it before the other arguments")
        groups = optimizer.param_groups
        base_lrs = [number(name, "lr", group.get("initial_lr", group["lr"]), "[0, inf)") for group in groups]
        self._go_to(0, base_lrs)
        for group, base in zip(groups, base_lrs, strict=True):
            group.setdefault("initial_lr", base)

    def rate(self, t: int, base: float) -> float:
        """The learning rate after ``t`` steps of a group that began with ``base``."""
        raise NotImplementedError

    def step(self) -> None:
        """Go on by one."""
        self._go_to(self.last_epoch + 1, self.base_lrs)

    def _go_to(self, t: int, base_lrs: list[float]) -> None:
        """Stand after ``t`` steps; if that is refused, stay."""
        self._apply(t, base_lrs)
        self.last_epoch, self.base_lrs = t, base_lrs

    def _apply(self, t: int, base_lrs: list[float]) -> None:
        groups, name = self.optimizer.param_groups, type(self).__name__
        if len(groups) != len(base_lrs):
            raise ArgumentError(
                f"{name}: the optimizer has {len(groups)} groups, the schedule is for {len(base_lrs)}; make a new one"
            )
        try:
            rates = [self.rate(t, base) for base in base_lrs]
        except OverflowError:
            rates = [math.inf]
        if not all(map(math.isfinite, rates)):
            raise ArgumentError(
                f"{name}: after {t} steps the learning rate is no longer finite; choose a smaller factor"
            )
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._go_to(*self._standing(state))

    def _standing(self, state: dict[str, Any]) -> tuple[int, list[float]]:
        """What a state says, checked."""
        name = type(self).__name__
        epoch, rates = entries(name, state, "last_epoch", "base_lrs")
        base_lrs = [
            number(name, "base_lrs", r, "[0, inf)") for r in listed(name, "base_lrs", rates, "a list of numbers")
        ]
        if len(base_lrs) != len(self.base_lrs):
            raise ArgumentError(
                f"{name}: the state is of {len(base_lrs)} groups, this schedule of {len(self.base_lrs)}"
            )
        return integer(name, "last_epoch", epoch, 0), base_lrs


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
        self.step_size = integer("StepLR", "step_size", step_size, 1)
        self.gamma = number("StepLR", "gamma", gamma, "[0, inf)")
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
        self.gamma = number("ExponentialLR", "gamma", gamma, "[0, inf)")
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
        several = listed("MultiStepLR", "milestones", milestones, "a list of integers")
        self.milestones = sorted(integer("MultiStepLR", "each of milestones", m, 0) for m in several)
        self.gamma = number("MultiStepLR", "gamma", gamma, "[0, inf)")
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
        self.start_factor = number("LinearLR", "start_factor", start_factor, "(0, 1]")
        self.end_factor = number("LinearLR", "end_factor", end_factor, "[0, 1]")
        self.total_iters = integer("LinearLR", "total_iters", total_iters, 1)
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
        schedulers = listed("SequentialLR", "schedulers", schedulers, "a list of schedules")
        several = listed("SequentialLR", "milestones", milestones, "a list of integers")
        milestones = [integer("SequentialLR", "each of milestones", m, 0) for m in several]
        for schedule in schedulers:
            instance("SequentialLR", "each of schedulers", schedule, Schedule)
        if len(schedulers) != len(milestones) + 1 or milestones != sorted({*milestones}):
            raise ArgumentError(
                f"SequentialLR: schedulers must be one schedule more than milestones, and milestones must grow; got "
                f"{len(schedulers)} schedulers, milestones={milestones}"
            )
        if any(schedule.optimizer is not optimizer for schedule in schedulers):
            raise ArgumentError("SequentialLR: all schedulers must be made with the same optimizer as this one")
        self.schedulers, self.milestones = schedulers, milestones
        super().__init__(optimizer)

    def _apply(self, t: int, base_lrs: list[float]) -> None:
        now = bisect.bisect_right(self.milestones, t)
        current = self.schedulers[now]
        current._go_to(t - (self.milestones[now - 1] if now else 0), current.base_lrs)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedules stand."""
        return {**super().state_dict(), "schedulers": [schedule.state_dict() for schedule in self.schedulers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        standing = self._standing(state)
        for schedule, its in zip(self.schedulers, state["schedulers"], strict=True):
            schedule.load_state_dict(its)
        self._go_to(*standing)

    def _standing(self, state: dict[str, Any]) -> tuple[int, list[float]]:
        given = listed(
            "SequentialLR", "schedulers", entries("SequentialLR", state, "schedulers")[0], "a list of states"
        )
        if len(given) != len(self.schedulers):
            raise ArgumentError(
                f"SequentialLR: the state is of {len(given)} schedulers, expected {len(self.schedulers)}"
            )
        for schedule, its in zip(self.schedulers, given, strict=True):
            schedule._standing(its)
        return super()._standing(state)


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
        self.T_max = integer("CosineAnnealingLR", "T_max", T_max, 1)
        self.eta_min = number("CosineAnnealingLR", "eta_min", eta_min, "[0, inf)")
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
        who = "OneCycleLR"
        instance(who, "optimizer", optimizer, Optimizer)
        epochs = None if epochs is None else integer(who, "epochs", epochs, 1)
        steps_per_epoch = None if steps_per_epoch is None else integer(who, "steps_per_epoch", steps_per_epoch, 1)
        if total_steps is None and epochs is not None and steps_per_epoch is not None:
            total_steps = epochs * steps_per_epoch
        if total_steps is None:
            raise ArgumentError(f"{who}: give total_steps, or epochs and steps_per_epoch, all at least 1")
        self.total_steps = total_steps = integer(who, "total_steps", total_steps, 1, 2**53)
        max_lr, pct_start = number(who, "max_lr", max_lr, "[0, inf)"), number(who, "pct_start", pct_start, "[0, 1]")
        anneal_strategy = choice(who, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        cycle_momentum, three_phase = flag(who, "cycle_momentum", cycle_momentum), flag(who, "three_phase", three_phase)
        base_momentum = number(who, "base_momentum", base_momentum, "[0, 1)")
        max_momentum = number(who, "max_momentum", max_momentum, "[0, 1)")
        div_factor = number(who, "div_factor", div_factor, "(0, inf)")
        final_div_factor = number(who, "final_div_factor", final_div_factor, "(0, inf)")
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
        before = [dict(group) for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["initial_lr"] = low
        try:
            super().__init__(optimizer)
        except ArgumentError:
            for group, old in zip(optimizer.param_groups, before, strict=True):
                group.clear()
                group.update(old)
            raise

    def _at(self, t: int) -> tuple[float, float]:
        """Learning rate and momentum at step ``t``."""
        if t > self.total_steps:
            raise ArgumentError(
                f"OneCycleLR: step {t} of total_steps={self.total_steps}; make the schedule as long as the training"
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

    def _apply(self, t: int, base_lrs: list[float]) -> None:
        super()._apply(t, base_lrs)
        if self.cycle_momentum:
            momentum = self._at(t)[1]
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
