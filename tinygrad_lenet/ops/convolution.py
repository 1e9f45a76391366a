"""Convolution by im2col: gather every window of the images as a column, and the convolution is one matrix product.

:func:`unfold` is that gathering on its own; ``weight.reshape(O, -1) @ unfold(x, kernel)`` is the whole idea.
:func:`conv2d` computes the same from columns that are mostly a view (see :func:`_columns`), and makes them again in the
backward pass, where to keep them would take a multiple of the memory of the images.

Convolution closes on itself: the gradients of :func:`conv2d` are :func:`conv2d_input_grad` (transposed convolution) and
:func:`conv2d_weight_grad`, and the gradients of each of the three are the other two. So there are gradients of any
order.

Sources: Chellapilla, Puri, Simard, *High performance convolutional neural networks for document processing*, 2006
(im2col); Dumoulin and Visin, *A guide to convolution arithmetic for deep learning*, 2016 (sizes and transposition).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..errors import ArgumentError, ShapeError
from ..kernels import memory, threads
from ..kernels.matmul import common_dtype, product
from ..kernels.sums import single
from ..kernels.threads import parallel
from ..kernels.windows import Windows, aligned, cut, rows_first
from .rearrange import pad
from .reduction import sum
from .windows import Padding, Pair, check_images, pair, windows

__all__ = ["conv2d", "conv_transpose2d", "fold", "unfold"]

_CHUNK = 256  # images that a block has at most: shorter runs are slower to copy and to multiply
_ROOM = 1 << 20  # bytes that the columns of a block should not exceed, about that cache


def _columns(images: Array, at: Windows, groups: int, rows: slice, chunk: slice) -> Array:
    """The columns of im2col for rows of the output, (groups, rows, kh * C / groups * kw, OW * N), most of it a view.

    Only their width is gathered, into (groups, H, C / groups * kw, OW * N). Rows come first in that memory, so the
    ``kh`` rows that a row of windows needs are one matrix as they lie there: the images are copied ``kw`` times, not
    ``kh * kw`` times.
    """
    (kh, kw), (sh, sw), (dh, dw), ow = at.kernel, at.stride, at.dilation, at.grid[1]
    count, n = rows.stop - rows.start, chunk.stop - chunk.start
    h, c = (count - 1) * sh + (kh - 1) * dh + 1, images.shape[1] // groups
    s_h, s_c, s_w, s_n = images.strides
    wide = memory.empty((groups, h, c, kw, ow, n), images.dtype)
    seen = (c * s_c, s_h, s_c, s_w * dw, s_w * sw, s_n)
    np.copyto(wide, np.ndarray(wide.shape, images.dtype, images, rows.start * sh * s_h + chunk.start * s_n, seen))
    s_g, s_h, _, s_k, _, s_n = wide.strides
    shape = (groups, count, kh, c * kw, ow * n)
    return _merge(np.ndarray(shape, images.dtype, wide, 0, (s_g, s_h * sh, s_h * dh, s_k, s_n)))


def _merge(stacked: Array) -> Array:
    """Join the kernel's rows with what they hold: a view, unless they lie apart because the kernel is dilated."""
    groups, rows, kh, depth, pixels = stacked.shape
    return stacked.reshape(groups, rows, kh * depth, pixels)


def _by_row(kernel: Array) -> Array:
    """A weight (groups, O, C, kh, kw) as a matrix (groups, 1, O, kh * C * kw), in the order of :func:`_columns`."""
    groups, o, c, kh, kw = kernel.shape
    return kernel.transpose(0, 1, 3, 2, 4).reshape(groups, 1, o, kh * c * kw)


