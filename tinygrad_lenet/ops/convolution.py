"""Convolution by im2col: gather every window of the images as a column, and the convolution is one matrix product.

:func:`unfold` is that gathering on its own; ``weight.reshape(O, -1) @ unfold(x, kernel)`` is the whole idea.
:func:`conv2d` computes the same in blocks of columns small enough to stay in the cache, and gathers them again in the
backward pass, where storing them would take ``kh * kw`` times the memory of the images.

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
from .windows import Padding, Pair, Windows, aligned, batch_last, check_images, pair, windows

# Bytes of columns at a time: what a core's second-level cache holds beside the rest. To add columns up again costs a
# call for each element of the kernel, so there the pieces are larger.
_BLOCK = 192 * 1024
_BLOCK_BACK = 768 * 1024


def _gather(images: Array, at: Windows) -> Array:
    """All windows of padded batch-last images, (C, kh, kw, OH, OW, N), as a view: nothing is copied."""
    c, _, _, n = images.shape
    s_c, s_h, s_w, s_n = images.strides
    (sh, sw), (dh, dw) = at.stride, at.dilation
    strides = (s_c, s_h * dh, s_w * dw, s_h * sh, s_w * sw, s_n)
    return np.ndarray((c, *at.kernel, *at.grid, n), images.dtype, images, 0, strides)


def _blocks(at: Windows, depth: int, n: int, limit: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut the output (OH, OW, N) so that ``depth`` values for each element stay within the block size.

    Whole rows if they fit, else pieces of one row, else pieces of one pixel's batch: each piece is contiguous in the
    output.
    """
    room = max(1, limit // depth)
    (oh, ow), everything = at.grid, slice(None)
    if ow * n <= room:
        step = room // max(1, ow * n)
        for i in range(0, oh, step):
            yield slice(i, min(i + step, oh)), everything, everything
    elif n <= room:
        step = room // n
        for i in range(oh):
            for j in range(0, ow, step):
                yield slice(i, i + 1), slice(j, min(j + step, ow)), everything
    else:
        for i in range(oh):
            for j in range(ow):
                for k in range(0, n, room):
                    yield slice(i, i + 1), slice(j, j + 1), slice(k, min(k + room, n))


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
    n, o = x.shape[0], weight.shape[0]
    dtype = np.result_type(x, weight)
    kernels = weight.reshape(groups, o // groups, -1).astype(dtype, copy=False)
    depth = kernels.shape[2]
    if bias is not None:  # one more weight, which always meets a 1
        kernels = np.concatenate([kernels, bias.astype(dtype, copy=False).reshape(groups, -1, 1)], axis=2)
    rows = kernels.shape[2]
    images = batch_last(x, at)
    patches = _gather(images, at)
    c = images.shape[0] // groups
    out = memory.empty((o, *at.grid, n), dtype)
    for block in _blocks(at, groups * rows, n, _BLOCK // dtype.itemsize):
        patch = patches[(..., *block)]
        target = out[(slice(None), *block)].reshape(groups, o // groups, -1)
        columns = memory.empty((groups, rows, target.shape[2]), dtype)
        columns[:, depth:] = 1
        np.copyto(columns[:, :depth].reshape(groups, c, *patch.shape[1:]), patch.reshape(groups, c, *patch.shape[1:]))
        np.matmul(kernels, columns, out=target)
    return out.transpose(3, 0, 1, 2)


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
    kernels = weight.reshape(groups, o // groups, -1).transpose(0, 2, 1).astype(dtype, copy=False)
    grads = aligned(g.transpose(1, 2, 3, 0), dtype)
    images = memory.empty((c, *at.padded, n), dtype)
    images.fill(0)
    (kh, kw), (sh, sw), (dh, dw) = at.kernel, at.stride, at.dilation
    for block in _blocks(at, groups * kernels.shape[1], n, _BLOCK_BACK // dtype.itemsize):
        source = grads[(slice(None), *block)]
        _, h, w, m = source.shape
        columns = memory.empty((groups, kernels.shape[1], h * w * m), dtype)
        np.matmul(kernels, source.reshape(groups, o // groups, -1), out=columns)
        patch = columns.reshape(c, kh, kw, h, w, m)
        top, left = (block[0].start or 0) * sh, (block[1].start or 0) * sw
        for a in range(kh):
            rows = slice(top + a * dh, top + a * dh + (h - 1) * sh + 1, sh)
            for b in range(kw):
                images[:, rows, left + b * dw : left + b * dw + (w - 1) * sw + 1 : sw, block[2]] += patch[:, a, b]
    return images[(slice(None), *at.inside)].transpose(3, 0, 1, 2)


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
    (n, c), o = x.shape[:2], g.shape[1]
    at = _geometry("conv2d_weight_grad", x.shape[2:], (o, c // groups, *kernel), c, stride, padding, dilation, groups)
    dtype = np.result_type(x, g)
    images = batch_last(x, at)
    patches = _gather(images, at)
    grads = aligned(g.transpose(1, 2, 3, 0), dtype)
    depth = c // groups * at.kernel[0] * at.kernel[1]
    total = np.zeros((groups, depth, o // groups), dtype)
    for block in _blocks(at, groups * depth, n, _BLOCK // dtype.itemsize):
        patch = patches[(..., *block)]
        columns = memory.empty((groups, depth, patch[0, 0, 0].size), dtype)
        np.copyto(columns.reshape(patch.shape), patch)
        source = grads[(slice(None), *block)].reshape(groups, o // groups, -1)
        # columns @ source.T and not source @ columns.T: twice as fast at these flat shapes
        total += np.matmul(columns, source.transpose(0, 2, 1))
    return total.transpose(0, 2, 1).reshape(o, c // groups, *at.kernel)


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
    patches = _gather(batch_last(x, at), at)
    return patches.transpose(5, 0, 1, 2, 3, 4).reshape(n, c * at.kernel[0] * at.kernel[1], at.grid[0] * at.grid[1])


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
fold.check(draw(2, 12, 6), (5, 4), (3, 2), dilation=(1, 2), padding=(1, 0), stride=2)
