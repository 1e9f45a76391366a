"""One op, one place: a NumPy function, and the rules by which it is differentiated.

    @primitive
    def tanh(x: Array) -> Array:
        return np.tanh(x)

    tanh.vjp(x=lambda g, out: g * (1 - out * out))
    tanh.check(draw(3, 2))

A rule is a vector-Jacobian product. It maps ``g``, the gradient of the output, to the gradient of one argument. *What a
rule names is what the graph saves.* After ``g`` it may name ``out``, any argument (``x``, ``axis``), or ``x_shape`` if
the shape is enough; nothing else is kept alive. A rule is written in operators and ops of the package. Called with
arrays it computes, called with Tensors it records itself, and that is how higher derivatives come about.

A call takes three steps. ``Signature.compute`` turns what the user wrote into arrays and calls the NumPy function.
:meth:`Op.result` wraps the array into a Tensor; ``saved.settle`` sees to it that no one else owns its memory. A
:class:`Plan` adds a node to the graph if an argument requires a gradient. The backward pass calls :meth:`Plan.pull`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeAlias, overload

import numpy as np

from ..checks import flag
from ..errors import ArgumentError, DTypeError, GradientError, brief
from .graph import Node, Vertex
from .interface import Array as Array
from .interface import Draw as Draw
from .interface import P, Primitive, Rule
from .interface import composite as composite
from .interface import draw as draw
from .modes import is_grad_enabled, listener, recording
from .saved import changed, save, settle
from .signature import Signature, parameters
from .tensor import Tensor, Version

REGISTRY: dict[str, Op] = {}
_ndarray = np.ndarray
_HOLDERS = (list, tuple, dict)  # of arrays, perhaps

Source: TypeAlias = tuple[str, int]  # of a saved value: ("arg", 0), ("shape", 1), ("out", 0), ("position", 2)


class Op:
    """The record of one op: its forward function, its rules and its test cases."""

    def __init__(self, forward: Callable[..., Array], view: bool = False) -> None:
        self.forward, self.view, self.name = forward, view, forward.__name__
        self.signature = Signature(forward)
        self.names, self.loose = self.signature.names, self.signature.loose
        if "out" in self.names:
            raise ArgumentError(f"{self.name}: no argument can be called 'out', by which rules name the output")
        self.rules: dict[str, Rule | None] = {}
        self.cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.plans: dict[tuple[int, int], Plan] = {}  # by the arguments that require a gradient, and their number

    def vjp(self, **rules: Rule | None) -> None:
        """See :meth:`Primitive.vjp`."""
        self.signature.check_rules(rules)
        self.rules.update(rules)
        self.plans.clear()

    def check(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`Primitive.check`."""
        self.cases.append((args, kwargs))

    def result(self, args: tuple[Any, ...], plain: list[Any], tracked: int, out: Any) -> Tensor:
        """The output as a Tensor, recorded if an argument requires a gradient."""
        if type(out) is not np.ndarray:
            out = np.asarray(out)
        version: Version = [0]
        home = out.base  # the array that owns the memory, if a view of NumPy's made this one
        shared = home is not None and (type(home) is not _ndarray or not out.flags.writeable)
        for a in plain:
            if a is out or (home is not None and type(a) is _ndarray and (a is home or a.base is home)):
                shared = True
        for i in self.loose:
            shared = shared or type(plain[i]) in _HOLDERS
        if shared:  # perhaps, with an argument
            out, version = settle(self, args, plain, out)
        node = None
        if tracked and (recording() or is_grad_enabled()):
            plan = self.plans.get((tracked, len(args))) or self.plan(tracked, len(args))
            if plan.rules:
                node = plan.record(args, plain, out, version)
        result = Tensor._wrap(out, node, version)
        hear = listener()
        if hear is not None:
            hear(self, args, result)
        return result

    def plan(self, tracked: int, count: int) -> Plan:
        """The plan for these arguments, made at their first call."""
        if len(self.plans) > 99:  # as of stack() for lists of many lengths: a plan is as long as its list
            self.plans.clear()
        plan = self.plans[tracked, count] = Plan(self, tracked, count)
        return plan


