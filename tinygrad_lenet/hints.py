"""Answers to names that PyTorch has and this package lacks: the word here, a line of code, or why there is none.

The file ``hints.txt`` holds them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from fnmatch import fnmatchcase
from functools import cache, lru_cache, partial
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
    if answer is None and name.endswith("_"):  # it changes its tensor
        if callable(getattr(owner, name[:-1], None)):
            call = f"x.{name[:-1]}(...)" if place == "Tensor" else f"tl.{name[:-1]}(x)"
            return f"to change x in place, write `x[...] = {call}`"
        found = hint(owner, place, name[:-1])
        return f"{found}, and assign the result to x[...]" if found.startswith("for ") else found
    if answer is None:
        answer = next((text for p, text in answers()[""].items() if "*" in p and fnmatchcase(name, p)), "")
    return answer.replace("{}", name)


def missing(title: str, owner: Any, place: str, name: str) -> AttributeError:
    """The error for an attribute that an object or a module lacks, with the answer if there is one."""
    found = hint(owner, place, name)
    text = f"{title} has no attribute {name!r}" + (f"; {found}" if found else "")
    return AttributeError(text, name=name, obj=None if found else owner)  # without an object, Python adds no guess


_places: dict[str, str] = {}  # the place of each module that answers


def missing_in(module: str, name: str) -> Any:
    """Raise the error for a name that a module lacks."""
    raise missing(f"module {module!r}", sys.modules[module], _places[module], name)


class _Importer:
    """Answers to imports of names that a module lacks; Python asks it last."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        parent, _, child = name.rpartition(".")
        if parent in _places and (found := hint(sys.modules[parent], _places[parent], child)):
            raise ImportError(f"there is no {name}; {found}", name=parent)


sys.meta_path.append(_Importer)


class _Hidden(type):
    """The type of a class whose attributes dir() and help() do not list."""

    __dict__ = property(lambda cls: {})  # type: ignore[misc]


class _Missing:
    """An attribute that is missing: reading it raises the error with the answer."""

    def __set_name__(self, words: type, name: str) -> None:
        self.words, self.name = words, name

    def __get__(self, owner: Any, kind: type) -> Any:
        found = getattr(super(self.words, kind if owner is None else owner), self.name, self)
        if found is not self:  # a base class behind the one that answers has it
            return found
        raise missing(f"{kind.__name__!r} object", kind, self.words.__module__, self.name)


class Answering:
    """Base of a class that would have none, for :func:`answer_by`."""

    __slots__ = ()


def answer_in(place: str, *modules: str) -> None:
    """Let modules answer to the names that they lack."""
    for module in modules:
        _places[module] = place
        vars(sys.modules[module]).setdefault("__getattr__", partial(missing_in, module))


def answer_by(place: str, kind: Any) -> None:
    """Let the objects of a class answer to the names that they lack.

    The class gets one more base, with an attribute for each such name. A method ``__getattr__`` would be shorter, but
    on Python 3.11 each access to an attribute would take three times as long, which is 1.8 % of a training step.
    """
    known = {*answers()[""], *answers()[place], *dir(kind)}
    names = {n for name in known for n in (name, f"{name}_") if name.isidentifier() and name[0] != "_"}
    words = {"__slots__": (), "__module__": place, **{name: _Missing() for name in names}}
    kind.__bases__ += (_Hidden("Words", (), words),)
