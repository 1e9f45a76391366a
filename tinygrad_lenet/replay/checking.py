"""Replays beside the function itself (``check=True``), and the times of a program's steps (``report``).

Both run what changes state, and so copy and restore it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from ..core.tensor import Tensor
from ..core.values import flattened, mapped
from ..errors import TinygradLenetError
from ..ops.creation import SHARED
from .recording import Recording
from .rewrite import Chunks


def state(recording: Recording) -> list[tuple[Any, str, Any]]:
    """Copies of what a replay may change: tensors, generators, the states of optimisers, and gradients.

    Each is the owner, the name of its attribute, and the copy.
    """
    leaves = [*flattened([step.args for step in recording.steps]), *SHARED]
    generators = [leaf.bit_generator for leaf in leaves if isinstance(leaf, np.random.Generator)]
    optimizers = [leaf for leaf in leaves if hasattr(leaf, "param_groups")]
    held = [(leaf, "_data") for leaf in leaves if isinstance(leaf, Tensor)]
    held += [(owner, "state") for owner in (*generators, *optimizers)]
    held += [(leaf, "_grad") for leaf in recording.after]
    return [(owner, name, mapped(getattr(owner, name), _copied)) for owner, name in held]


def _copied(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def restore(state: list[tuple[Any, str, Any]]) -> None:
    """Return to an earlier state."""
    for owner, name, value in state:
        if isinstance(value, np.ndarray):
            np.copyto(getattr(owner, name), value)
        else:
            setattr(owner, name, value)


def compare(recording: Recording, inputs: list[Tensor], call: Callable[[], Any]) -> Any:
    """Replay, and call the function from the same state; return its result if nothing differs.

    Chunks of the batch round sums differently. So their results may differ by ``sqrt(eps)`` of the dtype times the
    largest element.
    """
    before = state(recording)
    replayed = recording.replay(inputs), [value for _, _, value in state(recording)]
    restore(before)
    called = call(), [value for _, _, value in state(recording)]
    chunked = any(isinstance(step.op, Chunks) for step in recording.steps)
    for what, a, b in zip(("result", "state"), called, replayed, strict=True):
        for x, y in zip(flattened([a]), flattened([b]), strict=True):
            x, y = (v._data if isinstance(v, Tensor) else v for v in (x, y))
            rounded = chunked and isinstance(x, np.ndarray) and x.dtype.kind == "f"
            size = np.sqrt(np.finfo(x.dtype).eps) * np.abs(x).max(initial=0) if rounded else 0
            if not (np.allclose(x, y, 0, size, equal_nan=True) if isinstance(x, np.ndarray) else x == y):
                how = "differs between the replay and the function"
                raise TinygradLenetError(f"tl.compile(check=True): a {what} {how}")
    return called[0]


def report(recording: Recording) -> str:
    """The program as a table, with the time of each step in one run on the inputs of the last replay."""
    before, lines, lease = state(recording), list[str](), recording.lent()
    program = next(lease)
    program.load(recording.latest.inputs)
    programs = [(program, "")]
    for program, note in programs:
        lines.append(f"{len(program.steps)} steps, {program.memory.bytes / 1e6:.1f} MB{note}")
        lines.append(f"{'op':<24}{'result':<30}{'calls':>6}{'us':>10}  at")
        for i, step in enumerate(program.steps):
            began = perf_counter()
            program.run(i, i + 1)
            time, out = 1e6 * (perf_counter() - began), step.out
            shape = "" if out is None else f"{out.dtype} {out.shape}"
            calls = program.ends[i + 1] - program.ends[i]
            lines.append(f"{step.name:<24}{shape:<30}{calls:>6}{time:>10.1f}  {step.line}")
            if isinstance(step.op, Chunks):
                programs.append((step.op.idle[-1], f", for one of {step.op.count} chunks of {step.op.size} rows"))
    restore(before)
    return "\n".join(lines)
