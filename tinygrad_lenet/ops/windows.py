"""The options that convolution and pooling have in common."""

from __future__ import annotations

from typing import Any, TypeAlias

from ..checks import integer, paddings, pair
from ..core.primitive import Array
from ..core.tensor import Tensor, as_tensor
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


def images_of(x: Array) -> Tensor:
    """Sequences (N, C, L) as images (N, C, 1, L)."""
    found = as_tensor(x)
    if found.ndim != 3:
        raise ShapeError(f"expected sequences of shape (N, C, L), got {found.shape}; add axes: x.unsqueeze(0)")
    return found.unsqueeze(2)


def image_option(value: Any, first: int, name: str) -> Any:
    """What holds for sequences, for images of height 1; words such as "same" hold for both."""
    if isinstance(value, str):
        return value
    number = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    return (first, integer(name, number))
