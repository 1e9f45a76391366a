"""Derivatives as functions: gradients, Jacobians, Hessians, and products with these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

import numpy as np

from .checks import function, integer
from .core.graph import now, pullback, sources
from .core.modes import enable_grad, is_grad_enabled
from .core.python_object import root_of, seed_of
from .core.signature import checked
from .core.tensor import Tensor, as_tensor
from .errors import (
    ArgumentError,
    DTypeError,
    GradientError,
    ShapeError,
    TinygradLenetError,
    brief,
    foreign,
    given,
    translated,
)
from .kernels.memory import storage
from .ops.elementwise import clone
from .ops.shape import stack

__all__ = ["grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]

Function = Callable[..., Any]


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

    ``grad(outputs, inputs)``: the gradients of the sum of ``outputs`` with respect to ``inputs``, as a tuple; no
    ``.grad`` is touched (PyTorch's ``torch.autograd.grad``).

    ``grad(fn)``: the function that gives the gradient of ``fn``, which returns one number, with respect to its argument
    number 0; ``grad(fn, 1)``, ``grad(fn, (0, 2))``: of others (``torch.func.grad``). Can be nested.

    Args:
        outputs: one tensor or several; or a function.
        inputs: one tensor or several, leaves or not; or numbers of arguments.
        grad_outputs: a gradient for each output, of its shape; may be left out for outputs of one element.
        create_graph: record the computation, so that the result can be differentiated again.
        retain_graph: keep the graph; ``create_graph`` if None.
        allow_unused: give None for an input that the outputs do not depend on, in place of an error.

    Raises:
        ArgumentError: not as many ``grad_outputs`` as outputs, or an input that is no tensor.
        GradientError: an input requires no gradient, or the outputs do not depend on it.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor(2.0, requires_grad=True)
    >>> (slope,) = tl.grad(x**3, x, create_graph=True)
    >>> slope, tl.grad(slope, x)
    (tensor(12., op=mul), (tensor(12.),))
    >>> tl.grad(tl.grad(lambda x: x**3))(2.0)
    tensor(12.)
    """
    if callable(outputs):
        return _grad_of(outputs, inputs)
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
    seeds: list[Any] = [seed_of(y, g) for y, g in zip(ys, gs, strict=True)]
    wanted = [x._node or x for x in xs]
    retain = create_graph if retain_graph is None else retain_graph
    since = now()
    with foreign:
        if create_graph:
            with enable_grad():
                found = pullback(roots, seeds, set(wanted), retain)
        else:
            found = pullback(roots, [seed._data for seed in seeds], set(wanted), retain)
    results: list[Tensor | None] = []
    taken = {id(storage(seed._data)) for seed in seeds}
    for i, vertex in enumerate(wanted):
        gradient = found.get(vertex)
        if gradient is None and not allow_unused:
            raise GradientError(
                f"the outputs do not depend on input {i} (was it detached or computed under no_grad()?); "
                "pass allow_unused=True to get None for it"
            )
        if isinstance(gradient, np.ndarray):
            gradient = Tensor._wrap(gradient.copy())
        elif gradient is not None:
            # A rule may hand one array to two parents, or on from the seed; a rule or a hook may give what it got
            # elsewhere, or a view of it. What is returned shares no memory.
            made = gradient._node is not None and gradient._node.number >= since and not gradient._node.plan.op.view
            if not made or id(storage(gradient._data)) in taken or not gradient._data.flags.writeable:
                with enable_grad():
                    gradient = clone(gradient)
            taken.add(id(storage(gradient._data)))
        results.append(gradient)
    return tuple(results)


def _tensors(name: str, values: Any) -> list[Tensor]:
    """One tensor or several."""
    several = isinstance(values, Iterable) and not isinstance(values, (Tensor, np.ndarray))
    found = [*values] if several else [values]
    for i, x in enumerate(found):
        if not isinstance(x, Tensor):
            what = "tensors that require a gradient" if name == "inputs" else "tensors"
            raise ArgumentError(f"{name} are {what}, {name[:-1]} {i} is a {type(x).__name__}")
    return found


