"""Fast convolution: copy the windows of the images to columns; then convolution is one matrix product (im2col).

The first two functions are the idea: the output is ``weight.reshape(O, -1) @ unfold(x, at)``, and the gradient of the
images is ``fold(weight.reshape(O, -1).T @ g, at)``. The rest computes the same products faster. It works on blocks that
fit into the cache, on all cores. It copies fewer pixels (see :class:`OutputBlock`). For the gradients it computes the
columns again: to keep them would take many times the memory of the images.

Each kernel has two layers. The geometry is the list of blocks, each with the parts of memory that it reads and writes
(a ``View`` is a shape, strides and an offset). It holds no arrays, and is cached for each size. The computation returns
steps: calls without arguments that fill ``out`` when they are run (``steps.py``). There, ``room(shape, dtype)`` gives
scratch memory. A function that takes ``steps`` appends the calls that will fill the array it returns. ``product``
returns the steps of ``np.matmul`` (``matmul.py``), and ``memory.empty`` is ``np.empty`` with recycled memory.

In memory, images are (H, C, W, N). With the batch innermost, the pixels of a window, for all images, are a few long
contiguous runs (see ``padded`` in ``windows.py``). The functions at the end take and return arrays (N, C, H, W).

Source: Chellapilla, Puri, Simard, *High performance convolutional neural networks for document processing*, 2006.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import accumulate
from operator import mul
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import memory, threads
from .matmul import product
from .steps import Blocked, Choice, Room, Steps, View, computed, kept
from .sums import single
from .windows import CACHED, Windows, aligned, cut, padded

Array = NDArray[Any]

# A block is many short calls, so it should be large; but what it has copied should still be in a core's cache of 0.5 to
# 2 MB when the product reads it. With half or twice these, steps of LeNet-5 take the same time within about 5 %.
_BYTES = 1 << 21  # the largest size of a block's columns, if possible
_RUN = 512  # the least number of pixels, of all images, in a row of a block: in shorter runs, copies are slow


class Geometry(NamedTuple):
    """The options of a convolution for images of one size: its windows and its groups."""

    windows: Windows
    groups: int


def unfold(x: Array, at: Windows) -> Array:
    """Every window of the images as a column (im2col), (N, C * kh * kw, OH * OW)."""
    (n, c), (kh, kw), (oh, ow) = x.shape[:2], at.kernel, at.grid
    images = np.zeros((n, c, *at.padded), x.dtype)
    images[(..., *at.inside)] = x
    columns = [images[(..., *at.pixels(a, b))] for a, b in np.ndindex(kh, kw)]
    return np.stack(columns, axis=2).reshape(n, c * kh * kw, oh * ow)


def fold(columns: Array, at: Windows) -> Array:
    """Add every column to the pixels of its window (col2im): images (N, C, H, W)."""
    n, (kh, kw), (oh, ow) = len(columns), at.kernel, at.grid
    c = columns.shape[1] // (kh * kw)
    patches = columns.reshape(n, c, kh, kw, oh, ow)
    images = np.zeros((n, c, *at.padded), single(columns[:0]).dtype)  # float16 is added in float32
    for a, b in np.ndindex(kh, kw):
        images[(..., *at.pixels(a, b))] += patches[:, :, a, b]
    return images[(..., *at.inside)].astype(columns.dtype, copy=False)


# Geometry: blocks of rows and columns


def _blocks(rows: int, width: int, pixel_bytes: int, batch: int, reach: int, work: int) -> list[tuple[slice, slice]]:
    """Cut an image into blocks (rows, columns), the same for any number of threads.

    ``pixel_bytes`` is the size of the columns of im2col for one pixel of all images. Along the height, each block
    copies ``reach`` rows that its neighbour copies too. ``work`` is the total number of multiply-adds.
    """
    shares = max(1, min(8, work // threads.WORTH))  # enough blocks for eight threads, if there is enough work
    # The width is cut first, for then no pixel is copied twice.
    fitting = min(_BYTES // max(1, pixel_bytes * rows), -(-width // shares))
    across = cut(width, max(1, fitting, min(width, _RUN // max(1, batch))))
    shares = -(-shares // max(1, len(across)))
    # With fewer rows than twice the reach, most rows would be copied by two blocks.
    fitting = max(2 * reach, _BYTES * len(across) // max(1, pixel_bytes * width))
    most = max(1, min(fitting, max(reach, -(-rows // shares))))
    count = -(-rows // most)
    if count > 1 and count * len(across) % 2:  # an even number is better for two threads
        most = -(-rows // (count + 1))
    return [(part, columns) for part in cut(rows, most) for columns in across]


class OutputBlock(NamedTuple):
    """A block of the output, and its columns of im2col, (groups, rows, kh * C / groups * kw, OW * N).

    OW is the width of the block, and N the number of images.

    im2col copies each pixel up to kh * kw times, once for each position in the kernel. Here a pixel is copied only for
    the kw positions along the width. Nothing is copied along the height: the columns of an output row are ``kh``
    adjacent rows of the copied memory. So all columns are a view of it, and those of neighbouring rows overlap.

    The second convolution of LeNet-5 copies images (14, 6, 14, N) to strips (1, 14, 6 * 5, 10 * N). Its columns are a
    view (1, 10, 5 * 6 * 5, 10 * N) of the strips.

    For a bias, each row of the strips gets a last row of ones. Its factor in the product is the bias in the first row
    of a window, else 0. So the bias takes no pass over the output.
    """

    place: tuple[slice, ...]  # the block's index in the output (OH, O, OW, N)
    number: int  # of the block: sums of blocks are added in this order
    strips: tuple[int, ...]  # the shape of the copied memory, (groups, H, C / groups * kw, OW * N)
    pixels: View  # of the images: the pixels to copy, (groups, H, C / groups, kw, OW, N)
    columns: View  # of the strips, see _columns_view


class ImageBlock(NamedTuple):
    """A block of the gradient of the images, and the output rows that it depends on.

    The gradient of image row y depends on the output rows (y - a * dh) / sh, for a in the kernel. The gradient of the
    output is stretched: sh - 1 rows of zeros are inserted between its rows, and more around them. Along the height, the
    gradient of the images is then a convolution with stride 1 and a flipped kernel, and its columns are a view as in
    :class:`OutputBlock`. Along the width, the products are added to the pixels as in :func:`fold`.
    """

    rows: slice  # of the images
    stretched: tuple[int, ...]  # the shape of the stretched gradient, (H, O, OW, N)
    zeros: tuple[slice, ...]  # its rows to fill with zeros; all rows if it is small or there is a stride
    source: slice  # the output rows to copy
    target: slice  # their places in the stretched gradient
    columns: View  # of the stretched gradient
    products: tuple[int, ...]  # the shape of the products, (groups, rows, C / groups * kw, OW * N)


def _columns_view(shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
    """The view (groups, rows, kh * depth, pixels) of memory; ``shape`` and ``strides`` have ``kh`` and ``depth`` apart.

    They stay two axes if they cannot be joined without a copy, because of dilation or groups.
    """
    groups, rows, kh, depth, pixels = shape
    step = strides[2] if depth == 1 else strides[3]
    if kh > 1 and strides[2] != depth * step:
        return View(shape, strides)
    return View((groups, rows, kh * depth, pixels), (*strides[:2], step, strides[4]))


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides of memory in row-major order."""
    return tuple(accumulate(shape[:0:-1], mul, initial=itemsize))[::-1]


