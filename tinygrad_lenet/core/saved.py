"""Protection of data: copies of saved values, the error if one has changed, and the memory of results.

Bodies and rules of the user's own ops receive read-only arguments, and their results are copied (``guarded``). Those of
the package are trusted, and are called directly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError, GradientError, TinygradLenetError, UnsupportedError, given, translated
from .names import METHODS, import_all, public
from .signature import ORDINARY, trusted
from .tensor import Tensor, Version
from .values import flattened, is_sealed, mapped

BODY, RULE = "a body gets NumPy arrays", "a rule gets NumPy arrays (Tensors only with create_graph=True)"
_COPY = "bodies and rules must not write to their arguments: copy first, x = np.copy(x), or compute anew, x = 2 * x"
_CONFUSED = re.compile("argument|counterpart|an array would lose|out= would go")  # in errors of NumPy and of Tensors
_ARRAYS = (np.ndarray, np.generic, Tensor)


def save(value: Any, plain: Any) -> tuple[Any, Any]:
    """The argument to save for the backward pass, and the version of its data.

    ``plain`` is the argument as an array. A Tensor is saved itself, since it counts its changes. Data that the caller
    could change uncounted is copied.
    """
    if isinstance(value, Tensor):
        version = value._version[0]
        return (value, version) if version >= 0 else (value.clone(), 0)
    if type(plain) not in (np.ndarray, list, tuple):
        return plain, 0
    try:
        return mapped(plain, lambda v: v.copy() if isinstance(v, np.ndarray) and not is_sealed(v) else v), 0
    except RecursionError:
        raise ArgumentError("an argument is a list that holds itself, or lists too deep to be copied") from None


def changed(what: str, shape: tuple[int, ...], version: Version) -> GradientError:
    """The error for a saved value that was changed in place."""
    count, line = version
    how = "was changed in place" if count >= 0 else "was shared with another library, which may change it,"
    return GradientError(
        f"{what}, of shape {shape}, {how} after the op was recorded, so the gradient would be wrong: at {line}; "
        "do that after backward(), or give the op a clone()"
    )


def settle(op: Any, args: tuple[Any, ...], plain: list[Any], out: Any) -> tuple[Any, Version]:
    """The output of an op in its own memory, copied if necessary, and its version counter.

    If the op is declared a view, its output may share the memory of a Tensor, and then shares its counter.
    """
    home = out.base
    if op.view:
        for a in args:
            if isinstance(a, Tensor):
                array = a._data
                if array is home or (home is not None and array.base is home) or np.may_share_memory(array, out):
                    if not op.signature.trusted and array.flags.writeable:  # the body received a read-only view
                        with suppress(ValueError):  # elements may share memory, as those of np.broadcast_to
                            out.flags.writeable = out.nbytes <= np.ptp(np.lib.array_utils.byte_bounds(out))
                    return out, a._version
    if borrows(out, plain):  # memory that the caller may write to
        try:
            out = out.copy()
        except MemoryError as error:
            raise translated(error, op.name, given(op.names, args)) from None
    return out, [0]


def viewed(op: Any, args: Any) -> Any:
    """The result of a view op for these arguments, not recorded."""
    args, plain, _, out = op.signature.compute(args, {})
    return op.result(args, plain, 0, out)


def borrows(out: Any, values: Iterable[Any]) -> bool:
    """True if an array is read-only, or shares memory with one of the values or an array in a list or dict there."""
    view = out.base is not None
    for value in flattened(values):
        array = value._data if isinstance(value, Tensor) else value
        if array is out or (view and isinstance(array, np.ndarray) and np.may_share_memory(array, out)):
            return True
    return view and not (out.flags.writeable and out.size)  # np.may_share_memory is False for empty arrays


def guarded(function: Callable[..., Any], who: str, gets: str, view: bool = False) -> Callable[..., Any]:
    """The function, called with read-only arguments. Unless it is declared a view, its result is copied: it may be an
    argument, or an array that the function keeps. ``who`` and ``gets`` describe function and arguments in messages.
    """

    def call(*values: Any) -> Any:
        try:
            found = function(*map(readonly, values))
        except Exception as error:
            raise _explained(error, who, gets)  # noqa: B904  # its cause is set
        if isinstance(found, Tensor) and not any(isinstance(v, Tensor) for v in values):
            found = found._data  # the function called ops with arrays
        return found.copy("K") if isinstance(found, np.ndarray) and not view else found

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
    text = str(error)
    word = getattr(error, "name", None)
    # An attribute. Errors with an answer to the name have no object.
    lacking = isinstance(getattr(error, "obj", None), _ARRAYS) or text.startswith("'Tensor' object has no attribute")
    if isinstance(error, (*ORDINARY, GradientError)) and ("read-only" in text or "in place" in text):
        advice = _COPY
    elif lacking or (isinstance(error, (TypeError, GradientError, UnsupportedError)) and _CONFUSED.search(text)):
        use = "use operators, and functions such as tl.exp, which take"
        import_all()  # which METHODS then lists
        if lacking and word in METHODS and (word in public() or not trusted(METHODS[word])):
            use = f"write {'tl.' * trusted(METHODS[word])}{word}(...), which takes"
        advice = f"{gets}: {use} arrays and Tensors"
    else:
        return error
    kind: Any = ArgumentError if isinstance(error, ValueError) else DTypeError
    better = (type(error) if isinstance(error, TinygradLenetError) else kind)(f"{who}: {text}; {advice}")
    better.caller, better.__cause__ = who, error
    return better
