"""The node of a returned tensor: a graph of one op, whose backward pass is the second part of a program.

The trace goes on after the function has returned: it records the backward pass of the result for a seed that each call
gets anew. A replay computes the first part of the program, and the node of its result computes the rest. Meanwhile the
program holds the values that the rest needs, so a :class:`Lease` reserves it for as long as the node has not been
freed; another call of the function then takes another program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..core.accumulation import Gradients
from ..core.graph import Node, Vertex, pullback, sources
from ..core.modes import no_grad
from ..core.saved import changed
from ..core.tensor import Tensor
from ..errors import GradientError
from .program import Lease
from .trace import Trace, Value


class Backward:
    """The backward pass of a returned tensor. It is the plan of that tensor's node."""

    name, view = "compiled", False

    def __init__(self, trace: Trace, output: Tensor, since: int) -> None:
        self.output = trace.value(output._data, output)
        places = {x.tensor._node or x.tensor: i for i, x in enumerate(trace.inputs)}
        self.seed = trace.new("input", seed := np.ones_like(output._data))
        root, sums = output._node or output, Gradients()
        with no_grad():
            pullback([root], [Tensor._wrap(seed)], sources([root], since), True, since, sums.add)
            found = sums.finish()
        self.gradients: dict[Any, Value] = {}  # by the position of an argument, or by the leaf from outside
        for vertex, gradient in found.items():
            outside = isinstance(vertex, Tensor) and trace.value(vertex._data, vertex).kind == "outside"
            if outside or vertex in places:
                self.gradients[places.get(vertex, vertex)] = trace.value(gradient._data)

    @property
    def op(self) -> Backward:
        """The op, whose name messages use: this object."""
        return self

    def node(self, lease: Lease, start: int, used: Iterable[Tensor], inputs: Sequence[Tensor]) -> Node:
        """The node of a result just computed. The backward pass begins at step ``start``, and uses these tensors."""
        leaves = [inputs[place] if isinstance(place, int) else place for place in self.gradients]
        saved = [(lease, start), *((tensor, tensor._version[0]) for tensor in used)]
        return Node(self, [x._node or x for x in leaves], self.output.shape, self.output.dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Replay the backward pass for the gradient of the result."""
        if isinstance(seed, Tensor):
            how = "compute the first derivative inside of the function, or leave out tl.compile"
            raise GradientError(f"a compiled function has no second derivatives outside of it; {how}")
        (lease, start), *used = node.saved or ()  # pullback has checked that they are there
        for tensor, version in used:
            if tensor._version[0] != version:
                raise changed("a tensor that a compiled function uses", tensor.shape, tensor._version)
        program = lease.program
        np.copyto(program.array(self.seed), seed)
        program.run(start)
        for parent, value in zip(node.parents, self.gradients.values(), strict=True):
            if needed is None or parent in needed:
                add(parent, np.array(program.array(value)))
