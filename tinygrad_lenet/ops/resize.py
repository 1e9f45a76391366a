"""Images in another size: each new pixel is a weighted sum of a few old ones, along the rows and along the columns.

:class:`Weights` are the weights of one axis: ``means`` for adaptive pooling, ``nearest`` and ``bilinear`` for
interpolation. The op ``resample`` applies those of the rows and of the columns; its gradient applies the transposed
ones. The public functions at the end choose the weights.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..checks import number, pair
from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..errors import ArgumentError, ShapeError, brief
from .pooling import avg_pool2d
from .rearrange import repeat
from .windows import Pair

Index: TypeAlias = NDArray[np.int64] | slice
# One term of each sum: which new pixels have it, the old pixels, and their weights, or None if all are 1.
Terms: TypeAlias = list[tuple[Index, Index, NDArray[Any] | None]]
Floating: TypeAlias = type[np.floating[Any]]
Mode: TypeAlias = Literal["nearest", "bilinear"]

# The weights


class Weights:
    """The weights with which ``n`` pixels of an axis contribute to ``m`` new ones."""

    __slots__ = ("back", "matrix", "terms")

    def __init__(self, matrix: NDArray[Any], terms: Terms, back: Terms) -> None:
        self.matrix = matrix  # (m, n)
        self.terms = terms  # the same sums, term by term
        self.back = back  # the sums of the transposed matrix, for the gradient

    def __repr__(self) -> str:
        return f"weights of {self.matrix.shape[1]} pixels for {self.matrix.shape[0]}"

    @functools.lru_cache(maxsize=256)  # noqa: B019  # of cached weights: a replay compares the options of ops
    def transposed(self) -> Weights:
        """The weights with which the gradients of the ``m`` new pixels contribute to those of the ``n`` old ones."""
        return Weights(self.matrix.T, self.back, self.terms)


def _weights(n: int, m: int, new: NDArray[np.int64], old: NDArray[np.int64], factor: NDArray[Any]) -> Weights:
    """Weights that add ``factor[k]`` times the pixel ``old[k]`` to the pixel ``new[k]``."""
    matrix = np.zeros((m, n))
    np.add.at(matrix, (new, old), factor)
    return Weights(matrix, _terms(new, old, factor), _terms(old, new, factor))


def _terms(new: NDArray[np.int64], old: NDArray[np.int64], factor: NDArray[Any]) -> Terms:
    """The first terms of all sums, then the second terms, and so on."""
    order = np.argsort(new, kind="stable")
    new, old, factor = new[order], old[order], factor[order]
    rank = np.arange(len(new)) - np.searchsorted(new, new)  # 0 for the first term of a sum
    terms: Terms = []
    for of_rank in np.split(np.argsort(rank, kind="stable"), np.cumsum(np.bincount(rank))[:-1]):
        weights = factor[of_rank]
        terms.append((_index(new[of_rank]), _index(old[of_rank]), weights if (weights != 1).any() else None))
    return terms


def _index(at: NDArray[np.int64]) -> Index:
    """A slice if the pixels are evenly spaced: it is read and written several times as fast."""
    step = int(at[1] - at[0]) if len(at) > 1 else 1
    even = step > 0 and (np.diff(at) == step).all()
    return slice(int(at[0]), int(at[-1]) + 1, step) if even else at


@functools.lru_cache(maxsize=256)
def means(n: int, m: int) -> Weights:
    """The means of ``m`` windows that cover ``n`` pixels."""
    i, pixel = np.arange(m)[:, None], np.arange(n)
    seen = (pixel >= i * n // m) & (pixel < -((i + 1) * -n // m))
    new, old = seen.nonzero()
    return _weights(n, m, new, old, 1 / seen.sum(axis=1)[new])


@functools.lru_cache(maxsize=256)
def nearest(n: int, m: int, scale: float | None, dtype: Floating) -> Weights:
    """The pixel ``floor(i * spacing)``, in PyTorch's arithmetic, which rounds some products up to an integer."""
    at = (np.arange(m, dtype=dtype) * _spacing(n, m, scale, dtype)).astype(np.float32)
    old = np.minimum(np.floor(at), n - 1).astype(np.int64)
    return _weights(n, m, np.arange(m), old, np.ones(m))


