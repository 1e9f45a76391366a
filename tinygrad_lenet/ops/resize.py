"""Images in another size: each new pixel is a weighted sum of a run of pixels, along rows and along columns."""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.primitive import Array, draw, primitive

# One term of each sum: which new pixels have it, the pixels that they see, and their weights, None if all are 1.
Places: TypeAlias = NDArray[np.int64] | slice
Steps: TypeAlias = list[tuple[Places, Places, NDArray[Any] | None]]


class Weights:
    """The weights with which ``n`` pixels of one axis contribute to ``m`` new ones."""

    __slots__ = ("back", "matrix", "steps")

    def __init__(self, matrix: NDArray[Any], steps: Steps, back: Steps) -> None:
        self.matrix = matrix  # (m, n)
        self.steps = steps  # the same sums, term by term
        self.back = back  # those of the transposed matrix, which the gradient needs

    def __repr__(self) -> str:
        return f"weights of {self.matrix.shape[1]} pixels for {self.matrix.shape[0]}"


def _transposed(weights: Weights) -> Weights:
    return Weights(weights.matrix.T, weights.back, weights.steps)


def _weights(n: int, m: int, new: NDArray[np.int64], old: NDArray[np.int64], factor: NDArray[Any]) -> Weights:
    """Pixel ``old[k]`` counts ``factor[k]`` times for the new pixel ``new[k]``."""
    matrix = np.zeros((m, n))
    np.add.at(matrix, (new, old), factor)
    return Weights(matrix, _terms(new, old, factor), _terms(old, new, factor))


def _terms(new: NDArray[np.int64], old: NDArray[np.int64], factor: NDArray[Any]) -> Steps:
    """The first terms of all sums, then the second ones, and so on."""
    order = np.argsort(new, kind="stable")
    rank = np.arange(len(new)) - np.searchsorted(new[order], new[order])
    by_rank = np.argsort(rank, kind="stable")
    cuts = np.flatnonzero(np.diff(rank[by_rank])) + 1
    steps: Steps = []
    for some in np.split(order[by_rank], cuts) if len(new) else ():
        weights = factor[some]
        steps.append((_places(new[some]), _places(old[some]), weights if (weights != 1).any() else None))
    return steps


def _places(at: NDArray[np.int64]) -> Places:
    """A slice, if they lie evenly: it is read and written several times as fast."""
    step = int(at[1] - at[0]) if len(at) > 1 else 1
    even = step > 0 and (np.diff(at) == step).all()
    return slice(int(at[0]), int(at[-1]) + 1, step) if even else at


@functools.lru_cache(maxsize=256)
def means(n: int, m: int) -> Weights:
    """Means of ``m`` windows that cover ``n`` pixels."""
    i, pixel = np.arange(m)[:, None], np.arange(n)
    seen = (pixel >= i * n // m) & (pixel < -((i + 1) * -n // m))
    new, old = seen.nonzero()
    return _weights(n, m, new, old, 1 / seen.sum(axis=1)[new])


@functools.lru_cache(maxsize=256)
def between(n: int, m: int, factor: float | None, corners: bool, dtype: type[np.floating[Any]]) -> Weights:
    """The two nearest pixels, weighted by distance, in PyTorch's arithmetic: a weight may be 0."""
    new, half = np.arange(m), dtype(0.5)
    if m == n:
        at = new.astype(dtype)
    elif corners:
        at = new.astype(dtype) * (dtype(n - 1) / dtype(m - 1) if m > 1 else dtype(0))
    else:
        at = np.maximum((new.astype(dtype) + half) * _step(n, m, factor, dtype) - half, 0)
    low = np.minimum(at.astype(np.int64), n - 1)
    high, right = np.minimum(low + 1, n - 1), np.minimum(at - low, 1)
    if m == n:
        high = low
    both = [np.concatenate(pair) for pair in ((new, new), (low, high), (1 - right, right))]
    return _weights(n, m, *both)


def _step(n: int, m: int, factor: float | None, dtype: type[np.floating[Any]]) -> Any:
    """How many pixels lie between two new ones."""
    return dtype(1 / factor) if factor else dtype(n) / dtype(m)


@functools.lru_cache(maxsize=256)
def nearest(n: int, m: int, factor: float | None, dtype: type[np.floating[Any]]) -> Weights:
    """The pixel ``floor(i * step)``, in PyTorch's arithmetic, which rounds some products up to an integer."""
    at = (np.arange(m, dtype=dtype) * _step(n, m, factor, dtype)).astype(np.float32)
    old = np.minimum(np.floor(at), n - 1).astype(np.int64)
    return _weights(n, m, np.arange(m), old, np.ones(m))


def _along(x: Array, weights: Weights, axis: int) -> Array:
    """The weighted sums along one axis of (N, C, H, W), term by term."""
    m, before = len(weights.matrix), (slice(None),) * axis
    out: Any = None
    for new, old, factor in weights.steps:
        part = x[(*before, old)] if isinstance(old, slice) else x.take(old, axis)
        if factor is not None:
            part = part * factor.astype(x.dtype).reshape((-1,) + (1,) * (3 - axis))
        if out is None and part.shape[axis] == m:
            out = part if part.base is None else np.array(part)
        elif out is None:
            out = np.zeros([m if i == axis else n for i, n in enumerate(x.shape)], x.dtype)
            out[(*before, new)] = part
        else:
            out[(*before, new)] += part
    return out


def _adds(weights: Weights) -> bool:
    """True if each new pixel is one pixel, or a plain sum of several."""
    return all(factor is None for _, _, factor in weights.steps)


@primitive
def resample(x: Array, rows: Any, columns: Any) -> Array:
    """Images (N, C, H, W) in another size, by :class:`Weights` of rows and of columns; float16 is added as float32.

    Two matrix products, unless they would make NaN of an infinite pixel and a weight of 0.
    """
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    if (_adds(rows) and _adds(columns)) or not np.isfinite(wide).all():
        with np.errstate(invalid="ignore"):  # a term of an infinite pixel and a weight of 0
            out = _along(_along(wide, rows, 2), columns, 3)
    else:
        out = rows.matrix.astype(wide.dtype) @ wide @ columns.matrix.T.astype(wide.dtype)
    return out.astype(x.dtype, copy=False)


resample.vjp(x=lambda g, rows, columns: resample(g, _transposed(rows), _transposed(columns)))
resample.check(draw(2, 1, 3, 4), means(3, 2), between(4, 2, None, True, np.float64))
resample.check(draw(1, 2, 2, 4), nearest(2, 6, 3.15, np.float32), nearest(4, 3, None, np.float32))
