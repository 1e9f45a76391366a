"""The base of the schedules of the learning rate: a step changes the rate of each group of an optimiser."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from ..checks import Check, entries, instance, integer, listed, number
from ..core.modes import tracer
from ..core.signature import checked
from ..errors import ArgumentError
from .base import Optimizer, declared

__all__ = ["Schedule"]

_rate: Check = partial(number, interval="[0, inf)")
_count: Check = partial(integer, least=0)


def each(name: str, value: Any, check: Check) -> list[Any]:
    """The elements of a list, checked one by one."""
    return [check(f"each of {name}", element) for element in listed(name, value, "a list")]


def rates_of(name: str, value: Any, interval: str = "(-inf, inf)") -> list[float]:
    """A list of numbers in an interval."""
    return each(name, value, partial(number, interval=interval))


def per_group(name: str, value: Any, count: int, check: Check = _rate) -> list[Any]:
    """What each of an optimiser's groups gets: one for all, or the elements of a list."""
    if not isinstance(value, (list, tuple)):
        return [check(name, value)] * count
    if len(value) != count:
        raise ArgumentError(f"{name} must be one for all groups, or one for each of the {count}, got {len(value)}")
    return each(name, value, check)


@declared
class Rates:
    """The base of all schedules: the learning rates of an optimiser's groups."""

    optimizer: Optimizer

    def __post_init__(self) -> None:
        instance("optimizer", self.optimizer, Optimizer, "give it before the other arguments")
        self.last_epoch = 0
        self._last_lr = self._lrs()

    def _lrs(self) -> list[float]:
        """The present rate of each group."""
        return [number("lr", group.get("lr")) for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group after the last step of this schedule."""
        return list(self._last_lr)


class Schedule(Rates):
    """Base of schedules that are a formula: construction and each :meth:`step` set the ``lr`` of each group.

    Call :meth:`step` after ``optimizer.step()``, once an epoch or once a batch.

    A step changes the rate that a group has, as PyTorch's chainable forms do. So several schedules of one optimiser
    combine, and if you set a rate yourself, the next step starts from it. :class:`OneCycleLR` and :class:`LambdaLR`
    overwrite the rate.

    A subclass writes :meth:`rate`. If a group has the rate ``rate(t - 1, base)``, it gets ``rate(t, base)``. Any other
    rate is multiplied by the quotient of the two.

    >>> import tinygrad_lenet as tl
    >>> class Inverse(tl.optim.Schedule):
    ...     def rate(self, t, base):
    ...         return base / (1 + t)
    >>> schedule = Inverse(tl.optim.SGD([tl.zeros(1, requires_grad=True)], lr=1.0))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        nearest = next(vars(c) for c in cls.__mro__ if "rate" in vars(c) or "_chained" in vars(c))
        if "_chained" not in nearest:
            cls._chained = Schedule._chained  # type: ignore[method-assign]  # the inherited rule is of another formula

    def __post_init__(self) -> None:
        super().__post_init__()
        self.base_lrs: list[float] = []
        self._move(0)

    def rate(self, t: int, base: float) -> float:
        """The learning rate after ``t`` steps of a group that started at ``base``, if nothing else changes it."""
        raise NotImplementedError

    def _chained(self, t: int, lr: float, base: float) -> float:
        """The rate at step ``t`` of a group whose rate after the step before is ``lr``."""
        before, now = self.rate(t - 1, base) if t else base, self.rate(t, base)
        if before in (0, now):
            return lr if now == before else now
        return now if lr == before else lr * (now / before)

    @checked
    def step(self) -> None:
        """Set the rates of the next step."""
        if (trace := tracer()) is not None:
            trace.refuse("a schedule changes the learning rate")
        self._move(self.last_epoch + 1)

    def _move(self, t: int, restart: bool = False) -> None:
        """Go from step ``t - 1`` to ``t``. With ``restart``, use the formula alone. An error changes nothing."""
        bases = self._bases()
        rates = self._rates(t, bases, None if restart else self._lrs())
        for group, base, rate in zip(self.optimizer.param_groups, bases, rates, strict=True):
            group.setdefault("initial_lr", base)
            group["lr"] = rate
        self._take({"last_epoch": t, "base_lrs": bases, "_last_lr": rates})

    def _bases(self) -> list[float]:
        """The initial rate of each group. A group added later starts at the rate it has."""
        groups, known = self.optimizer.param_groups, len(self.base_lrs)
        if len(groups) < known:
            raise ArgumentError(f"the optimizer has {len(groups)} groups, the schedule is for {known}; make a new one")
        added = [group.get("initial_lr", group.get("lr")) for group in groups[known:]]
        return [*self.base_lrs, *rates_of("lr", added, "[0, inf)")]

    def _rates(self, t: int, bases: list[float], lrs: list[float] | None) -> list[float]:
        """The rates at step ``t``: from ``lrs``, the rates of the step before, or by the formula if ``lrs`` is None."""
        try:
            if lrs is None:
                rates = [self.rate(t, base) for base in bases]
            else:
                rates = [self._chained(t, lr, base) for lr, base in zip(lrs, bases, strict=True)]
        except OverflowError:
            rates = [math.inf]
        if not all(map(math.isfinite, rates)):
            options = {name: value for name, value in vars(self).items() if isinstance(value, float)}
            raise ArgumentError(f"after {t} steps a rate is not finite; it began at {bases}; make {options} smaller")
        return rates

    @checked
    def state_dict(self) -> dict[str, Any]:
        """The step and the rates."""
        state = {"last_epoch": self.last_epoch, "base_lrs": self._bases()}
        return {**state, "_last_lr": self.get_last_lr(), "lrs": self._lrs()}

    @checked
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`, with the learning rates that the groups had then."""
        state = self._checked_state(state)
        for group, rate in zip(self.optimizer.param_groups, state["lrs"], strict=False):
            group["lr"] = rate
        self._take(state)

    def _checked_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The checked entries of a state. States of earlier versions have no ``lrs``: they follow from the formula."""
        epoch, bases = entries(state, "last_epoch", "base_lrs")
        epoch, bases = _count("last_epoch", epoch), rates_of("base_lrs", bases, "[0, inf)")
        if len(bases) not in (len(self.base_lrs), len(self.optimizer.param_groups)):
            raise ArgumentError(f"the state is of {len(bases)} groups, this schedule of {len(self.base_lrs)}")
        lrs = rates_of("lrs", state.get("lrs", self._rates(epoch, bases, None)))
        last = rates_of("_last_lr", state.get("_last_lr", lrs))
        return {"last_epoch": epoch, "base_lrs": bases, "lrs": lrs, "_last_lr": last}

    def _take(self, state: dict[str, Any]) -> None:
        """Set the attributes that a state holds."""
        self.last_epoch, self.base_lrs, self._last_lr = (state[k] for k in ("last_epoch", "base_lrs", "_last_lr"))
