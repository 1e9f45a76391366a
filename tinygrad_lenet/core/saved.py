"""Protection of data: copies of saved values, the error if one has changed, and the memory of results."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import ArgumentError, GradientError, given, translated
from .tensor import Tensor, Version
from .values import flattened, mapped


def save(value: Any, plain: Any) -> tuple[Any, Any]:
    """The argument to save for the backward pass, and the version of its data.

    ``plain`` is the argument as an array. A Tensor is saved itself, since it counts its changes. Data that the caller
    could change uncounted is copied.
    """
    if isinstance(value, Tensor):
        version = value._version[0]
        return (value, version) if version >= 0 else (value.clone(), 0)
    if type(plain) not in (np.ndarray, list, tuple):
        return plain, 0
    try:
        return mapped(plain, lambda v: v.copy() if isinstance(v, np.ndarray) else v), 0
    except RecursionError:
        raise ArgumentError("an argument is a list that holds itself, or lists too deep to be copied") from None


def changed(what: str, shape: tuple[int, ...], version: Version) -> GradientError:
    """The error for a saved value that was changed in place."""
    count, line = version
    how = "was changed in place" if count >= 0 else "was shared with another library, which may change it,"
    return GradientError(
        f"{what}, of shape {shape}, {how} after the op was recorded, so the gradient would be wrong: at {line}; "
        "do that after backward(), or give the op a clone()"
    )


def settle(op: Any, args: tuple[Any, ...], plain: list[Any], out: Any) -> tuple[Any, Version]:
    """The output of an op in its own memory, copied if necessary, and its version counter.

    If the op is declared a view, its output may share the memory of a Tensor, and then shares its counter.
    """
    home = out.base
    if op.view:
        for a in args:
            if isinstance(a, Tensor):
                array = a._data
                if array is home or (home is not None and array.base is home) or np.may_share_memory(array, out):
                    if not op.signature.trusted and array.flags.writeable:  # the body received a read-only view
                        with suppress(ValueError):  # elements may share memory, as those of np.broadcast_to
                            out.flags.writeable = out.nbytes <= np.ptp(np.lib.array_utils.byte_bounds(out))
                    return out, a._version
    if borrows(out, plain):  # memory that the caller may write to
        try:
            out = out.copy()
        except MemoryError as error:
            raise translated(error, op.name, given(op.names, args)) from None
    return out, [0]


def borrows(out: Any, values: Iterable[Any]) -> bool:
    """Whether an array is read-only, or shares memory with one of the values or an array in a list or dict there."""
    view = out.base is not None
    for value in flattened(values):
        array = value._data if isinstance(value, Tensor) else value
        if array is out or (view and isinstance(array, np.ndarray) and np.may_share_memory(array, out)):
            return True
    return view and not (out.flags.writeable and out.size)  # np.may_share_memory is False for empty arrays
