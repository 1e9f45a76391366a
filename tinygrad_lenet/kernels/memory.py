"""Memory for large results, recycled.

The operating system maps, zeroes and unmaps a fresh array of a megabyte each time. A training step of LeNet-5 at batch
64 had 1,000 page faults, which took as long as its arithmetic. So large blocks are kept on shelves, one for each size,
and lent again when the array that was made in them is dead. A weak reference to that array tells when: every view
keeps the array alive, and when it dies, the reference's callback puts the block on its shelf. That may happen in any
thread. (Reference counts would be a third of a microsecond faster to read, but their values differ between versions of
Python.)

All threads share one pool. It tracks the blocks that were lent most recently, in use or idle, up to a limit of bytes.
Beyond the limit it forgets the block that was lent the longest time ago: an idle block is freed at once, a block in use
together with its array. So idle memory never exceeds the limit, however much is in use.

Blocks begin at a multiple of 64 bytes, a cache line, where matrix products run up to twice as fast.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import count
from math import prod
from typing import Any, TypeAlias
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

_SMALL = 16 * 1024  # bytes below which NumPy's allocator is as fast
_LIMIT = 256 * 1024 * 1024  # bytes that the pool tracks; a step takes 105 MB for LeNet-5 at 1,024, 172 for a VGG at 64
_RECOUNT = 4096  # new blocks between two recounts
_ALIGNMENT = 64
_MAPPED = 128 * 1024  # bytes from which a block has a mapping of its own
_HUGE = 4 * 1024 * 1024  # bytes from which the mapping has huge pages, as in NumPy
_ndarray = np.ndarray

Reference: TypeAlias = "ReferenceType[NDArray[Any]]"
Room: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], NDArray[Any]]  # (shape, dtype) -> uninitialised memory


class Block(np.ndarray[Any, Any]):
    """Memory with a type of its own, so that views of the lent array keep that array alive.

    If the memory were a plain array, a view of the lent array would refer to the memory instead, as ``base``.
    """

    __slots__ = ("loan", "offset", "shelf", "shelve")
    offset: int  # of the first aligned byte
    shelf: dict[int, Reference]
    shelve: Callable[[Reference], object]
    loan: Reference | None  # to the lent array


def _allocate(size: int) -> Block:
    """A new block. On Linux a large one has a mapping of its own, which the system gets back when the block is freed.

    The C library returns only memory at the end of a thread's heap: eight threads left 800 MB behind.
    ``tracemalloc`` does not see mapped blocks.
    """
    if sys.platform == "linux" and size >= _MAPPED:
        import mmap  # few programs need it

        try:
            room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if size >= _HUGE:
                room.madvise(mmap.MADV_HUGEPAGE)
            return Block(size, np.uint8, room)
        except OSError:  # too many mappings, no huge pages, or no memory, which NumPy reports
            pass
    return Block(size, np.uint8)


class _Pool:
    """The blocks of this process, numbered.

    There is no lock: an array may die while the same thread allocates memory. Each change of a dict is a single call:
    other threads, interrupts and finalisers run before or after it. Only ``total`` may become wrong, until the next
    recount.
    """

    def __init__(self) -> None:
        self.blocks: OrderedDict[int, Block] = OrderedDict()  # least recently lent first
        self.idle: dict[int, dict[int, Reference]] = {}  # by size, then by number: the references to dead arrays
        self.numbers = count(1)
        self.total = 0  # bytes of blocks

    def fresh(self, size: int) -> Block:
        """A new block, which the pool tracks unless it is larger than the limit."""
        block = _allocate(size + _ALIGNMENT)
        block.offset = -block.ctypes.data % _ALIGNMENT
        block.shelf = self.idle.setdefault(size, {}) if size <= _LIMIT else {}
        number = next(self.numbers)
        # Not a Python function: Python would drop an interrupt that came in it, since it runs as a callback.
        block.shelve = partial(block.shelf.setdefault, number)
        if size > _LIMIT:
            return block
        self.total += size
        self.blocks[number] = block
        if number % _RECOUNT == 0:
            self.recount()
        while self.total > _LIMIT:
            self.forget()
        return block

    def forget(self) -> None:
        """Stop tracking the block that was lent the longest time ago, which frees it unless it is in use."""
        try:
            number, block = self.blocks.popitem(last=False)
        except KeyError:
            self.total = 0
            return
        block.loan = None  # first: without the reference there is no callback that puts it on the shelf
        block.shelf.pop(number, None)
        self.total -= block.size - _ALIGNMENT

    def recount(self) -> None:
        """Correct the total, and remove the shelves of sizes that no block has."""
        blocks = list(dict.values(self.blocks))  # OrderedDict.values is not atomic
        sizes = [block.size - _ALIGNMENT for block in blocks]
        self.total = sum(sizes)
        for size in set(self.idle).difference(sizes):
            self.idle.pop(size, None)


_pool = _Pool()


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An uninitialised, C-contiguous array, as from ``np.empty``."""
    size = prod(shape) * dtype.itemsize
    if size < _SMALL:
        return np.empty(shape, dtype)
    pool = _pool
    try:
        number, _ = pool.idle[size].popitem()  # the block that became idle last
        block = pool.blocks[number]
        pool.blocks.move_to_end(number)
    except KeyError:
        block = pool.fresh(size)
    out = np.ndarray(shape, dtype, block, block.offset)
    block.loan = ref(out, block.shelve)
    return out


def trim() -> None:
    """Free all idle blocks."""
    for number, block in list(dict.items(_pool.blocks)):
        if block.shelf.pop(number, None) is not None:  # else it is in use, or another thread was faster
            _pool.blocks.pop(number, None)
    _pool.recount()


def like(x: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any], room: Room = empty) -> NDArray[Any]:
    """An uninitialised array of this shape, its axes in memory in the order of those of ``x``."""
    if x.flags.c_contiguous:
        return room(shape, dtype)
    order, back = _order(x.strides)
    return room(tuple([shape[axis] for axis in order]), dtype).transpose(back)


@lru_cache(maxsize=1024)
def _order(strides: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes of an array, outermost in memory first, and the inverse of this permutation."""
    order = sorted(range(len(strides)), key=strides.__getitem__, reverse=True)
    return tuple(order), tuple(sorted(range(len(order)), key=order.__getitem__))


def empty_like(x: NDArray[Any], dtype: np.dtype[Any] | None = None, room: Room = empty) -> NDArray[Any]:
    """An uninitialised array of the shape of ``x``, its axes in memory in the same order."""
    return like(x, x.shape, x.dtype if dtype is None else dtype, room)


def storage(array: NDArray[Any]) -> NDArray[Any]:
    """The array that owns the memory of a view: the same for all views of one memory."""
    base = array.base
    while type(base) is _ndarray:  # else it is a Block, or memory of another library
        array, base = base, base.base
    return array
