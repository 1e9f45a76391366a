"""A trace as a program: memory by lifetime, and each step as calls without arguments.

A value needs memory from the step that computes it to the last step that uses it. A view is in the memory of another
value (its ``whole``), which therefore lives as long as the view. Memory that is free again is given to the next value,
or serves as scratch memory of a step.

Most ops have a kernel in the form of calls that write to memory which is given to them (``kernels/steps.py``). The op
declares it as its ``steps`` (:meth:`Primitive.planned`). Other ops compute a new array, which is copied
(:func:`_general`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..core.values import mapped
from ..errors import UnsupportedError
from ..kernels.steps import Call, Scratch, listed
from .trace import Step, Value, values_in


class Program:
    """Traced steps in memory of their own. No other value gets the memory of the inputs, or that of the outputs once
    they are computed. The calls of a step run on at most ``threads`` threads.
    """

    def __init__(self, steps: Sequence[Step], inputs: Iterable[Value], outputs: Iterable[Value], threads: int) -> None:
        self.steps, self.threads = steps, threads
        self.memory = Scratch()  # its ``free[0]`` are the blocks that the calling thread may use
        self._arrays: dict[Value, Any] = {}
        self._blocks: dict[Value, Any] = {}  # the memory of whole values that live at this step
        # For each step the whole values that it reads or writes, and for each of these the last step that does.
        uses = [{v.whole for v in values_in([step.args, step.out])} for step in steps]
        last = {value: i for i, used in enumerate(uses) for value in used}
        last |= {value.whole: len(steps) for value in (*inputs, *outputs)}
        self.inputs = [self.array(value) for value in inputs]
        self.calls: list[tuple[Step, list[Call]]] = []  # each step, and the calls that compute it
        for i, (step, used) in enumerate(zip(steps, uses, strict=True)):
            self.calls.append((step, self._calls(step)))
            for value in used:
                if last[value] == i and value in self._blocks:
                    self.memory.free[0].append(self._blocks.pop(value))

    def load(self, arrays: Iterable[Any]) -> None:
        """Copy arrays to the first inputs."""
        for own, array in zip(self.inputs, arrays, strict=False):
            np.copyto(own, array)

    def array(self, value: Value) -> Any:
        """The array of a value, in memory that is taken when the first step uses it."""
        if value.array is not None:
            return value.array
        if value not in self._arrays:
            whole = value.whole
            if whole not in self._blocks:
                self._blocks[whole] = self.memory.take(whole.high - whole.low)
            offset = value.address - whole.low if 0 not in value.shape else 0
            self._arrays[value] = np.ndarray(value.shape, value.dtype, self._blocks[whole], offset, value.strides)
        return self._arrays[value]

    def _calls(self, step: Step) -> list[Call]:
        """The calls that compute a step; none for a view, which is in its place already."""
        args = mapped(step.args, lambda leaf: self.array(leaf) if isinstance(leaf, Value) else leaf)
        if step.out is None:
            return [partial(step.op, *args)]
        if step.out.whole is not step.out:
            return []
        out, op = self.array(step.out), step.op
        given = op.signature.arrays([*args])
        steps = (op.steps and op.steps(out, self.memory, *given)) or [partial(_general, op, out, given)]
        calls = listed(steps, self.memory, self.threads)
        self.memory.release()
        return calls

    def run(self, first: int = 0, last: int | None = None) -> None:
        """Compute the steps from ``first`` to before ``last``. An error gets a note with the op and the user's line."""
        try:
            for step, calls in self.calls[first:last]:  # noqa: B007  # the note needs the step
                for call in calls:
                    call()
        except Exception as error:
            error.add_note(f"In a replay by tl.compile: {step.name}, at {step.line}.")
            raise


class Programs:
    """Programs of the same steps, each of which is used by one computation at a time. They are made when needed."""

    def __init__(self, *description: Any) -> None:
        self._description = description  # the arguments of Program
        self.idle: list[Program] = []

    def lent(self) -> Iterator[Program]:
        """Yield an idle program, or a new one: ``lease = programs.lent()``, ``program = next(lease)``.

        When Python frees the generator, the program is idle again. So who holds the lease has the program.
        """
        try:
            program = self.idle.pop()
        except IndexError:  # other threads may take them, so no test for an empty list
            program = Program(*self._description)
        try:
            yield program
        finally:
            self.idle.append(program)


def _general(op: Any, out: Any, args: Sequence[Any]) -> None:
    """An op without steps: computed as usual, and copied to its place."""
    found = np.asarray(op.signature.function(*args))
    if found.shape != out.shape or found.dtype != out.dtype:
        raise UnsupportedError(f"{op.name}: the shape of its result depends on values, which a replay cannot follow")
    np.copyto(out, found)
