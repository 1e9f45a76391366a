"""Elementwise maths: each op with its derivative beside it. All broadcast as NumPy does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .. import memory
from ..primitive import Array, draw, primitive
from ..tensor import Tensor, checked
from ..threads import spread

# Integers as large as a float: a mask of all ones or none picks or drops it, exactly.
BITS: dict[int, Any] = {2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}


def mask_bits(x: Array, mask: Array) -> Array:
    """``x`` where the mask holds, else 0: all bits or none.

    A tenth of the time of ``np.where`` on a random mask, and unlike ``x * mask`` it makes no NaN of ``inf * 0``.
    """
    bits = memory.empty_like(mask, BITS[x.dtype.itemsize])
    np.copyto(bits, np.negative(mask.view(np.int8)))  # -1 is all ones
    # Into the same memory, unless broadcasting needs more.
    return np.bitwise_and(x.view(bits.dtype), bits, out=bits if bits.shape == x.shape else None).view(x.dtype)


@primitive
def select(x: Array, mask: Array, when: bool = True) -> Array:
    """``x`` where the mask is ``when``, 0 elsewhere, also where ``x`` is inf or NaN: a mask on a gradient."""
    mask = np.asarray(mask, np.bool_)
    return mask_bits(np.asarray(x), mask if when else ~mask)


select.vjp(x=lambda g, mask, when: select(g, mask, when), mask=None)
select.check(draw(3, 2), np.array([True, False]))
select.check(draw(3, 2), np.array([True, False]), when=False)


@primitive
def where(condition: Array, x: Array, y: Array) -> Array:
    """``x`` where the condition holds, ``y`` elsewhere; a NaN in the branch not taken does no harm, forward or
    backward.
    """
    return np.where(condition, x, y)


where.vjp(
    condition=None, x=lambda g, condition: select(g, condition), y=lambda g, condition: select(g, condition, False)
)
where.check(np.array([True, False]), draw(3, 2), draw(2))


# Arithmetic


@primitive
def add(x: Array, y: Array) -> Array:
    """Sum, ``x + y``."""
    return np.add(x, y)


add.vjp(x=lambda g: g, y=lambda g: g)
add.check(draw(3, 2), draw(2))
add.check(draw(3, 1), draw(1, 2))


@primitive
def sub(x: Array, y: Array) -> Array:
    """Difference, ``x - y``."""
    return np.subtract(x, y)


sub.vjp(x=lambda g: g, y=lambda g: -g)
sub.check(draw(2), draw(3, 2))


@primitive
def mul(x: Array, y: Array) -> Array:
    """Product, ``x * y``, element by element."""
    return np.multiply(x, y)


mul.vjp(x=lambda g, y: g * y, y=lambda g, x: g * x)
mul.check(draw(3, 2), draw(2))
mul.check(draw(2, 1, 2), draw(3, 1))
mul.check(draw(2), 3.0)


@primitive
def div(x: Array, y: Array) -> Array:
    """Quotient, ``x / y``. Division by zero gives ±inf or NaN, as in NumPy."""
    return np.true_divide(x, y)


div.vjp(x=lambda g, y: g / y, y=lambda g, out, y: -g * out / y)
div.check(draw(3, 2), draw(2, low=0.5, high=2))
div.check(1.0, draw(2, low=-2, high=-0.5))


@primitive
def pow(x: Array, y: Array) -> Array:
    """Power, ``x ** y``; NaN for a negative base with a fractional exponent.

    The gradient of ``x ** 0`` is 0 everywhere, and at ``x = 0`` the gradient for ``y`` is 0, as in PyTorch.
    """
    return x**y


def _pow_x(g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)):  # stays a Python number, which widens nothing
        return g * y * x ** (y - 1) if y else select(g, np.False_)
    return select(g * y * where(y == 0, 1, x) ** where(y == 0, 1, y - 1), y != 0)


def _pow_y(g: Any, out: Any, x: Any) -> Any:
    if isinstance(x, (int, float)):
        return g * out * (math.log(x) if x > 0 else 0.0 if x == 0 else math.nan)
    return g * out * log(where(x == 0, 1, x))


pow.vjp(x=_pow_x, y=_pow_y)
pow.check(draw(3, 2, low=0.5, high=2), draw(2))
pow.check(draw(3), 2)
pow.check(draw(3), 0)
pow.check(draw(3, low=0.5, high=2), -1.5)
pow.check(2.0, draw(3))


@primitive
def neg(x: Array) -> Array:
    """Negative, ``-x``."""
    return np.negative(x)


neg.vjp(x=lambda g: -g)
neg.check(draw(3, 2))


@primitive
def sign(x: Array) -> Array:
    """-1, 0 or 1; its gradient is 0."""
    return np.sign(x)


sign.vjp(x=None)
sign.check(draw(3, 2))


@primitive
def abs(x: Array) -> Array:
    """Absolute value; its gradient at 0 is 0."""
    return np.abs(x)


abs.vjp(x=lambda g, x: g * sign(x))
abs.check(draw(3, 2))


@primitive
def square(x: Array) -> Array:
    """Square, ``x * x``."""
    return np.square(x)


square.vjp(x=lambda g, x: 2 * g * x)
square.check(draw(3, 2))


@primitive
def sqrt(x: Array) -> Array:
    """Square root; its gradient at 0 is inf."""
    return np.sqrt(x)


sqrt.vjp(x=lambda g, out: g / (2 * out))
sqrt.check(draw(3, 2, low=0.5, high=2))


@primitive
def exp(x: Array) -> Array:
    """Exponential, ``e ** x``."""
    return np.exp(x)


exp.vjp(x=lambda g, out: g * out)
exp.check(draw(3, 2))


@primitive
def log(x: Array) -> Array:
    """Natural logarithm."""
    return np.log(x)


log.vjp(x=lambda g, x: g / x)
log.check(draw(3, 2, low=0.5, high=2))


@primitive
def sin(x: Array) -> Array:
    """Sine of an angle in radians."""
    return np.sin(x)


@primitive
def cos(x: Array) -> Array:
    """Cosine of an angle in radians."""
    return np.cos(x)


sin.vjp(x=lambda g, x: g * cos(x))
sin.check(draw(3, 2))
cos.vjp(x=lambda g, x: -g * sin(x))
cos.check(draw(3, 2))

# Activations


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

# Choice


@primitive
def maximum(x: Array, y: Array) -> Array:
    """The larger of two; equal elements share the gradient equally. NaN if either is NaN, with gradient 0."""
    return np.maximum(x, y)


@primitive
def minimum(x: Array, y: Array) -> Array:
    """The smaller of two; equal elements share the gradient equally. NaN if either is NaN, with gradient 0."""
    return np.minimum(x, y)


def _share(g: Any, wins: Any, ties: Any) -> Any:
    return where(ties, g * 0.5, select(g, wins))


maximum.vjp(x=lambda g, x, y: _share(g, x > y, x == y), y=lambda g, x, y: _share(g, y > x, x == y))
maximum.check(draw(3, 2), draw(2, low=-0.9))
minimum.vjp(x=lambda g, x, y: _share(g, x < y, x == y), y=lambda g, x, y: _share(g, y < x, x == y))
minimum.check(draw(3, 2), draw(2, low=-0.9))


@primitive
def clip(x: Array, min: float | None = None, max: float | None = None) -> Array:
    """Limit ``x`` to ``min … max``; the gradient passes where ``min <= x <= max``, as in PyTorch."""
    return np.clip(x, min, max)


clip.vjp(x=lambda g, out, x: select(g, x == out))
clip.check(draw(3, 2), -0.4, 0.6)
clip.check(draw(3, 2), min=0.15)

# Comparison and logic: no gradients


@primitive
def eq(x: Array, y: Array) -> Array:
    """``x == y``, element by element."""
    return np.equal(x, y)


@primitive
def ne(x: Array, y: Array) -> Array:
    """``x != y``, element by element."""
    return np.not_equal(x, y)


@primitive
def lt(x: Array, y: Array) -> Array:
    """``x < y``, element by element."""
    return np.less(x, y)


@primitive
def le(x: Array, y: Array) -> Array:
    """``x <= y``, element by element."""
    return np.less_equal(x, y)


@primitive
def gt(x: Array, y: Array) -> Array:
    """``x > y``, element by element."""
    return np.greater(x, y)


@primitive
def ge(x: Array, y: Array) -> Array:
    """``x >= y``, element by element."""
    return np.greater_equal(x, y)


for _comparison in (eq, ne, lt, le, gt, ge):
    _comparison.vjp(x=None, y=None)
    _comparison.check(draw(3, 2), draw(2))


@primitive
def logical_and(x: Array, y: Array) -> Array:
    """Whether both hold."""
    return np.logical_and(x, y)


@primitive
def logical_or(x: Array, y: Array) -> Array:
    """Whether at least one holds."""
    return np.logical_or(x, y)


@primitive
def logical_not(x: Array) -> Array:
    """Whether it does not hold."""
    return np.logical_not(x)


logical_and.vjp(x=None, y=None)
logical_and.check(draw(3, 2), draw(2))
logical_or.vjp(x=None, y=None)
logical_or.check(draw(3, 2), draw(2))
logical_not.vjp(x=None)
logical_not.check(draw(3, 2))

# Copies


@primitive
def clone(x: Array) -> Array:
    """A copy with memory of its own, through which gradients flow."""
    return np.array(x)


clone.vjp(x=lambda g: g)
clone.check(draw(3, 2))


@primitive
def cast(x: Array, dtype: DTypeLike) -> Array:
    """The values as another dtype of floats; the gradient comes back in the first."""
    return np.asarray(x).astype(dtype)


cast.vjp(x=lambda g: g)
cast.check(draw(3, 2), np.float64)


def astype(x: Tensor, dtype: DTypeLike) -> Tensor:
    """The values as another dtype. Floats keep the gradient; integers and booleans have none.

    >>> import tinygrad_lenet as tl
    >>> tl.tensor([1.7, -2.0]).astype("int64")
    tensor([ 1, -2], dtype=int64)
    """
    target = checked(dtype)
    return cast(x if target.kind == "f" or not isinstance(x, Tensor) else x.detach(), target)
