"""Sorting, and what is picked by rank."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ArgumentError
from ..primitive import Array, composite, draw, primitive
from ..tensor import Tensor, as_tensor
from .elementwise import ne, where
from .indexing import take_along_axis
from .reduction import Axis, mean
from .shape import axes_of, axis_of, moveaxis

__all__ = ["argsort", "median", "sort", "topk"]


@primitive
def argsort(x: Array, axis: int = -1, descending: bool = False) -> Array:
    """The indices that sort along an axis; equal elements keep their order, NaN counts as the largest. Integers: no
    gradient.

    >>> import tinygrad_lenet as tl
    >>> tl.argsort(tl.tensor([3, 1, 2]))
    tensor([1, 2, 0], dtype=int64)
    """
    axis_of(axis, x.ndim, "argsort")
    if not descending:
        return np.argsort(x, axis, kind="stable")
    # From the end, so that equal elements keep their order.
    return x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)


argsort.vjp(x=None)
argsort.check(draw(3, 4))
argsort.check(draw(3, 4), axis=0, descending=True)


@composite
def sort(x: Array, axis: int | None = -1, descending: bool = False) -> Tensor:
    """The elements in order along an axis, or (None) of the flattened tensor; NaN counts as the largest.

    NumPy's ``sort``: where PyTorch's also gives the indices, see :func:`argsort`. Of equal elements each keeps its own
    gradient, in their order.

    >>> import tinygrad_lenet as tl
    >>> tl.sort(tl.tensor([3, 1, 2]), descending=True)
    tensor([3., 2., 1.])
    """
    x = as_tensor(x)
    if axis is None:
        x, axis = x.reshape(-1), 0
    return take_along_axis(x, argsort(x.detach(), axis, descending), axis)


@composite
def topk(x: Array, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The ``k`` largest elements along an axis, or the smallest, in order; and their indices. PyTorch's ``topk``.

    >>> import tinygrad_lenet as tl
    >>> tl.topk(tl.tensor([3, 1, 2]), 2)
    (tensor([3., 2.]), tensor([0, 2], dtype=int64))
    """
    x = as_tensor(x)
    at = axis_of(axis, x.ndim, "topk")
    if not 0 <= k <= x.shape[at]:
        raise ArgumentError(f"topk: k must lie between 0 and {x.shape[at]}, the length of axis {axis}; got {k}")
    indices = argsort(x.detach(), at, descending=largest)[(slice(None),) * at + (slice(0, k),)]
    return take_along_axis(x, indices, at), indices


@composite
def median(x: Array, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The element in the middle; of an even number, the mean of the two (as NumPy; PyTorch takes the lower). NaN if any
    is NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.median(tl.tensor([4.0, 1.0, 3.0, 2.0]))
    tensor(2.5)
    """
    x = as_tensor(x)
    gone = axes_of(axis, x.ndim)
    last = tuple(range(x.ndim - len(gone), x.ndim))
    there = moveaxis(x, gone, last)
    n = math.prod(there.shape[x.ndim - len(gone) :])
    if not n:
        return mean(x, axis, keepdims)  # NaN, with NumPy's warning
    ordered = sort(there.reshape((*there.shape[: x.ndim - len(gone)], n)))
    top = ordered[..., -1]
    middle = where(ne(top, top), top, mean(ordered[..., (n - 1) // 2 : n // 2 + 1], -1))
    return middle.reshape(tuple(1 if i in gone else m for i, m in enumerate(x.shape))) if keepdims else middle
