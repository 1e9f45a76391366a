"""Activations: the nonlinear functions of networks, elementwise, each with its derivative beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import memory
from ..errors import ArgumentError
from ..primitive import Array, composite, draw, primitive
from ..tensor import Tensor, as_tensor
from ..threads import spread
from .elementwise import BITS, abs, mask_bits, minimum, select, where
from .maths import erf, exp, square

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "tanh",
]

_LARGE = 32_768  # elements from which memory is recycled and the cores share the work


def _large(compute: Callable[..., object], passes: int, *arrays: Array) -> Array:
    """``compute(*arrays, out)`` for large arrays of floats and one shape, in recycled memory and on all cores."""
    out = memory.empty_like(arrays[-1])
    spread(compute, passes, *arrays, out)
    return out


@primitive
def tanh(x: Array) -> Array:
    """Hyperbolic tangent, ``(e^x - e^-x) / (e^x + e^-x)``; ±1 for large ``x``, never NaN but for NaN.

    Its derivative is ``1 - tanh(x)^2``: 1 at 0, and next to nothing where it is saturated.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([-100.0, 0.0, 1.0], requires_grad=True)
    >>> y = tl.tanh(x)
    >>> y.sum().backward()
    >>> y.detach().round(4), x.grad.round(4)
    (tensor([-1.    ,  0.    ,  0.7616]), tensor([0.  , 1.  , 0.42]))
    """
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

    return g * (1 - y * y) if y.size < _LARGE else _large(compute, 4, g, y)


tanh.vjp(x=lambda g, out: _tanh_grad(g, out))
tanh.check(draw(3, 2))
_tanh_grad.vjp(g=lambda g_, y: _tanh_grad(g_, y), y=lambda g_, g, y: -2 * g_ * g * y)
_tanh_grad.check(draw(3, 2), draw(3, 2))


@primitive
def sigmoid(x: Array) -> Array:
    """Logistic function, ``1 / (1 + e^-x)``, as ``e^min(x, 0) / (1 + e^-|x|)``: no overflow, and all digits.

    Its derivative is ``sigmoid(x) * (1 - sigmoid(x))``, at most 1/4.

    >>> import tinygrad_lenet as tl
    >>> tl.sigmoid(tl.tensor([-1000.0, 0.0, 2.0])).round(4)
    tensor([0.    , 0.5   , 0.8808])
    """
    return _sigmoid(x)


def _sigmoid(x: Array) -> Array:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


sigmoid.vjp(x=lambda g, out: g * out * (1 - out))
sigmoid.check(draw(3, 2))


@primitive
def relu(x: Array) -> Array:
    """Rectified linear unit, ``max(x, 0)`` (Nair & Hinton, 2010); its gradient at 0 is 0. NaN stays, with gradient 0.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    >>> tl.relu(x).sum().backward()
    >>> tl.relu(x).detach(), x.grad
    (tensor([0., 0., 2.]), tensor([0., 0., 1.]))
    """
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

    return mask_bits(g, y > 0) if y.size < _LARGE else _large(compute, 5, g, y)


relu.vjp(x=lambda g, out: _where_positive(g, out))
_where_positive.vjp(g=lambda g_, y: _where_positive(g_, y), y=None)
_where_positive.check(draw(3, 2), np.array([[1.0, -1.0], [0.0, 2.0], [3.0, -4.0]]))
relu.check(draw(3, 2))


@primitive
def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """``x`` where positive, ``negative_slope * x`` elsewhere (Maas et al., 2013); its gradient at 0 is
    ``negative_slope``.

    >>> import tinygrad_lenet as tl
    >>> tl.leaky_relu(tl.tensor([-1.0, 2.0]), 0.1)
    tensor([-0.1,  2. ])
    """
    return np.where(x > 0, x, x * negative_slope)


leaky_relu.vjp(x=lambda g, x, negative_slope: where(x > 0, g, g * negative_slope))
leaky_relu.check(draw(3, 2))
leaky_relu.check(draw(3, 2), negative_slope=0.3)


@primitive
def elu(x: Array, alpha: float = 1.0) -> Array:
    """``x`` where positive, ``alpha * (e^x - 1)`` elsewhere (Clevert et al., 2015); its gradient at 0 is ``alpha``.

    >>> import tinygrad_lenet as tl
    >>> tl.elu(tl.tensor([-1.0, 2.0])).round(4)
    tensor([-0.6321,  2.    ])
    """
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


elu.vjp(x=lambda g, x, alpha: g * (where(x > 0, 1, alpha) * exp(minimum(x, 0))))
elu.check(draw(3, 2))
elu.check(draw(3, 2), alpha=1.7)


@primitive
def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """``log(1 + e^(beta x)) / beta``, a smooth ReLU (Dugas et al., 2000); ``x`` itself where ``beta x > threshold``.

    Its derivative is ``sigmoid(beta x)``; 1 beyond the threshold.

    >>> import tinygrad_lenet as tl
    >>> tl.softplus(tl.tensor([-1000.0, 0.0, 5.0])).round(4)
    tensor([0.    , 0.6931, 5.0067])
    """
    scaled = x * beta
    smooth = (np.maximum(scaled, 0) + np.log1p(np.exp(-np.abs(scaled)))) / beta
    return np.where(scaled > threshold, x, smooth)


softplus.vjp(x=lambda g, x, beta, threshold: where(x * beta > threshold, g, g * sigmoid(x * beta)))
softplus.check(draw(3, 2))
softplus.check(draw(3, 2), beta=2.0)


@primitive
def celu(x: Array, alpha: float = 1.0) -> Array:
    """``x`` where positive, ``alpha * (e^(x / alpha) - 1)`` elsewhere: ELU with a slope of 1 at 0 (Barron, 2017).

    >>> import tinygrad_lenet as tl
    >>> tl.celu(tl.tensor([-1.0, 2.0]), alpha=2.0).round(4)
    tensor([-0.7869,  2.    ])
    """
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha))


celu.vjp(x=lambda g, x, alpha: g * exp(minimum(x, 0) / alpha))
celu.check(draw(3, 2))
celu.check(draw(3, 2), alpha=1.7)

# What lets activations keep mean 0 and variance 1 (Klambauer et al., Self-normalizing neural networks, 2017, eq. 14).
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@composite
def selu(x: Array) -> Tensor:
    """``1.0507... * elu(x, 1.6732...)``, which keeps mean 0 and variance 1 from layer to layer (Klambauer et al.,
    2017); its gradient at 0 is that on the left, 1.7581.

    >>> import tinygrad_lenet as tl
    >>> tl.selu(tl.tensor([-1.0, 2.0])).round(4)
    tensor([-1.1113,  2.1014])
    """
    return elu(x, _SELU_ALPHA) * _SELU_SCALE


@primitive
def silu(x: Array) -> Array:
    """``x * sigmoid(x)``, also called swish (Elfwing et al., 2018; Ramachandran et al., 2017): smooth, least, -0.2785,
    at -1.2785.

    >>> import tinygrad_lenet as tl
    >>> tl.silu(tl.tensor([-1.0, 2.0])).round(4)
    tensor([-0.2689,  1.7616])
    """
    return x * _sigmoid(x)


def _silu_x(g: Any, x: Any) -> Any:
    s = sigmoid(x)
    return g * (s + x * (s * sigmoid(-x)))


silu.vjp(x=_silu_x)
silu.check(draw(3, 2))


@composite
def mish(x: Array) -> Tensor:
    """``x * tanh(softplus(x))`` (Misra, 2019): smooth, least, -0.3088, at -1.1925.

    >>> import tinygrad_lenet as tl
    >>> tl.mish(tl.tensor([-1.0, 2.0])).round(4)
    tensor([-0.3034,  1.944 ])
    """
    return as_tensor(x) * tanh(softplus(x))


@primitive
def softsign(x: Array) -> Array:
    """``x / (1 + |x|)`` (Turian et al., 2009), with the derivative ``1 / (1 + |x|)^2``; NaN at ±inf.

    >>> import tinygrad_lenet as tl
    >>> tl.softsign(tl.tensor([-1.0, 3.0]))
    tensor([-0.5 ,  0.75])
    """
    return x / (1 + np.abs(x))


softsign.vjp(x=lambda g, x: g / square(1 + abs(x)))
softsign.check(draw(3, 2))


@primitive
def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """``x`` limited to ``min_val … max_val``; its gradient at both is 0, as in PyTorch.

    Raises:
        ArgumentError: ``min_val`` lies above ``max_val``.

    >>> import tinygrad_lenet as tl
    >>> tl.hardtanh(tl.tensor([-3.0, 0.5, 3.0]))
    tensor([-1. ,  0.5,  1. ])
    """
    if min_val > max_val:
        raise ArgumentError(f"hardtanh: min_val={min_val} must not be above max_val={max_val}")
    return np.clip(x, min_val, max_val)


hardtanh.vjp(x=lambda g, x, min_val, max_val: select(g, (x > min_val) & (x < max_val)))
hardtanh.check(draw(3, 2), -0.4, 0.6)


@composite
def relu6(x: Array) -> Tensor:
    """``min(max(x, 0), 6)`` (Krizhevsky, *Convolutional deep belief networks on CIFAR-10*, 2010); its gradient at 0 and
    6 is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.relu6(tl.tensor([-1.0, 3.0, 8.0]))
    tensor([0., 3., 6.])
    """
    return hardtanh(x, 0.0, 6.0)


@primitive
def hardsigmoid(x: Array) -> Array:
    """``min(max(x + 3, 0), 6) / 6``, the sigmoid in three straight lines (Courbariaux et al., 2015; PyTorch's slope of
    1/6); its gradient at ±3 is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.hardsigmoid(tl.tensor([-4.0, 0.0, 1.5]))
    tensor([0.  , 0.5 , 0.75])
    """
    return np.clip(x + 3, 0, 6) / 6


hardsigmoid.vjp(x=lambda g, x: select(g / 6, (x > -3) & (x < 3)))
hardsigmoid.check(draw(3, 2, low=-7, high=6))


@primitive
def hardswish(x: Array) -> Array:
    """``x * hardsigmoid(x)``, SiLU in three pieces (Howard et al., *MobileNetV3*, 2019); its gradient is 0 at -3 and 1
    from 3 on.

    >>> import tinygrad_lenet as tl
    >>> tl.hardswish(tl.tensor([-1.5, 0.0, 4.0]))
    tensor([-0.375,  0.   ,  4.   ])
    """
    return x * (np.clip(x + 3, 0, 6) / 6)


hardswish.vjp(x=lambda g, x: where(x < 3, select(g * (x / 3 + 0.5), x > -3), g))
hardswish.check(draw(3, 2, low=-7, high=6))


@primitive
def _gelu(x: Array) -> Array:
    return x * (0.5 * erf(x * math.sqrt(0.5)).numpy() + 0.5)


def _gelu_x(g: Any, x: Any) -> Any:
    return g * (0.5 * erf(x * math.sqrt(0.5)) + 0.5 + x * exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi)))


_gelu.vjp(x=_gelu_x)
_gelu.check(draw(3, 2, low=-2, high=2))


@composite
def gelu(x: Array, approximate: str = "none") -> Tensor:
    """Gaussian error linear unit, ``x`` times the share of the standard normal distribution below ``x`` (Hendrycks &
    Gimpel, 2016).

    Args:
        x: any shape.
        approximate: ``"none"``: ``x * (1 + erf(x / sqrt(2))) / 2``; or ``"tanh"``:
            ``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2``.

    Raises:
        ArgumentError: another word for ``approximate``.

    >>> import tinygrad_lenet as tl
    >>> tl.gelu(tl.tensor([-1.0, 0.0, 1.0])).numpy().round(4)
    array([-0.1587,  0.    ,  0.8413], dtype=float32)
    """
    if approximate == "none":
        return _gelu(x)
    if approximate != "tanh":
        raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    given = as_tensor(x)
    inner = (given + 0.044715 * given * given * given) * math.sqrt(2 / math.pi)
    return given * (0.5 * tanh(inner) + 0.5)


@composite
def logsigmoid(x: Array) -> Tensor:
    """``log(sigmoid(x))``, as ``-softplus(-x)``: finite for any finite ``x``. Its derivative is ``sigmoid(-x)``.

    >>> import tinygrad_lenet as tl
    >>> tl.logsigmoid(tl.tensor([-50.0, 0.0])).round(4)
    tensor([-50.    ,  -0.6931])
    """
    return -softplus(-as_tensor(x), threshold=math.inf)
