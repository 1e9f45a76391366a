"""Elementwise functions of networks: as steps (see ``steps.py``), and as functions that run them.

For large arrays the functions, at the end, use recycled memory and all cores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import memory
from .masks import BITS
from .steps import Room, Steps, computed
from .threads import WORTH, spread

Array = NDArray[Any]

_LARGE = 32_768  # elements from which memory is recycled and the cores share the work
_BOOL = np.dtype(np.bool_)


def _on_all_cores(passes: int, steps: Callable[..., Any]) -> Callable[..., Any]:
    """The steps, which pass over all elements so many times; of large arrays on parts in parallel."""

    def make(out: Array, room: Room, *arrays: Array) -> Steps | None:
        found: Steps | None = steps(out, room, *arrays)
        large = found is not None and 8 * passes * out.size >= WORTH
        return [partial(spread, partial(computed, steps), passes, out, *arrays)] if large else found

    return make


def ufunc_steps(function: np.ufunc) -> Callable[..., Steps]:
    """The steps of a ufunc with one result."""
    return lambda out, room, *arguments: [partial(function, *arguments, out=out)]


def copy_steps(out: Array, room: Room, x: Array, *_: object) -> Steps:
    """A copy, in the dtype of ``out``."""
    return [partial(np.copyto, out, x, "unsafe")]


@partial(_on_all_cores, 2)
def relu_steps(out: Array, room: Room, x: Array) -> Steps:
    """``max(x, 0)``."""
    return [partial(np.maximum, x, np.zeros((), out.dtype), out=out)]


@partial(_on_all_cores, 5)
def where_positive_steps(out: Array, room: Room, g: Array, y: Array) -> Steps | None:
    """``g`` where ``y`` is positive or NaN, else 0."""
    if g.shape != y.shape or g.dtype.itemsize != out.dtype.itemsize:
        return None
    bits, mask = out.view(BITS[g.dtype.itemsize]), memory.empty_like(y, _BOOL, room)
    return [
        partial(np.less_equal, y, np.zeros((), y.dtype), mask),
        partial(np.logical_not, mask, mask),
        partial(np.multiply, g.view(bits.dtype), mask.view(np.int8), bits),  # as integers, so that inf * 0 is 0
    ]


tanh_steps = _on_all_cores(10, ufunc_steps(np.tanh))


@partial(_on_all_cores, 4)
def tanh_grad_steps(out: Array, room: Room, g: Array, y: Array) -> Steps | None:
    """``g * (1 - y * y)``."""
    if g.shape != y.shape or g.dtype != y.dtype:
        return None
    one = np.ones((), y.dtype)
    return [partial(np.multiply, y, y, out), partial(np.subtract, one, out, out), partial(np.multiply, g, out, out)]


@partial(_on_all_cores, 15)
def sigmoid_steps(out: Array, room: Room, x: Array) -> Steps:
    """``e^min(x, 0) / (1 + e^-|x|)``."""
    below, positive = memory.empty_like(out, None, room), memory.empty_like(x, _BOOL, room)
    return [
        partial(np.abs, x, out),
        partial(np.negative, out, out),
        partial(np.exp, out, out),
        partial(np.add, out, 1, below),
        partial(np.greater_equal, x, 0, positive),
        partial(np.maximum, out, positive, out=out),  # e^min(x, 0): 1 where x >= 0
        partial(np.divide, out, below, out),
    ]


@partial(_on_all_cores, 15)
def sigmoid_grad_steps(out: Array, room: Room, g: Array, x: Array) -> Steps:
    """``g * e / (1 + e)^2`` with ``e = e^-|x|``."""
    below = memory.empty_like(out, None, room)
    return [
        partial(np.abs, x, out),
        partial(np.negative, out, out),
        partial(np.exp, out, out),
        partial(np.add, out, 1, below),
        partial(np.multiply, below, below, below),
        partial(np.multiply, out, g, out),
        partial(np.divide, out, below, out),
    ]


# The kernels: steps made and run at once


def _small(x: Array, y: Array) -> bool:
    """Return True if plain NumPy is as fast, or required because the arrays differ in shape or dtype."""
    return y.size < _LARGE or x.dtype != y.dtype or x.shape != y.shape or y.dtype.kind != "f"


def relu(x: Array) -> Array:
    """``max(x, 0)``."""
    return np.maximum(x, 0) if _small(x, x) else computed(relu_steps, memory.empty_like(x), x)


def where_positive(g: Array, y: Array) -> Any:
    """``g`` where ``y`` is positive or NaN, else 0, even where ``g`` is inf or NaN."""
    if _small(g, y):
        kept = np.logical_not(y <= 0).astype(BITS[g.dtype.itemsize])
        return np.multiply(g.view(kept.dtype), kept).view(g.dtype)
    return computed(where_positive_steps, memory.empty_like(y), g, y)


def tanh(x: Array) -> Array:
    """``tanh(x)``."""
    return np.tanh(x) if _small(x, x) else computed(tanh_steps, memory.empty_like(x), x)


def tanh_grad(g: Array, y: Array) -> Array:
    """``g * (1 - y * y)``."""
    return g * (1 - y * y) if _small(g, y) else computed(tanh_grad_steps, memory.empty_like(y), g, y)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + e^-x)``, accurate and without overflow."""
    return computed(sigmoid_steps, memory.empty_like(x, np.result_type(x, np.float16)), x)


def sigmoid_grad(g: Array, x: Array) -> Array:
    """``g`` times the derivative of the sigmoid. ``out * (1 - out)`` would lose all digits for ``out`` near 1."""
    return computed(sigmoid_grad_steps, memory.empty_like(x, np.result_type(g, x)), g, x)
