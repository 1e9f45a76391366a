"""Windows of images, which convolution, pooling and im2col have in common: their options and their definition."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..checks import paddings, pair
from ..core.primitive import Array
from ..core.tensor import Tensor, as_tensor
from ..errors import ShapeError
from ..kernels import windows as kernels
from ..kernels.windows import Windows

Pair: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]
_PLAIN = {int, bool, str, type(None)}


def cached(geometry: Callable[..., Any]) -> Callable[..., Any]:
    """A function of shapes and options, with a cache for plain options: among tuples, a cache takes 2.0 for 2."""
    known = lru_cache(maxsize=1024, typed=True)(geometry)

    def call(shapes: Any, *options: Any) -> Any:
        return (known if _PLAIN.issuperset(map(type, options)) else geometry)(shapes, *options)

    return call


def both(option: Any) -> Any:
    """Return an option as a pair (height, width); a number counts for both."""
    return option if isinstance(option, tuple) else (option, option)


def _along_axis(n: int, kernel: int, stride: int, padding: Any, dilation: int, ceil_mode: bool) -> Any:
    """For one axis, return the slice of the image, the slice with its padding, the length, and a window's reach."""
    reach = dilation * (kernel - 1) + 1
    if padding == "same":  # ceil(n / stride) windows, an odd pixel of padding at the end
        total = max((-(-n // stride) - 1) * stride + reach - n, 0)
        padding = (total // 2, total - total // 2)
    before, after = both(0 if padding == "valid" else padding)
    full = before + n + after
    last = full - reach  # where the last window may begin
    if ceil_mode:  # a window may extend beyond the padding, if it begins in the image or before it
        last = max(last, min(last + stride - 1, before + n - 1))
    return slice(before, before + n), slice(full), max(full, last // stride * stride + reach), reach


def window_views(
    shape: Any, dtype: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any = False, fill: Any = 0
) -> tuple[Any, Any, Any]:
    """Three views of one new array: the images (N, C, H, W), the images with padding, and all windows
    (N, C, OH, OW, kh, kw).

    The array is filled with ``fill``. A pixel that is written in one view changes in the others.
    """
    options = zip(shape[2:], *map(both, (kernel, stride, padding, dilation)), strict=True)
    axes = [_along_axis(n, k, s, p, d, ceil_mode) for n, k, s, p, d in options]
    inside, padded, lengths, reaches = zip(*axes, strict=True)
    array = np.full((*shape[:2], *lengths), fill, dtype)
    (sh, sw), (dh, dw) = both(stride), both(dilation)
    windows = sliding_window_view(array, reaches, axis=(2, 3), writeable=True)[:, :, ::sh, ::sw, ::dh, ::dw]
    return array[:, :, *inside], array[:, :, *padded], windows


def windows(
    size: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
) -> Windows:
    """The windows of ``kernel`` over an image of ``size``.

    ``padding`` is a number, a pair (height, width), a pair of pairs ``((top, bottom), (left, right))``, ``"valid"``
    (none), or ``"same"``: enough for ``ceil(size / stride)`` windows, with an odd pixel at the end (as in ONNX's
    SAME_UPPER; PyTorch allows stride 1 only).
    """
    # The checks come before the cache, which takes 2.0 for 2.
    pairs = pair("kernel_size", kernel), pair("stride", stride), pair("dilation", dilation)
    return kernels.windows((size[0], size[1]), *pairs, paddings("padding", padding), ceil_mode)


def as_images(images: Array) -> tuple[Tensor, bool]:
    """Images (N, C, H, W) as a tensor, and whether they are one image, given as (C, H, W)."""
    x = as_tensor(images)
    if x.ndim not in (3, 4):
        raise ShapeError(f"expected images of shape (N, C, H, W), or one (C, H, W), got shape {x.shape}")
    return (x.unsqueeze(0), True) if x.ndim == 3 else (x, False)


def row_images(sequences: Array) -> Tensor:
    """Sequences (N, C, L) or (C, L) as images of height 1, (N, C, 1, L) or (C, 1, L)."""
    x = as_tensor(sequences)
    if x.ndim not in (2, 3):
        raise ShapeError(f"expected sequences of shape (N, C, L), or one (C, L), got shape {x.shape}")
    return x.unsqueeze(-2)
