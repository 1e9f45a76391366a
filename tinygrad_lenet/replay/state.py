"""The state that a recording changes: to run it beside the function itself, or only to time it."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..errors import TinygradLenetError
from .recording import Recording
from .trace import write


class State:
    """A copy of what a recording may change: tensors, the state of optimisers and generators, and gradients."""

    def __init__(self, recording: Recording) -> None:
        arguments = flattened([step.args for step in recording.steps])
        self.tensors = [step.rest[0] for step in recording.steps if step.op is write]
        self.tensors += [a for a in arguments if isinstance(a, Tensor)]  # updated parameters
        self.generators = [a for a in arguments if isinstance(a, np.random.Generator)]
        self.optimizers, self.leaves = recording.trace.optimizers, [*recording.grads]
        self.copies = [t._data.copy() for t in self.tensors]
        self.states = [g.bit_generator.state for g in self.generators]
        self.moments = [_copied(o.state) for o in self.optimizers]
        self.grads = [p._grad for p in self.leaves]

    def restore(self) -> None:
        """Write it back."""
        for tensor, copy in zip(self.tensors, self.copies, strict=True):
            np.copyto(tensor._data, copy)
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.bit_generator.state = state
        for optimizer, moments in zip(self.optimizers, self.moments, strict=True):
            optimizer.state = _copied(moments)
        for leaf, gradient in zip(self.leaves, self.grads, strict=True):
            leaf._grad = gradient

    def named(self, result: Any) -> Iterator[tuple[str, Any]]:
        """The arrays to compare: those of a result, and the present state."""
        found = {
            "a result": [t for t in flattened([result]) if isinstance(t, Tensor)],
            "a changed tensor": self.tensors,
        }
        found["a gradient"] = [p._grad for p in self.leaves]
        for name, tensors in found.items():
            for tensor in tensors:
                yield name, None if tensor is None else tensor._data.copy()
        for optimizer in self.optimizers:
            for value in flattened([optimizer.state]):
                yield "a state of the optimizer", value


def _copied(states: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {p: mapped(state, lambda v: v.copy() if isinstance(v, np.ndarray) else v) for p, state in states.items()}


def compare(recording: Recording, inputs: list[Tensor], call: Any) -> Any:
    """Replay, and call the function from the same state; return its result if nothing differs."""
    before = State(recording)
    replayed = [*before.named(recording.replay(inputs))]
    before.restore()
    result = call()
    for (name, a), (_, b) in zip(before.named(result), replayed, strict=True):
        if (a is None) != (b is None) or not np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f"):
            raise TinygradLenetError(f"tl.compile(check=True): {name} differs between the replay and the function")
    return result


def report(recording: Recording) -> str:
    """The program as a table, with the time of each step in one run on the arrays of the last replay."""
    program, before = recording.program, State(recording)
    assert program is not None
    rows, start = [], 0
    for step, end in zip(program.steps, program.ends, strict=True):
        began = perf_counter()
        for call in program.calls[start:end]:
            call()
        time = 1e6 * (perf_counter() - began)
        value = step.out
        shape = "" if value is None else f"{value.dtype} {value.shape}"
        rows.append(f"{step.name:<24}{shape:<30}{end - start:>6}{time:>10.1f}  {step.line}")
        start = end
    before.restore()
    head = f"{len(program.steps)} steps, {len(program.calls)} calls, {program.memory.bytes / 1e6:.1f} MB"
    return "\n".join([head, f"{'op':<24}{'result':<30}{'calls':>6}{'us':>10}  at", *rows])
