"""The exceptions of the package.

    TinygradLenetError
    ├── ShapeError      (ValueError)    shapes that do not fit together
    ├── DTypeError      (TypeError)     a dtype or type that cannot be used here
    ├── ArgumentError   (ValueError)    an argument outside its range, or an unknown choice
    │   └── TooLargeError (OverflowError) a number that its dtype cannot hold
    ├── OutOfRangeError (IndexError)    an index beyond the end of an axis
    ├── AxisError       (both of these) an axis that the tensor does not have
    ├── OutOfMemoryError (MemoryError)  a result that is larger than the memory
    ├── GradientError   (RuntimeError)  a gradient that does not exist, or a graph that is gone
    ├── AnomalyError    (FloatingPointError) ``detect_anomaly`` found a NaN or an infinity
    ├── UnsupportedError (NotImplementedError) a feature of another library that this one lacks
    ├── DataError       (ValueError)    a damaged file, or one of another format
    └── DownloadError   (OSError)       no mirror gave the right file

Each also derives from the built-in exception in brackets, so ``except ValueError`` keeps working. Every message says
what was given, what was expected, and how to put it right. Messages are ASCII, so that any terminal prints them; only
names and values of the user's own, such as a file's name, are repeated as they are. The functions below build the
messages.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["AnomalyError", "ArgumentError", "AxisError", "DTypeError", "DataError", "DownloadError", "GradientError"]
__all__ += ["OutOfMemoryError", "OutOfRangeError", "ShapeError", "TinygradLenetError", "TooLargeError"]
__all__ += ["UnsupportedError"]


def printable(text: str, most: int = 2000) -> str:
    """Text for a message, on one line and at most that long. Control characters, which could fool a terminal, become
    escapes.

    >>> printable("a\\n\\x1b[31mb"), printable("9" * 100, 8)
    ('a \\\\x1b[31mb', '9999 ... 99')
    """
    if len(text) > most:
        text = f"{text[: most // 2]} ... {text[-most // 4 :]}"
    if text.isprintable():
        return text
    text = re.sub(r"\s*\n\s*", " ", text)
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= most else printable(text, most)


class TinygradLenetError(Exception):
    """Base of every exception that the package raises on purpose."""

    caller = ""  # the public function that the message names; "?" if the user's code raised the error
    plain: Callable[[str], str] = staticmethod(printable)  # a message's text as it is shown

    def __init__(self, *args: object) -> None:
        super().__init__(*(self.plain(a) if isinstance(a, str) else a for a in args))

    def add_note(self, note: str) -> None:
        """Add a line that a traceback shows after the message."""
        super().add_note(printable(note))


class ShapeError(TinygradLenetError, ValueError):
    """Shapes do not fit together."""


class DTypeError(TinygradLenetError, TypeError):
    """A dtype, or a type, cannot be used here."""


class ArgumentError(TinygradLenetError, ValueError):
    """An argument lies outside its range, or names an unknown choice."""


class TooLargeError(ArgumentError, OverflowError):
    """A number that its dtype cannot hold."""


class OutOfRangeError(TinygradLenetError, IndexError):
    """An index lies beyond the end of its axis."""


class AxisError(ArgumentError, OutOfRangeError):
    """The tensor does not have that axis; as NumPy's of the same name, a ValueError and an IndexError."""


class OutOfMemoryError(TinygradLenetError, MemoryError):
    """A result, or what it takes to compute it, is larger than the memory."""


class GradientError(TinygradLenetError, RuntimeError):
    """A gradient does not exist, or the graph that it needs is gone or was changed."""


class AnomalyError(TinygradLenetError, FloatingPointError):
    """A value or a gradient is NaN or infinite, and ``detect_anomaly`` is watching."""


class UnsupportedError(TinygradLenetError, NotImplementedError):
    """Another library or format has this feature, and this package does not."""


class DataError(TinygradLenetError, ValueError):
    """A file is damaged, or has another format."""


class DownloadError(TinygradLenetError, OSError):
    """No mirror served the right file. The message has a line for each mirror."""

    plain = staticmethod(lambda text: "\n".join(map(printable, text.split("\n"))))


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlevel = 3


def brief(value: Any) -> str:
    """A short text for a value in a message."""
    try:
        if isinstance(getattr(value, "shape", None), tuple) and hasattr(value, "dtype"):
            text = repr(value) if not value.shape else f"{type(value).__name__} {value.dtype} of shape {value.shape}"
        else:
            text = _short.repr(value)
        return printable(text, 400)
    except Exception:
        return f"a {type(value).__name__}"


def listing(names: Iterable[object]) -> str:
    """Names for a message; of many, the first and their number.

    >>> listing("abc"), listing(range(1_000))[-20:]
    ('a, b, c', ', ... (1,000 in all)')
    """
    listed = [*names]
    text = ", ".join(printable(str(name), 80) for name in listed[:20])
    return text if len(listed) <= 20 else f"{text}, ... ({len(listed):,} in all)"


def as_cause(error: BaseException) -> BaseException | None:
    """The error as the cause of another, which quotes it; None if a traceback would print a long text."""
    texts = [str(error), str(error.__cause__), str(error.__context__)]
    return error if all(len(text) <= 2000 and text.replace("\n", "").isprintable() for text in texts) else None


def given(names: Iterable[str], values: Iterable[Any]) -> str:
    """The arguments of a call, for a message."""
    return "; ".join(f"{name}={brief(value)}" for name, value in zip(names, values, strict=False))


def named(error: TinygradLenetError, caller: str, arguments: str = "", about: str = "") -> TinygradLenetError:
    """The same error, whose message begins with the public function that was called, and not with an op inside it.

    ``arguments`` describes the function's arguments. It is added to the error of an op, whose reader does not know
    them; the function's own checks mention them already. ``about`` names the argument that the error is about.
    """
    text = str(error)
    add = arguments and error.caller and "(given: " not in text
    text = f"{caller}: {about}{text.removeprefix(f'{error.caller}: ') if error.caller else text}"
    error.args = (error.plain(f"{text} (given: {arguments})" if add else text),)
    error.caller = caller
    return error


class _Foreign:
    """A block that runs the user's code or a backward pass: errors raised in it keep their message at every door.

    >>> with foreign:
    ...     int("1")
    1
    """

    def __enter__(self) -> None:
        """Do nothing: the object has no state, so all blocks share it."""

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if isinstance(error, TinygradLenetError):
            error.caller = error.caller or "?"


foreign = _Foreign()


_KINDS: dict[type[Exception], type[TinygradLenetError]] = {
    MemoryError: OutOfMemoryError,
    IndexError: OutOfRangeError,
    TypeError: DTypeError,
    AttributeError: DTypeError,
    ValueError: ShapeError,
    OverflowError: TooLargeError,
}


def translated(error: Exception, name: str, arguments: str) -> TinygradLenetError:
    """An exception of Python or NumPy as one of the package, with the function's name and arguments."""
    kind = next((ours for theirs, ours in _KINDS.items() if isinstance(error, theirs)), ArgumentError)
    text = "not enough memory" if isinstance(error, MemoryError) and not str(error) else str(error)
    found = kind(f"{name}: {text} (given: {arguments})")
    found.caller = name
    return found
