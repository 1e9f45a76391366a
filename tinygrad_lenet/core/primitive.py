"""One op, one place: the ``@primitive`` decorator, the rules of differentiation, and the registry.

A primitive is a NumPy function and, for each argument that can have a gradient, a rule:

    @primitive
    def tanh(x: Array) -> Array:
        return np.tanh(x)

    tanh.vjp(x=lambda g, out: g * (1 - out * out))
    tanh.check(draw(3, 2))

A rule maps ``g``, the gradient of the output, to the gradient of its argument (a vector-Jacobian product). *What a rule
names is what the graph saves*: after ``g`` it may name ``out``, any argument (``x``, ``axis``), or ``x_shape`` where
the shape is enough; nothing else is kept alive. A rule uses only what arrays and Tensors share and the package's own
ops: called with arrays it computes, called with Tensors it records itself, and that is how derivatives of derivatives
come about. Broadcasting is undone by the engine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, get_args, overload

import numpy as np

from ..checks import flag
from ..errors import ArgumentError, DTypeError, GradientError, TinygradLenetError, brief, given, named, translated
from .graph import Node, Vertex
from .interface import Array as Array
from .interface import Draw as Draw
from .interface import beside, borrows, version_of
from .interface import draw as draw
from .modes import is_grad_enabled, listener, recording
from .parameters import NATIVE, VARIADIC, parameters
from .parameters import scalars as scalars_of
from .tensor import Tensor, Version, to_array

Rule: TypeAlias = Callable[..., Any]
P = ParamSpec("P")
F = TypeVar("F", bound=Callable[..., Any])

REGISTRY: dict[str, Op] = {}
# Both spellings of the field: PyTorch's on the left, the one that the declarations use on the right.
_SPELLINGS = {"input": "x", "other": "y", "dim": "axis", "keepdim": "keepdims"}


class Primitive(Protocol[P]):
    """A function of Tensors, arrays or numbers that returns a Tensor, and that knows its derivative."""

    __name__: str

    @property
    def op(self) -> Op:
        """The record of the op: forward function, rules, test cases."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        """Compute, and record if an argument requires a gradient."""

    def vjp(self, **rules: Rule | None) -> None:
        """Give the rule of each argument; ``None`` says that its gradient is zero or does not exist."""

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Add one way in which tests call the op; an op without any fails the tests."""


