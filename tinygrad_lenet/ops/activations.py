"""Activations: the nonlinear functions of networks, elementwise, each with its derivative beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .. import memory
from ..primitive import Array, draw, primitive
from ..threads import spread
from .elementwise import BITS, mask_bits, where

__all__ = ["elu", "leaky_relu", "relu", "sigmoid", "softplus", "tanh"]

_LARGE = 32_768  # elements from which memory is recycled and the cores share the work


def _large(compute: Callable[..., object], passes: int, *arrays: Array) -> Array:
    """``compute(*arrays, out)`` for large arrays of floats and one shape, in recycled memory and on all cores."""
    out = memory.empty_like(arrays[-1])
    spread(compute, passes, *arrays, out)
    return out


@primitive
def tanh(x: Array) -> Array:
    """Hyperbolic tangent, ``(e^x - e^-x) / (e^x + e^-x)``; ±1 for large ``x``, never NaN."""
    if x.size < _LARGE or x.dtype.kind != "f":
        return np.tanh(x)
    return _large(lambda x, out: np.tanh(x, out=out), 10, x)


@primitive
def _tanh_grad(g: Array, y: Array) -> Array:
    """``g * (1 - y * y)``, without temporary arrays."""

    def compute(g: Array, y: Array, out: Array) -> None:
        np.multiply(y, y, out=out)
        np.subtract(1, out, out=out)
        np.multiply(out, g, out=out)

    return g * (1 - y * y) if y.size < _LARGE or g.shape != y.shape else _large(compute, 4, g, y)


tanh.vjp(x=lambda g, out: _tanh_grad(g, out))
tanh.check(draw(3, 2))
_tanh_grad.vjp(g=lambda g_, y: _tanh_grad(g_, y), y=lambda g_, g, y: -2 * g_ * g * y)
_tanh_grad.check(draw(3, 2), draw(3, 2))


@primitive
def sigmoid(x: Array) -> Array:
    """Logistic function, ``1 / (1 + e^-x)``, as ``e^min(x, 0) / (1 + e^-|x|)``: no overflow, and all digits."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


sigmoid.vjp(x=lambda g, out: g * out * (1 - out))
sigmoid.check(draw(3, 2))


@primitive
def relu(x: Array) -> Array:
    """Rectified linear unit, ``max(x, 0)``; its gradient at 0 is 0."""
    if x.size < _LARGE:
        return np.maximum(x, 0)
    return _large(lambda x, out: np.maximum(x, _zeros_under(x), out=out), 2, x)


def _zeros_under(x: Array) -> Array:
    """Zeros that broadcast against ``x`` in runs of a thousand: with a single 0, ``np.maximum`` takes twice as long."""
    shape, length = [1] * x.ndim, 1
    for axis in sorted(range(x.ndim), key=lambda axis: x.strides[axis]):
        if length < 1024:
            shape[axis] = x.shape[axis]
            length *= x.shape[axis]
    zeros = np.empty_like(x[tuple(slice(n) for n in shape)], subok=False)
    zeros.fill(0)
    return zeros


@primitive
def _where_positive(g: Array, y: Array) -> Array:
    """``g`` where ``y`` is positive, else 0, also where ``g`` is inf or NaN."""

    def compute(g: Array, y: Array, out: Array) -> None:
        bits = out.view(BITS[g.dtype.itemsize])
        ones = np.greater(y, 0).view(np.int8)
        np.copyto(bits, np.negative(ones, out=ones))
        np.bitwise_and(g.view(bits.dtype), bits, out=bits)

    return mask_bits(g, y > 0) if y.size < _LARGE or g.shape != y.shape else _large(compute, 5, g, y)


relu.vjp(x=lambda g, out: _where_positive(g, out))
_where_positive.vjp(g=lambda g_, y: _where_positive(g_, y), y=None)
_where_positive.check(draw(3, 2), np.array([[1.0, -1.0], [0.0, 2.0], [3.0, -4.0]]))
relu.check(draw(3, 2))


@primitive
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """``x`` where positive, ``negative_slope * x`` elsewhere (Maas et al., 2013)."""
    return np.where(x > 0, x, x * negative_slope)


leaky_relu.vjp(x=lambda g, x, negative_slope: where(x > 0, g, g * negative_slope))
leaky_relu.check(draw(3, 2))
leaky_relu.check(draw(3, 2), negative_slope=0.3)


@primitive
def elu(x: Array, alpha: float = 1.0) -> Array:
    """``x`` where positive, ``alpha * (e^x - 1)`` elsewhere (Clevert et al., 2015)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


elu.vjp(x=lambda g, out, x, alpha: where(x > 0, g, g * (out + alpha)))
elu.check(draw(3, 2))
elu.check(draw(3, 2), alpha=1.7)


@primitive
def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """``log(1 + e^(beta x)) / beta``, a smooth ReLU; ``x`` itself where ``beta x > threshold``."""
    scaled = x * beta
    smooth = (np.maximum(scaled, 0) + np.log1p(np.exp(-np.abs(scaled)))) / beta
    return np.where(scaled > threshold, x, smooth)


softplus.vjp(x=lambda g, x, beta, threshold: where(x * beta > threshold, g, g * sigmoid(x * beta)))
softplus.check(draw(3, 2))
softplus.check(draw(3, 2), beta=2.0)
