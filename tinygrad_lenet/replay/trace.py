"""The trace of a call: its steps in order, with a :class:`Value` in place of each array.

The function runs as usual while a :class:`Trace` listens (``tracing`` in ``core/modes.py``). It hears every op with its
arguments and its output. It hears a backward pass too: the rules are made of ops, and receive Tensors while a trace
listens. It also hears effects: changes in place, and functions declared by ``effect`` in ``core/modes.py``, such as the
step of an optimiser.

Arrays are recognised by identity: the output of one op is an argument of another. An array that no op has computed and
that is not an argument comes from outside: it belongs to a parameter or another tensor that was there before the call,
or it is a constant, such as a number that the function turned into a tensor.

A trace does not hear Python. A replay would repeat what Python computed from the values of tensors in the traced call.
So reading a value refuses the replay, and two traces are compared before one is replayed (:func:`difference`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any
from weakref import ref

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.lib.stride_tricks import as_strided

from ..core.modes import user_line
from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..ops.elementwise import cast


class Value:
    """An array of the trace: where it comes from, and its layout in memory. Values are equal if they are one object."""

    def __init__(self, kind: str, array: Any, tensor: Tensor | None = None, parents: Sequence[Value] = ()) -> None:
        # "result" of an op; "outside", see above; or "input", which each replay gets anew: an argument, the .grad of a
        # leaf before the call, or the gradient that a backward pass after the call begins with.
        self.kind = kind
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype
        # Where it was during the trace: the byte of the element with index 0, the lowest byte of all elements, and the
        # byte after the highest. With negative strides, the first two differ.
        self.address: int = array.__array_interface__["data"][0]
        self.low, self.high = byte_bounds(array) if array.size else (0, 0)
        self.tensor: Any = tensor  # the tensor from outside; None for others, and for constants
        # The value that owns the memory: of a view, that of the argument whose memory it is in; else the value itself.
        self.whole: Value = next((v.whole for v in parents if v.whole.low <= self.address < v.whole.high), self)
        # Arrays from outside, and views of them, are used where they are. Others, with None, get memory in a program.
        self.array: Any = array if self.whole.kind == "outside" else None
        self.stamp = hash(array.tobytes()) if kind == "outside" and tensor is None else 0  # NumPy may change it

    def twin(self, *rows: int) -> Value:
        """Return a new result of this shape, dtype and order of axes in memory; ``twin(n)`` has n rows (first axis)."""
        # Only the strides of this array are read: by them empty_like chooses the order of axes.
        layout = as_strided(np.empty((), self.dtype), (*rows, *self.shape[len(rows) :]), self.strides)
        return Value("result", np.empty_like(layout))


class Step:
    """An op or an effect of the trace, with the line of the user's code that led to it."""

    def __init__(self, op: Any, args: tuple[Any, ...], out: Value | None, line: str = "") -> None:
        self.op = op  # an Op, or the function of an effect
        self.args = args  # with Values in place of arrays, also in lists
        self.out: Any = out  # the Value of the output; None for an effect
        self.line = line or user_line()

    @property
    def name(self) -> str:
        """The name of the op or the effect."""
        return getattr(self.op, "name", None) or str(self.op.__name__).strip("_").replace("_", " ")


def values_in(tree: Any) -> list[Value]:
    """The Values in nested lists, tuples and dicts."""
    return [leaf for leaf in flattened([tree]) if isinstance(leaf, Value)]


