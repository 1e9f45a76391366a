"""Images in another size: each new pixel is a weighted sum of a run of pixels, along rows and along columns."""

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

# One term of each sum: which new pixels have it, the pixels that they see, and their weights, None if all are 1.
Places: TypeAlias = NDArray[np.int64] | slice
Steps: TypeAlias = list[tuple[Places, Places, NDArray[Any] | None]]
Mode: TypeAlias = Literal["nearest", "bilinear"]


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


# The functions


def _resample(x: Tensor, rows: Weights, columns: Weights) -> Tensor:
    """Images (N, C, H, W) or (C, H, W) in another size."""
    return resample(x, rows, columns) if x.ndim == 4 else resample(x.unsqueeze(0), rows, columns).squeeze(0)


@composite
def adaptive_avg_pool2d(input: Array, output_size: int | tuple[int | None, int | None] | None) -> Tensor:
    """Means of windows that cover an image evenly, so many that the output has a given size; PyTorch's.

    Args:
        input: images, (N, C, H, W) or (C, H, W).
        output_size: a number, or (height, width); None keeps a length. Window ``i`` of ``m`` on an axis of length ``n``
            goes from ``floor(i * n / m)`` to ``ceil((i + 1) * n / m)``.

    Raises:
        ShapeError: the input has not three or four axes, or no pixels.

    >>> import tinygrad_lenet as tl
    >>> tl.adaptive_avg_pool2d(tl.arange(12.0).reshape(1, 1, 3, 4), 2)
    tensor([[[[2.5, 4.5],
              [6.5, 8.5]]]])
    """
    x = _floats(input)
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    size = pair("output_size", [n if m is None else m for n, m in zip(x.shape[-2:], wanted, strict=False)])
    if x.ndim == 4 and not any(n % m for n, m in zip(x.shape[2:], size, strict=True)):
        return avg_pool2d(x, (x.shape[2] // size[0], x.shape[3] // size[1]))
    return _resample(x, *(means(n, m) for n, m in zip(x.shape[-2:], size, strict=True)))


adaptive_avg_pool2d.known_as(torch="nn.functional.adaptive_avg_pool2d")


def _floats(input: Array) -> Tensor:
    x = as_tensor(input)
    if x.ndim not in (3, 4):
        raise ShapeError(f"expected images of shape (N, C, H, W) or (C, H, W), got {x.shape}")
    if 0 in x.shape[-2:]:
        raise ShapeError(f"images must have pixels, got shape {x.shape}")
    return x if x.dtype.kind == "f" else x.astype(np.float32)


@composite
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
        size: the new height and width; or
        scale_factor: what to multiply them with, rounded down.
        mode: ``"nearest"``: pixel ``floor(i * step)`` for the new pixel ``i``, where ``step`` is ``n / m`` for ``n``
            pixels and ``m`` new ones, or ``1 / scale_factor``, in float32; ``"bilinear"``: between the two nearest
            pixels on each axis. As in PyTorch, an infinite pixel with a weight of 0 gives NaN, and a nearest
            ``scale_factor`` that leaves or doubles the size counts as 1 or 2 if the new height and width add up to at
            most 128.
        align_corners: for bilinear, whether the centres of the corner pixels stay where they are, and not the corners
            of the image.

    Raises:
        ArgumentError: another mode, or not one of ``size`` and ``scale_factor``.
        ShapeError: the input has not three or four axes, or no pixels.

    >>> import tinygrad_lenet as tl
    >>> tl.interpolate(tl.tensor([[[[0, 4]]]]), scale_factor=2, mode="bilinear")
    tensor([[[[0., 1., 3., 4.],
              [0., 1., 3., 4.]]]])
    """
    if mode == "nearest" and align_corners is not None:
        raise ArgumentError("align_corners is an option of 'bilinear'")
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"give size or scale_factor, one of them; got {brief(size)} and {brief(scale_factor)}")
    x = _floats(input)
    old = x.shape[-2:]
    factors: Any = (None, None)
    if scale_factor is not None:
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        factors = [number("scale_factor", f) for f in factors]
        if len(factors) != 2:
            raise ArgumentError(f"scale_factor must be a number or a pair of numbers, got {brief(scale_factor)}")
        new = pair("scale_factor * size", [math.floor(n * f) for n, f in zip(old, factors, strict=True)])
    else:
        new = pair("size", size)
    double = x.dtype == np.float64
    axes = [*zip(old, new, factors, strict=True)]
    if mode == "bilinear":
        dtype = np.float64 if double else np.float32
        return _resample(x, *(between(n, m, f, bool(align_corners), dtype) for n, m, f in axes))
    small = sum(new) <= 128  # where PyTorch calls another kernel, with its own arithmetic
    dtype = np.float64 if double and not small else np.float32
    weights = [nearest(n, m, None if small and m in (n, 2 * n) else f, dtype) for n, m, f in axes]
    if all(m % n == 0 and len(w.back) == m // n for (n, m, _), w in zip(axes, weights, strict=True)):
        return repeat(repeat(x, new[0] // old[0], -2), new[1] // old[1], -1)
    return _resample(x, *weights)


interpolate.known_as(torch="nn.functional.interpolate")
