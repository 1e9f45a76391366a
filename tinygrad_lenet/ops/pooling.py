"""Max and average pooling: the definitions, the ops and their gradients. The fast code is in ``kernels/pooling.py``.

``window_views`` makes an array for the images, and returns their windows as a view. The definitions at the top reduce
these windows. They are public as ``tinygrad_lenet.reference``, and the ops are tested against them.

Max pooling picks one pixel from each window. Its gradient, :func:`_unpool`, adds each window's gradient to the picked
pixel. The gradient of that, :func:`_repool`, picks from the same places. Average pooling is linear: its gradient,
:func:`_avg_unpool`, divides each window's gradient among its pixels, and the gradient of that is average pooling again.
The public functions check their options once and turn them into ``at``: a :class:`Windows` or, with the divisor, an
:class:`Averages`. The graph saves it for the gradients.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor
from ..errors import ArgumentError
from ..kernels import pooling as fast
from ..kernels.pooling import Averages
from ..kernels.windows import Windows
from .windows import Padding, Pair, as_images, cached, row_images, window_views, windows

# The definitions


def max_pool2d_definition(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    """The largest pixel in each window of images (N, C, H, W): (N, C, OH, OW). The padding is -inf.

    Window (i, j) has the pixels ``(i * sh + a * dh - top, j * sw + b * dw - left)``, with (a, b) in the kernel.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    stride = kernel_size if stride is None else stride
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    images, _, windows = window_views(x.shape, x.dtype, kernel_size, stride, padding, dilation, ceil_mode, lowest)
    images[...] = x
    return windows.max((4, 5))


