"""``tl.compile``: which recording a call may replay, and what a replay leaves behind."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterable
from types import CellType, CodeType
from typing import Any, Generic, ParamSpec, TypeVar, overload

import numpy as np

from ..checks import flag
from ..core.modes import is_grad_enabled, listener, tracer
from ..core.tensor import Tensor
from ..core.values import flattened
from ..errors import ArgumentError, DTypeError, brief
from ..nn.module import Parameter
from .recording import PLAIN, Recording
from .state import compare, report

P = ParamSpec("P")
R = TypeVar("R")
_MOST = 16  # recordings of a function that are kept


def _key(argument: Any) -> Any:
    """The part of an argument that a recording depends on."""
    if isinstance(argument, Parameter):  # the function may also know it from outside
        return argument
    if isinstance(argument, Tensor):
        data = argument._data
        return data.shape, data.dtype, data.strides, argument._requires_grad
    if isinstance(argument, (list, tuple)):
        return type(argument), [_key(part) for part in argument]
    if isinstance(argument, dict):
        return [*argument], [_key(part) for part in argument.values()]
    return argument


class Compiled(Generic[P, R]):
    """A function that replays what it did; see :func:`compile`."""

    def __init__(self, fn: Callable[P, R], check: bool = False) -> None:
        if not callable(fn):
            raise DTypeError(f"compile: fn must be a function, got {brief(fn)}")
        self.fn: Callable[..., Any] = fn
        functools.update_wrapper(self, fn, updated=())
        self.check = check
        self.recordings: list[tuple[Any, Recording]] = []  # with their keys, newest first
        self.traced = self.replayed = 0
        self._busy = threading.RLock()
        self._cells = getattr(fn, "__closure__", None) or ()
        self._names = [*_global_names(fn)]

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["fn"], name)  # of a module, for example its parameters

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Replay the function, or call it."""
        return self._call(args, kwargs)  # type: ignore[no-any-return]  # what the function returns

    def _call(self, args: Any, kwargs: Any) -> Any:
        if tracer() is not None or listener() is not None:
            return self.fn(*args, **kwargs)
        outside, tensors = self._outside(), [x for x in flattened((args, kwargs)) if isinstance(x, Tensor)]
        same = [id(x._data) for x in (*outside, *tensors) if isinstance(x, Tensor)]  # the same tensor given twice
        key = (is_grad_enabled(), outside, _key(args), _key(kwargs), [*map(same.index, same)])
        with self._busy:
            first = None
            for known, recording in self.recordings:
                if _equal(known, key) and recording.holds():
                    if recording.refusal:
                        return self.fn(*args, **kwargs)
                    if recording.program is not None:
                        self.replayed += 1
                        if self.check:
                            return compare(recording, tensors, lambda: self.fn(*args, **kwargs))
                        return recording.replay(tensors)
                    first = recording
            if self.traced > self.replayed + 2 * _MOST:
                return self.fn(*args, **kwargs)
            recording = Recording(self.fn, args, kwargs, outside)
            self.traced += 1
            if first is not None and not recording.refusal:
                recording.plan(first)
            why = recording.refusal
            if self.traced > self.replayed + 2 * _MOST:
                why = why or "too many calls have other shapes, numbers or global variables than earlier ones"
            if why:
                name = getattr(self.fn, "__qualname__", type(self.fn).__name__)
                warnings.warn(f"tl.compile: {name} is called as ever, not replayed: {why}", stacklevel=3)
            self.recordings = [(key, recording), *(r for r in self.recordings if r[1] is not first)][:_MOST]
            result, recording.result = recording.result, None
            return result

    def report(self) -> str:
        """The newest program as a table: its ops, the shapes of their results, and the time of each in a trial run.

        Raises:
            ArgumentError: there is no program before the third call.
        """
        recording = next((r for _, r in self.recordings if r.replayed), None)
        if recording is None:
            why = next((r.refusal for _, r in self.recordings if r.refusal), "the third call is the first replay")
            raise ArgumentError(f"report: there is no program: {why}")
        return report(recording)

    def _outside(self) -> list[Any]:
        """What the function finds in its closure and in global variables."""
        scope = getattr(self.fn, "__globals__", {})
        return [cell.cell_contents for cell in self._cells if cell != CellType()] + [
            scope[name] for name in self._names if name in scope
        ]


def _equal(a: Any, b: Any) -> bool:
    if a is not b and isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    return a is b or (isinstance(a, (*PLAIN, np.dtype)) and type(a) is type(b) and bool(a == b))


def _global_names(fn: Any) -> Iterable[str]:
    """The global variables that a function and those defined in it may read."""
    codes = [fn.__code__] if hasattr(fn, "__code__") else []
    for code in codes:
        yield from code.co_names
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


@overload
def compile(fn: Callable[P, R], /) -> Compiled[P, R]: ...
@overload
def compile(*, check: bool = ...) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...
def compile(fn: Any = None, *, check: bool = False) -> Any:
    """Record a function of tensors at its first two calls, and replay it at the next: the same ops, computed into
    memory that is made once, without the Python in between.

    The function may be a forward pass, a value with its gradient, or a whole training step. It takes and returns
    tensors, also in lists, tuples and dicts. New shapes or dtypes of the arguments are recorded anew. Two recordings
    are compared before the third call replays one.

    A replay has the bits of the function. These may change between calls: the values of all tensors, parameters and
    buffers; the mode, attributes and layers of modules; the options, state and parameters of optimisers;
    ``requires_grad``, gradients and random generators; variables in the closure and global variables that the function
    names. Other state of Python is frozen after the second call: attributes of your own objects, a file, the time.

    A function that reads values cannot be replayed, by ``if loss > 1``, ``loss.item()`` or ``print(loss)``; nor one
    that draws random numbers by NumPy itself, or has hooks. It is called as ever, and a warning names the line.

    A returned tensor has a graph, as ever, but no second derivatives: take first derivatives inside of the function for
    these. ``detect_anomaly`` and ``tl.onnx.export`` call the function itself.

    Args:
        fn: the function, or a module.
        check: at each replay, call the function too, from the same state, and raise if anything differs. Slow.

    Returns:
        A function with the same arguments. Its ``report()`` lists the last program: ops, memory, time of each.

    Raises:
        DTypeError: ``fn`` is not a function.
        TinygradLenetError: with ``check``, if a replay differs from the function.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn, optim
    >>> model = nn.Linear(2, 1, generator=0)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.02)
    >>> @tl.compile
    ... def step(x, y):
    ...     loss = tl.mse_loss(model(x), y)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = tl.tensor([[1.0, 2.0], [3.0, 4.0]]), tl.tensor([[1.0], [2.0]])
    >>> losses = [step(x, y).item() for _ in range(50)]
    >>> losses[-1] < 0.1 * losses[0]
    True
    """
    if fn is None:
        return functools.partial(Compiled, check=flag("check", check))
    return Compiled(fn, flag("check", check))
