"""Convolution, fast: gather the windows of the images as columns, and the convolution is one matrix product (im2col).

``weight.reshape(O, -1) @ unfold(x, at)`` is the whole idea, and ``fold(weight.reshape(O, -1).T @ g, at)`` its gradient.
The functions after these two compute the same from columns that are mostly a view (see :class:`OutputBlock`), and are
made again for the gradients: to keep them would take a multiple of the memory of the images.

Each kernel comes in two layers. The geometry says which blocks a convolution is cut into, and how each block looks at
memory; it holds no arrays, and is made once for each size. The computation gives the steps that fill ``out`` (see
``steps.py``). In memory images lie as (H, C, W, N), see :func:`padded`; the functions at the end take and return
(N, C, H, W).

Source: Chellapilla, Puri, Simard, *High performance convolutional neural networks for document processing*, 2006.
"""

from __future__ import annotations

import functools
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import memory, threads
from .matmul import common_dtype, product
from .steps import Blocked, Room, Steps, View, run
from .sums import single
from .windows import Windows, aligned, cut, padded

Array = NDArray[Any]

_CHUNK = 256  # images that a block has at most: shorter runs are slower to copy and to multiply
_ROOM = 1 << 20  # bytes that the columns of a block should not exceed, about that cache


class Geometry(NamedTuple):
    """All that the options of a convolution say, for images of one size."""

    windows: Windows
    groups: int


def unfold(x: Array, at: Windows) -> Array:
    """Every window of the images as a column (im2col), (N, C * kh * kw, OH * OW)."""
    (n, c), (kh, kw), (oh, ow) = x.shape[:2], at.kernel, at.grid
    images = np.zeros((n, c, *at.padded), x.dtype)
    images[(..., *at.inside)] = x
    columns = [images[(..., *at.at(a, b))] for a, b in np.ndindex(kh, kw)]
    return np.stack(columns, axis=2).reshape(n, c * kh * kw, oh * ow)


def fold(columns: Array, at: Windows) -> Array:
    """Images (N, C, H, W), to which every column is added where its window lies (col2im)."""
    n, (kh, kw), (oh, ow) = len(columns), at.kernel, at.grid
    c = columns.shape[1] // (kh * kw)
    patches = columns.reshape(n, c, kh, kw, oh, ow)
    images = np.zeros((n, c, *at.padded), single(columns[:0]).dtype)  # float16 is added in float32
    for a, b in np.ndindex(kh, kw):
        images[(..., *at.at(a, b))] += patches[:, :, a, b]
    return images[(..., *at.inside)].astype(columns.dtype, copy=False)


# Geometry: blocks of rows and of the batch


