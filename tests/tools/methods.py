"""The types of Tensor's methods, made from what the functions declare by ``known_as``.

python tests/tools/methods.py            prints tinygrad_lenet/_methods.pyi
python tests/tools/methods.py --write    writes it
"""

import inspect
import re
import sys
from pathlib import Path

import tinygrad_lenet
from tinygrad_lenet.core.names import IN_PLACE, METHODS, NAMES, REFLECTED

PATH = Path(tinygrad_lenet.__file__).parent / "_methods.pyi"
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


def text():
    words = [names.operator for names in NAMES.values() if names.operator]
    lines = [operator(word) for word in words]
    lines += [operator(f"r{word}") for word in words if word in REFLECTED]
    lines += [operator(f"i{word}") for word in words if word in IN_PLACE]
    for name, function in METHODS.items():
        if not name.startswith("__"):
            lines += method(name, function)
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        PATH.write_text(text())
    else:
        print(text(), end="")
