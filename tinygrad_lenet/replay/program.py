"""A trace as a program: memory by lifetime, and each step as calls without arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import length_hint
from typing import Any

import numpy as np

from ..core.values import mapped
from ..errors import UnsupportedError
from ..kernels.steps import Scratch, listed
from ..kernels.threads import get_num_threads
from .trace import Step, Value, values_in


def bounds(value: Value) -> tuple[int, int]:
    """The first byte of an array, and the byte after its last one, counted from its first element."""
    reach = [(n - 1) * stride for n, stride in zip(value.shape, value.strides, strict=True)]
    return sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + value.dtype.itemsize


class Program:
    """A traced function in memory of its own."""

    def __init__(
        self, steps: Sequence[Step], outputs: Iterable[Value], inputs: Iterable[Value], threads: int | None = None
    ) -> None:
        self.threads = get_num_threads() if threads is None else threads
        self.steps = steps
        self.arrays: dict[Value, Any] = {}
        self.memory = Scratch()
        self._blocks: dict[Value, Any] = {}  # of whole values
        self._last = {v.whole: i for i, step in enumerate(steps) for v in (*values_in(step.args), *values_in(step.out))}
        self._last |= {v.whole: len(steps) for v in (*outputs, *inputs)}
        for value in inputs:
            self.array(value)
        self.calls: list[Callable[[], object]] = []
        self.ends: list[int] = []  # the number of calls up to the end of each step
        for i, step in enumerate(steps):
            self.calls += self._calls(step)
            self.ends.append(len(self.calls))
            for value in {v.whole for v in (*values_in(step.args), *values_in(step.out))}:
                if self._last[value] == i and value in self._blocks:
                    self.memory.free[0].append(self._blocks.pop(value))

    def array(self, value: Value) -> Any:
        """The array of a value."""
        if value.array is not None:
            return value.array
        found = self.arrays.get(value)
        if found is None and 0 in value.shape:  # a view of no elements may lie anywhere
            found = self.arrays[value] = np.empty(value.shape, value.dtype)
        if found is None:
            whole = value.whole
            low, high = bounds(whole)
            if whole not in self._blocks:
                self._blocks[whole] = self.memory.take(high - low)
            offset = value.address - whole.address - low
            found = np.ndarray(value.shape, value.dtype, self._blocks[whole], offset, value.strides)
            self.arrays[value] = found
        return found

    def _calls(self, step: Step) -> list[Callable[[], object]]:
        args = mapped(step.args, lambda leaf: self.array(leaf) if isinstance(leaf, Value) else leaf)
        if step.out is None:
            return [partial(step.op, *args, *step.rest)]
        if step.out.whole is not step.out:  # a view
            if step.out.array is None and step.out.whole.array is not None:  # of an array of another program
                self.arrays[step.out] = step.op.signature.compute(args, {})[3]
            return []
        out = self.array(step.out)
        op = step.op
        steps = op.steps and op.steps(out, self.memory, *op.signature.arrays([*args]))
        if steps is None:
            return [partial(_general, op, out, args)]
        calls = listed(steps, self.memory, self.threads)
        self.memory.release()
        return calls

    note = ""

    @property
    def bytes(self) -> int:
        """The size of its memory."""
        return self.memory.bytes

    def parts(self) -> Iterator[tuple[Step, list[Callable[[], object]]]]:
        """The calls of each step."""
        for step, start, end in zip(self.steps, [0, *self.ends], self.ends, strict=False):
            yield step, self.calls[start:end]

    def run(self, first: int = 0, last: int | None = None) -> None:
        """Compute the steps from ``first`` to before ``last``."""
        start, stop = ((self.ends[i - 1] if i else 0) for i in (first, len(self.steps) if last is None else last))
        calls = iter(self.calls[start:stop])
        try:
            for call in calls:
                call()
        except Exception as error:
            done = stop - length_hint(calls)
            step = next(step for step, end in zip(self.steps, self.ends, strict=True) if done <= end)
            error.add_note(f"In a replay by tl.compile: {step.name}, at {step.line}.")
            raise


def _general(op: Any, out: Any, args: tuple[Any, ...]) -> None:
    """An op without a plan: computed as ever, and copied to its place."""
    found = np.asarray(op.signature.compute(args, {})[3])
    if found.shape != out.shape or found.dtype != out.dtype:
        raise UnsupportedError(f"{op.name}: the shape of its result depends on values, which a replay cannot follow")
    np.copyto(out, found)
