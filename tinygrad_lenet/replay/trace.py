"""The trace of a function: its ops and effects in order, with a :class:`Value` in place of each array.

The function runs as usual while a :class:`Trace` listens. It hears every op with its arguments and its output. It hears
a backward pass too: the rules are made of ops, and receive Tensors. An array is known by its identity. An array that
neither an op nor a tensor from outside explains is a constant.

A trace does not hear Python. What Python computes from the values of tensors would be frozen. So reading a value
refuses the replay, and two traces are compared before one is replayed (:func:`difference`).
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
from ..core.tensor import Tensor, to_array
from ..core.values import flattened, mapped
from ..ops.elementwise import cast


class Value:
    """An array of the trace: where it comes from, and its layout in memory."""

    def __init__(self, kind: str, array: Any, tensor: Tensor | None = None, parents: Sequence[Value] = ()) -> None:
        # "input": an argument, or the gradient of a leaf before the call; "result" of an op; or "outside": a tensor
        # that was there before the call, or a constant.
        self.kind = kind
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype
        # Where it was during the trace: the first element; the first byte of all, and the byte after the last.
        self.address: int = array.__array_interface__["data"][0]
        self.low, self.high = byte_bounds(array) if array.size else (0, 0)
        self.tensor: Any = tensor  # the tensor from outside
        # The value in whose memory a view lies.
        self.whole: Value = next((v.whole for v in parents if v.whole.low <= self.address < v.whole.high), self)
        # Arrays from outside, and views of them, are used as they are; others get memory in a program.
        self.array: Any = array if self.whole.kind == "outside" else None
        self.stamp = hash(array.tobytes()) if kind == "outside" and tensor is None else 0  # NumPy may change it

    def twin(self, *rows: int) -> Value:
        """A result in this layout, in memory of its own, perhaps with another number of rows."""
        layout = as_strided(np.empty((), self.dtype), (*rows, *self.shape[len(rows) :]), self.strides)
        return Value("result", np.empty_like(layout))


class Step:
    """An op or an effect of the trace."""

    def __init__(self, op: Any, args: tuple[Any, ...], out: Value | None, line: str = "") -> None:
        self.op = op  # a primitive's op, or the function of an effect
        self.args = args  # with Values in place of arrays
        self.out: Any = out  # the Value of an op; None for an effect
        self.line = line or user_line()

    @property
    def name(self) -> str:
        """The name of the op or the effect."""
        return getattr(self.op, "name", None) or str(self.op.__name__).strip("_").replace("_", " ")

    def constants(self) -> list[Any]:
        """The arguments that another trace must have in common: all but the user's line, which some effects take."""
        return [leaf for leaf in flattened([self.args]) if not (isinstance(leaf, str) and leaf == self.line)]


def values_in(tree: Any) -> list[Value]:
    """The Values in nested lists, tuples and dicts."""
    return [leaf for leaf in flattened([tree]) if isinstance(leaf, Value)]


