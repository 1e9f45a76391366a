"""A recorded call of a function: its trace, its results, and what a replay of it leaves behind.

:meth:`Recording.record` traces a call. After the second call, :meth:`Recording.plan` compares its recording with that
of the first, and makes programs of it. Then :meth:`Recording.replay` takes the place of calls. A replay leaves behind
what the call did: the results, the ``.grad`` of leaves, and the effects, which are steps of the program.

A returned tensor may have a graph; it is called live. Then the trace goes on after the function has returned: it
records the backward pass from that tensor, whose seed each backward pass gets anew. The program has two parts. A replay
runs the first, and returns a tensor whose graph is one node. The backward pass of that node runs the second
(:meth:`Recording.pull`): the recording takes the place of a :class:`Plan`. Until the node is freed, the program holds
the values that its second part needs. So the node holds the lease of the program (:class:`Programs`), and another call
uses another program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from threading import RLock
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..core.accumulation import Gradients
from ..core.graph import Node, Vertex, ancestors, now, pullback, sources
from ..core.modes import no_grad, tracing
from ..core.saved import changed, viewed
from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..errors import GradientError, TinygradLenetError
from ..kernels.memory import trim
from ..kernels.steps import run
from ..kernels.threads import get_num_threads
from ..ops.creation import SHARED
from .program import Program, Programs
from .rewrite import Chunks, divided, pool_first
from .trace import PLAIN, Trace, Value, agree, difference, same_argument, values_in


class Recording(Trace):
    """The trace of one call, with its results. Once it has been planned, it can be replayed."""

    op: Any = SimpleNamespace(name="compiled", view=False)  # what a node's plan needs: the name for messages
    live: Value | None = None  # a returned tensor with a graph
    programs: Any = None  # once the recording has been planned, its Programs
    latest: Any = None  # the program of the last replay

    def record(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the function, and return its result."""
        self.seed: list[Value] = []  # the gradient of the live tensor, if there is one
        # The results of the second part, by the position of an argument, or by the leaf from outside.
        self.gradients: dict[Any, Value] = {}
        graphs = [x._node for x in self.arguments if x._node and x._node.saved is not None]
        with tracing(self):
            since = now()  # nodes of the call are newer
            result = fn(*args, **kwargs)
            if any(node.saved is None for node in graphs):
                self.refuse("a backward pass goes through the graph of an argument")
            self.split = len(self.steps)  # where the second part begins
            self._trace_backward([result, [leaf._grad for leaf in self.touched]], since)
            returned = partial(self._returned, dict(zip(self.inputs, self.arguments, strict=True)))
            self.tree = mapped(result, returned)  # the result, with Values for tensors
            # The .grad of leaves after the call, None or a Value.
            self.after: dict[Tensor, Any] = {leaf: returned(leaf._grad) for leaf in self.touched}
        self.outputs = [value.whole for value in values_in([self.tree, self.after, self.gradients])]
        self.arguments.clear()  # the caller's tensors, which may be large
        return result

    def _trace_backward(self, results: Any, since: int) -> None:
        """Record the backward pass of a returned tensor with a graph, through the nodes of the call."""
        graphs = [(t, ancestors([t._node], since)) for t in flattened(results) if isinstance(t, Tensor) and t._node]
        live = [t for t, nodes in graphs if all(node.saved is not None for node in nodes)]
        if len(live) > 1:
            self.refuse("the function returns several tensors with graphs (detach all but one)")
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

    def _returned(self, holders: dict[Value, Tensor], leaf: Any) -> Any:
        """The Value of a returned tensor; a Value of its own if another tensor, the holder, has the same array.

        Any other object is returned itself.
        """
        if not isinstance(leaf, (Tensor, *PLAIN)):
            self.refuse(f"the function returns a {type(leaf).__name__}, which may hold values (return tensors)")
        if not isinstance(leaf, Tensor):
            return leaf
        value = self.value(leaf)
        holder = holders.setdefault(value, leaf if value.tensor is None else value.tensor)
        if leaf._requires_grad and leaf._node is None and (holder is not leaf or value.kind == "result"):
            self.refuse("the function returns a leaf that it made or detached")
        return value if holder is leaf else self.value(leaf[...])

    def plan(self, first: Recording) -> None:
        """Make programs, if this recording and that of the first call are the same; else refuse."""
        self.refusal = difference(first.steps, self.steps)
        if not agree(flattened([first.tree, first.after]), flattened([self.tree, self.after]), same_argument):
            self.refuse("the function returns other numbers at the second call")
        for leaf in self.before.keys() - first.before.keys():
            if self.before.pop(leaf) is not None:  # else the function has made it
                self.refuse("the function reads the .grad of another tensor at the second call")
        if self.refusal:
            return
        for a, b in zip(first.outputs, self.outputs, strict=False):
            if b.tensor is not None and a.array is not b.array:  # a constant, of which each caller gets a copy
                b.tensor, b.array = None, b.array.copy("K")
        # Views in memory that the caller also sees otherwise; of other results, a copy will do.
        shared = {v for v in self.outputs if v.kind != "result" or self.outputs.count(v) > 1}
        self._views = {s.out: (s.op, s.args) for s in self.steps if s.out and s.out.whole in shared - {s.out}}
        pool_first(self.steps, self.outputs)
        self.given = [*self.inputs, *values_in(self.before), *self.seed]  # the inputs of the program
        if self.live is None:
            self.steps = divided(self.steps, self.given, self.outputs)
            self.split = len(self.steps)
        made = {step.out for step in self.steps[self.split :]}
        used = values_in([step.args for step in self.steps[self.split :]])
        # What the second part needs. It is kept as outputs are, since the part may run again (retain_graph).
        self.used = [v for v in used if v not in made]
        trim()  # free the memory that the two calls have used: replays have their own
        self.programs = Programs(self.steps, self.given, [*self.outputs, *self.used], get_num_threads())

    def replay(self, inputs: list[Tensor]) -> Any:
        """Compute the same for other inputs, set the ``.grad`` of leaves, and return the results as new tensors."""
        lease = self.programs.lent()  # returned with this frame, or with the node of the result if it has one
        program = self.latest = next(lease)
        # The seed comes later.
        made: Any = dict(zip(self.given, (*inputs, *(x._grad for x, v in self.before.items() if v)), strict=False))
        program.load([x._data for x in made.values()])
        program.run(last=self.split)
        result = partial(self._result, (lease, program, RLock()), made)
        for leaf, gradient in self.after.items():
            leaf._grad = result(gradient)
        return mapped(self.tree, result)

    def _result(self, held: tuple[Iterator[Program], Program, Any], made: dict[Value, Tensor], leaf: Any) -> Any:
        """The tensor of a Value after a replay: one of those made so far, or a new one. Any other object itself."""
        if not isinstance(leaf, Value):
            return leaf
        if leaf.tensor is None and leaf not in made:
            if leaf in self._views:
                op, args = self._views[leaf]
                made[leaf] = viewed(op, mapped(args, partial(self._result, held, made)))
            else:
                made[leaf] = Tensor._wrap(np.array(held[1].array(leaf)))
            if leaf is self.live:
                made[leaf] = Tensor._wrap(made[leaf]._data, self._node(held, made), made[leaf]._version)
        return made.get(leaf, leaf.tensor)

    def _node(self, held: tuple[Iterator[Program], Program, Any], made: dict[Value, Tensor]) -> Node:
        """The node of the live result. It saves the lease, and the versions of what :meth:`pull` reads from outside."""
        leaves = [made[self.inputs[place]] if isinstance(place, int) else place for place in self.gradients]
        read = {value.whole.tensor for value in self.used} - {None}  # tensors from outside
        saved = [held, *((tensor, tensor._version[0]) for tensor in read)]
        return Node(self, [x._node or x for x in leaves], self.seed[0].shape, self.seed[0].dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Run the backward pass, as :meth:`Plan.pull` does; ``seed`` is the gradient of the result."""
        if isinstance(seed, Tensor):
            raise GradientError("a compiled function has no second derivatives outside of it; take first ones inside")
        (_, program, lock), *read = node.saved or [(None,) * 3]  # it is not None: pullback has checked that
        for tensor, version in read:
            if tensor._version[0] != version:
                raise changed("a tensor that a compiled function uses", tensor.shape, tensor._version)
        with lock:  # another thread may differentiate the same graph
            np.copyto(program.array(self.seed[0]), seed)
            program.run(first=self.split)
            for parent, value in zip(node.parents, self.gradients.values(), strict=True):
                if needed is None or parent in needed:
                    add(parent, np.array(program.array(value)))

    def compare(self, inputs: list[Tensor], fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """``check=True``: replay, and call the function from the same state; return its result if nothing differs.

        Chunks of the batch round sums differently. So their results may differ by ``sqrt(eps)`` of the dtype times the
        largest element.
        """
        before = self._state()
        replayed = self.replay(inputs), [undo.args[-1] for undo in self._state()]
        run(before)
        called = fn(*args, **kwargs), [undo.args[-1] for undo in self._state()]
        chunked = any(isinstance(step.op, Chunks) for step in self.steps)
        for what, a, b in zip(("a result", "the state after the call"), called, replayed, strict=True):
            for x, y in zip(flattened([a]), flattened([b]), strict=True):
                x, y = (v._data if isinstance(v, Tensor) else v for v in (x, y))
                rounded = chunked and isinstance(x, np.ndarray) and x.dtype.kind == "f"
                size = np.sqrt(np.finfo(x.dtype).eps) * np.abs(x).max(initial=0) if rounded else 0
                if not (np.allclose(x, y, 0, size, equal_nan=True) if isinstance(x, np.ndarray) else x == y):
                    text = f"tl.compile: {what} differs between the replay and the function"
                    raise TinygradLenetError(f"{text}; it depends on Python that a replay does not watch")
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
            for step, calls in program.calls:
                began = perf_counter()
                run(calls)
                time = 1e6 * (perf_counter() - began)
                shape = "" if step.out is None else f"{step.out.dtype} {step.out.shape}"
                lines.append(f"{step.name:<24}{shape:<30}{len(calls):>6}{time:>10.1f}  {step.line}")
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