def _in_blocks(
    compute: Callable[[slice, slice], object], rows: int, batch: int, row: int, reach: int, work: int
) -> None:
    """Call ``compute(rows, chunk of the batch)`` for blocks that make up the whole, side by side on all cores.

    ``row`` is the bytes of a row's columns for one image, ``reach`` the rows of which neighbouring blocks both need the
    columns, ``work`` the multiply-adds in all. Blocks, and so sums over them, do not depend on the number of threads.
    """
    if work < threads.WORTH and batch <= _CHUNK and rows * row * batch <= _ROOM:
        compute(slice(0, rows), slice(0, batch))
        return
    chunks = cut(batch, _CHUNK)
    # Several rows at once, or neighbours would gather most of their columns twice.
    fitting = max(2 * reach, _ROOM // max(1, row * min(batch, _CHUNK)))
    shares = max(1, min(8, work // (threads.WORTH * max(1, len(chunks)))))
    blocks = [(part, chunk) for chunk in chunks for part in cut(rows, min(fitting, -(-rows // shares)))]

    def some(start: int, stop: int) -> None:
        for block in blocks[start:stop]:
            compute(*block)

    parallel(some, len(blocks), work)


def _geometry(
    op: str,
    size: tuple[int, ...],
    weight_shape: tuple[int, ...],
    channels: int,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Windows:
    """Check that images and weight fit together."""
    if len(weight_shape) != 4 or 0 in weight_shape[2:]:
        raise ShapeError(f"{op}: weight must have shape (O, C / groups, kh, kw), kh and kw not 0, got {weight_shape}")
    o, c = weight_shape[:2]
    if groups < 1 or o % groups or channels != c * groups:
        raise ShapeError(
            f"{op}: images have {channels} channels, but a weight of shape {weight_shape} with groups={groups} "
            f"expects {c * groups}"
            + (f", and its {o} outputs must divide into {groups} groups" if groups < 1 or o % groups else "")
        )
    return windows(op, size, weight_shape[2:], stride, padding, dilation)


@primitive
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """Two-dimensional convolution (cross-correlation, as everywhere in this field), PyTorch's ``conv2d``.

    ``out[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] * x[n, c, i * sh + a * dh, j * sw + b * dw]``,
    where ``(sh, sw)`` is the stride and ``(dh, dw)`` the dilation.

    Args:
        x: images, (N, C, H, W).
        weight: kernels, (O, C / groups, kh, kw).
        bias: (O,), or None.
        stride: pixels from one window to the next, a number or (height, width).
        padding: zeros around the image: a number, (height, width), ``"valid"`` (none), ``"same"`` (the output has
            ``ceil(H / stride)`` rows; an odd pixel goes to the end), or ``((top, bottom), (left, right))``. Times an
            infinite weight they are NaN.
        dilation: pixels from one element of the kernel to the next.
        groups: channels and outputs are split into so many groups that do not see each other.

    Returns:
        (N, O, OH, OW) with ``OH = floor((H + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1``; the memory lies
        batch-last.

    Raises:
        ShapeError: channels and weight do not fit together, or the kernel is larger than the padded image.
        ArgumentError: a stride, padding, dilation or number of groups that makes no sense.

    >>> import tinygrad_lenet as tl
    >>> image = tl.arange(9.0).reshape(1, 1, 3, 3)
    >>> tl.conv2d(image, tl.ones(1, 1, 2, 2))
    tensor([[[[ 8., 12.],
              [20., 24.]]]])
    """
    check_images("conv2d", x)
    at = _geometry("conv2d", x.shape[2:], weight.shape, x.shape[1], stride, padding, dilation, groups)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"conv2d: weight of shape {weight.shape} needs a bias of shape {weight.shape[:1]}, got {bias.shape}"
        )
    n, (o, c, kh, kw), (oh, ow) = x.shape[0], weight.shape, at.grid
    dtype = common_dtype(x, weight, *(() if bias is None else (bias,)))
    if dtype == np.float16:
        wide = [None if a is None else single(a) for a in (x, weight, bias)]
        return conv2d.op.forward(*wide, stride, padding, dilation, groups).astype(dtype)
    kernel = _by_row(weight.reshape(groups, o // groups, c, kh, kw).astype(dtype, copy=False))
    images = rows_first(x.astype(dtype, copy=False), at)
    out = memory.empty((oh, o, ow, n), dtype)

    def compute(rows: slice, chunk: slice) -> None:
        columns = _columns(images, at, groups, rows, chunk)
        target = out[rows, :, :, chunk]
        whole = target.flags.c_contiguous  # then the product can be written where it belongs
        sums = target if whole else memory.empty(target.shape, dtype)
        product(kernel, columns, sums.reshape(len(sums), groups, o // groups, columns.shape[3]).transpose(1, 0, 2, 3))
        if bias is not None:
            np.add(sums, bias.reshape(-1, 1, 1), out=target)
        elif not whole:
            np.copyto(target, sums)

    _in_blocks(compute, oh, n, c * groups * kw * ow * dtype.itemsize, kh, out.size * c * kh * kw)
    return out.transpose(3, 1, 0, 2)


@primitive
def conv2d_input_grad(
    g: Array,
    weight: Array,
    size: tuple[int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Array:
    """The gradient of :func:`conv2d` for its images, given that of its output: transposed convolution.

    ``g`` is (N, O, OH, OW), ``weight`` (O, C / groups, kh, kw), ``size`` the images' (H, W); the result is (N, C, H,
    W). Each product of a weight and a gradient is added to the pixel that the weight saw (col2im).
    """
    check_images("conv2d_input_grad", g)
    n, o, c = g.shape[0], weight.shape[0], weight.shape[1] * groups
    at = _geometry("conv2d_input_grad", size, weight.shape, c, stride, padding, dilation, groups)
    if g.shape[1:] != (o, *at.grid):
        raise ShapeError(f"conv2d_input_grad: expected a gradient of shape {(n, o, *at.grid)}, got {g.shape}")
    dtype = common_dtype(g, weight)
    if dtype == np.float16:
        wide = conv2d_input_grad.op.forward(single(g), single(weight), size, stride, padding, dilation, groups)
        return wide.astype(dtype)
    if not np.isfinite(weight).all():
        return _stamped(g, weight, at, groups, dtype)
    (kh, kw), (sh, sw), (dh, dw), (oh, ow) = at.kernel, at.stride, at.dilation, at.grid
    reach, width = (kh - 1) * dh, at.padded[1]
    # (groups, C * kw, kh * O), the kernel's rows in the opposite order
    flipped = weight.reshape(groups, o // groups, c // groups, kh, kw)[:, :, :, ::-1].transpose(0, 2, 4, 3, 1)
    kernel = flipped.reshape(groups, 1, c // groups * kw, kh * o // groups).astype(dtype, copy=False)
    by_row = g.transpose(2, 1, 3, 0)
    images = memory.empty((at.size[0], c, width, n), dtype)

    def compute(rows: slice, chunk: slice) -> None:
        count, size = rows.stop - rows.start, chunk.stop - chunk.start
        # Image row y is made of the output rows (y - a * dh) / sh: with zeros between and around them, kh such rows.
        grads = memory.empty((count + reach, o, ow, size), dtype)
        first = rows.start + at.before[0] - reach  # what its first row is; row sh * i is output row i
        low, high = max(0, -(-first // sh)), min(oh, (first + count + reach - 1) // sh + 1)
        if sh > 1:
            grads.fill(0)
        else:
            grads[: low - first] = grads[high - first :] = 0
        if high > low:  # not between two windows that lie far apart
            grads[low * sh - first : (high - 1) * sh - first + 1 : sh] = by_row[low:high, :, :, chunk]
        s_h, s_o, _, s_n = grads.strides
        shape, steps = (groups, count, kh, o // groups, ow * size), (o // groups * s_o, s_h, s_h * dh, s_o, s_n)
        columns = _merge(np.ndarray(shape, dtype, grads, 0, steps))
        wide = memory.empty((groups, count, c // groups * kw, ow * size), dtype)
        product(kernel, columns, wide)
        target = images[rows, :, :, chunk]
        target[...] = 0
        by_group = target.reshape(count, groups, c // groups, width, size).transpose(1, 0, 2, 3, 4)
        parts = wide.reshape(groups, count, c // groups, kw, ow, size)
        for b in range(kw):
            some = by_group[:, :, :, b * dw : b * dw + (ow - 1) * sw + 1 : sw]
            np.add(some, parts[:, :, :, b], out=some)

    _in_blocks(compute, at.size[0], n, o * ow * dtype.itemsize, reach + 1, images.size * o * kh * kw // groups)
    return images[:, :, at.inside[1]].transpose(3, 1, 0, 2)


def _stamped(g: Array, weight: Array, at: Windows, groups: int, dtype: np.dtype[Any]) -> Array:
    """:func:`conv2d_input_grad` window by window, where the zeros between and around them would make NaN of infinite
    weights.
    """
    (n, o, oh, ow), (kh, kw) = g.shape, at.kernel
    by_group = g.reshape(n, groups, o // groups, oh * ow).astype(dtype, copy=False)
    kernel = weight.reshape(groups, o // groups, -1).swapaxes(1, 2).astype(dtype, copy=False)
    parts = np.matmul(kernel, by_group).reshape(n, -1, kh, kw, oh, ow)
    images = np.zeros((n, parts.shape[1], *at.padded), dtype)
    for a, b in np.ndindex(kh, kw):
        images[(..., *at.at(a, b))] += parts[:, :, a, b]
    return images[(..., *at.inside)]


@primitive
def conv2d_weight_grad(
    x: Array,
    g: Array,
    kernel: tuple[int, int],
    stride: Pair,
    padding: Padding,
    dilation: Pair,
    groups: int,
) -> Array:
    """The gradient of :func:`conv2d` for its weight, given that of its output.

    ``x`` is (N, C, H, W), ``g`` (N, O, OH, OW); the result is (O, C / groups, *kernel): how often each weight met each
    pixel.
    """
    check_images("conv2d_weight_grad", x)
    c, o = x.shape[1], g.shape[1]
    at = _geometry("conv2d_weight_grad", x.shape[2:], (o, c // groups, *kernel), c, stride, padding, dilation, groups)
    dtype = common_dtype(x, g)
    if dtype == np.float16:
        wide = conv2d_weight_grad.op.forward(single(x), single(g), kernel, stride, padding, dilation, groups)
        return wide.astype(dtype)
    images = rows_first(x.astype(dtype, copy=False), at)
    by_row = g.transpose(2, 1, 3, 0)
    n, (oh, ow), (kh, kw) = x.shape[0], at.grid, at.kernel
    depth = kh * c // groups * kw
    sums: dict[tuple[int, int], Array] = {}

    def compute(rows: slice, chunk: slice) -> None:
        columns = _columns(images, at, groups, rows, chunk)
        grads = aligned(by_row[rows, :, :, chunk], dtype)
        grads = grads.reshape(len(grads), groups, o // groups, columns.shape[3]).transpose(1, 0, 3, 2)
        products = memory.empty((groups, len(by_row[rows]), depth, o // groups), dtype)
        # columns @ g.T and not g @ columns.T: twice as fast at these flat shapes
        sums[rows.start, chunk.start] = product(columns, grads, products).sum(axis=1)

    _in_blocks(compute, oh, n, c * kw * ow * dtype.itemsize, kh, oh * ow * n * depth * o)
    total = np.zeros((groups, depth, o // groups), dtype)
    for key in sorted(sums):  # in one order, whichever thread came first
        total += sums[key]
    return total.reshape(groups, kh, c // groups, kw, -1).transpose(0, 4, 2, 1, 3).reshape(o, c // groups, kh, kw)


conv2d.vjp(
    x=lambda g, x_shape, weight, stride, padding, dilation, groups: conv2d_input_grad(
        g, weight, x_shape[2:], stride, padding, dilation, groups
    ),
    weight=lambda g, x, weight_shape, stride, padding, dilation, groups: conv2d_weight_grad(
        x, g, weight_shape[2:], stride, padding, dilation, groups
    ),
    bias=lambda g: sum(single(g), (0, 2, 3)),
)
conv2d_input_grad.vjp(
    g=lambda g_, weight, stride, padding, dilation, groups: conv2d(g_, weight, None, stride, padding, dilation, groups),
    weight=lambda g_, g, weight_shape, stride, padding, dilation, groups: conv2d_weight_grad(
        g_, g, weight_shape[2:], stride, padding, dilation, groups
    ),
)
conv2d_weight_grad.vjp(
    x=lambda g_, x_shape, g, stride, padding, dilation, groups: conv2d_input_grad(
        g, g_, x_shape[2:], stride, padding, dilation, groups
    ),
    g=lambda g_, x, stride, padding, dilation, groups: conv2d(x, g_, None, stride, padding, dilation, groups),
)
conv2d.check(draw(2, 3, 5, 4), draw(2, 3, 3, 2), draw(2))
conv2d.check(draw(2, 4, 5, 6), draw(6, 2, 2, 3), draw(6), stride=(2, 1), padding=(1, 2), dilation=(2, 1), groups=2)
conv2d.check(draw(1, 2, 4, 5), draw(2, 1, 2, 4), None, stride=2, padding="same", groups=2)
conv2d_input_grad.check(draw(2, 2, 3, 2), draw(2, 3, 2, 3), (6, 4), 2, ((0, 1), (1, 0)), 1, 1)
conv2d_weight_grad.check(draw(2, 2, 5, 4), draw(2, 4, 2, 2), (2, 3), 2, (0, 1), 1, 2)


@composite
def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Transposed convolution, PyTorch's ``conv_transpose2d``: the gradient of :func:`conv2d` for its images, as a layer
    of its own.

    Args:
        x: images, (N, C, H, W).
        weight: kernels, (C, O / groups, kh, kw).
        bias: (O,), or None.
        stride: pixels of the output from one pixel of the input to the next.
        padding: rows and columns to cut from each side of the output.
        output_padding: rows and columns to add at its end; less than the stride or the dilation.
        groups: see :func:`conv2d`.
        dilation: see :func:`conv2d`.

    Returns:
        (N, O, OH, OW) with ``OH = (H - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1``.

    Raises:
        ShapeError: channels, weight and bias do not fit together.
        ArgumentError: ``output_padding`` is not smaller than the stride or the dilation, or another option makes no
            sense.

    >>> import tinygrad_lenet as tl
    >>> tl.conv_transpose2d(tl.ones(1, 1, 1, 2), tl.tensor([[[[1, 2]]]]), stride=2)
    tensor([[[[1., 2., 1., 2.]]]])
    """
    op = "conv_transpose2d"
    strides, dilations = pair(stride, op, "stride"), pair(dilation, op, "dilation")
    pads, extra = pair(padding, op, "padding", 0), pair(output_padding, op, "output_padding", 0)
    x, weight, bias = as_tensor(x), as_tensor(weight), None if bias is None else as_tensor(bias)
    check_images(op, x)
    if weight.ndim != 4 or weight.shape[0] != x.shape[1]:
        raise ShapeError(
            f"{op}: images with {x.shape[1]} channels need a weight of shape ({x.shape[1]}, O / groups, kh, "
            f"kw), got {weight.shape}"
        )
    if bias is not None and bias.shape != (weight.shape[1] * groups,):
        raise ShapeError(
            f"{op}: weight of shape {weight.shape} with groups={groups} needs a bias of shape "
            f"{(weight.shape[1] * groups,)}, got {bias.shape}"
        )
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise ArgumentError(
            f"{op}: output_padding {output_padding} must be less than stride {stride} or dilation {dilation}"
        )
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], strides, pads, dilations, weight.shape[2:], extra, strict=True)
    )
    if min(size) < 1:
        raise ShapeError(
            f"{op}: images of {x.shape[2:]} with padding {padding} leave an output of {size}; use less padding"
        )
    beyond = tuple(e // s for e, s in zip(extra, strides, strict=True))
    if any(beyond):
        x = pad(x, ((0, 0), (0, 0), (0, beyond[0]), (0, beyond[1])))
    half = bias is not None and x.dtype == weight.dtype == bias.dtype == np.float16
    x = single(x) if half else x  # rounded once, after the bias
    out = conv2d_input_grad(x, weight, (size[0], size[1]), strides, pads, dilations, groups)
    out = out if bias is None else out + bias.reshape(1, -1, 1, 1)
    return out.astype(np.float16) if half else out


@primitive
def unfold(x: Array, kernel_size: Pair, dilation: Pair = 1, padding: Padding = 0, stride: Pair = 1) -> Array:
    """Every window of the images as a column (im2col), PyTorch's ``unfold``: (N, C, H, W) to (N, C * kh * kw, OH * OW).

    >>> import tinygrad_lenet as tl
    >>> tl.unfold(tl.arange(9.0).reshape(1, 1, 3, 3), 2)
    tensor([[[0., 1., 3., 4.],
             [1., 2., 4., 5.],
             [3., 4., 6., 7.],
             [4., 5., 7., 8.]]])
    """
    check_images("unfold", x)
    at = windows("unfold", x.shape[2:], kernel_size, stride, padding, dilation)
    n, c = x.shape[:2]
    images = np.zeros((n, c, *at.padded), x.dtype)
    images[(..., *at.inside)] = x
    columns = [images[(..., *at.at(a, b))] for a in range(at.kernel[0]) for b in range(at.kernel[1])]
    return np.stack(columns, axis=2).reshape(n, c * at.kernel[0] * at.kernel[1], at.grid[0] * at.grid[1])


@primitive
def fold(
    x: Array, output_size: Pair, kernel_size: Pair, dilation: Pair = 1, padding: Padding = 0, stride: Pair = 1
) -> Array:
    """Add every column back to where its window lies (col2im), PyTorch's ``fold``: (N, C * kh * kw, OH * OW) to (N, C,
    H, W).

    Raises:
        ShapeError: not as many columns as there are windows, or not as many rows as elements in them.

    >>> import tinygrad_lenet as tl
    >>> tl.fold(tl.unfold(tl.ones(1, 1, 3, 3), 2), 3, 2)  # how many windows saw each pixel
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    at = windows("fold", pair(output_size, "fold", "output_size"), kernel_size, stride, padding, dilation)
    (kh, kw), (oh, ow) = at.kernel, at.grid
    if x.dtype == np.float16:
        return fold.op.forward(single(x), output_size, kernel_size, dilation, padding, stride).astype(x.dtype)
    if x.ndim != 3 or x.shape[1] % (kh * kw) or x.shape[2] != oh * ow:
        raise ShapeError(f"fold: expected columns of shape (N, C * {kh * kw}, {oh * ow}), got {x.shape}")
    n, c = x.shape[0], x.shape[1] // (kh * kw)
    patches = x.reshape(n, c, kh, kw, oh, ow)
    images = np.zeros((n, c, *at.padded), x.dtype)
    for a in range(kh):
        for b in range(kw):
            images[(..., *at.at(a, b))] += patches[:, :, a, b]
    return images[(..., *at.inside)]


unfold.vjp(
    x=lambda g, x_shape, kernel_size, dilation, padding, stride: fold(
        g, x_shape[2:], kernel_size, dilation, padding, stride
    )
)
unfold.check(draw(2, 3, 5, 4), (3, 2), dilation=(1, 2), padding=(1, 0), stride=2)
fold.vjp(x=lambda g, kernel_size, dilation, padding, stride: unfold(g, kernel_size, dilation, padding, stride))
fold.check(draw(2, 12, 3), (5, 4), (3, 2), dilation=(1, 2), padding=(1, 0), stride=2)
