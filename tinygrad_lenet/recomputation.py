"""Memory for time: functions whose intermediate values are not kept for the backward pass, but computed again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arguments import function, instance, listed
from .errors import GradientError
from .graph import Node, Vertex, enable_grad, is_grad_enabled, now, pullback, sources
from .primitive import changed, kept
from .tensor import Tensor, root_of

__all__ = ["checkpoint"]


class _Recomputation:
    """Stands in the graph for a function, which is called again in the backward pass."""

    name = "checkpoint"

    def __init__(self, fn: Callable[..., Any], arity: int, generators: Sequence[np.random.Generator]) -> None:
        self.fn, self.arity, self.generators = fn, arity, generators
        self.states = [generator.bit_generator.state for generator in generators]
        self.sample: NDArray[Any] | None = None

    @property
    def op(self) -> _Recomputation:
        """Itself: it has a name, by which messages call it."""
        return self

    def call(self, args: Sequence[Any]) -> tuple[Any, list[Tensor], int]:
        """What the function returns; of that, what can be differentiated; and when it was called."""
        since = now()
        found = self.fn(*args)
        several = found if isinstance(found, (tuple, list)) else [found]
        outputs = [y for y in several if isinstance(y, Tensor) and y._requires_grad]
        # A few values, by which a function that computes something else the second time gives itself away.
        sample = np.concatenate([[0.0], *[y._data.flat[:: max(1, y.size // 64)] for y in outputs]])
        if self.sample is None:
            self.sample = sample
        elif sample.shape != self.sample.shape or not np.allclose(sample, self.sample, 1e-3, 1e-6, equal_nan=True):
            raise GradientError(
                "checkpoint: the function gave other values when it was called again for the backward pass; name its "
                "random generators in generators=, and do not change what it uses in between"
            )
        return found, outputs, since

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, arrive: Callable[[Vertex, Any], object]) -> None:
        """Compute again, this time recorded, and pass the gradient through that record."""
        for value, version in node.saved or ():
            if isinstance(value, Tensor) and value._version[0] != version:
                raise changed("checkpoint: a tensor that the function uses", value)
        args = [value for value, _ in (node.saved or ())[: self.arity]]
        later = [generator.bit_generator.state for generator in self.generators]
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.bit_generator.state = state
        try:
            with enable_grad():
                _, outputs, since = self.call(args)
        finally:
            for generator, state in zip(self.generators, later, strict=True):
                generator.bit_generator.state = state
        ends = accumulate(y.size for y in outputs)
        seeds = [seed]
        if len(outputs) > 1 or seed.shape != outputs[0].shape:
            seeds = [seed[end - y.size : end].reshape(y.shape) for y, end in zip(outputs, ends, strict=True)]
        wanted = {parent for parent in node.parents if needed is None or parent in needed}
        roots = [root_of(y) for y in outputs]
        for vertex, gradient in pullback(roots, seeds, wanted, isinstance(seed, Tensor), since).items():
            if vertex in wanted:
                arrive(vertex, gradient)


def checkpoint(fn: Callable[..., Any], *args: Any, generators: Sequence[np.random.Generator] = ()) -> Any:
    """``fn(*args)``, without keeping what its gradient needs: it is called again in the backward pass, for memory.

    The memory of a chain of n checkpoints grows with the largest of them, not with their sum, for one more forward pass
    (Chen et al., *Training deep nets with sublinear memory cost*, 2016; PyTorch's ``torch.utils.checkpoint``).
    Gradients of any order also flow to what ``fn`` uses besides its arguments, such as the parameters of a module.

    Args:
        fn: a function or module that returns a tensor or several; it must do the same when it is called again.
        args: its arguments; tensors must not be changed in place before the backward pass.
        generators: random generators that ``fn`` draws from, set back for the second call. Those that are attributes
            of a module (``Dropout``) are found.

    Raises:
        GradientError: in the backward pass, if the second call gave other values.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.0, 2.0], requires_grad=True)
    >>> y = tl.checkpoint(lambda x: x.exp().sin(), x)
    >>> y.sum().backward()
    >>> x.grad  # e^x cos(e^x)
    tensor([-2.4783502,  3.3129318])
    """
    function("checkpoint", "fn", fn)
    for generator in listed("checkpoint", "generators", generators, "random generators"):
        instance("checkpoint", "generators", generator, np.random.Generator)
    if not is_grad_enabled():
        return fn(*args)
    modules = fn.modules() if hasattr(fn, "modules") else ()
    found = [g for module in modules for g in vars(module).values() if isinstance(g, np.random.Generator)]
    plan = _Recomputation(fn, len(args), list({id(g): g for g in (*generators, *found)}.values()))
    saved = [kept(a, a) for a in args]
    args = tuple(a for a, _ in saved)
    result, outputs, since = plan.call(args)  # recorded, to learn what it depends on; the record is not kept
    if not outputs:
        return result
    roots = [root_of(y) for y in outputs]
    parents = list(sources(roots, since))
    # Besides the arguments, the parameters that the function uses: they must be the same the second time.
    saved += [(parent, parent._version[0]) for parent in parents if isinstance(parent, Tensor)]
    if isinstance(result, Tensor):
        node = Node(plan, parents, result.shape, result.dtype, saved)
        return Tensor._wrap(result._data, node, result._version)
    # A node has one output: several are joined, and cut apart again.
    flat = np.concatenate([y._data.reshape(-1) for y in outputs])
    joined = Tensor._wrap(flat, Node(plan, parents, flat.shape, flat.dtype, saved))
    ends = accumulate(y.size for y in outputs)
    parts = [joined[end - y.size : end].reshape(y.shape).astype(y.dtype) for y, end in zip(outputs, ends, strict=True)]
    twins = {id(y): part for y, part in zip(outputs, parts, strict=True)}
    return tuple(twins.get(id(y), y) for y in result)
