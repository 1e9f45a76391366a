"""One op, one place: a NumPy function, and the rules by which it is differentiated.

    @primitive
    def tanh(x: Array) -> Array:
        return np.tanh(x)

    tanh.vjp(x=lambda g, out: g * (1 - out * out))
    tanh.check(draw(3, 2))

A rule is a vector-Jacobian product. It maps ``g``, the gradient of the output, to the gradient of one argument. *The
graph saves the values that the rules name.* After ``g`` a rule may name ``out``, any argument (``x``, ``axis``), or
``x_shape`` if the shape is enough; nothing else is kept alive. A rule is written in operators and ops of the package.
Called with arrays it computes. Called with Tensors it records itself, which gives higher derivatives. ``check`` adds a
test case, and ``draw(3, 2)`` describes a random argument of that shape for it.

A call takes three steps. ``Signature.compute`` turns the user's arguments into arrays and calls the NumPy function.
:meth:`Op.result` wraps the array into a Tensor. If an argument requires a gradient, a :class:`Plan` adds a node to the
graph. The backward pass calls :meth:`Plan.pull`.

The rest of ``core/`` need not be opened:

- ``interface.py`` defines ``Array`` (for annotations), ``draw``, and ``composite``: that decorates a public function
  that is made of ops, and so needs no rules of its own. The rest are types.
- ``signature.py`` knows the arguments of a function: names, defaults, checks of options, messages.
- ``saved.py`` keeps gradients right if data changes. A Tensor counts changes in place: that number is its version.
  ``save`` copies an argument whose changes no Tensor would count, and ``settle`` an output that shares its memory.
  ``guarded`` passes read-only arguments to the bodies and rules of the user's own ops, and explains their errors.
- ``modes.py`` knows whether this thread records, and who listens to every op, such as the ONNX export.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, TypeAlias, overload

import numpy as np

from ..checks import flag
from ..errors import ArgumentError, DTypeError, GradientError, brief
from ..kernels.memory import Block
from .graph import Node, Vertex
from .interface import Array as Array
from .interface import Draw as Draw
from .interface import P, Primitive, Rule
from .interface import composite as composite
from .interface import draw as draw
from .modes import is_grad_enabled, listener, recording
from .names import known_as
from .saved import BODY, RULE, changed, guarded, save, settle
from .signature import Signature, Unread, parameters, trusted
from .tensor import Tensor, Version

REGISTRY: dict[str, Op] = {}  # every op by module and name: tests, documentation and exports go through it
_ndarray = np.ndarray
_OWNERS = (np.ndarray, Block)  # of memory that belongs to one array and its views
_CONTAINERS = (list, tuple, dict)

# Where a saved value comes from: ("arg", 0), ("shape", 1), ("out", 0); or ("position", 2), the place of one of *args.
Source: TypeAlias = tuple[str, int]


class Op:
    """The record of one op: its forward function, its rules and its test cases."""

    def __init__(self, forward: Callable[..., Array], view: bool = False) -> None:
        self.forward, self.view, self.name = forward, view, forward.__name__
        self.signature = Unread(forward) if trusted(forward) else Signature(forward)
        if not self.signature.trusted:
            self.signature.function = guarded(forward, self.name, BODY, view)
        self.names = self.signature.names
        if "out" in self.names:
            raise ArgumentError(f"{self.name}: no argument can be called 'out', by which rules name the output")
        self.rules: dict[str, Rule | None] = {}
        self.cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.onnx: Any = None  # see known_as
        # See Primitive.planned.
        self.steps: Callable[..., Any] | None = None
        self.rows: tuple[int, ...] | None = None
        self.added: tuple[int, ...] | None = None
        self.plans: dict[tuple[int, int], Plan] = {}  # by ``tracked`` (see result) and the number of arguments

    def result(self, args: tuple[Any, ...], plain: list[Any], tracked: int, out: Any) -> Tensor:
        """The output as a Tensor, recorded if an argument requires a gradient.

        ``plain`` are the arguments as arrays and Python options. Bit i of ``tracked`` is set if argument i requires a
        gradient.
        """
        if type(out) is not _ndarray:
            out = np.asarray(out)
        version: Version = [0]
        # Fast tests: may the output share memory with an argument? If so, settle() looks closer, and may copy it.
        base = out.base  # the array that owns the memory, if ``out`` is a view
        shared = base is not None and (type(base) not in _OWNERS or not out.flags.writeable)
        for a in plain:
            if a is out or (base is not None and type(a) is _ndarray and (a is base or a.base is base)):
                shared = True
        for i in self.signature.containers:
            shared = shared or type(plain[i]) in _CONTAINERS
        if shared:
            out, version = settle(self, args, plain, out)
        node = None
        if tracked and (recording() or is_grad_enabled()):  # the first is faster, but not always true
            plan = self.plans.get((tracked, len(args))) or self.plan(tracked, len(args))
            if plan.rules and out.dtype.kind == "f":  # integers have no gradient
                node = plan.record(args, plain, out, version)
        result = Tensor._wrap(out, node, version)
        if (hear := listener()) is not None:  # usually None
            hear(self, args, result)
        return result

    def plan(self, tracked: int, count: int) -> Plan:
        """The plan for these arguments, made at their first call."""
        if len(self.plans) > 99:  # calls of stack() with lists of many lengths need one plan each
            self.plans.clear()
        plan = self.plans[tracked, count] = Plan(self, tracked, count)
        return plan


class Plan:
    """Which values to save if certain arguments require a gradient, and which of them each rule receives.

    For ``mul.vjp(x=lambda g, y: g * y, y=lambda g, x: g * x)``, both tracked, the plan saves ``y`` and ``x``:
    ``saves`` is ``[("arg", 1), ("arg", 0)]``. In ``rules``, x's rule receives the first of these, y's the second.
    """

    __slots__ = ("op", "rules", "saves")

    def __init__(self, op: Op, tracked: int, count: int) -> None:
        self.op = op
        self.saves: list[Source] = []
        # For each argument that gets a gradient: its position, its rule, and the places of the rule's saved values, a
        # slice if these are neighbours.
        self.rules: list[tuple[int, Rule, list[int | slice] | slice]] = []
        for position in range(count):
            rule = op.signature.rule_of(position, op.rules) if tracked >> position & 1 else None
            if rule is not None:
                start = len(self.saves)
                places: Any = [self._place(word, position, count) for word in parameters(rule)[1:]]
                if places == [*range(start, len(self.saves))]:
                    places = slice(start, len(self.saves))
                if not trusted(rule):
                    rule = guarded(rule, f"{op.name}: the rule of {op.signature.name_of(position)!r}", RULE)
                self.rules.append((position, rule, places))

    def _place(self, word: str, position: int, count: int) -> int | slice:
        """The place among the saved values of one that a rule names; a slice if it names ``*args``."""
        signature = self.op.signature
        kind, i = signature.source(word)
        if kind == "position":  # the rule of *args asks for which of them it is called
            i = position - signature.arity
        several = kind == "arg" and signature.variadic and i == signature.arity
        sources = [(kind, k) for k in range(i, count)] if several else [(kind, i)]
        if not all(source in self.saves for source in sources):
            self.saves += sources
        first = self.saves.index(sources[0]) if sources else 0
        return slice(first, first + len(sources)) if several else first

    def record(self, args: tuple[Any, ...], plain: list[Any], out: np.ndarray[Any, Any], version: Version) -> Node:
        """A node for ``out = op(*args)``. It saves each value together with its version."""
        saved: list[tuple[Any, Any]] = []
        for kind, i in self.saves:
            if kind == "arg":
                value = args[i]
                counted = isinstance(value, Tensor) and (number := value._version[0]) >= 0  # false for NaN, see Version
                saved.append((value, number) if counted else save(value, plain[i]))
            elif kind == "shape":
                saved.append((plain[i].shape if type(plain[i]) is _ndarray else np.shape(plain[i]), 0))
            elif kind == "out":  # without its node: a node that pointed to its own output would be a cycle
                saved.append((Tensor._wrap(out, None, version), version[0]))
            else:
                saved.append((i, 0))
        parents: list[Vertex] = []
        for i, _, _ in self.rules:  # in Python 3.11 a comprehension is one more call
            parents.append(args[i]._node or args[i])  # a leaf has no node
        return Node(self, parents, out.shape, out.dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Call ``add(parent, gradient)`` for each needed parent; ``seed`` is the gradient of the output.

        If the seed is a Tensor, the rules receive Tensors, and so record themselves; else they receive arrays.
        """
        recorded = type(seed) is not _ndarray and isinstance(seed, Tensor)
        values: list[Any] = []
        for value, number in node.saved or ():
            if isinstance(value, Tensor):
                if value._version[0] != number:
                    what = self.op.signature.origin(*self.saves[len(values)])
                    raise changed(f"{self.op.name}: {what}", value.shape, value._version)
                if not recorded:
                    value = value._data
                elif self.saves[len(values)][0] == "out":  # with its node, so that gradients flow through it
                    value = Tensor._wrap(value._data, node, value._version)
            values.append(value)
        for (position, rule, places), parent in zip(self.rules, node.parents):  # noqa: B905  # strict takes longer
            if needed is None or parent in needed:
                gradient = rule(seed, *(values[places] if type(places) is slice else map(values.__getitem__, places)))
                if isinstance(gradient, Tensor):
                    if not recorded:  # the rule called an op, which returns a Tensor
                        gradient = gradient._data
                elif recorded and isinstance(gradient, (np.ndarray, np.generic)):  # a constant: the pass stays recorded
                    gradient = Tensor._wrap(np.asarray(gradient))
                if gradient is not None:
                    try:
                        add(parent, gradient)
                    except (AttributeError, IndexError, ValueError):  # not an array, or one of another shape
                        what = f"gave {brief(gradient)}, which is not an array of shape {parent.shape}"
                        name = self.op.signature.name_of(position)
                        raise GradientError(f"{self.op.name}: the rule of {name!r} {what}") from None


