"""The state that a recording changes: to run it beside the function itself, or only to time it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from time import perf_counter
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..errors import TinygradLenetError
from ..ops.creation import SHARED
from .recording import Recording
from .trace import write


class State:
    """A copy of what a recording may change: tensors, generators, the states of optimisers, and gradients."""

    def __init__(self, recording: Recording) -> None:
        arguments = flattened([step.args for step in recording.steps])
        tensors = [step.rest[0] for step in recording.steps if step.op is write]
        tensors += [a for a in arguments if isinstance(a, Tensor)]  # updated parameters
        generators = [a.bit_generator for a in (*arguments, *SHARED) if isinstance(a, np.random.Generator)]
        self.held = [(attrgetter("_data"), t, partial(np.copyto, t._data)) for t in tensors]
        for name, owners in (("state", [*generators, *recording.trace.optimizers]), ("_grad", recording.grads)):
            self.held += [(attrgetter(name), owner, partial(setattr, owner, name)) for owner in owners]
        self.before = self.now()

    def now(self) -> list[Any]:
        """Copies of the present state."""
        return [mapped(get(owner), _copied) for get, owner, _ in self.held]

    def restore(self) -> None:
        """Return to the state before."""
        for (_, _, put), value in zip(self.held, self.before, strict=True):
            put(mapped(value, _copied))


def _copied(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def compare(recording: Recording, inputs: list[Tensor], call: Callable[[], Any]) -> Any:
    """Replay, and call the function from the same state; return its result if nothing differs."""
    state = State(recording)
    replayed = [recording.replay(inputs), state.now()]
    state.restore()
    result = call()
    for what, a, b in zip(("result", "state"), (result, state.now()), replayed, strict=True):
        for x, y in zip(flattened([a]), flattened([b]), strict=True):
            x, y = (v._data if isinstance(v, Tensor) else v for v in (x, y))
            if not (np.array_equal(x, y, equal_nan=x.dtype.kind == "f") if isinstance(x, np.ndarray) else x == y):
                raise TinygradLenetError(
                    f"tl.compile(check=True): a {what} differs between the replay and the function"
                )
    return result


def report(recording: Recording) -> str:
    """The program as a table, with the time of each step in one run on the arrays of the last replay."""
    program, state, rows = recording.program, State(recording), list[str]()
    for step, calls in program.parts():
        began = perf_counter()
        for call in calls:
            call()
        time, out = 1e6 * (perf_counter() - began), step.out
        shape = "" if out is None else f"{out.dtype} {out.shape}"
        rows.append(f"{step.name:<24}{shape:<30}{len(calls):>6}{time:>10.1f}  {step.line}")
    state.restore()
    head = f"{len(rows)} steps, {program.bytes / 1e6:.1f} MB{program.note}"
    return "\n".join([head, f"{'op':<24}{'result':<30}{'calls':>6}{'us':>10}  at", *rows])
