"""Reductions over one axis, several, or all (``axis=None``); ``keepdims`` leaves them with length 1."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError
from ..primitive import Array, draw, primitive, spelled
from ..tensor import Tensor
from .elementwise import select, where
from .maths import exp, sqrt, square
from .shape import stretch

__all__ = ["argmax", "argmin", "log_softmax", "logsumexp", "max", "mean", "min", "softmax", "std", "sum", "var"]

Axis: TypeAlias = int | tuple[int, ...] | None
# The ufuncs themselves: np.sum and its like add a microsecond of Python.
_add: Any = np.add.reduce
_max: Any = np.maximum.reduce
_min: Any = np.minimum.reduce


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes that ``axis`` means, as non-negative numbers in order.

    >>> axes_of(-1, 3), axes_of(None, 2)
    ((2,), (0, 1))
    """
    given = tuple(range(ndim)) if axis is None else (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    if any(not -ndim <= a < ndim for a in given) or len({a % ndim for a in given}) < len(given):
        raise ArgumentError(
            f"axis must name different axes of a tensor with {ndim} axes ({-ndim} … {ndim - 1}), got {axis}"
        )
    return tuple(sorted(a % ndim for a in given))


def _restore(reduced: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """Give a reduced array its axes back, with length 1, so that it broadcasts against what was reduced."""
    gone = axes_of(axis, len(shape))
    return reduced.reshape(tuple(1 if i in gone else n for i, n in enumerate(shape)))


@primitive
def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Sum of the elements."""
    return _add(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


sum.vjp(x=lambda g, x_shape, axis: stretch(_restore(g, x_shape, axis), x_shape))
sum.check(draw(3, 2))
sum.check(draw(3, 4, 2), axis=(0, -1))
sum.check(draw(3, 4, 2), axis=1, keepdims=True)


@primitive
def max(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The largest element; where several are largest they share the gradient equally. NaN if any is NaN, with gradient
    0.
    """
    return _max(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


@primitive
def min(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The smallest element; where several are smallest they share the gradient equally. NaN if any is NaN, with
    gradient 0.
    """
    return _min(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


def _share(g: Any, out: Any, x: Any, axis: Axis) -> Any:
    hit = x == _restore(out, x.shape, axis)
    ties = hit.sum(axis=axes_of(axis, x.ndim), keepdims=True).astype(g.dtype)
    return select(_restore(g, x.shape, axis) / where(ties == 0, 1, ties), hit)


for _extreme in (max, min):
    _extreme.vjp(x=_share)
    _extreme.check(draw(3, 2))
    _extreme.check(draw(3, 4, 2), axis=(0, -1))
    _extreme.check(draw(3, 4, 2), axis=1, keepdims=True)


@primitive
def argmax(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the first largest element, of the flattened tensor if ``axis`` is None. Integers: no gradient."""
    return np.argmax(x, axis, keepdims=keepdims)


@primitive
def argmin(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the first smallest element, of the flattened tensor if ``axis`` is None. Integers: no gradient."""
    return np.argmin(x, axis, keepdims=keepdims)


for _index in (argmax, argmin):
    _index.vjp(x=None)
    _index.check(draw(3, 2), axis=1)


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    return math.prod(shape[a] for a in axes_of(axis, len(shape)))


@primitive
def mean(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Arithmetic mean.

    >>> import tinygrad_lenet as tl
    >>> tl.mean(tl.tensor([[1, 2], [3, 4]]), axis=0)
    tensor([2., 3.])
    """
    # float16 is summed up as float32, as NumPy's mean does: its largest number is 65,504.
    total = _add(x, axes_of(axis, x.ndim), np.float32 if x.dtype == np.float16 else None, keepdims=keepdims)
    mean = total / _count(x.shape, axis)
    return mean.astype(x.dtype, copy=False) if x.dtype.kind == "f" else mean


mean.vjp(
    x=lambda g, x_shape, axis: stretch(_restore(g / _count(x_shape, axis), x_shape, axis), x_shape),
)
mean.check(draw(3, 2))
mean.check(draw(3, 4, 2), axis=(0, -1))
mean.check(draw(3, 4, 2), axis=1, keepdims=True)


@spelled
def var(x: Array, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Variance, ``sum((x - mean)^2) / (n - ddof)``: NumPy's default, where PyTorch's is ``ddof=1``.

    Computed in two passes: the mean first, so that a large mean costs no digits.
    """
    return sum(square(x - mean(x, axis, keepdims=True)), axis, keepdims) / (_count(np.shape(x), axis) - ddof)


@spelled
def std(x: Array, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Standard deviation, the square root of :func:`var`; its gradient is 0 where all elements are equal."""
    v = var(x, axis, keepdims, ddof)
    return where(v == 0, 0, sqrt(where(v == 0, 1, v)))


@primitive
def logsumexp(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """``log(sum(e^x))``, shifted by the maximum so that it neither overflows nor loses everything."""
    axes = axes_of(axis, np.ndim(x))
    top = _max(x, axes, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore", over="ignore"):  # log(0) = -inf where every x is -inf, inf where one is inf
        out = np.log(_add(np.exp(x - top), axes, keepdims=True)) + top
    return out if keepdims else out.squeeze(axes)


def _logsumexp_x(g: Any, x: Any, axis: Axis) -> Any:
    """The softmax, and not ``exp(x - out)``, which magnifies the rounding of ``out``."""
    top = x.max(axis=axes_of(axis, x.ndim), keepdims=True)
    e = exp(x - (top.detach() if isinstance(top, Tensor) else top))
    total = e.sum(axis=axes_of(axis, x.ndim), keepdims=True)
    return _restore(g, x.shape, axis) * e / where(total == total, total, 1)  # beside an inf, the others have 0


logsumexp.vjp(x=_logsumexp_x)
logsumexp.check(draw(3, 2))
logsumexp.check(draw(3, 4, 2), axis=(0, -1))
logsumexp.check(draw(3, 4, 2), axis=1, keepdims=True)


@primitive
def softmax(x: Array, axis: int = -1) -> Array:
    """``e^x / sum(e^x)`` along an axis, stable for any finite input."""
    e = np.exp(x - _max(x, axis, keepdims=True))
    return e / _add(e, axis, keepdims=True)


softmax.vjp(x=lambda g, out, axis: out * (g - (g * out).sum(axis=axis, keepdims=True)))
softmax.check(draw(3, 4))
softmax.check(draw(3, 4, 2), axis=1)


@primitive
def log_softmax(x: Array, axis: int = -1) -> Array:
    """``log(softmax(x))`` along an axis, without the loss of digits that taking the logarithm afterwards has."""
    shifted = x - _max(x, axis, keepdims=True)
    return shifted - np.log(_add(np.exp(shifted), axis, keepdims=True))


log_softmax.vjp(x=lambda g, out, axis: g - exp(out) * g.sum(axis=axis, keepdims=True))
log_softmax.check(draw(3, 4))
log_softmax.check(draw(3, 4, 2), axis=1)


@primitive
def softmax_nll(x: Array, index: Any, average: bool = False) -> Array:
    """``-log_softmax(x)[i, index[i]]`` for logits (N, C) and class indices (N,), in one go; or the mean of them."""
    shifted = x - _max(x, 1, keepdims=True)
    picked = shifted[np.arange(len(index)), index]
    losses = np.log(_add(np.exp(shifted), 1)) - picked
    return _add(losses) / len(index) if average else losses


def _softmax_nll_x(g: Any, x: Any, index: Any, average: bool) -> Any:
    hit = np.zeros(x.shape, x.dtype)
    hit[np.arange(len(index)), index] = 1
    return (softmax(x, 1) - hit) * (g / len(index) if average else g.reshape(-1, 1))


softmax_nll.vjp(x=_softmax_nll_x)
softmax_nll.check(draw(3, 4), np.array([2, 0, 2]))
softmax_nll.check(draw(3, 4), np.array([2, 0, 2]), average=True)
