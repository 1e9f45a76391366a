"""Sequences as images of height 1, and images in other sizes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import integer
from ..errors import ArgumentError, ShapeError
from ..ops.convolution import conv2d, conv_transpose2d
from ..ops.pooling import avg_pool2d, max_pool2d
from ..ops.products import matmul
from ..ops.rearrange import repeat
from ..ops.windows import Pair, pair
from ..primitive import Array, composite
from ..tensor import Tensor, as_tensor

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "conv1d",
    "conv_transpose1d",
    "interpolate",
    "max_pool1d",
]


def _images(x: Array, op: str) -> Tensor:
    """Sequences (N, C, L) as images (N, C, 1, L)."""
    found = as_tensor(x)
    if found.ndim != 3:
        raise ShapeError(f"{op}: expected sequences of shape (N, C, L), got {found.shape}; add axes: x.unsqueeze(0)")
    return found.unsqueeze(2)


def _kernels(weight: Array, op: str, channels: int, axis: int, groups: int) -> Tensor:
    """Kernels of three axes as kernels of height 1; ``axis`` is the one of the input's channels."""
    found = as_tensor(weight)
    shape = (f"O, {channels} / groups, k", f"{channels}, O / groups, k")[axis == 0]
    if found.ndim != 3 or found.shape[axis] * (groups if axis else 1) != channels:
        raise ShapeError(
            f"{op}: sequences with {channels} channels and groups={groups} need a weight of shape ({shape}), got "
            f"{found.shape}"
        )
    return found.unsqueeze(2)


def _flat(value: Any, first: int, op: str, name: str) -> Any:
    """What holds for sequences, for images of height 1; words such as "same" hold for both."""
    if isinstance(value, str):
        return value
    number = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    return (first, integer(op, name, number))


@composite
def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of sequences: :func:`conv2d` of images of height 1.

    Args:
        input: sequences, (N, C, L).
        weight: kernels, (O, C / groups, k).
        bias: (O,), or None.
        stride: steps from one window to the next.
        padding: zeros on both sides; or ``"valid"``, ``"same"``.
        dilation: steps from one element of the window to the next.
        groups: see :func:`conv2d`.

    Returns:
        (N, O, OL) with ``OL = floor((L + 2 * padding - dilation * (k - 1) - 1) / stride) + 1``.

    Raises:
        ArgumentError: an option is no integer.
        ShapeError: input, weight and bias do not fit together.

    >>> import tinygrad_lenet as tl
    >>> tl.conv1d(tl.tensor([[[1, 2, 3]]]), tl.tensor([[[1, 10]]]))
    tensor([[[21., 32.]]])
    """
    op = "conv1d"
    x = _images(input, op)
    out = conv2d(
        x,
        _kernels(weight, op, x.shape[1], 1, groups),
        bias,
        stride=_flat(stride, 1, op, "stride"),
        padding=_flat(padding, 0, op, "padding"),
        dilation=_flat(dilation, 1, op, "dilation"),
        groups=groups,
    )
    return out.squeeze(2)


@composite
def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Tensor:
    """Transposed convolution of sequences, (N, C, L) with kernels (C, O / groups, k); see :func:`conv_transpose2d`.

    Raises:
        ArgumentError: an option is no integer.
        ShapeError: input, weight and bias do not fit together.

    >>> import tinygrad_lenet as tl
    >>> tl.conv_transpose1d(tl.ones(1, 1, 2), tl.tensor([[[1, 2]]]), stride=2)
    tensor([[[1., 2., 1., 2.]]])
    """
    op = "conv_transpose1d"
    x = _images(input, op)
    out = conv_transpose2d(
        x,
        _kernels(weight, op, x.shape[1], 0, groups),
        bias,
        stride=_flat(stride, 1, op, "stride"),
        padding=_flat(padding, 0, op, "padding"),
        output_padding=_flat(output_padding, 0, op, "output_padding"),
        groups=groups,
        dilation=_flat(dilation, 1, op, "dilation"),
    )
    return out.squeeze(2)


@composite
def max_pool1d(
    input: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value in each window of sequences (N, C, L); see :func:`max_pool2d`.

    Raises:
        ArgumentError: an option is no integer.
        ShapeError: the input has not three axes.

    >>> import tinygrad_lenet as tl
    >>> tl.max_pool1d(tl.tensor([[[1, 3, 2, 0]]]), 2)
    tensor([[[3., 2.]]])
    """
    op = "max_pool1d"
    size, step, pad = _pooling(op, kernel_size, stride, padding)
    return max_pool2d(_images(input, op), size, step, pad, _flat(dilation, 1, op, "dilation"), ceil_mode).squeeze(2)


