"""The trace of a function: its ops and effects in order, with a :class:`Value` in place of each array.

The function runs as usual while a :class:`Trace` listens. It hears every op with its arguments and its output. It hears
a backward pass too: the rules are made of ops, and receive Tensors. An array is known by its identity. An array that
neither an op nor a tensor from outside explains is a constant.

A trace does not hear Python. What Python computes from the values of tensors would be frozen. So reading a value
refuses the replay, and two traces are compared before one is replayed (:func:`difference`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_, setitem
from typing import Any
from weakref import ref

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.lib.stride_tricks import as_strided

from ..core.modes import no_grad, user_line
from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..kernels.memory import storage
from ..ops.elementwise import add, clone


class Value:
    """An array of the trace: where it comes from, and its layout in memory."""

    def __init__(self, kind: str, array: Any, tensor: Tensor | None = None, parents: Sequence[Value] = ()) -> None:
        # "input", "gradient" of a leaf before the call, "result" of an op; or "outside": a tensor that was there before
        # the call, or a constant.
        self.kind = kind
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype
        # Where it was during the trace: the first element; the first byte of all, and the byte after the last.
        self.address: int = array.__array_interface__["data"][0]
        self.low, self.high = byte_bounds(array) if array.size else (0, 0)
        self.tensor: Any = tensor  # the tensor from outside, or the leaf of a gradient
        # The value in whose memory a view lies.
        self.whole: Value = next((v.whole for v in parents if v.whole.low <= self.address < v.whole.high), self)
        # Arrays from outside, and views of them, are used as they are; others get memory in a program.
        self.array: Any = array if self.whole.kind == "outside" else None

    def twin(self, *rows: int) -> Value:
        """A result in this layout, in memory of its own, perhaps with another number of rows."""
        layout = as_strided(np.empty((), self.dtype), (*rows, *self.shape[len(rows) :]), self.strides)
        return Value("result", np.empty_like(layout))


class Step:
    """An op or an effect of the trace."""

    def __init__(self, op: Any, args: tuple[Any, ...], out: Value | None) -> None:
        self.op = op  # a primitive's op, or the function of an effect
        self.args = args  # with Values in place of arrays
        self.out: Any = out  # the Value of an op; None for an effect
        self.line = user_line()

    @property
    def name(self) -> str:
        """The name of the op or the effect."""
        return getattr(self.op, "name", None) or str(self.op.__name__).strip("_")

    def constants(self) -> list[Any]:
        """The arguments that another trace must have in common: all but the user's line, which some effects take."""
        return [leaf for leaf in flattened([self.args]) if not (isinstance(leaf, str) and leaf == self.line)]


def values_in(tree: Any) -> list[Value]:
    """The Values in nested lists, tuples and dicts."""
    return [leaf for leaf in flattened([tree]) if isinstance(leaf, Value)]


