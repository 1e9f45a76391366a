"""The door of every public function: it checks and converts the arguments, and puts the name before an error.

Primitives, composites and constructors go through it. Their bodies receive plain Python options, and need not pass
their names to checks. An option is checked by its annotation: ``int``, ``float``, ``bool``, ``str``, a range such as
``Positive`` or a ``Literal`` (see ``checks.py``), each also beside ``None``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import numpy as np

from ..checks import Check, integer, ranged
from ..errors import ArgumentError, DTypeError, GradientError, TinygradLenetError, brief, given, named, translated
from .python_object import PythonObject, to_array
from .values import NATIVE

F = TypeVar("F", bound=Callable[..., Any])
VARIADIC = 4  # the flag of a code object that has *args
BY_NAME = 1 << 30  # the position of a parameter that is given by name only
ORDINARY = (ValueError, TypeError, IndexError, MemoryError, OverflowError)  # others may be a fault of the op itself
# PyTorch's names of arguments, and the names that the declarations use. Callers may use both.
_SPELLINGS = "input:x other:y dim:axis dims:axis dims:axes dim1:axis1 dim2:axis2 keepdim:keepdims shifts:shift "
_SPELLINGS += "end:stop steps:num correction:ddof k:diagonal"
SPELLINGS = [spelling.split(":") for spelling in _SPELLINGS.split()]
_QUICK: dict[str, set[type]] = {"int": {int}, "float": {float, int}, "bool": {bool}, "str": {str}, "None": {type(None)}}
_MISSING: Any = object()
_ndarray = np.ndarray
# Words in annotations: an option whose annotation has no other words holds no arrays.
_PLAIN = {"int", "float", "bool", "str", "None", "class", "tuple", "Pair", "Padding", "Axis", "DTypeLike"}
_EXPECTED = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a word", "None": "None"}


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, in a hundredth of the time of ``inspect.signature``."""
    code = getattr(function, "__code__", None)
    if code is None:  # a partial, an object with __call__
        import inspect

        return list(inspect.signature(function).parameters)
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & VARIADIC)])


def trusted(function: Any) -> bool:
    """Return True if a function belongs to the package."""
    return str(getattr(function, "__module__", "")).partition(".")[0] == __name__.partition(".")[0]


class Option(NamedTuple):
    """A parameter that is a number, a boolean or a string."""

    position: int
    name: str
    kinds: tuple[str, ...]
    quick: frozenset[type]  # types that pass unchecked
    check: Check | None  # of a ranged parameter
    default: Any

    def admit(self, value: Any) -> Any:
        """The value as a Python object: NumPy's scalars could widen float32 or overflow."""
        if self.check is not None:
            return None if value is None and "None" in self.kinds else self.check(self.name, value)
        plain = value
        scalar = isinstance(getattr(value, "dtype", None), np.dtype) and value.shape == ()
        if scalar and not getattr(value, "requires_grad", False):
            plain = value.item()
        for kind in self.kinds:
            if kind == "int" and not isinstance(plain, bool) and hasattr(plain, "__index__"):
                return integer(self.name, plain)
            if kind == "float" and isinstance(plain, (bool, int, float)):
                return float(plain) if isinstance(plain, (bool, float)) else int(plain)
            if kind == "bool" and isinstance(plain, int) and plain in (0, 1):
                return bool(plain)
            if kind == "str" and isinstance(plain, str):
                return str(plain)
        expected = " or ".join(_EXPECTED[kind] for kind in self.kinds)
        error = ArgumentError if "str" in self.kinds else DTypeError  # an unknown choice, or a wrong type
        raise error(f"{self.name} must be {expected}, got {brief(value)}")


@functools.cache
def _operand(annotation: str) -> int:
    """1 if an annotation declares a tensor as ``Array``, 2 if as ``Array | None``, else 0."""
    first, *others = annotation.split(" ")
    return (1 + bool(others)) * (first.split(".")[-1] == "Array")


