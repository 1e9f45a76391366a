"""Texts and values of a size, or with characters, that no message of an error may repeat; and the judge of messages."""

import decimal
import pathlib

import numpy as np

import tinygrad_lenet as tl

LONGEST = 2000  # characters of a message, a note, or the message of a cause
LONG = "x" * 50_000
ESCAPES = "\x1b[2J\x1b]0;title\x07\r\n\tTraceback\n\x00\u202e\ud800\x7f\x9b31m"  # what a terminal would obey


class Verbose:
    """An object that says much of itself, in many lines."""

    def __repr__(self):
        return (ESCAPES + "y" * 80) * 2000


class Talkative(Exception):
    """An error of the caller's own, which says much."""

    def __str__(self):
        return (ESCAPES + "z" * 80) * 2000


class Failing:
    """Fails with a long message whatever one asks it for."""

    def fail(self, *args, **kwargs):
        raise Talkative

    __array__ = __index__ = __float__ = __bool__ = __len__ = __iter__ = __fspath__ = __hash__ = __eq__ = fail
    __getitem__ = __contains__ = keys = state_dict = parameters = fail

    def __repr__(self):
        return LONG


def nested(depth):
    return LONG if not depth else [nested(depth - 1)] * 4


VALUES = {
    "a long word": lambda: LONG,
    "escapes": lambda: ESCAPES,
    "long escapes": lambda: ESCAPES * 3_000,
    "bytes": lambda: LONG.encode(),
    "a list of words": lambda: [LONG, ESCAPES] * 50,
    "a list of numbers": lambda: [1.5] * 20_000,
    "integers": lambda: tuple(range(20_000)),
    "a huge integer": lambda: 10**5000,
    "a huge negative integer": lambda: -(10**5000),
    "a list of huge integers": lambda: [10**5000, 1],
    "a decimal": lambda: decimal.Decimal("9" * 50_000),
    "a dict": lambda: {LONG + str(i): ESCAPES for i in range(30)},
    "nested": lambda: nested(3),
    "an array of words": lambda: np.array([LONG, ESCAPES]),
    "a structured array": lambda: np.zeros(2, [(f"{ESCAPES[:5]}{i}" + "f" * 200, "f4") for i in range(100)]),
    "an array of objects": lambda: np.array([Verbose(), LONG], object),
    "a dtype": lambda: np.dtype([("f" * 20_000, "f4")]),
    "a path": lambda: pathlib.Path(LONG),
    "verbose": Verbose,
    "failing": Failing,
    "an error": Talkative,
    "a class": lambda: type("K" * 100_000, (), {}),
    "a large tensor": lambda: tl.arange(1100),
    "a tensor of many axes": lambda: tl.zeros((1,) * 60),
}


def chain(error):
    """The error, and what a traceback prints before it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def check_message(error, lines=1):
    """Short, on one line and without control characters: what a traceback prints."""
    for one in chain(error):
        if isinstance(one, tl.TinygradLenetError) or (one is not error and not isinstance(one, Talkative)):
            for text in (str(one), *getattr(one, "__notes__", ())):
                assert len(text) <= LONGEST * 1.05, f"{type(one).__name__} of {len(text)} characters: {text[:200]!r}"
                own = isinstance(one, tl.TinygradLenetError)
                shown = text if own else "".join(text.split())
                assert shown.isprintable(), f"{type(one).__name__}: {text!r}"