@functools.lru_cache(maxsize=256)
def bilinear(n: int, m: int, scale: float | None, corners: bool, dtype: Floating) -> Weights:
    """The two nearest pixels, weighted by distance, in PyTorch's arithmetic: a weight may be 0."""
    new, half = np.arange(m), dtype(0.5)
    if m == n:
        at = new.astype(dtype)
    elif corners:
        at = new.astype(dtype) * (dtype(n - 1) / dtype(m - 1) if m > 1 else dtype(0))
    else:
        at = np.maximum((new.astype(dtype) + half) * _spacing(n, m, scale, dtype) - half, 0)
    left = np.minimum(at.astype(np.int64), n - 1)
    right = left if m == n else np.minimum(left + 1, n - 1)
    share = np.minimum(at - left, 1)  # of the pixel on the right
    old, factor = np.concatenate((left, right)), np.concatenate((1 - share, share))
    return _weights(n, m, np.concatenate((new, new)), old, factor)


def _spacing(n: int, m: int, scale: float | None, dtype: Floating) -> Any:
    """The distance between two new pixels, in old ones."""
    return dtype(1 / scale) if scale else dtype(n) / dtype(m)


# The op


def _weighted_sums(x: Array, weights: Weights, axis: int) -> Array:
    """The weighted sums along one axis of (N, C, H, W), term by term."""
    m, before = len(weights.matrix), (slice(None),) * axis
    out: Any = None
    for new, old, factor in weights.terms:
        term = x[(*before, old)] if isinstance(old, slice) else x.take(old, axis)
        if factor is not None:
            term = term * factor.astype(x.dtype).reshape((-1,) + (1,) * (3 - axis))
        if out is not None:
            out[(*before, new)] += term
        elif term.shape[axis] == m:
            out = term if term.base is None else np.array(term)
        else:
            out = np.zeros((*x.shape[:axis], m, *x.shape[axis + 1 :]), x.dtype)
            out[(*before, new)] = term
    return out


@primitive
def resample(x: Array, rows: Any, columns: Any) -> Array:
    """Images (N, C, H, W) in another size, by :class:`Weights` of rows and of columns; float16 is added in float32.

    This takes two matrix products, but sums term by term where all weights are 1, or where a weight of 0 in a matrix
    would turn an infinite pixel into NaN.
    """
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    plain = all(factor is None for _, _, factor in (*rows.terms, *columns.terms))
    if plain or not np.isfinite(wide).all():
        with np.errstate(invalid="ignore"):  # an infinite pixel with a weight of 0
            out = _weighted_sums(_weighted_sums(wide, rows, 2), columns, 3)
    else:
        out = rows.matrix.astype(wide.dtype) @ wide @ columns.matrix.T.astype(wide.dtype)
    return out.astype(x.dtype, copy=False)


resample.vjp(x=lambda g, rows, columns: resample(g, rows.transposed(), columns.transposed()))
resample.check(draw(2, 1, 3, 4), means(3, 2), bilinear(4, 2, None, True, np.float64))
resample.check(draw(1, 2, 2, 4), nearest(2, 6, 3.15, np.float32), nearest(4, 3, None, np.float32))


# The functions


def _images(input: Array) -> Tensor:
    """Floats of shape (N, C, H, W) or (C, H, W)."""
    x = as_tensor(input)
    if x.ndim not in (3, 4):
        raise ShapeError(f"expected images of shape (N, C, H, W) or (C, H, W), got {x.shape}")
    if 0 in x.shape[-2:]:
        raise ShapeError(f"images must have pixels, got shape {x.shape}")
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _resample(x: Tensor, rows: Weights, columns: Weights) -> Tensor:
    """:func:`resample` for images (N, C, H, W) or (C, H, W)."""
    return resample(x, rows, columns) if x.ndim == 4 else resample(x.unsqueeze(0), rows, columns).squeeze(0)


