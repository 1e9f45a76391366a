"""Softmax, and the cross-entropy of logits (N, C) with class indices (N,), as steps (see ``steps.py``)."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import memory
from .memory import Room
from .steps import Steps
from .sums import WIDER

Array: TypeAlias = NDArray[Any]
_sum, _max = np.add.reduce, np.maximum.reduce


def _wide(x: Array) -> np.dtype[Any]:
    """The next wider dtype, in which the softmax is computed."""
    wide: np.dtype[Any] = WIDER.get(x.dtype, np.dtype(np.float64))
    return wide


def _pick(out: Array, x: Array, at: Any) -> None:
    np.copyto(out, x[at], "same_kind")


def softmax_steps(out: Array, room: Room, x: Array, axes: tuple[int, ...]) -> Steps:
    """The steps of ``e^x / sum(e^x)`` over some axes into ``out``, of the shape of ``x``."""
    if not x.size:
        return []
    wide, few = _wide(x), tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    e = out if out.dtype == wide else memory.like(x, x.shape, wide, room)
    top, total = memory.like(x, few, x.dtype, room), memory.like(x, few, wide, room)
    steps: Steps = [
        partial(_max, x, axes, None, top, True),
        partial(np.subtract, x, top, e, dtype=wide),
        partial(np.exp, e, e),
        partial(_sum, e, axes, None, total, True),
        partial(np.divide, e, total, e),
    ]
    return steps if e is out else [*steps, partial(np.copyto, out, e, "same_kind")]


def _ignored(index: Array) -> tuple[Array | None, int]:
    """A mask of the indices -1, which mark targets to ignore, or None if there are none; and the number of others."""
    if not index.size or np.minimum.reduce(index) >= 0:
        return None, len(index)
    ignored = index < 0
    return ignored, len(index) - int(np.count_nonzero(ignored))


def _finish_losses(out: Array, losses: Array, index: Array, average: bool) -> None:
    ignored, count = _ignored(index)
    if ignored is not None:
        losses[ignored] = 0
    if average:
        np.divide(_sum(losses), count, out)


def nll_steps(out: Array, room: Room, x: Array, index: Array, average: bool) -> Steps:
    """The steps of ``-log(softmax(x)[i, index[i]])`` into ``out``, (N,), 0 where the index is -1; or of the mean of the
    others, ().

    The sum of exponentials leaves out the largest, which is 1, and ``log1p`` adds it: a loss near 0 keeps its digits.
    """
    wide, count, rows = _wide(x), len(x), np.arange(len(x))
    d, e = memory.like(x, x.shape, wide, room), memory.like(x, x.shape, wide, room)
    largest, top, sums = room((count,), np.dtype(np.intp)), room((count, 1), x.dtype), room((count,), wide)
    picked, losses = room((count,), wide), room((count,), out.dtype) if average else out
    steps: Steps = [
        partial(x.argmax, 1, largest),
        partial(_pick, top[:, 0], x, (rows, largest)),
        partial(np.subtract, x, top, d, dtype=wide),
        partial(np.exp, d, e),
        partial(e.__setitem__, (rows, largest), 0),
        partial(_sum, e, 1, None, sums),
        partial(np.log1p, sums, sums),
        partial(_pick, picked, d, (rows, index)),
        partial(np.subtract, sums, picked, losses, casting="same_kind"),
    ]
    return [*(steps if x.size else []), partial(_finish_losses, out, losses, index, average)]


def _scale_rows(out: Array, g: Array, index: Array, average: bool) -> None:
    ignored, count = _ignored(index)
    np.multiply(out, (g / count if average else g).reshape(-1, 1), out)
    if ignored is not None:
        out[ignored] = 0


def nll_grad_steps(out: Array, room: Room, g: Array, x: Array, index: Array, average: bool) -> Steps:
    """The steps of the gradient of :func:`nll_steps` into ``out``, (N, C); ``g`` is (N,) or ().

    The gradient is ``g * softmax``, except at the target: there it is ``-g`` times the sum of the other probabilities,
    which is more accurate than ``softmax - 1``.
    """
    at, rest = (np.arange(len(x)), index), room((len(x),), out.dtype)
    return [
        *softmax_steps(out, room, x, (1,)),
        partial(out.__setitem__, at, 0),
        partial(_sum, out, 1, None, rest),
        partial(np.negative, rest, rest),
        partial(out.__setitem__, at, rest),
        partial(_scale_rows, out, g, index, average),
    ]
