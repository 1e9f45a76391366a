"""Picking elements, and its mirror image: putting gradients back where the elements came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, OutOfRangeError, ShapeError
from ..interface import beside
from ..parameters import as_index
from ..primitive import Array, composite, draw, primitive
from ..tensor import Tensor, as_tensor
from .elementwise import add, where
from .shape import axis_of, broadcast_to

__all__ = ["gather", "getitem", "one_hot", "scatter", "scatter_add", "take_along_axis"]


@primitive(view=True)
def _pick(x: Array, index: Any) -> Array:
    return x[index]


@primitive
def _put(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    out = np.zeros(shape, x.dtype)
    if any(isinstance(i, np.ndarray) and i.dtype != np.bool_ for i in index):
        if x.ndim > 30:  # with more axes than 32 in an index, NumPy's add.at crashes
            places = np.arange(out.size).reshape(shape)[index]
            np.add.at(out.reshape(-1), places.reshape(-1), x.reshape(-1))
            return out
        np.add.at(out, index, x)  # an element picked twice gets both gradients
    else:
        out[index] = x
    return out


_pick.vjp(x=lambda g, x_shape, index: _put(g, index, x_shape))
_pick.check(draw(3, 4), (slice(None, None, -2), 1))
_pick.check(draw(3, 4), (np.array([0, 2, 0]), slice(1, 3)))
_pick.check(draw(3, 4), (np.array([[0, 2], [1, 1]]), np.array([3, 0])))
_pick.check(draw(3, 4), (np.array([True, False, True]),))
_pick.check(draw(3, 4), (Ellipsis, None, 2))
_put.vjp(x=lambda g, index: g[index])
_put.check(draw(3, 2), (np.array([0, 2, 0]), slice(1, 3)), (3, 4))
_put.check(draw(2), (1, slice(0, 2)), (3, 4))


@composite(view=True)
def getitem(x: Array, index: Any) -> Tensor:
    """``x[index]``, as NumPy defines it: slices, integers, ``None``, ``...``, integer and boolean arrays, mixed.

    Slices give a view of the same memory; arrays, and numbers for all axes, a copy. An element picked several times
    sums its gradients.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1, 2, 3], [4, 5, 6]])
    >>> x[:, -1], x[0, [0, 0, 2]], x[x > 4]
    (tensor([3., 6.]), tensor([1., 1., 3.]), tensor([5., 6.]))
    """
    return _pick(x, as_index(index))


def _positions(x: Tensor, indices: Array, axis: int, op: str) -> tuple[Any, ...]:
    """For indices along one axis, of as many axes as ``x``, the index arrays of all: they broadcast."""
    found, name = np.asarray(indices), "indices" if op == "take_along_axis" else "index"  # PyTorch's word
    if found.dtype.kind not in "iu":
        raise DTypeError(f"{op}: {name} must hold integers, got {found.dtype}; convert: {name}.astype('int64')")
    if found.ndim != x.ndim:
        raise ShapeError(f"{op}: {name} must have {x.ndim} axes as the tensor {x.shape}, got shape {found.shape}")
    at, n = axis_of(axis, x.ndim, op), x.shape[axis]
    if found.size and not (-n <= found.min() and found.max() < n):
        raise OutOfRangeError(f"{op}: {name} must lie in {-n} … {n - 1} on axis {axis} of {x.shape}, got {found}")
    grid: list[Any] = list(np.ogrid[tuple(slice(n) for n in found.shape)])
    grid[at] = found
    return tuple(grid)


@composite
def take_along_axis(x: Array, indices: Array, axis: int = -1) -> Tensor:
    """Pick along one axis by indices that may differ for each place on the others: ``x[i, indices[i, j]]`` for the last
    of two. What :func:`argsort` gives fits; lengths of 1 broadcast.

    Raises:
        DTypeError: the indices are no integers.
        OutOfRangeError: an index lies beyond the axis.
        ShapeError: the shapes do not fit.

    >>> import tinygrad_lenet as tl
    >>> tl.take_along_axis(tl.tensor([[1, 2], [3, 4]]), [[1], [0]], axis=1)
    tensor([[2.],
            [3.]])
    """
    x, found = as_tensor(x), np.asarray(indices)
    if found.ndim == x.ndim:  # else _positions complains
        at = axis_of(axis, x.ndim, "take_along_axis")
        try:
            lengths = list(np.broadcast_shapes(*((*a.shape[:at], 1, *a.shape[at + 1 :]) for a in (x, found))))
        except ValueError:
            raise ShapeError(
                f"take_along_axis: indices {found.shape} do not fit {x.shape}: away from axis {axis} the lengths must "
                "be equal, or 1"
            ) from None
        found = np.broadcast_to(found, [*lengths[:at], found.shape[at], *lengths[at + 1 :]])
        x = broadcast_to(x, [*lengths[:at], x.shape[at], *lengths[at + 1 :]])
    return getitem(x, _positions(x, found, axis, "take_along_axis"))


def _within(x: Tensor, index: Any, axis: int, op: str) -> None:
    shape = np.shape(index)
    at = axis_of(axis, x.ndim, op)
    if len(shape) == x.ndim and any(i != at and n > m for i, (n, m) in enumerate(zip(shape, x.shape, strict=True))):
        raise ShapeError(f"{op}: away from axis {axis}, index {shape} must not be longer than the tensor {x.shape}")


@composite
def gather(x: Array, axis: int, index: Array) -> Tensor:
    """``out[i, j] = x[index[i, j], j]`` for axis 0 of two, PyTorch's ``gather``: ``index`` may be shorter than ``x`` on
    the other axes.

    Raises:
        DTypeError: the indices are no integers.
        OutOfRangeError: an index lies beyond the axis.
        ShapeError: ``index`` has other axes than ``x``, or is longer on another.

    >>> import tinygrad_lenet as tl
    >>> tl.gather(tl.tensor([[1, 2], [3, 4]]), 0, tl.tensor([[1, 0]], dtype="int64"))
    tensor([[3., 2.]])
    """
    x = as_tensor(x)
    _within(x, index, axis, "gather")
    return getitem(x, _positions(x, index, axis, "gather"))


def _source(op: str, src: Array, index: Any, x: Tensor) -> Tensor:
    """The part of ``src`` that is scattered."""
    shape = np.shape(index)
    if not np.ndim(src):
        src = broadcast_to(beside(src, x)[0], shape)
    if np.ndim(src) != len(shape) or any(n > m for n, m in zip(shape, np.shape(src), strict=True)):
        raise ShapeError(
            f"{op}: src {np.shape(src)} must be a number, or at least as long as index {shape} on each axis"
        )
    return as_tensor(src)[tuple(slice(n) for n in shape)].astype(x.dtype)


@composite
def scatter(x: Array, axis: int, index: Array, src: Array) -> Tensor:
    """A copy of ``x`` with ``out[index[i, j], j] = src[i, j]`` for axis 0 of two, PyTorch's ``scatter``.

    ``src`` is a tensor or a number. Where an element is set several times the last one counts, and gets the gradient.

    Raises:
        DTypeError: the indices are no integers.
        OutOfRangeError: an index lies beyond the axis.
        ShapeError: ``index`` has other axes than ``x`` or is longer on another, or ``src`` is shorter than ``index``.

    >>> import tinygrad_lenet as tl
    >>> tl.scatter(tl.zeros(2, 2), 1, tl.tensor([[1], [0]], dtype="int64"), 5.0)
    tensor([[0., 5.],
            [5., 0.]])
    """
    x = as_tensor(x)
    _within(x, index, axis, "scatter")
    positions = _positions(x, index, axis, "scatter")
    values = _source("scatter", src, index, x).reshape(-1)
    origin = np.full(x.shape, -1)
    origin[positions] = np.arange(values.size).reshape(np.shape(index))
    return where(origin >= 0, values[np.maximum(origin, 0)], x) if values.size else x.clone()


@composite
def scatter_add(x: Array, axis: int, index: Array, src: Array) -> Tensor:
    """A copy of ``x`` with ``out[index[i, j], j] += src[i, j]`` for axis 0 of two, PyTorch's ``scatter_add``: where an
    element is named several times, all are added.

    Raises:
        DTypeError: the indices are no integers.
        OutOfRangeError: an index lies beyond the axis.
        ShapeError: as for :func:`scatter`.

    >>> import tinygrad_lenet as tl
    >>> tl.scatter_add(tl.zeros(3), 0, tl.tensor([0, 2, 2], dtype="int64"), tl.tensor([1, 10, 100]))
    tensor([  1.,   0., 110.])
    """
    x = as_tensor(x)
    _within(x, index, axis, "scatter_add")
    positions = _positions(x, index, axis, "scatter_add")
    return add(x, _put(_source("scatter_add", src, index, x), positions, x.shape))


@composite
def one_hot(tensor: Array, num_classes: int = -1) -> Tensor:
    """For class indices (...,) integers (..., num_classes): 1 at the index, else 0. PyTorch's ``one_hot``.

    ``num_classes`` is one more than the largest index if it is -1.

    Raises:
        DTypeError: the indices are no integers.
        OutOfRangeError: an index is negative, or ``num_classes`` or more.

    >>> import tinygrad_lenet as tl
    >>> tl.one_hot([0, 2])
    tensor([[1, 0, 0],
            [0, 0, 1]], dtype=int64)
    """
    index = np.asarray(tensor)
    if index.dtype.kind not in "iu":
        raise DTypeError(
            f"one_hot: tensor must hold class indices, integers, got {index.dtype}; convert: x.astype('int64')"
        )
    count = num_classes if num_classes != -1 else int(index.max()) + 1 if index.size else 0
    if index.size and (index.min() < 0 or index.max() >= count):
        raise OutOfRangeError(f"one_hot: the class indices in tensor must lie in 0 … {count - 1}, got {index}")
    return Tensor._wrap((index[..., None] == np.arange(count)).astype(np.int64))
