"""Guards: when a recording may be replayed.

A recording depends on the arguments of its call (all but the values of tensors), on what the function finds in its
closure and in global variables, on modules, on optimisers and on leaves. Each is a flat list of parts, to be compared
part by part: plain values by value, others by identity (:func:`agree`). So every call makes the lists anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ..core.tensor import Tensor
from ..core.values import flattened
from ..nn.module import Module, Parameter, changes
from .trace import Trace, agree


def parts_of(*arguments: Any) -> Iterator[Any]:
    """The parts of arguments that a recording depends on."""
    for a in arguments:
        if isinstance(a, Tensor) and not isinstance(a, Parameter):  # the function may know a parameter from outside
            yield from (*a._data.shape, *a._data.strides, a._data.dtype, a._requires_grad)
        elif isinstance(a, (list, tuple)):
            yield from (type(a), len(a), *parts_of(*a))
        elif isinstance(a, dict):
            yield from (type(a), *parts_of([*a], [*a.values()]))
        else:
            yield a


class Guard:
    """The state outside of a function on which its recording depends."""

    def __init__(self, trace: Trace, roots: Iterable[Any]) -> None:
        self._tensors, self.before = [*trace.watched], trace.before
        leaves = flattened([step.args for step in trace.steps if step.out is None])
        self.optimizers = [leaf for leaf in leaves if hasattr(leaf, "param_groups")]
        found = [module for root in roots if isinstance(root, Module) for module in root.modules()]
        self._modules = [*dict.fromkeys([*found, *trace.modules.values()])]
        attributes = [attribute for module in self._modules for attribute in vars(module).items()]
        self._containers = [value for name, value in attributes if isinstance(value, (list, dict)) and name[0] != "_"]
        self._changes, self._attributes, self._parts = changes[0], self._now_attributes(), self._now()

    def _now_attributes(self) -> list[Any]:
        """The attributes of modules."""
        return [part for module in self._modules for attribute in vars(module).items() for part in attribute]

    def _now(self) -> list[Any]:
        """The parameters of optimisers, group by group; the contents of the lists and dicts of modules; and of tensors
        from outside, whether they require a gradient and have hooks.
        """
        groups = [group["params"] for optimizer in self.optimizers for group in optimizer.param_groups]
        parts = [part for some in (*groups, *self._containers) for part in (None, *flattened([some]))]
        for tensor in self._tensors:
            parts += tensor._requires_grad, bool(tensor._hooks)
        return parts

    def holds(self) -> bool:
        """Whether all is as it was."""
        if self._changes != changes[0]:  # assignments to attributes are counted
            if not agree(self._now_attributes(), self._attributes):
                return False
            self._changes = changes[0]
        absent = all((leaf._grad is None) == (value is None) for leaf, value in self.before.items())
        return absent and agree(self._now(), self._parts)