def _text(annotation: Any) -> str:
    """The annotation as its author wrote it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


@functools.cache
def _kinds(text: str) -> tuple[tuple[str, ...], frozenset[type], bool]:
    """The words of an annotation; the types that pass unchecked; whether such options hold no arrays."""
    kinds = tuple(text.split(" | "))
    known = all(kind in _QUICK for kind in kinds)
    quick = frozenset[type]().union(*(_QUICK[kind] for kind in kinds)) if known else frozenset[type]()
    return kinds, quick, {*re.findall(r"\w+", text)} <= _PLAIN


class Signature:
    """The parameters of a function: names, defaults, annotations, and how a call is turned into arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        code = function.__code__
        defaults: tuple[Any, ...] = function.__defaults__ or ()
        self.function, self.name, self.names = function, function.__name__, parameters(function)
        self.trusted = trusted(function)
        self.listing = ", ".join(self.names)
        self.variadic = bool(code.co_flags & VARIADIC)
        self.arity = code.co_argcount
        self.most = 1 << 30 if self.variadic else self.arity
        self.required = self.arity - len(defaults)
        self.defaults = (_MISSING,) * self.required + defaults
        self.read_annotations()

    def read_annotations(self) -> None:
        """Set the attributes that depend on annotations."""
        function, code = self.function, self.function.__code__
        default_of = dict(zip(self.names[self.required :], self.defaults[self.required :], strict=False))
        default_of |= function.__kwdefaults__ or {}
        texts = [_text(function.__annotations__.get(name, "Any")) for name in self.names]
        operands = [_operand(text) for text in texts]
        containers: list[int] = []  # the positions of options that may be lists or dicts of arrays
        options: list[Option] = []
        for i, name in enumerate(self.names[: self.arity + code.co_kwonlyargcount]):
            if operands[i]:
                continue
            kinds, quick, plain = _kinds(texts[i])
            check = None
            if quick:
                quick |= {type(default_of[name])} if name in default_of else set()
            else:
                quick = frozenset({type(None)} if "None" in kinds else ())
                checks = [ranged(function.__globals__.get(kind, kind)) for kind in kinds]  # annotations are strings
                check = next((check for check in checks if check is not None), None)
                if check is None:
                    if i < self.arity and not plain:
                        containers.append(i)
                    continue
            position = i if i < self.arity else BY_NAME
            options.append(Option(position, name, kinds, quick, check, default_of.get(name, _MISSING)))
        self.spellings = {a: b for a, b in SPELLINGS if b in self.names and a not in self.names}
        self.operands, self.containers, self.options = operands, containers, options

    # For primitives: all arguments by position

    def compute(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], list[Any], int, Any]:
        """Call the function with arrays and plain options.

        Returns the arguments by position, the same as arrays and plain options, a bit mask of those that require a
        gradient (bit i is argument i), and the function's result.
        """
        if kwargs or len(args) != self.arity:
            fits = not kwargs and self.required <= len(args) <= self.most
            args = args + self.defaults[len(args) :] if fits else self.bind(args, kwargs)
        operands, last = self.operands, len(self.operands) - 1
        plain, tracked, convert = [], 0, False
        for i, a in enumerate(args):
            if isinstance(a, PythonObject):
                if a._requires_grad:
                    tracked |= 1 << i
                a = a._data
            elif type(a) is not _ndarray or a.dtype not in NATIVE:
                kind = operands[i if i < last else last]
                convert = convert or kind == 1 or (kind == 2 and a is not None)
            plain.append(a)
        try:
            for i, _, _, quick, _, _ in self.options:
                if type(args[i]) not in quick:
                    args = self._admitted(args, plain)
                    break
            return args, plain, tracked, self.function(*(self.arrays(plain) if convert else plain))
        except Exception as error:
            return args, plain, tracked, self._again(error, args, plain)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments by position, defaults filled in."""
        if len(args) > self.arity and not self.variadic:
            raise TypeError(f"{self.name}() takes {self.arity} arguments ({self.listing}), {len(args)} were given")
        filled = [*args, *self.defaults[len(args) : self.arity]]
        for name, value in self.respelled(kwargs).items():
            if name not in self.names:
                raise TypeError(f"{self.name}() has no argument {brief(name)}; it has {self.listing}")
            if self.names.index(name) < len(args):
                raise TypeError(f"{self.name}() got {name!r} twice, by position and by name")
            filled[self.names.index(name)] = value
        for name, value in zip(self.names, filled[: self.required], strict=False):
            if value is _MISSING:
                raise TypeError(f"{self.name}() needs the argument {name!r}; it takes {self.listing}")
        return tuple(filled)

    def respelled(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments given by name, under the names of the declaration."""
        for theirs, ours in self.spellings.items():
            if theirs in kwargs:
                if ours in kwargs:
                    raise TypeError(f"{self.name}() got {ours!r} twice, also as {theirs!r}")
                kwargs[ours] = kwargs.pop(theirs)
        return kwargs

    def _admitted(self, args: tuple[Any, ...], plain: list[Any]) -> tuple[Any, ...]:
        found = list(args)
        for option in self.options:
            i = option.position
            if type(args[i]) not in option.quick:
                found[i] = plain[i] = option.admit(args[i])
        return tuple(found)

    def arrays(self, plain: list[Any]) -> list[Any]:
        """The operands as arrays. Numbers stay if an array is among the arguments, else they become float32."""
        alone = not any(isinstance(a, (np.ndarray, np.generic)) for a in plain)
        for i, a in enumerate(plain):
            number = isinstance(a, (bool, int, float)) or (isinstance(a, np.generic) and a.dtype in NATIVE)
            if self.is_operand(i, a) and (alone or not number):
                try:
                    plain[i] = to_array(a)
                except TinygradLenetError as error:
                    raise named(error, self.name, about=f"{self.name_of(i)}: ") from None
        return plain

    def is_operand(self, position: int, value: Any) -> bool:
        """True if an argument must become an array: it is declared ``Array``, or ``Array | None`` and is not None."""
        kind = self.operands[min(position, len(self.operands) - 1)]
        return kind == 1 or (kind == 2 and value is not None)

    def _again(self, error: Exception, args: tuple[Any, ...], plain: list[Any]) -> Any:
        """Call again with arrays if the body expected an array and received a number; else explain the error."""
        if isinstance(error, AttributeError) and any(isinstance(a, (bool, int, float)) for a in plain):
            at = [i for i, a in enumerate(plain) if self.is_operand(i, a)]
            try:
                for i, a in zip(at, beside(*[plain[i] for i in at]), strict=True):
                    plain[i] = a
                return self.function(*self.arrays(plain))
            except Exception as found:
                error = found
        return self.explain(error, given(self.names, args))

    # For composites, constructors and methods: as the user called them

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the function with its own spellings of the names, and with options as Python objects."""
        if kwargs:
            kwargs = self.respelled(kwargs)
        for option in self.options:
            i, key, _, quick, _, default = option
            if i < len(args):
                if type(args[i]) not in quick and args[i] is not default:
                    args = (*args[:i], option.admit(args[i]), *args[i + 1 :])
            elif key in kwargs and type(kwargs[key]) not in quick and kwargs[key] is not default:
                kwargs[key] = option.admit(kwargs[key])
        return self.function(*args, **kwargs)

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The arguments of a call, for a message."""
        places = self.names[: self.arity] + self.names[-1:] * 99 * self.variadic
        return given([*places[: len(args)], *kwargs], [*args, *kwargs.values()])

    def explain(self, error: Exception, arguments: str) -> NoReturn:
        """Raise the error as one of the package, with the function's name and arguments."""
        if isinstance(error, TinygradLenetError):
            raise named(error, self.name, arguments)
        hidden = self.trusted and isinstance(error, ORDINARY)  # the author of an op needs to see the line of its body
        raise translated(error, self.name, arguments) from (None if hidden else error)

    # For the rules of a primitive

    def name_of(self, position: int) -> str:
        """The name of the argument at a position; all of ``*args`` share a name."""
        return self.names[min(position, len(self.names) - 1)]

    def check_rules(self, rules: dict[str, Any]) -> None:
        """Raise if a rule is for an unknown argument, is not a function, or names an unknown value."""
        for name, rule in rules.items():
            if name not in self.names:
                raise ArgumentError(f"{self.name}.vjp: no argument {name!r}; it has {self.listing}")
            if rule is not None and not callable(rule):
                raise DTypeError(f"{self.name}.vjp: the rule of {name!r} must be a function or None, got {brief(rule)}")
            for word in parameters(rule)[1:] if rule else ():
                self.source(word)

    def source(self, word: str) -> tuple[str, int]:
        """Where the value that a rule names comes from: its kind, and the position of the argument."""
        if word in ("out", "position"):
            return (word, 0)
        if word in self.names:
            return ("arg", self.names.index(word))
        if word.removesuffix("_shape") in self.names:
            return ("shape", self.names.index(word.removesuffix("_shape")))
        allowed = f"'out', one of {self.listing}, or one of these followed by '_shape'"
        raise ArgumentError(f"{self.name}.vjp: a rule asks for {word!r}; after the gradient it may name {allowed}")

    def origin(self, kind: str, position: int) -> str:
        """In words, where a saved value comes from; see :meth:`source`."""
        return "its output" if kind == "out" else f"argument {self.name_of(position)!r}"

    def rule_of(self, position: int, rules: dict[str, Any]) -> Any:
        """The rule of an argument; None if its gradient is 0. Raise if no rule was declared."""
        name = self.name_of(position)
        if name not in rules:
            raise GradientError(
                f"{self.name}: argument {name!r} requires a gradient, but there is no rule for it (rules: "
                f"{', '.join(rules) or 'none'}); add one with {self.name}.vjp({name}=...), or pass {name}.detach()"
            )
        return rules[name]


