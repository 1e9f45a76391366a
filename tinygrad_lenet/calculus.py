"""Derivatives as functions: gradients, Jacobians, Hessians, and their products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, overload

import numpy as np

from .checks import Function, integer
from .core.graph import now, pullback, pulled, sources
from .core.modes import enable_grad, is_grad_enabled
from .core.python_object import root_of, seed_of
from .core.signature import checked
from .core.tensor import Tensor, tensor_of
from .errors import ArgumentError, DTypeError, GradientError, ShapeError, brief, foreign
from .kernels.memory import storage
from .ops.elementwise import clone
from .ops.shape import stack

__all__ = ["grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]


@overload
def grad(outputs: Function, inputs: int | tuple[int, ...] = 0) -> Function: ...


@overload
def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]: ...


@checked
def grad(
    outputs: Any,
    inputs: Any = 0,
    grad_outputs: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> Any:
    """Gradients, of tensors or of a function.

    ``grad(outputs, inputs)`` returns the gradients of the sum of ``outputs`` with respect to ``inputs``, as a tuple. It
    changes no ``.grad`` (PyTorch's ``torch.autograd.grad``).

    ``grad(fn)`` returns a function that computes the gradient of ``fn`` with respect to argument 0. ``fn`` must return
    one number. ``grad(fn, 1)`` and ``grad(fn, (0, 2))`` choose other arguments (``torch.func.grad``). Calls may be
    nested.

    Args:
        outputs: one tensor or several; or a function.
        inputs: one tensor or several, leaves or not; or the positions of arguments.
        grad_outputs: a gradient for each output, of its shape. Optional for outputs of one element.
        create_graph: record the computation, so that the result can be differentiated again.
        retain_graph: keep the graph for another pass; by default as ``create_graph``.
        allow_unused: return None for an input that the outputs do not depend on, instead of raising an error.

    Raises:
        ArgumentError: the number of ``grad_outputs`` differs from that of the outputs, or an input is not a tensor.
        GradientError: an input does not require a gradient, or the outputs do not depend on it.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor(2.0, requires_grad=True)
    >>> (slope,) = tl.grad(x**3, x, create_graph=True)
    >>> slope, tl.grad(slope, x)
    (tensor(12., op=mul), (tensor(12.),))
    >>> tl.grad(tl.grad(lambda x: x**3))(2.0)
    tensor(12.)
    """
    if callable(outputs):
        return _derivative("grad", outputs, inputs, _Call.gradient)
    ys, xs = _tensors("outputs", outputs), _tensors("inputs", inputs)
    gs: list[Any] = list(grad_outputs) if isinstance(grad_outputs, (list, tuple)) else [grad_outputs]
    if grad_outputs is None:
        gs *= len(ys)
    if len(gs) != len(ys):
        raise ArgumentError(f"{len(ys)} outputs need as many grad_outputs, got {len(gs)}")
    for i, x in enumerate(xs):
        if not x._requires_grad:
            raise GradientError(f"input {i} does not require a gradient; make it with requires_grad=True")
    roots = [root_of(y) for y in ys]
    seeds = [seed_of(y, g) for y, g in zip(ys, gs, strict=True)]
    taken = {id(storage(seed._data)) for seed in seeds}
    wanted = [x._node or x for x in xs]
    since = now()
    retain = create_graph if retain_graph is None else retain_graph
    with foreign, enable_grad() if create_graph else nullcontext():
        found = (pullback if create_graph else pulled)(roots, seeds, set(wanted), retain)
    results: list[Tensor | None] = []
    for i, vertex in enumerate(wanted):
        gradient = found.get(vertex)
        if gradient is None and not allow_unused:
            raise GradientError(f"the outputs do not depend on input {i}; pass allow_unused=True to get None for it")
        if isinstance(gradient, np.ndarray):
            gradient = clone(Tensor._wrap(gradient))
        elif gradient is not None:
            # A rule may give one array to two parents, or return its seed. A rule or a hook may return a tensor from
            # elsewhere, or a view of one. The gradients returned here share no memory.
            made = gradient._node is not None and gradient._node.number >= since and not gradient._node.plan.op.view
            if not made or id(storage(gradient._data)) in taken or not gradient._data.flags.writeable:
                with enable_grad():
                    gradient = clone(gradient)
            taken.add(id(storage(gradient._data)))
        results.append(gradient)
    return tuple(results)


def gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Any], record: bool = False, retain: bool = True
) -> list[Tensor]:
    """The gradient of each input as :func:`grad` computes it, or zeros if no output depends on the input.

    Outputs whose seed is None are ignored.
    """
    pairs = [(y, seed) for y, seed in zip(outputs, seeds, strict=True) if y._requires_grad and seed is not None]
    found: Any = [None] * len(inputs)
    if pairs:
        found = grad([y for y, _ in pairs], inputs, [seed for _, seed in pairs], record, retain or record, True)
    return [Tensor._wrap(np.zeros(x.shape, x.dtype)) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _tensors(name: str, values: Any) -> list[Tensor]:
    """One tensor or several, as a list."""
    several = isinstance(values, Iterable) and not isinstance(values, (Tensor, np.ndarray))
    found = [*values] if several else [values]
    for i, x in enumerate(found):
        if not isinstance(x, Tensor):
            raise ArgumentError(f"{name} must be tensors, {name[:-1]} {i} is a {type(x).__name__}")
    return found


class _Call:
    """One recorded call of a function, made to differentiate it with respect to some of its arguments."""

    def __init__(self, fn: Function, args: Sequence[Any], argnums: Any, kwargs: dict[str, Any] | None = None) -> None:
        self.single = not isinstance(argnums, (tuple, list))
        numbers = tuple(integer("argnums", n) for n in ((argnums,) if self.single else argnums))
        if not numbers or len({*numbers}) < len(numbers) or any(not -len(args) <= n < len(args) for n in numbers):
            raise ArgumentError(f"argnums must be distinct positions of {len(args)} arguments, got {brief(argnums)}")
        outer = is_grad_enabled()
        replaced = list(args)
        with enable_grad():
            for n in numbers:
                replaced[n] = _input(f"argument {n}", args[n], outer)
            self.inputs: list[Tensor] = [replaced[n] for n in numbers]
            since = now()
            with foreign:
                found = fn(*replaced, **(kwargs or {}))
        self.several = isinstance(found, (tuple, list))
        self.outputs: list[Tensor] = list(found) if self.several else [found]
        for y in self.outputs:
            if not isinstance(y, Tensor) or y.dtype.kind != "f":
                got = y.dtype if isinstance(y, Tensor) else f"a {type(y).__name__}"
                raise DTypeError(f"the function must return tensors of floats, it returned {got}")
        # Derivatives are recorded if the caller may want to differentiate them with respect to something of their own.
        roots = [root_of(y) for y in self.outputs if y._requires_grad]
        own = {x._node or x for x in self.inputs}
        self.record = outer and (any(x._node for x in self.inputs) or not sources(roots, since) <= own)

    def number(self) -> Tensor:
        """The output, which must be one number."""
        if self.several or self.outputs[0].size != 1:
            got = f"{len(self.outputs)} tensors" if self.several else f"a tensor of shape {self.outputs[0].shape}"
            raise ShapeError(f"the function must return one number, it returned {got}; see jacobian, vjp")
        return self.outputs[0]

    def results(self) -> Any:
        """The outputs of the function, detached unless derivatives are recorded."""
        return self.by_output([y if self.record else y.detach() for y in self.outputs])

    def by_output(self, values: Sequence[Any]) -> Any:
        """One value for each output: a tuple if the function returned several."""
        return tuple(values) if self.several else values[0]

    def by_argument(self, values: Sequence[Any]) -> Any:
        """One value for each argument: a tuple unless the caller asked for a single one."""
        return values[0] if self.single else tuple(values)

    def gradient(self) -> Any:
        """The gradient of a function that returns one number."""
        seed = np.ones(self.number().shape)
        return self.by_argument(gradients(self.outputs, self.inputs, [seed], self.record, retain=False))

    def recorded(self, factors: Sequence[Tensor]) -> bool:
        """Return True to record a product of the derivatives with these tensors."""
        return self.record or (is_grad_enabled() and any(t._requires_grad for t in factors))

    def pushed(self, seeds: Sequence[Any], tensors: Sequence[Tensor], directions: Sequence[Tensor]) -> list[Tensor]:
        """Pull the seeds back, multiply the result by the directions, and differentiate the sum for the tensors."""
        with enable_grad():
            pulled = gradients(self.outputs, self.inputs, seeds, record=True)
        return gradients(pulled, tensors, directions, self.recorded(directions))

    def jacobians(self) -> Any:
        """The Jacobian of each output for each argument."""
        return self.by_output([self.by_argument(self._rows(y)) for y in self.outputs])

    def _rows(self, y: Tensor) -> list[Tensor]:
        """The Jacobian of one output for each input, row by row."""
        if not y.size:
            return [Tensor._wrap(np.zeros(0, x.dtype)).reshape(*y.shape, *x.shape) for x in self.inputs]
        rows = [gradients([y], self.inputs, [e.reshape(y.shape)], self.record) for e in np.eye(y.size, dtype=y.dtype)]
        columns = zip(self.inputs, zip(*rows, strict=True), strict=True)
        return [stack(parts).reshape(*y.shape, *x.shape) for x, parts in columns]


def _input(what: str, value: Any, outer: bool) -> Tensor:
    """An argument as a tensor that requires a gradient; connected to the caller's graph if there is one."""
    x = tensor_of(f"in {what}", value)
    if x.dtype.kind != "f":
        raise DTypeError(f"{what} is {x.dtype}; convert it to floats: x.astype('float32')")
    if outer and x.requires_grad:
        return clone(x)
    x = x.detach()
    x.requires_grad = True
    return x


def _like(what: str, values: Any, models: Sequence[Tensor]) -> list[Tensor]:
    """One value, or a tuple of them, as tensors with the shapes of the models."""
    several = values if isinstance(values, tuple) else (values,)
    dtypes = [*(m.dtype for m in models), *[None] * len(several)]  # float32 would round numbers and lists
    found = [tensor_of(f"in {what}", v, dtype) for v, dtype in zip(several, dtypes, strict=False)]
    wanted, got = (", ".join(str(t.shape) for t in tensors) for tensors in (models, found))
    if got != wanted:
        raise ShapeError(f"{what} must have the shapes {wanted}, got {got}; several are passed as a tuple")
    return found


def _derivative(name: str, fn: Function, argnums: Any, result: Callable[[_Call], Any]) -> Function:
    """The function that calls ``fn`` and returns a result of that call; its errors begin with ``name``."""

    def derivative(*args: Any, **kwargs: Any) -> Any:
        return result(_Call(fn, args, argnums, kwargs))

    derivative.__name__ = name
    return checked(derivative)


@checked
def value_and_grad(fn: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """Return a function that computes the value of ``fn`` and its gradient in one pass.

    Args:
        fn: a function that returns one number.
        argnums: the position of the argument to differentiate for; or a tuple of positions, for a tuple of gradients.

    >>> import tinygrad_lenet as tl
    >>> tl.value_and_grad(lambda x, y: (x * y).sum(), argnums=1)([1.0, 2.0], [3.0, 4.0])
    (tensor(11.), tensor([1., 2.]))
    """
    return _derivative("value_and_grad", fn, argnums, lambda call: (call.results(), call.gradient()))


@checked
def vjp(fn: Function, *primals: Any) -> tuple[Any, Function]:
    """Return ``fn(*primals)``, and a function that multiplies a vector by the Jacobian from the left.

    That function takes a gradient for each output, and returns one for each primal (a single one for a single primal).
    It may be called several times (``torch.func.vjp``).

    Raises:
        ShapeError: the shapes of the gradients differ from those of the outputs.

    >>> import tinygrad_lenet as tl
    >>> value, pull = tl.vjp(lambda x: x * x, tl.tensor([1.0, 2.0]))
    >>> value, pull([1.0, 10.0])
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    call = _Call(fn, primals, 0 if len(primals) == 1 else tuple(range(len(primals))))

    def pull(*cotangents: Any) -> Any:
        seeds = _like("cotangents", cotangents, call.outputs)
        return call.by_argument(gradients(call.outputs, call.inputs, seeds, call.recorded(seeds)))

    pull.__name__ = "vjp"
    return call.results(), checked(pull)


@checked
def jvp(fn: Function, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """Return ``fn(*primals)``, and its derivative in the direction of the tangents: the Jacobian times a vector.

    Computed by two reverse passes: the first is linear in its seed, and the second differentiates it with respect to
    that seed (Townsend, *A new trick for calculating Jacobian vector products*, 2017). So ops need no forward-mode
    rules.

    Args:
        fn: a function of tensors that returns one tensor or several.
        primals: the point at which to differentiate: a tensor, or a tuple of them.
        tangents: the direction, of the same shapes.

    Raises:
        ShapeError: the shapes of the tangents differ from those of the primals.

    >>> import tinygrad_lenet as tl
    >>> tl.jvp(lambda x: x * x, tl.tensor([1.0, 2.0]), tl.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    call, directions = _call_along(fn, primals, tangents)
    seeds = [Tensor(np.ones(y.shape, y.dtype), requires_grad=True) for y in call.outputs]
    return call.results(), call.by_output(call.pushed(seeds, seeds, directions))


def _call_along(fn: Function, primals: Any, tangents: Any) -> tuple[_Call, list[Tensor]]:
    """The call of a function at the primals, and the tangents as tensors."""
    several = isinstance(primals, tuple)
    call = _Call(fn, primals if several else (primals,), tuple(range(len(primals))) if several else 0)
    return call, _like("tangents", tangents, call.inputs)


@checked
def jacobian(fn: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """Return a function that computes the Jacobian of ``fn``: every derivative of every output element, row by row.

    Args:
        fn: a function that returns a tensor; or a tuple of tensors, for a tuple of Jacobians.
        argnums: the position of the argument to differentiate for; or a tuple of positions, for a tuple of Jacobians.

    Returns:
        A function whose result has the output's shape followed by the argument's.

    >>> import tinygrad_lenet as tl
    >>> tl.jacobian(lambda x: x[:2] * x[1:])(tl.tensor([1.0, 2.0, 3.0]))
    tensor([[2., 1., 0.],
            [0., 3., 2.]])
    """
    return _derivative("jacobian", fn, argnums, _Call.jacobians)


@checked
def hessian(fn: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """Return a function that computes the Hessian of ``fn``, all second derivatives: the Jacobian of its gradient.

    Args:
        fn: a function that returns one number.
        argnums: the position of the argument to differentiate for; or a tuple of positions, for a tuple of tuples.

    Returns:
        A function whose result has the argument's shape twice.

    >>> import tinygrad_lenet as tl
    >>> tl.hessian(lambda x: x[0] * x[0] * x[1])(tl.tensor([1.0, 3.0]))
    tensor([[6., 2.],
            [2., 0.]])
    """
    gradient = _derivative("grad", fn, argnums, _Call.gradient)
    return _derivative("hessian", gradient, argnums, _Call.jacobians)


@checked
def hvp(fn: Function, primals: Any, tangents: Any) -> Any:
    """Return the Hessian of ``fn`` times a vector, without the Hessian: the gradient of ``gradient @ tangents``
    (Pearlmutter, *Fast exact multiplication by the Hessian*, 1994).

    Args:
        fn: a function of tensors that returns one number.
        primals: the point at which to differentiate: a tensor, or a tuple of them.
        tangents: the vector, of the same shapes.

    Raises:
        ShapeError: the shapes of the tangents differ from those of the primals.

    >>> import tinygrad_lenet as tl
    >>> tl.hvp(lambda x: x[0] * x[0] * x[1], tl.tensor([1.0, 3.0]), tl.tensor([0.0, 1.0]))
    tensor([2., 0.])
    """
    call, directions = _call_along(fn, primals, tangents)
    return call.by_argument(call.pushed([np.ones(call.number().shape)], call.inputs, directions))
