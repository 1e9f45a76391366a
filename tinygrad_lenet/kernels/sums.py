"""Accurate sums: pairwise along every axis, and in float32 for float16."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import numpy as np

from . import memory
from .steps import Room, Steps, run

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
        steps: Steps = []
        x = _pairwise(x, axes, x.dtype if dtype is None else np.dtype(dtype), memory.empty, steps)
        run(steps)
    return _sum(x, axes, dtype, keepdims=keepdims)


def sum_steps(out: Any, room: Room, x: Any, axes: Any, keepdims: bool = False, dtype: Any = None) -> Steps | None:
    """The steps of :func:`added` into ``out``, of a dtype other than float16, and not of a ``dtype`` asked for."""
    if out.dtype == np.float16 or dtype is not None:
        return None
    steps: Steps = []
    if x.size > _RUN * _RUN and x.dtype.kind == "f":
        x = _pairwise(x, axes, x.dtype, room, steps)
    return [*steps, partial(_sum, x, axes, None, out, keepdims)]


def mean_steps(out: Any, room: Room, x: Any, axes: tuple[int, ...], keepdims: bool = False) -> Steps | None:
    """The steps of the mean of floats."""
    added = sum_steps(out, room, x, axes, keepdims) if x.dtype == out.dtype else None
    return added and [*added, partial(np.divide, out, prod([x.shape[axis] for axis in axes]), out)]


def single(x: Any) -> Any:
    """float16 as float32, so that sums neither overflow nor stop growing at 2,048; other dtypes as they are."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _pairwise(x: Any, axes: tuple[int, ...], dtype: Any, room: Room, steps: Steps) -> Any:
    """Add along those axes that are not innermost in memory, if they are long: appended steps fill the result."""
    outer = [axis for axis in axes if abs(x.strides[axis]) > x.itemsize]
    if prod(map(x.shape.__getitem__, outer)) <= 4 * _RUN:
        return x
    for axis in outer:
        before, after = x.shape[:axis], x.shape[axis + 1 :]
        while x.shape[axis] > 4 * _RUN:  # replace the axis by the sums of its runs, and the sum of the remainder
            count, head = x.shape[axis] // _RUN, (slice(None),) * axis
            sums = memory.like(x, (*before, count + 1, *after), dtype, room)
            runs = x[(*head, slice(count * _RUN))].reshape(*before, count, _RUN, *after)
            steps.append(partial(_sum, runs, axis + 1, dtype, sums[(*head, slice(count))]))
            rest = x[(*head, slice(count * _RUN, None))]
            steps.append(partial(_sum, rest, axis, dtype, sums[(*head, slice(count, None))], True))
            x = sums
        total = memory.like(x, (*before, 1, *after), dtype, room)
        steps.append(partial(_sum, x, axis, dtype, total, True))
        x = total
    return x


def as_array(gradient: Any) -> Any:
    """The gradient as an array: NumPy returns scalars in place of arrays without axes."""
    return np.asarray(gradient) if isinstance(gradient, np.generic) else gradient