class Trace:
    """Listens while a function runs (``core/modes.py`` and ``core/python_object.py`` call its methods)."""

    def __init__(self, arguments: Sequence[Tensor]) -> None:
        self.steps: list[Step] = []
        self.refusal = ""
        self.modules: dict[int, Any] = {}  # those that were called, by identity
        self.watched: dict[Tensor, None] = {}  # tensors from outside
        self.before: dict[Tensor, Value | None] = {}  # the .grad of leaves before the call, if the function reads it
        self.touched: dict[Tensor, None] = {}  # leaves whose .grad was set
        self.arguments = [*arguments]
        self._known: dict[int, tuple[Any, Value]] = {}  # by the identity of the array
        self.inputs = [self.new("input", x._data) for x in arguments]

    def refuse(self, why: str) -> None:
        """Note why the function cannot be replayed."""
        self.refusal = self.refusal or f"{why}, at {user_line()}"

    # Arrays and their Values

    def new(self, kind: str, array: Any, tensor: Tensor | None = None, parents: Sequence[Value] = ()) -> Value:
        """The Value of an array that was not known. It holds the array weakly, so that memory is recycled as usual."""
        value, key = Value(kind, array, tensor, parents), id(array)
        self._known[key] = ref(array, lambda _: self._known.pop(key, None)), value
        return value

    def value(self, x: Any) -> Any:
        """The Value of a tensor or an array; any other object itself."""
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

    def copied(self, array: Any, dtype: Any = None) -> Any:
        """Copy an array of the user, as a step: a replay copies what it holds then."""
        found = np.array(to_array(array, dtype))
        self.steps.append(Step(cast.op, (self.value(array), found.dtype), self.new("result", found)))
        return found

    def effect(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """An effect has happened."""
        given = mapped(args, lambda leaf: leaf if isinstance(leaf, Tensor) else self.value(leaf))
        self.steps.append(Step(function, given, None))

    def write(self, tensor: Tensor, key: Any, array: Any) -> None:
        """A tensor is about to be changed in place."""
        target = self.value(tensor)
        if target.whole.kind == "input":
            self.refuse("an argument, or an earlier gradient, is changed in place")
        self.effect(change_in_place, (target.whole.tensor, target, key, array, user_line()))

    def read_grad(self, leaf: Tensor) -> None:
        """The function asks for the ``.grad`` of a leaf: it may be that of an earlier call."""
        self._refuse_argument(leaf)
        outside = self.value(leaf).kind == "outside"  # else the function has made it
        if outside and leaf not in self.touched and leaf not in self.before:
            self.before[leaf] = None if leaf._grad is None else self.new("input", leaf._grad._data)

    def set_grad(self, leaf: Tensor) -> None:
        """The ``.grad`` of a leaf is about to be set."""
        self._refuse_argument(leaf)
        self.touched[leaf] = None

    def _refuse_argument(self, leaf: Tensor) -> None:
        if any(leaf is x for x in self.arguments):
            self.refuse("the .grad of an argument of the function is read or set")


def change_in_place(owner: Tensor | None, target: Any, key: Any, array: Any, line: str) -> None:
    """The effect of ``x[key] = array``. The owner, a tensor from outside, is x, or x is a view of it."""
    if owner is not None:  # a graph that saved the old values must refuse to use them
        owner._version[:] = owner._version[0] + 1, line
    target[key] = array


def difference(first: Sequence[Step], second: Sequence[Step]) -> str:
    """Where two traces of one function differ, or "": then Python did something else, which a replay would not do."""
    for a, b in zip(first, second, strict=False):
        if a.op is not b.op:
            return f"{a.name} at the first call, {b.name} at the second, at {b.line}"
        if not agree(a.constants(), b.constants(), same):
            return f"{b.name} gets other constants or options at the second call, at {b.line}"
    if len(first) != len(second):
        return f"{len(first)} steps at the first call, {len(second)} at the second"
    return ""


def same(x: Any, y: Any) -> bool:
    """Return True if two arguments are the same for a replay."""
    if isinstance(x, Value) and isinstance(y, Value):
        alike = (x.kind, x.shape, x.dtype, x.stamp) == (y.kind, y.shape, y.dtype, y.stamp)
        return alike and (x.kind != "outside" or x.array is y.array or x.array.tobytes() == y.array.tobytes())
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        return x._version is y._version
    return equal(x, y) or (not isinstance(x, PLAIN) and type(x) is type(y) and bool(x == y))


PLAIN = (int, float, complex, bool, str, bytes, type(None), np.dtype)


def equal(x: Any, y: Any) -> bool:
    """Return True if two objects are one, or plain values that no program can tell apart."""
    return x is y or (type(x) is type(y) and isinstance(x, PLAIN) and repr(x) == repr(y))


def agree(xs: Sequence[Any], ys: Sequence[Any], alike: Callable[[Any, Any], bool] = equal) -> bool:
    """Return True if the members of two lists are equal one by one."""
    return len(xs) == len(ys) and (all(map(is_, xs, ys)) or all(map(alike, xs, ys)))
