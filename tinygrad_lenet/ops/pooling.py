"""Max and average pooling: the definitions, the ops and their gradients. The fast code is in ``kernels/pooling.py``.

The definitions at the top loop over the windows. They are public as ``tinygrad_lenet.reference``, and the ops are
tested against them.

Max pooling picks one pixel from each window. Its gradient, :func:`_unpool`, adds each window's gradient to the picked
pixel. The gradient of that, :func:`_repool`, picks from the same places. Average pooling is linear: its gradient,
:func:`_avg_unpool`, divides each window's gradient among its pixels, and the gradient of that is average pooling again.
The public functions settle their options once, as ``at``: a :class:`Windows`, or an :class:`Averages` with the divisor
too. The graph saves it for the gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..errors import ArgumentError
from ..kernels import pooling as fast
from ..kernels.pooling import Averages
from ..kernels.windows import Windows
from .windows import Padding, Pair, both, check_images, image_option, images_of, windows

# The definitions


def _along(length: int, kernel: int, stride: int, padding: Any, dilation: int, ceil_mode: bool) -> list[Any]:
    """For each window along an axis of an image: the indices of its pixels, and their number including padding."""
    reach = dilation * (kernel - 1) + 1
    if padding == "same":  # ceil(length / stride) windows, an odd pixel of padding at the end
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        padding = (total // 2, total - total // 2)
    before, after = both(0 if padding == "valid" else padding)
    last = length + after - reach  # the last index at which a window may begin
    if ceil_mode:  # a window may extend beyond the end, if it begins in the image
        last = max(last, min(last + stride - 1, length - 1))
    seen = [range(s, min(s + reach, length + after), dilation) for s in range(-before, last + 1, stride)]
    return [([pixel for pixel in pixels if 0 <= pixel < length], len(pixels)) for pixels in seen]


def _rows_and_columns(size: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """:func:`_along` for both axes: the rows of the pixels of each window, and the columns."""
    stride = kernel_size if stride is None else stride
    axes = zip(size, *map(both, (kernel_size, stride, padding, dilation)), strict=True)
    return [_along(n, k, s, p, d, ceil_mode) for n, k, s, p, d in axes]


def max_pool2d_definition(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> Any:
    """The largest pixel in each window of images (N, C, H, W): (N, C, OH, OW). Padding is -inf.

    Window (i, j) has the pixels ``(i * sh + a * dh - top, j * sw + b * dw - left)``, ``a`` and ``b`` in the kernel.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """
    rows, columns = _rows_and_columns(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    out = np.full((*x.shape[:2], len(rows), len(columns)), lowest, x.dtype)
    for i, (ys, _) in enumerate(rows):
        for j, (xs, _) in enumerate(columns):
            for row in ys:
                for column in xs:
                    out[:, :, i, j] = np.maximum(out[:, :, i, j], x[:, :, row, column])
    return out


def avg_pool2d_definition(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The mean of each window of images (N, C, H, W): (N, C, OH, OW). Padding is 0.

    Each sum is divided by the number of pixels, with or without padding, or by ``divisor_override``.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """
    rows, columns = _rows_and_columns(x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    out = np.zeros((*x.shape[:2], len(rows), len(columns)), x.dtype)
    for i, (ys, height) in enumerate(rows):
        for j, (xs, width) in enumerate(columns):
            for row in ys:
                for column in xs:
                    out[:, :, i, j] += x[:, :, row, column]
            out[:, :, i, j] /= divisor_override or (height * width if count_include_pad else len(ys) * len(xs))
    return out


# Max pooling


@primitive
def _max_pool2d(x: Array, at: Windows) -> Array:
    """:func:`max_pool2d` after its options have been settled."""
    return fast.max_pool2d(x, at)


@primitive
def _unpool(g: Array, x: Array, peak: Array, at: Windows) -> Array:
    """Add each window's element of ``g`` to its largest pixel; ``peak`` is the output of max pooling of ``x``."""
    return fast.unpool(g, x, peak, at)


@primitive
def _repool(g: Array, x: Array, peak: Array, at: Windows) -> Array:
    """Pick from each window of ``g`` the element at the place where ``x`` is largest."""
    return fast.repool(g, x, peak, at)


_max_pool2d.vjp(x=lambda g, out, x, at: _unpool(g, x, out, at))
# The picked places do not depend on g, and as functions of x they are constant almost everywhere. The gradient of the
# output is g_ here, since these ops have an argument g of their own.
_unpool.vjp(g=lambda g_, x, peak, at: _repool(g_, x, peak, at), x=None, peak=None)
_repool.vjp(g=lambda g_, x, peak, at: _unpool(g_, x, peak, at), x=None, peak=None)
_max_pool2d.op.name = "max_pool2d"  # the name for messages, drawings and graphs
# windows(size, kernel, stride, padding, dilation, ceil_mode)
_max_pool2d.check(draw(2, 2, 4, 6), windows((4, 6), 2, 2, 0, 1))
_max_pool2d.check(draw(2, 2, 7, 6), windows((7, 6), (3, 2), (2, 1), (1, 0), 1))
_max_pool2d.check(draw(1, 2, 6, 5), windows((6, 5), 2, 2, 0, 2, True))
_IMAGE, _PEAK = np.array([[[[3.0, 1.0, 2.0, 5.0], [0.0, 4.0, 7.0, 6.0]]]]), np.array([[[[4.0, 7.0]]]])
_unpool.check(draw(1, 1, 1, 2), _IMAGE, _PEAK, windows((2, 4), 2, 2, 0, 1))
_repool.check(draw(1, 1, 2, 4), _IMAGE, _PEAK, windows((2, 4), 2, 2, 0, 1))


def _geometry(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Windows:
    """The windows; raise if one could consist of padding only. ``full - size`` is the padding."""
    at = windows(size, kernel, kernel if stride is None else stride, padding, dilation, ceil_mode)
    axes = zip(at.before, at.full, at.size, at.kernel, strict=True)
    if at.full != at.size and any(max(b, f - n - b) > k / 2 for b, f, n, k in axes):
        raise ArgumentError(
            f"padding {padding} must be at most half of the kernel {kernel}: a window must not be all padding"
        )
    return at


@composite
def max_pool2d(
    x: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Padding = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    """The largest value in each window, PyTorch's ``max_pool2d``. The whole gradient goes to the first maximum in
    row-major order. Definition: :func:`tinygrad_lenet.reference.max_pool2d`.

    Args:
        x: images, (N, C, H, W).
        kernel_size: a number or (height, width).
        stride: from one window to the next; the kernel's size if None.
        padding: -inf around the image, at most half of the kernel.
        dilation: pixels from one element of the window to the next.
        ceil_mode: whether windows may extend beyond the end. If not, rows and columns that fill no window are ignored.

    Returns:
        (N, C, OH, OW) with ``OH = floor((H + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1``. A window with a
        NaN gives NaN, and its gradient is lost, as no pixel is the largest (PyTorch: it goes to the last NaN).

    Raises:
        ArgumentError: padding larger than half of the kernel, so that a window could consist of padding only.

    >>> import tinygrad_lenet as tl
    >>> tl.max_pool2d(tl.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    x = as_tensor(x)
    check_images(x)
    return _max_pool2d(x, _geometry(x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode))


max_pool2d.known_as(method=True, torch="nn.functional.max_pool2d")


# Average pooling


@primitive
def _avg_pool2d(x: Array, at: Averages) -> Array:
    """:func:`avg_pool2d` after its options have been settled."""
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
_avg_unpool.check(draw(2, 2, 3, 2), Averages(windows((7, 4), (3, 2), 2, 0, 1), True, None))


@composite
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
        x: images, (N, C, H, W).
        kernel_size: a number or (height, width).
        stride: from one window to the next; the kernel's size if None.
        padding: zeros around the image, at most half of the kernel.
        ceil_mode: whether windows may extend beyond the end. If not, rows and columns that fill no window are ignored.
        count_include_pad: whether padding counts as pixels.
        divisor_override: the number to divide by in place of the number of pixels.

    Returns:
        (N, C, OH, OW), sizes as for :func:`max_pool2d`.

    Raises:
        ArgumentError: padding larger than half of the kernel, or a ``divisor_override`` of 0.

    >>> import tinygrad_lenet as tl
    >>> tl.avg_pool2d(tl.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 2.5,  4.5],
              [10.5, 12.5]]]])
    """
    x = as_tensor(x)
    check_images(x)
    if divisor_override == 0:
        raise ArgumentError("divisor_override must not be 0, got 0")
    at = _geometry(x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    return _avg_pool2d(x, Averages(at, count_include_pad, divisor_override))


avg_pool2d.known_as(method=True, torch="nn.functional.avg_pool2d")


# Sequences, as images of height 1


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
    size, step, pad = _pooling(kernel_size, stride, padding)
    return max_pool2d(images_of(input), size, step, pad, image_option(dilation, 1, "dilation"), ceil_mode).squeeze(2)


max_pool1d.known_as(torch="nn.functional.max_pool1d")


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
    size, step, pad = _pooling(kernel_size, stride, padding)
    return avg_pool2d(images_of(input), size, step, pad, ceil_mode, count_include_pad).squeeze(2)


avg_pool1d.known_as(torch="nn.functional.avg_pool1d")


def _pooling(kernel_size: Any, stride: Any, padding: Any) -> list[Any]:
    stride = kernel_size if stride is None else stride
    return [
        image_option(kernel_size, 1, "kernel_size"),
        image_option(stride, 1, "stride"),
        image_option(padding, 0, "padding"),
    ]