class Plan:
    """For one op and one set of arguments that require a gradient: what to save, and which rule gets which of it."""

    __slots__ = ("op", "positions", "rules", "sources")

    def __init__(self, op: Op, tracked: int) -> None:
        self.op = op
        self.positions: list[int] = []  # of the arguments that get a gradient
        self.sources: list[tuple[str, int]] = []  # what to save: ("arg", 0), ("shape", 1), ("out", 0)
        self.rules: list[tuple[Rule, tuple[int, ...]]] = []
        for position in range(tracked.bit_length()):
            if tracked >> position & 1:
                self._add(position)

    def _add(self, position: int) -> None:
        op = self.op
        name = op.names[min(position, len(op.names) - 1)]
        if name not in op.rules:
            known = ", ".join(op.rules) or "none"
            raise GradientError(
                f"{op.name}: argument {name!r} requires a gradient, but there is no rule for it (rules: {known}); "
                f"add one with {op.name}.vjp({name}=...), or pass {name}.detach()"
            )
        rule = op.rules[name]
        if rule is None:
            return
        wants = parameters(rule)[1:]
        if "position" in wants:  # one rule for all of *args: it is told which
            rule = functools.partial(rule, position=position - len(op.names) + 1)
            wants.remove("position")
        picks = []
        for want in wants:
            source = op.source(want)
            if source not in self.sources:
                self.sources.append(source)
            picks.append(self.sources.index(source))
        self.positions.append(position)
        self.rules.append((rule, tuple(picks)))

    def record(self, args: tuple[Any, ...], plain: list[Any], out: np.ndarray[Any, Any], version: Version) -> Node:
        """A node for ``out = op(*args)`` that keeps what the rules name; ``plain`` are the arguments as arrays."""
        saved: list[tuple[Any, Any]] = []  # with the version of the data, by which a later change shows
        for kind, i in self.sources:
            if kind == "arg":
                value = args[i]
                if isinstance(value, Tensor) and value._version[0] >= 0:
                    saved.append((value, value._version[0]))
                else:
                    saved.append(kept(value, plain[i]))
            elif kind == "shape":
                saved.append((np.shape(plain[i]), 0))
            elif kind == "out":  # not the output itself: that would be a cycle
                saved.append((Tensor._wrap(out, None, version), version[0]))
            else:
                saved.append(([kept(*pair) for pair in zip(args[i:], plain[i:], strict=True)], _EACH))
        return Node(self, [args[i]._node or args[i] for i in self.positions], out.shape, out.dtype, saved)

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, arrive: Callable[[Vertex, Any], object]) -> None:
        """Pass the gradient of each parent to ``arrive``, given the gradient of the output."""
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
            elif stamp is _EACH:
                value = self._each(len(values), value, recording)
            values.append(value)
        for i, parent in enumerate(node.parents):
            if needed is None or parent in needed:
                rule, picks = self.rules[i]
                gradient = rule(seed, *[values[k] for k in picks])
                if isinstance(gradient, Tensor) and not recording:
                    gradient = gradient._data  # a rule may call the package's ops, which always give Tensors
                if gradient is not None:
                    try:
                        arrive(parent, gradient)
                    except (IndexError, ValueError):
                        name = self.op.names[min(self.positions[i], len(self.op.names) - 1)]
                        what = f"gave a gradient of shape {np.shape(gradient)}, which does not fit {parent.shape}"
                        raise GradientError(f"{self.op.name}: the rule of {name!r} {what}") from None

    def _each(self, i: int, values: list[tuple[Any, Any]], recording: bool) -> tuple[Any, ...]:
        """What was saved of ``*args``."""
        for value, stamp in values:
            if isinstance(value, Tensor) and value._version[0] != stamp:
                raise self._changed(i, value)
        return tuple([v._data if isinstance(v, Tensor) and not recording else v for v, _ in values])

    def _changed(self, i: int, value: Tensor) -> GradientError:
        kind, position = self.sources[i]
        what = "its output" if kind == "out" else f"argument {self.op.names[position]!r}"
        return changed(f"{self.op.name}: {what}", value.shape, value._version)


def changed(what: str, shape: tuple[int, ...], version: Version) -> GradientError:
    """The refusal of a gradient whose data is not what it was."""
    count, line = version
    how = "was changed in place" if count >= 0 else "was shared with another library, which may change it,"
    return GradientError(
        f"{what}, of shape {shape}, {how} after the op was recorded, so the gradient would be wrong: at {line}; "
        "do that after backward(), or give the op a clone()"
    )


def kept(value: Any, plain: Any) -> tuple[Any, Any]:
    """An argument (``plain`` is it as an array) as it will be for the backward pass, and the version of its data."""
    if not isinstance(value, Tensor):
        try:
            return _frozen(plain), 0
        except RecursionError:
            raise ArgumentError("an argument is a list that holds itself, or lists too deep to be copied") from None
    stamp = value._version[0]
    return (value, stamp) if stamp >= 0 else (value.clone(), 0)  # NaN: others may write to it, and no count tells


