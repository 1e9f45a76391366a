"""Calls of the user's own bodies and rules: they receive read-only arguments, and their mistakes are explained.

The bodies and rules of the package are trusted, and are called directly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, GradientError, TinygradLenetError, UnsupportedError
from .names import METHODS
from .signature import ORDINARY, trusted
from .tensor import Tensor

BODY, RULE = "a body gets NumPy arrays", "a rule gets NumPy arrays (Tensors only with create_graph=True)"
_COPY = "bodies and rules must not write to their arguments: copy first, x = np.copy(x), or compute anew, x = 2 * x"
_CONFUSED = re.compile("argument|counterpart|an array would lose|out= would go")  # in errors of NumPy and of Tensors
_ARRAYS = (np.ndarray, np.generic, Tensor)


def guarded(function: Callable[..., Any], who: str, gets: str) -> Callable[..., Any]:
    """The function, called with read-only arguments; ``who`` and ``gets`` describe it and them in messages."""

    def call(*values: Any) -> Any:
        try:
            return function(*map(readonly, values))
        except Exception as error:
            raise _explained(error, who, gets)  # noqa: B904  # its cause is set

    return call


def readonly(value: Any) -> Any:
    """An argument that cannot be written to: a view of an array, or of a Tensor that requires no gradient."""
    if isinstance(value, np.ndarray):
        value = value.view()
        value.flags.writeable = False
    elif isinstance(value, Tensor) and not value._requires_grad:
        value = Tensor._wrap(value.numpy(), None, value._version)
    elif type(value) in (list, tuple) and any(isinstance(v, _ARRAYS) for v in value):
        value = type(value)(map(readonly, value))
    return value


def _explained(error: Exception, who: str, gets: str) -> Exception:
    """The error to raise: another one if arrays were taken for Tensors or vice versa, or an argument written to."""
    text, word = str(error), getattr(error, "name", None)
    lacking = isinstance(getattr(error, "obj", None), _ARRAYS)  # an attribute
    if isinstance(error, (*ORDINARY, GradientError)) and ("read-only" in text or "in place" in text):
        advice = _COPY
    elif lacking or (isinstance(error, (TypeError, GradientError, UnsupportedError)) and _CONFUSED.search(text)):
        use = "use operators, and functions such as tl.exp, which take"
        if lacking and word in METHODS:
            use = f"write {'tl.' * trusted(METHODS[word])}{word}(...), which takes"
        advice = f"{gets}: {use} arrays and Tensors"
    else:
        return error
    kind: Any = ArgumentError if isinstance(error, ValueError) else DTypeError
    better = (type(error) if isinstance(error, TinygradLenetError) else kind)(f"{who}: {text}; {advice}")
    better.caller, better.__cause__ = who, error
    return better
