"""Normalisation of channels: a few passes over memory, in blocks that stay in the cache, on all cores."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import memory
from ..primitive import Array, draw, primitive
from ..threads import parallel
from .maths import sqrt, square
from .windows import cut

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
        """The sum of each channel, of blocks (A, C, B) that ``compute`` makes, added up in float64."""
        found = self.blocks(lambda rows: np.add.reduce(compute(rows), axis=(0, 2)), dtype)
        return np.add.reduce(np.array(found, np.float64).reshape(len(found), self.shape[1]), axis=0)


def _column(values: Array, dtype: np.dtype[Any]) -> Array:
    """Of numbers for the channels, what broadcasts against (A, C, B)."""
    return values.astype(dtype, copy=False).reshape(-1, 1)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel (axis 1): the mean first, so that a large mean costs no digits."""
    channels = _Channels(x)
    data = channels.view(x)
    mean = (channels.sums(lambda rows: data[rows], x.dtype) / channels.count).astype(x.dtype)

    def squares(rows: slice) -> Array:
        centred = data[rows] - mean.reshape(-1, 1)
        return np.multiply(centred, centred, out=centred)

    return mean, (channels.sums(squares, x.dtype) / channels.count).astype(x.dtype)


@primitive
def normalize(x: Array, weight: Array, bias: Array, eps: float, stats: Any = None) -> Array:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for channels on axis 1, where ``mean, var = moments(x)``.

    ``stats`` are the moments of ``x``, if they are known already. The gradient for ``x`` includes what flows through
    them (Ioffe & Szegedy, 2015, section 3).
    """
    mean, var = moments(x) if stats is None else stats
    channels, dtype = _Channels(x), x.dtype
    data, (out, result) = channels.view(x), channels.empty(dtype)
    centre, scale, shift = _column(mean, dtype), _column(weight / np.sqrt(var + eps), dtype), _column(bias, dtype)

    def compute(rows: slice) -> None:
        block = np.subtract(data[rows], centre, out=out[rows])
        np.multiply(block, scale, out=block)
        np.add(block, shift, out=block)

    channels.blocks(compute, dtype)
    return result


def _standard(x: Any, eps: float) -> tuple[Any, Any]:
    """Recorded, for derivatives of derivatives: the standardised channels, and the factor that made them."""
    axes = (0, *range(2, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    factor = 1 / sqrt(square(centred).mean(axis=axes, keepdims=True) + eps)
    return centred * factor, factor


def _normalize_x(g: Any, x: Any, weight: Any, eps: float, stats: Any) -> Any:
    if not isinstance(g, np.ndarray):  # the formula, as the papers have it
        axes, (standard, factor) = (0, *range(2, x.ndim)), _standard(x, eps)
        inner = g - g.mean(axis=axes, keepdims=True) - standard * (g * standard).mean(axis=axes, keepdims=True)
        return inner * factor * weight.reshape(1, -1, *[1] * (x.ndim - 2))
    mean, var = moments(x) if stats is None else stats
    channels, dtype = _Channels(x), x.dtype
    data, grads, (out, result) = channels.view(x), channels.view(g), channels.empty(dtype)
    factor = 1 / np.sqrt(var + eps)
    centre, scale = _column(mean, dtype), _column(weight * factor, dtype)
    total = channels.sums(lambda rows: grads[rows], dtype) / channels.count
    common = channels.sums(lambda rows: (data[rows] - centre) * grads[rows], dtype) / channels.count
    shift, slope = _column(total, dtype), _column(common * factor**2, dtype)

    def compute(rows: slice) -> None:
        block = np.subtract(data[rows], centre, out=out[rows])
        np.multiply(block, slope, out=block)
        np.subtract(grads[rows], block, out=block)
        np.subtract(block, shift, out=block)
        np.multiply(block, scale, out=block)

    channels.blocks(compute, dtype)
    return result


def _normalize_weight(g: Any, x: Any, eps: float, stats: Any) -> Any:
    if not isinstance(g, np.ndarray):
        return (g * _standard(x, eps)[0]).sum(axis=(0, *range(2, x.ndim)))
    mean, var = moments(x) if stats is None else stats
    channels = _Channels(x)
    data, grads, centre = channels.view(x), channels.view(g), _column(mean, x.dtype)
    common = channels.sums(lambda rows: (data[rows] - centre) * grads[rows], x.dtype)
    return (common / np.sqrt(var + eps)).astype(x.dtype)


normalize.vjp(x=_normalize_x, weight=_normalize_weight, bias=lambda g: g.sum(axis=(0, *range(2, g.ndim))))
normalize.check(draw(3, 2, 2, 3), draw(2), draw(2), 1e-3)
normalize.check(draw(5, 2), draw(2), draw(2), 1e-3)
