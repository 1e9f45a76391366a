"""``tl.compile``: guards decide which recording a call may replay.

A recording is right for calls from the same state. Of this state, a guard has lists of parts:

- the key of the call: the grad mode, the number of threads, what the function finds in its closure and in global
  variables, and its arguments, of tensors only the shape, strides, dtype and ``requires_grad``;
- attributes of modules; parameters of optimisers, contents of lists in modules, and flags of tensors from outside.

Each call makes such lists anew, and compares them part by part: plain values by value, others by identity. So a guard
costs some microseconds. What a list does not have may change freely, such as the values of tensors and the options of
optimisers: a replay reads them where they are.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
from collections.abc import Callable, Iterable
from dis import get_instructions
from inspect import unwrap
from types import CellType, CodeType
from typing import Any, Generic, ParamSpec, TypeVar, overload

from ..checks import Function
from ..core.modes import is_grad_enabled, listener
from ..core.signature import checked
from ..core.tensor import Tensor
from ..core.values import flattened
from ..errors import ArgumentError
from ..kernels.threads import get_num_threads
from ..nn import Module, Parameter  # not from ..nn.module: another thread may be importing nn
from .recording import Recording
from .trace import agree

P = ParamSpec("P")
R = TypeVar("R")
_EMPTY = CellType()  # a variable of the closure that has no value yet
_MOST = 16  # recordings of a function that are kept
# The same tuple for equal parts, since parts are compared by identity.
_layout = functools.lru_cache(maxsize=4096)(lambda *parts: parts)


def parts_of(values: Iterable[Any], tensors: list[Tensor] | None = None) -> list[Any]:
    """The parts of values, also in lists, tuples and dicts, that a recording depends on.

    The tensors among arguments are added to a list: of them, only the layout is a part.
    """
    found: list[Any] = []
    for a in values:
        if isinstance(a, (list, tuple, dict)):
            found += type(a), len(a), *parts_of(a.items() if isinstance(a, dict) else a, tensors)
        elif tensors is not None and isinstance(a, Tensor):
            tensors.append(a)
            found.append(_layout(a._data.shape, a._data.strides, a._data.dtype, a._requires_grad, not a._hooks))
            found += [a] if isinstance(a, Parameter) else []  # which the function may know from outside
        else:  # an array among arguments may be changed in place
            found += (a, a.tobytes()) if tensors is not None and hasattr(type(a), "tobytes") else (a,)
    return found


class Guard:
    """When a recording may be replayed: the key of its call, and the state of what the function uses."""

    def __init__(self, key: list[Any], recording: Recording) -> None:
        self.key, self.recording = key, recording
        leaves = flattened([step.args for step in recording.steps if step.out is None])  # arguments of effects
        self._optimizers = [leaf for leaf in leaves if hasattr(leaf, "param_groups")]
        roots = [root for root in (*key, *recording.modules.values()) if isinstance(root, Module)]
        self._modules = dict.fromkeys(module for root in roots for module in root.modules())
        attributes = [attribute for module in self._modules for attribute in vars(module).items()]
        self._containers = [value for name, value in attributes if isinstance(value, (list, dict)) and name[0] != "_"]
        self._flags = [(t, t._data, t._requires_grad, not t._hooks) for t in recording.watched]
        self._changes, self._attributes, self._lists = Module._changes[0], self._now_attributes(), self._now_lists()

    def _now_attributes(self) -> list[Any]:
        """The attributes of modules, names and values."""
        return [part for module in self._modules for attribute in vars(module).items() for part in attribute]

    def _now_lists(self) -> list[Any]:
        """The parameters of optimisers, group by group, and the contents of the lists and dicts of modules."""
        groups = [group["params"] for optimizer in self._optimizers for group in optimizer.param_groups]
        return flattened([(some, None) for some in (*groups, *self._containers)])  # None ends a list

    def state(self) -> list[Any]:
        """State outside of the function that only the caller may change, or an op."""
        options = [optimizer.param_groups for optimizer in self._optimizers]
        return parts_of([*self._now_attributes(), *self._now_lists(), *options])

    def holds(self, key: list[Any]) -> bool:
        """Return True if all is as it was in the recorded call."""
        if not agree(key, self.key):
            return False
        # The count is read first: another thread may assign to an attribute meanwhile.
        if (count := Module._changes[0]) != self._changes and not agree(self._now_attributes(), self._attributes):
            return False
        self._changes = count  # until the next assignment to any module, attributes need not be compared
        flags = all(t._data is d and t._requires_grad is g and (not t._hooks) is h for t, d, g, h in self._flags)
        grads = all((leaf._grad is None) == (value is None) for leaf, value in self.recording.before.items())
        return flags and grads and agree(self._now_lists(), self._lists)


class Compiled(Generic[P, R]):
    """A function that replays what it did; see :func:`compile`."""

    def __init__(self, fn: Callable[P, R], check: bool = False) -> None:
        self.fn = fn
        functools.update_wrapper(self, fn, updated=())
        self.check = check
        self.guards: list[Guard] = []  # each with its recording, newest first
        self.traced = self.replayed = 0
        self.steady = True  # the function does not change by Python what it may read
        self._locks: dict[int, Any] = {}  # by process: the thread that holds its lock is not in a forked child
        self._cells = getattr(unwrap(fn), "__closure__", None) or ()  # of what no_grad() decorates, too
        self._globals, self._names = getattr(unwrap(fn), "__globals__", {}), [*_global_names(unwrap(fn))]

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["fn"], name)  # of a module, for example its parameters

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Replay the function, trace it, or call it."""
        if listener() is not None:  # an export, anomaly detection, or the trace of another function
            return self.fn(*args, **kwargs)
        with self._locks.setdefault(os.getpid(), threading.RLock()):
            tensors: list[Tensor] = []
            cells = [cell.cell_contents for cell in self._cells if cell != _EMPTY]
            modes = [is_grad_enabled(), get_num_threads()]
            outside = parts_of([*cells, *map(self._globals.get, self._names)])
            key = [*modes, *outside, len(args), *parts_of((*args, *kwargs.items()), tensors)]
            # Which of the tensors are the same, or share memory and therefore a version counter: a trace cannot tell.
            same = [id(part) for x in (*outside, *tensors) if isinstance(x, Tensor) for part in (x._data, x._version)]
            key += map(same.index, same)
            found = next((guard for guard in self.guards if guard.holds(key)), None)
            known = found and found.recording
            if known and known.programs:  # two calls were traced, and were the same
                self.replayed += 1
                answer: R = known.compare(tensors, self.fn, args, kwargs) if self.check else known.replay(tensors)
                return answer
            left = self.replayed + 2 * _MOST - self.traced  # if most calls are new ones, tracing only makes them slower
            many = "too many calls find new shapes, numbers, arrays, lists or variables (pass what changes as tensors)"
            if self.steady and not (known and known.refusal) and left >= 0:
                recording = Recording(tensors)
                before = found and found.state()
                result: R = recording.record(self.fn, args, kwargs)
                self.traced += 1
                if found and before and not agree(before, found.state()):
                    self.steady = False
                    recording.refuse("the function itself changes attributes of modules or options of optimisers")
                if known and not recording.refusal:  # the second call
                    recording.plan(known)
                if why := recording.refusal or (many if left < 1 else ""):
                    name = getattr(self.fn, "__qualname__", type(self.fn).__name__)
                    warnings.warn(f"tl.compile: {name} is called as usual, not replayed: {why}", stacklevel=2)
                self.guards = [Guard(key, recording), *(other for other in self.guards if other is not found)][:_MOST]
                return result
        return self.fn(*args, **kwargs)

    def report(self) -> str:
        """The newest program as a table: a line for each op and each change of state, in order.

        The columns are its name, the dtype and shape of its result, the number of calls that compute it (0 for a view),
        their time in a trial run that leaves everything as it was, and the line of your code. If the batch is computed
        in chunks, a second table has the steps of one chunk.

        Raises:
            ArgumentError: no call has been replayed yet.
        """
        recordings = [guard.recording for guard in self.guards]
        # The trial run changes the state, and sets it back.
        with self._locks.setdefault(os.getpid(), threading.RLock()):
            for recording in recordings:
                if recording.latest is not None:
                    return recording.report()
        usual = "the third call with the same shapes, numbers and arrays is the first replay"
        raise ArgumentError(f"report: there is no program: {next((r.refusal for r in recordings if r.refusal), usual)}")


