"""The recording of a model: it is run twice, and the two runs are compared.

One run shows the ops and their arguments. A second run, with another batch size and other values, shows which numbers
follow the batch size (``Batch``). A tensor that depends on the input has a class of its own during a run, which refuses
to give its values to Python: the file would hold one value, or one branch of an ``if``, for every input.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..core.modes import listening, no_grad, user_line
from ..core.tensor import Tensor
from ..errors import DTypeError, UnsupportedError, brief, foreign

Named = Sequence[tuple[str, Tensor]]  # parameters and buffers


class Value(NamedTuple):
    """A tensor of the run that has a name: an input, a parameter, a buffer, or the output of an op."""

    name: str
    array: NDArray[Any]
    live: bool  # whether it depends on the input


class Batch(int):
    """A number that is ``times`` the batch size; as an int, its value for the example."""

    times: int

    def __new__(cls, value: int, times: int) -> Batch:
        """Make the number."""
        self = super().__new__(cls, value)
        self.times = times
        return self


class Constant(NamedTuple):
    """Any other array. Its shape may hold a :class:`Batch` if all elements are equal."""

    array: NDArray[Any]
    shape: tuple[int, ...]


class Step(NamedTuple):
    """An op of the run, its arguments (tensors are :class:`Value` or :class:`Constant`), and its line in the model."""

    op: Any
    args: tuple[Any, ...]
    out: Value
    line: str


def _key(array: NDArray[Any]) -> tuple[Any, ...]:
    """A key that is equal for two views of the same elements."""
    return (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)


def _holds_tensor(argument: Any) -> bool:
    return isinstance(argument, Tensor) or (isinstance(argument, (list, tuple)) and any(map(_holds_tensor, argument)))


def input_names(inputs: Sequence[Tensor], named: Named) -> list[str]:
    """``input``, or ``input0``, ``input1``, ...; with underscores if a parameter has such a name."""
    names, taken = [f"input{i}" if len(inputs) > 1 else "input" for i in range(len(inputs))], dict(named)
    while any(name in taken for name in names):
        names = [f"{name}_" for name in names]
    return names


# The methods of a tensor that give its values to Python, NumPy and other libraries.
_READING = ["__array__", "__bool__", "__deepcopy__", "__dlpack__", "__float__", "__index__", "__int__", "__reduce__"]
_READING += ["item", "numpy", "tolist"]


class Guard(ExitStack):
    """Marks the tensors of a run that depend on its input, until it exits: they refuse to give their values."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[str] = []

        def reading(name: str) -> Callable[..., Any]:
            return lambda *_, **options: self.refuse(f"{name.strip('_')}() reads")

        methods: dict[str, Any] = {name: reading(name) for name in _READING}
        methods["__repr__"] = lambda x: f"tensor(of an input, shape={x.shape}, dtype={x.dtype})"
        methods["__format__"] = lambda x, spec: self.refuse("format() reads") if spec else repr(x)
        methods["detach"] = lambda x: self.mark(Tensor.detach(x))
        self.kind = type("Traced", (Tensor,), {"__slots__": (), **methods})

    def mark(self, tensor: Tensor) -> Tensor:
        """The tensor, in the class that refuses to give its values."""
        self.callback(setattr, tensor, "__class__", type(tensor))
        tensor.__class__ = self.kind
        if tensor._node is not None:  # recorded under enable_grad, for a gradient, which is not exported
            self.refuse("a gradient reads")
        return tensor

    def refuse(self, what: str) -> NoReturn:
        """Raise an error that names the user's line."""
        path, _, number = user_line().rpartition(", line ")
        source = linecache.getline(path, int(number)).strip()
        where = f"at {path}, line {number}{f' ({source})' * bool(source)}"
        text = f"{where}, {what} a value that depends on the input: the file would hold this one value, or one branch; "
        text += "write it with ops, such as tl.where(condition, x, y)"
        self.refused.append(text)
        raise UnsupportedError(text)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if self.refused and (error is None or isinstance(error, Exception)):
            # The model may have caught it, and functions that it passed have added their names.
            raise UnsupportedError(self.refused[0]) from error


