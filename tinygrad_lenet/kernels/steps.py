"""Steps: a kernel as a list of calls without arguments.

A function that returns steps computes nothing itself. The caller passes the memory of the result (``out``) and a
function that returns scratch memory (``room``). So steps can run once, in recycled memory, or be listed and run again
and again in the same memory:

    room = Scratch()
    calls = listed(steps(out, room, *arrays), room)
    room.release()  # the next kernel may use the scratch memory
    for call in calls:
        call()
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache, partial, wraps
from math import prod
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import memory
from .memory import Room as Room
from .threads import WORTH, parallel

_ndarray = np.ndarray
F = TypeVar("F", bound=Callable[..., Any])
Call: TypeAlias = Callable[[], object]
Steps: TypeAlias = "list[Call | Blocked | Choice]"


class Blocked(NamedTuple):
    """A step that computes a result block by block, in parallel on all cores.

    The steps of a block are made just before they run. Before the next block they are freed, with their scratch memory.
    :func:`listed` makes the steps of all blocks at once, to be kept.
    """

    steps: Callable[[Any], Steps]  # of one block
    blocks: Sequence[Any]  # the geometry of each block
    work: int  # multiply-adds in all

    def __call__(self) -> None:
        """Run all blocks."""
        parallel(self._some, len(self.blocks), self.work)

    def _some(self, start: int, stop: int) -> None:
        for block in self.blocks[start:stop]:
            run(self.steps(block))  # no variable, which would keep a step and its scratch memory alive


class Choice(NamedTuple):
    """A step that reads values each time it runs: ``steps`` if ``test()`` is true, else ``otherwise``."""

    test: Callable[[], object]
    steps: Any  # Steps
    otherwise: list[Call]

    def __call__(self) -> None:
        """Run one of the two."""
        run(self.steps if self.test() else self.otherwise)


class Scratch:
    """The scratch memory of steps that are kept. Call it as the ``room`` of a kernel.

    What is released is lent again: the steps run one after the other. Parts of a kernel that run side by side have
    memory of their own.
    """

    def __init__(self) -> None:
        self.free: dict[int, list[NDArray[Any]]] = defaultdict(list)  # by thread
        self.lent: list[tuple[int, NDArray[Any]]] = []
        self.thread = 0
        self.bytes = 0  # in all

    def take(self, size: int) -> NDArray[Any]:
        """A block of at least this many bytes, until it is appended to ``free``: the smallest that fits."""
        free = self.free[self.thread]
        fitting = [i for i, block in enumerate(free) if size <= block.size <= 2 * size + 4096]
        if fitting:
            return free.pop(min(fitting, key=lambda i: free[i].size))
        self.bytes += size
        return memory.empty((max(1, size),), np.dtype(np.uint8))

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Uninitialised memory, C-contiguous, until it is released."""
        block = self.take(prod(shape) * np.dtype(dtype).itemsize)
        self.lent.append((self.thread, block))
        return np.ndarray(shape, dtype, block)

    def release(self, mark: int = 0) -> None:
        """Take back what was lent since ``len(lent)`` was ``mark``."""
        for shelf, block in self.lent[mark:]:
            self.free[shelf].append(block)
        del self.lent[mark:]


def listed(steps: Steps, room: Scratch, threads: int = 1) -> list[Call]:
    """The steps as calls that may run again and again, on at most ``threads`` threads.

    They give the same bits for any number of threads, as the blocks do not depend on it. ``room`` is that of the steps.
    """
    calls: list[Any] = []
    for step in steps:
        if isinstance(step, Blocked):
            parts = _parts(step, room, threads)
            calls += parts[0] if len(parts) == 1 else [Blocked(list, parts, step.work)]
        elif isinstance(step, Choice):
            calls.append(Choice(step.test, listed(step.steps, room, threads), step.otherwise))
        else:
            calls.append(step)
    return calls


