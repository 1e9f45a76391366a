"""All cores at work: a large kernel is cut into ranges of rows, which threads compute side by side.

NumPy lets go of the interpreter's lock while it copies and multiplies, so plain threads do. The helpers are made when
they are first needed and wait without spinning. Rows are computed alike in whichever range they are, so results do not
depend on the number of threads. Whoever finds the helpers busy, with another thread's work, does all of its own.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from numpy.typing import NDArray

from ..errors import ArgumentError

Task = Callable[[int, int], object]

WORTH = 25_000_000  # multiply-adds, about 0.4 milliseconds, for which it pays to wake a helper and to share the lock


class _Share:
    """A range of rows, computed by whoever claims it first: a helper, or the caller who takes it back.

    That is settled, and can be asked, by single calls that change nothing when they are repeated.
    """

    __slots__ = ("bell", "claim", "error", "finished", "start", "stop", "task")

    def __init__(self, task: Task, start: int, stop: int) -> None:
        self.task: Task | None = task
        self.start, self.stop = start, stop
        self.claim: dict[str, str] = {}
        self.finished = False
        self.bell = threading.Lock()  # rung when it is finished
        self.bell.acquire()
        self.error: BaseException | None = None

    def of(self, who: str) -> bool:
        """Claim it for the helper or the caller; whether it belongs to that one."""
        return self.claim.setdefault("of", who) == who

    def compute(self) -> None:
        assert self.task is not None
        self.task(self.start, self.stop)


def _serve(shares: SimpleQueue[_Share]) -> None:
    """What a helper does."""
    while True:
        share = shares.get()
        if share.of("helper"):
            try:
                share.compute()
            except BaseException as error:  # the thread that waits raises it
                share.error = error
            share.task = None
            share.finished = True
            share.bell.release()
        del share  # lets go of the arrays


class _Crew:
    """The helpers of this process; a forked child, in which they do not run, makes its own."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.reset()

    def reset(self) -> None:
        self.helpers = 0
        self.shares: SimpleQueue[_Share] = SimpleQueue()
        self.served: dict[str, list[_Share]] = {}  # whose shares they compute: nobody's, or those of one call


_crew = _Crew()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_crew.reset)


def get_num_threads() -> int:
    """How many threads a large kernel uses: what was set, else what ``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS`` or
    ``MKL_NUM_THREADS`` says, else one for each core.

    >>> import tinygrad_lenet as tl
    >>> tl.get_num_threads() >= 1
    True
    """
    if _crew.size is None:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            if os.environ.get(name, "").isdecimal():
                _crew.size = max(1, int(os.environ[name]))
                break
        else:
            affinity = getattr(os, "sched_getaffinity", None)
            _crew.size = len(affinity(0)) if affinity else os.cpu_count() or 1
    return _crew.size


def set_num_threads(number: int) -> None:
    """Set how many threads a large kernel uses. BLAS has threads of its own, which this leaves alone.

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
        raise ArgumentError(f"set_num_threads: number must be an integer of at least 1, got {number!r}")
    _crew.size = number


def spread(task: Callable[..., object], passes: int, *arrays: NDArray[Any]) -> None:
    """Call ``task`` with matching parts of arrays of one shape, cut along the axis that is outermost in memory.

    ``passes`` is how often the task goes over the elements; each takes about the time of eight multiply-adds.
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
    """Call ``task(start, stop)`` for ranges that make up ``range(count)``; ``work`` is the multiply-adds in all.

    Whatever happens, an interrupt at any moment included, nobody computes any more when this returns or raises.
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
        while _crew.helpers < len(shares):
            _thread.start_new_thread(_serve, (_crew.shares,))  # Thread.start waits, and does not bear an interrupt
            _crew.helpers += 1
        for share in shares:
            _crew.shares.put(share)
        task(0, bounds[1])
        for share in shares:  # what nobody has begun
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
                except BaseException as error:  # it is raised when nobody computes any more
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
    """``compute()``, then ``settle()`` in any case: again if it is interrupted itself, so many times."""
    try:
        if times > 1:
            _finally(settle, compute, times - 1)
        else:
            compute()
    finally:
        settle()


_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child has not the thread that may hold it
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def alone(act: Callable[[], object]) -> None:
    """``act()``, while no other thread is in here."""
    try:  # not `with`: in Python 3.14 Ctrl-C leaves it locked if it comes just after the lock is had
        _lock.acquire()
        act()
    finally:
        try:  # noqa: SIM105  # suppress() is a call, after which Ctrl-C would be heard
            _lock.release()
        except RuntimeError:  # it came before the lock was had
            pass
