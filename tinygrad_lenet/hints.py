"""Answers to names that PyTorch has and this package lacks: the word here, a line of code, or why there is none.

The file ``hints.txt`` holds them. It is read when a name is missing for the first time.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any


@cache
def answers() -> defaultdict[str, dict[str, str]]:
    """The answers by place and name. The place of those for all places is ``""``."""
    from pathlib import Path  # takes a twelfth of the time of importing NumPy

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
    if name.startswith("_"):
        return ""
    answer = answers()[place].get(name) or answers()[""].get(name)
    if answer is None and name.endswith("_"):  # it changes its tensor
        if callable(getattr(owner, name[:-1], None)):
            call = f"x.{name[:-1]}(...)" if place == "Tensor" else f"tl.{name[:-1]}(x)"
            return f"to change x in place, write `x[...] = {call}`"
        found = hint(owner, place, name[:-1])
        return f"{found}, and assign the result to x[...]" if found.startswith("for ") else found
    if answer is None:
        from fnmatch import fnmatchcase

        answer = next((text for p, text in answers()[""].items() if "*" in p and fnmatchcase(name, p)), "")
    return answer.replace("{}", name)


def answering(place: str) -> Callable[[Any, str], Any]:
    """The method ``__getattr__`` of a class, whose objects answer to the names that they lack.

    Python 3.11 reads the attributes of such a class more slowly: a small op with its gradient takes 3 % longer.
    """

    def __getattr__(self: Any, name: str) -> Any:
        kind: Any = type(self)
        found = hint(kind, place, name)
        if not found or hasattr(kind, name):
            return object.__getattribute__(self, name)  # raises Python's error, or that of a property
        # Without an object, Python adds no guess.
        raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}; {found}", name=name, obj=None)

    return __getattr__


def missing(place: str, module: str, name: str) -> Any:
    """Raise the error for a name that a module lacks."""
    owner = sys.modules[module]
    found = hint(owner, place, name)
    text = f"module {module!r} has no attribute {name!r}" + (f"; {found}" if found else "")
    raise AttributeError(text, name=name, obj=None if found else owner)


def answer_in(place: str, *modules: str) -> None:
    """Let modules answer to the names that they lack."""
    for module in modules:
        vars(sys.modules[module]).setdefault("__getattr__", partial(missing, place, module))