@lru_cache(maxsize=256)
def _output_blocks(
    at: Geometry, channels: int, outs: int, batch: int, itemsize: int, ones: int = 0
) -> tuple[list[OutputBlock], int]:
    """The blocks of the output, and the number of multiply-adds; ``ones`` is 1 for a bias, else 0."""
    (padded_h, padded_w), groups, c = at.windows.padded, at.groups, channels // at.groups
    (kh, kw), (sh, sw), (dh, dw), (oh, ow) = at.windows.kernel, at.windows.stride, at.windows.dilation, at.windows.grid
    s_h, s_c, s_w, s_n = _strides((padded_h, channels, padded_w, batch), itemsize)  # of the images; t_ of the strips
    work = outs * c * kh * kw * oh * ow * batch
    found = []
    for number, (rows, columns) in enumerate(_blocks(oh, ow, channels * kw * batch * itemsize, batch, kh, work)):
        count, width = rows.stop - rows.start, columns.stop - columns.start
        height = (count - 1) * sh + (kh - 1) * dh + 1
        shape = (groups, height, c, kw, width, batch)
        start = rows.start * sh * s_h + columns.start * sw * s_w
        pixels = View(shape, (c * s_c, s_h, s_c, s_w * dw, s_w * sw, s_n), start)
        strips = (groups, height, c * kw + ones, width * batch)
        t_g, t_h, t_k, t_n = _strides(strips, itemsize)
        view = _columns_view((groups, count, kh, strips[2], width * batch), (t_g, t_h * sh, t_h * dh, t_k, t_n))
        found.append(OutputBlock((rows, slice(None), columns), number, strips, pixels, view))
    return found, work