def _global_names(fn: Any) -> Iterable[str]:
    """The names of global variables that a function and those defined in it may read (and names of attributes)."""
    codes = [fn.__code__] if hasattr(fn, "__code__") else []
    for code in codes:  # which grows meanwhile
        yield from {step.argval for step in get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]


@overload
def compile(fn: Callable[P, R], /) -> Compiled[P, R]: ...
@overload
def compile(*, check: bool = ...) -> Callable[[Callable[P, R]], Compiled[P, R]]: ...
@checked
def compile(fn: Function | None = None, *, check: bool = False) -> Any:
    """Record a function of tensors at its first two calls, and replay it at the next: the same ops, computed into
    memory that is made once, without the Python in between.

    The function may be a forward pass, a value with its gradient, or a whole training step. It takes and returns
    tensors, also in lists, tuples and dicts. New shapes or dtypes of the arguments are recorded anew. Two recordings
    are compared before the third call replays one.

    A replay has the bits of the function. But of a batch of more than 64 rows, sums over the rows may be added chunk by
    chunk, which rounds differently, though in the same order for any number of threads.

    These may change between calls: the values of all tensors, parameters, buffers and arrays; the mode, attributes and
    layers of modules; the options, state and parameters of optimisers; ``requires_grad``, gradients and random
    generators; variables in the closure and global variables that the function names, with the contents of lists and
    dicts. Other state of Python is frozen after the second call: attributes of your own objects, arrays used as
    indices, a file, the time. A replay does not run your Python: it appends to no list and prints nothing.

    A function is called as usual, and a warning names the line, if it

    - reads values, by ``if loss > 1``, ``loss.item()`` or ``print(loss)``;
    - draws random numbers by NumPy itself, or has hooks;
    - steps a schedule, or sets attributes of modules or options of optimisers;
    - differentiates through the graph of an argument, changes a tensor in whose memory an argument lies, or returns a
      leaf that it made.

    Numbers and arrays that change from call to call are best passed as tensors: each new one is recorded anew.

    A returned tensor has a graph, as usual, but no second derivatives: take first derivatives inside of the function
    for these. ``detect_anomaly`` and ``tl.onnx.export`` call the function itself.

    Args:
        fn: the function, or a module.
        check: at each replay, call the function too, from the same state, and raise if anything differs (with chunks,
            by more than they may round). Slow.

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
    return functools.partial(compile, check=check) if fn is None else Compiled(fn, check)