def avg_pool2d_definition(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The mean of each window of images (N, C, H, W): (N, C, OH, OW). The padding is 0.

    Each sum is divided by the number of pixels, with or without padding, or by ``divisor_override``.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    stride = kernel_size if stride is None else stride
    images, padded, windows = window_views(x.shape, x.dtype, kernel_size, stride, padding, 1, ceil_mode)
    (padded if count_include_pad else images)[...] = 1  # each window's sum of ones is its number of pixels
    count = windows.sum((4, 5))
    padded[...] = 0
    images[...] = x
    total = sum(windows[..., a, b] for a, b in np.ndindex(windows.shape[4:]))
    return total / (divisor_override or count)


# Max pooling


@primitive
def _max_pool2d(x: Array, at: Windows) -> Array:
    """:func:`max_pool2d` with its options checked."""
    return fast.max_pool2d(x, at)


@primitive
def _max_places(x: Array, peak: Array, at: Windows) -> Array:
    """The index in its plane (H, W) of each window's first largest pixel, or of its last NaN."""
    x, peak = x.astype(np.float64), peak.astype(np.float64)  # the padding of integers cannot be NaN
    places = np.broadcast_to(np.arange(float(math.prod(at.size))).reshape(at.size), x.shape)
    first = fast.repool(places, x, peak, at)
    nan = fast.max_pool2d(np.where(x == x, -1, places), at)
    return np.where(nan < 0, first, nan).astype(np.int64)


@primitive
def _unpool(g: Array, x: Array, peak: Array, at: Windows) -> Array:
    """Add each window's element of ``g`` to its largest pixel; ``peak`` is the output of max pooling of ``x``."""
    return fast.unpool(g, x, peak, at)


@primitive
def _repool(g: Array, x: Array, peak: Array, at: Windows) -> Array:
    """Pick the element of ``g`` from each window at the place where ``x`` is largest."""
    return fast.repool(g, x, peak, at)


_max_places.vjp(x=None, peak=None)
_max_pool2d.vjp(x=lambda g, out, x, at: _unpool(g, x, out, at))
# The picked places do not depend on g, and as functions of x they are constant almost everywhere. These two ops have an
# argument named g, so in their rules the gradient of the output is g_.
_unpool.vjp(g=lambda g_, x, peak, at: _repool(g_, x, peak, at), x=None, peak=None)
_repool.vjp(g=lambda g_, x, peak, at: _unpool(g_, x, peak, at), x=None, peak=None)
_max_pool2d.op.name = "max_pool2d"  # the name for messages, drawings and graphs
# windows(size, kernel, stride, padding, dilation, ceil_mode)
_max_pool2d.check(draw(2, 2, 4, 6), windows((4, 6), 2, 2, 0, 1))
_max_pool2d.check(draw(2, 2, 7, 6), windows((7, 6), (3, 2), (2, 1), (1, 0), 1))
_max_pool2d.check(draw(1, 2, 6, 5), windows((6, 5), 2, 2, 0, 2, True))
_IMAGE, _PEAK = np.array([[[[3.0, 1.0, 2.0, 5.0], [0.0, 4.0, 7.0, 6.0]]]]), np.array([[[[4.0, 7.0]]]])
_max_pool2d.planned(fast.max_steps, rows=(0,))
_unpool.planned(fast.unpool_steps, rows=(0, 1, 2))
_repool.planned(fast.repool_steps)
_max_places.check(draw(1, 1, 2, 4), _PEAK, windows((2, 4), 2, 2, 0, 1))
_unpool.check(draw(1, 1, 1, 2), _IMAGE, _PEAK, windows((2, 4), 2, 2, 0, 1))
_repool.check(draw(1, 1, 2, 4), _IMAGE, _PEAK, windows((2, 4), 2, 2, 0, 1))


@cached
def _pool_windows(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Windows:
    """The windows of a pooling op. Raise if one of them could consist of padding only."""
    at = windows(size, kernel, kernel if stride is None else stride, padding, dilation, ceil_mode)
    axes = zip(at.before, at.full, at.size, at.kernel, strict=True)
    if at.full != at.size and any(max(b, f - n - b) > k / 2 for b, f, n, k in axes):
        raise ArgumentError(f"padding {padding} must be at most half of the kernel {kernel}: a window needs a pixel")
    return at


@composite(method=True, torch="nn.functional.max_pool2d")
def max_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest value in each window, PyTorch's ``max_pool2d``. The whole gradient goes to the first maximum in
    row-major order. Definition: :func:`tinygrad_lenet.reference.max_pool2d`.

    Args:
        x: images, (N, C, H, W), or one, (C, H, W).
        kernel_size: a number or (height, width).
        stride: pixels from one window to the next; the kernel's size if None.
        padding: -inf around the image, at most half of the kernel.
        dilation: pixels from one element of the window to the next.
        ceil_mode: whether windows may extend beyond the end. If not, rows and columns that fill no window are ignored.
        return_indices: whether to return the indices of the largest pixels too.

    Returns:
        (N, C, OH, OW), or (C, OH, OW) of one image, with
        ``OH = floor((H + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1``. A window with a NaN gives NaN, and its
        gradient is lost, since no pixel is the largest (in PyTorch it goes to the last NaN). With ``return_indices``, a
        pair: this tensor, and int64 of its shape, ``row * W + column`` of the first largest pixel or of the last NaN.

    Raises:
        ArgumentError: the padding is larger than half of the kernel, so that a window could consist of padding only.

    >>> import tinygrad_lenet as tl
    >>> tl.max_pool2d(tl.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    x, one = as_images(x)
    at = _pool_windows(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    out = _max_pool2d(x, at)
    several = [out, _max_places(x, out, at)] if return_indices else [out]
    found: Any = [t.squeeze(0) for t in several] if one else several
    return tuple(found) if return_indices else found[0]  # type: ignore[return-value]  # a pair, if asked for


# Average pooling


@primitive
def _avg_pool2d(x: Array, at: Averages) -> Array:
    """:func:`avg_pool2d` with its options checked."""
    return fast.avg_pool2d(x, at)


@primitive
def _avg_unpool(g: Array, at: Averages) -> Array:
    """Divide each window's element of ``g`` equally among its pixels."""
    return fast.avg_unpool(g, at)


_avg_pool2d.vjp(x=lambda g, at: _avg_unpool(g, at))
_avg_unpool.vjp(g=lambda g_, at: _avg_pool2d(g_, at))
_avg_pool2d.op.name = "avg_pool2d"
_avg_pool2d.check(draw(2, 2, 4, 6), Averages(windows((4, 6), 2, 2, 0, 1), True, None))
_avg_pool2d.check(draw(2, 2, 7, 6), Averages(windows((7, 6), (3, 2), (2, 1), (1, 0), 1), True, None))
_avg_pool2d.check(draw(1, 2, 6, 5), Averages(windows((6, 5), (2, 3), 2, (1, 1), 1, True), False, None))
_avg_pool2d.planned(fast.mean_steps, rows=(0,))
_avg_unpool.planned(fast.share_steps, rows=(0,))
_avg_unpool.check(draw(2, 2, 3, 2), Averages(windows((7, 4), (3, 2), 2, 0, 1), True, None))


@composite(method=True, torch="nn.functional.avg_pool2d")
def avg_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window, PyTorch's ``avg_pool2d``. Definition: :func:`tinygrad_lenet.reference.avg_pool2d`.

    Args:
        x: images, (N, C, H, W), or one, (C, H, W).
        kernel_size: a number or (height, width).
        stride: pixels from one window to the next; the kernel's size if None.
        padding: zeros around the image, at most half of the kernel.
        ceil_mode: whether windows may extend beyond the end. If not, rows and columns that fill no window are ignored.
        count_include_pad: whether the padding counts as pixels.
        divisor_override: the number to divide by, in place of the number of pixels.

    Returns:
        (N, C, OH, OW), or (C, OH, OW) of one image, sizes as for :func:`max_pool2d`.

    Raises:
        ArgumentError: the padding is larger than half of the kernel, or ``divisor_override`` is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.avg_pool2d(tl.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 2.5,  4.5],
              [10.5, 12.5]]]])
    """
    x, one = as_images(x)
    if divisor_override == 0:
        raise ArgumentError("divisor_override must not be 0, got 0")
    at = _pool_windows(x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    out = _avg_pool2d(x, Averages(at, count_include_pad, divisor_override))
    return out.squeeze(0) if one else out


# Sequences, as images of height 1


@composite(torch="nn.functional.max_pool1d")
def max_pool1d(
    input: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest value in each window of sequences (N, C, L), or of one, (C, L), PyTorch's ``max_pool1d``; see
    :func:`max_pool2d`. With ``return_indices``, a pair: the values, and their indices along the sequence.

    Raises:
        ArgumentError: an option is out of its range.
        ShapeError: the input does not have two or three axes.

    >>> import tinygrad_lenet as tl
    >>> tl.max_pool1d(tl.tensor([[[1, 3, 2, 0]]]), 2)
    tensor([[[3., 2.]]])
    """
    step = kernel_size if stride is None else stride
    options = (1, kernel_size), (1, step), (0, padding), (1, dilation), ceil_mode, return_indices
    found: Any = max_pool2d(row_images(input), *options)
    return tuple(t.squeeze(-2) for t in found) if return_indices else found.squeeze(-2)  # type: ignore[return-value]


@composite(torch="nn.functional.avg_pool1d")
def avg_pool1d(
    input: Array,
    kernel_size: int,
    stride: int | None = None,
    padding: int = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window of sequences (N, C, L), or of one, (C, L), PyTorch's ``avg_pool1d``; see
    :func:`avg_pool2d`.

    Raises:
        ArgumentError: an option is out of its range.
        ShapeError: the input does not have two or three axes.

    >>> import tinygrad_lenet as tl
    >>> tl.avg_pool1d(tl.tensor([[[1, 3, 2, 0]]]), 2)
    tensor([[[2., 1.]]])
    """
    step = kernel_size if stride is None else stride
    out = avg_pool2d(row_images(input), (1, kernel_size), (1, step), (0, padding), ceil_mode, count_include_pad)
    return out.squeeze(-2)
