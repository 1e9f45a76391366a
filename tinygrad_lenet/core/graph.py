"""The recorded graph: nodes, the order of a backward pass, and whether recording is on.

A :class:`Node` is one application of an op. It knows the nodes and leaf tensors that its gradient flows to, and keeps
just those values that the rules of its op name. It does not know the tensor that it made: so there are no reference
cycles, and a graph goes when the last tensor that hangs on it goes.

Reverse mode is :func:`pullback`: visit the nodes from the newest to the oldest, hand each the sum of what flowed into
it, and pass on what its rules make of that (Griewank & Walther, *Evaluating Derivatives*, 2nd ed., section 3.2).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from ..errors import GradientError
from ..kernels.sums import added, as_array, single

_numbers = itertools.count()
_ndarray = np.ndarray


class Vertex(Protocol):
    """What a gradient can flow to: a :class:`Node`, or a leaf tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor, and so of its gradient."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the tensor, and so of its gradient."""

    _hooks: list[Hook] | None


class Puller(Protocol):
    """How a node passes a gradient on: the plan of an op."""

    @property
    def op(self) -> Any:
        """What has a ``name``, for messages."""

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, arrive: Callable[[Vertex, Any], object]) -> None:
        """Pass the gradient of each parent to ``arrive``, given the gradient of the output."""


class Hook:
    """A function that sees, and may replace, the gradient of one tensor; see :meth:`Tensor.register_hook`."""

    __slots__ = ("_among", "run")

    def __init__(self, among: list[Hook], run: Callable[[Any], Any]) -> None:
        self._among, self.run = among, run
        among.append(self)

    def remove(self) -> None:
        """Call it no more."""
        if self in self._among:
            self._among.remove(self)


class Node:
    """One recorded application of an op."""

    __slots__ = ("_hooks", "dtype", "number", "parents", "plan", "saved", "shape")

    def __init__(
        self,
        plan: Puller,
        parents: Sequence[Vertex],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        saved: list[tuple[Any, Any]] | None,
    ) -> None:
        self.plan = plan
        self.parents = parents
        self.shape = shape
        self.dtype = dtype
        self.number = next(_numbers)  # a node is made after its parents: the numbers are a topological order
        self.saved = saved  # None once the graph is freed
        self._hooks: list[Hook] | None = None

    def release(self) -> None:
        """Forget what the backward pass will not need again."""
        self.saved = None
        self.parents = ()


class Part(ABC):
    """A gradient that is zero except at some elements. The rule of an op that picks elements may return one.

    Parts are summed in one array, or by one op if the pass records itself. An array of zeros for each would make a loop
    over the slices of a tensor quadratic in their number.
    """

    __slots__ = ("dtype", "shape")
    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of the whole gradient

    @abstractmethod
    def after(self, earlier: Any) -> Any:
        """The sum with what arrived before: a new array, or a Part if the pass records itself."""

    @abstractmethod
    def add_to(self, total: Any) -> None:
        """Add it to an array in place."""

    @abstractmethod
    def whole(self) -> Any:
        """The whole gradient as a new array, or as a Tensor if the pass records itself."""

    @abstractmethod
    def seed(self, op: Any) -> Any:
        """The gradient for the rules of an op: whole, unless the op gives a view and can pass a part on."""


def now() -> int:
    """A number above those of all nodes so far, and below those to come."""
    return next(_numbers)


def ancestors(roots: Iterable[Vertex], since: int = -1) -> list[Node]:
    """All nodes that the roots were made from, newest first. Iterative, so that a chain may have a million ops.

    Of a part of the graph, if ``since`` says after which moment (of :func:`now`) it was made.
    """
    found = {root for root in roots if isinstance(root, Node) and root.number > since}
    stack = list(found)
    while stack:
        for parent in stack.pop().parents:
            if type(parent) is Node and parent.number > since and parent not in found:
                found.add(parent)
                stack.append(parent)
    return sorted(found, key=attrgetter("number"), reverse=True)


def sources(roots: Sequence[Vertex], since: int) -> set[Vertex]:
    """What the roots were computed from since a moment: leaves, and nodes that were there before."""
    inside = set(ancestors(roots, since))
    return {v for v in (*roots, *(parent for node in inside for parent in node.parents)) if v not in inside}


