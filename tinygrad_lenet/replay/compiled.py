"""``tl.compile``: which recording a call may replay, and what a replay leaves behind."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from ..core.modes import is_grad_enabled, listener, tracer
from ..core.tensor import Tensor
from .recording import PLAIN, Recording
from .trace import leaves

P = ParamSpec("P")
R = TypeVar("R")
_MOST = 16  # recordings of a function that are kept


def _key(leaf: Any) -> Any:
    """The part of an argument that a recording depends on."""
    if isinstance(leaf, Tensor):
        data = leaf._data
        return data.shape, data.dtype, data.strides, leaf._requires_grad
    return type(leaf), leaf


class Compiled(Generic[P, R]):
    """A function that replays what it did; see :func:`compile`."""

    def __init__(self, fn: Callable[P, R]) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.recordings: list[tuple[Any, Recording]] = []  # with their keys, newest first
        self.traced = 0
        self._busy = threading.RLock()
        self._cells = getattr(fn, "__closure__", None) or ()
        self._names = [*_global_names(fn)]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Replay the function, or call it."""
        if tracer() is not None or listener() is not None:
            return self.fn(*args, **kwargs)
        given = leaves((args, kwargs))
        key = (is_grad_enabled(), self._outside(), [_key(leaf) for leaf in given])
        with self._busy:
            first = None
            for known, recording in self.recordings:
                if _equal(known, key) and recording.holds():
                    if recording.refusal:
                        return self.fn(*args, **kwargs)
                    if recording.program is not None:
                        return recording.replay([x for x in given if isinstance(x, Tensor)])
                    first = recording
            recording = Recording(self.fn, args, kwargs)
            self.traced += 1
            if first is not None and not recording.refusal:
                recording.plan(first)
            if recording.refusal:
                text = f"tl.compile: {self.__name__} is not replayed, but called as ever: {recording.refusal}"
                warnings.warn(text, stacklevel=2)
            self.recordings = [(key, recording), *(r for r in self.recordings if r[1] is not first)][:_MOST]
            result, recording.result = recording.result, None
            return result

    def _outside(self) -> list[Any]:
        """What the function finds in its closure and in global variables."""
        scope = getattr(self.fn, "__globals__", {})
        return [cell.cell_contents for cell in self._cells] + [scope[name] for name in self._names if name in scope]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    return a is b or (isinstance(a, (*PLAIN, np.dtype)) and type(a) is type(b) and bool(a == b))


def _global_names(fn: Any) -> Iterable[str]:
    """The global variables that a function and those defined in it may read."""
    codes = [fn.__code__] if hasattr(fn, "__code__") else []
    for code in codes:
        yield from code.co_names
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def compile(fn: Callable[P, R]) -> Compiled[P, R]:
    """Record a function of tensors at its first calls, and replay it at the next.
    """
    return Compiled(fn)
