"""``tl.compile``: which recording a call may replay, and what a replay leaves behind."""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Iterable
from operator import is_
from types import CodeType
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from ..checks import flag
from ..core.modes import is_grad_enabled, listener, tracer, tracing
from ..core.tensor import Tensor
from ..core.values import mapped
from ..nn.module import changes
from .program import Program
from .trace import Step, Trace, Value, difference, leaves, needed

P = ParamSpec("P")
R = TypeVar("R")
_PLAIN = (int, float, complex, bool, str, bytes, type(None))
_MOST = 16  # recordings of a function that are kept


class Recording:
    """One traced call: its steps, its results, and the state under which a replay does the same."""

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        trace = Trace([x for x in leaves((args, kwargs)) if isinstance(x, Tensor)])
        with tracing(trace):
            self.result: Any = fn(*args, **kwargs)
        self.trace, self.program, self.attempts = trace, None, 1
        self.inputs, self.before, self.absent = trace.inputs, trace.gradients, trace.absent
        self.tree = mapped(self.result, lambda leaf: self._returned(trace, leaf))
        self.grads = {p: trace.value(p._grad._data) if p._grad is not None else None for p in trace.touched.values()}
        self.refusal = trace.refusal
        self.outputs = [v for v in (*leaves(self.tree), *self.grads.values()) if isinstance(v, Value)]
        self.steps: list[Step] = needed(trace.steps, self.outputs)
        self.modules, self.changes = [*trace.modules.values()], changes[0]
        self.fingerprint = _fingerprint(self.modules)
        self.lists = [[*some] for some in self._lists()]

    @staticmethod
    def _returned(trace: Trace, leaf: Any) -> Any:
        if isinstance(leaf, np.ndarray):
            trace.refuse("the function returns an array")
        if not isinstance(leaf, Tensor):
            return leaf
        if leaf._node is not None and leaf._node.saved is not None:
            trace.refuse("the function returns a tensor with a graph")
        return trace.value(leaf._data, leaf)

    def _lists(self) -> list[Any]:
        """The lists of parameters, layers and the like on which the recording depends."""
        groups = [group["params"] for optimizer in self.trace.optimizers for group in optimizer.param_groups]
        return groups + [a for m in self.modules for a in vars(m).values() if isinstance(a, list)]

    def plan(self, first: Recording) -> None:
        """Make the program, after an equal first trace."""
        self.grads = {p: self.grads[p] for p in first.grads if p in self.grads}  # others were made by the function
        self.absent = [p for p in first.absent if p in self.absent]
        self.program = Program(self.steps, self.outputs, [*self.inputs, *self.before])
        self.trace.steps = []

    def holds(self) -> bool:
        """Whether the state is that of the recording."""
        if any(p._grad is not None for p in self.absent) or any(v.tensor._grad is None for v in self.before):
            return False
        if self.changes != changes[0]:
            if _fingerprint(self.modules) != self.fingerprint:
                return False
            self.changes = changes[0]
        return all(len(a) == len(b) and all(map(is_, a, b)) for a, b in zip(self.lists, self._lists(), strict=False))

    def replay(self, inputs: list[Tensor]) -> Any:
        """Compute the same for other inputs."""
        program = self.program
        assert program is not None
        for value, x in zip(self.inputs, inputs, strict=True):
            np.copyto(program.arrays[value], x._data)
        for value in self.before:
            np.copyto(program.arrays[value], value.tensor._grad._data)
        program.run()
        for p, found in self.grads.items():
            p._grad = None if found is None else Tensor._wrap(np.array(program.array(found)))
        return mapped(self.tree, lambda leaf: self._result(leaf, inputs) if isinstance(leaf, Value) else leaf)

    def _result(self, value: Value, inputs: list[Tensor]) -> Tensor:
        """A returned tensor: an argument or a tensor from outside itself, else a new one."""
        if value.kind == "input":
            return inputs[self.inputs.index(value)]
        if value.kind == "outside":
            return value.tensor
        return Tensor._wrap(np.array(self.program.array(value)))


def _fingerprint(modules: Iterable[Any]) -> list[Any]:
    """The attributes of modules: values of numbers and strings, identities of others."""
    return [{k: v if isinstance(v, _PLAIN) else id(v) for k, v in vars(m).items()} for m in modules]


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
            if first is not None and not recording.refusal:
                recording.refusal = difference(first.steps, recording.steps)
                if not recording.refusal:
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
    return a is b or (isinstance(a, (*_PLAIN, np.dtype)) and type(a) is type(b) and bool(a == b))


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
