"""How many Python functions one convolution calls, forward and backward, in how many files.

    python tests/tools/calls.py

counts the calls into the package by a :func:`conv2d` and the ``backward`` of its result: the second convolution of
LeNet-5, at batch 8. Caches are warm, as they are in the second step of training.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np

import tinygrad_lenet as tl

PACKAGE = Path(tl.__file__).parent
CHECK = ("ops/convolution.py", "_geometry")


def calls() -> Counter[tuple[str, str]]:
    """The calls of one pass, by file and function."""
    x = tl.tensor(np.ones((8, 6, 14, 14), np.float32), requires_grad=True)
    weight = tl.tensor(np.ones((16, 6, 5, 5), np.float32), requires_grad=True)
    bias = tl.tensor(np.zeros(16, np.float32), requires_grad=True)
    ones = tl.ones(8, 16, 10, 10)
    found: Counter[tuple[str, str]] = Counter()

    def count(frame, event, _):
        if event == "call":
            path = Path(frame.f_code.co_filename)
            if PACKAGE in path.parents:
                found[path.relative_to(PACKAGE).as_posix(), frame.f_code.co_qualname] += 1

    for profile in (None, None, count):
        sys.setprofile(profile)
        try:
            tl.conv2d(x, weight, bias).backward(ones)
        finally:
            sys.setprofile(None)
    return found


def main() -> None:
    """Print the calls of each function, and their number."""
    found = calls()
    for (path, name), count in sorted(found.items()):
        print(f"{count:4} {path:24} {name}")
    print(f"{sum(found.values())} calls in {len({path for path, _ in found})} files")
    print(f"{found[CHECK]} checks that images, weight and options fit together")


if __name__ == "__main__":
    main()
