"""What a model computes, as a list of ops: by running it, twice, and comparing.

One run shows the ops and their arguments. A second one, with another batch size and other values, shows what in them
follows the batch (``Batch``), and what depends on the input in a way that no op records, which is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..checks import said
from ..core.modes import listening, no_grad, user_line
from ..core.tensor import Tensor
from ..errors import DTypeError, UnsupportedError, foreign
from ..kernels.windows import Windows


class Value(NamedTuple):
    """A tensor of the run: of an input, a parameter, or what an op gave."""

    name: str
    array: NDArray[Any]


class Batch(int):
    """A number that is so many times the batch size; as an int, what it is for the example."""

    times: int

    def __new__(cls, value: int, times: int) -> Batch:
        """A number that is ``times`` the batch."""
        self = super().__new__(cls, value)
        self.times = times
        return self


class Constant(NamedTuple):
    """An array that is none of the above; ``shape`` may hold a :class:`Batch` if all its elements are equal."""

    array: NDArray[Any]
    shape: tuple[int, ...]


class Step(NamedTuple):
    """One op of the run: its arguments, with tensors as :class:`Value` or :class:`Constant`, and where it stood."""

    op: Any
    args: tuple[Any, ...]
    out: Value
    line: str


def _key(array: NDArray[Any]) -> tuple[Any, ...]:
    """Equal for two views of the same elements."""
    return (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)


def _holds_tensor(argument: Any) -> bool:
    return isinstance(argument, Tensor) or (isinstance(argument, (list, tuple)) and any(map(_holds_tensor, argument)))


def input_names(inputs: Sequence[Tensor], named: Sequence[tuple[str, Tensor]]) -> list[str]:
    """``input``, or ``input0`` and so on; other than the parameters are called."""
    names, taken = [f"input{i}" if len(inputs) > 1 else "input" for i in range(len(inputs))], dict(named)
    while any(name in taken for name in names):
        names = [f"{name}_" for name in names]
    return names


class Run:
    """One run of a model."""

    def __init__(
        self, model: Callable[..., Any], inputs: Sequence[Tensor], named: Sequence[tuple[str, Tensor]]
    ) -> None:
        self.steps: list[Step] = []
        self.kept: list[Any] = []  # so that no memory is used twice
        self.values: dict[tuple[Any, ...], Value] = {}
        for name, tensor in named:
            self._know(name, tensor)
        for name, tensor in zip(input_names(inputs, named), inputs, strict=True):
            self._know(name, tensor)
        with no_grad(), listening(self._hear), foreign:
            outputs = model(*inputs)
        several = outputs if isinstance(outputs, (tuple, list)) else [outputs]
        if not several or not all(isinstance(t, Tensor) for t in several):
            raise DTypeError(f"the model must give a Tensor or a tuple of them, it gave {said(outputs)}")
        self.outputs = [self.value(t) for t in several]

    def _know(self, name: str, tensor: Tensor) -> Value:
        self.kept.append(tensor)
        value = Value(name, tensor.numpy())
        if tensor.size:
            self.values[_key(value.array)] = value
        return value

    def value(self, argument: Any) -> Any:
        """A tensor or array, as one of those known, or as a constant."""
        array = argument.numpy() if isinstance(argument, Tensor) else argument
        self.kept.append(argument)
        return self.values.get(_key(array)) or Constant(array.copy(), array.shape)

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, (Tensor, np.ndarray)):
            return self.value(argument)
        if isinstance(argument, (list, tuple)):
            given = [self._argument(a) for a in argument]
            return type(argument)(*given) if hasattr(argument, "_fields") else tuple(given)
        return argument

    def _hear(self, op: Any, args: tuple[Any, ...], out: Tensor) -> None:
        if not any(map(_holds_tensor, args)):
            return  # of arrays, within another op; or a constant
        given = tuple(self._argument(a) for a in args)
        if out.size and _key(out.numpy()) in self.values:
            return  # a view that changes nothing
        self.steps.append(Step(op, given, self._know(f"/{op.name}_{len(self.steps)}", out), user_line()))


def trace(
    model: Callable[..., Any], inputs: Sequence[Tensor], named: Sequence[tuple[str, Tensor]], dynamic: bool
) -> tuple[list[Step], list[Any]]:
    """The ops of a model, and its outputs; with ``dynamic`` axis 0 of the inputs may have any length."""
    rng = np.random.default_rng(0)

    def other(x: Tensor) -> Tensor:
        """Other values of the same kind, and with ``dynamic`` more of them."""
        array = x.numpy()
        if dynamic:
            array = np.concatenate([array, array[:1]]) if array.ndim and len(array) else array
        if array.dtype.kind == "f":
            return Tensor(array + rng.uniform(0.01, 0.02, array.shape).astype(array.dtype))
        return Tensor(rng.permutation(array.reshape(-1)).reshape(array.shape))

    first, second = Run(model, inputs, named), Run(model, [other(x) for x in inputs], named)
    if [s.op.name for s in first.steps] != [s.op.name for s in second.steps]:
        raise UnsupportedError(
            "the model takes another way for other values or another batch size (if, for); a graph cannot"
        )
    sizes = (inputs[0].shape[0], inputs[0].shape[0] + 1) if dynamic and inputs and inputs[0].ndim else (1, 1)
    steps = [
        Step(a.op, tuple(_merged(x, y, sizes, a) for x, y in zip(a.args, b.args, strict=True)), a.out, a.line)
        for a, b in zip(first.steps, second.steps, strict=True)
    ]
    outputs = [_merged(a, b, sizes, None) for a, b in zip(first.outputs, second.outputs, strict=True)]
    return steps, outputs


def attributes(at: Windows) -> dict[str, Any]:
    """ONNX's attributes of windows; the size of the images is not among them."""
    after = [f - n - b for f, n, b in zip(at.full, at.size, at.before, strict=True)]
    pads = [*at.before, *after]
    return {"kernel_shape": at.kernel, "strides": at.stride, "pads": pads, "dilations": at.dilation}


def _merged(a: Any, b: Any, sizes: tuple[int, int], step: Step | None) -> Any:
    """An argument of both runs: what is the same, or follows the batch."""
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
        merged = [_merged(x, y, sizes, step) for x, y in zip(a, b, strict=True)]
        return type(a)(*merged) if hasattr(a, "_fields") else tuple(merged)
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
    if isinstance(value, (Value, Constant)):
        return f"a tensor of shape {value.array.shape}"
    return repr(value)
