"""Turning, repeating, cutting, padding: made of the ops that move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import integer
from ..errors import ArgumentError, ShapeError
from ..primitive import Array, composite, draw, primitive
from ..tensor import Tensor, as_tensor, to_array
from .elementwise import select
from .shape import axes_of, axis_of, broadcast_to, concatenate, flatten, listed, moveaxis, reshape, swapaxes, unsqueeze
from .windows import pair

__all__ = ["chunk", "diagonal", "flip", "meshgrid", "pad", "repeat", "roll", "split", "tile", "tril", "triu", "unbind"]


@composite
def flip(x: Array, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """The elements in reverse order along an axis, several, or all; a view.

    >>> import tinygrad_lenet as tl
    >>> tl.flip(tl.arange(3))
    tensor([2, 1, 0], dtype=int64)
    """
    turned = axes_of(axis, np.ndim(x))
    return as_tensor(x)[tuple(slice(None, None, -1 if i in turned else None) for i in range(np.ndim(x)))]


@composite
def roll(x: Array, shift: int | tuple[int, ...], axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Shift the elements along axes; what falls off at one end comes in at the other. Without an axis, of the flattened
    tensor.

    Raises:
        ArgumentError: not as many shifts as axes.

    >>> import tinygrad_lenet as tl
    >>> tl.roll(tl.arange(5), 2)
    tensor([3, 4, 0, 1, 2], dtype=int64)
    """
    x = as_tensor(x)
    if axis is None:
        return roll(reshape(x, -1), sum(listed(shift, "roll", "shift")), 0).reshape(x.shape)
    axes, shifts = listed(axis, "roll", "axis"), listed(shift, "roll", "shift")
    shifts *= len(axes) if len(shifts) == 1 else 1
    axes *= len(shifts) if len(axes) == 1 else 1
    if len(axes) != len(shifts):
        raise ArgumentError(f"roll: shift {shift} and axis {axis} must be as many")
    for a, by in zip(axes, shifts, strict=True):
        at = axis_of(a, x.ndim, "roll")
        cut = -by % x.shape[at] if x.shape[at] else 0
        if cut:
            x = concatenate([_between(x, at, cut, None), _between(x, at, None, cut)], at)
    return as_tensor(x)


def _between(x: Tensor, axis: int, start: int | None, stop: int | None, step: int | None = None) -> Tensor:
    """A slice along one axis."""
    return x[(slice(None),) * axis + (slice(start, stop, step),)]


@composite
def tile(x: Array, reps: int | Sequence[int]) -> Tensor:
    """The whole tensor several times along each axis, NumPy's ``tile`` (PyTorch's ``Tensor.repeat``).

    Raises:
        ArgumentError: a negative number.

    >>> import tinygrad_lenet as tl
    >>> tl.tile(tl.tensor([1, 2]), (2, 2))
    tensor([[1., 2., 1., 2.],
            [1., 2., 1., 2.]])
    """
    times = listed(reps, "tile", "reps")
    if any(t < 0 for t in times):
        raise ArgumentError(f"tile: reps must be 0 or more, got {reps}")
    ndim = max(len(times), np.ndim(x))
    shape = (1,) * (ndim - np.ndim(x)) + np.shape(x)
    times = [1] * (ndim - len(times)) + times
    wide = reshape(x, tuple(n for length in shape for n in (1, length)))
    wide = broadcast_to(wide, tuple(n for t, length in zip(times, shape, strict=True) for n in (t, length)))
    return reshape(wide, tuple(t * length for t, length in zip(times, shape, strict=True)))


@composite
def repeat(x: Array, repeats: int | Sequence[int], axis: int | None = None) -> Tensor:
    """Each element several times in a row, NumPy's ``repeat``. Without an axis, of the flattened tensor.

    PyTorch's ``repeat_interleave``; its ``Tensor.repeat`` is :func:`tile`.

    Raises:
        ArgumentError: ``repeats`` are negative, not integers, or not as many as there are elements.

    >>> import tinygrad_lenet as tl
    >>> tl.repeat(tl.tensor([1, 2]), 2), tl.repeat(tl.tensor([1, 2]), [0, 3])
    (tensor([1., 1., 2., 2.]), tensor([2., 2., 2.]))
    """
    if axis is None:
        x, axis = reshape(x, -1), 0
    x = as_tensor(x)
    at = axis_of(axis, x.ndim, "repeat")
    counts = np.asarray(repeats)
    if (
        isinstance(repeats, (bytearray, memoryview))  # text, of which NumPy makes numbers
        or counts.size not in (1, x.shape[at])
        or counts.ndim > 1
        or counts.dtype.kind not in "iu"
        or (counts < 0).any()
        or (counts > 2**62).any()
    ):
        raise ArgumentError(
            f"repeat: repeats must be a number, or one for each of the {x.shape[at]} elements, none negative; "
            f"got {repeats}"
        )
    if counts.size == 1:
        wide = broadcast_to(unsqueeze(x, at + 1), (*x.shape[: at + 1], int(counts.item()), *x.shape[at + 1 :]))
        return flatten(wide, at, at + 1)
    return as_tensor(x[(slice(None),) * at + (np.repeat(np.arange(x.shape[at]), counts.astype(np.intp)),)])