def pullback(
    roots: Sequence[Vertex],
    seeds: Sequence[Any],
    wanted: set[Vertex] | None = None,
    retain: bool = False,
    since: int = -1,
    onward: Callable[[Vertex, Any], object] | None = None,
) -> dict[Vertex, Any]:
    """Pull the seeds back through the graph; return the gradient of each leaf, or of each wanted vertex.

    The seed decides the order of differentiation: seeded with arrays the pass is plain NumPy; seeded with tensors it
    records itself. With ``since`` it goes back to that moment only: what is older counts as a leaf, and each
    gradient of a wanted one goes to ``onward`` at once.
    """
    order = ancestors(roots, since)
    visit = None if wanted is None else _leading_to(wanted, order)
    reach = None if wanted is None or visit is None else visit | wanted
    gradients: dict[Vertex, Any] = {}
    owned: set[Vertex] = set()  # those whose array was made by the sum below, so that it may be added to in place
    wide: set[Vertex] = set()  # those of float16 with several gradients, which are added in float32

    def arrive(vertex: Vertex, gradient: Any) -> None:
        scalar = type(gradient) is not _ndarray and isinstance(gradient, np.generic)
        if scalar or gradient.shape != vertex.shape or gradient.dtype != vertex.dtype:
            gradient = _fit(gradient, vertex)
        before = gradients.get(vertex)
        if before is None:
            gradients[vertex] = gradient
        elif vertex not in owned:
            if isinstance(gradient, Part):
                total = gradient.after(before)
            else:
                total = as_array(single(_whole(before)) + gradient)
            gradients[vertex] = total
            if total.dtype != vertex.dtype:
                wide.add(vertex)
            if isinstance(total, np.ndarray):
                owned.add(vertex)
        elif isinstance(gradient, Part):
            gradient.add_to(before)
        else:
            before += gradient

    def sort(vertex: Vertex, gradient: Any) -> None:
        (onward if onward and wanted and vertex in wanted else arrive)(vertex, gradient)

    deliver = sort if onward else arrive
    for root, seed in zip(roots, seeds, strict=True):
        deliver(root, seed)
    try:
        for node in order:
            keep = wanted and node in wanted
            seed = gradients.get(node) if keep else gradients.pop(node, None)
            if type(seed) is not _ndarray and isinstance(seed, Part):
                seed = seed.whole() if keep or node._hooks or node in wide else seed.seed(node.plan.op)
            if node in wide:
                seed = seed.astype(node.dtype)
            if seed is not None and node._hooks:
                seed = _hooked(node, seed)
            if keep and seed is not None:
                gradients[node] = seed
            if seed is None or (visit is not None and node not in visit):
                continue
            if node.saved is None:
                raise GradientError(
                    f"{node.plan.op.name}: this part of the graph was freed by an earlier backward pass, or by "
                    "one that failed; pass retain_graph=True to that first pass if you need a second one"
                )
            node.plan.pull(node, seed, reach, deliver)
            if not retain:
                node.release()
    except BaseException:  # an error, or Ctrl-C: what would have been freed is, and no half of a graph stays
        if not retain:
            for node in order:
                if visit is None or node in visit:
                    node.release()
        raise
    if since < 0:  # else more may arrive at the leaves
        for vertex, gradient in gradients.items():
            if type(gradient) is not _ndarray and isinstance(gradient, Part):
                gradients[vertex] = gradient = gradient.whole()
            if vertex in wide:
                gradients[vertex] = gradient = gradient.astype(vertex.dtype)
            if vertex._hooks and type(vertex) is not Node:
                gradients[vertex] = _hooked(vertex, gradient)
    return gradients


def _whole(gradient: Any) -> Any:
    return gradient.whole() if isinstance(gradient, Part) else gradient


def _hooked(vertex: Vertex, gradient: Any) -> Any:
    """The gradient, after the vertex's hooks have seen all of it."""
    for hook in tuple(vertex._hooks or ()):
        gradient = hook.run(gradient)
    return gradient


def _leading_to(wanted: set[Vertex], order: list[Node]) -> set[Vertex]:
    """The nodes that must be visited to reach the wanted ones (a freed node counts, so that it can complain)."""
    needed: set[Vertex] = set()
    for node in reversed(order):
        if node.saved is None or any(parent in wanted or parent in needed for parent in node.parents):
            needed.add(node)
    return needed


def _fit(gradient: Any, vertex: Vertex) -> Any:
    """Undo broadcasting, once for every op: a gradient has the shape and the dtype of its tensor."""
    shape = vertex.shape
    if gradient.shape != shape:
        extra = len(gradient.shape) - len(shape)
        if any(n not in (1, m) for n, m in zip(shape[::-1], gradient.shape[::-1], strict=False)):
            raise ValueError("not what broadcasting makes of that shape")  # whose rule it is, the plan says
        stretched = [i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1]
        axes = (*range(extra), *stretched)
        total = added(gradient, axes) if isinstance(gradient, np.ndarray) else gradient.sum(axis=axes)
        gradient = total.reshape(shape)
    if gradient.dtype != vertex.dtype:
        gradient = gradient.astype(vertex.dtype)
    return as_array(gradient)
