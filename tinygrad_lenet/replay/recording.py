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
        self.planned = False

    def _trace_backward(self, trace: Trace, since: int) -> None:
        """Record the backward pass of a returned tensor with a graph."""
        live = [t for t in flattened([self.result]) if isinstance(t, Tensor) and t._node and t._node.saved is not None]
        if len(live) > 1:
            trace.refuse("the function returns several tensors with graphs")
        self.gradients: dict[Value, Value] = {}  # of arguments, and of leaves from outside
        self.live: list[Value] = []
        self.seeds: list[Value] = []
        for tensor in live if not trace.refusal else ():
            seed, sums = Tensor._wrap(np.ones_like(tensor._data)), Gradients()
            self.live.append(trace.value(tensor._data))
            self.seeds.append(trace.new("input", seed._data))
            with no_grad():
                pullback([tensor._node], [seed], sources([tensor._node], since), True, since, sums.add)
                found = sums.finish()
            arguments = {x.tensor._node or x.tensor: x for x in trace.inputs}
            for vertex, gradient in found.items():
                of = arguments.get(vertex) or trace.value(vertex._data, vertex)
                if of.kind != "result":
                    self.gradients[of] = trace.value(gradient._data)

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
        self.given = [*self.trace.inputs, *values_in([*self.trace.before.values()]), *self.seeds]
        if not self.live:
            self.steps = divided(self.steps, self.given, self.outputs)
        made = {step.out for step in self.later}
        self.used = [v for v in values_in([step.args for step in self.later]) if v not in made]  # by a backward pass
        trim()  # what the two calls have used: replays need it no longer
        self.planned = True

    def _program(self) -> Program:
        return Program([*self.steps, *self.later], self.given, [*self.outputs, *self.used], get_num_threads())

    def replay(self, inputs: list[Tensor]) -> Any:
        """Compute the same for other inputs."""
        lease = Lease(self.idle, self._program)
        program = lease.program
        before = [leaf._grad for leaf, value in self.trace.before.items() if value is not None]
        for value, x in zip(self.given, (*inputs, *before), strict=False):  # seeds come later
            np.copyto(program.array(value), x._data)
        for tensor, line in self.trace.written.items():  # a graph that saved the old values must refuse to use them
            tensor._version[:] = tensor._version[0] + 1, line
        program.run(last=len(self.steps))
        for leaf, value in self.after.items():
            leaf._grad = None if value is None else Tensor._wrap(np.array(program.array(value)))

        def result(leaf: Any) -> Any:
            found = self._source(leaf, inputs) if isinstance(leaf, Value) else leaf
            if found is None and leaf is not None:
                node = self._node(lease, inputs) if leaf in self.live else None
                found = Tensor._wrap(np.array(program.array(leaf)), node)
            return found

        return mapped(self.tree, result)

    def _source(self, value: Value, inputs: Sequence[Tensor]) -> Tensor | None:
        """The tensor of a value that the function did not make."""
        if value.kind == "input":
            return inputs[self.trace.inputs.index(value)]
        return value.tensor if value.kind == "outside" else None

    def _node(self, lease: Lease, inputs: Sequence[Tensor]) -> Node:
        """The node of a result just computed."""
        leaves: list[Any] = [self._source(value, inputs) for value in self.gradients]
        read = {value.whole.tensor for value in self.used if value.whole.kind == "outside"}
        saved = [(lease, 0), *((tensor, tensor._version[0]) for tensor in read if tensor is not None)]
        return Node(self, [x._node or x for x in leaves], self.live[0].shape, self.live[0].dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Replay the backward pass for the gradient of the result."""
        if isinstance(seed, Tensor):
            how = "compute the first derivative inside of the function, or leave out tl.compile"
            raise GradientError(f"a compiled function has no second derivatives outside of it; {how}")
        (lease, _), *read = node.saved or ()  # pullback has checked that they are there
        for tensor, version in read:
            if tensor._version[0] != version:
                raise changed("a tensor that a compiled function uses", tensor.shape, tensor._version)
        program = lease.program
        np.copyto(program.array(self.seeds[0]), seed)
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
