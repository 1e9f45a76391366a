"""All cores at work: a large kernel is cut into ranges of rows, which threads compute side by side.

NumPy lets go of the interpreter's lock while it copies and multiplies, so plain threads do. The helpers are made when
they are first needed and wait without spinning. Rows are computed alike in whichever range they are, so results do not
depend on the number of threads. Whoever finds the helpers busy, with another thread's work, does all of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from .errors import ArgumentError

Task = Callable[[int, int], object]

WORTH = 25_000_000  # multiply-adds, about 0.4 milliseconds, for which it pays to wake a helper and to share the lock


class _Helper:
    """A thread that waits for one range at a time."""

    def __init__(self) -> None:
        self.go, self.done = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.done.acquire()
        self.job: tuple[Task, int, int] | None = None
        self.error: BaseException | None = None
        threading.Thread(target=self.serve, name="tinygrad_lenet", daemon=True).start()

    def serve(self) -> None:
        while True:
            self.go.acquire()
            assert self.job is not None
            task, start, stop = self.job
            try:
                task(start, stop)
            except BaseException as error:  # the thread that waits raises it
                self.error = error
            del task
            self.job = None  # lets go of the arrays
            self.done.release()


class _Crew:
    """The helpers of this process; a forked child, in which they do not run, makes its own."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.reset()

    def reset(self) -> None:
        self.helpers: list[_Helper] = []
        self.free = threading.Lock()


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
    if 8 * passes * first.size < WORTH or any(array.shape != first.shape for array in arrays):
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
    """Call ``task(start, stop)`` for ranges that make up ``range(count)``; ``work`` is the multiply-adds in all."""
    parts = int(min(get_num_threads(), count, 1 + work // WORTH))
    if parts < 2 or not _crew.free.acquire(blocking=False):
        task(0, count)
        return
    try:
        while len(_crew.helpers) < parts - 1:
            _crew.helpers.append(_Helper())
        bounds = [count * i // parts for i in range(parts + 1)]
        helpers = _crew.helpers[: parts - 1]
        for helper, start, stop in zip(helpers, bounds[1:], bounds[2:], strict=False):
            helper.job = (task, start, stop)
            helper.go.release()
        errors = []
        try:
            task(0, bounds[1])
        finally:  # whatever happens here, nobody may still write when this returns
            for helper in helpers:
                helper.done.acquire()
                errors.append(helper.error)
                helper.error = None
        for error in errors:
            if error is not None:
                raise error
    finally:
        _crew.free.release()
