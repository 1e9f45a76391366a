"""The modes of a thread or task: whether ops are recorded, and who listens to them."""

from __future__ import annotations

import functools
import os
import sys
from _thread import _local  # threading.local, whose module takes longer to import
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from ..checks import flag
from ..errors import ArgumentError

__all__ = ["enable_grad", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]

F = TypeVar("F", bound=Callable[..., Any])


class _Thread(_local):
    """The mark of a thread: an object of its own, which is false."""

    def __init__(self) -> None:
        self.mark: list[None] = []


_thread = _Thread()
# A context variable, so that each thread and each asyncio task has its own value. A new thread must record, but it may
# inherit the context of the thread that started it (from Python 3.14 on, without the global lock). So the value that
# switches recording off is the mark of the thread that did so, and other threads ignore it.
_recording: ContextVar[Any] = ContextVar("recording", default=True)
recording = _recording.get  # faster than is_grad_enabled, which decides if this is not true
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def is_grad_enabled() -> bool:
    """True if ops are recorded, as they are outside of :class:`no_grad`. Each thread and task has its own mode.

    >>> import tinygrad_lenet as tl
    >>> with tl.no_grad():
    ...     tl.is_grad_enabled()
    False
    """
    mode = _recording.get()
    return mode is True or mode is not _thread.mark


class _WithoutParentheses(type):
    """The type of ``no_grad``: ``@no_grad`` decorates, and ``with no_grad:`` is an error that says what to write."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls()(*args) if args and callable(args[0]) else super().__call__(*args, **kwargs)

    def __enter__(cls) -> None:
        raise ArgumentError(f"{cls.__name__} needs parentheses: write `with {cls.__name__}():`")

    __exit__ = __enter__  # never called; `with` looks for both


class _GradMode(ContextDecorator, metaclass=_WithoutParentheses):
    enabled: bool

    def __init__(self) -> None:
        self._before: list[Any] = []

    def __enter__(self) -> None:
        self._before.append(_recording.get())
        _recording.set(self.enabled or _thread.mark)

    def __exit__(self, *exc: object) -> None:
        _recording.set(self._before.pop())

    def _recreate_cm(self) -> _GradMode:
        return type(self)()  # a new one for each call of a decorated function: threads must not share it


class no_grad(_GradMode):
    """Switch recording off: a context manager and a decorator, for inference and for updates in place.

    >>> import tinygrad_lenet as tl
    >>> w = tl.ones(2, requires_grad=True)
    >>> with tl.no_grad():
    ...     y = w * 2
    >>> y.requires_grad
    False
    """

    enabled = False


inference_mode = no_grad  # PyTorch's other name; here without limits on the tensors that are made inside


class enable_grad(_GradMode):
    """Switch recording on inside a :class:`no_grad` block: a context manager and a decorator.

    >>> import tinygrad_lenet as tl
    >>> w = tl.ones(2, requires_grad=True)
    >>> with tl.no_grad(), tl.enable_grad():
    ...     y = w * 2
    >>> y.requires_grad
    True
    """

    enabled = True


class set_grad_enabled(_GradMode):
    """Switch recording on or off: from the call on, as a plain call; for a block, as a context manager; for a function,
    as a decorator.

    >>> import tinygrad_lenet as tl
    >>> w = tl.ones(2, requires_grad=True)
    >>> for train in (True, False):
    ...     with tl.set_grad_enabled(train):
    ...         print((w * 2).requires_grad)
    True
    False
    """

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.enabled = flag("mode", mode)
        self.__enter__()

    def __exit__(self, *exc: object) -> None:
        _recording.set(self._before[0])  # as it was before the object was made

    def __call__(self, function: F) -> F:
        """Decorate a function; recording is again as it was before."""
        self.__exit__()
        return super().__call__(function)

    def _recreate_cm(self) -> set_grad_enabled:
        return set_grad_enabled(self.enabled)


# Functions that are called after every op, and before every change in place; usually None. The ONNX export uses them.
_listener: ContextVar[Callable[[Any, tuple[Any, ...], Any], None] | None] = ContextVar("listener", default=None)
_watcher: ContextVar[Callable[[Any, Any, Any], None] | None] = ContextVar("watcher", default=None)
listener, watcher = _listener.get, _watcher.get


@contextmanager
def listening(
    hear: Callable[[Any, tuple[Any, ...], Any], None], watch: Callable[[Any, Any, Any], None] | None = None
) -> Iterator[None]:
    """Call ``hear(op, arguments, output)`` after every op of this thread or task inside the block, and
    ``watch(tensor, index, value)`` before every change in place.
    """
    before, mark = (_listener.get(), _watcher.get()), _thread.mark

    def here(tell: Callable[..., None]) -> Callable[..., None]:
        return lambda *what: tell(*what) if _thread.mark is mark else None  # a new thread may inherit the context

    try:
        _listener.set(here(hear))
        if watch is not None:
            _watcher.set(here(watch))
        yield
    finally:
        _listener.set(before[0])
        _watcher.set(before[1])


# The trace that ``tl.compile`` records (replay/trace.py), or None. Beside the ops it hears of effects, of gradients
# and of values that Python reads.
_tracer: ContextVar[Any] = ContextVar("tracer", default=None)
tracer = _tracer.get


@contextmanager
def tracing(trace: Any) -> Iterator[None]:
    """Let ``trace`` record what this thread or task does inside the block."""
    before = _tracer.get()
    try:
        _tracer.set(trace)
        with listening(trace.hear, trace.write):
            yield
    finally:
        _tracer.set(before)


def effect(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function an effect: a change of state that is not an op, such as the update of a parameter.

    A trace records each call, and a replay repeats it, with the arrays of that call in place of those recorded.
    """

    @functools.wraps(function)
    def call(*args: Any) -> None:
        function(*args)
        if (trace := tracer()) is not None:
            trace.effect(function, args)

    return call


def user_line() -> str:
    """The file and line of the user's code that called the package."""
    frame: Any = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE) or "contextlib" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}, line {frame.f_lineno}"
