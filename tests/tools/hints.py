"""Entries of hints.txt for names that the package has by now.

python tests/tools/hints.py            prints them
python tests/tools/hints.py --write    removes them from the file
"""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import tinygrad_lenet as tl
from tinygrad_lenet import hints, nn, optim

FILE = Path(hints.__file__).with_name("hints.txt")
LINES = (Path(__file__).parents[1] / "files/names_of_pytorch.txt").read_text().splitlines()
NAMES = {line.partition(":")[0]: line.partition(":")[2].split() for line in LINES if line[0] != "#"}
PLACES: dict[str, Any] = {
    "Tensor": tl.tensor([1.0, 2.0]),
    "torch": tl,
    "dtypes": tl,
    "nn": nn,
    "nn.functional": tl.functional,
    "optim": optim,
    "lr_scheduler": optim,
    "utils.data": tl.data,
    "Module": nn.Linear(3, 4),
}


def exists(section: str, entry: str) -> bool:
    """True if all names of PyTorch that an entry answers exist here, wherever PyTorch has them."""
    places = {"": [*PLACES], "tl": ["torch", "dtypes"]}.get(section, [section])
    asked = [(place, name) for place in places for name in NAMES[place] if fnmatchcase(name, entry)]
    if not asked:  # the list lacks names of modules, of torch.linalg and of nn.init
        owners = {"": [tl, tl.linalg], "tl": [tl], "nn": [nn, nn.init], "optim": [optim]}
        return any(hasattr(owner, entry) for owner in owners[section])
    return all(hasattr(PLACES[place], name) for place, name in asked)


def without_existing(text: str) -> tuple[str, list[str]]:
    """The text of the file without entries for names that exist, and these names."""
    lines, gone, section = [], [], ""
    for line in text.splitlines():
        names, bar, answer = line.partition(" | ")
        section = line.strip("[]") if line.startswith("[") else section
        if not bar or line.startswith("#"):
            lines.append(line)
            continue
        found = [name for name in names.split() if exists(section, name)]
        gone += [f"{section}.{name}".lstrip(".") for name in found]
        if left := [name for name in names.split() if name not in found]:
            lines.append(" ".join(left) + bar + answer)
    return "\n".join(lines) + "\n", gone


if __name__ == "__main__":
    text, gone = without_existing(FILE.read_text())
    print(f"hints.txt has entries for {len(gone)} names that exist: {' '.join(gone)}")
    if "--write" in sys.argv:
        FILE.write_text(text)
