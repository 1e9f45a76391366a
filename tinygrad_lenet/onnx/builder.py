"""The graph of an ONNX file, while it is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from ..tensor import Tensor
from .trace import Batch, Constant, Value


class Graph:
    """What grows while the ops of a run are written down."""

    def __init__(self, named: Sequence[tuple[str, Tensor]], batch_of: str | None) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, NDArray[Any]] = {}
        self.known = {name: tensor.numpy() for name, tensor in named}
        self.batch_of = batch_of  # the input whose first axis is the batch
        self._names: set[str] = set()

    def fresh(self, hint: str) -> str:
        """A name that no value has yet."""
        name, i = hint, 1
        while name in self._names or name in self.known:
            name, i = f"{hint}.{i}", i + 1
        self._names.add(name)
        return name

    def node(self, kind: str, *inputs: Any, out: str | None = None, outputs: int = 1, **attributes: Any) -> Any:
        """Add an operator; the inputs are names, numbers' arrays, or None. Returns the name of its output."""
        names = ["" if i is None else i if isinstance(i, str) else self.constant(i) for i in inputs]
        while names and not names[-1]:
            names.pop()
        outs = [out or self.fresh(kind.lower())] + [self.fresh(kind.lower()) for _ in range(outputs - 1)]
        self.nodes.append(helper.make_node(kind, names, outs, **attributes))
        return outs[0] if outputs == 1 else outs

    def constant(self, array: Any, hint: str = "constant") -> str:
        """The name of an array that stands in the file."""
        array = np.asarray(array)
        for name, other in self.initializers.items():
            if name.startswith(hint) and other.dtype == array.dtype and np.array_equal(other, array):
                return name
        name = self.fresh(hint)
        self.initializers[name] = array
        return name

    def of(self, value: Any, dtype: Any = None) -> str:
        """The name of an argument; numbers and tensors of another dtype are converted."""
        if isinstance(value, Value):
            if value.name in self.known:
                self.initializers[value.name] = self.known[value.name]
            if dtype is None or value.array.dtype == dtype:
                return value.name
            return str(self.node("Cast", value.name, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))))
        if isinstance(value, Constant):
            array = value.array if dtype is None else value.array.astype(dtype)
            if any(isinstance(n, Batch) for n in value.shape):
                return str(self.node("Expand", array.reshape(-1)[:1], self.ints(value.shape)))
            return self.constant(array)
        if isinstance(value, Batch):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.int64 if dtype is None else dtype))
            return str(self.node("Cast", self.node("Squeeze", self.ints(value)), to=kind))
        return self.constant(np.asarray(value, dtype))

    def ints(self, numbers: Any) -> str:
        """A vector of int64: a constant, or computed from the batch size."""
        numbers = tuple(numbers) if isinstance(numbers, (tuple, list)) else (numbers,)
        if not any(isinstance(n, Batch) for n in numbers):
            return self.constant(np.array(numbers, np.int64))
        size = self.node("Shape", self.batch_of, start=0, end=1)
        parts = [
            self.node("Mul", size, np.array([n.times])) if isinstance(n, Batch) else self.constant(np.array([int(n)]))
            for n in numbers
        ]
        return str(self.node("Concat", *parts, axis=0)) if len(parts) > 1 else str(parts[0])
