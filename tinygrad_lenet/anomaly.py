"""Find the op where NaN or infinity first appears, by checking the output and the gradients of every op."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .core.accumulation import Part
from .core.graph import Backward, Node, Vertex
from .core.modes import listening, user_line
from .core.tensor import Tensor, to_array
from .errors import AnomalyError, named

__all__ = ["detect_anomaly"]

Index = tuple[int, ...]


@contextmanager
def detect_anomaly(infinite: bool = True) -> Iterator[None]:
    """Raise an error at the first op whose output, or one of whose gradients, is NaN or infinite.

    A context manager and a decorator, like PyTorch's ``torch.autograd.detect_anomaly``. The message names the op, the
    file and line that called it, the first bad index in row-major order, and the values of the arguments there. Ops
    recorded inside the block are also checked in the backward pass, wherever it runs. Use it for debugging: it reads
    every array once more, so a small training step takes several times as long.

    Args:
        infinite: whether to report infinities too; pass False for a model that masks with ``-inf``.

    Raises:
        AnomalyError: a NaN or an infinity appeared.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([4.0, 0.0], requires_grad=True)
    >>> with tl.detect_anomaly():
    ...     y = x.sqrt()
    >>> y.sum().backward()
    Traceback (most recent call last):
    tinygrad_lenet.errors.AnomalyError: sqrt: the gradient of argument 'x' is inf at index (1,), where that of its \
    output is 1.0; sqrt was called at <doctest ...>, line 2: y = x.sqrt()
    """

    def hear(op: Any, args: Sequence[Any], out: Tensor) -> None:
        line = _user_code()
        _check(op, "the output", out._data, line, infinite, lambda at: _arguments(op, args, out.shape, at))
        _watch(out, line, infinite)

    with listening(hear), np.errstate(all="ignore"):  # NumPy's warnings name neither op nor line
        yield


def _user_code() -> str:
    """The file, line and text of the statement in the user's program that called the package."""
    import linecache

    place = user_line()
    name, _, number = place.rpartition(", line ")
    return f"{place}: {linecache.getline(name, int(number)).strip()}".removesuffix(": ")


def _check(op: Any, what: str, values: Any, line: str, infinite: bool, context: Callable[[Index], str]) -> None:
    """Raise an AnomalyError in the name of the op if a value is bad; ``context(index)`` ends the description."""
    at = _first(values, infinite)
    if at is not None:
        message = f"{what} is {_value(values, at)}{context(at)}; {op.name} was called at {line}"
        raise named(AnomalyError(message), op.name)


def _first(array: Any, infinite: bool) -> Index | None:
    """The first index of a NaN or, if ``infinite``, of an infinity."""
    if array.dtype.kind != "f":
        return None
    bad = ~np.isfinite(array) if infinite else np.isnan(array)
    return tuple(map(int, np.unravel_index(bad.argmax(), bad.shape))) if bad.any() else None


def _value(array: Any, at: Index) -> str:
    return f"{array[at]} at index {at}" if at else f"{array[at]}"


def _arguments(op: Any, args: Sequence[Any], shape: Index, at: Index) -> str:
    """The values of the arguments at an index of the output, or whether they are finite if their shape differs."""
    found = []
    for i, a in enumerate(args):
        if not op.signature.is_operand(i, a):
            continue
        name = op.signature.name_of(i)
        values = to_array(a)
        if values.shape == shape or not values.ndim:
            found.append(f"where {name} is {values[at if values.ndim else ()]}")
        else:
            bad = _first(values, True)
            found.append(f"{name} of shape {values.shape} {f'has {_value(values, bad)}' if bad else 'is finite'}")
    return "".join(f", {words}" for words in found)


def _watch(out: Tensor, line: str, infinite: bool) -> None:
    if out._node is not None and not isinstance(out._node.plan, _Watched):
        out._node.plan = _Watched(out._node.plan, line, infinite)


class _Watched:
    """The plan of an op, with checks of the gradients that it receives and passes on."""

    def __init__(self, plan: Backward, line: str, infinite: bool) -> None:
        self.plan, self.op = plan, plan.op
        self.line, self.infinite = line, infinite

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Check the gradients and pass them on."""
        seed = seed.whole() if isinstance(seed, Part) else seed
        upstream = to_array(seed)
        what = "the gradient of its output (a sum of several, or what backward() was given)"
        _check(self.op, what, upstream, self.line, self.infinite, lambda at: "")

        def check_and_add(parent: Vertex, gradient: Any) -> None:
            gradient = gradient.whole() if isinstance(gradient, Part) else gradient
            rules = zip(getattr(self.plan, "rules", ()), node.parents, strict=False)
            names = " and ".join(repr(self.op.signature.name_of(k)) for (k, *_), p in rules if p is parent)
            what = f"the gradient of argument {names or '?'}"
            values = to_array(gradient)

            def context(at: Index) -> str:
                return f", where that of its output is {upstream[at]}" if upstream.shape == values.shape else ""

            _check(self.op, what, values, self.line, self.infinite, context)
            add(parent, gradient)

        # If the pass records itself, errors of the ops in a rule name the line that called the op with that rule.
        def hear(op: Any, args: Sequence[Any], out: Tensor) -> None:
            _watch(out, f"{self.line} (in its backward pass)", self.infinite)

        with listening(hear), np.errstate(all="ignore"):
            self.plan.pull(node, seed, needed, check_and_add)
