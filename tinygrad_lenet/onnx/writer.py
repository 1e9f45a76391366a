"""A model as an ONNX file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from onnx import checker, helper, numpy_helper

from ..errors import ArgumentError, DataError, TinygradLenetError, UnsupportedError
from ..nn import Module
from ..tensor import Tensor
from .builder import Graph
from .emitters import EMIT, FOLLOWING, MISSING
from .trace import Batch, Step, Value, input_names, trace

OPSET = 23  # what onnxruntime of 2025 and later computes
IR_VERSION = 10


def export(model: Any, example: Any, path: str | os.PathLike[str] | None, dynamic_batch: bool) -> Any:
    """See :func:`tinygrad_lenet.onnx.export`."""
    try:
        inputs = [
            x if isinstance(x, Tensor) else Tensor(x) for x in (example if isinstance(example, tuple) else (example,))
        ]
    except TinygradLenetError as error:
        raise type(error)(f"onnx.export: example: {error}") from None
    inputs = [Tensor(x.numpy()) for x in inputs]  # memory of their own
    if dynamic_batch and not all(x.ndim and len(x) for x in inputs):
        raise ArgumentError(
            f"onnx.export: with dynamic_batch the inputs need a first axis of length 1 or more, got shapes "
            f"{[x.shape for x in inputs]}"
        )
    module = model if isinstance(model, Module) else None
    named = [*module.named_parameters(), *module.named_buffers()] if module else []
    was = [(m, m.training) for m in module.modules()] if module else []
    try:
        if module:
            module.eval()
        steps, outputs = trace(model, inputs, named, dynamic_batch)
    finally:
        for m, mode in was:
            m.training = mode
    names = input_names(inputs, named)
    graph = Graph(named, names[0] if dynamic_batch else None)
    for step in _needed(steps, outputs):
        _write(graph, step)
    given, wanted = [], []
    for name, x in zip(names, inputs, strict=True):
        shape: list[Any] = ["batch" if dynamic_batch and i == 0 else n for i, n in enumerate(x.shape)]
        given.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), shape))
    for i, value in enumerate(outputs):
        name = graph.fresh(f"output{i}" if len(outputs) > 1 else "output")
        graph.node("Identity", graph.of(value), out=name)
        shape = [None] * value.array.ndim if dynamic_batch else list(value.array.shape)
        wanted.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.array.dtype), shape))
    arrays = graph.initializers
    order = [*(name for name in graph.known if name in arrays), *(name for name in arrays if name not in graph.known)]
    initializers = [numpy_helper.from_array(np.array(arrays[name], order="C"), name) for name in order]
    made = helper.make_model(
        helper.make_graph(graph.nodes, type(model).__name__, given, wanted, initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="tinygrad_lenet",
        ir_version=IR_VERSION,
    )
    checker.check_model(made, full_check=True)
    if path is not None:
        try:
            with open(path, "wb") as file:
                file.write(made.SerializeToString())
        except OSError as error:
            raise DataError(f"onnx.export: {path} cannot be written: {error.strerror or error}") from error
    return made


def _needed(steps: list[Step], outputs: list[Any]) -> list[Step]:
    """The steps that the outputs depend on."""
    wanted = {v.name for v in outputs if isinstance(v, Value)}
    kept = []

    def names(argument: Any) -> Any:
        if isinstance(argument, Value):
            yield argument.name
        elif isinstance(argument, tuple):
            for a in argument:
                yield from names(a)

    for step in reversed(steps):
        if step.out.name in wanted:
            wanted.update(names(step.args))
            kept.append(step)
    return kept[::-1]


def _write(graph: Graph, step: Step) -> None:
    emit = EMIT.get(step.op.name)
    try:
        if emit is None:
            raise UnsupportedError(MISSING.get(step.op.name, "an op of your own"))
        if step.op.name not in FOLLOWING and any(_follows(a) for a in step.args):
            raise UnsupportedError("an argument that follows the batch size; pass dynamic_batch=False")
        emit(graph, graph.fresh(step.out.name), step.out.array, *step.args)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"onnx.export: ONNX has nothing for {step.op.name} ({error}), called at {step.line}; write the model "
            "without it, or export the part before it"
        ) from None


def _follows(argument: Any) -> bool:
    """Whether a number in it is a multiple of the batch size."""
    if isinstance(argument, slice):
        return any(isinstance(n, Batch) for n in (argument.start, argument.stop, argument.step))
    if type(argument) is tuple:
        return any(map(_follows, argument))
    return isinstance(argument, Batch)