class Trace:
    """Listens while a function runs (``core/modes.py`` and ``core/accumulation.py`` call its methods)."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.steps: list[Step] = []
        self.refusal = ""
        self.modules: dict[int, Any] = {}  # those that were called, by identity
        self.watched: dict[Tensor, None] = {}  # tensors from outside
        self.before: dict[Tensor, Value | None] = {}  # the .grad of leaves before the call, if the function reads it
        self.touched: dict[Tensor, None] = {}  # leaves whose .grad was set
        self.written: dict[Tensor, str] = {}  # tensors from outside that were changed in place, and the line
        self._known: dict[int, tuple[Any, Value]] = {}  # by the identity of the array
        self.inputs = [self.new("input", x._data, x) for x in inputs]

    def refuse(self, why: str) -> None:
        """Note why the function cannot be replayed."""
        self.refusal = self.refusal or f"{why}, at {user_line()}"

    # Arrays and their Values

    def new(self, kind: str, array: Any, tensor: Tensor | None = None, parents: Sequence[Value] = ()) -> Value:
        """The Value of an array that was not known. It holds the array weakly, so that memory is recycled as usual."""
        value, key = Value(kind, array, tensor, parents), id(array)
        self._known[key] = ref(array, lambda _: self._known.pop(key, None)), value
        return value

    def value(self, array: Any, tensor: Tensor | None = None) -> Value:
        """The Value of an array; ``tensor`` is the Tensor that holds it, if one does."""
        _, found = self._known.get(id(array), (None, None))
        if tensor is not None and (found is None or found.kind == "outside"):
            self.watched[tensor] = None
            if tensor._node is not None:
                self.refuse("a tensor from outside has a graph of its own")
        return found or self.new("outside", array, tensor)

    def _leaf(self, leaf: Any) -> Any:
        """A Value in place of a tensor or an array."""
        if isinstance(leaf, Tensor):
            return self.value(leaf._data, leaf)
        return self.value(leaf) if isinstance(leaf, np.ndarray) else leaf

    # What the engine tells

    def hear(self, op: Any, args: tuple[Any, ...], out: Tensor) -> None:
        """An op has computed ``out``."""
        given = mapped(args, self._leaf)
        self.steps.append(Step(op, given, self.new("result", out._data, None, values_in(given))))

    def write(self, tensor: Tensor, key: Any, array: Any) -> None:
        """A tensor is about to be changed in place."""
        target = self.value(tensor._data, tensor)
        if target.whole.kind in ("input", "gradient"):
            self.refuse(f"an {'argument' if target.whole.kind == 'input' else 'earlier gradient'} is changed in place")
        self.steps.append(Step(setitem, (target, *mapped((key, array), self._leaf)), None))
        if target.whole.kind == "outside":
            self.written[tensor] = user_line()

    def effect(self, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """An effect has happened."""
        given = mapped(args, lambda leaf: leaf if isinstance(leaf, Tensor) else self._leaf(leaf))
        self.steps.append(Step(function, given, None))

    def accumulate(self, gradients: Mapping[Any, Any], seed: Any) -> None:
        """A backward pass adds to the ``.grad`` of leaves: here by ops."""
        taken = {id(storage(seed))}
        with no_grad():
            for leaf, array in gradients.items():
                found = Tensor._wrap(array)
                if leaf.grad is not None:
                    found = add(leaf.grad, found)
                elif id(storage(array)) in taken or not array.flags.writeable:
                    found = clone(found)
                taken.add(id(storage(found._data)))
                leaf.grad = found

    def read_grad(self, leaf: Tensor) -> None:
        """The function asks for the ``.grad`` of a leaf: it may be that of an earlier call."""
        if leaf in self.touched:
            return
        if leaf._grad is None:
            if self.value(leaf._data, leaf).kind == "outside":  # else the function has made it
                self.before[leaf] = None
        elif id(leaf._grad._data) not in self._known:
            self.before[leaf] = self.new("gradient", leaf._grad._data, leaf)

    def set_grad(self, leaf: Tensor) -> None:
        """The ``.grad`` of a leaf is about to be set."""
        if any(leaf is value.tensor for value in self.inputs):
            self.refuse("an argument of the function is given a gradient")
        self.touched[leaf] = None


def needed(steps: Sequence[Step], outputs: Iterable[Value]) -> list[Step]:
    """The steps without those whose results no one uses."""
    wanted, found = set(outputs), []
    for step in reversed(steps):
        if step.out is None or step.op.effect or step.out in wanted:
            wanted.update(values_in(step.args))
            found.append(step)
    return found[::-1]


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
    """Whether two arguments are the same for a replay."""
    if isinstance(x, Value) and isinstance(y, Value):
        alike = (x.kind, x.shape, x.dtype) == (y.kind, y.shape, y.dtype)
        return alike and (x.kind != "outside" or x.array is y.array or x.array.tobytes() == y.array.tobytes())
    return equal(x, y) or (not isinstance(x, PLAIN) and type(x) is type(y) and bool(x == y))


PLAIN = (int, float, complex, bool, str, bytes, type(None), np.dtype)


def equal(x: Any, y: Any) -> bool:
    """Whether two objects are one, or plain values that no program can tell apart."""
    return x is y or (type(x) is type(y) and isinstance(x, PLAIN) and repr(x) == repr(y))


def agree(xs: Sequence[Any], ys: Sequence[Any], alike: Callable[[Any, Any], bool] = equal) -> bool:
    """Whether the members of two lists are equal one by one."""
    return len(xs) == len(ys) and (all(map(is_, xs, ys)) or all(map(alike, xs, ys)))