@composite(torch="nn.functional.adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: Array, output_size: int | tuple[int | None, int | None] | None) -> Tensor:
    """The means of windows that cover an image evenly, for an output of a given size; PyTorch's
    ``adaptive_avg_pool2d``.

    Args:
        input: images, (N, C, H, W) or (C, H, W).
        output_size: a number, or (height, width); None keeps a length. Window ``i`` of ``m`` on an axis of length ``n``
            goes from ``floor(i * n / m)`` to ``ceil((i + 1) * n / m)``.

    Raises:
        ShapeError: the input does not have three or four axes, or has no pixels.

    >>> import tinygrad_lenet as tl
    >>> tl.adaptive_avg_pool2d(tl.arange(12.0).reshape(1, 1, 3, 4), 2)
    tensor([[[[2.5, 4.5],
              [6.5, 8.5]]]])
    """
    x = _images(input)
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    size = pair("output_size", [n if m is None else m for n, m in zip(x.shape[-2:], wanted, strict=False)])
    if x.ndim == 4 and not any(n % m for n, m in zip(x.shape[2:], size, strict=True)):
        return avg_pool2d(x, (x.shape[2] // size[0], x.shape[3] // size[1]))
    return _resample(x, *(means(n, m) for n, m in zip(x.shape[-2:], size, strict=True)))


@composite(torch="nn.functional.interpolate")
def interpolate(
    input: Array,
    size: Pair | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: Mode = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Images in another size, PyTorch's ``interpolate``.

    Args:
        input: images, (N, C, H, W) or (C, H, W).
        size: the new height and width.
        scale_factor: in place of ``size``, the factor of both or of each; the new size is rounded down.
        mode: ``"nearest"``: the new pixel ``i`` is the pixel ``floor(i * step)``, where ``step`` is ``n / m`` for ``n``
            pixels and ``m`` new ones, or ``1 / scale_factor``, in float32. ``"bilinear"``: it lies between the two
            nearest pixels on each axis. As in PyTorch, an infinite pixel with a weight of 0 gives NaN, and for
            ``"nearest"`` a ``scale_factor`` that keeps or doubles a length counts as 1 or 2 if the new height and width
            add up to at most 128.
        align_corners: for ``"bilinear"``, whether the centres of the corner pixels keep their places, in place of the
            corners of the image.

    Raises:
        ArgumentError: an unknown mode, or both or neither of ``size`` and ``scale_factor``.
        ShapeError: the input does not have three or four axes, or has no pixels.

    >>> import tinygrad_lenet as tl
    >>> tl.interpolate(tl.tensor([[[[0, 4]]]]), scale_factor=2, mode="bilinear")
    tensor([[[[0., 1., 3., 4.],
              [0., 1., 3., 4.]]]])
    """
    if mode == "nearest" and align_corners is not None:
        raise ArgumentError("align_corners is an option of 'bilinear'")
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"give size or scale_factor, one of them; got {brief(size)} and {brief(scale_factor)}")
    x = _images(input)
    old: Any = x.shape[-2:]
    new: Any = size
    scales: Any = (None, None)
    if scale_factor is not None:
        scales = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        scales = [number("scale_factor", scale) for scale in scales]
        if len(scales) != 2:
            raise ArgumentError(f"scale_factor must be a number or a pair of numbers, got {brief(scale_factor)}")
        new = [math.floor(n * f) for n, f in zip(old, scales, strict=True)]
    new = pair("size" if scale_factor is None else "scale_factor * size", new)
    axes = [*zip(old, new, scales, strict=True)]
    double = x.dtype == np.float64
    if mode == "bilinear":
        dtype = np.float64 if double else np.float32
        return _resample(x, *(bilinear(n, m, f, bool(align_corners), dtype) for n, m, f in axes))
    small = sum(new) <= 128  # where PyTorch calls another kernel, with its own arithmetic
    dtype = np.float64 if double and not small else np.float32
    weights = [nearest(n, m, None if small and m in (n, 2 * n) else f, dtype) for n, m, f in axes]
    if all(m % n == 0 and len(w.back) == m // n for (n, m, _), w in zip(axes, weights, strict=True)):
        return repeat(repeat(x, new[0] // old[0], -2), new[1] // old[1], -1)
    return _resample(x, *weights)
