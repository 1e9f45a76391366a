"""Sums of gradients: those that reach a node or a leaf are added, in the shape and dtype of its tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.memory import storage
from ..kernels.sums import added, as_array, single
from ..kernels.threads import exclusively
from .hooks import hooked
from .modes import tracer
from .python_object import PythonObject

if TYPE_CHECKING:
    from .graph import Node, Vertex

_ndarray = np.ndarray


class Part:
    """A gradient that is zero except at some elements. Rules of ops that pick elements may return one.

    Parts are added in place to one array, or joined by one op if the pass records itself. If each part were an array
    with zeros, a loop over the slices of a tensor would take time quadratic in their number. Subclasses define the
    methods.
    """

    __slots__ = ("dtype", "shape")
    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of the whole gradient

    def after(self, earlier: Any) -> Any:
        """The sum of this and an earlier gradient: a new array, or a Part if the pass records itself."""

    def add_to(self, total: Any) -> None:
        """Add it to an array in place."""

    def whole(self) -> Any:
        """The whole gradient as a new array, or as a Tensor if the pass records itself."""

    def seed(self, op: Any) -> Any:
        """The gradient for the rules of an op: whole, or still a part if the op is a view that can pass it on."""


class Gradients:
    """The gradients of one backward pass, each the sum of what has arrived so far."""

    __slots__ = ("_owned", "_wide", "of")

    def __init__(self) -> None:
        self.of: dict[Vertex, Any] = {}
        self._owned: set[Vertex] = set()  # vertices whose sum is an array made here: it can be added to in place
        self._wide: set[Vertex] = set()  # vertices of float16 with several gradients: these are added in float32

    def add(self, vertex: Vertex, gradient: Any) -> None:
        """Add a gradient that a rule returned, or a seed."""
        if type(gradient) is not _ndarray or gradient.shape != vertex.shape or gradient.dtype != vertex.dtype:
            gradient = unbroadcast(gradient, vertex.shape, vertex.dtype)
        before = self.of.get(vertex)
        if before is None:
            self.of[vertex] = gradient
        elif vertex not in self._owned:
            if isinstance(gradient, Part):
                total = gradient.after(before)
            else:
                total = as_array(single(before.whole() if isinstance(before, Part) else before) + gradient)
            self.of[vertex] = total
            if total.dtype != vertex.dtype:
                self._wide.add(vertex)
            if isinstance(total, np.ndarray):
                self._owned.add(vertex)
        elif isinstance(gradient, Part):
            gradient.add_to(before)
        else:
            before += gradient

    def take(self, node: Node, keep: bool) -> Any:
        """Remove and return the complete gradient of a node, after its hooks; None if there is none."""
        gradient = self.of.pop(node, None)
        if gradient is None:
            return None
        if type(gradient) is not _ndarray and isinstance(gradient, Part):
            whole = keep or node._hooks or node in self._wide
            gradient = gradient.whole() if whole else gradient.seed(node.plan.op)
        if self._wide and node in self._wide:
            gradient = gradient.astype(node.dtype)
        if node._hooks:
            gradient = hooked(node, gradient)
        if keep:
            self.of[node] = gradient
        return gradient

    def finish(self) -> dict[Vertex, Any]:
        """The gradients of the leaves, after their hooks, and those of nodes that ``take`` was told to keep."""
        for vertex, gradient in self.of.items():
            if type(gradient) is not _ndarray and isinstance(gradient, Part):
                gradient = gradient.whole()
            if vertex in self._wide:
                gradient = gradient.astype(vertex.dtype)
            if vertex._hooks and isinstance(vertex, PythonObject):  # the hooks of nodes have been called
                gradient = hooked(vertex, gradient)
            self.of[vertex] = gradient
        return self.of


def unbroadcast(gradient: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Undo broadcasting: sum over the repeated axes, so that the gradient has its tensor's shape and dtype.

    Every gradient passes through here, so the rules of the ops can ignore broadcasting.
    """
    if gradient.shape != shape:
        extra = len(gradient.shape) - len(shape)
        axes = [*range(extra)]
        if gradient.shape[extra:] != shape:
            if any(n not in (1, m) for n, m in zip(shape[::-1], gradient.shape[::-1], strict=False)):
                raise ValueError("broadcasting does not make this shape")  # the plan adds the name of the rule
            axes += [i + extra for i, n in enumerate(shape) if n == 1 and gradient.shape[i + extra] != 1]
        total = added(gradient, (*axes,)) if isinstance(gradient, np.ndarray) else gradient.sum(axis=(*axes,))
        gradient = total.reshape(shape)
    if gradient.dtype != dtype:
        gradient = gradient.astype(dtype)
    return as_array(gradient)


def accumulate(gradients: Mapping[Any, Any], seed: Any) -> None:
    """Add gradients to the ``.grad`` of leaves: to all of them or, if Ctrl-C interrupts it, to none."""
    grad = "_grad" if tracer() is None else "grad"  # which a trace hears, as it hears ops

    def act() -> None:
        taken = {id(storage(seed))}
        found: list[tuple[Any, Any, Any]] = []
        for leaf, array in gradients.items():
            old = getattr(leaf, grad)
            new = leaf._wrap(array)
            if old is not None:
                new = old.detach() + new
            elif id(storage(array)) in taken or not array.flags.writeable:
                new = new.clone()  # a rule may have passed one array to several parents
            taken.add(id(storage(new._data)))
            found.append((leaf, old, new))
        try:
            for leaf, _, new in found:
                setattr(leaf, grad, new)
        except BaseException:
            for leaf, old, _ in found:
                setattr(leaf, grad, old)
            raise

    exclusively(act)  # threads may have graphs with leaves in common


def clear(leaves: Iterable[Any], to_none: bool) -> None:
    """Set the ``.grad`` of leaves to None; or to zeros, of those that have one."""
    grad = "_grad" if tracer() is None else "grad"  # which a trace hears
    for leaf in leaves:
        zeros = None if to_none or getattr(leaf, grad) is None else leaf._wrap(np.zeros_like(leaf._data))
        setattr(leaf, grad, zeros)


def accumulate_recorded(gradients: Mapping[Any, Any]) -> None:
    """Add gradients that are Tensors with a graph to the ``.grad`` of leaves."""
    for leaf, gradient in gradients.items():
        leaf.grad = gradient.clone() if leaf.grad is None else leaf.grad + gradient