def _blocks(rows: int, batch: int, row: int, reach: int, work: int) -> list[tuple[slice, slice]]:
    """Blocks (rows, chunk of the batch) that make up the whole, the same for any number of threads.

    ``row`` is the bytes of a row's columns for one image, ``reach`` the rows of which neighbouring blocks both need the
    columns, ``work`` the multiply-adds in all.
    """
    chunks = cut(batch, _CHUNK)
    # Several rows at once, or neighbours would gather most of their columns twice.
    fitting = max(2 * reach, _ROOM // max(1, row * min(batch, _CHUNK)))
    shares = max(1, min(8, work // (threads.WORTH * max(1, len(chunks)))))
    most = max(1, min(fitting, -(-rows // shares)))
    return [(part, chunk) for chunk in chunks for part in cut(rows, most)]


class OutputBlock(NamedTuple):
    """A block of the output, and its columns of im2col, (groups, rows, kh * C / groups * kw, OW * N).

    Only the width of the windows is gathered. Rows come first in that memory, so the ``kh`` rows that a row of windows
    needs are one matrix as they lie there: the images are copied ``kw`` times, not ``kh * kw`` times.
    """

    rows: slice  # of the output
    chunk: slice  # of the batch
    rank: int  # in the order in which sums over blocks are added
    wide: tuple[int, ...]  # the shape of what is gathered, (groups, H, C / groups, kw, OW, N)
    seen: View  # of the images, in that shape
    stacked: View  # of what is gathered, see _stacked


class ImageBlock(NamedTuple):
    """A block of the images, and the rows of the output that saw it.

    The gradient of image row y is made of those of the output rows (y - a * dh) / sh. Spread out, with rows of zeros
    between and around them, these are columns like those of im2col.
    """

    rows: slice  # of the images
    chunk: slice  # of the batch
    spread: tuple[int, ...]  # the shape of the output rows with zeros between and around them, (H, O, OW, N)
    zeros: tuple[slice, ...]  # the rows of zeros; all, if these lie between others
    taken: slice  # rows of the output
    placed: slice  # the same rows, spread out
    stacked: View  # of the spread rows
    wide: tuple[int, ...]  # the shape of the products, (groups, rows, C / groups * kw, OW * N)


def _stacked(shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
    """The view (groups, rows, kh * depth, pixels) of memory in which the kernel's rows lie one below the other; of five
    axes, with ``kh`` and ``depth`` apart, if dilation or groups keep them apart in memory.
    """
    groups, rows, kh, depth, pixels = shape
    step = strides[2] if depth == 1 else strides[3]
    if kh > 1 and strides[2] != depth * step:
        return View(shape, strides)
    return View((groups, rows, kh * depth, pixels), (*strides[:2], step, strides[4]))


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides of memory in row-major order."""
    found = [itemsize]
    for n in shape[:0:-1]:
        found.append(found[-1] * n)
    return tuple(found[::-1])


@functools.lru_cache(maxsize=256)
def _output_blocks(at: Geometry, channels: int, outs: int, batch: int, itemsize: int) -> tuple[list[OutputBlock], int]:
    """The blocks of the output, and the multiply-adds of all."""
    (height, width), groups, c = at.windows.padded, at.groups, channels // at.groups
    (kh, kw), (sh, sw), (dh, dw), (oh, ow) = at.windows.kernel, at.windows.stride, at.windows.dilation, at.windows.grid
    s_h, s_c, s_w, s_n = _strides((height, channels, width, batch), itemsize)
    work = outs * c * kh * kw * oh * ow * batch
    blocks, found = _blocks(oh, batch, channels * kw * ow * itemsize, kh, work), []
    ranked = sorted(blocks, key=lambda block: (block[0].start, block[1].start))
    for rows, chunk in blocks:
        count, n = rows.stop - rows.start, chunk.stop - chunk.start
        wide = (groups, (count - 1) * sh + (kh - 1) * dh + 1, c, kw, ow, n)
        start = rows.start * sh * s_h + chunk.start * s_n
        seen = View(wide, (c * s_c, s_h, s_c, s_w * dw, s_w * sw, s_n), start)
        t_g, t_h, _, t_k, _, t_n = _strides(wide, itemsize)
        stacked = _stacked((groups, count, kh, c * kw, ow * n), (t_g, t_h * sh, t_h * dh, t_k, t_n))
        found.append(OutputBlock(rows, chunk, ranked.index((rows, chunk)), wide, seen, stacked))
    return found, work


@functools.lru_cache(maxsize=256)
def _image_blocks(at: Geometry, channels: int, outs: int, batch: int, itemsize: int) -> tuple[list[ImageBlock], int]:
    """The blocks of the images, and the multiply-adds of all."""
    groups, o, height = at.groups, outs // at.groups, at.windows.size[0]
    (kh, kw), (sh, _), dh, (oh, ow) = at.windows.kernel, at.windows.stride, at.windows.dilation[0], at.windows.grid
    reach = (kh - 1) * dh
    work = height * channels * at.windows.padded[1] * batch * o * kh * kw
    found = []
    for rows, chunk in _blocks(height, batch, outs * ow * itemsize, reach + 1, work):
        count, n = rows.stop - rows.start, chunk.stop - chunk.start
        spread = (count + reach, outs, ow, n)
        first = rows.start + at.windows.before[0] - reach  # what its first row is; row sh * i is output row i
        low, high = max(0, -(-first // sh)), min(oh, (first + count + reach - 1) // sh + 1)
        high = max(low, high)  # there is none between two windows that lie far apart
        placed = slice(low * sh - first, max(0, (high - 1) * sh - first + 1), sh)
        zeros = (slice(None),) if sh > 1 else (slice(low - first), slice(high - first, None))
        s_h, s_o, _, s_n = _strides(spread, itemsize)
        stacked = _stacked((groups, count, kh, o, ow * n), (o * s_o, s_h, s_h * dh, s_o, s_n))
        wide = (groups, count, channels // groups * kw, ow * n)
        found.append(ImageBlock(rows, chunk, spread, zeros, slice(low, high), placed, stacked, wide))
    return found, work


# Computation


def _matrix(stacked: View, gathered: Array, room: Room, steps: Steps) -> Array:
    """What is gathered, as matrices: a view if it can be one, or a copy."""
    view = stacked.of(gathered)
    if view.ndim == 4:
        return view
    groups, rows, kh, depth, pixels = view.shape
    copy = room((groups, rows, kh * depth, pixels), view.dtype)
    steps.append(partial(np.copyto, copy.reshape(view.shape), view))
    return copy


def _weight_matrix(turned: Array, shape: tuple[int, ...], dtype: np.dtype[Any], room: Room, steps: Steps) -> Array:
    """A weight of five axes, in another order, as matrices: a view if it can be one, or a copy."""
    if 1 in turned.shape[1:] and turned.dtype == dtype:
        matrix = turned.reshape(shape)
        if np.may_share_memory(matrix, turned):
            return matrix
    copy = room(turned.shape, dtype)
    steps.append(partial(np.copyto, copy, turned))
    return copy.reshape(shape)


def _columns(images: Array, block: OutputBlock, room: Room, steps: Steps) -> Array:
    """The columns of a block."""
    wide = room(block.wide, images.dtype)
    steps.append(partial(np.copyto, wide, block.seen.of(images)))
    return _matrix(block.stacked, wide, room, steps)


def output_steps(out: Array, room: Room, x: Array, weight: Array, bias: Array | None, at: Geometry) -> Steps:
    """The steps of :func:`conv2d` into ``out``, (OH, O, OW, N)."""
    (o, c, kh, kw), groups, dtype = weight.shape, at.groups, out.dtype
    steps: Steps = []
    images = padded(x, at.windows, dtype, room, steps)
    by_row = weight.reshape(groups, o // groups, c, kh, kw).transpose(0, 1, 3, 2, 4)
    kernel = _weight_matrix(by_row, (groups, 1, o // groups, kh * c * kw), dtype, room, steps)

    def compute(block: OutputBlock) -> Steps:
        steps: Steps = []
        columns = _columns(images, block, room, steps)
        target = out[block.rows, :, :, block.chunk]
        whole = target.flags.c_contiguous  # then the product can be written where it belongs
        sums = target if whole else room(target.shape, dtype)
        by_group = sums.reshape(len(sums), groups, o // groups, columns.shape[3]).transpose(1, 0, 2, 3)
        steps += product(kernel, columns, by_group, room)
        if bias is not None:
            steps.append(partial(np.add, sums, bias.reshape(-1, 1, 1), target))
        elif not whole:
            steps.append(partial(np.copyto, target, sums))
        return steps

    blocks, work = _output_blocks(at, c * groups, o, len(x), dtype.itemsize)
    return [*steps, Blocked(compute, blocks, work)]


def input_grad_steps(images: Array, room: Room, g: Array, weight: Array, at: Geometry) -> Steps:
    """The steps of :func:`input_grad` for finite weights into ``images``, (H, C, padded W, N)."""
    (o, c, kh, kw), groups, dtype = weight.shape, at.groups, images.dtype
    sw, dw, ow, width = at.windows.stride[1], at.windows.dilation[1], at.windows.grid[1], at.windows.padded[1]
    by_row = g.transpose(2, 1, 3, 0)
    steps: Steps = []
    flipped = weight.reshape(groups, o // groups, c, kh, kw)[:, :, :, ::-1].transpose(0, 2, 4, 3, 1)
    kernel = _weight_matrix(flipped, (groups, 1, c * kw, kh * o // groups), dtype, room, steps)

    def compute(block: ImageBlock) -> Steps:
        grads, wide = room(block.spread, dtype), room(block.wide, dtype)
        steps: Steps = []
        for zeros in block.zeros:
            steps.append(partial(grads[zeros].fill, 0))
        steps.append(partial(np.copyto, grads[block.placed], by_row[block.taken, :, :, block.chunk]))
        columns = _matrix(block.stacked, grads, room, steps)
        steps += product(kernel, columns, wide, room)
        target = images[block.rows, :, :, block.chunk]
        steps.append(partial(target.fill, 0))
        count, _, _, n = target.shape
        by_group = target.reshape(count, groups, c, width, n).transpose(1, 0, 2, 3, 4)
        parts = wide.reshape(groups, count, c, kw, ow, n)
        for b in range(kw):
            some = by_group[:, :, :, b * dw : b * dw + (ow - 1) * sw + 1 : sw]
            steps.append(partial(np.add, some, parts[:, :, :, b], some))
        return steps

    blocks, work = _image_blocks(at, c * groups, o, len(g), dtype.itemsize)
    return [*steps, Blocked(compute, blocks, work)]


def weight_grad_steps(out: Array, room: Room, x: Array, g: Array, at: Geometry) -> Steps:
    """The steps of :func:`weight_grad` into ``out``, (O, C / groups, kh, kw)."""
    (o, c, kh, kw), groups, dtype = out.shape, at.groups, out.dtype
    depth = kh * c * kw
    blocks, work = _output_blocks(at, c * groups, o, len(x), dtype.itemsize)
    by_row = g.transpose(2, 1, 3, 0)
    steps: Steps = []
    images = padded(x, at.windows, dtype, room, steps)
    total, sums = room((groups, depth, o // groups), dtype), room((len(blocks), groups, depth, o // groups), dtype)

    def compute(block: OutputBlock) -> Steps:
        steps: Steps = []
        columns = _columns(images, block, room, steps)
        grads = aligned(by_row[block.rows, :, :, block.chunk], dtype, room, steps)
        count = len(grads)
        grads = grads.reshape(count, groups, o // groups, columns.shape[3]).transpose(1, 0, 3, 2)
        products = room((groups, count, depth, o // groups), dtype)
        # columns @ g.T and not g @ columns.T: twice as fast at these flat shapes
        steps += product(columns, grads, products, room)
        steps.append(partial(np.add.reduce, products, 1, None, sums[block.rank]))
        return steps

    steps += [Blocked(compute, blocks, work), partial(total.fill, 0)]
    for part in sums:
        steps.append(partial(np.add, total, part, total))
    by_weight = total.reshape(groups, kh, c, kw, o // groups).transpose(0, 4, 2, 1, 3)
    return [*steps, partial(np.copyto, out.reshape(groups, o // groups, c, kh, kw), by_weight)]


# At once


def conv2d(x: Array, weight: Array, bias: Array | None, at: Geometry) -> Array:
    """The output, (N, O, OH, OW)."""
    dtype = common_dtype(x, weight) if bias is None else common_dtype(x, weight, bias)
    if dtype == np.float16:
        return conv2d(single(x), single(weight), None if bias is None else single(bias), at).astype(dtype)
    out = memory.empty((at.windows.grid[0], len(weight), at.windows.grid[1], len(x)), dtype)
    run(output_steps(out, memory.empty, x, weight, bias, at))
    return out.transpose(3, 1, 0, 2)


def input_grad(g: Array, weight: Array, at: Geometry) -> Array:
    """The gradient for the images: each product of a weight and a gradient goes to the pixel that the weight saw."""
    dtype = common_dtype(g, weight)
    if dtype == np.float16:
        return input_grad(single(g), single(weight), at).astype(dtype)
    if not np.isfinite(weight).all():
        return _stamped(g, weight, at, dtype)
    images = memory.empty((at.windows.size[0], weight.shape[1] * at.groups, at.windows.padded[1], len(g)), dtype)
    run(input_grad_steps(images, memory.empty, g, weight, at))
    return images[:, :, at.windows.inside[1]].transpose(3, 1, 0, 2)


def _stamped(g: Array, weight: Array, at: Geometry, dtype: np.dtype[Any]) -> Array:
    """:func:`input_grad` window by window: the zeros between and around them would make NaN of infinite weights."""
    n, o, oh, ow = g.shape
    by_group = g.reshape(n, at.groups, o // at.groups, oh * ow).astype(dtype, copy=False)
    kernel = weight.reshape(at.groups, o // at.groups, -1).swapaxes(1, 2).astype(dtype, copy=False)
    return fold(np.matmul(kernel, by_group).reshape(n, -1, oh * ow), at.windows)


def weight_grad(x: Array, g: Array, at: Geometry) -> Array:
    """The gradient for the weight, (O, C / groups, kh, kw)."""
    dtype = common_dtype(x, g)
    if dtype == np.float16:
        return weight_grad(single(x), single(g), at).astype(dtype)
    out = memory.empty((g.shape[1], x.shape[1] // at.groups, *at.windows.kernel), dtype)
    run(weight_grad_steps(out, memory.empty, x, g, at))
    return out
