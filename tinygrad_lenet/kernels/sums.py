"""Accurate sums: pairwise along every axis, and in float32 for float16."""

from __future__ import annotations

from typing import Any

import numpy as np

_sum: Any = np.add.reduce
# The next wider dtype, in which squares and products neither overflow nor underflow; float64 has none.
WIDER: dict[Any, Any] = {np.dtype(np.float16): np.dtype(np.float32), np.dtype(np.float32): np.dtype(np.float64)}
_RUN = 64  # the length of a run; at most 4 * _RUN numbers are added one after the other


def added(x: Any, axes: tuple[int, ...], dtype: Any = None, keepdims: bool = False) -> Any:
    """``np.add.reduce``, but pairwise along every axis; float16 is added in float32 and rounded once.

    NumPy adds pairwise only along the axis that is innermost in memory. Along another, a long sum of float32 loses
    digits.
    """
    if dtype is None and x.dtype == np.float16:
        return as_array(added(x, axes, np.float32, keepdims)).astype(x.dtype)
    if x.size > _RUN * _RUN and x.dtype.kind == "f":
        outer, length = [], 1  # the axes that are not innermost in memory
        for axis in axes:
            if abs(x.strides[axis]) > x.itemsize:
                outer.append(axis)
                length *= x.shape[axis]
        if length > 4 * _RUN:
            for axis in outer:
                while x.shape[axis] > 4 * _RUN:
                    x = _in_runs(x, axis, dtype)
                x = _sum(x, axis, dtype, keepdims=True)
    return _sum(x, axes, dtype, keepdims=keepdims)


def single(x: Any) -> Any:
    """float16 as float32, so that sums neither overflow nor stop growing at 2,048; other dtypes as they are."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _in_runs(x: Any, axis: int, dtype: Any) -> Any:
    """Replace an axis by the sums of its runs, followed by the sum of the remainder."""
    head, runs = (slice(None),) * axis, x.shape[axis] - x.shape[axis] % _RUN
    cut = x[(*head, slice(runs))].reshape(*x.shape[:axis], -1, _RUN, *x.shape[axis + 1 :])
    rest = _sum(x[(*head, slice(runs, None))], axis, dtype, keepdims=True)
    return np.concatenate([_sum(cut, axis + 1, dtype), rest], axis)


def as_array(gradient: Any) -> Any:
    """The gradient as an array: NumPy returns scalars in place of arrays without axes."""
    return np.asarray(gradient) if isinstance(gradient, np.generic) else gradient
