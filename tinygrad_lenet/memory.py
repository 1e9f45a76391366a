"""Memory for large results, recycled.

A fresh array of a megabyte is mapped, zeroed and unmapped by the operating system each time; a training step of
LeNet-5 at batch 64 had 1,000 page faults, which took as long as its arithmetic. So large blocks are kept on shelves,
one for each size, and handed out again when the last array that lies in them is gone. That tells a weak reference to
the array that was handed out, which every view of it holds: the reference puts itself on the shelf when the array dies,
in whichever thread that is. (Counts of references would be quicker to read by a third of a microsecond, but mean
something else in each version of Python.)

Blocks begin at a multiple of 64 bytes, a cache line, where products of matrices run up to twice as fast.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod
from typing import Any, TypeAlias
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

_SMALL = 16 * 1024  # bytes below which the allocator of NumPy is as fast
_ALIGNMENT = 64
_ndarray = np.ndarray
_LIMIT = 512 * 1024 * 1024  # bytes on one thread's shelves before the idle blocks are given back


class _Block(np.ndarray[Any, Any]):
    """Memory of a type of its own: as with that of a file, NumPy then lets views hold the array that lies in it, and
    not, past that, the memory itself.
    """


Reference: TypeAlias = "ReferenceType[NDArray[Any]]"


class _Shelves:
    """The blocks of one thread. Lists and dicts are changed by single calls, each of which is whole or has not begun,
    whatever comes in between: another thread that drops an array, an interrupt, a finaliser that computes.
    """

    def __init__(self) -> None:
        self.idle: dict[int, list[Reference]] = {}  # by size: the references whose arrays are gone
        # By the identity of the reference, which it keeps: the block, where it is aligned, and how to shelve it.
        self.lent: dict[int, tuple[_Block, int, Callable[[Reference], None], Reference]] = {}
        self.total = 0


class _Mine(threading.local):
    """Every thread has its own."""

    def __init__(self) -> None:
        self.shelves = _Shelves()


_mine = _Mine()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An uninitialised, C-contiguous array, as ``np.empty`` gives it."""
    size = prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.empty(shape, dtype)
    shelves = _mine.shelves
    try:
        block, offset, shelve, _ = shelves.lent.pop(id(shelves.idle[size].pop()))
    except (KeyError, IndexError):
        block, offset, shelve = _fresh(shelves, size)
    out = np.ndarray(shape, dtype, block, offset)
    loan = ref(out, shelve)
    shelves.lent[id(loan)] = block, offset, shelve, loan
    return out


def _fresh(shelves: _Shelves, size: int) -> tuple[_Block, int, Callable[[Reference], None]]:
    """A new block."""
    if shelves.total + size > _LIMIT:
        release()
    shelves.total += size
    block = _Block(size + _ALIGNMENT, np.uint8)
    return block, -block.ctypes.data % _ALIGNMENT, shelves.idle.setdefault(size, []).append


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
    shelves = _mine.shelves
    for shelf in list(shelves.idle.values()):
        shelf.clear()
    for key, (*_, loan) in list(shelves.lent.items()):
        if loan() is None:
            del shelves.lent[key]
    shelves.total = sum(block.size - _ALIGNMENT for block, *_ in shelves.lent.values())


def storage(array: NDArray[Any]) -> NDArray[Any]:
    """The array that all views of one memory have in common."""
    base = array.base
    while type(base) is _ndarray:  # else it is a block of ours, or memory of another library
        array, base = base, base.base
    return array
