"""What the annotations of a function say of its parameters: which are numbers, flags or words, and what they may be;
what is a dtype, and what an index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..checks import integer
from ..errors import ArgumentError, DTypeError, TinygradLenetError, brief

VARIADIC = 4  # the flag of a code object that has *args
_NOWHERE = 1 << 30  # the position of what is given by name only


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, at a hundredth of the time of ``inspect.signature``."""
    code = getattr(function, "__code__", None)
    if code is None:  # a partial, an object with __call__
        import inspect

        return list(inspect.signature(function).parameters)
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & VARIADIC)])


class Scalar(NamedTuple):
    """A parameter that is a number, a flag or a word."""

    position: int
    name: str
    kinds: tuple[str, ...]
    quick: frozenset[type]  # what needs no second look

    def admit(self, value: Any, who: str) -> Any:
        """The value as Python has it, since NumPy's numbers would widen float32, and overflow where they are small."""
        plain, number = value, isinstance(getattr(value, "dtype", None), np.dtype) and value.shape == ()
        if number and not getattr(value, "requires_grad", False):
            plain = value.item()
        for kind in self.kinds:
            if kind == "int" and not isinstance(plain, bool) and hasattr(plain, "__index__"):
                return integer(self.name, plain)
            if kind == "float" and isinstance(plain, (bool, int, float)):
                return plain if type(plain) is int else float(plain)
            if kind == "bool" and isinstance(plain, int) and plain in (0, 1):
                return bool(plain)
            if kind == "str" and isinstance(plain, str):
                return str(plain)
        expected = " or ".join(_WORDS[kind] for kind in self.kinds)
        kind_of_error = ArgumentError if "str" in self.kinds else DTypeError  # an unknown choice, or a wrong type
        raise kind_of_error(f"{who}: {self.name} must be {expected}, got {brief(value)}")


_QUICK: dict[str, list[type]] = {
    "int": [int],
    "float": [float, int],
    "bool": [bool],
    "str": [str],
    "None": [type(None)],
}
_WORDS = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a word", "None": "None"}


def scalars(function: Callable[..., Any]) -> list[Scalar]:
    """Those parameters whose annotation is made of ``int``, ``float``, ``bool``, ``str`` and ``None`` only."""
    names, code = parameters(function), function.__code__
    defaults: tuple[Any, ...] = function.__defaults__ or ()
    default_of: dict[str, Any] = dict(zip(names[: code.co_argcount][::-1], defaults[::-1], strict=False))
    default_of |= function.__kwdefaults__ or {}
    found: list[Scalar] = []
    for i, name in enumerate(names[: code.co_argcount + code.co_kwonlyargcount]):
        annotation = function.__annotations__.get(name, "")
        kinds = tuple((annotation.__name__ if isinstance(annotation, type) else str(annotation)).split(" | "))
        if all(kind in _QUICK for kind in kinds):
            quick = {kind for word in kinds for kind in _QUICK[word]}
            quick |= {type(default_of[name])} if name in default_of else set()
            found.append(Scalar(i if i < code.co_argcount else _NOWHERE, name, kinds, frozenset(quick)))
    return found


# The dtypes of Tensors: arrays of these need no conversion.
NATIVE = frozenset(np.dtype(code) for code in "?bhilqBHILQefd")


def checked(dtype: DTypeLike, what: str = "dtype must not be") -> np.dtype[Any]:
    """A dtype that Tensors may have, in the byte order of the machine."""
    try:
        # For NumPy, None is float64; "a" is text, with a warning; lists and tuples are records.
        if dtype is None or isinstance(dtype, (list, tuple)) or (isinstance(dtype, str) and dtype[:1] == "a"):
            raise TypeError("name one of numbers")
        found = np.dtype(dtype)
    except Exception as error:
        raise DTypeError(
            f"tensor: {brief(dtype)} is no dtype ({error}); give NumPy's, such as 'float32' or np.int64"
        ) from None
    if found.kind not in "fiub" or found.itemsize > 8:
        raise DTypeError(f"tensor: a tensor holds floats, integers or booleans of at most 8 bytes; {what} {found}")
    return found.newbyteorder("=")


def as_index(index: Any) -> tuple[Any, ...]:
    """What stands between the brackets of ``x[...]``, as a tuple of what NumPy takes; arrays are copied."""
    return tuple([_component(i) for i in (index if isinstance(index, tuple) else (index,))])


def _component(i: Any) -> Any:
    if i is None or i is Ellipsis or isinstance(i, (bool, int)):
        return i
    try:
        if isinstance(i, slice):
            return slice(*(p if p is None else p.__index__() for p in (i.start, i.stop, i.step)))
        # A copy: the caller may change the array before the backward pass.
        array = np.array(i)
    except Exception as error:
        if isinstance(error, TinygradLenetError):
            raise
        raise DTypeError(f"an index is made of integers, booleans, slices, None or ...: {error} ({brief(i)})") from None
    if not array.size and isinstance(i, list):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iub":
        raise DTypeError(
            f"an index is made of integers, booleans, slices, None or ..., got {array.dtype}; for a tensor use "
            "x.astype('int64')"
        )
    return array if array.ndim or array.dtype == np.bool_ else int(array)


def narrowed(who: str, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values in a dtype: floats are rounded to it, and what it cannot hold is refused."""
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        found: NDArray[Any] = array.astype(dtype)
    unchanged(who, found, array)
    return found


def unchanged(who: str, found: NDArray[Any], given: NDArray[Any]) -> None:
    """Refuse integers and booleans that are other numbers than those given, and floats that have become infinite."""
    if found.dtype == given.dtype:
        return
    same = np.isfinite(found) == np.isfinite(given) if found.dtype.kind == "f" else found == given
    if not np.all(same):
        raise DTypeError(f"{who} is {found.dtype}, which cannot hold {given[~same].flat[0]!r}")
