"""Looking inside a model: record the calls of its layers, summarise them in a table, find where a NaN comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checks import lengths, made
from ..core.modes import no_grad
from ..core.signature import checked
from ..errors import ArgumentError, brief, foreign
from ..ops.creation import zeros
from .module import Model, Module


class _Text(str):
    """A string whose repr is the string itself, so that a console or a notebook shows its lines as ``print`` does."""

    __slots__ = ()
    __repr__ = str.__str__


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
            output = forward(*args, **kwargs)
            calls.append(Call(name, module, args, output))
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
    """A table of a model's layers in the order of their calls: output shape and parameters.

    Args:
        model: any module that takes one Tensor.
        input_shape: the shape of a batch, (N, ...).

    Returns:
        A string, which consoles and notebooks show as ``print`` does.

    Raises:
        ArgumentError: ``input_shape`` is not a shape, or the batch does not fit into memory.

    >>> from tinygrad_lenet import nn
    >>> print(nn.summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (1, 4)))
    layer          output shape  parameters
    0  Linear(4, 3)      (1, 3)          15
    1  ReLU()            (1, 3)           0
    total                                15
    """
    if not isinstance(input_shape, (tuple, list)):
        raise ArgumentError(f"input_shape must be positive integers, (N, ...), got {brief(input_shape)}")
    images = made(lengths("input_shape", input_shape, 1), zeros)
    with evaluating(model), no_grad(), record_calls(model) as calls, foreign:
        model(images)
    rows: list[tuple[str, ...]] = []
    counted = set()
    for call in calls:
        own = 0 if id(call.module) in counted else _held(call.module)
        counted.add(id(call.module))
        if own or not any(True for _ in call.module.children()):  # not a mere container
            kind = f"{type(call.module).__name__}({call.module.extra_repr()})"
            rows.append((call.name or "(itself)", kind, _shapes(call.output), f"{own:,}"))
    first = max([len(name) for name, *_ in rows], default=0)
    table: list[tuple[str, ...]] = [("layer", "output shape", "parameters")]
    table += [(f"{name:<{first}}  {kind}", *numbers) for name, kind, *numbers in rows]
    table += [("total", "", f"{sum(p.size for p in model.parameters()):,}")]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return _Text("\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in table))
