"""Answers to names that PyTorch has and this package lacks: the word here, a line of code, or why there is none.

The file ``hints.txt`` holds them. It is read when a public name is missing for the first time.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any


@cache
def answers() -> dict[str, dict[str, str]]:
    """The answers by place and name. The place of those for all places is ``""``."""
    from importlib.resources import files

    try:
        text = files(__package__).joinpath("hints.txt").read_text("ascii")
    except OSError:  # a bundle of the modules may lack the file
        text = ""
    found: dict[str, dict[str, str]] = {"": {}}
    place = ""
    for line in text.splitlines():
        if line.startswith("["):
            place = line.strip("[]")
            found[place] = {}
        elif line and not line.startswith("#"):
            names, _, answer = line.partition(" | ")
            found[place].update(dict.fromkeys(names.split(), answer))
    return found


def hint(owner: Any, place: str, name: str) -> str:
    """The answer to a name that a class or a module lacks, or "" if there is none.

    >>> import tinygrad_lenet as tl
    >>> hint(tl.Tensor, "Tensor", "acos")
    'for `x.acos()` write `x.arccos()`'
    """
    if name.startswith("_"):
        return ""
    answer = answers().get(place, {}).get(name) or answers()[""].get(name)
    if answer is None and name.endswith("_") and place in ("Tensor", "tl", "nn.functional"):
        return _in_place(owner, place, name[:-1])
    answer = _by_pattern(name) if answer is None else answer
    theirs, arrow, ours = answer.replace("{}", name).partition(" -> ")
    return f"for `{theirs}` write `{ours}`" if arrow else theirs


@lru_cache(1000)  # the search takes 25 us, which hasattr() would take each time
def _by_pattern(name: str) -> str:
    """The answer of the first pattern that fits a name, or ""."""
    return next((text for p, text in answers()[""].items() if "*" in p and fnmatchcase(name, p)), "")


def _in_place(owner: Any, place: str, name: str) -> str:
    """The answer to ``name_``, which in PyTorch changes its tensor, if ``name`` is known."""
    if callable(getattr(owner, name, None)):
        call = f"x.{name}(...)" if place == "Tensor" else f"tl.{name}(x)"
        return f"to change x in place, write `x[...] = {call}`"
    found = hint(owner, place, name)
    return f"{found}, and assign the result to x[...]" if found.startswith("for ") else found


def missing(owner: Any, place: str, name: str) -> Any:
    """Raise the error for an attribute that an object or a module lacks, with the answer if there is one."""
    is_module = isinstance(owner, ModuleType)
    found = hint(owner if is_module else type(owner), place, name)
    if not is_module and (not found or hasattr(type(owner), name)):
        return object.__getattribute__(owner, name)  # raises Python's error, or that of a property
    title = f"module {owner.__name__!r}" if is_module else f"{type(owner).__name__!r} object"
    text = f"{title} has no attribute {name!r}"
    if found:
        raise AttributeError(f"{text}; {found}", name=name, obj=None)  # without an object, Python adds no guess
    raise AttributeError(text, name=name, obj=owner)


def answering(place: str, module: str = "") -> Callable[..., Any]:
    """The function ``__getattr__`` of a module, or that of a class."""
    if module:
        return lambda name: missing(import_module(module), place, name)
    return lambda self, name: missing(self, place, name)
