"""Ops that move elements without changing them. Where NumPy gives a view, so do they."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ..arguments import integer
from ..errors import ArgumentError, AxisError, ShapeError
from ..primitive import Array, composite, draw, primitive
from ..tensor import Tensor, to_array

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flatten",
    "moveaxis",
    "permute",
    "reshape",
    "squeeze",
    "stack",
    "swapaxes",
    "transpose",
    "unsqueeze",
]


def _flat(numbers: tuple[Any, ...]) -> tuple[int, ...]:
    """Both ``f(1, 2)`` and ``f((1, 2))``."""
    return tuple(numbers[0]) if len(numbers) == 1 and isinstance(numbers[0], (list, tuple, range)) else numbers


def axis_of(axis: int, ndim: int, what: str = "") -> int:
    """One axis as a number from 0 on."""
    if type(axis) is not int:
        axis = integer(what or "axis_of", "axis", axis)
    if not -ndim <= axis < ndim:
        there = f"a tensor with {ndim} axes has axes {-ndim} … {ndim - 1}" if ndim else "this tensor has no axes"
        raise AxisError(f"{what and what + ': '}there is no axis {axis}; {there}")
    return axis % ndim


def axes_of(axis: int | tuple[int, ...] | None, ndim: int, what: str = "") -> tuple[int, ...]:
    """The axes that ``axis`` means, as non-negative numbers in order.

    >>> axes_of(-1, 3), axes_of(None, 2)
    ((2,), (0, 1))
    """
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int:
        return (axis_of(axis, ndim, what),)
    given = listed(axis, what or "axes_of", "axis")
    found = sorted(axis_of(a, ndim, what) for a in given)
    if len({*found}) < len(given):
        raise ArgumentError(f"{what and what + ': '}each axis can be named once, got {axis}")
    return tuple(found)


def _batch_innermost(x: Array) -> bool:
    return bool(x.shape[0] > 1 and x.strides[0] == x.itemsize)


@primitive
def reshape(x: Array, *shape: Any) -> Array:
    """The same elements, in row-major order, in another shape; one length may be -1.

    >>> import tinygrad_lenet as tl
    >>> tl.reshape(tl.arange(6), 2, -1)
    tensor([[0, 1, 2],
            [3, 4, 5]], dtype=int64)
    """
    target = _flat(shape)
    if x.ndim > 2 and target and target[0] == x.shape[0] and _batch_innermost(x):
        # Images from a convolution lie in memory with the batch innermost; so shall the features that they become.
        inner = np.ascontiguousarray(x.transpose(*range(1, x.ndim), 0))
        return np.moveaxis(inner.reshape(*target[1:], x.shape[0]), -1, 0)
    if x.ndim == 2 and len(target) > 2 and target[0] == x.shape[0] and _batch_innermost(x):
        return np.moveaxis(x.T.reshape(*target[1:], x.shape[0]), -1, 0)  # and back
    return np.reshape(x, target)


reshape.vjp(x=lambda g, x_shape: g.reshape(x_shape))
reshape.check(draw(3, 4), (2, 6))
reshape.check(draw(3, 4), 2, -1)


@primitive
def permute(x: Array, *axes: Any) -> Array:
    """The axes in another order: axis ``i`` of the result is axis ``axes[i]`` of ``x``. A view.

    >>> import tinygrad_lenet as tl
    >>> tl.permute(tl.zeros(2, 3, 4), 2, 0, 1).shape
    (4, 2, 3)
    """
    return np.transpose(x, _flat(axes))


permute.vjp(x=lambda g, axes: g.transpose(tuple(int(i) for i in np.argsort([a % len(g.shape) for a in _flat(axes)]))))
permute.check(draw(2, 3, 4), 2, 0, 1)
permute.check(draw(2, 3, 4), (-1, 0, 1))


@composite
def transpose(x: Tensor, *axes: Any) -> Tensor:
    """All axes reversed; or, given two numbers, these two swapped (as in PyTorch); or, given all, in that order (as in
    NumPy).

    >>> import tinygrad_lenet as tl
    >>> x = tl.zeros(2, 3, 4)
    >>> x.transpose().shape, x.transpose(1, 2).shape, x.transpose(2, 0, 1).shape
    ((4, 3, 2), (2, 4, 3), (4, 2, 3))
    """
    ndim = np.ndim(x._data) if isinstance(x, Tensor) else np.ndim(x)
    order = _flat(axes)
    if not order:
        return permute(x, tuple(range(ndim))[::-1])
    if len(axes) == 2:
        a, b = (axis_of(i, ndim, "transpose") for i in order)
        swapped = list(range(ndim))
        swapped[a], swapped[b] = b, a
        return permute(x, tuple(swapped))
    return permute(x, order)


@primitive
def broadcast_to(x: Array, *shape: Any) -> Array:
    """A read-only view in which axes of length 1 repeat, as broadcasting stretches them.

    >>> import tinygrad_lenet as tl
    >>> tl.broadcast_to(tl.tensor([1, 2]), (2, 2))
    tensor([[1., 2.],
            [1., 2.]])
    """
    return np.broadcast_to(x, _flat(shape))


broadcast_to.vjp(x=lambda g: g)
broadcast_to.check(draw(3, 1), (2, 3, 4))


def stretch(g: Any, shape: tuple[int, ...]) -> Any:
    """:func:`broadcast_to` for rules: an array stays an array, and a view."""
    return broadcast_to(g, shape) if isinstance(g, Tensor) else np.broadcast_to(g, shape)


@composite
def flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Join the axes from ``start_dim`` to ``end_dim``, both included.

    Raises:
        ArgumentError: ``start_dim`` comes after ``end_dim``.

    >>> import tinygrad_lenet as tl
    >>> tl.flatten(tl.zeros(8, 16, 5, 5), start_dim=1).shape
    (8, 400)
    """
    shape = np.shape(x)
    if not shape:
        return reshape(x, 1)
    first, last = axis_of(start_dim, len(shape), "flatten"), axis_of(end_dim, len(shape), "flatten")
    if first > last:
        raise ArgumentError(f"flatten: start_dim={start_dim} comes after end_dim={end_dim}")
    # The product and not -1, which is ambiguous for an empty batch.
    return reshape(x, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))


