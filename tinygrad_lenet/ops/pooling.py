"""Max and average pooling: for each position in the kernel one strided view of the images, and a running maximum or sum
over them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..core.primitive import Array, draw, primitive
from ..errors import ArgumentError
from ..kernels import memory
from ..kernels.masks import BITS
from ..kernels.sums import single
from ..kernels.threads import parallel
from ..kernels.windows import Windows, cut, rows_first
from .windows import Padding, Pair, check_images, windows

__all__ = ["avg_pool2d", "max_pool2d"]

_ROOM = 2_400_000  # bytes of images that are worked on at a time: with fewer, the calls cost more than the cache saves


def _geometry(
    op: str, x_shape: tuple[int, ...], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Windows:
    at = windows(x_shape[2:], kernel, kernel if stride is None else stride, padding, dilation, ceil_mode)
    if any(max(b, f - n - b) > k / 2 for b, f, n, k in zip(at.before, at.full, at.size, at.kernel, strict=True)):
        raise ArgumentError(
            f"{op}: padding {padding} must be at most half of the kernel {kernel}: a window must not be all padding"
        )
    return at


def _padded(x: Array, at: Windows, fill: float) -> Array:
    """The images (N, C, H, W) with padding; themselves if there is none."""
    return x if at.padded == at.size else rows_first(x, at, fill).transpose(3, 1, 0, 2)


def _views(x: Array, at: Windows, rows: slice | None = None) -> Iterator[Array]:
    """What all windows, or some rows of them, see at each position of the kernel, (N, C, OH, OW), row by row."""
    for a in range(at.kernel[0]):
        for b in range(at.kernel[1]):
            yield x[(..., *at.at(a, b, rows))]


def _tiles(x: Array, at: Windows) -> Array:
    """The windows of a tiling as axes of their own, (N, C, OH, kh, OW, kw): a view."""
    return x.reshape(*x.shape[:2], at.grid[0], at.kernel[0], at.grid[1], at.kernel[1])


def _by_rows(compute: Callable[[slice], object], at: Windows, images: Array) -> None:
    """Call ``compute`` for rows of windows: on all cores, and for few enough that their images stay in the cache."""
    count = at.grid[0]
    if images.nbytes <= _ROOM or at.dilation[0] * (at.kernel[0] - 1) >= at.stride[0]:
        compute(slice(0, count))  # few, or rows that share pixels
        return
    high = max(1, _ROOM * count // max(1, images.nbytes))

    def blocks(start: int, stop: int) -> None:
        for part in cut(stop - start, high):
            compute(slice(start + part.start, start + part.stop))

    parallel(blocks, count, 25 * images.size)  # many short calls, for which threads pay late


def _reduce(ufunc: np.ufunc, images: Array, at: Windows, dtype: np.dtype[Any]) -> Array:
    """The sum or the maximum of each window."""
    out = memory.empty_like(next(_views(images, at)), dtype)

    def compute(rows: slice) -> None:
        views = _views(images, at, rows)
        result = out[:, :, rows]
        np.copyto(result, next(views))
        for view in views:
            ufunc(result, view, out=result)

    if at.many:
        ufunc.reduce(_tiles(images, at), axis=(3, 5), dtype=dtype, out=out)
    else:
        _by_rows(compute, at, images)
    return out


def _blank(like: Array, at: Windows, dtype: np.dtype[Any]) -> Array:
    """Room for the padded images' gradient, laid out in memory as ``like`` is; not cleared if every pixel will be
    written.
    """
    order = sorted(range(4), key=lambda axis: -like.strides[axis])
    shape = (*like.shape[:2], *at.padded)
    room = memory.empty(tuple(shape[axis] for axis in order), dtype)
    if not at.tiling:
        room.fill(0)
    return room.transpose([order.index(axis) for axis in range(4)])


@primitive
def max_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """The largest value in each window, PyTorch's ``max_pool2d``. The whole gradient goes to the first maximum in
    row-major order.

    Args:
        x: images, (N, C, H, W).
        kernel_size: a number or (height, width).
        stride: from one window to the next; the kernel's size if None.
        padding: -inf around the image, at most half of the kernel.
        dilation: pixels from one element of the window to the next.
        ceil_mode: whether a window may hang over the end; else rows and columns that fill no window are ignored.

    Returns:
        (N, C, OH, OW) with ``OH = floor((H + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1``. A window with a
        NaN gives NaN, and no gradient: no pixel is the largest (PyTorch's goes to the last NaN).

    Raises:
        ArgumentError: padding larger than half of the kernel: a window would be all padding.

    >>> import tinygrad_lenet as tl
    >>> tl.max_pool2d(tl.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    check_images(x)
    at = _geometry("max_pool2d", x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return _reduce(np.maximum, _padded(x, at, _lowest(x.dtype)), at, x.dtype)


def _lowest(dtype: np.dtype[Any]) -> float:
    return -np.inf if dtype.kind == "f" else 0 if dtype.kind == "b" else int(np.iinfo(dtype).min)


@primitive
def _unpool(g: Array, x: Array, peak: Array, *window: Any) -> Array:
    """Each window's gradient to the pixel that won."""
    at = _geometry("max_pool2d", x.shape, *window)
    if g.dtype == np.float16 and not at.tiling:
        return _unpool.op.forward(single(g), single(x), single(peak), *window).astype(g.dtype)
    images = _padded(x, at, np.nan)
    grads = _blank(images, at, g.dtype)

    tiling, integer = at.tiling, BITS[g.dtype.itemsize]
    targets = grads.view(integer) if tiling else grads

    def compute(rows: slice) -> None:
        top, upstream = peak[:, :, rows], g[:, :, rows].view(integer)
        won, free, bits = np.empty_like(top, np.bool_), None, memory.empty_like(top, integer)
        ones = won.view(np.int8)
        for view, target in zip(_views(images, at, rows), _views(targets, at, rows), strict=True):
            np.equal(view, top, out=won)
            if free is None:
                free = np.logical_not(won)
            else:
                np.logical_and(won, free, out=won)
                np.logical_xor(won, free, out=free)
            np.copyto(bits, np.negative(ones, out=ones))  # all bits 1 where it won
            if tiling:
                np.bitwise_and(upstream, bits, out=target)
            else:
                np.bitwise_and(upstream, bits, out=bits)
                target += bits.view(g.dtype)

    _by_rows(compute, at, images)
    return grads[(..., *at.inside)]


@primitive
def _repool(g: Array, x: Array, peak: Array, *window: Any) -> Array:
    """From each window the element where ``x`` won."""
    at = _geometry("max_pool2d", x.shape, *window)
    free = np.ones_like(peak, np.bool_)
    picked = np.zeros_like(peak, g.dtype)
    for view, value in zip(_views(_padded(x, at, np.nan), at), _views(_padded(g, at, 0), at), strict=True):
        won = view == peak
        won &= free
        free ^= won
        np.copyto(picked, value, where=won)
    return picked


max_pool2d.vjp(
    x=lambda g, out, x, kernel_size, stride, padding, dilation, ceil_mode: _unpool(
        g, x, out, kernel_size, stride, padding, dilation, ceil_mode
    )
)
max_pool2d.check(draw(2, 2, 4, 6), 2)
max_pool2d.check(draw(2, 2, 7, 6), (3, 2), (2, 1), (1, 0))
max_pool2d.check(draw(1, 2, 6, 5), 2, 2, 0, 2, True)
# The winners do not depend on g, and move with x only by jumps.
_unpool.vjp(g=lambda g_, x, peak, window: _repool(g_, x, peak, *window), x=None, peak=None)
_repool.vjp(g=lambda g_, x, peak, window: _unpool(g_, x, peak, *window), x=None, peak=None)
_example = np.array([[[[3.0, 1.0, 2.0, 5.0], [0.0, 4.0, 7.0, 6.0]]]])
_unpool.check(draw(1, 1, 1, 2), _example, np.array([[[[4.0, 7.0]]]]), 2, None, 0, 1, False)
_repool.check(draw(1, 1, 2, 4), _example, np.array([[[[4.0, 7.0]]]]), 2, None, 0, 1, False)


def _weight(at: Windows, count_include_pad: bool, divisor_override: int | None, dtype: np.dtype[Any]) -> Any:
    """One over the number of pixels that each window counts: a number, or (OH, OW) where windows differ."""
    kh, kw = at.kernel
    if divisor_override is not None or at.padded == (at.full if count_include_pad else at.size):
        return 1 / (divisor_override or kh * kw)
    counts = []
    for i in (0, 1):
        first, last = (0, at.full[i]) if count_include_pad else (at.before[i], at.before[i] + at.size[i])
        starts = np.arange(at.grid[i]) * at.stride[i]
        counts.append(np.minimum(starts + at.kernel[i], last) - np.maximum(starts, first))
    return (1 / np.outer(*counts)).astype(dtype)


@primitive
def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """The mean of each window, PyTorch's ``avg_pool2d``.

    Args:
        x: images, (N, C, H, W).
        kernel_size: a number or (height, width).
        stride: from one window to the next; the kernel's size if None.
        padding: zeros around the image, at most half of the kernel.
        ceil_mode: whether a window may hang over the end; else rows and columns that fill no window are ignored.
        count_include_pad: whether padding counts as pixels.
        divisor_override: divide by this in place of the number of pixels.

    Returns:
        (N, C, OH, OW), sizes as for :func:`max_pool2d`.

    Raises:
        ArgumentError: padding larger than half of the kernel, or a ``divisor_override`` of 0.

    >>> import tinygrad_lenet as tl
    >>> tl.avg_pool2d(tl.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 2.5,  4.5],
              [10.5, 12.5]]]])
    """
    check_images(x)
    if divisor_override == 0:
        raise ArgumentError("avg_pool2d: divisor_override must not be 0, got 0")
    at = _geometry("avg_pool2d", x.shape, kernel_size, stride, padding, 1, ceil_mode)
    narrow = x.dtype.kind != "f" or x.dtype == np.float16  # which is added in float32
    out = _reduce(np.add, _padded(x, at, 0), at, np.dtype(np.float32) if narrow else x.dtype)
    np.multiply(out, _weight(at, count_include_pad, divisor_override, out.dtype), out=out)
    return out.astype(x.dtype) if x.dtype == np.float16 else out


@primitive
def _avg_unpool(g: Array, x_shape: tuple[int, ...], *window: Any) -> Array:
    """Each window's gradient, shared out equally."""
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override = window
    if g.dtype == np.float16:
        return _avg_unpool.op.forward(single(g), x_shape, *window).astype(g.dtype)
    at = _geometry("avg_pool2d", x_shape, kernel_size, stride, padding, 1, ceil_mode)
    weight = _weight(at, count_include_pad, divisor_override, g.dtype)
    grads = _blank(g, at, g.dtype)
    if at.many:
        np.copyto(_tiles(grads, at), (g * weight)[:, :, :, None, :, None])
        return grads

    def compute(rows: slice) -> None:
        share = g[:, :, rows] * (weight if isinstance(weight, float) else weight[rows])
        for target in _views(grads, at, rows):
            if at.tiling:
                np.copyto(target, share)
            else:
                np.add(target, share, out=target)

    _by_rows(compute, at, grads)
    return grads[(..., *at.inside)]


avg_pool2d.vjp(
    x=lambda g, x_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: _avg_unpool(
        g, x_shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )
)
avg_pool2d.check(draw(2, 2, 4, 6), 2)
avg_pool2d.check(draw(2, 2, 7, 6), (3, 2), (2, 1), (1, 0))
avg_pool2d.check(draw(1, 2, 6, 5), (2, 3), 2, (1, 1), True, False)
_avg_unpool.vjp(g=lambda g_, window: avg_pool2d(g_, *window))
_avg_unpool.check(draw(2, 2, 3, 2), (2, 2, 7, 4), (3, 2), 2, (0, 0), False, True, None)
