"""Memory for large results, recycled.

A fresh array of a megabyte is mapped, zeroed and unmapped by the operating system each time; a training step of
LeNet-5 at batch 64 had 1,000 page faults, which took as long as its arithmetic. So large blocks are kept on shelves,
one for each size, and handed out again when the last array that lies in them is gone. Whether it is gone, the reference
count tells: every view holds its block.

Blocks begin at a multiple of 64 bytes, a cache line, where products of matrices run up to twice as fast.
"""

from __future__ import annotations

import math
import threading
from sys import getrefcount
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALL = 16 * 1024  # bytes below which the allocator of NumPy is as fast
_ALIGNMENT = 64
_LIMIT = 512 * 1024 * 1024  # bytes on one thread's shelves before the idle blocks are given back
_IDLE = (
    3  # references to a block that nobody uses: from its shelf, from the loop variable, from the call of getrefcount
)


class _Shelves(threading.local):
    """Blocks by size, with the offset at which each is aligned; every thread has its own."""

    def __init__(self) -> None:
        self.blocks: dict[int, list[tuple[NDArray[np.uint8], int]]] = {}
        self.total = 0


_shelves = _Shelves()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An uninitialised, C-contiguous array, as ``np.empty`` gives it."""
    size = math.prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.empty(shape, dtype)
    shelf = _shelves.blocks.setdefault(size, [])
    for block, offset in shelf:
        if getrefcount(block) == _IDLE:
            return np.ndarray(shape, dtype, block, offset)
    if _shelves.total + size > _LIMIT:
        release()
        shelf = _shelves.blocks.setdefault(size, [])
    block = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -block.ctypes.data % _ALIGNMENT
    shelf.append((block, offset))
    _shelves.total += size
    return np.ndarray(shape, dtype, block, offset)


def empty_like(x: NDArray[Any], dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """An uninitialised array of the same shape, its axes in memory in the same order."""
    if x.nbytes < _SMALL:
        return np.empty_like(x, dtype, subok=False)
    dtype = x.dtype if dtype is None else dtype
    if x.flags.c_contiguous:
        return empty(x.shape, dtype)
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    memory = empty(tuple([x.shape[axis] for axis in order]), dtype)
    return memory.transpose([order.index(axis) for axis in range(x.ndim)])


def release() -> None:
    """Give the blocks of this thread that nobody uses back to the system."""
    for size, shelf in list(_shelves.blocks.items()):
        used = []
        for block, offset in shelf:
            if getrefcount(block) > _IDLE:
                used.append((block, offset))
            else:
                _shelves.total -= size
        _shelves.blocks[size] = used
    _shelves.blocks = {size: shelf for size, shelf in _shelves.blocks.items() if shelf}
