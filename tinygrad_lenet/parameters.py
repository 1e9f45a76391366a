"""What the annotations of a function say of its parameters: which are numbers, flags or words, and what they may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .arguments import integer
from .errors import ArgumentError, DTypeError, brief

VARIADIC = 4  # the flag of a code object that has *args
_NOWHERE = 1 << 30  # the position of what is given by name only


def parameters(function: Callable[..., Any]) -> list[str]:
    """The names of a function's parameters, at a hundredth of the time of ``inspect.signature``."""
    code = getattr(function, "__code__", None)
    if code is None:  # a partial, an object with __call__
        import inspect

        return list(inspect.signature(function).parameters)
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & VARIADIC)])


class Scalar(NamedTuple):
    """A parameter that is a number, a flag or a word."""

    position: int
    name: str
    kinds: tuple[str, ...]
    quick: frozenset[type]  # what needs no second look

    def admit(self, value: Any, who: str) -> Any:
        """The value as Python has it, since NumPy's numbers would widen float32, and overflow where they are small."""
        plain, number = value, isinstance(getattr(value, "dtype", None), np.dtype) and value.shape == ()
        if number and not getattr(value, "requires_grad", False):
            plain = value.item()
        for kind in self.kinds:
            if kind == "int" and not isinstance(plain, bool) and hasattr(plain, "__index__"):
                return integer(who, self.name, plain)
            if kind == "float" and isinstance(plain, (bool, int, float)):
                return plain if type(plain) is int else float(plain)
            if kind == "bool" and isinstance(plain, int) and plain in (0, 1):
                return bool(plain)
            if kind == "str" and isinstance(plain, str):
                return str(plain)
        expected = " or ".join(_WORDS[kind] for kind in self.kinds)
        kind_of_error = ArgumentError if "str" in self.kinds else DTypeError  # an unknown choice, or a wrong type
        raise kind_of_error(f"{who}: {self.name} must be {expected}, got {brief(value)}")


_QUICK = {"int": [int], "float": [float, int], "bool": [bool], "str": [str], "None": [type(None)]}
_WORDS = {"int": "an integer", "float": "a number", "bool": "True or False", "str": "a word", "None": "None"}


def scalars(function: Callable[..., Any]) -> list[Scalar]:
    """Those parameters whose annotation is made of ``int``, ``float``, ``bool``, ``str`` and ``None`` only."""
    names, defaults, code = parameters(function), function.__defaults__ or (), function.__code__
    default_of: dict[str, Any] = dict(zip(names[: code.co_argcount][::-1], defaults[::-1], strict=False))
    default_of.update(function.__kwdefaults__ or {})
    found: list[Scalar] = []
    for i, name in enumerate(names[: code.co_argcount + code.co_kwonlyargcount]):
        annotation = function.__annotations__.get(name, "")
        kinds = tuple((annotation.__name__ if isinstance(annotation, type) else str(annotation)).split(" | "))
        if all(kind in _QUICK for kind in kinds):
            quick = {kind for word in kinds for kind in _QUICK[word]}
            quick |= {type(default_of[name])} if name in default_of else set()
            found.append(Scalar(i if i < code.co_argcount else _NOWHERE, name, kinds, frozenset(quick)))
    return found
