"""Steps: a kernel as a list of calls without arguments.

A function that returns steps computes nothing itself. The caller passes the memory of the result (``out``) and a
function that returns scratch memory (``room``). So steps can run once, in recycled memory, or be recorded and run again
and again in the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import memory
from .memory import Room as Room
from .threads import parallel

Steps: TypeAlias = "list[Callable[[], object] | Blocked]"


class Blocked(NamedTuple):
    """A step that computes a result block by block, in parallel on all cores.

    The steps of a block are made just before they run. Before the next block they are freed, with their scratch memory.
    """

    steps: Callable[[Any], Steps]  # of one block
    blocks: Sequence[Any]  # the geometry of each block
    work: int  # multiply-adds in all

    def __call__(self) -> None:
        """Run all blocks."""
        if len(self.blocks) == 1:
            run(self.steps(self.blocks[0]))
        else:
            parallel(self._some, len(self.blocks), self.work)

    def _some(self, start: int, stop: int) -> None:
        for block in self.blocks[start:stop]:
            run(self.steps(block))  # no variable, which would keep a step and its scratch memory alive


def run(steps: Steps) -> None:
    """Run the steps in order."""
    for step in steps:
        step()


def computed(steps: Callable[..., Steps], out: NDArray[Any], *arguments: Any) -> NDArray[Any]:
    """Run ``steps(out, room, *arguments)`` once, with recycled memory, and return ``out``."""
    for step in steps(out, memory.empty, *arguments):
        step()
    return out


class View(NamedTuple):
    """The shape, strides and offset of a view of an array that need not exist yet."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes, as is the offset
    offset: int = 0

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """The view of an array."""
        return np.ndarray(self.shape, array.dtype, array, self.offset, self.strides)