def _frozen(value: Any) -> Any:
    """A copy of what the caller may write to."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return type(value)([_frozen(v) for v in value]) if type(value) in (list, tuple) else value


_WORDS = "int float bool str None class tuple Pair Padding Axis DTypeLike"  # of options that hold no arrays
_PLAIN = {*_WORDS.split()}
_EACH: Any = object()  # in place of a version: there are several values, each with its own
_MISSING: Any = object()


def _operand(annotation: Any) -> int:
    """1 if it is ``Array``, 2 if ``Array | None``, else 0; an object or text, under whatever name of the package."""
    if isinstance(annotation, str):
        first, *others = annotation.split(" ")
        return (1 + bool(others)) * (first.split(".")[-1] == "Array")
    return 1 if annotation == Array else 2 * (Array in get_args(annotation))


class Op:
    """The record of one op: its forward function, its rules and its test cases."""

    def __init__(self, forward: Callable[..., Array], view: bool = False) -> None:
        self.forward, self.view = forward, view
        self.name = forward.__name__
        self.names = parameters(forward)
        self.variadic = bool(forward.__code__.co_flags & VARIADIC)
        self.arity = len(self.names) - self.variadic
        given = forward.__defaults__ or ()
        self.required = self.arity - len(given)
        self.defaults = (_MISSING,) * self.required + given
        self.scalars = scalars_of(forward)
        self.operands = [_operand(forward.__annotations__.get(name)) for name in self.names]
        words = [{*re.findall(r"\w+", str(forward.__annotations__.get(name, "Any")))} for name in self.names]
        # Options that may hold arrays, in lists and dicts.
        self.loose = [i for i in range(self.arity) if not self.operands[i] and not words[i] <= _PLAIN]
        if "out" in self.names:
            raise ArgumentError(f"{self.name}: no argument can be called 'out', by which rules name the output")
        self.rules: dict[str, Rule | None] = {}
        self.cases: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.plans: dict[int, Plan] = {}

    def vjp(self, **rules: Rule | None) -> None:
        """See :meth:`Primitive.vjp`."""
        for name, rule in rules.items():
            if name not in self.names:
                raise ArgumentError(f"{self.name}.vjp: no argument {name!r}; it has {', '.join(self.names)}")
            if rule is not None and not callable(rule):
                raise DTypeError(f"{self.name}.vjp: the rule of {name!r} must be a function or None, got {brief(rule)}")
            for want in parameters(rule)[1:] if rule else ():
                if want != "position":
                    self.source(want)
        self.rules.update(rules)
        self.plans.clear()

    def check(self, *args: Any, **kwargs: Any) -> None:
        """See :meth:`Primitive.check`."""
        self.cases.append((args, kwargs))

    def source(self, want: str) -> tuple[str, int]:
        """Where the value comes from that a rule asks for by name."""
        if want == "out":
            return ("out", 0)
        if want in self.names:
            position = self.names.index(want)
            return ("rest" if self.variadic and position == self.arity else "arg", position)
        if want.removesuffix("_shape") in self.names:
            return ("shape", self.names.index(want.removesuffix("_shape")))
        raise ArgumentError(
            f"{self.name}.vjp: a rule asks for {want!r}; after the gradient it may name 'out', "
            f"one of {', '.join(self.names)}, or one of these followed by '_shape'"
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments by position, defaults filled in."""
        if len(args) > self.arity and not self.variadic:
            raise TypeError(
                f"{self.name}() takes {self.arity} arguments ({', '.join(self.names)}), {len(args)} were given"
            )
        filled, seen = [*args, *self.defaults[len(args) : self.arity]], set()
        for key, value in kwargs.items():
            name = key if key in self.names else _SPELLINGS.get(key, key)
            if name not in self.names:
                raise TypeError(f"{self.name}() has no argument {key!r}; it has {', '.join(self.names)}")
            if self.names.index(name) < len(args) or name in seen:
                raise TypeError(f"{self.name}() got {name!r} twice, by position and by name or under two names")
            seen.add(name)
            filled[self.names.index(name)] = value
        for name, value in zip(self.names, filled[: self.required], strict=False):
            if value is _MISSING:
                raise TypeError(f"{self.name}() needs the argument {name!r}; it takes {', '.join(self.names)}")
        return tuple(filled)

    def arrays(self, plain: list[Any]) -> list[Any]:
        """The arguments of the forward function: lists as arrays; numbers unchanged beside an array, else float32."""
        alone = not any(isinstance(a, (np.ndarray, np.generic)) for a in plain)
        for i, a in enumerate(plain):
            at = min(i, len(self.operands) - 1)
            if not self.operands[at] or (a is None and self.operands[at] == 2):
                continue
            if (
                alone
                or isinstance(a, np.ndarray)
                or not (isinstance(a, (bool, int, float)) or (isinstance(a, np.generic) and a.dtype in NATIVE))
            ):
                try:
                    plain[i] = to_array(a)
                except TinygradLenetError as error:
                    raise named(error, f"{self.name}: {self.names[at]}") from None
        return plain

    def admit(self, args: tuple[Any, ...], plain: list[Any]) -> tuple[Any, ...]:
        """The arguments with numbers, flags and words as Python has them, also in ``plain``."""
        found = list(args)
        for scalar in self.scalars:
            i = scalar.position
            if type(args[i]) not in scalar.quick:
                found[i] = plain[i] = scalar.admit(args[i], self.name)
        return tuple(found)

    def copied(self, out: Any, args: tuple[Any, ...]) -> Any:
        """A copy, which may need memory that the view did not."""
        try:
            return out.copy()
        except MemoryError as error:
            raise translated(error, self.name, given(self.names, args)) from None

    def again(self, error: Exception, args: tuple[Any, ...], plain: list[Any]) -> Any:
        """What to do when the forward function failed: if it took a number for an array, call it with an array; else
        say what it was given.
        """
        if isinstance(error, TinygradLenetError):
            raise named(error, self.name)
        if isinstance(error, AttributeError) and any(isinstance(a, (bool, int, float)) for a in plain):
            at = [i for i in range(len(plain)) if self.operands[min(i, len(self.operands) - 1)]]
            try:
                for i, a in zip(at, beside(*[plain[i] for i in at]), strict=True):
                    plain[i] = a
                return self.forward(*self.arrays(plain))
            except TinygradLenetError as found:
                raise named(found, self.name) from None
            except Exception as found:
                error = found
        ordinary = isinstance(error, (ValueError, TypeError, IndexError, MemoryError, OverflowError))
        # What else went wrong may be a fault of the op itself: then one wants to see where.
        raise translated(error, self.name, given(self.names, args)) from (None if ordinary else error)


