"""Checks of arguments. Each returns the argument in its plain form, or raises an error.

The error says what was given and what was expected. The door of the public function (``core/signature.py``) adds the
function's name.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache, partial
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin

import numpy as np

from .errors import ArgumentError, DTypeError, brief, listing

T = TypeVar("T")
_PACKAGE = __name__.partition(".")[0] + "."
Check: TypeAlias = Callable[[str, Any], Any]  # (name, value) -> the value in its plain form


def integer(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """``value`` as an int within bounds; a boolean is not an integer.

    >>> integer("batch_size", 2.5)
    Traceback (most recent call last):
    tinygrad_lenet.errors.DTypeError: batch_size must be an integer, got 2.5
    """
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except Exception:  # an object of the user may raise anything
        number = None
    if number is None:
        raise DTypeError(f"{name} must be an integer, got {brief(value)}")
    if least is not None and number < least:
        raise ArgumentError(f"{name} must be at least {least}, got {brief(number)}")
    if most is not None and number > most:
        raise ArgumentError(f"{name} must be at most {most}, got {brief(number)}")
    return number


def number(name: str, value: Any, interval: str = "(-inf, inf)") -> float:
    """``value`` as a float in an interval; never NaN. A tensor without axes is a number too.

    >>> number("p", 1.5, "[0, 1]")
    Traceback (most recent call last):
    tinygrad_lenet.errors.ArgumentError: p must lie in [0, 1], got 1.5
    """
    if type(value) is not float:
        kind = getattr(getattr(value, "dtype", None), "kind", None)
        real = isinstance(value, (int, float)) if not isinstance(kind, str) else kind in "iuf" and value.shape == ()
        if not real or isinstance(value, bool) or getattr(value, "requires_grad", False):
            raise DTypeError(f"{name} must be a number, got {brief(value)}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf if value > 0 else -math.inf
    low, high, with_low, with_high = _bounds(interval)
    if not (low <= found if with_low else low < found) or not (found <= high if with_high else found < high):
        raise ArgumentError(f"{name} must lie in {interval}, got {brief(value)}")
    return found


def figure(name: str, value: Any) -> float:
    """A metric, such as a loss, as a float; infinity and NaN are allowed."""
    try:
        return number(name, value, "[-inf, inf]")
    except ArgumentError:
        return math.nan


@cache
def _bounds(interval: str) -> tuple[float, float, bool, bool]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high), interval[0] == "[", interval[-1] == "]"


def flag(name: str, value: Any) -> bool:
    """``value`` as a bool: True, False, 1 or 0. Other objects that ``if`` accepts, such as ``"no"``, are refused."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise DTypeError(f"{name} must be True or False, got {brief(value)}")


def choice(name: str, value: Any, choices: Collection[str]) -> str:
    """``value``, which must be one of the words."""
    if isinstance(value, str) and value in choices:
        return value
    *most, last = map(repr, choices)
    raise ArgumentError(f"{name} must be {', '.join(most)} or {last}, got {brief(value)}")


def instance(name: str, value: Any, kind: type[T], hint: str = "") -> T:
    """``value``, which must be an instance of a class."""
    if isinstance(value, kind):
        return value
    raise DTypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}" + (f"; {hint}" if hint else ""))


def function(name: str, value: Any) -> Any:
    """``value``, which must be callable."""
    if callable(value):
        return value
    raise DTypeError(f"{name} must be a function, got {brief(value)}")


def listed(name: str, value: Any, what: str) -> list[Any]:
    """The elements of an iterable other than a string or a 0-d array, as a list."""
    text = isinstance(value, (str, bytes, bytearray, memoryview))
    if isinstance(value, Iterable) and not text and getattr(value, "ndim", True):
        return list(value)
    raise DTypeError(f"{name} must be {what}, got {brief(value)}")


def two_numbers(name: str, value: Any, interval: str) -> tuple[float, float]:
    """A pair of numbers in an interval."""
    several = listed(name, value, "a pair of numbers")
    if len(several) != 2:
        raise ArgumentError(f"{name} must be two numbers in {interval}, got {brief(value)}")
    return number(name, several[0], interval), number(name, several[1], interval)


