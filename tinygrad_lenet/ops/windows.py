"""The options that convolution and pooling have in common."""

from __future__ import annotations

from typing import Any, TypeAlias

from ..checks import paddings, pair
from ..errors import ShapeError
from ..kernels import windows as kernels
from ..kernels.windows import Windows

Pair: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def windows(
    size: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
) -> Windows:
    """The windows of ``kernel`` over an image of ``size``.

    ``padding`` is a number, a pair (height, width), a pair of pairs ``((top, bottom), (left, right))``, ``"valid"``
    (none) or ``"same"``: as much as gives ``ceil(size / stride)`` windows, the odd pixel at the end (as TensorFlow and
    ONNX's SAME_UPPER; PyTorch has stride 1 only).
    """
    # Before the cache, for which 2.0 would be 2.
    pairs = pair("kernel_size", kernel), pair("stride", stride), pair("dilation", dilation)
    return kernels.windows((size[0], size[1]), *pairs, paddings("padding", padding), ceil_mode)


def both(option: Any) -> Any:
    """The height and the width of an option that is one number for both, or a pair."""
    return option if isinstance(option, tuple) else (option, option)


def check_images(x: Any) -> None:
    """Raise unless images have four axes: batch, channels, height, width."""
    if x.ndim != 4:
        raise ShapeError(f"expected images of shape (N, C, H, W), got shape {x.shape}; add axes with x.unsqueeze(0)")