class Plan:
    """Which values to save if certain arguments require a gradient, and which of them each rule receives."""

    __slots__ = ("op", "rules", "sources")

    def __init__(self, op: Op, tracked: int, count: int) -> None:
        self.op = op
        self.sources: list[Source] = []  # of the saved values
        # For each argument that gets a gradient: its position, its rule, and which saved values the rule receives.
        self.rules: list[tuple[int, Rule, list[int | slice]]] = []
        for position in range(count):
            rule = op.signature.rule_of(position, op.rules) if tracked >> position & 1 else None
            if rule is not None:
                picks = [self._pick(word, position, count) for word in parameters(rule)[1:]]
                self.rules.append((position, rule, picks))

    def _pick(self, word: str, position: int, count: int) -> int | slice:
        """Have a value saved that a rule asks for; return its place among the saved values."""
        signature = self.op.signature
        kind, i = signature.source(word)
        if kind == "position":  # a rule for each of *args asks which of them it is called for
            i = position - signature.arity
        several = kind == "arg" and signature.variadic and i == signature.arity
        wanted = [(kind, k) for k in range(i, count)] if several else [(kind, i)]
        if not {*wanted} <= {*self.sources}:
            self.sources += wanted
        first = self.sources.index(wanted[0]) if wanted else 0
        return slice(first, first + len(wanted)) if several else first

    def record(self, args: tuple[Any, ...], plain: list[Any], out: np.ndarray[Any, Any], version: Version) -> Node:
        """A node for ``out = op(*args)``. It saves each value together with its version."""
        saved: list[tuple[Any, Any]] = []
        for kind, i in self.sources:
            if kind == "arg":
                value = args[i]
                watched = isinstance(value, Tensor) and value._version[0] >= 0
                saved.append((value, value._version[0]) if watched else save(value, plain[i]))
            elif kind == "shape":
                saved.append((np.shape(plain[i]), 0))
            elif kind == "out":  # a new Tensor, since the output itself will point to the node: that would be a cycle
                saved.append((Tensor._wrap(out, None, version), version[0]))
            else:
                saved.append((i, 0))
        return Node(self, [args[i]._node or args[i] for i, _, _ in self.rules], out.shape, out.dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Call ``add(parent, gradient)`` for each needed parent; ``seed`` is the gradient of the output."""
        recording = isinstance(seed, Tensor)
        values: list[Any] = []
        for value, stamp in node.saved or ():
            if isinstance(value, Tensor):
                if value._version[0] != stamp:
                    raise self._changed(len(values), value)
                if not recording:
                    value = value._data
                elif self.sources[len(values)][0] == "out":
                    value = Tensor._wrap(value._data, node, value._version)
            values.append(value)
        for i, parent in enumerate(node.parents):
            if needed is None or parent in needed:
                position, rule, picks = self.rules[i]
                gradient = rule(seed, *map(values.__getitem__, picks))
                if isinstance(gradient, Tensor) and not recording:  # the rule called an op, which returns a Tensor
                    gradient = gradient._data
                if gradient is not None:
                    try:
                        add(parent, gradient)
                    except (IndexError, ValueError):
                        what = f"gave a gradient of shape {np.shape(gradient)}, which does not fit {parent.shape}"
                        name = self.op.signature.name_of(position)
                        raise GradientError(f"{self.op.name}: the rule of {name!r} {what}") from None

    def _changed(self, place: int, value: Tensor) -> GradientError:
        kind, i = self.sources[place]
        what = "its output" if kind == "out" else f"argument {self.op.signature.name_of(i)!r}"
        return changed(f"{self.op.name}: {what}", value.shape, value._version)


@overload
def primitive(forward: Callable[P, Array], /) -> Primitive[P]: ...
@overload
def primitive(*, view: bool) -> Callable[[Callable[P, Array]], Primitive[P]]: ...
def primitive(forward: Any = None, *, view: bool = False) -> Any:
    """Make a differentiable op of a NumPy function.

    Parameters annotated ``Array`` are its tensors: in the body NumPy arrays, for callers whatever makes a tensor. The
    others are options. ``op.vjp(x=rule)`` gives the rule of an argument; it takes ``g``, the gradient of the output,
    and after it, by name, what else it needs: an argument, its ``x_shape``, or the output as ``out``. It is written in
    operators and ops of the package, so that it can be differentiated in its turn; for broadcasting it need not care.
    ``None`` in its place says that the gradient is 0. Options annotated ``int``, ``float``, ``bool`` or ``str`` are
    checked: in the body they are Python's.

    The result owns its memory: what the function returns is copied if it shares memory with an argument. With
    ``@primitive(view=True)`` it may be a view of a tensor, and a change of one in place is seen in the other.

    Raises:
        DTypeError: ``forward`` is no function that was written with ``def``.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing import gradcheck
    >>> @tl.primitive
    ... def soft_abs(x: tl.Array, width: tl.Array, power: int = 2) -> tl.Array:
    ...     return (np.abs(x) ** power + width**power) ** (1 / power)
    >>> soft_abs.vjp(x=lambda g, x, out, power: g * tl.sign(x) * (abs(x) / out) ** (power - 1))
    >>> soft_abs(tl.tensor([3.0, 0.0]), 4.0)
    tensor([5., 4.])
    >>> soft_abs([3.0], tl.tensor(4.0, requires_grad=True))
    Traceback (most recent call last):
    tinygrad_lenet.errors.GradientError: soft_abs: argument 'width' requires a gradient, but there is no rule for it \
    (rules: x); add one with soft_abs.vjp(width=...), or pass width.detach()
    >>> soft_abs.vjp(width=lambda g, width, out, power: g * (width / out) ** (power - 1))
    >>> x, width = np.array([[0.5, -2.0], [1.5, 0.3]]), np.array([1.0, 0.2])
    >>> gradcheck(lambda x, width: soft_abs(x, width, power=3), [x, width], order=2)
    True
    """
    if forward is None:
        return functools.partial(primitive, view=view)
    if not isinstance(forward, FunctionType):
        raise DTypeError(f"primitive: forward must be a function, written with def, got {brief(forward)}")
    op = Op(forward, flag("view", view))
    compute, result = op.signature.compute, op.result

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        args, plain, tracked, out = compute(args, kwargs)
        return result(args, plain, tracked, out)

    forward.__annotations__["return"] = Tensor  # what callers get, and what help() shows
    REGISTRY[f"{forward.__module__}.{op.name}"] = op
    call.vjp, call.check, call.op = op.vjp, op.check, op  # type: ignore[attr-defined]  # a function may carry attributes
    return call
