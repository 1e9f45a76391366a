"""A recorded call of a function: what it computes, and what a replay of it leaves behind.

A returned tensor may have a graph. Then the trace goes on after the function has returned: it records the backward pass
for a seed that each call gets anew. A replay computes the first part of the program, and returns a tensor whose graph
is one node; the backward pass of that node is the rest of the program. Until the node is freed, the program holds the
values that the rest needs, so the node has a lease of it (:class:`Programs`), and another call takes another program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from threading import RLock
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..core.accumulation import Gradients
from ..core.graph import Node, Vertex, now, pullback, sources
from ..core.modes import no_grad, tracing
from ..core.saved import changed
from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..errors import GradientError, TinygradLenetError
from ..kernels.memory import trim
from ..kernels.steps import run
from ..kernels.threads import get_num_threads
from ..ops.creation import SHARED
from .program import Program, Programs
from .rewrite import Chunks, divided, pool_first
from .trace import Trace, Value, agree, difference, same, values_in


class Recording(Trace):
    """The trace of one call, with its results. Once it has been planned, it can be replayed."""

    op: Any = SimpleNamespace(name="compiled", view=False)  # of the node of a result, whose plan is the recording
    live: Value | None = None  # a returned tensor with a graph
    programs: Any = None  # once the recording has been planned
    latest: Any = None  # the program of the last replay

    def record(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the function, and return its result."""
        self.seed: list[Value] = []  # the gradient of the live tensor
        self.gradients: dict[Any, Value] = {}  # by the position of an argument, or by the leaf from outside
        with tracing(self):
            since = now()
            result = fn(*args, **kwargs)
            self.split = len(self.steps)  # later steps are those of a backward pass after the call
            self._trace_backward(result, since)
        self.tree = mapped(result, self._returned)  # the result, with Values for tensors
        # The .grad of leaves after the call.
        self.after: dict[Tensor, Any] = {leaf: self.value(leaf._grad) for leaf in self.touched}
        self.outputs = values_in([self.tree, self.after, self.gradients])
        self.arguments.clear()
        return result

    def _trace_backward(self, result: Any, since: int) -> None:
        """Record the backward pass of a returned tensor with a graph."""
        live = [t for t in flattened([result]) if isinstance(t, Tensor) and t._node and t._node.saved is not None]
        if len(live) > 1:
            self.refuse("the function returns several tensors with graphs")
        if self.refusal or not live:
            return
        seed, sums, roots = Tensor._wrap(np.ones_like(live[0]._data)), Gradients(), [live[0]._node or live[0]]
        self.live, self.seed = self.value(live[0]), [self.new("input", seed._data)]
        places: dict[Vertex, Any] = {x._node or x: i for i, x in enumerate(self.arguments)}
        with no_grad():
            pullback(roots, [seed], sources(roots, since), True, since, sums.add)
            for vertex, gradient in sums.finish().items():
                if vertex in places or self.value(vertex).kind == "outside":
                    self.gradients[places.get(vertex, vertex)] = self.value(gradient)

    def _returned(self, leaf: Any) -> Any:
        """The Value of a returned tensor."""
        if isinstance(leaf, np.ndarray):
            self.refuse("the function returns an array")
        if not isinstance(leaf, Tensor):
            return leaf
        value = self.value(leaf)
        if value.tensor is not None and value.tensor is not leaf:
            self.refuse("the function returns a view of a tensor that it did not make")
        return value

    def plan(self, first: Recording) -> None:
        """Make the steps of the program if this recording and an earlier one were the same; else refuse."""
        self.refusal = difference(first.steps, self.steps)
        if not agree(flattened([first.tree]), flattened([self.tree]), same):
            self.refuse("the function returns other numbers at the second call")
        for leaf in self.before.keys() - first.before.keys():
            if self.before.pop(leaf) is not None:  # else the function has made it
                self.refuse("the function reads the .grad of another tensor at the second call")
        if self.refusal:
            return
        pool_first(self.steps, self.outputs)
        self.given = [*self.inputs, *values_in(self.before), *self.seed]
        if self.live is None:
            self.steps = divided(self.steps, self.given, self.outputs)
            self.split = len(self.steps)
        made = {step.out for step in self.steps[self.split :]}
        used = values_in([step.args for step in self.steps[self.split :]])
        self.used = [v for v in used if v not in made]  # by the backward pass
        trim()  # what the two calls have used: replays need it no longer
        self.programs = Programs(self.steps, self.given, [*self.outputs, *self.used], get_num_threads())

    def replay(self, inputs: list[Tensor]) -> Any:
        """Compute the same for other inputs."""
        lease = self.programs.lent()  # until the result is freed, if it has a node
        program = self.latest = next(lease)
        before: list[Any] = [leaf._grad for leaf, value in self.before.items() if value is not None]
        given = dict(zip(self.given, (*inputs, *before), strict=False))  # the seed comes later
        program.load([x._data for x in given.values()])
        program.run(last=self.split)

        def result(leaf: Any) -> Any:
            if not isinstance(leaf, Value):
                return leaf
            known = given.get(leaf, leaf.tensor)  # an input, or a tensor from outside
            if known is not None:
                return known
            node = self._node((lease, program, RLock()), inputs) if leaf is self.live else None
            return Tensor._wrap(np.array(program.array(leaf)), node)

        for leaf, gradient in self.after.items():
            leaf._grad = result(gradient)
        return mapped(self.tree, result)

    def _node(self, held: tuple[Iterator[Program], Program, Any], inputs: Sequence[Tensor]) -> Node:
        """The node of a result just computed."""
        leaves = [inputs[place] if isinstance(place, int) else place for place in self.gradients]
        read = {value.whole.tensor for value in self.used} - {None}  # tensors from outside
        saved = [held, *((tensor, tensor._version[0]) for tensor in read)]
        return Node(self, [x._node or x for x in leaves], self.seed[0].shape, self.seed[0].dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Replay the backward pass for the gradient of the result."""
        if isinstance(seed, Tensor):
            how = "compute the first derivative inside of the function, or leave out tl.compile"
            raise GradientError(f"a compiled function has no second derivatives outside of it; {how}")
        (_, program, lock), *read = node.saved or [(None,) * 3]  # pullback has checked that they are there
        for tensor, version in read:
            if tensor._version[0] != version:
                raise changed("a tensor that a compiled function uses", tensor.shape, tensor._version)
        with lock:  # another thread may differentiate the same graph
            np.copyto(program.array(self.seed[0]), seed)
            program.run(first=self.split)
            for parent, value in zip(node.parents, self.gradients.values(), strict=True):
                if needed is None or parent in needed:
                    add(parent, np.array(program.array(value)))

    def compare(self, inputs: list[Tensor], call: Callable[[], Any]) -> Any:
        """Replay, and call the function from the same state; return its result if nothing differs.

        Chunks of the batch round sums differently. So their results may differ by ``sqrt(eps)`` of the dtype times the
        largest element.
        """
        before = self._state()
        replayed = self.replay(inputs), [undo.args[-1] for undo in self._state()]
        run(before)
        called = call(), [undo.args[-1] for undo in self._state()]
        chunked = any(isinstance(step.op, Chunks) for step in self.steps)
        for what, a, b in zip(("result", "state"), called, replayed, strict=True):
            for x, y in zip(flattened([a]), flattened([b]), strict=True):
                x, y = (v._data if isinstance(v, Tensor) else v for v in (x, y))
                rounded = chunked and isinstance(x, np.ndarray) and x.dtype.kind == "f"
                size = np.sqrt(np.finfo(x.dtype).eps) * np.abs(x).max(initial=0) if rounded else 0
                if not (np.allclose(x, y, 0, size, equal_nan=True) if isinstance(x, np.ndarray) else x == y):
                    raise TinygradLenetError(f"tl.compile: a {what} differs between the replay and the function")
        return called[0]

    def report(self) -> str:
        """The program as a table, with the time of each step in one run on the inputs of the last replay."""
        before, lines, lease = self._state(), list[str](), self.programs.lent()
        program = next(lease)
        program.load(self.latest.inputs)
        programs = [(program, "")]
        for program, note in programs:
            lines.append(f"{len(program.steps)} steps, {program.memory.bytes / 1e6:.1f} MB{note}")
            lines.append(f"{'op':<24}{'result':<30}{'calls':>6}{'us':>10}  at")
            for i, step in enumerate(program.steps):
                began = perf_counter()
                program.run(i, i + 1)
                time, out = 1e6 * (perf_counter() - began), step.out
                shape = "" if out is None else f"{out.dtype} {out.shape}"
                lines.append(f"{step.name:<24}{shape:<30}{len(program.calls[i]):>6}{time:>10.1f}  {step.line}")
                if isinstance(step.op, Chunks):
                    note = f", for one of {step.op.count} chunks of {step.op.size} rows"
                    programs.append((step.op.programs.idle[-1], note))
        run(before)
        return "\n".join(lines)

    def _state(self) -> list[partial[None]]:
        """The state that a replay may change: tensors, generators, the states of optimisers, and gradients.

        Each is a call that returns it to what it is now; its last argument is a copy.
        """
        leaves = [*flattened([step.args for step in self.steps]), *SHARED]
        held: list[Any] = [(leaf, "state") for leaf in leaves if hasattr(leaf, "param_groups")]
        held += [(leaf.bit_generator, "state") for leaf in leaves if isinstance(leaf, np.random.Generator)]
        arrays = [leaf._data for leaf in leaves if isinstance(leaf, Tensor)]
        undo = [partial(np.copyto, array, array.copy()) for array in arrays]
        undo += [partial(setattr, owner, name, mapped(getattr(owner, name), copy)) for owner, name in held]
        return undo + [partial(setattr, leaf, "_grad", leaf._grad) for leaf in self.after]
