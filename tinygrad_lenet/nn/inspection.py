"""Looking inside a model: record the calls of its layers, summarise them in a table, find where a NaN comes from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checks import lengths, made
from ..core.graph import now
from ..core.modes import listening, no_grad
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, brief, foreign
from ..ops.convolution import _conv2d, conv2d_input_grad, conv2d_weight_grad
from ..ops.creation import zeros
from ..ops.products import _linear_weight_grad, linear, matmul
from .module import Model, Module


class _Text(str):
    """A string whose repr is the string itself, so that a console or a notebook shows its lines as ``print`` does."""

    __slots__ = ()
    __repr__ = str.__str__


# The multiply-adds of each op that sums products, from its first two arguments and its output.
_MULTIPLY_ADDS: dict[Any, Callable[[Any, Any, Any], int]] = {
    matmul.op: lambda x, _, out: out.size * np.shape(x)[-1],
    linear.op: lambda x, _, out: out.size * np.shape(x)[-1],
    _linear_weight_grad.op: lambda g, x, _: np.size(g) * np.shape(x)[-1],
    _conv2d.op: lambda _, weight, out: out.size * math.prod(np.shape(weight)[1:]),
    conv2d_input_grad.op: lambda g, weight, _: np.size(g) * math.prod(np.shape(weight)[1:]),
    conv2d_weight_grad.op: lambda _, g, out: np.size(g) * math.prod(out.shape[1:]),
}


def _work(op: Any, args: tuple[Any, ...], out: Tensor) -> int | None:
    """The multiply-adds of an op; None if they are not known."""
    if op in _MULTIPLY_ADDS:
        return _MULTIPLY_ADDS[op](args[0], args[1], out)
    return 0 if op.signature.trusted else None


def _count(work: Sequence[int | None]) -> str:
    """The sum of multiply-adds, with a "?" for those that are not known."""
    known = sum(n or 0 for n in work)
    unknown = None in work
    return "?" if unknown and not known else f"{known:,}" + " + ?" * unknown


@dataclass(frozen=True)
class Call:
    """One call of a layer: its dotted name, the layer, the inputs and the output; see :func:`record_calls`.

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
    inputs: tuple[Any, ...] = field(repr=False)
    output: Any = field(repr=False)
    _start: int = field(default=0, repr=False, compare=False)  # see now() in core/graph.py


@contextmanager
@checked
def record_calls(model: Model) -> Iterator[list[Call]]:
    """Record every call of a model and its modules within the block, in the order in which the calls end.

    The model itself comes last, under the name "".

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

    def recorded(name: str, module: Module, forward: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = now()
            output = forward(*args, **kwargs)
            calls.append(Call(name, module, args, output, start))
            return output

        return call

    try:
        for name, module in named:
            vars(module)["forward"] = recorded(name, module, module.forward)
        yield calls
    finally:
        for (_, module), forward in zip(named, own, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward


@contextmanager
def evaluating(model: Module) -> Iterator[Module]:
    """Set evaluation mode within the block, and restore the mode of each module after it."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training


def _held(module: Module) -> int:
    """The number of parameters of a module that do not belong to a layer within it."""
    inner = {id(p) for child in module.children() for p in child.parameters()}
    return sum(p.size for p in module.parameters() if id(p) not in inner)


def _shapes(output: Any) -> str:
    """The shape of an output, or of each tensor in it."""
    if isinstance(output, (list, tuple)):
        return ", ".join(map(_shapes, output))
    return str(np.shape(output)) if hasattr(output, "shape") else type(output).__name__


@checked
def summary(model: Model, input_shape: Sequence[int]) -> str:
    """A table of a model's layers in the order of their calls: output shape, parameters, multiply-adds.

    The multiply-adds are those of convolutions and products of matrices, counted as they are computed, also in modules
    of your own; each row has those outside of the modules within it. Elementwise ops, sums, pooling and resizing count
    0. A "?" stands for ops whose work is not known: your own primitives.

    Args:
        model: any module that takes one Tensor.
        input_shape: the shape of a batch, (N, ...). The multiply-adds are for the whole batch.

    Returns:
        A string, which consoles and notebooks show as ``print`` does.

    Raises:
        ArgumentError: ``input_shape`` is not a shape, or the batch does not fit into memory.

    >>> from tinygrad_lenet import nn
    >>> print(nn.summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (1, 4)))
    layer          output shape  parameters  multiply-adds
    0  Linear(4, 3)      (1, 3)          15             12
    1  ReLU()            (1, 3)           0              0
    total                                15             12
    """
    if not isinstance(input_shape, (tuple, list)):
        raise ArgumentError(f"input_shape must be positive integers, (N, ...), got {brief(input_shape)}")
    images = made(lengths("input_shape", input_shape, 1), zeros)
    events: list[tuple[int, int, int | None]] = []  # of each op: its time, the calls that had ended, its work
    hear = listening(lambda *op: events.append((now(), len(calls), _work(*op))))
    with evaluating(model), no_grad(), record_calls(model) as calls, hear, foreign:
        model(images)
    work: list[list[int | None]] = [[] for _ in (*calls, "outside of all")]
    for time, ended, found in events:  # of all calls that began before the op, the innermost ends first
        place = next((i for i in range(ended, len(calls)) if calls[i]._start < time), -1)
        work[place].append(found)
    rows: list[tuple[str, ...]] = []
    counted = set()
    for call, inside in zip(calls, work, strict=False):
        own = 0 if id(call.module) in counted else _held(call.module)
        counted.add(id(call.module))
        if own or _count(inside) != "0" or not any(True for _ in call.module.children()):  # not a mere container
            kind = f"{type(call.module).__name__}({call.module.extra_repr()})"
            rows.append((call.name or "(itself)", kind, _shapes(call.output), f"{own:,}", _count(inside)))
    first = max([len(name) for name, *_ in rows], default=0)
    table: list[tuple[str, ...]] = [("layer", "output shape", "parameters", "multiply-adds")]
    table += [(f"{name:<{first}}  {kind}", *numbers) for name, kind, *numbers in rows]
    table += [("total", "", f"{sum(p.size for p in model.parameters()):,}", _count([found for _, _, found in events]))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return _Text("\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table))
