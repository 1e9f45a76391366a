"""Max and average pooling: one strided view of the images for each position in the kernel, and a running maximum or sum
over these views.

Each kernel has two layers. The geometry, :class:`Windows` or :class:`Averages`, says where the windows are and how
their rows are cut into blocks. It holds no arrays. The computation returns the steps that fill ``out`` (``steps.py``).
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import memory
from .masks import BITS
from .steps import Blocked, Room, Steps, computed, kept
from .windows import Windows, cut, padded

Array = NDArray[Any]

_ROOM = 2_400_000  # bytes of images in a block, for threads to share: with fewer, the calls take longer
_BOOL, _HALF, _SINGLE = (np.dtype(kind) for kind in (np.bool_, np.float16, np.float32))


# Geometry


class Averages(NamedTuple):
    """Windows, and the divisor for the sum of each."""

    windows: Windows
    count_include_pad: bool  # whether padding counts as pixels
    divisor_override: int | None  # divide by this in place of the number of pixels

    def weight(self, dtype: np.dtype[Any]) -> Any:
        """One over the divisor of each window: a number, or (OH, OW) where windows differ."""
        at = self.windows
        if self.divisor_override is not None or at.padded == (at.full if self.count_include_pad else at.size):
            return 1 / (self.divisor_override or at.kernel[0] * at.kernel[1])
        counts = []
        for i in (0, 1):
            first, last = (0, at.full[i]) if self.count_include_pad else (at.before[i], at.before[i] + at.size[i])
            starts = np.arange(at.grid[i]) * at.stride[i]
            counts.append(np.minimum(starts + at.kernel[i], last) - np.maximum(starts, first))
        return (1 / np.outer(*counts)).astype(dtype)


class Block(NamedTuple):
    """Some rows of windows."""

    rows: slice
    places: tuple[Any, ...]  # for each position in the kernel, in row-major order, an index: the windows' pixels there


@lru_cache(maxsize=256)
def blocks(at: Windows, parts: int) -> list[Block]:
    """Blocks of rows of windows: about ``parts`` of them, or one if neighbouring rows share pixels."""
    count = at.grid[0]
    if parts < 2 or at.dilation[0] * (at.kernel[0] - 1) >= at.stride[0]:
        cuts = [slice(0, count)]
    else:
        cuts = cut(count, -(-count // (parts + parts % 2)))  # an even number, for two threads
    return [Block(rows, tuple((..., *at.pixels(a, b, rows)) for a, b in np.ndindex(at.kernel))) for rows in cuts]


# Computation


def _tiles(images: Array, at: Windows) -> Array:
    """The images with an axis for each axis of the tiling windows, (N, C, OH, kh, OW, kw): a view."""
    return images.reshape(*images.shape[:2], at.grid[0], at.kernel[0], at.grid[1], at.kernel[1])


def _blocked(compute: Any, at: Windows, images: Array) -> Blocked:
    """The step that computes rows of windows block by block."""
    # The work: a block is many short calls, so threads pay off for large images only.
    return Blocked(compute, blocks(at, -(-images.nbytes // _ROOM)), 25 * images.size)


def _padded(x: Array, at: Windows, room: Room, steps: Steps, fill: float) -> Array:
    """The images (N, C, H, W) with padding, which appended steps write; the same array if there is none."""
    return x if at.padded == at.size else padded(x, at, x.dtype, room, steps, fill).transpose(3, 1, 0, 2)


def _reduce(ufunc: np.ufunc, images: Array, at: Windows, out: Array, steps: Steps) -> None:
    """Append the steps that write the maximum or the sum of each window to ``out``."""

    def compute(block: Block) -> Steps:
        first, *views = [images[place] for place in block.places]
        result = out[:, :, block.rows]
        steps: Steps = []
        if not views or first.dtype != out.dtype:
            steps.append(partial(np.copyto, result, first))
            first = result
        for view in views:
            steps.append(partial(ufunc, first, view, out=result))
            first = result
        return steps

    if at.many:
        steps.append(partial(ufunc.reduce, _tiles(images, at), (3, 5), out.dtype, out))
    else:
        steps.append(_blocked(compute, at, images))


def max_steps(out: Array, room: Room, x: Array, at: Windows) -> Steps:
    """The steps of :func:`max_pool2d` into ``out``, (N, C, OH, OW)."""
    steps: Steps = []
    kind = x.dtype.kind
    lowest = -np.inf if kind == "f" else 0 if kind == "b" else int(np.iinfo(x.dtype).min)
    _reduce(np.maximum, _padded(x, at, room, steps, lowest), at, out, steps)
    return steps


def mean_steps(out: Array, room: Room, x: Array, at: Averages) -> Steps:
    """The steps of :func:`avg_pool2d` into ``out``, (N, C, OH, OW); float16 is added in float32."""
    steps: Steps = []
    sums = memory.empty_like(out, _SINGLE, room) if out.dtype == _HALF else out
    _reduce(np.add, _padded(x, at.windows, room, steps, 0), at.windows, sums, steps)
    steps.append(partial(np.multiply, sums, at.weight(sums.dtype), sums))
    if sums is not out:
        steps.append(partial(np.copyto, out, sums, "same_kind"))
    return steps


def _collect(out: Array, room: Room, at: Windows, steps: Steps) -> tuple[Array, Steps]:
    """The array to which windows add gradients, and the steps that then copy it to ``out``.

    It is ``out`` itself unless padding or float32 sums require scratch memory. An appended step clears it, unless each
    pixel is written exactly once.
    """
    if at.tiling:
        return out, []
    sums, dtype = out, _SINGLE if out.dtype == _HALF else out.dtype
    if at.padded != at.size or dtype != out.dtype:
        sums = memory.like(out, (*out.shape[:2], *at.padded), dtype, room)
    steps.append(partial(sums.fill, 0))
    return sums, [] if sums is out else [partial(np.copyto, out, sums[(..., *at.inside)], "same_kind")]


def _first_maxima(images: Array, peak: Array, block: Block, room: Room) -> tuple[Array, list[Steps]]:
    """A mask, and for each position in the kernel the steps that set it where a window has its first maximum there."""
    won, free = memory.empty_like(peak, _BOOL, room), memory.empty_like(peak, _BOOL, room)
    positions: list[Steps] = [[partial(np.equal, images[place], peak, won)] for place in block.places]
    positions[-1] = [partial(np.equal, peak, peak, won)]  # a maximum not found before is there, unless it is NaN
    positions[0].append(partial(np.logical_not, won, free))
    for position in positions[1:]:
        position.append(partial(np.logical_and, won, free, won))
    for position in positions[1:-1]:
        position.append(partial(np.logical_xor, won, free, free))
    return won, positions


def unpool_steps(out: Array, room: Room, g: Array, x: Array, peak: Array, at: Windows) -> Steps:
    """The steps of :func:`unpool` into ``out``, (N, C, H, W)."""
    steps: Steps = []
    images = _padded(x, at, room, steps, np.nan)  # NaN never wins
    grads, deliver = _collect(out, room, at, steps)
    tiling, integer = at.tiling, BITS[g.dtype.itemsize]
    targets = grads.view(integer) if tiling else grads

    def compute(block: Block) -> Steps:
        top, upstream = peak[:, :, block.rows], g[:, :, block.rows].view(integer)
        bits = None if tiling else memory.empty_like(top, integer, room)
        won, positions = _first_maxima(images, top, block, room)
        ones = won.view(np.int8)
        steps: Steps = []
        for position, place in zip(positions, block.places, strict=True):
            target = targets[place]
            steps += position
            # As integers, so that inf * 0 is 0.
            steps.append(partial(np.multiply, upstream, ones, target if bits is None else bits))
            if bits is not None:
                steps.append(partial(np.add, target, bits.view(g.dtype), target))
        return steps

    return [*steps, _blocked(compute, at, images), *deliver]


def repool_steps(out: Array, room: Room, g: Array, x: Array, peak: Array, at: Windows) -> Steps:
    """The steps of :func:`repool` into ``out``, (N, C, OH, OW)."""
    steps: Steps = []
    images, values = _padded(x, at, room, steps, np.nan), _padded(g, at, room, steps, 0)

    def compute(block: Block) -> Steps:
        picked = out[:, :, block.rows]
        won, positions = _first_maxima(images, peak[:, :, block.rows], block, room)
        steps: Steps = [partial(picked.fill, 0)]
        for position, place in zip(positions, block.places, strict=True):
            steps += [*position, partial(np.copyto, picked, values[place], where=won)]
        return steps

    return [*steps, _blocked(compute, at, images)]


def share_steps(out: Array, room: Room, g: Array, averages: Averages) -> Steps:
    """The steps of :func:`avg_unpool` into ``out``, (N, C, H, W); float16 is added in float32."""
    at, dtype = averages.windows, _SINGLE if g.dtype == _HALF else g.dtype
    weight, tiling = averages.weight(dtype), at.tiling
    steps: Steps = []
    grads, deliver = _collect(out, room, at, steps)

    def compute(block: Block) -> Steps:
        upstream = g[:, :, block.rows]
        share = memory.empty_like(upstream, dtype, room)
        factor = weight if isinstance(weight, float) else weight[block.rows]
        inner: Steps = [partial(np.multiply, upstream, factor, share, dtype=dtype)]
        if at.many:
            target = _tiles(grads, at)[:, :, block.rows]
            inner.append(partial(np.copyto, target, share[:, :, :, None, :, None], "same_kind"))
        for place in block.places:
            target = grads[place]
            if tiling:
                inner.append(partial(np.copyto, target, share, "same_kind"))
            else:
                inner.append(partial(np.add, target, share, target))
        return inner

    if at.many:
        return compute(Block(slice(None), ()))
    return [*steps, _blocked(compute, at, out), *deliver]


# The kernels: steps made and run at once


def _made(x: Array, size: tuple[int, int], at: Windows, dtype: np.dtype[Any]) -> Array:
    """An empty array (N, C, *size), in the layout of the images, or with the batch last if they are padded."""
    h, w = size
    if at.padded == at.size:
        return memory.empty_like(x[:, :, :h, :w], dtype)
    return memory.empty((h, x.shape[1], w, len(x)), dtype).transpose(3, 1, 0, 2)


@kept(max_steps)
def max_pool2d(x: Array, at: Windows) -> Array:
    """The largest value in each window, (N, C, OH, OW)."""
    return computed(max_steps, _made(x, at.grid, at, x.dtype), x, at)


@kept(unpool_steps)
def unpool(g: Array, x: Array, peak: Array, at: Windows) -> Array:
    """Each window's gradient, added to the pixel of its first maximum; ``peak`` is the max pooling of ``x``."""
    return computed(unpool_steps, _made(x, at.size, at, g.dtype), g, x, peak, at)


def repool(g: Array, x: Array, peak: Array, at: Windows) -> Array:
    """From each window of ``g`` the element where ``x`` has its first maximum; 0 if there is none, because of NaN."""
    return computed(repool_steps, memory.empty_like(peak, g.dtype), g, x, peak, at)


@kept(mean_steps)
def avg_pool2d(x: Array, at: Averages) -> Array:
    """The mean of each window, (N, C, OH, OW)."""
    dtype = x.dtype if x.dtype.kind == "f" else _SINGLE
    return computed(mean_steps, _made(x, at.windows.grid, at.windows, dtype), x, at)


@kept(share_steps)
def avg_unpool(g: Array, at: Averages) -> Array:
    """Each window's gradient, divided equally among its pixels, (N, C, H, W)."""
    return computed(share_steps, memory.like(g, (*g.shape[:2], *at.windows.size), g.dtype), g, at)
