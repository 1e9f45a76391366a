"""The door of every public function: how a call may be written, and what is said when it goes wrong.

Primitives, composites and constructors stand behind it, so that their bodies see plain Python options, and pass no name
of theirs to the checks. An option is checked by its annotation: ``int``, ``float``, ``bool``, ``str``, a range such as
``Positive`` or a ``Literal`` (see ``checks.py``), each also beside ``None``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from ..checks import Check, integer, ranged
from ..errors import ArgumentError, DTypeError, TinygradLenetError, brief, given, named

F = TypeVar("F", bound=Callable[..., Any])
VARIADIC = 4  # the flag of a code object that has *args
BY_NAME = 1 << 30  # the position of a parameter that is given by name only
ORDINARY = (ValueError, TypeError, IndexError, MemoryError, OverflowError)  # others may be a fault of the op itself
# Both spellings of the field: PyTorch's on the left, the one that the declarations use on the right.
SPELLINGS = {"input": "x", "other": "y", "dim": "axis", "keepdim": "keepdims"}
_QUICK: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "str": (str,),
    "None": (type(None),),
}
_EXPECTED = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a word", "None": "None"}


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, in a hundredth of the time of ``inspect.signature``."""
    code = getattr(function, "__code__", None)
    if code is None:  # a partial, an object with __call__
        import inspect

        return list(inspect.signature(function).parameters)
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & VARIADIC)])


class Option(NamedTuple):
    """A parameter that is a number, a flag or a word."""

    position: int
    name: str
    kinds: tuple[str, ...]
    quick: frozenset[type]  # types that need no second look
    check: Check | None  # of a ranged parameter

    def admit(self, value: Any) -> Any:
        """The value as a Python object: NumPy's numbers would widen float32, and overflow where they are small."""
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
                return plain if type(plain) is int else float(plain)
            if kind == "bool" and isinstance(plain, int) and plain in (0, 1):
                return bool(plain)
            if kind == "str" and isinstance(plain, str):
                return str(plain)
        expected = " or ".join(_EXPECTED[kind] for kind in self.kinds)
        error = ArgumentError if "str" in self.kinds else DTypeError  # an unknown choice, or a wrong type
        raise error(f"{self.name} must be {expected}, got {brief(value)}")


class Signature:
    """How a function may be called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        code = function.__code__
        given: tuple[Any, ...] = function.__defaults__ or ()
        self.function, self.name, self.names = function, function.__name__, parameters(function)
        self.variadic = bool(code.co_flags & VARIADIC)
        self.arity = code.co_argcount
        self.required = self.arity - len(given)
        default_of: dict[str, Any] = dict(zip(self.names[: self.arity][::-1], given[::-1], strict=False))
        default_of |= function.__kwdefaults__ or {}
        other = {theirs: ours for theirs, ours in SPELLINGS.items() if ours in self.names and theirs not in self.names}
        self.spellings = other
        self.options: list[Option] = []
        for i, name in enumerate(self.names[: self.arity + code.co_kwonlyargcount]):
            annotation = function.__annotations__.get(name, "")
            kinds = tuple((annotation.__name__ if isinstance(annotation, type) else str(annotation)).split(" | "))
            checks = [ranged(function.__globals__.get(kind, kind)) for kind in kinds]  # annotations are strings
            check = next((check for check in checks if check is not None), None)
            quick: set[type] = set()
            if check is None:
                if not all(kind in _QUICK for kind in kinds):
                    continue
                quick = {kind for word in kinds for kind in _QUICK[word]}
                quick |= {type(default_of[name])} if name in default_of else set()
            position = i if i < self.arity else BY_NAME
            self.options.append(Option(position, name, kinds, frozenset(quick), check))

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The function's result, with both spellings of its names, and its options as Python objects."""
        for theirs in self.spellings.keys() & kwargs.keys() if kwargs else ():
            ours = self.spellings[theirs]
            if ours in kwargs:
                raise TypeError(f"{self.name}() got {ours!r} twice, also as {theirs!r}")
            kwargs[ours] = kwargs.pop(theirs)
        for option in self.options:
            i, key, _, quick, _ = option
            if i < len(args):
                if type(args[i]) not in quick:
                    args = (*args[:i], option.admit(args[i]), *args[i + 1 :])
            elif key in kwargs and type(kwargs[key]) not in quick:
                kwargs[key] = option.admit(kwargs[key])
        return self.function(*args, **kwargs)

    def said(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The arguments of a call, for a message."""
        places = self.names[: self.arity] + self.names[-1:] * 99 * self.variadic
        return given([*places[: len(args)], *kwargs], [*args, *kwargs.values()])


def checked(function: F) -> F:
    """Put a function, a method or a constructor behind the door: its options are checked by their annotations, and its
    errors begin with its name, or with that of the object's class. Errors that name an op already stay as they are.
    """
    signature: Signature | None = None
    own_name, method = function.__name__, parameters(function)[:1] == ["self"]
    written = f"{function.__qualname__}()"  # the name in Python's own errors about the arguments

    def name_of(args: tuple[Any, ...]) -> str:
        if not method:
            return own_name
        kind = type(args[0]).__name__
        return kind if own_name.startswith("__") else f"{kind}.{own_name}"

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal signature
        if signature is None:  # at the first call, when the names in annotations exist
            signature = Signature(function)
        try:
            return signature.call(args, kwargs)
        except TinygradLenetError as error:
            name = name_of(args)
            # Of its own methods, the one that the caller called is named.
            if error.caller and not (method and error.caller.startswith(f"{type(args[0]).__name__}.")):
                raise
            error.caller = error.caller or name  # so that a colon in the message is not taken for the end of a name
            raise named(error, name)  # noqa: B904  # it is the same error
        except TypeError as error:
            if args and str(error).startswith(written):
                error.args = (str(error).replace(written, f"{name_of(args)}()", 1),)
            raise

    return cast("F", call)