class Unread(Signature):
    """A signature that reads the annotations at the first call. So importing the package takes a tenth less time."""

    def read_annotations(self) -> None:
        """Wait."""

    def __getattr__(self, name: str) -> Any:
        Signature.read_annotations(self)  # first: another thread, or an interrupt, may come in between
        self.__class__ = Signature  # type: ignore[assignment]  # in which attributes are found faster
        return getattr(self, name)


def beside(*values: Any) -> list[Any]:
    """The values, with Python numbers as arrays of the dtype to which NumPy 2 promotes them beside the others.

    >>> beside(np.ones(2), 0.1, [0.1])
    [array([1., 1.]), array(0.1), [0.1]]
    """
    dtypes = [v.dtype for v in values if isinstance(v, (PythonObject, np.ndarray, np.generic))]
    if not dtypes:
        return list(values)
    numbers = (bool, int, float)  # np.float64 is a float as well, but has a dtype
    return [
        to_array(v, np.result_type(v, *dtypes)) if isinstance(v, numbers) and not isinstance(v, np.generic) else v
        for v in values
    ]


def renamed(error: Exception, function: Callable[..., Any], name: str) -> None:
    """Let Python's error about the arguments of a method name the object's class, which may inherit the method."""
    written = f"{function.__qualname__}()"
    if str(error).startswith(written):
        error.args = (str(error).replace(written, f"{name}()", 1),)


def checked(function: F) -> F:
    """Put a function, a method or a constructor behind the door: its options are checked by their annotations, and its
    errors begin with its name, or with that of the object's class. Errors that name an op already stay as they are.
    """
    signature: Signature | None = None
    own_name = function.__name__
    method = parameters(function)[:1] == ["self"]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal signature
        if signature is None:  # at the first call, when the names in annotations exist
            signature = Signature(function)
        kind = type(args[0]).__name__ if method and args else ""
        name = kind if own_name.startswith("__") else f"{kind}.{own_name}".removeprefix(".")
        try:
            return signature.call(args, kwargs)
        except TinygradLenetError as error:
            # If methods of one class call each other, the error names the outermost.
            if error.caller and not (method and error.caller.startswith(f"{kind}.")):
                raise
            raise named(error, name)  # noqa: B904  # it is the same error
        except MemoryError as error:
            raise translated(error, name, signature.given(args, kwargs)) from None
        except TypeError as error:
            renamed(error, function, name)
            raise

    return cast("F", call)
