"""The positions of the windows of convolution and pooling, and the memory layout in which both are fast."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from .steps import Room, Steps

Pair: TypeAlias = tuple[int, int]

CACHED = 1 << 16  # bytes up to which one pass over all memory takes less time than several calls for parts of it


class Windows(NamedTuple):
    """The windows of a kernel over an image.

    Along the height, window i has the rows ``i * stride + a * dilation - before``, ``a`` in the kernel; likewise along
    the width.
    """

    size: Pair  # height and width of the image
    kernel: Pair
    stride: Pair
    dilation: Pair
    before: Pair  # padding above, and to the left
    padded: Pair  # height and width with padding and the pixels that ceil_mode adds
    full: Pair  # height and width with padding only
    grid: Pair  # the number of windows: height and width of the output

    @property
    def inside(self) -> tuple[slice, slice]:
        """The slices of the padded image that hold the image."""
        (top, left), (height, width) = self.before, self.size
        return slice(top, top + height), slice(left, left + width)

    @property
    def tiling(self) -> bool:
        """True if the windows cover each pixel exactly once."""
        covered = self.grid[0] * self.kernel[0], self.grid[1] * self.kernel[1]
        return self.stride == self.kernel and covered == self.padded == self.size  # so the dilation is 1

    @property
    def many(self) -> bool:
        """True if the windows tile, and are so large that one reduction is faster than one call for each position."""
        return self.kernel[0] * self.kernel[1] > 9 and self.tiling

    def pixels(self, a: int, b: int, rows: slice | None = None) -> tuple[slice, slice]:
        """The pixels at kernel position (a, b) of all windows, or of some rows of them: slices of the padded image."""
        (sh, sw), (dh, dw), (oh, ow) = self.stride, self.dilation, self.grid
        first, last = (0, oh - 1) if rows is None else (rows.start, rows.stop - 1)
        down = slice(a * dh + first * sh, a * dh + last * sh + 1, sh)
        return down, slice(b * dw, b * dw + (ow - 1) * sw + 1, sw)


@lru_cache(maxsize=1024)
def windows(size: Pair, kernel: Pair, stride: Pair, dilation: Pair, padding: Any, ceil_mode: bool) -> Windows:
    """The windows of a kernel over images; for ``padding`` see ``ops.windows.windows``."""
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    pads: Any = padding
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, stride, reach, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in total)
    elif padding == "valid":
        pads = ((0, 0), (0, 0))
    elif not isinstance(padding[0], tuple):
        pads = tuple((p, p) for p in padding)
    full: Any = tuple(n + before + after for n, (before, after) in zip(size, pads, strict=True))
    grid: list[Any] = []
    padded: list[Any] = []
    for n, (before, _), whole, s, r in zip(size, pads, full, stride, reach, strict=True):
        last = whole - r + (s - 1) * ceil_mode  # where the last window may begin
        if last < 0:
            raise ShapeError(
                f"a kernel that spans {r} pixels does not fit into {whole} (image {size}, kernel {kernel}, dilation "
                f"{dilation}, padding {pads}); use a smaller kernel or more padding"
            )
        steps = last // s
        if ceil_mode and 0 < n + before <= steps * s:  # it must begin inside the image or before it
            steps -= 1
        grid.append(steps + 1)
        padded.append(max(whole, steps * s + r))
    return Windows(size, kernel, stride, dilation, (pads[0][0], pads[1][0]), tuple(padded), full, tuple(grid))


def cut(length: int, most: int) -> list[slice]:
    """Cut an axis into parts of about equal length, none longer than ``most``."""
    count = -(-length // most)
    step = -(-length // count) if count else 1
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def aligned(x: NDArray[Any], dtype: np.dtype[Any], room: Room, steps: Steps) -> NDArray[Any]:
    """The array itself if it is contiguous and of the dtype, else a copy that an appended step makes."""
    if x.flags.c_contiguous and x.dtype == dtype:
        return x
    out = room(x.shape, dtype)
    steps.append(partial(np.copyto, out, x))
    return out


def padded(
    x: NDArray[Any], at: Windows, dtype: np.dtype[Any], room: Room, steps: Steps, fill: float = 0.0
) -> NDArray[Any]:
    """Images (N, C, H, W), padded, as memory (H, C, W, N), which appended steps write.

    With the batch innermost, a window is a few long contiguous runs, and the whole batch takes one matrix product. With
    the rows outermost, the rows of a window are adjacent. Convolution and pooling return their results in this layout,
    as a transposed view (N, C, H, W), and elementwise ops keep it: so only the images of the first layer are copied.
    """
    moved = x.transpose(2, 1, 3, 0)
    if at.padded == at.size:
        return aligned(moved, dtype, room, steps)
    h, c, w, n = moved.shape
    out = room((at.padded[0], c, at.padded[1], n), dtype)
    (top, left), (rows, columns) = at.before, at.inside
    borders = [out]
    if out.nbytes > CACHED:
        borders = [out[:top], out[top + h :], out[rows, :, :left], out[rows, :, left + w :]]
    for border in borders:
        steps.append(partial(border.fill, fill))
    steps.append(partial(np.copyto, out[rows, :, columns], moved))
    return out