class _Call:
    """A call of a function whose derivatives are wanted, recorded from fresh inputs on."""

    def __init__(self, fn: Function, args: Sequence[Any], argnums: Any, kwargs: dict[str, Any]) -> None:
        function("fn", fn)
        self.single = not isinstance(argnums, (tuple, list))
        numbers = tuple(integer("argnums", n) for n in ((argnums,) if self.single else argnums))
        if not numbers or len({*numbers}) < len(numbers) or any(not -len(args) <= n < len(args) for n in numbers):
            raise ArgumentError(f"argument number {brief(argnums)} cannot be had from {len(args)} positional arguments")
        outer, given = is_grad_enabled(), list(args)
        with enable_grad():
            for n in numbers:
                given[n] = self._fresh(n, given[n], outer)
            self.inputs: list[Tensor] = [given[n] for n in numbers]
            since = now()
            with foreign:
                found = fn(*given, **kwargs)
        self.several = isinstance(found, (tuple, list))
        self.outputs: list[Tensor] = list(found) if self.several else [found]
        for y in self.outputs:
            if not isinstance(y, Tensor) or y.dtype.kind != "f":
                got = y.dtype if isinstance(y, Tensor) else f"a {type(y).__name__}"
                raise DTypeError(f"the function must return tensors of floats, it returned {got}")
        # Derivatives are recorded if something outside of this call may want to differentiate them.
        roots = [root_of(y) for y in self.outputs if y._requires_grad]
        self.record = outer and (
            any(x._node for x in self.inputs) or not sources(roots, since) <= {x._node or x for x in self.inputs}
        )

    def _fresh(self, number: int, value: Any, outer: bool) -> Tensor:
        x = _as_tensor(f"argument {number}", value)
        if x.dtype.kind != "f":
            raise DTypeError(f"argument {number} is {x.dtype}; convert it to floats: x.astype('float32')")
        if outer and x.requires_grad:
            return clone(x)
        x = x.detach()
        x.requires_grad = True
        return x

    def number(self) -> Tensor:
        """The output, which must be one number."""
        if self.several or self.outputs[0].size != 1:
            got = f"{len(self.outputs)} tensors" if self.several else f"a tensor of shape {self.outputs[0].shape}"
            raise ShapeError(f"the function must return one number, it returned {got}; see jacobian, vjp")
        return self.outputs[0]

    def results(self) -> Any:
        """What the function returned."""
        outputs = [y if self.record else y.detach() for y in self.outputs]
        return tuple(outputs) if self.several else outputs[0]

    def pull(self, seeds: Sequence[Any], tensors: Sequence[Tensor] = (), retain: bool = True) -> Any:
        """The gradient for each argument, given those of the outputs; recorded too if ``tensors`` require one."""
        record = self.record or (is_grad_enabled() and any(t._requires_grad for t in tensors))
        return self.by_argument(_gradients(self.outputs, self.inputs, seeds, record, retain))

    def by_argument(self, found: Sequence[Any]) -> Any:
        """One for each argument; alone if one number was asked for."""
        return found[0] if self.single else tuple(found)


