"""Matrix products: calls of BLAS, and tiles where those are slow."""

from __future__ import annotations

from functools import lru_cache, partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import blas, memory, threads
from .steps import Blocked, Room, Steps, computed
from .sums import single
from .windows import cut

# BLAS copies both factors of a product (m, k) by (k, n) into the order in which it reads them, and uses each copied
# number m or n times. Below this length the copies take a large part of the time: the product is called flat.
_FLAT = 32
# For products up to this number of multiply-adds OpenBLAS copies nothing where it can (22 against 80 GFLOP/s), and
# never wakes its own threads. Where it always copies, tiles of a flat product are as fast as all of it.
_TILE = 262_144
_WIDE = 64  # columns of a tile, or a multiple: whole cache lines and registers, for each kernel of OpenBLAS
_DEEP = _TILE // (4 * _WIDE)  # the longest sums in one tile: it has four rows or more


def product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any], room: Room) -> Steps:
    """The steps of ``np.matmul(a, b, out)``, on one thread of BLAS; stacks broadcast.

    A flat product is cut into tiles of at most ``_TILE`` multiply-adds.
    """
    (m, k), n = a.shape[-2:], b.shape[-1]
    if m * k * n <= _TILE:
        return [partial(np.matmul, a, b, out)]
    if min(m, k, n) >= _FLAT:
        return [partial(blas.product, a, b, out)]
    if k > _DEEP:
        deep = _even(k, _DEEP, 4)
        steps = product(a[..., :deep], b[..., :deep, :], out, room)
        part = room(out.shape, out.dtype)
        for start in range(deep, k, deep):
            steps += product(a[..., start : start + deep], b[..., start : start + deep, :], part, room)
            steps.append(partial(np.add, out, part, out))
        return steps
    # In C order, so that a tile of ``b`` stays in the cache for all tiles of ``a``: up to 1.3 times as fast.
    return [
        partial(
            np.matmul,
            _tiles(a[..., top, :], i, k),
            _tiles(b[..., left], k, j),
            _tiles(out[..., top, left], i, j),
            order="C",
        )
        for top, i, left, j in _cuts(m, k, n)
    ]


@lru_cache(maxsize=1024)
def _cuts(m: int, k: int, n: int) -> list[tuple[slice, int, slice, int]]:
    """Parts of a product (m, k) by (k, n), each with the size of its tiles: rows, their step, columns, their step."""
    columns = _even(n, max(_WIDE, _TILE // (k * min(m, 32))), _WIDE)
    rows = _even(m, _TILE // (k * columns), 4)
    return [(top, i, left, j) for top, i in _cut(m, rows) for left, j in _cut(n, columns)]


def _even(length: int, most: int, unit: int) -> int:
    """The length of equal steps along an axis: a multiple of ``unit``, at most ``most``, with a small remainder."""
    count = 1 if length <= most else -(-length // max(unit, most // unit * unit))
    return min(length, -(-length // (count * unit)) * unit)


def _cut(length: int, step: int) -> list[tuple[slice, int]]:
    """The part of an axis that whole steps fill, and the remainder, each with the length of its steps."""
    whole = length - length % step
    return [(slice(0, whole), step)] + ([(slice(whole, length), length - whole)] if whole < length else [])


def _tiles(x: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """Cut matrices (..., m, n) into tiles (..., n / columns, m / rows, rows, columns): a view."""
    *stack, m, n = x.shape
    axes = len(stack)
    tiles = x.reshape(*stack, m // rows, rows, n // columns, columns)
    return tiles.transpose(*range(axes), axes + 2, axes, axes + 1, axes + 3)


def dot(a: NDArray[Any], b: NDArray[Any]) -> Any:
    """``a @ b`` of two matrices, on all cores if it is large, in recycled memory; float16 is computed in float32."""
    if a.dtype == b.dtype == np.float16:
        return dot(single(a), single(b)).astype(np.float16)
    return computed(dot_steps, memory.empty((a.shape[0], b.shape[1]), np.result_type(a, b)), a, b)


def dot_steps(out: NDArray[Any], room: Room, a: NDArray[Any], b: NDArray[Any]) -> Steps:
    """The steps of :func:`dot` into ``out``, of a dtype other than float16."""
    (m, k), n = a.shape, b.shape[1]
    if k == 1:  # matmul takes four times as long
        return [partial(np.multiply, a, b, out)]
    if m * k * n <= _TILE or out.dtype.kind != "f" or a.dtype != b.dtype:
        return [partial(np.matmul, a, b, out)]

    return [Blocked(lambda at: product(a[at[0]], b[:, at[1]], out[at], room), _parts(m, k, n), m * k * n)]


def matmul_steps(out: NDArray[Any], room: Room, x: NDArray[Any], y: NDArray[Any]) -> Steps:
    """The steps of ``x @ y`` of arrays with any axes, of a dtype other than float16."""
    return dot_steps(out, room, x, y) if x.ndim == y.ndim == 2 else [partial(np.matmul, x, y, out)]


def batch_innermost(x: NDArray[Any]) -> bool:
    """Return True if a matrix (N, features) has the batch as the last axis in memory."""
    return x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous


def rows(x: NDArray[Any]) -> NDArray[Any]:
    """An array (..., n) as a matrix: a view if the array is a matrix or contiguous."""
    return x if x.ndim == 2 else x.reshape(prod(x.shape[:-1]), x.shape[-1])  # -1 is ambiguous if n is 0


def fixed(x: NDArray[Any]) -> bool:
    """Return True if steps can use :func:`rows` of an array: it is not a copy, which later changes would not reach."""
    return x.dtype != np.float16 and (x.ndim == 2 or x.flags.c_contiguous)


def linear_steps(out: Any, room: Room, x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any] | None) -> Steps:
    """The steps of ``x @ weight.T + bias`` of matrices into ``out``, which has the memory layout of ``x``."""
    a, b, result, product = x, weight.T, out, out
    if batch_innermost(x):
        a, b, result, product = weight, x.T, out.T, out.T
    if bias is not None and bias.dtype != x.dtype:  # the bias may have a wider dtype
        product = room(result.shape, np.result_type(x, weight))
    steps = dot_steps(product, room, a, b)
    if bias is not None:
        steps.append(partial(np.add, product, bias if result is out else bias[:, None], result))
    return steps


@lru_cache(maxsize=1024)
def _parts(m: int, k: int, n: int) -> list[tuple[slice, slice]]:
    """Parts of a product for the threads. They do not depend on their number, nor do the bits of the result."""
    count = -(-min(8, m * k * n // threads.WORTH) // 2) * 2 or 1  # an even number, for two threads
    whole = slice(None)
    if n >= 2 * m:  # the longer the parts, the less BLAS copies; columns cost twice as much
        return [(whole, columns) for columns in cut(n, max(_FLAT, -(-n // count)))]
    return [(rows, whole) for rows in cut(m, max(_FLAT, -(-m // count)))]
