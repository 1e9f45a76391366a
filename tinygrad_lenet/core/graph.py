"""Reverse mode: the recorded graph, and the pass that walks it backwards.

If an argument of an op requires a gradient, the op adds a :class:`Node` to the graph. The node points to its parents:
the nodes that computed the arguments, or the arguments themselves if they are leaves (tensors that the user made). It
saves the values that its vector-Jacobian products need.

A vector-Jacobian product maps the gradient of an output to the gradient of an argument: it *pulls* the gradient *back*.
:func:`pullback` does so for a whole graph. It visits the nodes from the newest to the oldest. Everything that used the
output of a node is newer, so when the pass reaches the node, the gradient of its output is complete. The node computes
one gradient for each parent and adds it to the parent's sum. At the end the gradients of the leaves remain (Griewank &
Walther, *Evaluating Derivatives*, 2nd ed., section 3.2).

``accumulation.py`` holds the sums. ``Gradients.add`` adds to one, and undoes broadcasting; ``take`` removes the sum of
a node; ``finish`` returns the remaining ones. Hooks (functions of the user) see a gradient once it is complete.

A node does not point to the tensor that it produced. A graph therefore has no reference cycles, and is freed with the
last tensor that was computed from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import GradientError
from .accumulation import Gradients
from .modes import no_grad, tracer

if TYPE_CHECKING:
    from .tensor import Tensor

Vertex: TypeAlias = "Node | Tensor"  # what a gradient can flow to: a node, or a leaf

_clock = itertools.count()
now = _clock.__next__  # a number larger than that of every node so far: it separates older nodes from newer ones


class Backward(Protocol):
    """The vector-Jacobian products of a node. Nodes of one op share theirs, a ``Plan`` (``primitive.py``)."""

    @property
    def op(self) -> Any:
        """The op; messages use its ``name``."""

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Call ``add(parent, gradient)`` for each needed parent; ``seed`` is the gradient of the output."""


class Node:
    """One recorded application of an op."""

    __slots__ = ("_hooks", "dtype", "number", "parents", "plan", "saved", "shape")

    def __init__(
        self, plan: Backward, parents: Sequence[Vertex], shape: tuple[int, ...], dtype: Any, saved: list[Any] | None
    ) -> None:
        self.plan = plan
        self.parents = parents
        self.shape = shape  # of the output, and of its gradient
        self.dtype = dtype
        self.number = next(_clock)  # larger than that of every parent: the numbers sort a graph topologically
        self.saved = saved  # None once the graph has been freed
        self._hooks: list[Any] | None = None  # see hooks.py

    def release(self) -> None:
        """Free the saved values; another backward pass through this node is then an error."""
        self.saved = None
        self.parents = ()


def ancestors(roots: Iterable[Vertex], since: int = -1) -> list[Node]:
    """All nodes that the roots were computed from, newest first. With ``since``, only nodes recorded after that time.

    A loop and not a recursion, because a graph may be deeper than Python's stack.
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
    """The inputs of the part of a graph recorded after ``since``: the leaves and older nodes that it points to.

    A checkpoint replaces such a part by one node, and these are the parents of that node.
    """
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
    """The backward pass: the gradient of every leaf, or of every wanted vertex.

    The seeds are the gradients of the roots. If they are arrays, the pass is plain NumPy. If they are Tensors, it
    records itself, and its result can be differentiated again. Unless ``retain`` is set, each node is freed once it has
    been visited. A checkpoint recomputes a part of a graph in the middle of a backward pass: ``since`` limits the pass
    to that part, and ``onward`` adds the gradients of its wanted vertices to the sums of the outer pass.
    """
    order = ancestors(roots, since)
    path: set[Vertex] | None = None  # the nodes to visit; None for all
    needed: set[Vertex] | None = None  # the parents that need a gradient; None for all
    if wanted is not None:
        path = _path_to(wanted, order)
        needed = path | wanted
    gradients = Gradients()

    def add_or_pass_on(vertex: Vertex, gradient: Any) -> None:
        if onward and wanted and vertex in wanted:
            onward(vertex, gradient)
        else:
            gradients.add(vertex, gradient)

    add = add_or_pass_on if onward else gradients.add
    for root, seed in zip(roots, seeds, strict=True):
        add(root, seed)
    try:
        for node in order:
            gradient = gradients.take(node, wanted is not None and node in wanted)
            if gradient is None or (path is not None and node not in path):
                continue
            if node.saved is None:
                raise GradientError(
                    f"{node.plan.op.name}: this part of the graph was freed by an earlier backward pass, or by one "
                    "that failed; pass retain_graph=True to that first pass if you need a second one"
                )
            node.plan.pull(node, gradient, needed, add)
            if not retain:
                node.saved, node.parents = None, ()
    except BaseException:  # also for Ctrl-C: do not leave half of a graph behind
        if not retain:
            for node in order:
                if path is None or node in path:
                    node.release()
        raise
    return gradients.finish() if since < 0 else gradients.of  # the outer pass finishes them


def pulled(
    roots: Sequence[Vertex], seeds: Sequence[Tensor], wanted: set[Vertex] | None = None, retain: bool = False
) -> dict[Vertex, Any]:
    """:func:`pullback` of arrays: plain NumPy, unless a trace listens, which hears the rules if they get Tensors."""
    if tracer() is None:
        return pullback(roots, [*map(attrgetter("_data"), seeds)], wanted, retain)
    with no_grad():
        return {vertex: g._data for vertex, g in pullback(roots, seeds, wanted, retain).items()}


def _path_to(wanted: set[Vertex], order: list[Node]) -> set[Vertex]:
    """The nodes between the roots and the wanted vertices. A freed node counts, so that the pass reports it."""
    path: set[Vertex] = set()
    for node in reversed(order):
        if node.saved is None or any(parent in wanted or parent in path for parent in node.parents):
            path.add(node)
    return path