def _parts(step: Blocked, room: Scratch, threads: int) -> list[list[Call]]:
    """The calls of the blocks, in parts that may run side by side."""
    blocks, mark, outer = step.blocks, len(room.lent), room.thread
    count = int(max(1, min(threads, len(blocks), 1 + step.work // WORTH)))
    parts: list[list[Call]] = [[] for _ in range(count)]
    for i, block in enumerate(blocks):
        room.thread = outer + i * count // len(blocks)
        parts[room.thread - outer] += listed(step.steps(block), room)
        room.release(mark)
    room.thread = outer
    return parts


def but_for_half(steps: Callable[..., Steps]) -> Callable[..., Steps | None]:
    """The steps, or None for results in float16, which a kernel computes in float32."""
    return lambda out, *arguments: None if out.dtype == np.float16 else steps(out, *arguments)


def run(steps: Sequence[Any]) -> None:
    """Run the steps in order."""
    for step in steps:
        step()


def computed(steps: Callable[..., Steps], out: NDArray[Any], *arguments: Any) -> NDArray[Any]:
    """Run ``steps(out, room, *arguments)`` once, with recycled memory, and return ``out``."""
    for step in steps(out, memory.empty, *arguments):  # not run(): a call fewer for each kernel
        step()
    return out


class View(NamedTuple):
    """The shape, strides and offset of a view of an array that need not exist yet."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes, as is the offset
    offset: int = 0

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The view of an array."""
        return np.ndarray(self.shape, array.dtype, array, self.offset, self.strides)


_SMALL = 1 << 18  # bytes of arguments and result, and half of those of scratch memory, up to which steps are kept


def kept(steps: Callable[..., Steps]) -> Callable[[F], F]:
    """Decorate the kernel that runs these steps. For small arrays, the second call makes them for all further ones.

    To make the steps takes longer than to run them, and much longer than to copy small arguments to where they are
    read. A list holds one set of steps for each thread that was in the kernel at the same time.
    """

    def decorate(kernel: F) -> F:
        ready: Any = lru_cache(maxsize=32)(lambda *layout: [kernel, kernel])

        @wraps(kernel)
        def call(*arguments: Any) -> Any:
            if arguments[0].nbytes > _SMALL // 2:
                return kernel(*arguments)
            found = ready(*[(a.shape, a.strides, a.dtype) if type(a) is _ndarray else a for a in arguments])
            try:
                run = found.pop()
            except IndexError:  # other threads have them all
                run = kernel
            out = run(*arguments)
            if run is not kernel or not found:
                found.append(_bound(steps, kernel, out, arguments) if run is kernel else run)
            return out

        vars(call)["cache_clear"] = ready.cache_clear  # as other functions with a cache have
        return call  # type: ignore[return-value]

    return decorate


def _bound(steps: Callable[..., Steps], kernel: Callable[..., Any], out: Any, arguments: Any) -> Callable[..., Any]:
    """The kernel for arguments of this layout: its steps in memory of their own, if that is possible and small."""
    room = Scratch()
    result = np.empty(out.size, out.dtype)
    layout = View(out.shape, out.strides)
    arrays = {i: a for i, a in enumerate(arguments) if type(a) is _ndarray}
    try:
        own = {i: View(a.shape, a.strides).of(np.empty(a.size, a.dtype)) for i, a in arrays.items()}
        given = [own.get(i, a) for i, a in enumerate(arguments)]
        calls = listed(steps(layout.of(result), room, *given), room, 8)  # in at most so many parts, for threads
    except ValueError:  # an argument has gaps between its elements
        return partial(kernel)
    size = sum([a.nbytes for a in (out, *arrays.values())])
    if max(size, room.bytes // 2) > _SMALL or out.dtype == np.float16:
        return partial(kernel)

    def run(*arguments: Any) -> Any:
        for i, array in own.items():
            np.copyto(array, arguments[i])
        for call in calls:
            call()
        return layout.of(result.copy())

    return run
