"""A model of an ONNX file, run and trained by the package."""

from __future__ import annotations

import functools
import inspect
import os
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import external_data_helper, helper, numpy_helper

from ..errors import DataError, ShapeError, UnsupportedError
from ..nn import Module, Parameter
from ..tensor import Tensor, as_tensor
from .operators import OPERATORS, SETTINGS
from .words import FOREIGN, known, refuse


class OnnxModel(Module):
    """A graph of ONNX's operators as a module: see :func:`tinygrad_lenet.onnx.load`.

    Args:
        model: an ``onnx.ModelProto``.
        exact: compute all floats in float64, in which gradients can be compared.
    """

    def __init__(self, model: Any, exact: bool = False) -> None:
        super().__init__()
        graph = model.graph
        self._opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._exact = exact
        settings = {
            name for node in graph.node for i, name in enumerate(node.input) if i in SETTINGS.get(node.op_type, ())
        }
        self._constants: dict[str, NDArray[Any]] = {}  # arrays, since Tensors would count as state
        state = {}
        refuse(graph.sparse_initializer, "sparse tensors")
        for initializer in graph.initializer:
            array = _array(initializer)
            if array.dtype.kind != "f":
                self._constants[initializer.name] = np.array(array)
            else:
                learned = initializer.name not in settings
                state[initializer.name] = Parameter(array) if learned else as_tensor(array)
        for value in (*graph.input, *graph.output):
            kind = value.type.tensor_type.elem_type
            refuse(not kind, "sequences, and values that may be missing")
            refuse(not known(kind), FOREIGN)
        given = {i.name for i in graph.initializer}
        self._inputs = [i.name for i in graph.input if i.name not in given]
        self._outputs = [o.name for o in graph.output]
        self._nodes = [(self._function(node), list(node.input), list(node.output)) for node in graph.node]
        self._state = {name: name for name in state}  # of the file, and of the attribute
        for name, value in state.items():
            while self._state[name] in vars(self) or hasattr(type(self), self._state[name]):
                self._state[name] += "_"  # a name in a file must not replace a method
            setattr(self, self._state[name], value)

    def _function(self, node: Any) -> Any:
        """An operator with its attributes, and what else it wants to know."""
        refuse(node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"), f"no operator {node.op_type}")
        function = OPERATORS[node.op_type]
        signature = inspect.signature(function)
        told = {"opset": self._opset, "outputs": len(node.output), "exact": self._exact}
        options = {name: told[name] for name in told.keys() & signature.parameters.keys()}
        for attribute in node.attribute:
            value = helper.get_attribute_value(attribute)
            value = _array(value) if isinstance(value, onnx.TensorProto) else value
            options[attribute.name] = value.decode() if isinstance(value, bytes) else value
        try:
            signature.bind(*node.input, **options)
        except TypeError as error:
            raise UnsupportedError(f"{node.op_type}: {error}") from None
        return functools.partial(function, **options)

    def values(self, *inputs: Any) -> dict[str, Any]:
        """All values of the graph by name, for these inputs."""
        if len(inputs) != len(self._inputs):
            raise ShapeError(
                f"OnnxModel: expected {len(self._inputs)} inputs ({', '.join(self._inputs)}), got {len(inputs)}"
            )
        values: dict[str, Any] = {"": None, **{name: Tensor._wrap(a) for name, a in self._constants.items()}}
        values.update((name, getattr(self, attribute)) for name, attribute in self._state.items())
        values.update(zip(self._inputs, map(as_tensor, inputs), strict=True))
        for function, takes, gives in self._nodes:
            found = function(*(values[name] for name in takes))
            values.update(zip(gives, found if isinstance(found, (tuple, list)) else [found], strict=False))
        return values

    def forward(self, *inputs: Any) -> Any:
        """The output of the graph; a tuple if there are several."""
        values = self.values(*inputs)
        found = tuple(values[name] for name in self._outputs)
        return found[0] if len(found) == 1 else found


def _array(tensor: Any) -> NDArray[Any]:
    """The elements of a tensor of the file."""
    refuse(not known(tensor.data_type), FOREIGN)
    refuse(external_data_helper.uses_external_data(tensor), "data in another file without the folder: load by path")
    array = numpy_helper.to_array(tensor)
    if array.shape != tuple(tensor.dims):
        raise DataError(f"tensor {tensor.name!r} has {array.size} elements, but shape {tuple(tensor.dims)}")
    return array


def load(path: str | os.PathLike[str] | Any) -> OnnxModel:
    """See :func:`tinygrad_lenet.onnx.load`."""
    model = path if isinstance(path, onnx.ModelProto) else None
    name = os.fspath(path) if model is None else "the model"
    try:
        if model is None:
            model = onnx.load(name, "protobuf")
    except FileNotFoundError:
        raise DataError(f"onnx.load: there is no file {name}") from None
    except OSError as error:
        raise DataError(f"onnx.load: {name} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own kinds
        raise DataError(f"onnx.load: {name} is damaged, or no ONNX file: {error}") from error
    try:
        onnx.checker.check_model(model)
        return OnnxModel(model)
    except UnsupportedError as error:
        raise UnsupportedError(f"onnx.load: {name} needs what the package does not have: {error}") from error
    except Exception as error:  # whatever is wrong, it is the file
        raise DataError(f"onnx.load: {name} is no valid model ({type(error).__name__}): {error}") from error
