"""A recorded call of a function: what it computes, and what a replay of it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..core.graph import now
from ..core.modes import tracing
from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..kernels.memory import trim
from ..kernels.threads import get_num_threads
from .backward import Backward
from .chunks import divided
from .guard import Guard
from .program import Lease, Program
from .rewrite import pool_first
from .trace import Trace, Value, difference, needed, same, values_in


class Recording:
    """One traced call: its steps, its results, and the guard under which a replay does the same."""

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any, outside: Iterable[Any]) -> None:
        given = flattened((args, kwargs))
        trace = Trace([x for x in given if isinstance(x, Tensor)])
        self.backward: Backward | None = None
        with tracing(trace):
            since = now()
            self.result: Any = fn(*args, **kwargs)
            end = len(trace.steps)
            for tensor in flattened([self.result]):
                if isinstance(tensor, Tensor) and tensor._node is not None and tensor._node.saved is not None:
                    if self.backward is not None:
                        trace.refuse("the function returns several tensors with graphs")
                    self.backward = Backward(trace, tensor, since)
        self.inputs = trace.inputs
        self.tree = mapped(self.result, lambda leaf: _returned(trace, leaf))  # the result, with Values for tensors
        # The gradients that the function leaves behind.
        self.grads = {p: trace.value(p._grad._data) if p._grad is not None else None for p in trace.touched}
        gradients = self.backward.gradients if self.backward else {}
        self.outputs = values_in([self.tree, *self.grads.values(), *gradients.values()])
        self.later = needed(trace.steps[end:], self.outputs)  # the backward pass of a returned tensor
        self.steps = needed(trace.steps[:end], [*self.outputs, *values_in([step.args for step in self.later])])
        self.guard, self.refusal = Guard(trace, [*outside, *given]), trace.refusal
        self.idle: list[Program] = []
        self.planned = False
        for value in self.inputs:
            value.tensor = None  # free the arguments of this call

    def plan(self, first: Recording) -> None:
        """Rewrite the steps for replays if those of the first trace were the same; else refuse."""
        self.refusal = difference([*first.steps, *first.later], [*self.steps, *self.later])
        if not same(first.tree, self.tree):
            self.refusal = self.refusal or "the function returns other numbers at the second call"
        for found, before in ((self.grads, first.grads), (self.guard.gradients, first.guard.gradients)):
            for leaf in [*found.keys() - before.keys()]:
                del found[leaf]  # the function has made it
        if not self.refusal:
            pool_first([*self.steps, *self.later], self.outputs)
            given = [*self.inputs, *values_in([*self.guard.gradients.values()])]
            if self.backward is not None:
                given.append(self.backward.seed)
            if self.backward is None:
                self.steps = divided(self.steps, self.outputs, given)
            made = {step.out for step in self.later}
            used = [v for v in values_in([step.args for step in self.later]) if v not in made]
            self.given, self.kept = given, [*self.outputs, *used]
            self.read = {v.whole.tensor for v in used if v.whole.kind == "outside"}  # by the backward pass
            trim()  # what the two calls have used: replays need it no longer
            self.planned = True

    def _program(self) -> Program:
        return Program([*self.steps, *self.later], self.given, self.kept, get_num_threads())

    def replay(self, inputs: list[Tensor]) -> Any:
        """Compute the same for other inputs."""
        lease = Lease(self.idle, self._program)
        program = lease.program
        for value, x in zip(self.inputs, inputs, strict=True):
            np.copyto(program.array(value), x._data)
        for leaf, value in self.guard.gradients.items():
            if value is not None:
                np.copyto(program.array(value), leaf._grad._data)
        program.run(last=len(self.steps))
        for leaf, value in self.grads.items():
            leaf._grad = None if value is None else Tensor._wrap(np.array(program.array(value)))

        def result(leaf: Any) -> Any:
            if not isinstance(leaf, Value):
                return leaf
            if leaf.kind == "input":
                return inputs[self.inputs.index(leaf)]
            if leaf.kind == "outside":
                return leaf.tensor
            node = None
            if self.backward is not None and leaf is self.backward.output:
                node = self.backward.node(lease, len(self.steps), self.read, inputs)
            return Tensor._wrap(np.array(program.array(leaf)), node)

        return mapped(self.tree, result)


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
