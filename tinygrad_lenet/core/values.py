"""Conversion and checks of the data of Tensors: dtypes, arrays, lists, indices."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import ArgumentError, DTypeError, TinygradLenetError, brief, named

# The dtypes of Tensors. Arrays of these need no conversion.
NATIVE = frozenset(np.dtype(code) for code in "?bhilqBHILQefd")


def as_dtype(dtype: DTypeLike, what: str = "dtype must not be") -> np.dtype[Any]:
    """The dtype in the byte order of the machine; raise if Tensors cannot have it."""
    try:
        # NumPy reads None as float64, "a" as text, a module as its ``dtype`` (both with a warning), lists as records.
        odd = dtype is None or isinstance(dtype, (list, tuple, ModuleType))
        if odd or (isinstance(dtype, str) and dtype[:1] == "a"):
            raise TypeError("name one of numbers")
        found = np.dtype(dtype)
    except Exception as error:
        raise DTypeError(f"{brief(dtype)} is not a dtype ({error}); an example is 'float32'") from None
    if found.kind not in "fiub" or found.itemsize > 8:
        raise DTypeError(f"a tensor holds floats, integers or booleans of at most 8 bytes; {what} {found}")
    return found if found.isnative else found.newbyteorder("=")


_INDEX = "an index is made of integers, booleans, slices, None or ..."


def sealed(array: NDArray[Any]) -> NDArray[Any]:
    """An array that owns its memory, made read-only: it need not be copied to be saved."""
    array.flags.writeable = False
    return array


def is_sealed(value: Any) -> bool:
    """Return True for an array that :func:`sealed` returned."""
    return isinstance(value, np.ndarray) and value.base is None and not value.flags.writeable


def as_index(index: Any, own: Callable[[Any], NDArray[Any]] = np.array) -> tuple[Any, ...]:
    """The index of ``x[index]`` as a tuple that NumPy accepts; ``own`` copies the arrays in it, unless they are sealed:
    the caller may change an array before the backward pass.
    """
    return tuple([_component(i, own) for i in (index if isinstance(index, tuple) else (index,))])


def _component(i: Any, own: Callable[[Any], NDArray[Any]]) -> Any:
    if i is None or i is Ellipsis or isinstance(i, (bool, int)):
        return i
    try:
        if isinstance(i, slice):
            return slice(*(p if p is None else p.__index__() for p in (i.start, i.stop, i.step)))
        array = i if is_sealed(i) else own(i)
    except TinygradLenetError:
        raise
    except Exception as error:
        raise DTypeError(f"{_INDEX}: {error} ({brief(i)})") from None
    if not array.size and isinstance(i, list):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iub":
        raise DTypeError(f"{_INDEX}, got {array.dtype}; for a tensor use x.astype('int64')")
    return array if array.ndim or array.dtype == np.bool_ else int(array)


_NESTED = (list, tuple, dict)


def flattened(values: Iterable[Any], depth: int = 9) -> list[Any]:
    """The values, and the contents of lists, tuples and dicts. A list may hold itself, so the depth is limited."""
    found = []
    for value in values:
        if not isinstance(value, _NESTED):
            found.append(value)
        elif depth:
            found += flattened(value.values() if isinstance(value, dict) else value, depth - 1)
    return found


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """``change(value)``; for a list, tuple or dict, the same with each of its values changed."""
    if isinstance(value, dict):
        return value | {key: mapped(v, change) for key, v in value.items()}  # an OrderedDict stays one
    if isinstance(value, (list, tuple)):
        changed = [mapped(v, change) for v in value]
        return type(value)(*changed) if hasattr(value, "_fields") else type(value)(changed)
    return change(value)


def narrowed(name: str, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values in another dtype. Floats are rounded; raise if it cannot hold a value."""
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        found: NDArray[Any] = array.astype(dtype)
    unchanged(name, found, array)
    return found


def unchanged(name: str, found: NDArray[Any], given: NDArray[Any]) -> None:
    """Raise if a conversion changed an integer or boolean, or made a float infinite."""
    if found.dtype == given.dtype:
        return
    same = np.isfinite(found) == np.isfinite(given) if found.dtype.kind == "f" else found == given
    if not np.all(same):
        raise DTypeError(f"{name} is {found.dtype}, which cannot hold {given[~same].flat[0]!r}")


def converted(value: Any, dtype: DTypeLike | None, unwrap: Callable[[Any], Any]) -> NDArray[Any]:
    """The value as an array that a Tensor can hold; numbers and lists of numbers become float32."""
    wanted: np.dtype[Any] | None = None
    kind, typed = type(value).__name__, isinstance(value, (np.ndarray, np.generic))
    try:
        if dtype is not None:
            wanted = as_dtype(dtype)
        if not typed:
            value = unwrap(value)
        array = np.asarray(value)
        if type(value) is not np.ndarray and np.any(getattr(value, "mask", False)):
            raise ArgumentError("a masked array hides some of its values; give it values for them: x.filled(0)")
        native = as_dtype(array.dtype, f"{kind} gives")
        if wanted is None:
            wanted = np.dtype(np.float32) if not hasattr(value, "dtype") and native.kind in "iuf" else native
        return np.asarray(array if typed else value, wanted)  # NumPy raises if a Python number does not fit
    except TinygradLenetError as error:
        raise named(error, "tensor")  # noqa: B904  # it is the same error
    except MemoryError:
        raise
    except Exception as error:
        message = f"{kind} gives no array of {wanted or 'numbers'} (are the rows of the list of equal length?): {error}"
        raise named(DTypeError(message), "tensor") from None
