"""What an argument may be: each check gives it in its plain form, or says whose argument it is, what was given and what
was expected. Called where objects are made, not where numbers are crunched.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from .errors import ArgumentError, DTypeError, brief

T = TypeVar("T")
said = brief  # a value in a message


def integer(who: str, name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """``value`` as an int in these bounds; a boolean is none.

    >>> integer("DataLoader", "batch_size", 2.5)
    Traceback (most recent call last):
    tinygrad_lenet.errors.DTypeError: DataLoader: batch_size must be an integer, got 2.5
    """
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except Exception:  # whatever an object of the user's own raises
        number = None
    if number is None:
        raise DTypeError(f"{who}: {name} must be an integer, got {said(value)}")
    if least is not None and number < least:
        raise ArgumentError(f"{who}: {name} must be at least {least}, got {said(number)}")
    if most is not None and number > most:
        raise ArgumentError(f"{who}: {name} must be at most {most}, got {said(number)}")
    return number


def number(who: str, name: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """``value`` as a float in an interval, which NaN never is; a tensor without axes is a number too.

    >>> number("Dropout", "p", 1.5, "[0, 1]")
    Traceback (most recent call last):
    tinygrad_lenet.errors.ArgumentError: Dropout: p must lie in [0, 1], got 1.5
    """
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    real = isinstance(value, (int, float)) if not isinstance(kind, str) else kind in "iuf" and value.shape == ()
    if not real or isinstance(value, bool) or getattr(value, "requires_grad", False):
        raise DTypeError(f"{who}: {name} must be a number, got {said(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf if value > 0 else -math.inf
    low, high, with_low, with_high = _bounds(interval)
    if not (low <= found if with_low else low < found) or not (found <= high if with_high else found < high):
        raise ArgumentError(f"{who}: {name} must lie in {interval}, got {said(value)}")
    return found


def figure(who: str, name: str, value: Any) -> float:
    """A loss or the like, which may well be infinite or NaN."""
    try:
        return number(who, name, value, "[-inf, inf]")
    except ArgumentError:
        return math.nan


@functools.cache
def _bounds(interval: str) -> tuple[float, float, bool, bool]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high), interval[0] == "[", interval[-1] == "]"


def flag(who: str, name: str, value: Any) -> bool:
    """``value`` as a bool; what is merely true or false in an ``if``, such as ``"no"``, is refused."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise DTypeError(f"{who}: {name} must be True or False, got {said(value)}")


def choice(who: str, name: str, value: Any, choices: Collection[str]) -> str:
    """One of some words."""
    if isinstance(value, str) and value in choices:
        return value
    *most, last = map(repr, choices)
    raise ArgumentError(f"{who}: {name} must be {', '.join(most)} or {last}, got {said(value)}")


def instance(who: str, name: str, value: Any, kind: type[T], hint: str = "") -> T:
    """An object of a class."""
    if isinstance(value, kind):
        return value
    raise DTypeError(
        f"{who}: {name} must be a {kind.__name__}, got {type(value).__name__}" + (f"; {hint}" if hint else "")
    )


def function(who: str, name: str, value: Any) -> Callable[..., Any]:
    """What can be called."""
    if callable(value):
        found: Callable[..., Any] = value
        return found
    raise DTypeError(f"{who}: {name} must be a function, got {said(value)}")


def listed(who: str, name: str, value: Any, what: str) -> list[Any]:
    """The elements of what is iterable, and no string."""
    if (
        isinstance(value, Iterable)
        and not isinstance(value, (str, bytes, bytearray, memoryview))
        and getattr(value, "ndim", True)
    ):
        return list(value)
    raise DTypeError(f"{who}: {name} must be {what}, got {said(value)}")


def lengths(who: str, name: str, value: Any, least: int = 0) -> tuple[int, ...]:
    """Lengths of axes, from one integer or several."""
    several = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(integer(who, f"{name}, an integer or a tuple of them,", n, least) for n in several)


def path(who: str, name: str, value: Any) -> str:
    """The name of a file or folder; not its number, from which a program would wait for ever."""
    try:
        found = os.fsdecode(value)
    except TypeError:
        raise DTypeError(f"{who}: {name} must be the name of a file, got {said(value)}") from None
    if not found:
        raise ArgumentError(f"{who}: {name} must be the name of a file, got an empty one")
    if "\0" in found:
        raise ArgumentError(f"{who}: {name} holds a zero character, which no name of a file has: {said(found)}")
    try:
        os.fsencode(found)
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{who}: {name} is no name that the system can write, {said(found)}: {error}") from None
    return found


def entries(who: str, state: Any, *names: str) -> list[Any]:
    """What a state dict has under these names."""
    if not isinstance(state, Mapping):
        raise DTypeError(f"{who}: a state is a dict, got {type(state).__name__}; pass what state_dict() gave")
    missing = [name for name in names if name not in state]
    if missing:
        raise ArgumentError(
            f"{who}: the state lacks {', '.join(missing)}, it has {said(list(state))}; is it of something else?"
        )
    return [state[name] for name in names]


def made(who: str, shape: tuple[int, ...], make: Callable[[tuple[int, ...]], T]) -> T:
    """An array of a shape, if there is room for it."""
    try:
        return make(shape)
    except (MemoryError, ValueError, OverflowError):
        raise ArgumentError(
            f"{who}: an array of shape {said(shape)} is more than fits into memory; give smaller numbers"
        ) from None