@lru_cache(maxsize=256)
def _image_blocks(at: Geometry, channels: int, outs: int, batch: int, itemsize: int) -> tuple[list[ImageBlock], int]:
    """The blocks of the images, and the number of multiply-adds."""
    groups, o, height = at.groups, outs // at.groups, at.windows.size[0]
    (kh, kw), (sh, _), dh, (oh, ow) = at.windows.kernel, at.windows.stride, at.windows.dilation[0], at.windows.grid
    reach = (kh - 1) * dh
    work = height * channels * at.windows.padded[1] * batch * o * kh * kw
    found = []
    for rows, _ in _blocks(height, 1, outs * ow * batch * itemsize, batch, reach + 1, work):
        count = rows.stop - rows.start
        stretched = (count + reach, outs, ow, batch)
        # Its first row, counted so that output row i is row sh * i.
        first = rows.start + at.windows.before[0] - reach
        low, high = max(0, -(-first // sh)), min(oh, (first + count + reach - 1) // sh + 1)
        high = max(low, high)  # a block between two windows may depend on no output row
        target = slice(low * sh - first, max(0, (high - 1) * sh - first + 1), sh)
        s_h, s_o, _, s_n = _strides(stretched, itemsize)
        whole = sh > 1 or stretched[0] * s_h <= CACHED
        zeros = (slice(None),) if whole else (slice(low - first), slice(high - first, None))
        columns = _columns_view((groups, count, kh, o, ow * batch), (o * s_o, s_h, s_h * dh, s_o, s_n))
        products = (groups, count, channels // groups * kw, ow * batch)
        found.append(ImageBlock(rows, stretched, zeros, slice(low, high), target, columns, products))
    return found, work


# Computation


def _matrices(columns: View, array: Array, room: Room, steps: Steps) -> Array:
    """The columns in an array, (groups, rows, kh * depth, pixels): a view, or a copy if the view has five axes."""
    view = columns.of(array)
    if view.ndim == 4:
        return view
    groups, rows, kh, depth, pixels = view.shape
    copy = room((groups, rows, kh * depth, pixels), view.dtype)
    steps.append(partial(np.copyto, copy.reshape(view.shape), view))
    return copy


def _joined(x: Array) -> bool:
    """True if the last two axes, the pixels of all images, are one axis in memory: then BLAS needs no copy."""
    *_, width, n = x.shape
    return (n == 1 or x.strides[-1] == x.itemsize) and (width == 1 or x.strides[-2] == n * x.itemsize)


def _columns(images: Array, block: OutputBlock, room: Room, steps: Steps, ones: int = 0) -> Array:
    """The columns of a block, (groups, rows, kh * C / groups * kw, OW * N)."""
    strips = room(block.strips, images.dtype)
    copies = strips[:, :, : strips.shape[2] - ones].reshape(block.pixels.shape)
    steps.append(partial(np.copyto, copies, block.pixels.of(images)))
    if ones:
        steps.append(partial(strips[:, :, -1].fill, 1))
    return _matrices(block.columns, strips, room, steps)


def output_steps(out: Array, room: Room, x: Array, weight: Array, bias: Array | None, at: Geometry) -> Steps:
    """The steps of :func:`conv2d` into ``out``, (N, O, OH, OW), of a dtype other than float16."""
    (o, c, kh, kw), groups, dtype = weight.shape, at.groups, out.dtype
    steps: Steps = []
    images = padded(x, at.windows, dtype, room, steps)
    by_row = weight.reshape(groups, o // groups, c, kh, kw).transpose(0, 1, 3, 2, 4)
    ones = int(bias is not None)
    matrix = room((groups, o // groups, kh, c * kw + ones), dtype)
    steps.append(partial(np.copyto, matrix[..., : c * kw].reshape(by_row.shape), by_row))
    if bias is not None:
        steps.append(partial(matrix[..., -1].fill, 0))
        steps.append(partial(np.copyto, matrix[:, :, 0, -1], bias.reshape(groups, o // groups)))
    kernel = matrix.reshape(groups, 1, o // groups, kh * (c * kw + ones))

    def compute(block: OutputBlock) -> Steps:
        inner: Steps = []
        columns = _columns(images, block, room, inner, ones)
        target = out.transpose(2, 1, 3, 0)[block.place]
        sums = target if _joined(target) else room(target.shape, dtype)
        by_group = sums.reshape(len(sums), groups, o // groups, columns.shape[3]).transpose(1, 0, 2, 3)
        inner += product(kernel, columns, by_group, room)  # weight.reshape(O, -1) @ columns
        if sums is not target:
            inner.append(partial(np.copyto, target, sums))
        return inner

    blocks, work = _output_blocks(at, c * groups, o, len(x), dtype.itemsize, ones)
    return [*steps, Blocked(compute, blocks, work)]


def input_grad_steps(out: Array, room: Room, g: Array, weight: Array, at: Geometry) -> Steps:
    """The steps of :func:`input_grad` into ``out``, (N, C, H, W), of a dtype other than float16."""
    (o, c, kh, kw), groups, dtype = weight.shape, at.groups, out.dtype
    sw, dw, ow, width = at.windows.stride[1], at.windows.dilation[1], at.windows.grid[1], at.windows.padded[1]
    by_row, images = g.transpose(2, 1, 3, 0), out.transpose(2, 1, 3, 0)
    deliver: Steps = []
    if width != at.windows.size[1]:
        result, images = images, room((at.windows.size[0], c * groups, width, len(g)), dtype)
        deliver = [partial(np.copyto, result, images[:, :, at.windows.inside[1]])]
    steps: Steps = []
    flipped = weight.reshape(groups, o // groups, c, kh, kw)[:, :, :, ::-1].transpose(0, 2, 4, 3, 1)
    kernel = aligned(flipped, dtype, room, steps).reshape(groups, 1, c * kw, kh * o // groups)

    def compute(block: ImageBlock) -> Steps:
        inner: Steps = []
        grads, products = room(block.stretched, dtype), room(block.products, dtype)
        for zeros in block.zeros:
            inner.append(partial(grads[zeros].fill, 0))
        inner.append(partial(np.copyto, grads[block.target], by_row[block.source]))
        columns = _matrices(block.columns, grads, room, inner)
        inner += product(kernel, columns, products, room)
        target = images[block.rows]
        by_group = target.reshape(len(target), groups, c, width, len(g)).transpose(1, 0, 2, 3, 4)
        parts = products.reshape(groups, len(target), c, kw, ow, len(g))
        first = int(sw == 1)  # then the first products fill their pixels
        if first:
            inner.append(partial(np.copyto, by_group[:, :, :, :ow], parts[:, :, :, 0]))
        inner.append(partial(by_group[:, :, :, first * ow :].fill, 0))
        for b in range(first, kw):  # as in fold, along the width only
            pixels = by_group[:, :, :, b * dw : b * dw + (ow - 1) * sw + 1 : sw]
            inner.append(partial(np.add, pixels, parts[:, :, :, b], pixels))
        return inner

    blocks, work = _image_blocks(at, c * groups, o, len(g), dtype.itemsize)
    fast: Steps = [*steps, Blocked(compute, blocks, work), *deliver]
    finite = np.empty(weight.shape, np.bool_)
    choice = Choice(finite.all, fast, [partial(_input_grad_by_fold, out, g, weight, at)])
    return [partial(np.isfinite, weight, finite), choice]


def weight_grad_steps(out: Array, room: Room, x: Array, g: Array, at: Geometry) -> Steps:
    """The steps of :func:`weight_grad` into ``out``, (O, C / groups, kh, kw)."""
    (o, c, kh, kw), groups, dtype = out.shape, at.groups, out.dtype
    depth = kh * c * kw
    blocks, work = _output_blocks(at, c * groups, o, len(x), dtype.itemsize)
    steps: Steps = []
    images = padded(x, at.windows, dtype, room, steps)
    sums = room((len(blocks), groups, depth, o // groups), dtype)

    def compute(block: OutputBlock) -> Steps:
        inner: Steps = []
        columns = _columns(images, block, room, inner)
        grads = g.transpose(2, 1, 3, 0)[block.place]
        if not _joined(grads) or grads.dtype != dtype:
            grads = aligned(grads, dtype, room, inner)
        grads = grads.reshape(len(grads), groups, o // groups, columns.shape[3]).transpose(1, 0, 3, 2)
        products = room((*grads.shape[:2], depth, o // groups), dtype)
        # columns @ g.T and not g @ columns.T: twice as fast at these flat shapes
        inner += product(columns, grads, products, room)
        inner.append(partial(np.add.reduce, products, 1, None, sums[block.number]))
        return inner

    by_weight = sums.reshape(len(blocks), groups, kh, c, kw, o // groups).transpose(0, 1, 5, 3, 2, 4)
    result = out.reshape(groups, o // groups, c, kh, kw)
    return [*steps, Blocked(compute, blocks, work), partial(np.add.reduce, by_weight, 0, None, result)]


# The kernels: steps made and run at once


@kept(output_steps)
def conv2d(x: Array, weight: Array, bias: Array | None, at: Geometry) -> Array:
    """The convolution, (N, O, OH, OW)."""
    dtype = np.result_type(x, weight) if bias is None else np.result_type(x, weight, bias)
    if dtype == np.float16:
        return conv2d(single(x), single(weight), None if bias is None else single(bias), at).astype(dtype)
    out = memory.empty((at.windows.grid[0], len(weight), at.windows.grid[1], len(x)), dtype)
    return computed(output_steps, out.transpose(3, 1, 0, 2), x, weight, bias, at)


@kept(input_grad_steps)
def input_grad(g: Array, weight: Array, at: Geometry) -> Array:
    """The gradient of the images, (N, C, H, W).

    Each window that contains a pixel adds its gradient, times the weight at the place of the pixel.
    """
    dtype = np.result_type(g, weight)
    if dtype == np.float16:
        return input_grad(single(g), single(weight), at).astype(dtype)
    height, width = at.windows.size
    out = memory.empty((height, weight.shape[1] * at.groups, width, len(g)), dtype)
    return computed(input_grad_steps, out.transpose(3, 1, 0, 2), g, weight, at)


def _input_grad_by_fold(out: Array, g: Array, weight: Array, at: Geometry) -> None:
    """:func:`input_grad` for infinite weights, without the inserted zeros: their products would be NaN."""
    n, o, oh, ow = g.shape
    by_group = g.reshape(n, at.groups, o // at.groups, oh * ow).astype(out.dtype, copy=False)
    kernel = weight.reshape(at.groups, o // at.groups, -1).swapaxes(1, 2).astype(out.dtype, copy=False)
    columns = np.matmul(kernel, by_group).reshape(n, out.shape[1] * weight[0, 0].size, oh * ow)  # n may be 0
    np.copyto(out, fold(columns, at.windows))


@kept(weight_grad_steps)
def weight_grad(x: Array, g: Array, at: Geometry) -> Array:
    """The gradient of the weight, (O, C / groups, kh, kw).

    Each window adds its gradient, times the pixel at the place of a weight, to that weight.
    """
    dtype = np.result_type(x, g)
    if dtype == np.float16:
        return weight_grad(single(x), single(g), at).astype(dtype)
    out = memory.empty((g.shape[1], x.shape[1] // at.groups, *at.windows.kernel), dtype)
    return computed(weight_grad_steps, out, x, g, at)