def _gradients(
    outputs: Sequence[Tensor], inputs: list[Tensor], seeds: Sequence[Any], record: bool, retain: bool = True
) -> list[Tensor]:
    """:func:`grad`, with zeros where nothing depends on an input."""
    pairs = [(y, seed) for y, seed in zip(outputs, seeds, strict=True) if y._requires_grad]
    found: Any = [None] * len(inputs)
    if pairs:
        found = grad([y for y, _ in pairs], inputs, [seed for _, seed in pairs], record, retain or record, True)
    return [Tensor._wrap(np.zeros(x.shape, x.dtype)) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _as_tensor(what: str, value: Any, dtype: Any = None) -> Tensor:
    """Numbers and lists are of the dtype, if one is given."""
    try:
        return as_tensor(value) if dtype is None or hasattr(value, "dtype") else Tensor(value, dtype=dtype)
    except TinygradLenetError as error:
        raise type(error)(f"in {what}: {error}") from None


def _like(what: str, values: Any, models: Sequence[Tensor]) -> list[Tensor]:
    """One tensor, or a tuple of them, of the shapes of the models."""
    several = values if isinstance(values, tuple) else (values,)
    dtypes = [*(m.dtype for m in models), *[None] * len(several)]  # float32 would round them
    found = [_as_tensor(what, v, dtype) for v, dtype in zip(several, dtypes, strict=False)]
    if [v.shape for v in found] != [m.shape for m in models]:
        raise ShapeError(
            f"{what} must have the shapes {', '.join(str(m.shape) for m in models)}, got "
            f"{', '.join(str(v.shape) for v in found)}; several are passed as a tuple"
        )
    return found


def _derivative(name: str, function: Function) -> Function:
    """The function that ``name`` returns, behind a door of that name."""
    function.__name__ = name
    return checked(function)


def _grad_of(fn: Function, argnums: Any) -> Function:
    function("fn", fn)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        call = _Call(fn, args, argnums, kwargs)
        return call.pull([np.ones(call.number().shape)], retain=False)

    return _derivative("grad", gradient)


@checked
def value_and_grad(fn: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """The function that gives the value of ``fn`` and its gradient, in one pass.

    Args:
        fn: a function that returns one number.
        argnums: which argument to differentiate for; or several, as a tuple, for a tuple of gradients.

    >>> import tinygrad_lenet as tl
    >>> tl.value_and_grad(lambda x, y: (x * y).sum(), argnums=1)([1.0, 2.0], [3.0, 4.0])
    (tensor(11.), tensor([1., 2.]))
    """
    function("fn", fn)

    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
        call = _Call(fn, args, argnums, kwargs)
        value = call.number()
        return call.results(), call.pull([np.ones(value.shape)], retain=False)

    return _derivative("value_and_grad", value_and_gradient)


@checked
def vjp(fn: Function, *primals: Any) -> tuple[Any, Function]:
    """The value of ``fn(*primals)``, and the function that multiplies a vector with the Jacobian from the left.

    That function takes a gradient for each output, and may be called several times; it gives one for each primal, alone
    if there is one (``torch.func.vjp``).

    Raises:
        ShapeError: the gradients given have not the shapes of the outputs.

    >>> import tinygrad_lenet as tl
    >>> value, pull = tl.vjp(lambda x: x * x, tl.tensor([1.0, 2.0]))
    >>> value, pull([1.0, 10.0])
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    call = _Call(fn, primals, 0 if len(primals) == 1 else tuple(range(len(primals))), {})

    def pull(*cotangents: Any) -> Any:
        seeds = _like("cotangents", cotangents, call.outputs)
        return call.pull(seeds, seeds)

    return call.results(), _derivative("vjp", pull)


@checked
def jvp(fn: Function, primals: Any, tangents: Any) -> tuple[Any, Any]:
    """The value of ``fn(*primals)``, and the derivative in the direction of the tangents: the Jacobian times a vector.

    By two reverse passes: the first is linear in its seed, and the second differentiates it for that seed (Townsend, *A
    new trick for calculating Jacobian vector products*, 2017). So each op needs one kind of rule only.

    Args:
        fn: a function of tensors that returns one or several.
        primals: where; a tuple of tensors, or one.
        tangents: the direction, of the same shapes.

    Raises:
        ShapeError: the tangents have not the shapes of the primals.

    >>> import tinygrad_lenet as tl
    >>> tl.jvp(lambda x: x * x, tl.tensor([1.0, 2.0]), tl.tensor([1.0, 10.0]))
    (tensor([1., 4.]), tensor([ 2., 40.]))
    """
    primals = primals if isinstance(primals, tuple) else (primals,)
    call = _Call(fn, primals, tuple(range(len(primals))), {})
    directions = _like("tangents", tangents, call.inputs)
    seeds = [Tensor(np.ones(y.shape, y.dtype), requires_grad=True) for y in call.outputs]
    with enable_grad():
        pulled = _gradients(call.outputs, call.inputs, seeds, record=True)
    record = call.record or (is_grad_enabled() and any(t._requires_grad for t in directions))
    pushed = _gradients(pulled, seeds, directions, record)
    return call.results(), tuple(pushed) if call.several else pushed[0]


@checked
def jacobian(fn: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """The function that gives the Jacobian of ``fn``: all derivatives of each element of the output, row by row.

    Args:
        fn: a function that returns a tensor, or a tuple of them, for a tuple of Jacobians.
        argnums: which argument to differentiate for; or several, as a tuple, for a tuple of Jacobians.

    Returns:
        A function that gives a tensor of the output's shape followed by the argument's.

    >>> import tinygrad_lenet as tl
    >>> tl.jacobian(lambda x: x[:2] * x[1:])(tl.tensor([1.0, 2.0, 3.0]))
    tensor([[2., 1., 0.],
            [0., 3., 2.]])
    """
    return _jacobian("jacobian", fn, argnums)


def _jacobian(name: str, fn: Function, argnums: Any) -> Function:
    function("fn", fn)

    def jacobian_of(*args: Any, **kwargs: Any) -> Any:
        call = _Call(fn, args, argnums, kwargs)
        try:
            found = tuple(call.by_argument(_rows(call, y)) for y in call.outputs)
        except MemoryError as error:
            raise translated(error, name, given(["arguments"], [call.inputs])) from None
        return found if call.several else found[0]

    return _derivative(name, jacobian_of)


def _rows(call: _Call, y: Tensor) -> list[Tensor]:
    """The Jacobian of one output for each input."""
    rows = [_gradients([y], call.inputs, [e.reshape(y.shape)], call.record) for e in np.eye(y.size, dtype=y.dtype)]
    if not rows:
        return [Tensor._wrap(np.zeros(0, x.dtype)).reshape(*y.shape, *x.shape) for x in call.inputs]
    return [
        stack(parts).reshape(*y.shape, *x.shape) for x, parts in zip(call.inputs, zip(*rows, strict=True), strict=True)
    ]


@checked
def hessian(fn: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """The function that gives the Hessian of ``fn``, all its second derivatives: the Jacobian of its gradient.

    Args:
        fn: a function that returns one number.
        argnums: which argument to differentiate for; or several, as a tuple, for a tuple of tuples.

    Returns:
        A function that gives a tensor of the argument's shape, twice.

    >>> import tinygrad_lenet as tl
    >>> tl.hessian(lambda x: x[0] * x[0] * x[1])(tl.tensor([1.0, 3.0]))
    tensor([[6., 2.],
            [2., 0.]])
    """
    function("fn", fn)
    return _jacobian("hessian", _grad_of(fn, argnums), argnums)


@checked
def hvp(fn: Function, primals: Any, tangents: Any) -> Any:
    """The Hessian of ``fn`` times a vector, without the Hessian: the gradient of ``gradient @ tangents`` (Pearlmutter,
    *Fast exact multiplication by the Hessian*, 1994).

    Args:
        fn: a function of tensors that returns one number.
        primals: where; a tuple of tensors, or one.
        tangents: the vector, of the same shapes.

    Raises:
        ShapeError: the tangents have not the shapes of the primals.

    >>> import tinygrad_lenet as tl
    >>> tl.hvp(lambda x: x[0] * x[0] * x[1], tl.tensor([1.0, 3.0]), tl.tensor([0.0, 1.0]))
    tensor([2., 0.])
    """
    single = not isinstance(primals, tuple)
    call = _Call(fn, (primals,) if single else primals, 0 if single else tuple(range(len(primals))), {})
    directions = _like("tangents", tangents, call.inputs)
    with enable_grad():
        slopes = _gradients([call.number()], call.inputs, [None], record=True)
    record = call.record or (is_grad_enabled() and any(t._requires_grad for t in directions))
    return call.by_argument(_gradients(slopes, call.inputs, directions, record))
