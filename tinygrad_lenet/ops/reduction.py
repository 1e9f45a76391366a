"""Reductions over one axis, several, or all (``axis=None``); ``keepdims`` leaves them with length 1."""

from __future__ import annotations

import builtins
import math
from typing import Any, TypeAlias

import numpy as np

from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..kernels.sums import WIDER, added, single
from .elementwise import abs, select, where
from .logic import ne
from .maths import sqrt, square
from .shape import axes_of, axis_of, broadcast_to, concatenate, reshape, shared

Axis: TypeAlias = int | tuple[int, ...] | None
# The ufuncs themselves: np.sum and its like add a microsecond of Python.
_add: Any = np.add.reduce
_max: Any = np.maximum.reduce
_min: Any = np.minimum.reduce


def _restore(reduced: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """Give a reduced array its axes back, with length 1, so that it broadcasts against what was reduced."""
    gone = axes_of(axis, len(shape))
    return reduced.reshape(tuple(1 if i in gone else n for i, n in enumerate(shape)))


def _stretch(g: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """A view of a reduced array in which what it was reduced from has the same value everywhere."""
    return broadcast_to(shared(_restore(g, shape, axis)), shape)


@primitive
def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Sum of the elements along ``axis``: one, several, or all if None; ``keepdims`` leaves them with length 1. Of none
    it is 0.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1, 2], [3, 4]])
    >>> tl.sum(x), tl.sum(x, axis=0), tl.sum(x, axis=1, keepdims=True).shape
    (tensor(10.), tensor([4., 6.]), (2, 1))
    """
    return added(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


sum.vjp(x=lambda g, x_shape, axis: _stretch(g, x_shape, axis))
sum.check(draw(3, 2))
sum.check(draw(3, 4, 2), axis=(0, -1))
sum.check(draw(3, 4, 2), axis=1, keepdims=True)
sum.known_as(method=True, numpy=np.sum, torch="sum", onnx="ReduceSum")


@primitive
def max(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The largest element; where several are largest they share the gradient equally. NaN if any is NaN; then these
    share it (as in PyTorch's ``max``; its ``amax`` gives all of the axis NaN).

    Raises:
        ShapeError: there are no elements.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1.0, 5.0], [5.0, 2.0]], requires_grad=True)
    >>> tl.max(x).backward()
    >>> tl.max(x, axis=0).detach(), x.grad
    (tensor([5., 5.]), tensor([[0. , 0.5],
            [0.5, 0. ]]))
    """
    return _max(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


max.known_as(method=True, numpy=np.max, torch="max", onnx="ReduceMax")
max.known_as(name="amax", method=True, numpy=np.amax, torch="amax")


@primitive
def min(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The smallest element; where several are smallest they share the gradient equally. NaN if any is NaN; then these
    share it (as in PyTorch's ``min``; its ``amin`` gives all of the axis NaN).

    Raises:
        ShapeError: there are no elements.

    >>> import tinygrad_lenet as tl
    >>> tl.min(tl.tensor([[1.0, 5.0], [4.0, 2.0]]), axis=0)
    tensor([1., 2.])
    """
    return _min(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


min.known_as(method=True, numpy=np.min, torch="min", onnx="ReduceMin")
min.known_as(name="amin", method=True, numpy=np.amin, torch="amin")


def _share(g: Any, out: Any, x: Any, axis: Axis) -> Any:
    hit = (x == _restore(out, x.shape, axis)) | (x != x)
    g = single(g)
    ties = sum(hit, axis, keepdims=True).astype(g.dtype)
    return select(_restore(g, x.shape, axis) / ties, hit)


amax, amin = max, min  # NumPy's and PyTorch's other names

for _extreme in (max, min):
    _extreme.vjp(x=_share)
    _extreme.check(draw(3, 2))
    _extreme.check(draw(3, 4, 2), axis=(0, -1))
    _extreme.check(draw(3, 4, 2), axis=1, keepdims=True)


@primitive
def argmax(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the first largest element, of the flattened tensor if ``axis`` is None. Integers: no gradient.

    >>> import tinygrad_lenet as tl
    >>> tl.argmax(tl.tensor([[1.0, 5.0], [4.0, 2.0]]), axis=1)
    tensor([1, 0], dtype=int64)
    """
    return np.argmax(x, None if axis is None else axis_of(axis, x.ndim), keepdims=keepdims)


argmax.known_as(method=True, numpy=np.argmax, torch="argmax", onnx="ArgMax")


@primitive
def argmin(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the first smallest element, of the flattened tensor if ``axis`` is None. Integers: no gradient.

    >>> import tinygrad_lenet as tl
    >>> tl.argmin(tl.tensor([[1.0, 5.0], [4.0, 2.0]]), axis=1)
    tensor([0, 1], dtype=int64)
    """
    return np.argmin(x, None if axis is None else axis_of(axis, x.ndim), keepdims=keepdims)


argmin.known_as(method=True, numpy=np.argmin, torch="argmin", onnx="ArgMin")


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
    total = added(x, axes_of(axis, x.ndim), np.float32 if x.dtype == np.float16 else None, keepdims=keepdims)
    mean = total / _count(x.shape, axis)
    return mean.astype(x.dtype, copy=False) if x.dtype.kind == "f" else mean


mean.vjp(x=lambda g, x_shape, axis: _stretch(single(g) / _count(x_shape, axis), x_shape, axis))
mean.check(draw(3, 2))
mean.check(draw(3, 4, 2), axis=(0, -1))
mean.check(draw(3, 4, 2), axis=1, keepdims=True)
mean.known_as(method=True, numpy=np.mean, torch="mean", onnx="ReduceMean")


@composite
def var(x: Array, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Variance, ``sum((x - mean)^2) / (n - ddof)``: NumPy's default, where PyTorch's is ``ddof=1``.

    Computed in two passes, the mean first, so that a large mean costs no digits; and, as :func:`std` and :func:`norm`,
    in the next wider dtype, where no square overflows or vanishes, then rounded once. Beside an infinite element all
    gradients are NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.var(tl.tensor([1.0, 2.0, 3.0, 4.0])), tl.var(tl.tensor([1.0, 2.0, 3.0]), ddof=1)
    (tensor(1.25), tensor(1.))
    """
    given = as_tensor(x)
    return _var(given, axis, keepdims, ddof).astype(_float(given))


var.known_as(method=True, numpy=np.var, torch="var")


def _float(x: Tensor) -> Any:
    return x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)


def _wide(x: Any) -> Any:
    """Floats in the next wider dtype, in which squares and products of theirs neither overflow nor vanish; 64 bits as
    they are.
    """
    wide = WIDER.get(x.dtype)
    return x if wide is None else x.astype(wide)


def _var(x: Tensor, axis: Axis, keepdims: bool, ddof: int) -> Tensor:
    x = _wide(x)
    squares = sum(square(x - mean(x, axis, keepdims=True)), axis, keepdims)
    return squares / builtins.max(_count(np.shape(x), axis) - ddof, 0)


@composite
def std(x: Array, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Standard deviation, the square root of :func:`var`; its gradient is 0 where all elements are equal.

    >>> import tinygrad_lenet as tl
    >>> tl.std(tl.tensor([1.0, 3.0, 1.0, 3.0]))
    tensor(1.)
    """
    given = as_tensor(x)
    return _root(_var(given, axis, keepdims, ddof)).astype(_float(given))


std.known_as(method=True, numpy=np.std, torch="std")


def _root(x: Tensor) -> Tensor:
    """Square root, with gradient 0 at 0."""
    return where(x == 0, 0, sqrt(where(x == 0, 1, x)))


@composite
def norm(x: Array, p: float = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The p-norm ``sum(|x|^p)^(1/p)`` of vectors along one axis, several or all; its gradient is 0 where they are 0.

    Args:
        x: any shape; see :func:`tinygrad_lenet.linalg.norm` for matrix norms.
        p: any number; ``inf`` for the largest, ``-inf`` for the smallest magnitude (ties and NaN share the gradient as
            in :func:`max`), 0 for the number of non-zeros.
        axis: which axes make up a vector.
        keepdims: whether they stay, with length 1.

    >>> import tinygrad_lenet as tl
    >>> tl.norm(tl.tensor([3.0, -4.0])), tl.norm(tl.tensor([3.0, -4.0]), p=1)
    (tensor(5.), tensor(7.))
    """
    x = as_tensor(x)
    if p == 2:
        return _root(sum(square(_wide(x if x.dtype.kind == "f" else x * 1.0)), axis, keepdims)).astype(_float(x))
    if p == 0:
        return sum(ne(x, 0).astype(x.dtype if x.dtype.kind == "f" else np.float32), axis, keepdims)
    size = abs(x)
    if math.isinf(p):
        return max(size, axis, keepdims) if p > 0 else min(size, axis, keepdims)
    if p == 1:
        return sum(size, axis, keepdims)
    size = _wide(size)
    zero = size == 0  # whose powers have no finite derivative
    total = sum(where(zero, 0.0 if p > 0 else math.inf, where(zero, 1, size) ** p), axis, keepdims)
    nothing = total == (0.0 if p > 0 else math.inf)
    return where(nothing, total.detach() ** (1 / p), where(nothing, 1, total) ** (1 / p)).astype(_float(x))


norm.known_as(method=True, torch="norm")


def _narrow(wide: Array, x: Array) -> Array:
    """In the dtype of ``x``, if that is one of floats."""
    return wide.astype(x.dtype, copy=False) if x.dtype.kind == "f" else wide


# Products, and running sums and products


@primitive
def _cumsum(x: Array, axis: int) -> Array:
    return _narrow(np.cumsum(x, axis, np.float64 if x.dtype.kind == "f" else None), x)


def _backwards(x: Any, axis: int) -> Any:
    return x[(slice(None),) * axis + (slice(None, None, -1),)]


_cumsum.vjp(x=lambda g, axis: _backwards(_cumsum(_backwards(g, axis), axis), axis))
_cumsum.check(draw(3, 4), 1)
_cumsum.check(draw(3, 4, 2), 0)


@composite
def cumsum(x: Array, axis: int | None = None) -> Tensor:
    """Running sum along an axis, or of the flattened tensor.

    >>> import tinygrad_lenet as tl
    >>> tl.cumsum(tl.tensor([1, 2, 3]))
    tensor([1., 3., 6.])
    """
    return _along(_cumsum, x, axis)


cumsum.known_as(method=True, numpy=np.cumsum, torch="cumsum")


@composite
def cumprod(x: Array, axis: int | None = None) -> Tensor:
    """Running product along an axis, or of the flattened tensor; its gradient is right also where elements are 0 or
    (other than PyTorch's) infinite.

    >>> import tinygrad_lenet as tl
    >>> tl.cumprod(tl.tensor([1, 2, 3]))
    tensor([1., 2., 6.])
    """
    return _along(_cumprod, x, axis)


cumprod.known_as(method=True, numpy=np.cumprod, torch="cumprod")


def _along(op: Any, x: Array, axis: int | None) -> Tensor:
    found: Tensor = op(reshape(x, -1), 0) if axis is None else op(x, axis_of(axis, np.ndim(x)))
    return found


@primitive
def _cumprod(x: Array, axis: int) -> Array:
    return _narrow(np.cumprod(x, axis, WIDER.get(x.dtype)), x)


@primitive
def _recurrence(x: Array, factor: Array, axis: int) -> Array:
    """``y[i] = x[i] + factor[i] * y[i - 1]`` along an axis, where ``y[-1]`` is 0."""
    dtype = np.result_type(x, factor)
    out = np.array(np.broadcast_to(x, np.broadcast_shapes(x.shape, factor.shape)), WIDER.get(dtype, dtype))
    along, by = np.moveaxis(out, axis, 0), np.moveaxis(np.broadcast_to(factor, out.shape), axis, 0)
    for i in range(1, len(along)):
        along[i] += by[i] * along[i - 1]
    return out.astype(dtype, copy=False)


def _later(x: Any, axis: int, first: float) -> Any:
    """Shifted by one along an axis; ``first`` comes in."""
    head = (slice(None),) * axis
    start = select(x[(*head, slice(0, 1))], np.False_) + first
    return concatenate([start, x[(*head, slice(0, -1))]], axis)


def _carried_back(g: Any, factor: Any, axis: int) -> Any:
    """``y[i] = g[i] + factor[i + 1] * y[i + 1]``: the recurrence, transposed."""
    return _backwards(_recurrence(_backwards(g, axis), _later(_backwards(factor, axis), axis, 0.0), axis), axis)


# dy[k] / dx[i] is what stands before i times what stands between i and k: no division, so zeros do no harm.
def _cumprod_x(g: Any, x: Any, axis: int) -> Any:
    wide = _wide(x)
    return (_cumprod(_later(wide, axis, 1.0), axis) * _carried_back(_wide(g), wide, axis)).astype(x.dtype)


_cumprod.vjp(x=_cumprod_x)
_cumprod.check(draw(3, 4), 1)
_cumprod.check(draw(values=[[0.5, 0.0, 2.0, 0.0, -1.5]]), 1)
_cumprod.check(draw(3, 2), 0)
_recurrence.vjp(
    x=lambda g, factor, axis: _carried_back(g, factor, axis),
    factor=lambda g, out, factor, axis: _carried_back(g, factor, axis) * _later(out, axis, 0.0),
)
_recurrence.check(draw(2, 4), draw(2, 4), 1)


@primitive
def prod(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Product of the elements along ``axis``: one, several, or all if None; of none it is 1.

    The gradient is the product of all others, and right also where some are 0 or (other than PyTorch's) infinite.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([2.0, 0.0, 5.0], requires_grad=True)
    >>> tl.prod(x).backward()
    >>> x.grad
    tensor([ 0., 10.,  0.])
    """
    return _narrow(np.prod(x, axes_of(axis, np.ndim(x)), WIDER.get(x.dtype), keepdims=keepdims), x)


def _prod_x(g: Any, x: Any, axis: Axis) -> Any:
    """The product of all others: of those before, and of those behind."""
    gone = axes_of(axis, len(x.shape))
    order = [*(a for a in range(len(x.shape)) if a not in gone), *gone]
    kept = len(x.shape) - len(gone)
    there = _wide(x).transpose(order)
    flat = there.reshape((*there.shape[:kept], math.prod(there.shape[kept:])))
    if not math.prod(flat.shape):
        return x * 0
    before = _cumprod(_later(flat, kept, 1.0), kept)
    behind = _backwards(_cumprod(_later(_backwards(flat, kept), kept, 1.0), kept), kept)
    others = (before * behind).reshape(there.shape).transpose(tuple(int(i) for i in np.argsort(order)))
    return (_restore(_wide(g), x.shape, axis) * others).astype(x.dtype)


prod.vjp(x=_prod_x)
prod.check(draw(3, 2))
prod.check(draw(3, 4, 2), axis=(0, -1))
prod.check(draw(3, 4, 2), axis=1, keepdims=True)
prod.check(draw(values=[[0.0, 2.0, -1.0], [0.0, 0.0, 3.0]]), axis=1)
prod.known_as(method=True, numpy=np.prod, torch="prod", onnx="ReduceProd")

# Counting: no gradients. Last, since their names are Python's.


@primitive
def count_nonzero(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """How many elements are not 0, as integers without a gradient; NaN counts.

    >>> import tinygrad_lenet as tl
    >>> tl.count_nonzero(tl.tensor([[0, 1], [2, 3]]), axis=1)
    tensor([1, 2], dtype=int64)
    """
    return np.count_nonzero(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


count_nonzero.known_as(method=True, numpy=np.count_nonzero, torch="count_nonzero")


@primitive
def any(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether at least one element is true (not 0); of none, false.

    >>> import tinygrad_lenet as tl
    >>> tl.any(tl.tensor([[False, True], [False, False]]), axis=1)
    tensor([ True, False])
    """
    return np.any(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


any.known_as(method=True, numpy=np.any, torch="any")


@primitive
def all(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether all elements are true (not 0); of none, true.

    >>> import tinygrad_lenet as tl
    >>> tl.all(tl.tensor([[False, True], [True, True]]), axis=1)
    tensor([False,  True])
    """
    return np.all(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


all.known_as(method=True, numpy=np.all, torch="all")


for _counting in (count_nonzero, any, all):
    _counting.vjp(x=None)
    _counting.check(draw(3, 4), axis=1)
