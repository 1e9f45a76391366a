"""Normalisation of channels: a few passes over memory, in blocks that stay in the cache, on all cores."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.primitive import Array, draw, primitive
from ..core.tensor import to_array
from ..errors import ShapeError
from ..kernels import memory
from ..kernels.sums import added, single
from ..kernels.threads import parallel
from ..kernels.windows import cut
from .maths import sqrt, square
from .reduction import _wide

_ROOM = 1 << 18  # bytes of a block: with its gradient and its result it stays in the cache of a core


class _Channels:
    """Arrays (N, C, ...) as they lie in memory: (A, C, B), where the channels' numbers come in runs of B."""

    def __init__(self, x: Array) -> None:
        order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
        if not x.transpose(order).flags.c_contiguous:
            order = list(range(x.ndim))
        self.order, self.back = order, [order.index(axis) for axis in range(x.ndim)]
        self.inner = tuple([x.shape[axis] for axis in order])
        before = order.index(1)
        self.shape = (math.prod(self.inner[:before]), x.shape[1], math.prod(self.inner[before + 1 :]))
        self.count = x.size // max(1, x.shape[1])  # of each channel

    def view(self, x: Array) -> Array:
        """A copy, if the array lies otherwise."""
        return x.transpose(self.order).reshape(self.shape)

    def empty(self, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """Room for a result: as (A, C, B), and as (N, C, ...)."""
        out = memory.empty(self.shape, dtype)
        return out, out.reshape(self.inner).transpose(self.back)

    def blocks(self, compute: Callable[[slice], Any], dtype: np.dtype[Any]) -> list[Any]:
        """``compute(rows of A)`` for blocks that make up the whole; what it returned, in order."""
        parts = cut(self.shape[0], max(1, _ROOM // max(1, dtype.itemsize * self.shape[1] * self.shape[2])))
        results: list[Any] = [None] * len(parts)

        def some(start: int, stop: int) -> None:
            for i in range(start, stop):
                results[i] = compute(parts[i])

        parallel(some, len(parts), 40 * math.prod(self.shape))  # an element takes as long as 40 multiply-adds
        return results

    def sums(self, compute: Callable[[slice], Array], dtype: np.dtype[Any]) -> Array:
        """What ``compute`` gives for blocks, sums of each channel (..., C), added up in float64."""
        return np.add.reduce(np.array(self.blocks(compute, dtype), np.float64), axis=0)


def _column(values: Array, dtype: np.dtype[Any]) -> Array:
    """Of numbers for the channels, what broadcasts against (A, C, B)."""
    return values.astype(dtype, copy=False).reshape(-1, 1)


def _parts(mean: Array, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """The means of the channels, in float64, as a column of the dtype and what its rounding left."""
    centre = _column(mean, dtype)
    return centre, mean - centre.ravel()


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel (axis 1), in float64.

    Both are sums of distances from a rough mean, that of the first numbers: so neither a large mean costs digits, nor
    its rounding. Should that one be far off, they are summed up again from the mean that was found.
    """
    x = single(x)
    channels, dtype = _Channels(x), x.dtype
    data = channels.view(x)
    few = data[: -(-64 // max(1, data.shape[2])), :, :64]
    mean = np.add.reduce(few, axis=(0, 2), dtype=np.float64) * (few.shape[1] / max(1, few.size))
    for _ in range(3):
        centre, _ = _parts(mean, x.dtype)
        powers = functools.partial(_powers, data, centre, dtype)
        off, squares = channels.sums(powers, dtype) / channels.count
        mean, var = centre.ravel() + off, np.maximum(squares - off * off, 0)
        if (off * off <= var).all() and np.isfinite(var).all():
            break
        dtype = dtype if np.isfinite(var).all() else np.dtype(np.float64)  # where squares overflow
    if not np.isfinite(mean).all():  # no distance from an infinite mean
        mean = np.add.reduce(data, axis=(0, 2), dtype=np.float64) / channels.count
    return mean, var


def _powers(x: Array, centre: Array, dtype: np.dtype[Any], rows: slice) -> Array:
    """The sums over a block of the distances from the centre, and of their squares."""
    off = np.subtract(x[rows], centre, dtype=dtype)
    first = added(off, (0, 2))
    return np.stack([first, added(np.multiply(off, off, out=off), (0, 2))])


def _moments(x: Array, stats: Any) -> tuple[Array, Array]:
    """Mean and variance of each channel: those that are given, or computed."""
    if stats is None:
        return moments(x)
    mean, var = (to_array(value) for value in stats)
    if mean.shape != x.shape[1:2] or var.shape != x.shape[1:2]:
        raise ShapeError(f"stats must be mean and variance of {x.shape[1]} channels, got {mean.shape} and {var.shape}")
    return mean, var


@primitive
def normalize(x: Array, weight: Array, bias: Array, eps: float, stats: Any = None) -> Array:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for channels on axis 1, where ``mean, var = moments(x)``.

    ``stats`` are the moments of ``x``, if they are known already. The gradient for ``x`` includes what flows through
    them (Ioffe & Szegedy, 2015, section 3).
    """
    narrow, x = x.dtype, single(x)
    mean, var = _moments(x, stats)
    channels, dtype = _Channels(x), x.dtype
    data, (out, result) = channels.view(x), channels.empty(dtype)
    (centre, rest), factor = _parts(mean, dtype), weight / np.sqrt(var + eps)
    rest = np.where(np.isfinite(factor), rest, 0)  # an infinite weight makes NaN of no more than the mean itself
    scale, shift = _column(factor, dtype), _column(bias - rest * np.where(rest == 0, 0, factor), dtype)

    def compute(rows: slice) -> None:
        block = np.subtract(data[rows], centre, out=out[rows])
        np.multiply(block, scale, out=block)
        np.add(block, shift, out=block)

    channels.blocks(compute, dtype)
    return result.astype(narrow, copy=False)


def _standard(x: Any, eps: float) -> tuple[Any, Any]:
    """Recorded, for derivatives of derivatives: the standardised channels, and the factor that made them; in the next
    wider dtype, where no square overflows or vanishes.
    """
    x = _wide(x)
    axes = (0, *range(2, x.ndim))
    rough = x - x.mean(axis=axes, keepdims=True)
    centred = rough - rough.mean(axis=axes, keepdims=True)  # without the rounding of the mean
    factor = 1 / sqrt(square(centred).mean(axis=axes, keepdims=True) + eps)
    return centred * factor, factor


def _normalize_x(g: Any, x: Any, weight: Any, eps: float, stats: Any) -> Any:
    g, x = single(g), single(x)
    if not isinstance(g, np.ndarray):  # the formula, as the papers have it
        axes, (standard, factor) = (0, *range(2, x.ndim)), _standard(x, eps)
        inner = g - g.mean(axis=axes, keepdims=True) - standard * (g * standard).mean(axis=axes, keepdims=True)
        return (inner * factor * weight.reshape(1, -1, *[1] * (x.ndim - 2))).astype(x.dtype)
    mean, var = _moments(x, stats)
    channels, dtype = _Channels(x), x.dtype
    data, grads, (out, result) = channels.view(x), channels.view(g), channels.empty(dtype)
    factor, (centre, rest) = 1 / np.sqrt(var + eps), _parts(mean, dtype)
    total, common = channels.sums(lambda rows: _products(data[rows], grads[rows], centre), dtype) / channels.count
    steep = (common - rest * total) * factor**2
    shift, slope, scale = (_column(v, dtype) for v in (total - rest * steep, steep, weight * factor))

    def compute(rows: slice) -> None:
        block = np.subtract(data[rows], centre, out=out[rows])
        np.multiply(block, slope, out=block)
        np.subtract(grads[rows], block, out=block)
        np.subtract(block, shift, out=block)
        np.multiply(block, scale, out=block)

    channels.blocks(compute, dtype)
    return result


def _normalize_weight(g: Any, x: Any, eps: float, stats: Any) -> Any:
    g, x = single(g), single(x)
    if not isinstance(g, np.ndarray):
        return (g * _standard(x, eps)[0]).sum(axis=(0, *range(2, x.ndim))).astype(x.dtype)
    mean, var = _moments(x, stats)
    channels, (centre, rest) = _Channels(x), _parts(mean, x.dtype)
    data, grads = channels.view(x), channels.view(g)
    total, common = channels.sums(lambda rows: _products(data[rows], grads[rows], centre), x.dtype)
    return ((common - rest * total) / np.sqrt(var + eps)).astype(x.dtype)


def _products(x: Array, g: Array, centre: Array) -> Array:
    """The sums over a block of the gradients, and of their products with the distances from the centre."""
    off = x - centre
    return np.stack([added(g, (0, 2)), added(np.multiply(off, g, out=off), (0, 2))])


normalize.vjp(x=_normalize_x, weight=_normalize_weight, bias=lambda g: single(g).sum(axis=(0, *range(2, g.ndim))))
normalize.check(draw(3, 2, 2, 3), draw(2), draw(2), 1e-3)
normalize.check(draw(5, 2), draw(2), draw(2), 1e-3)
