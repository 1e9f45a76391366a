"""How long the package is, in lines of code: without comments, docstrings and blank lines.

python tests/tools/size.py            prints the rooms of the package, and the afternoon path
python tests/tools/size.py --write    puts the path, the ten files that a reader opens first, into the README
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

import tinygrad_lenet

PACKAGE = Path(tinygrad_lenet.__file__).parent
CORE = ["core/graph", "core/primitive", "core/tensor"]
SHOWS = {
    "core/graph": "nodes, and the pass from the newest to the oldest",
    "core/primitive": "an op: a function of arrays with a rule for each argument",
    "core/tensor": "the array that remembers",
    "ops/elementwise": "rules as a page of calculus",
    "ops/convolution": "a convolution, whose gradients are convolutions",
    "kernels/convolution": "im2col, block by block",
    "ops/pooling": "max and average pooling",
    "ops/losses": "softmax cross-entropy and others",
    "nn/module": "parameters, buffers, state",
    "nn/lenet": "LeNet-5, as a forward pass only",
}
AFTERNOON = [*SHOWS]
_WITHOUT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(source: str) -> int:
    """The number of lines that hold code.

    >>> code_lines('def f():\\n    \"\"\"Doc.\"\"\"\\n\\n    # why\\n    return 1  # one\\n')
    2
    """
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _WITHOUT_CODE:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            found.difference_update(range(text.lineno, (text.end_lineno or 0) + 1))
    return len(found)


def sizes(package: Path = PACKAGE) -> dict[str, int]:
    """The code lines of each module, by its path without ``.py``."""
    modules = sorted(package.rglob("*.py"))
    return {path.relative_to(package).with_suffix("").as_posix(): code_lines(path.read_text()) for path in modules}


def rooms(lines: dict[str, int]) -> dict[str, int]:
    """The code lines of each folder, and of the files beside them."""
    found: dict[str, int] = {}
    for module, count in lines.items():
        room = module.split("/")[0] + "/" if "/" in module else "(files at the top)"
        found[room] = found.get(room, 0) + count
    return found


def table() -> list[str]:
    """The README's table of the afternoon path."""
    lines = sizes()
    rows = [f"| [`{name}.py`](tinygrad_lenet/{name}.py) | {lines[name]} | {shows} |" for name, shows in SHOWS.items()]
    return ["| file | lines | what it shows |", "| --- | ---: | --- |", *rows]


def main() -> None:
    """Print both tables."""
    if "--write" in sys.argv:
        from vocabulary import write

        write("files", table())
    lines = sizes()
    for room, count in rooms(lines).items():
        print(f"{room:24}{count:7,}")
    print(f"{'package':24}{sum(lines.values()):7,}\n")
    for module in AFTERNOON:
        print(f"{module:24}{lines[module]:7,}")
    print(f"{'the three core files':24}{sum(lines[module] for module in CORE):7,}")
    print(f"{'afternoon path':24}{sum(lines[module] for module in AFTERNOON):7,}")


if __name__ == "__main__":
    main()
