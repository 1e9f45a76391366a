"""Images in another size: adaptive pooling and interpolation.

Each new pixel is a weighted sum of old ones, along the rows and along the columns: two matrix products. The matrix of
an axis, (new length, old length), holds the weights: ``means`` for adaptive pooling, ``bilinear`` for interpolation.
"""

from __future__ import annotations

import functools
import math
from typing import Any, Literal, TypeAlias

import numpy as np

from ..checks import number, pair
from ..core.primitive import Array, composite
from ..core.tensor import Tensor, as_tensor
from ..errors import ArgumentError, ShapeError, brief
from ..kernels.sums import single
from .pooling import avg_pool2d
from .products import matmul
from .rearrange import repeat
from .shape import along
from .windows import Pair

Mode: TypeAlias = Literal["nearest", "bilinear"]


@functools.lru_cache(maxsize=256)
def means(n: int, m: int) -> Any:
    """The weights of ``n`` pixels in the means of ``m`` windows that cover them."""
    i, pixel = np.arange(m)[:, None], np.arange(n)
    seen = (pixel >= i * n // m) & (pixel < -((i + 1) * -n // m))
    return np.divide(seen, seen.sum(axis=1, keepdims=True))


@functools.lru_cache(maxsize=256)
def bilinear(n: int, m: int, scale: float | None, corners: bool) -> Any:
    """The weights of ``n`` pixels in ``m`` new ones: 1 at the place of an old pixel, and less by the distance to it."""
    if corners:
        at = np.arange(m) * ((n - 1) / max(m - 1, 1))
    else:
        at = (np.arange(m) + 0.5) * (1 / scale if scale else n / m) - 0.5
    distance = np.abs(np.clip(at, 0, n - 1)[:, None] - np.arange(n))
    return np.maximum(1 - distance, 0)


def _nearest(x: Tensor, axis: int, m: int, scale: float | None) -> Tensor:
    """The pixels ``floor(i * step)`` along an axis, for ``m`` new pixels ``i``."""
    n = x.shape[axis]
    step = np.float32(1 / scale if scale else n / m)
    old = np.minimum(np.arange(m, dtype=np.float32) * step, n - 1).astype(np.int64)
    if m % n == 0 and (old == np.arange(m) // (m // n)).all():  # faster
        return repeat(x, m // n, axis)
    return x[along(axis, old)]


def _images(input: Array) -> Tensor:
    """Floats of shape (N, C, H, W) or (C, H, W)."""
    x = as_tensor(input)
    if x.ndim not in (3, 4) or 0 in x.shape[-2:]:
        raise ShapeError(f"expected images with pixels, of shape (N, C, H, W) or (C, H, W), got {x.shape}")
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _resample(x: Tensor, rows: Any, columns: Any) -> Tensor:
    """Weighted sums along the last two axes; float16 is added in float32."""
    wide = single(x)
    out = matmul(matmul(rows.astype(wide.dtype), wide), columns.T.astype(wide.dtype))
    return out.astype(x.dtype) if out.dtype != x.dtype else out


@composite(torch="nn.functional.adaptive_avg_pool2d")
def adaptive_avg_pool2d(input: Array, output_size: int | tuple[int | None, int | None] | None) -> Tensor:
    """The means of windows that cover an image evenly, for an output of a given size; PyTorch's
    ``adaptive_avg_pool2d``. Where the windows differ in size, a pixel that is not finite makes its row and its column
    NaN.

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
            pixels and ``m`` new ones, or ``1 / scale_factor``, in float32. ``"bilinear"``: the new pixel is
            interpolated between the two nearest pixels on each axis. A pixel that is not finite makes its row and its
            column NaN.
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
    scales: Any = (None, None)
    if scale_factor is not None:
        scales = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        scales = [number("scale_factor", scale) for scale in scales]
        if len(scales) != 2:
            raise ArgumentError(f"scale_factor must be a number or a pair of numbers, got {brief(scale_factor)}")
        size = pair("scale_factor * size", [math.floor(n * f) for n, f in zip(x.shape[-2:], scales, strict=True)])
    height, width = pair("size", size)
    if mode == "nearest":
        return _nearest(_nearest(x, x.ndim - 2, height, scales[0]), x.ndim - 1, width, scales[1])
    corners = bool(align_corners)
    rows = bilinear(x.shape[-2], height, scales[0], corners)
    return _resample(x, rows, bilinear(x.shape[-1], width, scales[1], corners))
