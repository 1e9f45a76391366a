"""Reductions over one axis, several, or all (``axis=None``). With ``keepdims`` the axes stay, of length 1."""

from __future__ import annotations

import builtins
import math
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..core.values import as_dtype
from ..errors import ArgumentError, DTypeError
from ..kernels.sums import WIDER, added, mean_steps, single, sum_steps
from .elementwise import abs, maximum, minimum, select, where
from .logic import ne
from .maths import sqrt, square
from .rearrange import flip
from .shape import along, axes_of, axis_of, broadcast_to, concatenate, reshape, shared

Axis: TypeAlias = int | tuple[int, ...] | None
T = TypeVar("T", bound=Any)  # an array or a Tensor
# Ufuncs: np.max and np.min take a microsecond more.
_max: Any = np.maximum.reduce
_min: Any = np.minimum.reduce


def restore_axes(reduced: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """Give a reduced array its axes back, with length 1, so that it broadcasts against the original shape."""
    gone = axes_of(axis, len(shape))
    return reduced.reshape(tuple(1 if i in gone else n for i, n in enumerate(shape)))


def _broadcast_back(g: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """Return a view of a reduced array in the original shape, with its values repeated along the reduced axes."""
    return broadcast_to(shared(restore_axes(g, shape, axis)), shape)


def typed(x: T, dtype: DTypeLike | None, floats: bool = False) -> T:
    """``x`` in a dtype, unless that is None. Raise if only floats make sense."""
    if floats and dtype is not None and as_dtype(dtype).kind != "f":
        raise DTypeError(f"dtype must be a float, such as 'float32', got {as_dtype(dtype)}")
    found: T = x if dtype is None else x.astype(as_dtype(dtype))
    return found


@primitive
def sum(x: Array, axis: Axis = None, keepdims: bool = False, dtype: DTypeLike | None = None) -> Array:
    """Sum of the elements along ``axis``: one, several, or all if None. With ``keepdims`` these stay, of length 1. The
    sum of no elements is 0. With ``dtype``, the elements are converted to it first, and so is the result.

    As in NumPy, ``axis=()`` sums nothing (in PyTorch, everything: leave it out), and unsigned integers give uint64
    (in PyTorch int64: ``sum(x).astype("int64")``). The same holds for the other reductions.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1, 2], [3, 4]])
    >>> tl.sum(x), tl.sum(x, axis=0), tl.sum(x, axis=1, keepdims=True).shape
    (tensor(10.), tensor([4., 6.]), (2, 1))
    """
    total = added(x if dtype is None else typed(x, dtype), axes_of(axis, np.ndim(x)), keepdims=keepdims)
    return total if dtype is None else typed(total, dtype)


sum.vjp(x=lambda g, x_shape, axis: _broadcast_back(g, x_shape, axis))
sum.planned(
    lambda out, room, x, axis, keepdims, dtype: sum_steps(out, room, x, axes_of(axis, x.ndim), keepdims, dtype),
    rows=(0,),
    added=(0,),
)
sum.known_as(method=True, numpy=np.sum, torch="sum", onnx="ReduceSum")


@primitive
def amax(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The largest element along ``axis``, with the gradient of :func:`max` (PyTorch's of ``amax`` is NaN along an axis
    with a NaN).

    >>> import tinygrad_lenet as tl
    >>> tl.amax(tl.tensor([[1.0, 5.0], [5.0, 2.0]]), axis=0)
    tensor([5., 5.])
    """
    return _max(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


@primitive
def amin(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The smallest element along ``axis``, with the gradient of :func:`min` (PyTorch's of ``amin`` is NaN along an axis
    with a NaN).

    >>> import tinygrad_lenet as tl
    >>> tl.amin(tl.tensor([[1.0, 5.0], [4.0, 2.0]]), axis=0)
    tensor([1., 2.])
    """
    return _min(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


amax.op.name, amin.op.name = "max", "min"
amax.known_as(method=True, numpy=np.amax, torch="amax", onnx="ReduceMax")
amin.known_as(method=True, numpy=np.amin, torch="amin", onnx="ReduceMin")


@composite(method=True, numpy=np.max, torch="max")
def max(x: Array, axis: Axis | Array = None, keepdims: bool = False, other: Array | None = None) -> Tensor:
    """The largest element. If several are largest, they share the gradient equally. NaN if any is NaN; then all NaNs
    share it.

    ``max(x, y)`` of two tensors is :func:`maximum`, element by element.

    Along an axis it returns the values only, as NumPy's ``max``. PyTorch's also returns indices: see :func:`argmax`.

    Raises:
        ShapeError: there are no elements.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1.0, 5.0], [5.0, 2.0]], requires_grad=True)
    >>> tl.max(x).backward()
    >>> tl.max(x, axis=0).detach(), x.grad
    (tensor([5., 5.]), tensor([[0. , 0.5],
            [0.5, 0. ]]))
    >>> tl.max(tl.tensor([1.0, 5.0]), tl.tensor([2.0, 3.0]))
    tensor([2., 5.])
    """
    other = axis if isinstance(axis, Tensor) else other
    return amax(x, axis, keepdims) if other is None else maximum(x, other)


@composite(method=True, numpy=np.min, torch="min")
def min(x: Array, axis: Axis | Array = None, keepdims: bool = False, other: Array | None = None) -> Tensor:
    """The smallest element. If several are smallest, they share the gradient equally. NaN if any is NaN; then all NaNs
    share it.

    ``min(x, y)`` of two tensors is :func:`minimum`, element by element.

    Along an axis it returns the values only, as NumPy's ``min``. PyTorch's also returns indices: see :func:`argmin`.

    Raises:
        ShapeError: there are no elements.

    >>> import tinygrad_lenet as tl
    >>> tl.min(tl.tensor([[1.0, 5.0], [4.0, 2.0]]), axis=0)
    tensor([1., 2.])
    """
    other = axis if isinstance(axis, Tensor) else other
    return amin(x, axis, keepdims) if other is None else minimum(x, other)


def _extreme_x(g: Any, out: Any, x: Any, axis: Axis) -> Any:
    hit = (x == restore_axes(out, x.shape, axis)) | (x != x)
    g = single(g)
    ties = sum(hit, axis, keepdims=True).astype(g.dtype)
    return select(restore_axes(g, x.shape, axis) / ties, hit)


amax.vjp(x=_extreme_x)
amin.vjp(x=_extreme_x)


@primitive
def argmax(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the first largest element, in the flattened tensor if ``axis`` is None. It has no gradient.

    >>> import tinygrad_lenet as tl
    >>> tl.argmax(tl.tensor([[1.0, 5.0], [4.0, 2.0]]), axis=1)
    tensor([1, 0], dtype=int64)
    """
    return np.argmax(x, None if axis is None else axis_of(axis, x.ndim), keepdims=keepdims)


argmax.known_as(method=True, numpy=np.argmax, torch="argmax", onnx="ArgMax")


@primitive
def argmin(x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the first smallest element, in the flattened tensor if ``axis`` is None. It has no gradient.

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
    """Return how many elements are reduced to one."""
    return math.prod(shape[a] for a in axes_of(axis, len(shape)))


def wider(x: T) -> T:
    """Return float16 as float32 and float32 as float64, in which squares and products of the values neither overflow
    nor vanish; other dtypes unchanged.
    """
    wide = WIDER.get(x.dtype)
    found: T = x if wide is None else x.astype(wide)
    return found


def cast_like(out: T, x: Any) -> T:
    """Return a result in the dtype of ``x``, if that is a float."""
    found: T = out.astype(x.dtype) if x.dtype.kind == "f" and out.dtype != x.dtype else out
    return found


def all_half(*values: Any) -> bool:
    """Return True if the values (None does not count) are float16: then compute in float32, and round once."""
    dtypes = [as_tensor(value).dtype for value in values if value is not None]
    return np.float16 in dtypes and bool(np.result_type(*dtypes) == np.float16)


@primitive
def mean(x: Array, axis: Axis = None, keepdims: bool = False, dtype: DTypeLike | None = None) -> Array:
    """Arithmetic mean of the elements along ``axis``; NaN of no elements. With ``dtype``, a float, the elements are
    converted to it first.

    >>> import tinygrad_lenet as tl
    >>> tl.mean(tl.tensor([[1, 2], [3, 4]]), axis=0)
    tensor([2., 3.])
    """
    x = typed(x, dtype, floats=True)
    # float16 is added in float32, as by NumPy's mean: its largest number is 65,504.
    total = added(x, axes_of(axis, x.ndim), np.float32 if x.dtype == np.float16 else None, keepdims=keepdims)
    return cast_like(total / _count(x.shape, axis), x)


mean.vjp(x=lambda g, x_shape, axis: _broadcast_back(single(g) / _count(x_shape, axis), x_shape, axis))
mean.planned(
    lambda out, room, x, axis, keepdims, dtype: mean_steps(out, room, x, axes_of(axis, x.ndim), keepdims),
    rows=(0,),
    added=(0,),
)
mean.known_as(method=True, numpy=np.mean, torch="mean", onnx="ReduceMean")


@composite(method=True, numpy=np.var, torch="var")
def var(x: Array, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Variance, ``sum((x - mean)^2) / (n - ddof)``, with NumPy's default; PyTorch's result is ``var(x, ddof=1)``.

    The mean is computed first, so that a large mean costs no digits. As in :func:`std` and :func:`norm`, squares are
    computed in the next wider dtype, where none overflows or vanishes, and the result is rounded once. If an element is
    infinite, all gradients are NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.var(tl.tensor([1.0, 2.0, 3.0, 4.0])), tl.var(tl.tensor([1.0, 2.0, 3.0]), ddof=1)
    (tensor(1.25), tensor(1.))
    """
    given = as_tensor(x)
    return cast_like(_var(given, axis, keepdims, ddof), given)


def _var(x: Tensor, axis: Axis, keepdims: bool, ddof: int) -> Tensor:
    x = wider(x)
    squares = sum(square(x - mean(x, axis, keepdims=True)), axis, keepdims)
    return squares / builtins.max(_count(np.shape(x), axis) - ddof, 0)


@composite(method=True, numpy=np.std, torch="std")
def std(x: Array, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Standard deviation, the square root of :func:`var`; its gradient is 0 where all elements are equal.

    It divides by n, as in NumPy; PyTorch divides by n - 1: ``std(x, ddof=1)``. The third argument is ``keepdims``; in
    PyTorch's ``std(x, 0, True)`` it is ``unbiased``.

    >>> import tinygrad_lenet as tl
    >>> tl.std(tl.tensor([1.0, 3.0, 1.0, 3.0]))
    tensor(1.)
    """
    given = as_tensor(x)
    return cast_like(_root(_var(given, axis, keepdims, ddof)), given)


def _root(x: Tensor) -> Tensor:
    """Return the square root, with gradient 0 at 0."""
    return where(x == 0, 0, sqrt(where(x == 0, 1, x)))


@composite(method=True, torch="norm")
def norm(x: Array, p: float | str = 2, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The p-norm ``sum(|x|^p)^(1/p)`` of vectors along one axis, several or all. The gradient of zero vectors is 0.

    Args:
        x: any shape; see :func:`tinygrad_lenet.linalg.norm` for matrix norms.
        p: any number; ``"fro"`` is 2. ``inf`` gives the largest, ``-inf`` the smallest magnitude (ties and NaN share
            the gradient as in :func:`max`), 0 the number of non-zero elements.
        axis: the axes that make up a vector.
        keepdims: whether these axes stay, with length 1.

    Raises:
        ArgumentError: ``p`` is another word, such as ``"nuc"``.

    >>> import tinygrad_lenet as tl
    >>> tl.norm(tl.tensor([3.0, -4.0])), tl.norm(tl.tensor([3.0, -4.0]), p=1)
    (tensor(5.), tensor(7.))
    """
    x = as_tensor(x)
    if isinstance(p, str) and p != "fro":
        raise ArgumentError(f"p must be a number or 'fro', got {p!r}; for the largest magnitude give math.inf")
    if isinstance(p, str) or p == 2:
        return cast_like(_root(sum(square(wider(x if x.dtype.kind == "f" else x * 1.0)), axis, keepdims)), x)
    if p == 0:
        return sum(ne(x, 0).astype(x.dtype if x.dtype.kind == "f" else np.float32), axis, keepdims)
    size = abs(x)
    if math.isinf(p):
        return amax(size, axis, keepdims) if p > 0 else amin(size, axis, keepdims)
    if p == 1:
        return sum(size, axis, keepdims)
    size = wider(size)
    of_zero = 0.0 if p > 0 else math.inf
    zero = size == 0  # its power has no finite derivative
    total = sum(where(zero, of_zero, where(zero, 1, size) ** p), axis, keepdims)
    flat = total == of_zero
    return cast_like(where(flat, total.detach() ** (1 / p), where(flat, 1, total) ** (1 / p)), x)


# Products, and running sums and products


@primitive
def _cumsum(x: Array, axis: int) -> Array:
    return cast_like(np.cumsum(x, axis, np.float64 if x.dtype.kind == "f" else None), x)


_cumsum.vjp(x=lambda g, axis: flip(_cumsum(flip(g, axis), axis), axis))
_cumsum.check(draw(3, 4), 1)
_cumsum.check(draw(3, 4, 2), 0)


@primitive
def _cumprod(x: Array, axis: int) -> Array:
    return cast_like(np.cumprod(x, axis, WIDER.get(x.dtype)), x)


def _shifted(x: Any, axis: int) -> Any:
    """Return ``[1, x[0], x[1], ...]`` along an axis, without the last element of ``x``."""
    ones = select(x[along(axis, slice(0, 1))], np.False_) + 1
    return concatenate([ones, x[along(axis, slice(0, -1))]], axis)


def _cumprod_x(g: Any, x: Any, axis: int) -> Any:
    """``x[i]`` gets the product of the elements before it, times ``y[i] = g[i] + x[i + 1] * y[i + 1]``: for each later
    output, its gradient times the elements between. Nothing is divided, so zeros do no harm.
    """
    last = x.shape[axis] - 1
    wide, up = wider(x), wider(g)
    y = [up[along(axis, slice(last, None))]]
    for i in reversed(range(last)):
        y.append(up[along(axis, slice(i, i + 1))] + wide[along(axis, slice(i + 1, i + 2))] * y[-1])
    return (_cumprod(_shifted(wide, axis), axis) * concatenate(y[::-1], axis)).astype(x.dtype)


_cumprod.vjp(x=_cumprod_x)
_cumprod.check(draw(3, 4), 1)
_cumprod.check(draw(values=[[0.5, 0.0, 2.0, 0.0, -1.5]]), 1)
_cumprod.check(draw(3, 2), 0)


def _running(op: Any, x: Array, axis: int | None, dtype: DTypeLike | None) -> Tensor:
    x = typed(as_tensor(x), dtype)
    found: Tensor = op(reshape(x, -1), 0) if axis is None else op(x, axis_of(axis, x.ndim))
    return typed(found, dtype)


@composite(method=True, numpy=np.cumsum, torch="cumsum")
def cumsum(x: Array, axis: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """Running sum along an axis, or of the flattened tensor; ``dtype`` as for :func:`sum`.

    >>> import tinygrad_lenet as tl
    >>> tl.cumsum(tl.tensor([1, 2, 3]))
    tensor([1., 3., 6.])
    """
    return _running(_cumsum, x, axis, dtype)


@composite(method=True, numpy=np.cumprod, torch="cumprod")
def cumprod(x: Array, axis: int | None = None, dtype: DTypeLike | None = None) -> Tensor:
    """Running product along an axis, or of the flattened tensor; ``dtype`` as for :func:`sum`. Its gradient is right
    where elements are 0, and where they are infinite (PyTorch: NaN).

    >>> import tinygrad_lenet as tl
    >>> tl.cumprod(tl.tensor([1, 2, 3]))
    tensor([1., 2., 6.])
    """
    return _running(_cumprod, x, axis, dtype)


@primitive
def prod(x: Array, axis: Axis = None, keepdims: bool = False, dtype: DTypeLike | None = None) -> Array:
    """Product of the elements along ``axis``: one, several, or all if None. The product of no elements is 1; ``dtype``
    as for :func:`sum`.

    The gradient of an element is the product of all others. It is right where elements are 0, and where they are
    infinite (PyTorch: NaN).

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([2.0, 0.0, 5.0], requires_grad=True)
    >>> tl.prod(x).backward()
    >>> x.grad
    tensor([ 0., 10.,  0.])
    """
    x = typed(x, dtype)
    return typed(cast_like(np.prod(x, axes_of(axis, np.ndim(x)), WIDER.get(x.dtype), keepdims=keepdims), x), dtype)


def _prod_x(g: Any, x: Any, axis: Axis) -> Any:
    """The product of the elements before, times the product of those after, along the reduced axes as one."""
    reduced = axes_of(axis, len(x.shape))
    order = [*(a for a in range(len(x.shape)) if a not in reduced), *reduced]
    kept = len(x.shape) - len(reduced)
    wide = wider(x).transpose(order)
    flat = wide.reshape((*wide.shape[:kept], math.prod(wide.shape[kept:])))
    before = _cumprod(_shifted(flat, kept), kept)
    after = flip(_cumprod(_shifted(flip(flat, kept), kept), kept), kept)
    others = (before * after).reshape(wide.shape).transpose(tuple(int(i) for i in np.argsort(order)))
    return (restore_axes(wider(g), x.shape, axis) * others).astype(x.dtype)


prod.vjp(x=_prod_x)
prod.check(draw(values=[[0.0, 2.0, -1.0], [0.0, 0.0, 3.0]]), axis=1)
prod.known_as(method=True, numpy=np.prod, torch="prod", onnx="ReduceProd")

for _reduction in (sum, amax, amin, mean, prod):
    _reduction.check(draw(3, 2))
    _reduction.check(draw(3, 4, 2), axis=(0, -1))
    _reduction.check(draw(3, 4, 2), axis=1, keepdims=True)


# Counting: no gradients. ``any`` and ``all`` come last, since they hide Python's functions.


@primitive
def count_nonzero(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """The number of elements that are not 0 (NaN counts), as integers without a gradient. Several axes are a tuple, as
    in NumPy; PyTorch's method also takes them as ``x.count_nonzero(0, 1)``.

    >>> import tinygrad_lenet as tl
    >>> tl.count_nonzero(tl.tensor([[0, 1], [2, 3]]), axis=1)
    tensor([1, 2], dtype=int64)
    """
    return np.count_nonzero(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


count_nonzero.known_as(method=True, numpy=np.count_nonzero, torch="count_nonzero")


@primitive
def any(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """True if at least one element is true (not 0), as booleans; False if there are none. PyTorch's result
    of uint8 is uint8: ``any(x).astype(x.dtype)``.

    >>> import tinygrad_lenet as tl
    >>> tl.any(tl.tensor([[False, True], [False, False]]), axis=1)
    tensor([ True, False])
    """
    return np.any(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


any.known_as(method=True, numpy=np.any, torch="any")


@primitive
def all(x: Array, axis: Axis = None, keepdims: bool = False) -> Array:
    """True if all elements are true (not 0), as booleans; True if there are none. PyTorch's result
    of uint8 is uint8: ``all(x).astype(x.dtype)``.

    >>> import tinygrad_lenet as tl
    >>> tl.all(tl.tensor([[False, True], [True, True]]), axis=1)
    tensor([False,  True])
    """
    return np.all(x, axes_of(axis, np.ndim(x)), keepdims=keepdims)


all.known_as(method=True, numpy=np.all, torch="all")


for _counting in (count_nonzero, any, all):
    _counting.vjp(x=None)
    _counting.check(draw(3, 4), axis=1)
