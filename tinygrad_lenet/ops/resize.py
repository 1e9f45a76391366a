"""Images in another size, made of ops along the rows and along the columns: means of windows for adaptive pooling; for
interpolation, old pixels at places that repeat, and weighted means of two of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..checks import made, number, pair
from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..errors import ArgumentError, ShapeError, brief
from ..kernels.sums import single
from .pooling import avg_pool2d, max_pool2d
from .reduction import mean
from .shape import along, concatenate
from .windows import Pair

Places: TypeAlias = tuple[int, ...]
Floating: TypeAlias = type[np.floating[Any]]
Mode: TypeAlias = Literal["nearest", "bilinear"]


@primitive
def _take(x: Array, places: Places, axis: int) -> Array:
    """The elements at places along an axis."""
    return x[along(axis, list(places))]


@primitive
def _give(g: Array, places: Places, axis: int, shape: tuple[int, ...]) -> Array:
    """Zeros of a shape to which ``g`` is added at places along an axis."""
    out = np.zeros(shape, g.dtype)
    for i, place in enumerate(places):
        out[along(axis, place)] += g[along(axis, i)]
    return out


_take.vjp(x=lambda g, x_shape, places, axis: _give(g, places, axis, x_shape))
_take.check(draw(2, 3), (0, 0, 2), 1)
_take.known_as(onnx=lambda g, t, x, places, axis: g.node("Gather", x, np.array(places), axis=axis))
_give.vjp(g=lambda g_, places, axis: _take(g_, places, axis))
_give.check(draw(2, 3), (0, 0, 2), 1, (2, 4))


def _nearest(n: int, m: int, scale: float | None, dtype: Floating) -> Places:
    """The pixels ``floor(i * spacing)``, in PyTorch's arithmetic, which rounds some products up to an integer."""
    at = (np.arange(m, dtype=dtype) * _spacing(n, m, scale, dtype)).astype(np.float32)
    return tuple(np.minimum(np.floor(at), n - 1).astype(int).tolist())


def _linear(x: Tensor, axis: int, m: int, scale: float | None, corners: bool, dtype: Floating) -> Tensor:
    """Means of the two nearest pixels, weighted by distance, in PyTorch's arithmetic: a weight may be 0."""
    n, at = x.shape[axis], np.arange(m, dtype=dtype)
    if corners and m != n:
        at = at * (dtype(n - 1) / dtype(m - 1) if m > 1 else dtype(0))
    elif m != n:
        at = np.maximum((at + dtype(0.5)) * _spacing(n, m, scale, dtype) - dtype(0.5), 0)
    left = np.minimum(at.astype(np.int64), n - 1)
    return between(x, axis, left, left if m == n else np.minimum(left + 1, n - 1), np.minimum(at - left, 1))


def between(x: Tensor, axis: int, left: NDArray[Any], right: NDArray[Any], share: NDArray[Any]) -> Tensor:
    """Means of two pixels along an axis; ``share`` is the weight of the one on the right."""
    share = share.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
    return _take(x, tuple(left.tolist()), axis) * (1 - share) + _take(x, tuple(right.tolist()), axis) * share


def _spacing(n: int, m: int, scale: float | None, dtype: Floating) -> Any:
    """The distance between two new pixels, in old ones."""
    return dtype(1 / scale) if scale else dtype(n) / dtype(m)


def _images(input: Array) -> Tensor:
    """Floats of shape (N, C, H, W) or (C, H, W)."""
    x = as_tensor(input)
    if x.ndim not in (3, 4):
        raise ShapeError(f"expected images of shape (N, C, H, W) or (C, H, W), got {x.shape}")
    if 0 in x.shape[-2:]:
        raise ShapeError(f"images must have pixels, got shape {x.shape}")
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _adaptive(input: Any, output_size: Any, pool: Callable[..., Tensor], reduce: Callable[..., Tensor]) -> Tensor:
    """Pool to a given size: by ``pool`` if the windows are of equal size, else by ``reduce`` along one axis after the
    other. The last axis is first, so that the first of equal maxima in row-major order is found.
    """
    x = _images(input)
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    size = pair("output_size", [n if m is None else m for n, m in zip(x.shape[-2:], wanted, strict=False)])
    if x.ndim == 4 and not any(n % m for n, m in zip(x.shape[2:], size, strict=True)):
        return pool(x, (x.shape[2] // size[0], x.shape[3] // size[1]))
    made((*x.shape[:-2], *size), np.empty, "output_size")  # raises if it does not fit, before a long loop
    wide: Tensor = single(x)  # float16 is added in float32
    for axis, m in zip((x.ndim - 1, x.ndim - 2), size[::-1], strict=True):
        n = x.shape[axis]
        windows = [slice(i * n // m, -((i + 1) * -n // m)) for i in range(m)]
        wide = concatenate([reduce(wide[along(axis, window)], axis) for window in windows], axis)
    return wide if wide.dtype == x.dtype else wide.astype(x.dtype)


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
    return _adaptive(input, output_size, avg_pool2d, lambda x, axis: mean(x, axis, keepdims=True))


@composite(torch="nn.functional.adaptive_max_pool2d")
def adaptive_max_pool2d(input: Array, output_size: int | tuple[int | None, int | None] | None) -> Tensor:
    """The maxima of windows that cover an image evenly, for an output of a given size; PyTorch's
    ``adaptive_max_pool2d``. The whole gradient goes to the first maximum in row-major order.

    Args:
        input: images, (N, C, H, W) or (C, H, W).
        output_size: as that of :func:`adaptive_avg_pool2d`.

    Raises:
        ShapeError: the input does not have three or four axes, or has no pixels.

    >>> import tinygrad_lenet as tl
    >>> tl.adaptive_max_pool2d(tl.arange(12.0).reshape(1, 1, 3, 4), 2)
    tensor([[[[ 5.,  7.],
              [ 9., 11.]]]])
    """
    x = as_tensor(input)
    if x.ndim == 3:
        return adaptive_max_pool2d(x.unsqueeze(0), output_size).squeeze(0)

    def largest(x: Tensor, axis: int) -> Tensor:
        return max_pool2d(x, (x.shape[2], 1) if axis == 2 else (1, x.shape[3]))

    return _adaptive(x, output_size, max_pool2d, largest)


@composite(torch="nn.functional.interpolate")
def interpolate(
    input: Array,
    size: Pair | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: Mode = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Images in another size, PyTorch's ``interpolate``. There, three axes are sequences (N, C, L): ``x[:, :, None]``.

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
    double = x.dtype == np.float64
    small = sum(new) <= 128  # where PyTorch calls another kernel for "nearest", with its own arithmetic
    wide: Tensor = single(x)  # float16 is added in float32
    for axis, m, scale in zip((x.ndim - 2, x.ndim - 1), new, scales, strict=True):
        n = x.shape[axis]
        if mode == "bilinear":
            wide = _linear(wide, axis, m, scale, bool(align_corners), np.float64 if double else np.float32)
        else:
            scale = None if small and m in (n, 2 * n) else scale
            wide = _take(wide, _nearest(n, m, scale, np.float64 if double and not small else np.float32), axis)
    return wide if wide.dtype == x.dtype else wide.astype(x.dtype)
