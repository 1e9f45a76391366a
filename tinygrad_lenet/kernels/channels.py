"""Normalisation of channels in few passes over memory, in blocks that fit into the cache, on all cores.

Means, variances and sums of channels are float64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import memory
from .sums import added
from .threads import parallel
from .windows import cut

Array: TypeAlias = NDArray[Any]

_BLOCK = 1 << 20  # bytes of a block: it stays in the cache, and threads seldom wait for the lock of the interpreter
_SHORT = 64  # elements from which BLAS adds a run in less time than NumPy
_RUN = 2048  # the most elements that BLAS adds at once, in their dtype; the sums of runs are added in float64


class Channels(NamedTuple):
    """The memory layout of arrays (N, C, ...), as (A, C, B): the elements of a channel come in runs of B."""

    order: tuple[int, ...]  # the axes, outermost in memory first
    back: tuple[int, ...]  # the inverse permutation
    inner: tuple[int, ...]  # the shape in that order
    shape: tuple[int, int, int]  # (A, C, B)
    each: int  # elements in a channel
    blocks: tuple[slice, ...]  # parts of A

    def view(self, x: Array) -> Array:
        """The array as (A, C, B): a copy if its memory has another layout."""
        return x.transpose(self.order).reshape(self.shape)

    def images(self, x: Array) -> Array:
        """An array (A, C, B) as (N, C, ...): a view."""
        return x.reshape(self.inner).transpose(self.back)


def channels(x: Array) -> Channels:
    """The memory layout of an array (N, C, ...)."""
    return _channels(x.shape, x.strides, x.itemsize)


@functools.lru_cache(maxsize=1024)
def _channels(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> Channels:
    order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
    step = itemsize
    for axis in reversed(order):
        if shape[axis] > 1 and strides[axis] != step:  # there are gaps
            order = list(range(len(shape)))
            break
        step *= shape[axis]
    inner, at = tuple(shape[axis] for axis in order), order.index(1)
    a, c, b = math.prod(inner[:at]), shape[1], math.prod(inner[at + 1 :])
    blocks = cut(a, max(1, _BLOCK // max(1, itemsize * c * b)))
    back = tuple(order.index(axis) for axis in range(len(shape)))
    return Channels(tuple(order), back, inner, (a, c, b), a * b, tuple(blocks))


def _in_blocks(compute: Callable[[slice], Any], at: Channels) -> list[Any]:
    """Call ``compute(rows of A)`` for all blocks, and return the results in order."""
    results: list[Any] = [None] * len(at.blocks)

    def some(start: int, stop: int) -> None:
        for i in range(start, stop):
            results[i] = compute(at.blocks[i])

    parallel(some, len(at.blocks), 40 * math.prod(at.shape))  # an element takes as long as 40 multiply-adds
    return results


def _sums(compute: Callable[[slice], Any], at: Channels) -> Any:
    """The sums of each channel, (..., C): ``compute`` returns those of a block."""
    return np.add.reduce(np.array(_in_blocks(compute, at), np.float64), axis=0)


def _spread(values: Array, x: Array) -> Array:
    """A number for each channel, in the dtype of ``x``, as (C, B): NumPy is slow where it broadcasts short runs."""
    return values.astype(x.dtype, copy=False).repeat(x.shape[2]).reshape(x.shape[1:])


def _rounded(mean: Array, x: Array) -> tuple[Array, Array]:
    """The means of the channels, rounded to the dtype of ``x``, as (C, B), and the rounding errors in float64."""
    rounded = mean.astype(x.dtype, copy=False)
    return _spread(rounded, x), mean - rounded


def _dots(x: Array, y: Array) -> Any:
    """The sums of ``x * y`` of each channel; ``x`` is (A, C, B), and ``y`` too or (B,)."""
    if x.shape[2] < _SHORT:
        return added(x * y, (0, 2))
    runs = cut(x.shape[2], _RUN)
    return sum(np.add.reduce(np.vecdot(x[..., run], y[..., run]), 0, np.float64) for run in runs)


def _total(x: Array) -> Any:
    """The sums of each channel of ``x``, (A, C, B)."""
    return added(x, (0, 2)) if x.shape[2] < _SHORT else _dots(x, np.ones(x.shape[2], x.dtype))


def moments(x: Array, at: Channels) -> tuple[Array, Array]:
    """The mean and the (biased) variance of each channel of ``x``, (A, C, B).

    Both are computed from distances to an approximate mean, that of some elements, so that neither a large mean
    nor its rounding costs digits. If the approximation was poor, they are computed again with the mean just found.
    """
    a, _, b = x.shape
    few = x[:: max(1, a * min(b, 64) // 256), :, :: max(1, b // 64)]  # from all parts of the images
    dtype = x.dtype
    mean = np.add.reduce(few, axis=(0, 2), dtype=np.float64) * (1 / (len(few) * few.shape[2]))
    for _ in range(3):
        centre, _ = _rounded(mean, x)
        off, squares = _sums(functools.partial(_powers, x, centre, dtype), at) / at.each
        mean, var = centre[:, 0] + off, np.maximum(squares - off * off, 0)
        if not np.isfinite(var).all():  # squares overflow
            dtype = np.dtype(np.float64)
        elif (off * off <= var).all():
            break
    if not np.isfinite(mean).all():  # distances from an infinite mean would be NaN
        mean = np.add.reduce(x, axis=(0, 2), dtype=np.float64) / at.each
    return mean, var


def _powers(x: Array, centre: Array, dtype: np.dtype[Any], rows: slice) -> tuple[Array, Array]:
    """The sums of the distances from the centre in a block, and the sums of their squares."""
    block = x[rows]
    off = np.subtract(block, centre, out=memory.empty(block.shape, dtype), dtype=dtype)
    return _total(off), _dots(off, off)


def _products(x: Array, g: Array, centre: Array, at: Channels) -> Any:
    """The sums of the gradients, and the sums of their products with the distances from the centre."""

    def compute(rows: slice) -> tuple[Array, Array]:
        block, grads = x[rows], g[rows]
        off = np.subtract(block, centre, out=memory.empty(block.shape, block.dtype))
        return _total(grads), _dots(off, grads)

    return _sums(compute, at)


def normalize(
    out: Array, x: Array, at: Channels, mean: Array, var: Array, weight: Array, bias: Array, eps: float
) -> None:
    """Write ``(x - mean) / sqrt(var + eps) * weight + bias`` to ``out``; both are (A, C, B)."""
    (centre, rest), factor = _rounded(mean, x), weight / np.sqrt(var + eps)
    bounded = np.where(np.isfinite(factor), factor, 0)  # else an infinite weight would make NaN everywhere
    scale = _spread(factor, x)
    shift = _spread(bias - rest * bounded, x)

    def compute(rows: slice) -> None:
        block = np.subtract(x[rows], centre, out=out[rows])
        np.multiply(block, scale, out=block)
        np.add(block, shift, out=block)

    _in_blocks(compute, at)


def input_grad(
    out: Array, g: Array, x: Array, at: Channels, mean: Array, var: Array, weight: Array, eps: float
) -> None:
    """Write the gradient of :func:`normalize` for ``x`` to ``out``, including that through mean and variance."""
    factor, (centre, rest) = 1 / np.sqrt(var + eps), _rounded(mean, x)
    total, common = (value / at.each for value in _products(x, g, centre, at))
    steep = (common - rest * total) * factor**2
    shift, slope, scale = (_spread(v, x) for v in (total - rest * steep, steep, weight * factor))

    def compute(rows: slice) -> None:
        block = np.subtract(x[rows], centre, out=out[rows])
        np.multiply(block, slope, out=block)
        np.subtract(g[rows], block, out=block)
        np.subtract(block, shift, out=block)
        np.multiply(block, scale, out=block)

    _in_blocks(compute, at)


def weight_grad(g: Array, x: Array, at: Channels, mean: Array, var: Array, eps: float) -> Array:
    """The gradient of :func:`normalize` for the weights."""
    centre, rest = _rounded(mean, x)
    total, common = _products(x, g, centre, at)
    found: Array = (common - rest * total) / np.sqrt(var + eps)
    return found.astype(x.dtype)
