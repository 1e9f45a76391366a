"""Softmax cross-entropy of logits (N, C) with class indices (N,)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import memory
from .memory import Room
from .sums import WIDER

Array: TypeAlias = NDArray[Any]


def nll(out: Array, x: Array, index: Array, room: Room = memory.empty) -> None:
    """Write ``-log(softmax(x)[i, index[i]])`` to ``out``, (N,); 0 where the index is -1.

    The sum of exponentials leaves out the largest, which is 1, and ``log1p`` adds it: a loss near 0 keeps its digits.
    """
    rows, largest = np.arange(len(index)), x.argmax(1) if x.size else index  # argmax needs a class
    wide = WIDER.get(x.dtype, np.dtype(np.float64))
    d = np.subtract(x, x[rows, largest].reshape(-1, 1), out=memory.like(x, x.shape, wide, room), dtype=wide)
    e = np.exp(d, out=memory.like(x, x.shape, wide, room))
    e[rows, largest] = 0
    np.subtract(np.log1p(np.add.reduce(e, 1)), d[rows, index], out=out, casting="same_kind")
    out[index < 0] = 0


def nll_grad(out: Array, softmax: Array, g: Array, index: Array) -> None:
    """Write the gradient of :func:`nll` to ``out``, (N, C); ``g`` is (N,) or ().

    ``out`` has the memory layout of ``softmax``, and may be ``softmax``. The gradient is ``g * softmax``, except at the
    target: there it is ``-g`` times the sum of the other probabilities, which is more accurate than ``softmax - 1``.
    """
    if index.size and np.minimum.reduce(index) < 0:
        g, index = np.where(index < 0, 0, g), np.maximum(index, 0)
    at = np.arange(len(index)), index
    if out is not softmax:
        np.copyto(out, softmax)
    out[at] = 0
    out[at] = -np.add.reduce(out, 1)
    np.multiply(out, g.reshape(-1, 1), out=out)