def pair(name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """Height and width, from one integer or two."""
    if type(value) is int and value >= least:
        return value, value
    if type(value) is tuple and len(value) == 2 and type(value[0]) is type(value[1]) is int and min(value) >= least:
        return value
    several = isinstance(value, (tuple, list)) or (hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1)
    try:
        a, b = (integer(name, v) for v in (value if several else (value, value)))
    except (TypeError, ValueError):
        raise ArgumentError(f"{name} must be an integer or a pair of integers, got {brief(value)}") from None
    if min(a, b) < least:
        raise ArgumentError(f"{name} must be at least {least}, got {brief(value)}")
    return a, b


def paddings(name: str, value: Any) -> Any:
    """Padding as ``"valid"``, ``"same"``, two integers, or two pairs of integers."""
    if isinstance(value, str):
        if value in ("same", "valid"):
            return value
        raise ArgumentError(f"{name} must be 'same', 'valid', a number or a pair of numbers, got {brief(value)}")
    if isinstance(value, (tuple, list)) and len(value) == 2 and any(isinstance(p, (tuple, list)) for p in value):
        return tuple(pair(name, p, 0) for p in value)
    return pair(name, value, 0)


def lengths(name: str, value: Any, least: int | None = 0) -> tuple[int, ...]:
    """Lengths of axes, from one integer or several."""
    several = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(integer(f"{name}, an integer or a tuple of them,", n, least) for n in several)


def path(name: str, value: Any) -> str:
    """The name of a file or folder as text. File descriptors are refused."""
    try:
        found = os.fsdecode(value)
        os.fsencode(found)
    except TypeError:
        raise DTypeError(f"{name} must be the name of a file, got {brief(value)}") from None
    except UnicodeEncodeError as error:
        raise ArgumentError(f"{name} cannot be written by the system as a file name, {brief(value)}: {error}") from None
    if not found or "\0" in found or len(found) > 4096:  # Linux's limit
        raise ArgumentError(f"{name} must be the name of a file, got {brief(found)}")
    return found


def entries(state: Any, *names: str) -> list[Any]:
    """The values of a state dict under these names."""
    if not isinstance(state, Mapping):
        raise DTypeError(f"a state is a dict, got {type(state).__name__}; pass what state_dict() gave")
    missing = [name for name in names if name not in state]
    if missing:
        found = brief(list(state))
        raise ArgumentError(f"the state lacks {listing(missing)}, it has {found}; is it of something else?")
    return [state[name] for name in names]


def made(shape: tuple[int, ...], make: Callable[[tuple[int, ...]], T], given: str = "numbers") -> T:
    """``make(shape)``. Raise if it does not fit into memory."""
    try:
        return make(shape)
    except (MemoryError, ValueError, OverflowError):
        text = f"an array of shape {brief(shape)} is more than fits into memory; give smaller {given}"
        raise ArgumentError(text) from None


# The ranges of annotated parameters. Each carries its check, which the door of a function calls.
Count: TypeAlias = Annotated[int, partial(integer, least=0)]
Positive: TypeAlias = Annotated[int, partial(integer, least=1)]
Real: TypeAlias = Annotated[float, number]
NonNegative: TypeAlias = Annotated[float, partial(number, interval="[0, inf)")]
PositiveReal: TypeAlias = Annotated[float, partial(number, interval="(0, inf)")]
Probability: TypeAlias = Annotated[float, partial(number, interval="[0, 1]")]
Decay: TypeAlias = Annotated[float, partial(number, interval="[0, 1)")]
Decays: TypeAlias = Annotated[tuple[float, float], partial(two_numbers, interval="[0, 1)")]
Function: TypeAlias = Annotated[Callable[..., Any], function]
File: TypeAlias = Annotated[str | os.PathLike[str], path]
Reduction: TypeAlias = Literal["mean", "sum", "none"]


def ranged(annotation: Any) -> Check | None:
    """The check of a parameter with this annotation: a range above, or a ``Literal`` of words; else None.

    Annotations of users, such as ``Annotated[float, "in metres"]``, are not checks.

    >>> ranged(Probability)("p", 1.5)
    Traceback (most recent call last):
    tinygrad_lenet.errors.ArgumentError: p must lie in [0, 1], got 1.5
    """
    words: Any = ()
    if isinstance(annotation, str) and annotation.startswith("Literal["):
        words = [word.strip() for word in annotation[len("Literal[") : -1].split(",")]
        words = [word[1:-1] if word[:1] in "'\"" else None for word in words]
    elif get_origin(annotation) is Literal:
        words = get_args(annotation)
    elif get_origin(annotation) is Annotated:
        check: Check = get_args(annotation)[1]
        home = getattr(getattr(check, "func", check), "__module__", None)
        return check if str(home).startswith(_PACKAGE) else None
    return partial(choice, choices=words) if words and all(isinstance(word, str) for word in words) else None
