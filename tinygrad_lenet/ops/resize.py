"""Images in another size: each new pixel is a weighted sum of a run of pixels, along rows and along columns."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..primitive import Array, draw, primitive

# One term of each sum: which new pixels have it, the pixels that they see, and their weights.
Steps: TypeAlias = list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]]


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """What ``n`` pixels of one axis contribute to ``m`` new ones."""

    matrix: NDArray[Any]  # (m, n)
    steps: Steps  # the same sums, term by term
    back: Steps  # those of the transposed matrix, which the gradient needs

    def __repr__(self) -> str:
        return f"weights of {self.matrix.shape[1]} pixels for {self.matrix.shape[0]}"


def _transposed(weights: Weights) -> Weights:
    return Weights(weights.matrix.T, weights.back, weights.steps)


def _terms(seen: NDArray[np.bool_], matrix: NDArray[Any]) -> Steps:
    """The terms of sums over runs of neighbours."""
    count, first = seen.sum(axis=1), seen.argmax(axis=1)
    new = [np.flatnonzero(count > k) for k in range(int(count.max(initial=0)))]
    return [(i, first[i] + k, matrix[i, first[i] + k]) for k, i in enumerate(new)]


def _of_runs(seen: NDArray[np.bool_], matrix: NDArray[Any]) -> Weights:
    return Weights(matrix, _terms(seen, matrix), _terms(seen.T, matrix.T))


@functools.lru_cache(maxsize=256)
def means(n: int, m: int) -> Weights:
    """Means of ``m`` windows that cover ``n`` pixels."""
    i, pixel = np.arange(m)[:, None], np.arange(n)
    seen = (pixel >= i * n // m) & (pixel < -((i + 1) * -n // m))
    return _of_runs(seen, seen / seen.sum(axis=1, keepdims=True))


@functools.lru_cache(maxsize=256)
def between(n: int, m: int, factor: float | None, corners: bool, dtype: type[np.floating[Any]]) -> Weights:
    """The two nearest pixels, weighted by distance, in PyTorch's arithmetic; for the same size the pixel itself."""
    if m == n:
        return _of_runs(np.eye(n, dtype=np.bool_), np.eye(n))
    new, half = np.arange(m), dtype(0.5)
    if corners:
        at = new.astype(dtype) * (dtype(n - 1) / dtype(m - 1) if m > 1 else dtype(0))
    else:
        at = np.maximum((new.astype(dtype) + half) * _step(n, m, factor, dtype) - half, 0)
    low = np.minimum(at.astype(np.int64), n - 1)
    high, right = np.minimum(low + 1, n - 1), np.minimum(at - low, 1)
    seen, matrix = np.zeros((m, n), np.bool_), np.zeros((m, n))
    seen[new, low] = seen[new, high] = True
    matrix[new, low] = 1 - right
    matrix[new, high] += right
    return Weights(matrix, [(new, low, 1 - right), (new, high, right)], _terms(seen.T, matrix.T))


def _step(n: int, m: int, factor: float | None, dtype: type[np.floating[Any]]) -> Any:
    """How many pixels lie between two new ones."""
    return dtype(1 / factor) if factor else dtype(n) / dtype(m)


@functools.lru_cache(maxsize=256)
def nearest(n: int, m: int, factor: float | None, dtype: type[np.floating[Any]]) -> Weights:
    """The pixel ``floor(i * step)``, in PyTorch's arithmetic, which rounds some products up to an integer."""
    at = (np.arange(m, dtype=dtype) * _step(n, m, factor, dtype)).astype(np.float32)
    old = np.minimum(np.floor(at), n - 1).astype(np.int64)
    seen = old[:, None] == np.arange(n)
    return _of_runs(seen, seen * 1.0)


def _along(x: Array, weights: Weights, axis: int) -> Array:
    """The weighted sums along one axis of (N, C, H, W), term by term."""
    m = len(weights.matrix)
    out = np.zeros([m if i == axis else n for i, n in enumerate(x.shape)], x.dtype)
    for new, old, factor in weights.steps:
        part = x.take(old, axis)
        if (factor != 1).any():
            part *= factor.astype(x.dtype).reshape((-1,) + (1,) * (3 - axis))
        some: Any = (slice(None),) * axis + (slice(None) if len(new) == m else new,)
        out[some] += part
    return out


@primitive
def resample(x: Array, rows: Any, columns: Any) -> Array:
    """Images (N, C, H, W) in another size, by :class:`Weights` of rows and of columns; float16 is added as float32.

    Two matrix products, if they make no NaN of an infinite pixel and a weight of 0.
    """
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    sparse = len(rows.steps) == len(columns.steps) == 1
    if sparse or not np.isfinite(wide).all():
        with np.errstate(invalid="ignore"):  # a term of an infinite pixel and a weight of 0
            out = _along(_along(wide, rows, 2), columns, 3)
    else:
        out = rows.matrix.astype(wide.dtype) @ wide @ columns.matrix.T.astype(wide.dtype)
    return out.astype(x.dtype, copy=False)


resample.vjp(x=lambda g, rows, columns: resample(g, _transposed(rows), _transposed(columns)))
resample.check(draw(2, 1, 3, 4), means(3, 2), means(4, 3))
resample.check(draw(1, 2, 3, 4), between(3, 5, None, False, np.float64), between(4, 2, None, True, np.float64))
resample.check(draw(1, 2, 2, 4), nearest(2, 6, 3.15, np.float32), nearest(4, 3, None, np.float32))
