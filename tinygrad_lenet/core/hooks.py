"""Hooks: functions of the user that see, and may replace, the gradient of a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from ..errors import DTypeError, GradientError, brief
from .modes import tracer
from .python_object import PythonObject, root_of

if TYPE_CHECKING:
    from .graph import Vertex
    from .tensor import Tensor


class Hook:
    """One registered function; :meth:`Tensor.register_hook` returns it."""

    __slots__ = ("_among", "last", "run")

    def __init__(self, among: list[Hook], run: Callable[[Any], Any]) -> None:
        self._among, self.run = among, run
        self.last = False  # retain_grad sets it: other hooks are called before
        among.append(self)

    def remove(self) -> None:
        """Stop calling the function."""
        if self in self._among:
            self._among.remove(self)


def hooked(vertex: Vertex, gradient: Any) -> Any:
    """The gradient of a node or leaf after its hooks have seen, and perhaps replaced, it."""
    if (trace := tracer()) is not None:
        trace.refuse("a hook receives a gradient")
    for hook in sorted(vertex._hooks or (), key=lambda hook: hook.last):
        gradient = hook.run(gradient)
    return gradient


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> Hook:
    """Call ``hook(gradient)`` whenever a backward pass has computed the gradient of this tensor.

    If the hook returns a Tensor, it replaces the gradient, here and further back. The gradient is complete: the sum
    over all uses of the tensor in that pass. Hooks are called in the order of their registration.

    Returns:
        A handle; its ``remove()`` removes the hook.

    Raises:
        GradientError: the tensor does not require a gradient; or, later, the hook returns something other than None or
            a tensor of the same shape and dtype.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.0, 2.0], requires_grad=True)
    >>> y = x * x
    >>> handle = y.register_hook(lambda gradient: gradient.clip(-1, 1))
    >>> (y * 10).sum().backward()
    >>> x.grad  # 2 x, and not 20 x
    tensor([2., 4.])
    """
    if not self._requires_grad:
        raise GradientError("register_hook: this tensor requires no gradient; make it with requires_grad=True")
    if not callable(hook):
        raise DTypeError(f"register_hook: hook must be a function, got {brief(hook)}")
    shape, dtype, wrap = self.shape, self.dtype, self._wrap  # not the tensor itself: that would be a cycle

    def run(gradient: Any) -> Any:
        recorded = isinstance(gradient, PythonObject)
        # The hook may write to what it sees, so it sees a copy; a Tensor that requires a gradient cannot be written to.
        found = hook(gradient if recorded and gradient._requires_grad else wrap(np.array(gradient)))
        if found is None:
            return gradient
        if not isinstance(found, PythonObject) or found.shape != shape or found.dtype != dtype:
            wanted = f"None or a Tensor of {dtype} and shape {shape}"
            raise GradientError(f"a hook must return {wanted}, this one gave {brief(found)}")
        return found if recorded else found._data.copy()

    vertex = self._node or self
    if vertex._hooks is None:
        vertex._hooks = []
    return Hook(vertex._hooks, run)


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this tensor in its ``.grad``, although it is not a leaf: the sum over all backward passes,
    those of :func:`grad` too, after all hooks. A leaf keeps its gradient anyway.

    Raises:
        GradientError: the tensor does not require a gradient.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.0, 2.0], requires_grad=True)
    >>> y = x * x
    >>> y.retain_grad()
    >>> (y * 10).sum().backward()
    >>> y.grad
    tensor([10., 10.])
    """
    if any(hook.last for hook in root_of(self)._hooks or ()) or self._node is None:
        return
    itself = ref(self)  # the node has no reference to its tensor: that would be a cycle

    def keep(gradient: Tensor) -> None:
        tensor = itself()
        if tensor is not None:
            tensor._grad = gradient if tensor._grad is None else tensor._grad + gradient

    register_hook(self, keep).last = True
