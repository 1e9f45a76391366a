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

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import memory
from ..errors import ArgumentError, ShapeError
from ..primitive import Array, draw, primitive
from ..tensor import Tensor
from ..threads import parallel
from .shape import pad
from .windows import Padding, Pair, Windows, aligned, check_images, pair, rows_first, windows

# Multiply-adds up to which OpenBLAS takes a product as it lies; above, it copies both factors first, which for matrices
# as flat as these (few channels, many pixels) costs more than the product. Measured: 80 against 22 GFLOP/s.
_FLAT = 250_000
_FEW = 32  # rows up to which that holds; larger products BLAS spreads over the cores itself


def _columns(x: Array, at: Windows, groups: int) -> Array:
    """The columns of im2col for each row of the output, (groups, OH, kh * C / groups * kw, OW * N), most of it a view.

    Only their width is gathered, into (groups, H, C / groups * kw, OW * N). Rows come first in that memory, so the
    ``kh`` rows that a row of windows needs are one matrix as they lie there: the images are copied ``kw`` times, not
    ``kh * kw`` times, and each row's product is small enough to stay in the cache.
    """
    images = rows_first(x, at)
    (kh, kw), (sh, sw), (dh, dw), (oh, ow) = at.kernel, at.stride, at.dilation, at.grid
    h, c, _, n = images.shape
    s_h, s_c, s_w, s_n = images.strides
    wide = memory.empty((groups, h, c // groups, kw, ow, n), x.dtype)
    steps = (c // groups * s_c, s_h, s_c, s_w * dw, s_w * sw, s_n)
    np.copyto(wide, np.ndarray(wide.shape, x.dtype, images, 0, steps))
    s_g, s_h, _, s_k, _, s_n = wide.strides
    shape = (groups, oh, kh, c // groups * kw, ow * n)
    return _merge(np.ndarray(shape, x.dtype, wide, 0, (s_g, s_h * sh, s_h * dh, s_k, s_n)))


def _merge(stacked: Array) -> Array:
    """Join the kernel's rows with what they hold: a view, unless they lie apart because the kernel is dilated."""
    groups, oh, kh, depth, pixels = stacked.shape
    return stacked.reshape(groups, oh, kh * depth, pixels)


def _by_row(kernel: Array) -> Array:
    """A weight (groups, O, C, kh, kw) as a matrix (groups, 1, O, kh * C * kw), in the order of :func:`_columns`."""
    groups, o = kernel.shape[:2]
    return kernel.transpose(0, 1, 3, 2, 4).reshape(groups, 1, o, -1)


def _pieces(rows: int, depth: int, pixels: int) -> Iterator[slice]:
    """Cut the pixels of flat products, (rows, depth) by (depth, pixels), so that OpenBLAS takes them as they lie."""
    count = max(1, -(-rows * depth * pixels // _FLAT)) if rows <= _FEW else 1
    step = max(64, -(-pixels // (16 * count)) * 16)  # 16 float32 are one cache line
    for start in range(0, pixels, step):
        yield slice(start, start + step)


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
    if len(weight_shape) != 4:
        raise ShapeError(f"{op}: weight must have shape (O, C / groups, kh, kw), got {weight_shape}")
    o, c = weight_shape[:2]
    if groups < 1 or o % groups or channels != c * groups:
        raise ShapeError(
            f"{op}: images have {channels} channels, but a weight of shape {weight_shape} with groups={groups} "
            f"expects {c * groups}"
            + (f", and its {o} outputs must divide into {groups} groups" if groups < 1 or o % groups else "")
        )
    return windows(op, size, weight_shape[2:], stride, padding, dilation)


def _flat_work(kernel: Array, out: Array) -> float:
    """Multiply-adds of the products, if they are of the kind that BLAS leaves to one core; else 0."""
    return float(kernel.shape[-1] * out.size) if min(kernel.shape[-2:]) <= _FEW else 0.0


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

    ``out[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] * x[n, c, i * stride + a * dilation, j * stride
    + b * dilation]``

    Args:
        x: images, (N, C, H, W).
        weight: kernels, (O, C / groups, kh, kw).
        bias: (O,), or None.
        stride: pixels from one window to the next, a number or (height, width).
        padding: zeros around the image: a number, (height, width), ``"valid"`` (none), ``"same"`` (the output has
            ``ceil(H / stride)`` rows; an odd pixel goes to the end), or ``((top, bottom), (left, right))``.
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
    n, o, (oh, ow) = x.shape[0], weight.shape[0], at.grid
    dtype = np.result_type(x, weight)
    kernel = _by_row(weight.reshape(groups, o // groups, *weight.shape[1:]).astype(dtype, copy=False))
    columns = _columns(x.astype(dtype, copy=False), at, groups)
    out = memory.empty((oh, o, ow, n), dtype)
    rows = out.reshape(oh, groups, o // groups, ow * n).transpose(1, 0, 2, 3)
    pieces = list(_pieces(kernel.shape[2], kernel.shape[3], ow * n))

    def compute(start: int, stop: int) -> None:
        for piece in pieces:
            np.matmul(kernel, columns[:, start:stop, :, piece], out=rows[:, start:stop, :, piece])
        if bias is not None:
            np.add(out[start:stop], bias.reshape(-1, 1, 1), out=out[start:stop])

    parallel(compute, oh, _flat_work(kernel, rows))
    return out.transpose(3, 1, 0, 2)


@primitive
def conv2d_input_grad(
    g: Array,
    weight: Array,
    size: tuple[int, int],
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
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
    dtype = np.result_type(g, weight)
    (kh, kw), (sh, sw), (dh, dw), (oh, ow) = at.kernel, at.stride, at.dilation, at.grid
    (h, _), reach = at.size, (kh - 1) * dh
    # Image row y is made of the output rows (y - a * dh) / sh: with zeros between and around them, kh adjacent rows.
    grads = memory.empty((at.padded[0] + reach, o, ow, n), dtype)
    grads.fill(0)
    grads[reach : reach + (oh - 1) * sh + 1 : sh] = g.transpose(2, 1, 3, 0)
    s_h, s_o, _, s_n = grads.strides
    shape, strides = (groups, h, kh, o // groups, ow * n), (o // groups * s_o, s_h, s_h * dh, s_o, s_n)
    columns = _merge(np.ndarray(shape, dtype, grads, at.before[0] * s_h, strides))
    # (groups, C * kw, kh * O), the kernel's rows in the opposite order
    flipped = weight.reshape(groups, o // groups, -1, kh, kw)[:, :, :, ::-1].transpose(0, 2, 4, 3, 1)
    kernel = flipped.reshape(groups, 1, c // groups * kw, -1).astype(dtype, copy=False)
    wide = memory.empty((groups, h, c // groups * kw, ow * n), dtype)
    images = memory.empty((h, c, at.padded[1], n), dtype)
    by_group = images.reshape(h, groups, c // groups, at.padded[1], n).transpose(1, 0, 2, 3, 4)
    parts = wide.reshape(groups, h, c // groups, kw, ow, n)
    pieces = list(_pieces(kernel.shape[2], kernel.shape[3], ow * n))

    def compute(start: int, stop: int) -> None:
        for piece in pieces:
            np.matmul(kernel, columns[:, start:stop, :, piece], out=wide[:, start:stop, :, piece])
        images[start:stop] = 0
        for b in range(kw):
            target = by_group[:, start:stop, :, b * dw : b * dw + (ow - 1) * sw + 1 : sw]
            np.add(target, parts[:, start:stop, :, b], out=target)

    parallel(compute, h, _flat_work(kernel, wide))
    return images[:, :, at.inside[1]].transpose(3, 1, 0, 2)


@primitive
def conv2d_weight_grad(
    x: Array,
    g: Array,
    kernel: tuple[int, int],
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """The gradient of :func:`conv2d` for its weight, given that of its output.

    ``x`` is (N, C, H, W), ``g`` (N, O, OH, OW); the result is (O, C / groups, *kernel): how often each weight met each
    pixel.
    """
    check_images("conv2d_weight_grad", x)
    c, o = x.shape[1], g.shape[1]
    at = _geometry("conv2d_weight_grad", x.shape[2:], (o, c // groups, *kernel), c, stride, padding, dilation, groups)
    dtype = np.result_type(x, g)
    columns = _columns(x.astype(dtype, copy=False), at, groups)
    oh, depth, pixels = columns.shape[1:]
    grads = aligned(g.transpose(2, 1, 3, 0), dtype).reshape(oh, groups, o // groups, pixels).transpose(1, 0, 3, 2)
    total = np.zeros((groups, depth, o // groups), dtype)
    pieces = list(_pieces(min(depth, o // groups), max(depth, o // groups), pixels))
    several = max(1, 4 * _FLAT // max(1, total.size * len(pieces)))  # rows whose products are added up in one call
    for first in range(0, oh, several):
        rows = slice(first, first + several)
        products = memory.empty((len(pieces), *columns[:, rows].shape[:2], *total.shape[1:]), dtype)

        def compute(start: int, stop: int, first: int = first, products: Array = products) -> None:
            for i, piece in enumerate(pieces):
                some = slice(first + start, first + stop)
                # columns @ g.T and not g @ columns.T: twice as fast at these flat shapes
                np.matmul(columns[:, some, :, piece], grads[:, some, piece], out=products[i, :, start:stop])

        work = total.size * products.shape[2] * pixels if min(total.shape[1:]) <= _FEW else 0
        parallel(compute, products.shape[2], work)
        total += products.sum(axis=(0, 2))
    (kh, kw) = at.kernel
    return total.reshape(groups, kh, c // groups, kw, -1).transpose(0, 4, 2, 1, 3).reshape(o, c // groups, kh, kw)


conv2d.vjp(
    x=lambda g, x_shape, weight, stride, padding, dilation, groups: conv2d_input_grad(
        g, weight, x_shape[2:], stride, padding, dilation, groups
    ),
    weight=lambda g, x, weight_shape, stride, padding, dilation, groups: conv2d_weight_grad(
        x, g, weight_shape[2:], stride, padding, dilation, groups
    ),
    bias=lambda g: g.sum(axis=(0, 2, 3)),
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
conv2d_input_grad.check(draw(2, 2, 3, 2), draw(2, 3, 2, 3), (6, 4), stride=2, padding=((0, 1), (1, 0)))
conv2d_weight_grad.check(draw(2, 2, 5, 4), draw(2, 4, 2, 2), (2, 3), stride=2, padding=(0, 1), groups=2)


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

    >>> import tinygrad_lenet as tl
    >>> tl.conv_transpose2d(tl.ones(1, 1, 1, 2), tl.tensor([[[[1, 2]]]]), stride=2)
    tensor([[[[1., 2., 1., 2.]]]])
    """
    op = "conv_transpose2d"
    strides, dilations = pair(stride, op, "stride"), pair(dilation, op, "dilation")
    pads, extra = pair(padding, op, "padding", 0), pair(output_padding, op, "output_padding", 0)
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
    out = conv2d_input_grad(x, weight, (size[0], size[1]), strides, pads, dilations, groups)
    return out if bias is None else out + bias.reshape(1, -1, 1, 1)


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

    >>> import tinygrad_lenet as tl
    >>> tl.fold(tl.unfold(tl.ones(1, 1, 3, 3), 2), 3, 2)  # how many windows saw each pixel
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    at = windows("fold", pair(output_size, "fold", "output_size"), kernel_size, stride, padding, dilation)
    (kh, kw), (oh, ow) = at.kernel, at.grid
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
