"""Where the windows of a convolution or a pooling lie: what both have in common."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .. import memory
from ..arguments import integer
from ..errors import ArgumentError, ShapeError, brief
from ..primitive import Array

Pair: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = int | str | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


class Windows(NamedTuple):
    """Windows over an image: window (i, j) looks at pixels ``(i * stride + a * dilation - before, ...)``, ``a`` in the
    kernel.
    """

    size: tuple[int, int]  # height and width of the image
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]  # padding above, and to the left
    padded: tuple[int, int]  # height and width with all padding
    full: tuple[int, int]  # the same without what ceil_mode adds beyond the padding
    grid: tuple[int, int]  # how many windows: height and width of the output

    @property
    def inside(self) -> tuple[slice, slice]:
        """The image within its padding."""
        return tuple(slice(b, b + n) for b, n in zip(self.before, self.size, strict=True))  # type: ignore[return-value]  # two of them

    @property
    def tiling(self) -> bool:
        """Whether the windows cover each pixel exactly once."""
        covered = tuple(n * k for n, k in zip(self.grid, self.kernel, strict=True))
        return self.stride == self.kernel and covered == self.padded == self.size  # so the dilation is 1

    @property
    def many(self) -> bool:
        """Whether they tile, and are so large that one reduction is faster than to look at each pixel in turn."""
        return self.kernel[0] * self.kernel[1] > 9 and self.tiling

    def at(self, a: int, b: int, rows: slice | None = None) -> tuple[slice, slice]:
        """The pixels (rows, columns of the padded image) that all windows, or some rows of them, see at kernel position
        (a, b).
        """
        (sh, sw), (dh, dw), (oh, ow) = self.stride, self.dilation, self.grid
        first, last = (0, oh - 1) if rows is None else (rows.start, rows.stop - 1)
        down = slice(a * dh + first * sh, a * dh + last * sh + 1, sh)
        return down, slice(b * dw, b * dw + (ow - 1) * sw + 1, sw)


def pair(value: Any, op: str, name: str, least: int = 1) -> tuple[int, int]:
    """Two integers from one or two."""
    if type(value) is int and value >= least:
        return value, value
    several = isinstance(value, (tuple, list)) or (hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1)
    try:
        a, b = (integer(op, name, v) for v in (value if several else (value, value)))
    except (TypeError, ValueError):
        raise ArgumentError(f"{op}: {name} must be an integer or a pair of integers, got {brief(value)}") from None
    if min(a, b) < least:
        raise ArgumentError(f"{op}: {name} must be at least {least}, got {brief(value)}")
    return a, b


def paddings(value: Any, op: str) -> Any:
    """Padding in its plain form: ``"valid"`` or ``"same"``, two integers, or two pairs of them."""
    if isinstance(value, str):
        if value in ("same", "valid"):
            return value
        raise ArgumentError(f"{op}: padding must be 'same', 'valid', a number or a pair of numbers, got {brief(value)}")
    if isinstance(value, (tuple, list)) and len(value) == 2 and any(isinstance(p, (tuple, list)) for p in value):
        return tuple(pair(p, op, "padding", least=0) for p in value)
    return pair(value, op, "padding", least=0)


def windows(
    op: str,
    size: tuple[int, ...],
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool = False,
) -> Windows:
    """The windows of ``kernel`` over an image of ``size``; ``op`` is who asks, for the messages.

    ``padding`` is a number, a pair (height, width), a pair of pairs ``((top, bottom), (left, right))``, ``"valid"``
    (none) or ``"same"``: as much as gives ``ceil(size / stride)`` windows, the odd pixel at the end (as TensorFlow and
    ONNX's SAME_UPPER; PyTorch has stride 1 only).
    """
    # Before the cache, for which 2.0 would be 2.
    pairs = pair(kernel, op, "kernel_size"), pair(stride, op, "stride"), pair(dilation, op, "dilation")
    return _windows(op, (size[0], size[1]), *pairs, paddings(padding, op), ceil_mode)


@functools.lru_cache(maxsize=1024)
def _windows(
    op: str,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    padding: Any,
    ceil_mode: bool,
) -> Windows:
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    if padding == "valid":
        padding = (0, 0)
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, stride, reach, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    elif isinstance(padding[0], tuple):
        pads = padding
    else:
        pads = tuple((p, p) for p in padding)
    grid, padded = [], []
    full = tuple(n + b + a for n, (b, a) in zip(size, pads, strict=True))
    for n, (before, _), whole, s, r in zip(size, pads, full, stride, reach, strict=True):
        if whole < r - (s - 1) * ceil_mode:
            raise ShapeError(
                f"{op}: a kernel that spans {r} pixels does not fit into {whole} (image {size}, kernel "
                f"{kernel}, dilation {dilation}, "
                f"padding {pads}); use a smaller kernel or more padding"
            )
        steps = max(0, (whole - r) // s)
        if (
            ceil_mode and whole > r and (whole - r) % s and (steps + 1) * s < n + before
        ):  # the last window must begin inside the image or before it
            steps += 1
        grid.append(steps + 1)
        padded.append(max(whole, steps * s + r))
    start = (pads[0][0], pads[1][0])
    return Windows(
        size, kernel, stride, dilation, start, (padded[0], padded[1]), (full[0], full[1]), (grid[0], grid[1])
    )


def cut(length: int, most: int) -> list[slice]:
    """Parts of an axis, none longer than ``most``, all about equally long."""
    count = -(-length // most)
    step = -(-length // count) if count else 1
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def check_images(op: str, x: Array) -> None:
    """Images have four axes: batch, channels, height, width."""
    if x.ndim != 4:
        raise ShapeError(
            f"{op}: expected images of shape (N, C, H, W), got shape {x.shape}; add axes with x.unsqueeze(0)"
        )


def aligned(x: Array, dtype: np.dtype[Any] | None = None) -> Array:
    """The array in row-major order, itself if it is so already."""
    dtype = x.dtype if dtype is None else dtype
    if x.flags.c_contiguous and x.dtype == dtype:
        return x
    out = memory.empty(x.shape, dtype)
    np.copyto(out, x)
    return out


def rows_first(x: Array, at: Windows, fill: float = 0.0) -> Array:
    """Images (N, C, H, W), padded, as memory (H, C, W, N).

    With the batch innermost a window is a few long contiguous runs, and the whole batch is one matrix product; with the
    rows outermost the rows that a window spans lie together. The results of convolution and pooling lie so too, under
    their shape (N, C, H, W), and elementwise ops keep it: only the first layer's images are ever rearranged.
    """
    moved = x.transpose(2, 1, 3, 0)
    if at.padded == at.size:
        return aligned(moved)
    h, c, w, n = moved.shape
    padded = memory.empty((at.padded[0], c, at.padded[1], n), x.dtype)
    (top, left), (rows, columns) = at.before, at.inside
    padded[:top] = padded[top + h :] = fill
    padded[rows, :, :left] = padded[rows, :, left + w :] = fill
    padded[rows, :, columns] = moved
    return padded
