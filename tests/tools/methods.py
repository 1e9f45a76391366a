"""Writes two files from the names that functions declare by ``known_as``.

One has the types of Tensor's methods. The other lists the names of each subject of ``ops/``, so that a subject can be
imported when one of its names is first used.

python tests/tools/methods.py            prints tinygrad_lenet/_methods.pyi and tinygrad_lenet/ops/subjects.py
python tests/tools/methods.py --write    writes them
"""

import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

import tinygrad_lenet
from tinygrad_lenet.core.names import IN_PLACE, METHODS, NAMES, REFLECTED, public

PACKAGE = Path(tinygrad_lenet.__file__).parent
OPS = sorted(path.stem for path in (PACKAGE / "ops").glob("*.py") if path.stem != "__init__")
for subject in OPS:  # also one that is not in the list yet
    importlib.import_module(f"tinygrad_lenet.ops.{subject}")
HEAD = '''"""The methods of Tensor. Made by ``python tests/tools/methods.py --write``."""

from typing import Any, TypeAlias

from numpy.typing import DTypeLike

from .core.tensor import Tensor

Axis: TypeAlias = int | tuple[int, ...] | None
_bool: TypeAlias = bool  # in the class, the words are methods
_float: TypeAlias = float
_int: TypeAlias = int

class Methods:
'''
PLAIN = {"int", "float", "bool", "str", "None", "tuple", "Axis", "DTypeLike"}  # other types are Any to the caller
UNARY = {"neg", "pos", "abs", "invert"}
SUBJECTS = '''"""The names that each subject of ``ops/`` declares. Made by ``python tests/tools/methods.py --write``."""

# Functions of the package.
FUNCTIONS = {{
{functions}
}}
# Methods and operators of Tensor.
METHODS = {{
{methods}
}}
'''


def typed(annotation):
    plain = {*re.findall(r"\w+", str(annotation))} <= PLAIN
    return re.sub(r"\b(bool|float|int)\b", r"_\1", annotation) if plain else "Any"


def method(name, function):
    """One line, or more if it is long: as the formatter has it."""
    signature = inspect.signature(function)
    parameters = ["self"]
    for parameter in list(signature.parameters.values())[1:]:
        default = "" if parameter.default is parameter.empty else " = " + repr(parameter.default).replace("'", '"')
        star = "*" * (parameter.kind is parameter.VAR_POSITIONAL)
        parameters.append(f"{star}{parameter.name}: {typed(parameter.annotation)}{default}")
    result = signature.return_annotation
    result = result if "tuple" in str(result) else "_bool" if result == "bool" else "Tensor"
    line = f"    def {name}({', '.join(parameters)}) -> {result}: ..."
    if len(line) <= 120:
        return [line]
    inner = f"        {', '.join(parameters)}"
    inner = [inner] if len(inner) <= 120 else [f"        {p}," for p in parameters]
    return [f"    def {name}(", *inner, f"    ) -> {result}: ..."]


def operator(name):
    if name in UNARY:
        return f"    def __{name}__(self) -> Tensor: ..."
    other = "index" if name == "getitem" else "other"
    ignored = "  # type: ignore[override]  # elementwise, as NumPy's" if name in ("eq", "ne") else ""
    return f"    def __{name}__(self, {other}: Any, /) -> Tensor: ...{ignored}"


def subject_of(function):
    """The file of ``ops/`` that declares a function."""
    return function.__module__.removeprefix("tinygrad_lenet.ops.")


def table(names):
    """The entries of a dict: names by subject."""
    lines = []
    for subject in OPS:
        found = " ".join(name for name, function in names.items() if subject_of(function) == subject)
        strings = [f'"{line}"' for line in textwrap.wrap(found, 120 - 11)]
        if len(strings) > 1:  # as the formatter has them
            strings = [f'{string[:-1]} "' for string in strings[:-1]] + strings[-1:]
            lines += [f'    "{subject}": (', *[f"        {string}" for string in strings], "    ),"]
        elif strings:
            lines.append(f'    "{subject}": {strings[0]},')
    return "\n".join(lines)


def subjects():
    methods = {}
    for names in NAMES.values():
        if names.function.__module__.startswith("tinygrad_lenet.ops."):
            if names.method:
                methods[names.name] = names.function
            for start, words in (("", None), ("r", REFLECTED), ("i", IN_PLACE)):
                if names.operator and (words is None or names.operator in words):
                    methods[f"__{start}{names.operator}__"] = names.function
    return SUBJECTS.format(functions=table(public()), methods=table(methods))


def types():
    words = [names.operator for names in NAMES.values() if names.operator]
    lines = [operator(word) for word in words]
    lines += [operator(f"r{word}") for word in words if word in REFLECTED]
    lines += [operator(f"i{word}") for word in words if word in IN_PLACE]
    for name, function in METHODS.items():
        if not name.startswith("__"):
            lines += method(name, function)
    return HEAD + "\n".join(lines) + "\n"


FILES = {PACKAGE / "_methods.pyi": types, PACKAGE / "ops" / "subjects.py": subjects}

if __name__ == "__main__":
    for path, text in FILES.items():
        if "--write" in sys.argv:
            path.write_text(text())
        else:
            print(text(), end="")
