"""Answers to names that PyTorch has and this package lacks: the word here, a line of code, or why there is none.

The file ``hints.txt`` holds them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from fnmatch import fnmatchcase
from functools import cache, lru_cache, partial
from opcode import opmap
from pathlib import Path
from typing import Any


@cache
def answers() -> defaultdict[str, dict[str, str]]:
    """The answers by place and name. The place of those for all places is ``""``."""
    path = Path(__file__).with_name("hints.txt")
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    place = ""
    for line in path.read_text("ascii").splitlines() if path.exists() else ():  # a bundle of modules may lack the file
        names, bar, answer = line.partition(" | ")
        if line.startswith("["):
            place = line.strip("[]")
        elif bar and not line.startswith("#"):
            found[place].update(dict.fromkeys(names.split(), answer))
    return found


@lru_cache(1000)  # a pattern is found in 25 us, which hasattr() would take each time
def hint(owner: Any, place: str, name: str) -> str:
    """The answer to a name that a class or a module lacks, or "" if there is none.

    >>> import tinygrad_lenet as tl
    >>> hint(tl.Tensor, "Tensor", "acos")
    'for `x.acos()` write `x.arccos()`'
    """
    answer = answers()[place].get(name) or answers()[""].get(name)
    if answer is None and name.endswith("_") and place in ("Tensor", "tl", "nn.functional"):  # it changes its tensor
        if callable(getattr(owner, name[:-1], None)):
            call = f"x.{name[:-1]}(...)" if place == "Tensor" else f"tl.{name[:-1]}(x)"
            return f"to change x in place, write `x[...] = {call}`"
        found = hint(owner, place, name[:-1])
        return f"{found}, and assign the result to x[...]" if found.startswith("for ") else found
    if answer is None:
        answer = next((text for p, text in answers()[""].items() if "*" in p and fnmatchcase(name, p)), "")
    theirs, arrow, ours = answer.replace("{}", name).partition(" -> ")
    return f"for `{theirs}` write `{ours}`" if arrow else theirs


def missing(title: str, owner: Any, place: str, name: str) -> AttributeError:
    """The error for an attribute that an object or a module lacks, with the answer if there is one."""
    found = hint(owner, place, name)
    text = f"{title} has no attribute {name!r}" + (f"; {found}" if found else "")
    return AttributeError(text, name=name, obj=None if found else owner)  # without an object, Python adds no guess


def missing_in(module: str, place: str, name: str, depth: int = 1) -> Any:
    """Raise the error for a name that a module lacks. The code that asks for it is ``depth`` calls up."""
    error = missing(f"module {module!r}", sys.modules[module], place, name)
    caller = sys._getframe(depth)
    # For an AttributeError, `from module import name` raises its own ImportError, which has no answer.
    if caller.f_code.co_code[caller.f_lasti] == opmap["IMPORT_FROM"]:
        raise ImportError(str(error), name=module)
    raise error


class _Hidden(type):
    """The type of a class whose attributes dir() and help() do not list."""

    __dict__ = property(lambda cls: {})  # type: ignore[misc]


class _Missing:
    """An attribute that is missing: reading it raises the error with the answer."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __set_name__(self, words: type, name: str) -> None:
        self.words, self.name = words, name

    def __get__(self, owner: Any, kind: type) -> Any:
        found = getattr(super(self.words, kind if owner is None else owner), self.name, self)
        if found is not self:  # a base class behind the one that answers has it
            return found
        raise missing(f"{kind.__name__!r} object", kind, self.place, self.name)


class Answering:
    """Base of a class that would have none, for :func:`answer`."""

    __slots__ = ()


def answer(owner: Any, place: str) -> None:
    """Let a class, or the module of a name, answer to the names that it lacks.

    A class gets one more base, with an attribute for each such name. A method ``__getattr__`` would be shorter, but on
    Python 3.11 it makes each access to an attribute three times as slow, which is 1.7 % of a training step.
    """
    if isinstance(owner, str):
        vars(sys.modules[owner])["__getattr__"] = partial(missing_in, owner, place)
        return
    known = {*answers()[""], *answers()[place], *dir(owner)}
    names = {n for name in known for n in (name, f"{name}_") if name.isidentifier() and name[0] != "_"}
    owner.__bases__ += (_Hidden("Words", (), {"__slots__": (), **{name: _Missing(place) for name in names}}),)
