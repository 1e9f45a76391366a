"""Checks of the options that convolution and pooling have in common."""

from __future__ import annotations

from typing import Any, TypeAlias

from ..checks import integer
from ..errors import ArgumentError, ShapeError, brief
from ..kernels import windows as kernels
from ..kernels.windows import Windows

Pair: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def pair(value: Any, name: str, least: int = 1) -> tuple[int, int]:
    """Two integers from one or two."""
    if type(value) is int and value >= least:
        return value, value
    if type(value) is tuple and [*map(type, value)] == [int, int] and min(value) >= least:
        return value
    several = isinstance(value, (tuple, list)) or (hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1)
    try:
        a, b = (integer(name, v) for v in (value if several else (value, value)))
    except (TypeError, ValueError):
        raise ArgumentError(f"{name} must be an integer or a pair of integers, got {brief(value)}") from None
    if min(a, b) < least:
        raise ArgumentError(f"{name} must be at least {least}, got {brief(value)}")
    return a, b


def paddings(value: Any) -> Any:
    """Padding in its plain form: ``"valid"`` or ``"same"``, two integers, or two pairs of them."""
    if isinstance(value, str):
        if value in ("same", "valid"):
            return value
        raise ArgumentError(f"padding must be 'same', 'valid', a number or a pair of numbers, got {brief(value)}")
    if isinstance(value, (tuple, list)) and len(value) == 2 and any(isinstance(p, (tuple, list)) for p in value):
        return tuple(pair(p, "padding", least=0) for p in value)
    return pair(value, "padding", least=0)


def windows(
    size: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool = False
) -> Windows:
    """The windows of ``kernel`` over an image of ``size``.

    ``padding`` is a number, a pair (height, width), a pair of pairs ``((top, bottom), (left, right))``, ``"valid"``
    (none) or ``"same"``: as much as gives ``ceil(size / stride)`` windows, the odd pixel at the end (as TensorFlow and
    ONNX's SAME_UPPER; PyTorch has stride 1 only).
    """
    # Before the cache, for which 2.0 would be 2.
    pairs = pair(kernel, "kernel_size"), pair(stride, "stride"), pair(dilation, "dilation")
    return kernels.windows((size[0], size[1]), *pairs, paddings(padding), ceil_mode)


def check_images(x: Any) -> None:
    """Raise unless images have four axes: batch, channels, height, width."""
    if x.ndim != 4:
        raise ShapeError(f"expected images of shape (N, C, H, W), got shape {x.shape}; add axes with x.unsqueeze(0)")