@composite
def avg_pool1d(
    input: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of sequences (N, C, L); see :func:`avg_pool2d`.

    Raises:
        ArgumentError: an option is no integer.
        ShapeError: the input has not three axes.

    >>> import tinygrad_lenet as tl
    >>> tl.avg_pool1d(tl.tensor([[[1, 3, 2, 0]]]), 2)
    tensor([[[2., 1.]]])
    """
    op = "avg_pool1d"
    size, step, pad = _pooling(op, kernel_size, stride, padding)
    return avg_pool2d(_images(input, op), size, step, pad, ceil_mode, count_include_pad).squeeze(2)


def _pooling(op: str, kernel_size: Any, stride: Any, padding: Any) -> list[Any]:
    stride = kernel_size if stride is None else stride
    return [_flat(kernel_size, 1, op, "kernel_size"), _flat(stride, 1, op, "stride"), _flat(padding, 0, op, "padding")]


def _resample(x: Tensor, rows: NDArray[Any], columns: NDArray[Any]) -> Tensor:
    """Images (..., H, W), each new pixel a weighted sum: rows (OH, H), columns (OW, W)."""
    return matmul(matmul(rows.astype(x.dtype), x), columns.T.astype(x.dtype))


@composite
def adaptive_avg_pool2d(input: Array, output_size: int | tuple[int | None, int | None] | None) -> Tensor:
    """Means of windows that cover an image evenly, so many that the output has a given size; PyTorch's.

    Args:
        input: images, (N, C, H, W) or (C, H, W).
        output_size: a number, or (height, width); None keeps a length. Window ``i`` of ``m`` on an axis of length ``n``
            goes from ``floor(i * n / m)`` to ``ceil((i + 1) * n / m)``.

    Raises:
        ShapeError: the input has not three or four axes.

    >>> import tinygrad_lenet as tl
    >>> tl.adaptive_avg_pool2d(tl.arange(12.0).reshape(1, 1, 3, 4), 2)
    tensor([[[[2.5, 4.5],
              [6.5, 8.5]]]])
    """
    x = _floats(input, "adaptive_avg_pool2d")
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    size = pair(
        [n if m is None else m for n, m in zip(x.shape[-2:], wanted, strict=False)],
        "adaptive_avg_pool2d",
        "output_size",
    )
    if x.ndim == 4 and not any(n % m for n, m in zip(x.shape[2:], size, strict=True)):
        return avg_pool2d(x, (x.shape[2] // size[0], x.shape[3] // size[1]))
    return _resample(x, *(_windows(n, m) for n, m in zip(x.shape[-2:], size, strict=True)))


def _floats(input: Array, op: str) -> Tensor:
    x = as_tensor(input)
    if x.ndim not in (3, 4):
        raise ShapeError(f"{op}: expected images of shape (N, C, H, W) or (C, H, W), got {x.shape}")
    return x if x.dtype.kind == "f" else x.astype(np.float32)


def _windows(n: int, m: int) -> NDArray[Any]:
    """Means of ``m`` windows that cover ``n`` pixels."""
    i, pixel = np.arange(m)[:, None], np.arange(n)
    inside: NDArray[Any] = (pixel >= i * n // m) & (pixel < -((i + 1) * -n // m))
    means: NDArray[Any] = inside / inside.sum(axis=1, keepdims=True)
    return means


@composite
def interpolate(
    input: Array,
    size: Pair | None = None,
    scale_factor: float | tuple[float, float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """Images in another size, PyTorch's ``interpolate``.

    Args:
        input: images, (N, C, H, W) or (C, H, W).
        size: the new height and width; or
        scale_factor: what to multiply them with, rounded down.
        mode: ``"nearest"``: pixel ``floor(i * n / m)`` for the new pixel ``i`` of ``m``; ``"bilinear"``: between the
            two nearest pixels on each axis.
        align_corners: for bilinear, whether the centres of the corner pixels stay where they are, and not the corners
            of the image.

    Raises:
        ArgumentError: another mode, or not one of ``size`` and ``scale_factor``.
        ShapeError: the input has not three or four axes.

    >>> import tinygrad_lenet as tl
    >>> tl.interpolate(tl.tensor([[[[0, 4]]]]), scale_factor=2, mode="bilinear")
    tensor([[[[0., 1., 3., 4.],
              [0., 1., 3., 4.]]]])
    """
    if mode not in ("nearest", "bilinear"):
        raise ArgumentError(f"interpolate: mode must be 'nearest' or 'bilinear', got {mode!r}")
    if mode == "nearest" and align_corners is not None:
        raise ArgumentError("interpolate: align_corners is an option of 'bilinear'")
    if (size is None) == (scale_factor is None):
        raise ArgumentError(f"interpolate: give size or scale_factor, one of them; got {size} and {scale_factor}")
    x = _floats(input, "interpolate")
    old = x.shape[-2:]
    if scale_factor is not None:
        factors = scale_factor if isinstance(scale_factor, (tuple, list)) else (scale_factor, scale_factor)
        new = pair([math.floor(n * f) for n, f in zip(old, factors, strict=True)], "interpolate", "scale_factor * size")
        steps = [1 / f for f in factors]
    else:
        new = pair(size, "interpolate", "size")
        steps = [n / m for n, m in zip(old, new, strict=True)]
    if mode == "bilinear":
        pull = bool(align_corners)
        return _resample(x, *(_between(n, m, step, pull) for n, m, step in zip(old, new, steps, strict=True)))
    if not any(m % n for n, m in zip(old, new, strict=True)):
        return repeat(repeat(x, new[0] // old[0], -2), new[1] // old[1], -1)
    rows, columns = (
        np.minimum(np.floor(np.arange(m) * step), n - 1).astype(int) for n, m, step in zip(old, new, steps, strict=True)
    )
    return x[..., rows[:, None], columns]


def _between(n: int, m: int, step: float, corners: bool) -> NDArray[Any]:
    """Weights of ``n`` pixels for ``m`` new ones, by distance from the two nearest."""
    i = np.arange(m)
    at = i * ((n - 1) / (m - 1) if m > 1 else 0.0) if corners else np.maximum((i + 0.5) * step - 0.5, 0)
    low = np.minimum(np.floor(at).astype(int), n - 1)
    high = np.minimum(low + 1, n - 1)
    weights = np.zeros((m, n))
    np.add.at(weights, (i, low), 1 - (at - low))
    np.add.at(weights, (i, high), at - low)
    return weights
