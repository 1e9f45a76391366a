"""Products on one thread of BLAS, since ours share the work.

OpenBLAS has threads of its own. They spin while they wait, and so take the cores from ours; and some of its sums differ
in the last bits with their number. :func:`product` holds it to one thread. Its functions that get and set the number
are found by name in the library that NumPy has loaded. Another BLAS (MKL, Accelerate, BLIS) has no such functions: it
computes the same products on as many threads as it likes.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .threads import _finally, exclusively


@cache
def _number() -> tuple[Any, Any] | None:
    """OpenBLAS's functions that get and set the number of its threads, or None if NumPy uses another BLAS."""
    from pathlib import Path  # takes a while to import

    module = Path(str(importlib.import_module("numpy._core._multiarray_umath").__file__))
    # A module finds the symbols of the libraries that it has loaded; on Windows these must be asked themselves.
    for path in [module, *module.parents[2].glob("numpy.libs/*openblas*")]:
        library = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads"):
            if hasattr(library, name.format("set")):
                return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None


_holders: dict[object, int] = {}  # the products that hold BLAS to one thread, and its number before the first of them


def _hold(token: object, get: Any, put: Any) -> None:
    _holders[token] = next(iter(_holders.values()), 0) or get()
    put(1)


def _release(token: object, get: Any, put: Any) -> None:
    if [*_holders] == [token]:
        put(_holders[token])  # before it is forgotten: an interrupt may make this run again
    _holders.pop(token, None)


def _forked() -> None:  # not while another thread is in `exclusively`
    """Restore the number in a child, which does not have the other threads that held it."""
    while _holders:
        _, before = _holders.popitem()
        _number()[1](before)  # type: ignore[index]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any]) -> None:
    """``np.matmul(a, b, out)`` while BLAS has one thread; then it has its own number again, also after an error."""
    number = _number()
    if number is None or (not _holders and number[0]() == 1):
        np.matmul(a, b, out)
        return
    token = object()

    def compute() -> None:
        exclusively(partial(_hold, token, *number))
        np.matmul(a, b, out)

    _finally(lambda: exclusively(partial(_release, token, *number)), compute, 4)
