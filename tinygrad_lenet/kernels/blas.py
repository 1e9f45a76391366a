"""Products on one thread of BLAS, since ours share the work.

OpenBLAS has threads of its own. They spin while they wait, and so take the cores from ours; and some of its sums differ
in the last bits with their number. :func:`product` holds it to one thread. Its functions that get and set the number
are found by name in the library that NumPy has loaded. Another BLAS (MKL, Accelerate, BLIS) has no such functions: it
computes the same products on as many threads as it likes.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .threads import _finally, exclusively


class _Number(NamedTuple):
    """OpenBLAS's functions that get and set the number of its threads."""

    get: Callable[[], int]
    set: Callable[[int], object]


@functools.cache
def _number() -> _Number | None:
    """The functions, or None if NumPy uses another BLAS."""
    module = Path(str(importlib.import_module("numpy._core._multiarray_umath").__file__))
    # A module finds the symbols of the libraries that it has loaded; on Windows these must be asked themselves.
    for path in [module, *module.parents[2].glob("numpy.libs/*blas*")]:
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in ("scipy_openblas_{}_num_threads", "openblas_{}_num_threads"):
            for suffix in ("64_", "", "_64"):
                found = [getattr(library, name.format(verb) + suffix, None) for verb in ("get", "set")]
                if all(found):
                    return _Number(*found)  # type: ignore[arg-type]
    return None


_holders: dict[object, int] = {}  # the products that hold BLAS to one thread, and its number before the first of them
_lock = threading.RLock()


def _hold(number: _Number, token: object) -> None:
    _holders[token] = next(iter(_holders.values()), 0) or number.get()
    number.set(1)


def _release(number: _Number, token: object) -> None:
    if len(_holders) == 1 and token in _holders:
        number.set(_holders[token])  # before it is forgotten: an interrupt may make this run again
    _holders.pop(token, None)


def _forked() -> None:
    """Restore the number in a child, which does not have the other threads that held it."""
    global _lock
    _lock, before, number = threading.RLock(), [*_holders.values()], _number()
    _holders.clear()
    if before and number:
        number.set(before[0])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> None:
    """``np.matmul(a, b, out)`` while BLAS has one thread; then it has its own number again, also after an error."""
    number = _number()
    if number is None or (not _holders and number.get() == 1):
        np.matmul(a, b, out)
        return
    token = object()

    def compute() -> None:
        exclusively(functools.partial(_hold, number, token), _lock)
        np.matmul(a, b, out)

    _finally(lambda: exclusively(functools.partial(_release, number, token), _lock), compute, 4)
