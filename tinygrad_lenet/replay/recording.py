"""A recorded call of a function: what it computes, and what a replay of it leaves behind.

A returned tensor may have a graph. Then the trace goes on after the function has returned: it records the backward pass
for a seed that each call gets anew. A replay computes the first part of the program, and returns a tensor whose graph
is one node; the backward pass of that node is the rest of the program. Until the node is freed, the program holds the
values that the rest needs, so the node has a :class:`Lease`, and another call takes another program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..core.accumulation import Gradients
from ..core.graph import Node, Vertex, now, pullback, sources
from ..core.modes import no_grad, tracing
from ..core.saved import changed
from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..errors import GradientError
from ..kernels.memory import trim
from ..kernels.threads import get_num_threads
from .program import Lease, Program
from .rewrite import divided, pool_first
from .trace import Trace, Value, agree, difference, needed, same, values_in


class Recording:
    """One traced call: its steps, its results, and the guard under which a replay does the same."""

    op: Any = SimpleNamespace(name="compiled", view=False)  # of the node of a result, whose plan is the recording

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any, tensors: Sequence[Tensor]) -> None:
        trace = Trace(tensors)
        with tracing(trace):
            since = now()
            self.result: Any = fn(*args, **kwargs)
            end = len(trace.steps)
            self._trace_backward(trace, since)
        self.tree = mapped(self.result, lambda leaf: _returned(trace, leaf))  # the result, with Values for tensors
        # The .grad of leaves after the call.
        self.after = {p: trace.value(p._grad._data) if p._grad is not None else None for p in trace.touched}
        self.outputs = values_in([self.tree, *self.after.values(), *self.gradients.values()])
        self.later = needed(trace.steps[end:], self.outputs)
        self.steps = needed(trace.steps[:end], [*self.outputs, *values_in([step.args for step in self.later])])
        self.trace, self.refusal = trace, trace.refusal
        for value in trace.inputs:
            value.tensor = None  # free the arguments of this call
        self.idle: list[Program] = []
        self.latest: Any = None  # that of the last replay
        self.planned = False

    def _trace_backward(self, trace: Trace, since: int) -> None:
        """Record the backward pass of a returned tensor with a graph."""
        self.live: Value | None = None
        self.seed: list[Value] = []  # the gradient of that tensor
        self.gradients: dict[Any, Value] = {}  # by the position of an argument, or by the leaf from outside
        live = [t for t in flattened([self.result]) if isinstance(t, Tensor) and t._node and t._node.saved is not None]
        if len(live) > 1:
            trace.refuse("the function returns several tensors with graphs")
        if live and not trace.refusal:
            seed, sums = Tensor._wrap(np.ones_like(live[0]._data)), Gradients()
            root: Any = live[0]._node
            self.live, self.seed = trace.value(live[0]._data), [trace.new("input", seed._data)]
            with no_grad():
                pullback([root], [seed], sources([root], since), True, since, sums.add)
                found: dict[Any, Any] = {**sums.finish()}
            places = {x.tensor._node or x.tensor: i for i, x in enumerate(trace.inputs)}
            for vertex, gradient in found.items():
                if vertex in places or trace.value(vertex._data, vertex).kind == "outside":
                    self.gradients[places.get(vertex, vertex)] = trace.value(gradient._data)

    def plan(self, first: Recording) -> None:
        """Rewrite the steps for replays if those of the first trace were the same; else refuse."""
        self.refusal = difference([*first.steps, *first.later], [*self.steps, *self.later])
        if not agree(flattened([first.tree]), flattened([self.tree]), same):
            self.refusal = self.refusal or "the function returns other numbers at the second call"
        for found, others in ((self.after, first.after), (self.trace.before, first.trace.before)):
            for leaf in found.keys() - others.keys():
                del found[leaf]  # the function has made it
        if self.refusal:
            return
        pool_first([*self.steps, *self.later], self.outputs)
        self.given = [*self.trace.inputs, *values_in([*self.trace.before.values()]), *self.seed]
        if self.live is None:
            self.steps = divided(self.steps, self.given, self.outputs)
        made = {step.out for step in self.later}
        self.used = [v for v in values_in([step.args for step in self.later]) if v not in made]  # by a backward pass
        trim()  # what the two calls have used: replays need it no longer
        self.planned = True

    def _program(self) -> Program:
        steps, results = [*self.steps, *self.later], [*self.outputs, *self.used]
        return Program(steps, self.given, results, get_num_threads())

    def lease(self) -> Lease:
        """A program that no earlier result needs for its backward pass."""
        return Lease(self.idle, self._program)

    def replay(self, inputs: list[Tensor]) -> Any:
        """Compute the same for other inputs."""
        lease = self.lease()
        program = self.latest = lease.program
        before: list[Any] = [leaf._grad for leaf, value in self.trace.before.items() if value is not None]
        for value, x in zip(self.given, (*inputs, *before), strict=False):  # the seed comes later
            np.copyto(program.array(value), x._data)
        for tensor, line in self.trace.written.items():  # a graph that saved the old values must refuse to use them
            tensor._version[:] = tensor._version[0] + 1, line
        program.run(last=len(self.steps))
        for leaf, gradient in self.after.items():
            leaf._grad = None if gradient is None else Tensor._wrap(np.array(program.array(gradient)))

        def result(leaf: Any) -> Any:
            if not isinstance(leaf, Value):
                return leaf
            if leaf.kind == "input":
                return inputs[self.trace.inputs.index(leaf)]
            if leaf.kind == "outside" and leaf.tensor is not None:
                return leaf.tensor
            node = self._node(lease, inputs) if leaf is self.live else None
            return Tensor._wrap(np.array(program.array(leaf)), node)

        return mapped(self.tree, result)

    def _node(self, lease: Lease, inputs: Sequence[Tensor]) -> Node:
        """The node of a result just computed."""
        leaves = [inputs[place] if isinstance(place, int) else place for place in self.gradients]
        read = {value.whole.tensor for value in self.used if value.whole.kind == "outside"}
        saved = [(lease, 0), *((tensor, tensor._version[0]) for tensor in read if tensor is not None)]
        return Node(self, [x._node or x for x in leaves], self.seed[0].shape, self.seed[0].dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Replay the backward pass for the gradient of the result."""
        if isinstance(seed, Tensor):
            how = "compute the first derivative inside of the function, or leave out tl.compile"
            raise GradientError(f"a compiled function has no second derivatives outside of it; {how}")
        (lease, _), *read = node.saved or [(None, 0)]  # pullback has checked that they are there
        for tensor, version in read:
            if tensor._version[0] != version:
                raise changed("a tensor that a compiled function uses", tensor.shape, tensor._version)
        program = lease.program
        np.copyto(program.array(self.seed[0]), seed)
        program.run(first=len(self.steps))
        for parent, value in zip(node.parents, self.gradients.values(), strict=True):
            if needed is None or parent in needed:
                add(parent, np.array(program.array(value)))


def _returned(trace: Trace, leaf: Any) -> Any:
    """The Value of a returned tensor."""
    if isinstance(leaf, np.ndarray):
        trace.refuse("the function returns an array")
    if not isinstance(leaf, Tensor):
        return leaf
    value = trace.value(leaf._data, leaf)
    if value.tensor is not None and value.tensor is not leaf:
        trace.refuse("the function returns a view of a tensor that it did not make")
    return value
