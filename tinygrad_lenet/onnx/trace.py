"""The recording of a model: it is run twice, and the two runs are compared.

One run shows the ops and their arguments. A second run, with another batch size and other values, shows which numbers
follow the batch size (``Batch``). It also shows which depend on the input in a way that no op records: these are
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.modes import listening, no_grad, user_line
from ..core.tensor import Tensor
from ..errors import DTypeError, UnsupportedError, brief, foreign
from ..kernels.windows import Windows

Named = Sequence[tuple[str, Tensor]]  # parameters and buffers


class Value(NamedTuple):
    """A tensor of the run that has a name: an input, a parameter, a buffer, or the output of an op."""

    name: str
    array: NDArray[Any]


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


class Run:
    """One run of a model: its steps and outputs."""

    def __init__(self, model: Callable[..., Any], inputs: Sequence[Tensor], named: Named) -> None:
        self.steps: list[Step] = []
        self.kept: list[Any] = []  # all arrays, so that none is freed and its address used again
        self.values: dict[tuple[Any, ...], Value] = {}
        for name, tensor in (*named, *zip(input_names(inputs, named), inputs, strict=True)):
            self._add(name, tensor)
        with no_grad(), listening(self._hear), foreign:
            outputs = model(*inputs)
        several = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        if not several or not all(isinstance(t, Tensor) for t in several):
            raise DTypeError(f"the model must give a Tensor or a tuple of them, it gave {brief(outputs)}")
        self.outputs = [self._argument(t) for t in several]

    def _add(self, name: str, tensor: Tensor) -> Value:
        self.kept.append(tensor)
        value = Value(name, tensor.numpy())
        if tensor.size:
            self.values[_key(value.array)] = value
        return value

    def _argument(self, argument: Any) -> Any:
        """An argument with each tensor or array in it as a Value or a Constant."""
        if isinstance(argument, (Tensor, np.ndarray)):
            self.kept.append(argument)
            array = argument.numpy() if isinstance(argument, Tensor) else argument
            return self.values.get(_key(array)) or Constant(array.copy(), array.shape)
        if isinstance(argument, (list, tuple)):
            given = [self._argument(a) for a in argument]
            return type(argument)(*given) if hasattr(argument, "_fields") else tuple(given)
        return argument

    def _hear(self, op: Any, args: tuple[Any, ...], out: Tensor) -> None:
        if not any(map(_holds_tensor, args)):
            return  # an op on arrays inside another op, or one that makes a constant
        given = tuple(self._argument(a) for a in args)
        if out.size and _key(out.numpy()) in self.values:
            return  # a view of all elements in their order
        self.steps.append(Step(op, given, self._add(f"/{op.name}_{len(self.steps)}", out), user_line()))


def trace(
    model: Callable[..., Any], inputs: Sequence[Tensor], named: Named, dynamic: bool
) -> tuple[list[Step], list[Any]]:
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
        raise UnsupportedError(
            "the model takes another way for other values or another batch size (if, for); a graph cannot"
        )
    sizes = (len(inputs[0]), len(inputs[0]) + 1) if dynamic else (1, 1)
    steps = [a._replace(args=_merged(a.args, b.args, sizes, a)) for a, b in zip(first.steps, second.steps, strict=True)]
    return steps, [_merged(a, b, sizes, None) for a, b in zip(first.outputs, second.outputs, strict=True)]


def attributes(at: Windows) -> dict[str, Any]:
    """ONNX's attributes of windows; the size of the images is not among them."""
    after = [f - n - b for f, n, b in zip(at.full, at.size, at.before, strict=True)]
    pads = [*at.before, *after]
    return {"kernel_shape": at.kernel, "strides": at.stride, "pads": pads, "dilations": at.dilation}


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
    elif isinstance(a, Windows) and isinstance(b, Windows):
        if attributes(a) == attributes(b):
            return a._replace(size=_merged(a.size, b.size, sizes, step))
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