class Run:
    """One run of a model: its steps and outputs."""

    def __init__(self, model: Callable[..., Any], inputs: Sequence[Tensor], named: Named) -> None:
        self.steps: list[Step] = []
        self.kept: list[Any] = []  # all arrays, so that none is freed and its address used again
        self.values: dict[tuple[Any, ...], Value] = {}
        with Guard() as self.guard:
            for name, tensor in named:
                self._add(name, tensor, False)
            for name, tensor in zip(input_names(inputs, named), inputs, strict=True):
                self._add(name, tensor, True)
            with no_grad(), listening(self._hear, self._watch), foreign:
                outputs = model(*inputs)
            several = outputs if isinstance(outputs, (tuple, list)) else [outputs]
            if not several or not all(isinstance(t, Tensor) for t in several):
                raise DTypeError(f"the model must give a Tensor or a tuple of them, it gave {brief(outputs)}")
            self.outputs = [self._argument(t) for t in several]

    def _add(self, name: str, tensor: Tensor, live: bool) -> Value:
        self.kept.append(tensor)
        value = Value(name, Tensor.numpy(tensor), live)
        if tensor.size:
            self._set(tensor, value)
        return value

    def _set(self, tensor: Tensor, value: Value) -> None:
        self.values[_key(Tensor.numpy(tensor))] = value
        if value.live:
            self.guard.mark(tensor)

    def _argument(self, argument: Any) -> Any:
        """An argument with each tensor or array in it as a Value or a Constant."""
        if isinstance(argument, (Tensor, np.ndarray)):
            self.kept.append(argument)
            array = Tensor.numpy(argument) if isinstance(argument, Tensor) else argument
            value = self.values.get(_key(array))
            if value is None and isinstance(argument, self.guard.kind):
                self.guard.refuse("an op reads, through a view of what was changed in place,")
            return value or Constant(array.copy(), array.shape)
        if isinstance(argument, (list, tuple)):
            given = [self._argument(a) for a in argument]
            return type(argument)(*given) if hasattr(argument, "_fields") else tuple(given)
        return argument

    def _hear(self, op: Any, args: tuple[Any, ...], out: Tensor) -> None:
        if not any(map(_holds_tensor, args)):
            return  # an op on arrays inside another op, or one that makes a constant
        given = tuple(self._argument(a) for a in args)
        known = self.values.get(_key(out.numpy())) if out.size else None
        if known is None:
            live = any(value.live for value in values_in(given))
            self.steps.append(Step(op, given, self._add(f"/{op.name}_{len(self.steps)}", out, live), user_line()))
        elif known.live:  # a view of all elements in their order
            self.guard.mark(out)

    def _watch(self, tensor: Tensor, index: Any, array: NDArray[Any]) -> None:
        """Before a change in place. ``x += y`` and ``x[...] = y`` give ``x`` the value of an op; others a constant."""
        value = self.values.get(_key(array))
        whole = index is ... and (array.shape, array.dtype) == (tensor.shape, tensor.dtype)
        live = isinstance(tensor, self.guard.kind) or (value is not None and value.live)
        if live and not (value and whole):
            self.guard.refuse("a change in place concerns")
        self.guard.callback(np.copyto, tensor._data, tensor._data.copy())
        self.values = {k: v for k, v in self.values.items() if not np.may_share_memory(v.array, tensor._data)}
        if value and whole:
            self._set(tensor, value)


def values_in(argument: Any) -> list[Value]:
    """The values in an argument."""
    if isinstance(argument, Value):
        return [argument]
    return [value for a in argument for value in values_in(a)] if isinstance(argument, tuple) else []


def trace(model: Callable[..., Any], inputs: list[Tensor], named: Named, dynamic: bool) -> tuple[list[Step], list[Any]]:
    """The steps and the outputs of a model; with ``dynamic`` the first axis of the inputs may have any length."""
    rng = np.random.default_rng(0)

    def changed(x: Tensor) -> Tensor:
        """Other values of the same kind; with ``dynamic``, one more row."""
        array = np.concatenate([x.numpy(), x.numpy()[:1]]) if dynamic else x.numpy()
        if array.dtype.kind == "f":
            return Tensor(array + rng.uniform(0.01, 0.02, array.shape).astype(array.dtype))
        return Tensor(rng.permutation(array.reshape(-1)).reshape(array.shape))

    first, second = Run(model, inputs, named), Run(model, [changed(x) for x in inputs], named)
    if [s.op.name for s in first.steps] != [s.op.name for s in second.steps]:
        raise UnsupportedError("the model takes another way for other values or another batch size (if, for)")
    sizes = (len(inputs[0]), len(inputs[0]) + 1) if dynamic else (1, 1)
    steps = [a._replace(args=_merged(a.args, b.args, sizes, a)) for a, b in zip(first.steps, second.steps, strict=True)]
    return steps, [_merged(a, b, sizes, None) for a, b in zip(first.outputs, second.outputs, strict=True)]


def _merged(a: Any, b: Any, sizes: tuple[int, int], step: Step | None) -> Any:
    """The argument of a step, from its values in both runs: equal, or a multiple of the batch size."""
    if isinstance(a, Value):
        if isinstance(b, Value) and a.name == b.name:
            return a
    elif isinstance(a, Constant):
        if isinstance(b, Constant) and a.array.ndim == b.array.ndim:
            shape = _merged(a.shape, b.shape, sizes, step)
            if a.shape == b.shape and np.array_equal(a.array, b.array, equal_nan=a.array.dtype.kind == "f"):
                return a
            if a.array.size and (a.array == a.array.flat[0]).all() and (b.array == a.array.flat[0]).all():
                return Constant(a.array, shape)
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        merged = tuple(_merged(x, y, sizes, step) for x, y in zip(a, b, strict=True))
        return type(a)(*merged) if hasattr(a, "_fields") else merged
    elif isinstance(a, slice) and isinstance(b, slice):
        return slice(*(_merged(getattr(a, n), getattr(b, n), sizes, step) for n in ("start", "stop", "step")))
    elif type(a) is type(b) and (a is b or a == b):
        return a
    elif isinstance(a, (int, np.integer)) and isinstance(b, (int, np.integer)) and sizes[0] != sizes[1]:
        times = int(a) // sizes[0]
        if (times * sizes[0], times * sizes[1]) == (a, b):
            return Batch(int(a), times)
    where = f"at {step.line}, {step.op.name} gets" if step else "an output is"
    raise UnsupportedError(
        f"{where} {_short(a)} for the example and {_short(b)} for other "
        "values or another batch size, and no op recorded why; compute it with ops of tinygrad_lenet, or pass "
        "dynamic_batch=False if it is the batch size"
    )


def _short(value: Any) -> str:
    return f"a tensor of shape {value.array.shape}" if isinstance(value, (Value, Constant)) else repr(value)
