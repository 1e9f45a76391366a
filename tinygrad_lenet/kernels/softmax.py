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


def _wide(x: Array, room: Room) -> Array:
    """Memory like that of ``x`` in the next wider dtype, in which the softmax is computed."""
    return memory.empty_like(x, WIDER.get(x.dtype, np.dtype(np.float64)), room)


def softmax_steps(out: Array, room: Room, x: Array, axes: tuple[int, ...]) -> Steps:
    """The steps of ``e^x / sum(e^x)`` over some axes into ``out``, of the shape of ``x``."""
    return [partial(_softmax, out, _wide(x, room), x, axes)] if x.size else []


def _softmax(out: Array, e: Array, x: Array, axes: tuple[int, ...]) -> None:
    np.subtract(x, np.maximum.reduce(x, axes, keepdims=True), e, dtype=e.dtype)
    np.exp(e, e)
    np.divide(e, np.add.reduce(e, axes, keepdims=True), out, casting="same_kind")


def nll_steps(out: Array, room: Room, x: Array, index: Array, count: Array | None) -> Steps:
    """The steps of ``-log(softmax(x)[i, index[i]])`` into ``out``, (N,), 0 where the index is -1; or, with a count, of
    their sum divided by it, ().

    The sum of exponentials leaves out the largest, which is 1, and ``log1p`` adds it: a loss near 0 keeps its digits.
    """
    return [partial(_nll, out, _wide(x, room), _wide(x, room), x, index, count)]


def _nll(out: Array, d: Array, e: Array, x: Array, index: Array, count: Array | None) -> None:
    losses = out if count is None else np.empty(len(index), out.dtype)
    rows, largest = np.arange(len(index)), x.argmax(1) if x.size else index  # argmax needs a class
    np.subtract(x, x[rows, largest].reshape(-1, 1), d, dtype=d.dtype)
    np.exp(d, e)
    e[rows, largest] = 0
    np.subtract(np.log1p(np.add.reduce(e, 1)), d[rows, index], losses, casting="same_kind")
    losses[index < 0] = 0
    if count is not None:
        np.divide(np.add.reduce(losses), count, out)


def nll_grad_steps(out: Array, room: Room, g: Array, x: Array, index: Array, count: Array | None) -> Steps:
    """The steps of the gradient of :func:`nll_steps` into ``out``, (N, C); ``g`` is (N,) or ().

    The gradient is ``g * softmax``, except at the target: there it is ``-g`` times the sum of the other probabilities,
    which is more accurate than ``softmax - 1``.
    """
    return [*softmax_steps(out, room, x, (1,)), partial(_nll_grad, out, g, index, count)]


def _nll_grad(out: Array, g: Array, index: Array, count: Array | None) -> None:
    at, scale = (np.arange(len(index)), index), g if count is None else g / count
    out[at] = 0
    out[at] = -np.add.reduce(out, 1)
    if index.size and np.minimum.reduce(index) < 0:
        scale = np.where(index < 0, 0, scale)
    np.multiply(out, scale.reshape(-1, 1), out)
