"""Products of matrices, and the tiles in which BLAS computes large ones fastest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import memory
from ..errors import ShapeError
from ..primitive import Array, draw, primitive
from ..threads import parallel

__all__ = ["linear", "matmul"]

# Multiply-adds up to which OpenBLAS takes a product as it lies and on one core. Above, it copies both factors first,
# for flat matrices longer than the product takes (22 against 80 GFLOP/s), and wakes threads of its own, which spin and
# hold up ours: with one of two cores busy elsewhere, a training step took ten times as long.
_TILE = 262_144
_DEEP = 1024  # the longest sums in one tile
_WIDE = 64  # columns of a tile, or more if it is not deep


def product(a: Array, b: Array, out: Array) -> Array:
    """``np.matmul(a, b, out)`` in tiles of at most ``_TILE`` multiply-adds, on one core; stacks broadcast.

    For most shapes of small networks, tiles run at 95 to 115 % of the speed of one call on one core.
    """
    (m, k), n = a.shape[-2:], b.shape[-1]
    if m * k * n <= _TILE:
        return np.matmul(a, b, out)
    if k > _DEEP:
        deep = _even(k, _DEEP, 4)
        product(a[..., :deep], b[..., :deep, :], out)
        part = memory.empty(out.shape, out.dtype)
        for start in range(deep, k, deep):
            out += product(a[..., start : start + deep], b[..., start : start + deep, :], part)
        return out
    rows, columns = _tile(m, k, n)
    for top, i in _cut(m, rows):
        for left, j in _cut(n, columns):
            # In C order, so that a tile of ``b`` stays in the cache for all tiles of ``a``: up to 1.3 times as fast.
            factors = _tiles(a[..., top, :], i, k), _tiles(b[..., left], k, j)
            np.matmul(*factors, out=_tiles(out[..., top, left], i, j), order="C")
    return out


def _tile(m: int, k: int, n: int) -> tuple[int, int]:
    """The size of the tiles of a product (m, k) by (k, n)."""
    columns = _even(n, max(_WIDE, _TILE // (k * min(m, 32))), 16)
    return _even(m, _TILE // (k * columns), 4), columns


def _even(length: int, most: int, unit: int) -> int:
    """Steps, in units, none longer than ``most``, and all about equal: so that little is left over."""
    count = -(-length // max(unit, most // unit * unit))
    return min(length, -(-length // (count * unit)) * unit)


def _cut(length: int, step: int) -> list[tuple[slice, int]]:
    """The part of an axis that steps fill, and the rest, each with the length of its steps."""
    whole = length - length % step
    return [(slice(0, whole), step)] + ([(slice(whole, length), length - whole)] if whole < length else [])


def _tiles(x: Array, rows: int, columns: int) -> Array:
    """Cut matrices (..., m, n) into tiles (..., n / columns, m / rows, rows, columns): a view."""
    *stack, m, n = x.shape
    axes = len(stack)
    tiles = x.reshape(*stack, m // rows, rows, n // columns, columns)
    return tiles.transpose(*range(axes), axes + 2, axes, axes + 1, axes + 3)


def common_dtype(*arrays: Array) -> np.dtype[Any]:
    """``np.result_type(*arrays)``, in a fifth of the time where all have one dtype."""
    dtype: np.dtype[Any] = arrays[0].dtype
    return dtype if all(array.dtype == dtype for array in arrays) else np.result_type(*arrays)


def _dot(a: Array, b: Array) -> Array:
    """``a @ b`` of two matrices, on all cores if it is large, in recycled memory."""
    (m, k), n = a.shape, b.shape[1]
    out = memory.empty((m, n), common_dtype(a, b))
    if k == 1:  # BLAS takes four times as long
        return np.multiply(a, b, out)
    if m * k * n <= _TILE or out.dtype.kind != "f" or a.dtype != b.dtype:
        return np.matmul(a, b, out)
    # Whole tiles for each core, the same whatever the number of cores: so are the bits of the result.
    rows = _tile(m, min(k, _DEEP), n)[0] * 8

    def some(start: int, stop: int) -> None:
        for top in range(start * rows, min(stop * rows, m), rows):
            product(a[top : top + rows], b, out[top : top + rows])

    parallel(some, -(-m // rows), float(m) * k * n)
    return out


@primitive
def matmul(x: Array, y: Array) -> Array:
    """Matrix product ``x @ y``, as NumPy defines it: (..., n, k) by (..., k, m) to (..., n, m).

    Leading axes broadcast; a vector on the left is a row, on the right a column.

    Raises:
        ShapeError: the inner lengths differ, or an operand has no axes.

    >>> import tinygrad_lenet as tl
    >>> tl.matmul(tl.tensor([[1, 2], [3, 4]]), tl.tensor([1, 10]))
    tensor([21., 43.])
    """
    if x.ndim and y.ndim and x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ShapeError(
            f"matmul: {x.shape} @ {y.shape} does not fit: the last axis of the first has length {x.shape[-1]}, the "
            f"{'last but one' if y.ndim > 1 else 'only'} axis of the second {y.shape[-2 if y.ndim > 1 else 0]}"
        )
    return _dot(x, y) if x.ndim == y.ndim == 2 else np.matmul(x, y)


def _as_matrices(g: Any, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> Any:
    """The gradient with the axes that matmul took away from vectors."""
    shape = g.shape
    if len(y_shape) == 1:
        shape = (*shape, 1)
    if len(x_shape) == 1:
        shape = (*shape[:-1], 1, shape[-1])
    return g.reshape(shape)


def swapped(x: Any) -> Any:
    """Swap the last two axes."""
    return x.transpose((*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2))


def _matmul_x(g: Any, x_shape: tuple[int, ...], y: Any) -> Any:
    g = _as_matrices(g, x_shape, y.shape)
    dx = matmul(g, swapped(y) if len(y.shape) > 1 else y.reshape(1, -1))
    return dx.reshape((*dx.shape[:-2], dx.shape[-1])) if len(x_shape) == 1 else dx


def _matmul_y(g: Any, x: Any, y_shape: tuple[int, ...]) -> Any:
    g = _as_matrices(g, x.shape, y_shape)
    dy = matmul(swapped(x) if len(x.shape) > 1 else x.reshape(-1, 1), g)
    return dy.reshape(dy.shape[:-1]) if len(y_shape) == 1 else dy


matmul.vjp(x=_matmul_x, y=_matmul_y)
matmul.check(draw(3, 4), draw(4, 2))
matmul.check(draw(4), draw(4))
matmul.check(draw(4), draw(2, 4, 3))
matmul.check(draw(2, 3, 4), draw(4))
matmul.check(draw(5, 1, 3, 4), draw(2, 4, 2))


@primitive
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Affine map ``x @ weight.T + bias``, PyTorch's ``linear``.

    Args:
        x: (..., in_features)
        weight: (out_features, in_features)
        bias: (out_features,), or None

    Returns:
        (..., out_features); in memory it lies as ``x`` does, so that a batch which comes feature by feature stays so.

    Raises:
        ShapeError: weight or bias does not fit.

    >>> import tinygrad_lenet as tl
    >>> tl.linear(tl.ones(2, 3), tl.ones(4, 3), tl.zeros(4)).shape
    (2, 4)
    """
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: x of shape {x.shape} needs a weight of shape (out_features, "
            f"{x.shape[-1] if x.ndim else '?'}), got {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear: weight of shape {weight.shape} needs a bias of shape {weight.shape[:1]}, got {bias.shape}"
        )
    if x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous:
        out = _dot(weight, x.T)
        return out.T if bias is None else _plus(out, bias[:, None]).T
    out = _dot(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), weight.T).reshape(*x.shape[:-1], weight.shape[0])
    return out if bias is None else _plus(out, bias)


def _plus(out: Any, bias: Any) -> Any:
    """The sum, in place unless the bias has another dtype: then the result has NumPy's for both."""
    return np.add(out, bias, out=out if out.dtype == bias.dtype else None)


@primitive
def _linear_weight_grad(g: Array, x: Array) -> Array:
    """The gradient of :func:`linear` for its weight: the sum over the batch of ``g`` times ``x``."""
    rows = math.prod(x.shape[:-1])  # not -1, which cannot be told of rows of length 0
    return _dot(g.reshape(rows, g.shape[-1]).T, x.reshape(rows, x.shape[-1]))


linear.vjp(
    x=lambda g, weight: linear(g, weight.T),
    weight=lambda g, x: _linear_weight_grad(g, x),
    bias=lambda g: g,
)
_linear_weight_grad.vjp(g=lambda g_, x: linear(x, g_), x=lambda g_, g: linear(g, g_.T))
_linear_weight_grad.check(draw(3, 2), draw(3, 4))
_linear_weight_grad.check(draw(2, 3, 2), draw(2, 3, 4))
linear.check(draw(3, 4), draw(2, 4), draw(2))
linear.check(draw(2, 3, 4), draw(2, 4))
linear.check(draw(4), draw(2, 4), draw(2))