def _owned(found: Any, values: Sequence[Any]) -> Any:
    """The result of a composite, with copies of the tensors that share memory with an argument."""
    if type(found) is tuple:
        return tuple([_owned(one, values) for one in found])
    return found.clone() if isinstance(found, Tensor) and borrows(found._data, values) else found


def _said(names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return given([*names[: len(args)], *kwargs], [*args, *kwargs.values()])


@overload
def composite(function: F, /) -> F: ...
@overload
def composite(*, view: bool) -> Callable[[F], F]: ...
def composite(function: Any = None, *, view: bool = False) -> Any:
    """Give a function that is made of ops the same conventions: both spellings of the field (``dim`` for ``axis``,
    ``input`` for ``x``), errors in its name, and a result that owns its memory, unless it is declared a ``view``.
    """
    if function is None:
        return functools.partial(composite, view=view)
    names, name, code = parameters(function), function.__name__, function.__code__
    places = names[: code.co_argcount] + names[-1:] * 99 * bool(code.co_flags & VARIADIC)
    scalars = scalars_of(function)
    other = {theirs: ours for theirs, ours in _SPELLINGS.items() if ours in names and theirs not in names}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for key in other.keys() & kwargs.keys() if kwargs else ():
            if other[key] in kwargs:
                raise TypeError(f"{name}() got {other[key]!r} twice, also as {key!r}")
            kwargs[other[key]] = kwargs.pop(key)
        try:
            for scalar in scalars:
                i, key, _, quick = scalar
                if i < len(args):
                    if type(args[i]) not in quick:
                        args = (*args[:i], scalar.admit(args[i], name), *args[i + 1 :])
                elif key in kwargs and type(kwargs[key]) not in quick:
                    kwargs[key] = scalar.admit(kwargs[key], name)
            found = function(*args, **kwargs)
            return found if view else _owned(found, (*args, *kwargs.values()))
        except TinygradLenetError as error:
            raise named(error, name, _said(places, args, kwargs))  # noqa: B904  # it is the same error
        except Exception as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is None:
                raise  # Python's own: wrong names, or too many or few
            ordinary = isinstance(error, (ValueError, TypeError, IndexError, MemoryError, OverflowError))
            raise translated(error, name, _said(places, args, kwargs)) from (None if ordinary else error)

    return call


@overload
def primitive(forward: Callable[P, Array], /) -> Primitive[P]: ...
@overload
def primitive(*, view: bool) -> Callable[[Callable[P, Array]], Primitive[P]]: ...
def primitive(forward: Any = _MISSING, *, view: bool = False) -> Any:
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
    if forward is _MISSING:
        return functools.partial(primitive, view=view)
    if not isinstance(forward, FunctionType):
        raise DTypeError(f"primitive: forward must be a function, written with def, got {brief(forward)}")
    op = Op(forward, flag("view", view))
    arity, required, defaults = (-1 if op.variadic else op.arity), op.required, op.defaults
    scalars, loose, plans = op.scalars, op.loose, op.plans
    operands, last = op.operands, len(op.operands) - 1

    @functools.wraps(forward)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        if kwargs or not required <= len(args) <= arity:
            args = op.bind(args, kwargs)
        elif len(args) < arity:
            args += defaults[len(args) :]
        plain, tracked, convert = [], 0, False
        for i, a in enumerate(args):
            if isinstance(a, Tensor):
                if a._requires_grad:
                    tracked |= 1 << i
                a = a._data
            elif (kind := operands[i if i < last else last]) and (a is not None or kind == 1):
                convert = convert or type(a) is not np.ndarray or a.dtype not in NATIVE
            plain.append(a)
        try:
            if scalars:
                for i, _, _, quick in scalars:
                    if type(args[i]) not in quick:
                        args = op.admit(args, plain)
                        break
            out = forward(*(op.arrays(plain) if convert else plain))
        except Exception as error:
            out = op.again(error, args, plain)
        if type(out) is not np.ndarray:
            out = np.asarray(out)
        version, home = [0], out.base
        # NumPy's views know the array that owns their memory; only other ways to look at it take a closer look.
        near = home is not None and (type(home) is not np.ndarray or not out.flags.writeable)
        for a in plain:
            if a is out or (home is not None and type(a) is np.ndarray and (a is home or a.base is home)):
                near = True
        for i in loose:
            near = near or type(plain[i]) in (list, tuple, dict)
        if near:
            if view and (shared := version_of(out, args)):
                version = shared
            elif borrows(out, plain):  # the caller may write to it
                out = op.copied(out, args)
        node = None
        if tracked and (recording() or is_grad_enabled()):
            plan = plans.get(tracked)
            if plan is None:
                if len(plans) > 99:  # as of stack() for lists of many lengths: a plan is as long as its list
                    plans.clear()
                plan = plans[tracked] = Plan(op, tracked)
            if plan.positions:
                node = plan.record(args, plain, out, version)
        result = Tensor._wrap(out, node, version)
        hear = listener()
        if hear is not None:
            hear(op, args, result)
        return result

    forward.__annotations__["return"] = Tensor  # what callers get, and what help() shall say
    REGISTRY[f"{forward.__module__}.{op.name}"] = op
    for name in ("vjp", "check"):
        setattr(call, name, getattr(op, name))
    call.op = op  # type: ignore[attr-defined]  # a function may carry attributes; mypy has no word for it
    return call
