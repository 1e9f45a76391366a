"""Large kernels on all cores, and two guards against Ctrl-C.

:func:`parallel` cuts a kernel into ranges of rows, which threads compute side by side: NumPy releases the interpreter's
lock while it copies and multiplies. The helper threads start when they are first needed, and wait without spinning. A
row is computed in the same way in every range, so results do not depend on the number of threads. If the helpers are
busy with the work of another thread, the caller computes everything itself.

Ctrl-C may come at any moment. :func:`parallel` returns or raises only when all threads have stopped working;
:func:`exclusively` accumulates gradients in one thread at a time, and never leaves its lock held.
"""

from __future__ import annotations

import _thread
import os
import re
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import ArgumentError, brief

if TYPE_CHECKING:
    from queue import SimpleQueue

Task = Callable[[int, int], object]

WORTH = 25_000_000  # multiply-adds, about 0.4 milliseconds: the least work for which waking a helper pays


class _Share:
    """A range of rows, computed by the thread that claims it first: a helper, or the caller who takes it back.

    Claiming is a single call, and repeating it after an interrupt changes nothing.
    """

    __slots__ = ("bell", "claim", "context", "error", "finished", "start", "stop", "task")

    def __init__(self, task: Task, start: int, stop: int) -> None:
        self.task: Task | None = task
        self.start, self.stop = start, stop
        self.claim: dict[str, str] = {}
        self.context = copy_context()  # NumPy's error state is that of the caller
        self.finished = False
        self.bell = _thread.allocate_lock()  # released when the share is finished
        self.bell.acquire()
        self.error: BaseException | None = None

    def of(self, who: str) -> bool:
        """Claim the share for "helper" or "caller"; return whether it belongs to that one."""
        return self.claim.setdefault("of", who) == who

    def compute(self) -> None:
        assert self.task is not None
        self.context.run(self.task, self.start, self.stop)


def _serve(shares: SimpleQueue[_Share]) -> None:
    """Compute shares for ever, in a helper thread."""
    while True:
        share = shares.get()
        if share.of("helper"):
            try:
                share.compute()
            except BaseException as error:  # the waiting thread raises it
                share.error = error
            share.task = None
            share.finished = True
            share.bell.release()
        del share  # releases the arrays


class _Crew:
    """The helper threads of this process. They do not run in a forked child, which starts its own."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.reset()

    def reset(self) -> None:
        self.helpers = 0
        self.shares: SimpleQueue[_Share] | None = None  # made for the first helper
        self.served: dict[str, list[_Share]] = {}  # under "now": the shares of the current call


_crew = _Crew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.reset)


def get_num_threads() -> int:
    """The number of threads that a large kernel uses: as set, else as in ``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS``
    or ``MKL_NUM_THREADS``, else one for each core.

    The first of these variables counts that holds a number from 1 to 9,999, or a list such as ``4,2``, which OpenMP has
    for nested loops and of which the first number counts. Other values are ignored.

    >>> import tinygrad_lenet as tl
    >>> tl.get_num_threads() >= 1
    True
    """
    if _crew.size is None:
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        given = [os.environ.get(f"{name}_NUM_THREADS", "") for name in ("OMP", "OPENBLAS", "MKL")]
        found = (re.fullmatch(r"\s*\+?0*([1-9][0-9]{0,3})\s*(,\s*\+?[0-9]+\s*)*", value) for value in given)
        _crew.size = next((int(match[1]) for match in found if match), cores)
    return _crew.size


def set_num_threads(number: int) -> None:
    """Set the number of threads that a large kernel uses. BLAS has its own threads, which this does not change.

    Raises:
        ArgumentError: not an integer of at least 1.

    >>> import tinygrad_lenet as tl
    >>> before = tl.get_num_threads()
    >>> tl.set_num_threads(1)
    >>> tl.get_num_threads()
    1
    >>> tl.set_num_threads(before)
    """
    if type(number) is not int or number < 1:
        raise ArgumentError(f"set_num_threads: number must be an integer of at least 1, got {brief(number)}")
    _crew.size = number


def spread(task: Callable[..., object], passes: int, *arrays: NDArray[Any]) -> None:
    """Call ``task`` with matching parts of arrays of one shape, cut along the axis that is outermost in memory.

    ``passes`` is the number of passes over the elements; a pass takes about the time of eight multiply-adds.
    """
    first = arrays[0]
    if 8 * passes * first.size < WORTH or not first.shape or any(array.shape != first.shape for array in arrays):
        task(*arrays)
        return
    axis = max(range(first.ndim), key=lambda axis: first.strides[axis])
    turned = [array.swapaxes(0, axis) for array in arrays]
    parallel(
        lambda start, stop: task(*[array[start:stop].swapaxes(0, axis) for array in turned]),
        first.shape[axis],
        8 * passes * first.size,
    )


def parallel(task: Task, count: int, work: float) -> None:
    """Call ``task(start, stop)`` for ranges that make up ``range(count)``; ``work`` is the number of multiply-adds.

    When this returns or raises, even because of an interrupt, all threads have stopped working on the task.
    """
    parts = int(min(get_num_threads(), count, 1 + work // WORTH))
    if parts < 2 or _crew.served:
        task(0, count)
        return
    bounds = [count * i // parts for i in range(parts + 1)]
    shares = [_Share(task, bounds[i], bounds[i + 1]) for i in range(1, parts)]

    def compute() -> None:
        if _crew.served.setdefault("now", shares) is not shares:
            task(0, count)
            return
        if _crew.shares is None:
            from queue import SimpleQueue  # with threading, a fortieth of the time of importing NumPy

            _crew.shares = SimpleQueue()
        while _crew.helpers < len(shares):
            _thread.start_new_thread(_serve, (_crew.shares,))  # Thread.start waits, and an interrupt breaks it
            _crew.helpers += 1
        for share in shares:
            _crew.shares.put(share)
        task(0, bounds[1])
        for share in shares:  # those that no helper has begun
            if share.of("caller"):
                share.compute()

    def settle() -> None:
        interrupt = None
        for share in shares:
            if share.of("caller"):
                share.task, share.finished = None, True
            while not share.finished:
                try:
                    share.bell.acquire()
                except BaseException as error:  # raised when all threads have stopped
                    interrupt = error
        if _crew.served.get("now") is shares:
            _crew.served.clear()
        if interrupt is not None:
            raise interrupt

    _finally(settle, compute, 4)
    for share in shares:
        if share.error is not None:
            raise share.error


def _finally(settle: Callable[[], object], compute: Callable[[], object], times: int) -> None:
    """Call ``compute()``, then in any case ``settle()``: again if it is interrupted, up to ``times`` times."""
    try:
        if times > 1:
            _finally(settle, compute, times - 1)
        else:
            compute()
    finally:
        settle()


_lock = _thread.RLock()
if hasattr(os, "register_at_fork"):  # a child does not have the thread that may hold it
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def exclusively(act: Callable[[], object]) -> None:
    """Call ``act()`` while no other thread is in this function."""
    try:  # not `with`: in Python 3.14 Ctrl-C just after the lock is acquired leaves it locked
        _lock.acquire()
        act()
    finally:
        try:  # noqa: SIM105  # suppress() is a call, after which Ctrl-C would be raised
            _lock.release()
        except RuntimeError:  # Ctrl-C came before the lock was acquired
            pass
