"""Products of matrices, in the tiles in which BLAS computes large ones fastest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import memory
from .sums import single
from .threads import parallel

# Multiply-adds up to which OpenBLAS takes a product as it lies and on one core. Above, it copies both factors first,
# for flat matrices longer than the product takes (22 against 80 GFLOP/s), and wakes threads of its own, which spin and
# hold up ours: with one of two cores busy elsewhere, a training step took ten times as long.
_TILE = 262_144
_DEEP = 1024  # the longest sums in one tile
_WIDE = 64  # columns of a tile, or more if it is not deep


def product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> NDArray[Any]:
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


def _tiles(x: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Cut matrices (..., m, n) into tiles (..., n / columns, m / rows, rows, columns): a view."""
    *stack, m, n = x.shape
    axes = len(stack)
    tiles = x.reshape(*stack, m // rows, rows, n // columns, columns)
    return tiles.transpose(*range(axes), axes + 2, axes, axes + 1, axes + 3)


def common_dtype(*arrays: NDArray[Any]) -> np.dtype[Any]:
    """``np.result_type(*arrays)``, in a fifth of the time where all have one dtype."""
    dtype: np.dtype[Any] = arrays[0].dtype
    return dtype if all(array.dtype == dtype for array in arrays) else np.result_type(*arrays)


def dot(a: NDArray[Any], b: NDArray[Any]) -> Any:
    """``a @ b`` of two matrices, on all cores if it is large, in recycled memory; of float16 by way of float32."""
    if a.dtype == b.dtype == np.float16:
        return dot(single(a), single(b)).astype(np.float16)
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
