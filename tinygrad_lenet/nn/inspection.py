"""What goes on inside a model: every call of every layer, a table of them, and the first that went wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import lengths, made, said
from ..core.modes import no_grad
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, DTypeError, foreign
from ..ops.creation import zeros
from .layers import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Linear
from .module import Model, Module, Parameter, evaluating


@dataclass(frozen=True)
class Call:
    """One call of a layer: its dotted name, the layer, what it was given, what it gave; see :func:`record_calls`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Sequential(nn.ReLU())
    >>> with nn.record_calls(model) as calls:
    ...     _ = model(tl.ones(2))
    >>> calls[0].name, calls[0].module, calls[0].output
    ('0', ReLU(), tensor([1., 1.]))
    """

    name: str
    module: Module
    inputs: tuple[Any, ...]
    output: Any


@contextmanager
@checked
def record_calls(model: Model) -> Iterator[list[Call]]:
    """Write down every call of the modules of a model, itself last, in the order in which they end.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    >>> with nn.record_calls(model) as calls:
    ...     _ = model(tl.ones(2, 4))
    >>> [(call.name, call.output.shape) for call in calls]
    [('0', (2, 3)), ('1', (2, 3)), ('', (2, 3))]
    """
    calls: list[Call] = []
    named = list(model.named_modules())
    own = [vars(module).get("forward") for _, module in named]

    def watch(name: str, module: Module) -> None:
        forward = module.forward

        def recorded(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            calls.append(Call(name, module, args, output))
            return output

        vars(module)["forward"] = recorded

    try:
        for name, module in named:
            watch(name, module)
        yield calls
    finally:
        for (_, module), forward in zip(named, own, strict=True):
            if forward is None:
                vars(module).pop("forward", None)
            else:
                vars(module)["forward"] = forward


def _held(module: Module) -> int:
    """The number of the parameters that a module holds itself, in no layer of its own."""
    inner = {id(p) for child in module.children() for p in child.parameters()}
    return sum(p.size for p in module.parameters() if id(p) not in inner)


def _multiply_adds(call: Call) -> int:
    """Of the layers that have a matrix or kernels, with biases not counted: how often a weight meets a number."""
    weight = getattr(call.module, "weight", None)
    if not isinstance(weight, Tensor) or not isinstance(call.output, Tensor):
        return 0
    if isinstance(call.module, (Linear, Conv1d, Conv2d)):
        return call.output.size * math.prod(weight.shape[1:])
    if isinstance(call.module, (ConvTranspose1d, ConvTranspose2d)):
        return int(np.size(call.inputs[0])) * math.prod(weight.shape[1:])
    return 0


@checked
def summary(model: Model, input_shape: Sequence[int]) -> str:
    """A table of a model's layers, in the order of their calls: output shape, parameters, multiply-adds.

    Args:
        model: any module that takes one Tensor.
        input_shape: the shape of a batch, (N, ...). The multiply-adds are those of the whole batch.

    Raises:
        ArgumentError: the model does not take such a batch.

    >>> from tinygrad_lenet import nn
    >>> print(nn.summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (1, 4)))
    layer          output shape  parameters  multiply-adds
    0  Linear(4, 3)      (1, 3)          15             12
    1  ReLU()            (1, 3)           0              0
    total                                15             12
    """
    if not isinstance(input_shape, (tuple, list)):
        raise ArgumentError(f"input_shape must be positive integers, (N, ...), got {said(input_shape)}")
    images = made(lengths("input_shape", input_shape, 1), zeros)
    with evaluating(model), no_grad(), record_calls(model) as calls, foreign:
        model(images)
    rows, counted = [], set()
    for call in calls:
        own = 0 if id(call.module) in counted else _held(call.module)
        counted.add(id(call.module))
        if any(True for _ in call.module.children()) and not own:
            continue  # what only holds others
        kind = f"{type(call.module).__name__}({call.module.extra_repr()})"
        rows.append((call.name or "(itself)", kind, str(np.shape(call.output)), own, _multiply_adds(call)))
    total = sum(p.size for p in model.parameters()), sum(row[4] for row in rows)
    first = max([len(row[0]) for row in rows], default=0)
    names = [f"{name:<{first}}  {kind}" for name, kind, *_ in rows]
    cells = [["layer", "output shape", "parameters", "multiply-adds"]]
    cells += [
        [name, shape, f"{own:,}", f"{work:,}"] for name, (_, _, shape, own, work) in zip(names, rows, strict=True)
    ]
    cells += [["total", "", f"{total[0]:,}", f"{total[1]:,}"]]
    width = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join("  ".join([row[0].ljust(width[0]), *(c.rjust(w) for c, w in zip(row[1:], width[1:], strict=True))])
                     for row in cells)  # fmt: skip


@checked
def first_nonfinite(model: Model, *inputs: Any) -> str:
    """Where the first NaN or infinity comes from when a model is given these inputs, in words; "" if from nowhere.

    Looks at the inputs, the parameters and buffers, then the output of each layer in the order of their calls.

    Raises:
        DTypeError: an argument of another type.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> nn.first_nonfinite(model, tl.tensor([[float("inf"), 1.0]]))
    'input 0 holds inf in 1 of 2 elements'
    """
    for i, x in enumerate(inputs):
        if found := _nonfinite(x):
            return f"input {i} {found}"
    for name, tensor in model._tensors():
        if found := _nonfinite(tensor):
            return f"{'parameter' if isinstance(tensor, Parameter) else 'buffer'} {name} {found}"
    with no_grad(), record_calls(model) as calls, np.errstate(all="ignore"), foreign:
        model(*inputs)
    for call in calls:
        for output in call.output if isinstance(call.output, tuple) else (call.output,):
            if found := _nonfinite(output):
                return f"the output of layer {call.name or 'itself'} ({type(call.module).__name__}) {found}"
    return ""


def _nonfinite(x: Any) -> str:
    try:
        values = x.numpy() if isinstance(x, Tensor) else np.asarray(x)
    except Exception as error:  # whatever an object of the user's own raises
        raise DTypeError(f"inputs must be arrays ({error})") from None
    if values.dtype.kind != "f":
        return ""
    bad = ~np.isfinite(values)
    if not bad.any():
        return ""
    return f"holds {values[bad][0]} in {bad.sum():,} of {values.size:,} elements"
