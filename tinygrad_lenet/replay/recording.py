"""A recorded call of a function: when it may be replayed, and what a replay leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import is_
from typing import Any
from weakref import ref

import numpy as np

from ..core.accumulation import Gradients
from ..core.graph import Node, Vertex, now, pullback, sources
from ..core.modes import no_grad, tracing
from ..core.saved import changed
from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..errors import GradientError
from ..kernels.memory import trim
from ..nn.module import Module, changes
from .chunks import Chunks
from .program import Program
from .rewrite import pool_first
from .trace import Step, Trace, Value, difference, needed, same, values_in

PLAIN = (int, float, complex, bool, str, bytes, type(None))


class Recording:
    """One traced call: its steps, its results, and the state under which a replay does the same."""

    def __init__(self, fn: Callable[..., Any], args: Any, kwargs: Any, outside: Iterable[Any]) -> None:
        self.program: Any = None
        self.replayed = False
        self.trace = trace = Trace([x for x in flattened((args, kwargs)) if isinstance(x, Tensor)])
        self.inputs = [*trace.inputs]
        self.backward: Backward | None = None
        with tracing(trace):
            since = now()
            self.result: Any = fn(*args, **kwargs)
            live = [t for t in flattened([self.result]) if isinstance(t, Tensor) and _has_graph(t)]
            if len(live) > 1:
                trace.refuse("the function returns several tensors with graphs")
            elif live:
                self.backward = Backward(trace, live[0], since)
        self.tree = mapped(self.result, lambda leaf: _returned(trace, leaf))
        self.grads = {p: trace.value(p._grad._data) if p._grad is not None else None for p in trace.touched.values()}
        self.outputs = [v for v in (*flattened([self.tree]), *self.grads.values()) if isinstance(v, Value)]
        self.outputs += self.backward.gradients.values() if self.backward else []
        self.steps = needed(trace.steps, self.outputs)
        if self.backward is not None:  # a second backward pass may need them again
            self.outputs += self.backward.split(self.steps, trace.steps)
        self.before, self.absent = trace.gradients, trace.absent
        within = [
            m for root in (*outside, *flattened((args, kwargs))) if isinstance(root, Module) for m in root.modules()
        ]
        self.modules = [*({id(m): m for m in within} | trace.modules).values()]
        self.fingerprint, self.changes = _fingerprint(self.modules), changes[0]
        self.containers = [
            a for m in self.modules for k, a in vars(m).items() if isinstance(a, (list, dict)) and k[0] != "_"
        ]
        self.members = self._members()
        self.flags = [(t, t._requires_grad, bool(t._hooks)) for t in trace.watched.values()]
        self.refusal = trace.refusal

    def _members(self) -> list[Any]:
        """The parameters of optimisers, group by group, and the contents of the lists and dicts of modules."""
        groups = [group["params"] for optimizer in self.trace.optimizers for group in optimizer.param_groups]
        return [part for some in (*groups, *self.containers) for part in (None, *flattened([some]))]

    def holds(self) -> bool:
        """Whether the state outside of the function is that of the recording."""
        if any(p._grad is not None for p in self.absent) or any(v.tensor._grad is None for v in self.before):
            return False
        if any(t._requires_grad is not flag or bool(t._hooks) is not hooks for t, flag, hooks in self.flags):
            return False
        if self.changes != changes[0]:
            if _fingerprint(self.modules) != self.fingerprint:
                return False
            self.changes = changes[0]
        members = self._members()
        return len(members) == len(self.members) and all(map(is_, members, self.members))

    def plan(self, first: Recording) -> None:
        """Make the program if the first trace was the same; else refuse."""
        self.refusal = difference(first.steps, self.steps)
        if not all(map(same, flattened([first.tree]), flattened([self.tree]))):
            self.refusal = self.refusal or "the function returns other numbers at the second call"
        self.grads = {p: self.grads[p] for p in first.grads if p in self.grads}  # others were made by the function
        known = {*map(id, first.absent)}
        self.absent = [p for p in self.absent if id(p) in known]
        if not self.refusal:
            pool_first(self.steps, self.outputs)
            trim()  # what the two calls have used: replays need it no longer
            self.program = self._program()
            if self.backward is not None:
                self.backward.leases.append((self.program, lambda: None))
        for value in self.inputs:
            value.tensor = None  # the program does not need it

    def _program(self) -> Any:
        """A program, in chunks of the batch if that pays."""
        if self.backward is None:
            chunks = Chunks(self.steps, self.outputs, [*self.inputs, *self.before])
            if chunks.worth():
                return chunks.bind()
        lasting = [*self.inputs, *self.before, *([self.backward.seed] if self.backward else [])]
        return Program(self.steps, self.outputs, lasting)

    def replay(self, inputs: list[Tensor]) -> Any:
        """Compute the same for other inputs."""
        program = self.program if self.backward is None else self.backward.free_program(self._program)
        self.replayed = True
        for value, x in zip(self.inputs, inputs, strict=True):
            np.copyto(program.arrays[value], x._data)
        for value in self.before:
            np.copyto(program.arrays[value], value.tensor._grad._data)
        program.run(last=None if self.backward is None else self.backward.first)
        for p, found in self.grads.items():
            p._grad = None if found is None else Tensor._wrap(np.array(program.array(found)))

        def result(leaf: Any) -> Any:
            if not isinstance(leaf, Value):
                return leaf
            if leaf.kind == "input":
                return inputs[self.inputs.index(leaf)]
            if leaf.kind == "outside":
                return leaf.tensor
            node = self.backward.node(program, inputs) if self.backward and leaf is self.backward.output else None
            return Tensor._wrap(np.array(program.array(leaf)), node)

        return mapped(self.tree, result)


def _has_graph(tensor: Tensor) -> bool:
    return tensor._node is not None and tensor._node.saved is not None


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


def _fingerprint(modules: Iterable[Any]) -> list[Any]:
    """The attributes of modules: numbers and strings by value, others by identity."""
    return [{k: v if isinstance(v, PLAIN) else id(v) for k, v in vars(m).items()} for m in modules]


class Lease:
    """Held by the node of a result until its backward pass is over: its program must not compute anything else."""

    __slots__ = ("__weakref__", "program", "versions")

    def __init__(self, program: Program, used: Iterable[Tensor]) -> None:
        self.program = program
        self.versions = [(tensor, tensor._version[0]) for tensor in used]


class Backward:
    """The backward pass of a returned tensor: the rest of the program. It is the plan of that tensor's node."""

    name, view = "compiled", False

    def __init__(self, trace: Trace, output: Tensor, since: int) -> None:
        self.output = trace.value(output._data, output)
        self._start = len(trace.steps)
        self._inputs: dict[Vertex, int] = {
            x.tensor._node or x.tensor: i for i, x in enumerate(trace.inputs) if x.tensor is not None
        }
        self.seed = trace.input(Tensor._wrap(np.ones_like(output._data)))
        root, sums = output._node or output, Gradients()
        with no_grad():
            pullback([root], [self.seed.tensor], sources([root], since), True, since, sums.add)
            found = sums.finish()
        self.gradients: dict[Any, Value] = {}  # by the position of an argument, or by the leaf from outside
        for vertex, gradient in found.items():
            if vertex in self._inputs:
                self.gradients[self._inputs[vertex]] = trace.value(gradient._data)
            elif isinstance(vertex, Tensor) and trace.value(vertex._data, vertex).kind == "outside":
                self.gradients[vertex] = trace.value(gradient._data)
        self.leases: list[tuple[Program, Callable[[], Any]]] = []

    def split(self, steps: Sequence[Step], all_steps: Sequence[Step]) -> list[Value]:
        """Note where the backward pass begins among the needed steps; return the values that it uses."""
        later = {*map(id, all_steps[self._start :])}
        rest = [step for step in steps if id(step) in later]
        self.first = len(steps) - len(rest)
        used = values_in([step.args for step in rest])
        self._outside = {v.tensor for v in used if v.whole.kind == "outside" and v.tensor is not None}
        return used

    @property
    def op(self) -> Backward:
        """The op, whose name messages use: this object."""
        return self

    def free_program(self, make: Callable[[], Program]) -> Program:
        """A program that no earlier result needs for its backward pass."""
        for program, lease in self.leases:
            if lease() is None:
                return program
        self.leases.append((make(), lambda: None))
        return self.leases[-1][0]

    def node(self, program: Program, inputs: Sequence[Tensor]) -> Node:
        """The node of the result that the program has just computed."""
        lease = Lease(program, self._outside)
        self.leases = [(p, ref(lease) if p is program else other) for p, other in self.leases]
        leaves = [inputs[place] if isinstance(place, int) else place for place in self.gradients]
        return Node(self, [x._node or x for x in leaves], self.output.shape, self.output.dtype, [(lease, 0)])

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Replay the backward pass for the gradient of the result."""
        (lease, _), *_ = node.saved or [(None, 0)]  # pullback has checked that it is there
        if isinstance(seed, Tensor):
            how = "compute the first derivative inside of the function, or leave out tl.compile"
            raise GradientError(f"a compiled function has no second derivatives outside of it; {how}")
        for tensor, version in lease.versions:
            if tensor._version[0] != version:
                raise changed("a tensor that a compiled function uses", tensor.shape, tensor._version)
        program = lease.program
        np.copyto(program.arrays[self.seed], seed)
        program.run(self.first)
        for parent, value in zip(node.parents, self.gradients.values(), strict=True):
            if needed is None or parent in needed:
                add(parent, np.array(program.array(value)))