@composite
def squeeze(x: Array, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Drop axes of length 1: all of them, or those named, which must have length 1.

    Raises:
        ShapeError: an axis that is named has another length.

    >>> import tinygrad_lenet as tl
    >>> tl.squeeze(tl.zeros(1, 3, 1)).shape, tl.squeeze(tl.zeros(1, 3, 1), axis=0).shape
    ((3,), (3, 1))
    """
    shape = np.shape(x)
    ones = tuple(i for i, n in enumerate(shape) if n == 1)
    drop = axes_of(ones if axis is None else axis, len(shape), "squeeze")
    if any(shape[a] != 1 for a in drop):
        raise ShapeError(f"squeeze: axis {axis} of a tensor of shape {shape} does not have length 1")
    return reshape(x, tuple(n for i, n in enumerate(shape) if i not in drop))


@composite
def unsqueeze(x: Array, axis: int) -> Tensor:
    """Put in a new axis of length 1, which will be axis number ``axis``.

    >>> import tinygrad_lenet as tl
    >>> tl.unsqueeze(tl.zeros(3, 4), 1).shape
    (3, 1, 4)
    """
    shape = np.shape(x)
    at = axis_of(axis, len(shape) + 1, "unsqueeze")
    return reshape(x, (*shape[:at], 1, *shape[at:]))


@primitive
def _join(axis: int, ends: tuple[int, ...], *tensors: Array) -> Array:
    return np.concatenate(tensors, axis)


def _part(g: Any, axis: int, ends: tuple[int, ...], position: int) -> Any:
    start = ends[position - 1] if position else 0
    return g[(slice(None),) * axis + (slice(start, ends[position]),)]


_join.vjp(tensors=_part)
_join.check(0, (2, 5), draw(2, 3), draw(3, 3))
_join.check(1, (1, 3, 4), draw(2, 1), draw(2, 2), draw(2, 1))


@composite
def concatenate(tensors: Sequence[Array], axis: int = 0) -> Tensor:
    """Join tensors along an axis that they have; all other lengths must be equal.

    Raises:
        ArgumentError: an empty list.
        ShapeError: lengths differ on another axis.

    >>> import tinygrad_lenet as tl
    >>> tl.concatenate([tl.zeros(1, 2), tl.ones(1, 2)])
    tensor([[0., 0.],
            [1., 1.]])
    """
    parts = [t if isinstance(t, (Tensor, np.ndarray)) else to_array(t) for t in tensors]
    if not parts:
        raise ArgumentError("concatenate: tensors must hold at least one tensor, got none")
    at = axis_of(axis, len(parts[0].shape), "concatenate")
    if len({(len(part.shape), part.shape[:at], part.shape[at + 1 :]) for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ShapeError(f"concatenate: the shapes may differ along axis {axis} only, got {shapes}")
    return _join(at, tuple(accumulate(part.shape[at] for part in parts)), *parts)


@composite
def stack(tensors: Sequence[Array], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis, which will be axis number ``axis``.

    Raises:
        ShapeError: the shapes differ.

    >>> import tinygrad_lenet as tl
    >>> tl.stack([tl.zeros(3), tl.ones(3)], axis=1).shape
    (3, 2)
    """
    parts = [t if isinstance(t, (Tensor, np.ndarray)) else to_array(t) for t in tensors]
    if len({part.shape for part in parts}) > 1:
        raise ShapeError(f"stack: the tensors must have one shape, got {', '.join(str(part.shape) for part in parts)}")
    return concatenate([unsqueeze(part, axis) for part in parts], axis)


@composite
def moveaxis(x: Array, source: int | tuple[int, ...], destination: int | tuple[int, ...]) -> Tensor:
    """Move axes to other places; the others stay in order. A view; PyTorch's ``movedim`` too.

    Raises:
        ArgumentError: not as many places as axes, or one twice.

    >>> import tinygrad_lenet as tl
    >>> tl.moveaxis(tl.zeros(2, 3, 4), 0, -1).shape
    (3, 4, 2)
    """
    ndim = np.ndim(x)
    froms, tos = (
        [axis_of(a, ndim, "moveaxis") for a in listed(axes, "moveaxis", name)]
        for name, axes in (("source", source), ("destination", destination))
    )
    if len(froms) != len(tos) or len({*froms}) < len(froms) or len({*tos}) < len(tos):
        raise ArgumentError(f"moveaxis: source {source} and destination {destination} must be as many different axes")
    order = [a for a in range(ndim) if a not in froms]
    for to, origin in sorted(zip(tos, froms, strict=True)):
        order.insert(to, origin)
    return permute(x, tuple(order))


def listed(value: int | Sequence[int], op: str, name: str) -> list[int]:
    """One integer or several, as a list."""
    # An array has a dtype; a memoryview, of bytes, has axes only.
    several = isinstance(value, (list, tuple, range)) or (hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1)
    return [integer(op, name, v) for v in (value if several else (value,))]  # type: ignore[union-attr]


@composite
def swapaxes(x: Array, axis1: int, axis2: int) -> Tensor:
    """Two axes swapped; a view.

    >>> import tinygrad_lenet as tl
    >>> tl.swapaxes(tl.zeros(2, 3, 4), 0, 2).shape
    (4, 3, 2)
    """
    return transpose(x, axis1, axis2)


@composite
def expand_dims(x: Array, axis: int | tuple[int, ...]) -> Tensor:
    """Put in new axes of length 1, at these places of the result; of one, it is :func:`unsqueeze`.

    >>> import tinygrad_lenet as tl
    >>> tl.expand_dims(tl.zeros(3, 4), (0, -1)).shape
    (1, 3, 4, 1)
    """
    count = np.ndim(x) + len(listed(axis, "expand_dims", "axis"))
    at = axes_of(axis, count, "expand_dims")
    lengths = iter(np.shape(x))
    return reshape(x, tuple(1 if i in at else next(lengths) for i in range(count)))