@composite
def split(x: Array, indices_or_sections: int | Sequence[int], axis: int = 0) -> tuple[Tensor, ...]:
    """Cut along an axis, as NumPy does: into so many equal parts, or before each of these indices. Views.

    PyTorch's ``split`` takes the length of a part: see :func:`chunk`, which need not be equal.

    Raises:
        ArgumentError: the parts would not be equal.

    >>> import tinygrad_lenet as tl
    >>> tl.split(tl.arange(5), [2, 3])
    (tensor([0, 1], dtype=int64), tensor([2], dtype=int64), tensor([3, 4], dtype=int64))
    """
    x = as_tensor(x)
    at = axis_of(axis, x.ndim, "split")
    n = x.shape[at]
    if isinstance(indices_or_sections, (int, np.integer)):
        count = int(indices_or_sections)
        if count < 1 or n % count:
            raise ArgumentError(f"split: {n} elements cannot be cut into {count} equal parts; see chunk")
        cuts = [n // count * i for i in range(1, count)]
    else:
        cuts = listed(indices_or_sections, "split", "indices_or_sections")
    return tuple(_between(x, at, start, stop) for start, stop in zip([0, *cuts], [*cuts, None], strict=True))


@composite
def chunk(x: Array, chunks: int, axis: int = 0) -> tuple[Tensor, ...]:
    """Cut along an axis into at most so many parts of equal length, of which the last may be shorter. Views; PyTorch's
    ``chunk``.

    Raises:
        ArgumentError: ``chunks`` is below 1.

    >>> import tinygrad_lenet as tl
    >>> tl.chunk(tl.arange(5), 3)
    (tensor([0, 1], dtype=int64), tensor([2, 3], dtype=int64), tensor([4], dtype=int64))
    """
    if chunks < 1:
        raise ArgumentError(f"chunk: chunks must be at least 1, got {chunks}")
    at = axis_of(axis, np.ndim(x), "chunk")
    n = np.shape(x)[at]
    length = max(1, -(-n // chunks))
    return split(x, list(range(length, n, length)), at)


@composite
def unbind(x: Array, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts along an axis, without it. Views; PyTorch's ``unbind``.

    >>> import tinygrad_lenet as tl
    >>> tl.unbind(tl.tensor([[1, 2], [3, 4]]), axis=1)
    (tensor([1., 3.]), tensor([2., 4.]))
    """
    x = as_tensor(x)
    at = (slice(None),) * axis_of(axis, x.ndim, "unbind")
    return tuple(x[(*at, i)] for i in range(x.shape[len(at)]))


@composite
def tril(x: Array, k: int = 0) -> Tensor:
    """Matrices (..., n, m) with zeros above diagonal number ``k``.

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> tl.tril(tl.ones(2, 3))
    tensor([[1., 0., 0.],
            [1., 1., 0.]])
    """
    return select(x, np.tri(*_matrix(x, "tril"), k, bool))


@composite
def triu(x: Array, k: int = 0) -> Tensor:
    """Matrices (..., n, m) with zeros below diagonal number ``k``.

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> tl.triu(tl.ones(2, 3))
    tensor([[1., 1., 1.],
            [0., 1., 1.]])
    """
    return select(x, ~np.tri(*_matrix(x, "triu"), k - 1, bool))


def _matrix(x: Array, op: str) -> tuple[int, int]:
    if np.ndim(x) < 2:
        raise ShapeError(f"{op}: expected matrices (..., n, m), got shape {np.shape(x)}")
    n, m = np.shape(x)[-2:]
    return n, m


@composite
def diagonal(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The diagonal of the matrices that two axes span, as the last axis of the result; a positive offset goes up.

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> tl.diagonal(tl.arange(6).reshape(2, 3), 1)
    tensor([1, 5], dtype=int64)
    """
    _matrix(x, "diagonal")
    x = moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    count = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    along = np.arange(count)
    return as_tensor(x[..., along + max(-offset, 0), along + max(offset, 0)])


@composite
def meshgrid(*xs: Array, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinates of a grid, from those of its axes: NumPy's, where the first axis of the result is y (``"xy"``), or
    PyTorch's, where it is x (``"ij"``).

    Raises:
        ArgumentError: another word for ``indexing``.

    >>> import tinygrad_lenet as tl
    >>> tl.meshgrid([1, 2, 3], [4, 5])[0]
    tensor([[1., 2., 3.],
            [1., 2., 3.]])
    """
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    flat = [reshape(x, -1) for x in xs]
    shape = tuple(x.size for x in flat)
    grids = [
        broadcast_to(x.reshape(tuple(n if j == i else 1 for j, n in enumerate(shape))), shape)
        for i, x in enumerate(flat)
    ]
    return tuple(swapaxes(g, 0, 1) if indexing == "xy" and len(grids) > 1 else g for g in grids)


@primitive
def _pad(x: Array, widths: tuple[tuple[int, int], ...], value: float) -> Array:
    out = np.full([n + before + after for n, (before, after) in zip(x.shape, widths, strict=True)], value, x.dtype)
    out[tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths, strict=True))] = x
    return out


_pad.vjp(x=lambda g, widths: g[tuple(slice(b, n - a) for n, (b, a) in zip(g.shape, widths, strict=True))])
_pad.check(draw(2, 3), ((1, 0), (2, 1)), 0.5)


@composite
def pad(x: Array, pad: Any, mode: str = "constant", value: float = 0.0) -> Tensor:
    """Surround with a constant, or with what lies at the border.

    Args:
        x: any tensor.
        pad: PyTorch's flat sequence ``(left, right, top, bottom, ...)``, which starts with the *last* axis; or NumPy's
            sequence of pairs ``((before, after), ...)``, one for each axis; or one number for all sides of all axes.
        mode: ``"constant"``; ``"reflect"``: the pixels mirrored at the outermost one, which is not repeated;
            ``"replicate"``: the outermost one; ``"circular"``: the other end.
        value: what to fill in, if constant.

    Raises:
        ArgumentError: an unknown mode, negative widths, or more or fewer than there are axes.
        ShapeError: the axis is too short for the mode.

    >>> import tinygrad_lenet as tl
    >>> tl.pad(tl.ones(1, 2), (1, 0))
    tensor([[0., 1., 1.]])
    """
    if mode not in ("constant", "reflect", "replicate", "circular"):
        raise ArgumentError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular', got {mode!r}")
    x = x if isinstance(x, (Tensor, np.ndarray)) else to_array(x)
    ndim = len(x.shape)
    pad = np.asarray(pad).tolist() if hasattr(pad, "dtype") and np.ndim(pad) else pad
    if not isinstance(pad, (list, tuple)):
        widths = [(integer("pad", "pad", pad),) * 2] * ndim
    elif not any(isinstance(p, (list, tuple)) for p in pad):
        flat = listed(pad, "pad", "pad")
        pairs = [*zip(flat[::2], flat[1::2], strict=False)]
        if len(pad) % 2 or len(pairs) > ndim:
            raise ArgumentError(
                f"pad: a flat pad has two numbers for each axis from the last, of {ndim} at most; got {pad}"
            )
        widths = [(0, 0)] * (ndim - len(pairs)) + pairs[::-1]
    else:
        widths = [pair(p, "pad", "pad", 0) for p in pad]
        if len(widths) != ndim:
            raise ArgumentError(f"pad: pad must have pairs for all {ndim} axes, got {len(widths)}: {pad}")
    if any(w < 0 for pair in widths for w in pair):
        raise ArgumentError(f"pad: the widths in pad must be 0 or more, got {pad}; use a slice to crop")
    if mode == "constant":
        return _pad(x, tuple(widths), value)
    for axis, (before, after) in enumerate(widths):
        if before or after:
            x = _mirrored(as_tensor(x), axis, before, after, mode)
    return as_tensor(x)


def _mirrored(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Pad one axis with what lies at its ends."""
    n = x.shape[axis]
    if max(before, after) > {"reflect": n - 1, "circular": n, "replicate": math.inf if n else 0}[mode]:
        raise ShapeError(
            f"pad: mode {mode!r} cannot add {max(before, after)} to an axis of length {n} (shape {x.shape}); pad less"
        )
    if mode == "reflect":
        left, right = _between(x, axis, 1, before + 1), _between(x, axis, n - 1 - after, n - 1)
        left, right = _between(left, axis, None, None, -1), _between(right, axis, None, None, -1)
    elif mode == "replicate":
        left, right = (repeat(_between(x, axis, i, i + 1), count, axis) for i, count in ((0, before), (n - 1, after)))
    else:
        left, right = _between(x, axis, n - before, None), _between(x, axis, None, after)
    return concatenate([left, x, right], axis)