class Trace:
    """The steps of a call, and what else a replay must know of it.

    The engine calls the methods from :meth:`hear` on, and :meth:`refuse`.
    """

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        self.steps: list[Step] = []
        self.refusal = ""  # why the call cannot be replayed, if so
        self.modules: dict[int, Any] = {}  # those that were called, by identity
        self.watched: dict[Tensor, None] = {}  # tensors from outside that ops used; their requires_grad must not change
        self.before: dict[Tensor, Value | None] = {}  # the .grad of leaves before the call, if the function reads it
        self.touched: dict[Tensor, None] = {}  # leaves whose .grad was set
        self.arguments = [*arguments]
        self._known: dict[int, tuple[Any, Value]] = {}  # the Value of each array, by its id
        self.inputs = [self.new("input", x._data) for x in arguments]

    def refuse(self, why: str) -> None:
        """Note why the call cannot be replayed, and the user's line. The first reason counts."""
        self.refusal = self.refusal or f"{why}, at {user_line()}"

    # Arrays and their Values

    def new(self, kind: str, array: Any, tensor: Tensor | None = None, parents: Sequence[Value] = ()) -> Value:
        """Make the Value of an array. The trace refers to the array weakly, so that its memory is recycled as usual."""
        value, key = Value(kind, array, tensor, parents), id(array)
        self._known[key] = ref(array, lambda _: self._known.pop(key, None)), value
        return value

    def value(self, x: Any) -> Any:
        """Return the Value of a tensor or an array, made if it is not known; any other object itself."""
        array, tensor = (x._data, x) if isinstance(x, Tensor) else (x, None)
        if not isinstance(array, np.ndarray):
            return x
        _, found = self._known.get(id(array), (None, None))
        if tensor is not None and (found is None or found.kind == "outside"):
            self.watched[tensor] = None
            if tensor._node is not None:
                self.refuse("a tensor from outside has a graph of its own")
        return found or self.new("outside", array, tensor)

    # What the engine tells

    def hear(self, op: Any, args: tuple[Any, ...], out: Tensor) -> None:
        """An op has computed ``out``."""
        given = mapped(args, self.value)
        self.steps.append(Step(op, given, self.new("result", out._data, None, values_in(given))))

    def copied(self, array: Any, copy: Any) -> None:
        """An array of the user has been copied, perhaps to another dtype. A replay copies what it holds then."""
        self.steps.append(Step(cast.op, (self.value(array), copy.dtype), self.new("result", copy)))

    def effect(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """An effect has happened. It keeps its Tensors: it changes these, and not copies in the memory of a program."""
        given = mapped(args, lambda leaf: leaf if isinstance(leaf, Tensor) else self.value(leaf))
        self.steps.append(Step(function, given, None))
        if any(t._version is x._version for t in flattened([given]) if isinstance(t, Tensor) for x in self.arguments):
            self.refuse("an argument shares memory with a tensor that is changed in place")

    def write(self, tensor: Tensor, key: Any, array: Any) -> None:
        """``tensor[key] = array`` is about to happen."""
        target = self.value(tensor)
        if target.whole.kind == "input":
            self.refuse("an argument, or an earlier gradient, is changed in place")
        self.effect(change_in_place, (target.whole.tensor, target, key, array))

    def read_grad(self, leaf: Tensor) -> None:
        """The function asks for the ``.grad`` of a leaf: it may be that of an earlier call."""
        self._refuse_argument(leaf)
        outside = self.value(leaf).kind == "outside"  # else an op has made it
        if outside and leaf not in self.touched and leaf not in self.before:
            self.before[leaf] = None if leaf._grad is None else self.new("input", leaf._grad._data)

    def set_grad(self, leaf: Tensor) -> None:
        """The ``.grad`` of a leaf is about to be set."""
        self._refuse_argument(leaf)
        self.touched[leaf] = None

    def _refuse_argument(self, leaf: Tensor) -> None:
        if any(leaf is x for x in self.arguments):
            self.refuse("the .grad of an argument of the function is read or set")


def change_in_place(owner: Tensor | None, target: Any, key: Any, array: Any) -> None:
    """The effect of ``x[key] = array``; the target is the array of x.

    The owner is x, or the tensor of which x is a view, if that comes from outside; None if the function made it.
    """
    if owner is not None:  # a graph that saved the old values must refuse to use them
        owner._version[:] = owner._version[0] + 1, user_line()
    target[key] = array


def difference(first: Sequence[Step], second: Sequence[Step]) -> str:
    """Return where two traces of one function differ, or "". If they do, Python did something else at the second call,
    which a replay would not do.
    """
    for a, b in zip(first, second, strict=False):
        if a.op is not b.op:
            return f"{a.name} at the first call, {b.name} at the second, at {b.line}"
        if not agree(flattened([a.args]), flattened([b.args]), same_argument):
            return f"{b.name} gets another number, array or option at the second call, at {b.line}"
    if len(first) != len(second):
        return f"{len(first)} steps at the first call, {len(second)} at the second"
    return ""


def same_argument(x: Any, y: Any) -> bool:
    """Return True if arguments of a step in two traces mean the same. The array of a constant may be made anew by each
    call; then its bytes are compared.
    """
    if isinstance(x, Value) and isinstance(y, Value):
        alike = (x.kind, x.shape, x.dtype, x.stamp) == (y.kind, y.shape, y.dtype, y.stamp)
        return alike and (x.kind != "outside" or x.array is y.array or x.array.tobytes() == y.array.tobytes())
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x._version is y._version
    return identical(x, y) or (not isinstance(x, PLAIN) and type(x) is type(y) and bool(x == y))


PLAIN = (int, float, complex, bool, str, bytes, type(None), np.dtype, np.generic)


def identical(x: Any, y: Any) -> bool:
    """Return True if two objects are one, or plain values that no program can tell apart: NaN is NaN, -0.0 is not 0."""
    return x is y or (type(x) is type(y) and isinstance(x, PLAIN) and repr(x) == repr(y))


def agree(xs: Sequence[Any], ys: Sequence[Any], alike: Callable[[Any, Any], bool] = identical) -> bool:
    """Return True if two lists have the same length, and their members are alike one by one."""
    return len(xs) == len(ys) and (all(map(is_, xs, ys)) or all(map(alike, xs, ys)))