@overload
def primitive(forward: Callable[P, Array], /) -> Primitive[P]: ...
@overload
def primitive(*, view: bool = ...) -> Callable[[Callable[P, Array]], Primitive[P]]: ...
def primitive(forward: Any = None, *, view: bool = False) -> Any:
    """Make a differentiable op of a NumPy function.

    Parameters annotated ``Array`` are tensors: the caller may pass a Tensor, an array, a number or a list, and the body
    receives NumPy arrays. The other parameters are options. Those annotated ``int``, ``float``, ``bool`` or ``str`` are
    checked, and the body receives Python's own types. The arrays that it receives are read-only.

    ``op.vjp(x=rule)`` declares the rule of the argument ``x``. The rule takes ``g``, the gradient of the output, and
    after it, by name, the values that it needs: an argument, its shape as ``x_shape``, or the output as ``out``. It is
    written in operators and ops of the package, so that it can be differentiated itself. Its arguments are read-only:
    NumPy arrays, and Tensors in a backward pass that is recorded (``create_graph=True``). Operators and functions take
    both, so write ``tl.sigmoid(x)`` and not ``x.sigmoid()``. The rule may ignore broadcasting, which is undone later.
    ``None`` in place of a rule says that the gradient is 0.

    The result owns its memory: what the body returns is copied. With ``@primitive(view=True)`` it may be a view of a
    tensor; then a change in place of one shows in the other.

    Raises:
        DTypeError: ``forward`` is not a function written with ``def``.

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
    found: Any = call
    found.op = op
    for method in (Primitive.vjp, Primitive.check, Primitive.planned, known_as):
        setattr(found, method.__name__, MethodType(method, found))
    return found
