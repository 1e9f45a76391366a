"""Where NaN and infinity come from: the output and the gradients of every op are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .core.accumulation import Part
from .core.graph import Backward, Node, Vertex
from .core.modes import listening, user_line
from .core.tensor import Tensor, to_array
from .errors import AnomalyError, TinygradLenetError, named

__all__ = ["detect_anomaly"]

Index = tuple[int, ...]


@contextmanager
def detect_anomaly(infinite: bool = True) -> Iterator[None]:
    """Stop at the first op whose output, or one of whose gradients, is NaN or infinite.

    A context manager and a decorator, as PyTorch's ``torch.autograd.detect_anomaly``. The message names the op, the
    file and line that called it, the first bad index in row-major order, and what the arguments are there. What was
    recorded inside is looked at in the backward pass too, wherever that takes place. For finding an error: each array
    is read once more, and a small step takes several times as long.

    Args:
        infinite: whether infinities count; say False for a model that masks with ``-inf``.

    Raises:
        AnomalyError: there is one.

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
        at = _first(out._data, infinite)
        if at is not None:
            value, arguments = _value(out._data, at), _arguments(op, args, out.shape, at)
            raise _anomaly(op.name, f"the output is {value}{arguments}", line)
        _watch(out, line, infinite)

    with listening(hear), np.errstate(all="ignore"):  # NumPy's warnings know neither op nor line
        yield


def _anomaly(op: str, what: str, line: str) -> TinygradLenetError:
    """The error, in the name of the op."""
    return named(AnomalyError(f"{what}; {op} was called at {line}"), op)


def _user_code() -> str:
    """Where the user's program stands, and what it says there."""
    import linecache

    place = user_line()
    name, _, number = place.rpartition(", line ")
    return f"{place}: {linecache.getline(name, int(number)).strip()}".removesuffix(": ")


def _first(array: Any, infinite: bool) -> Index | None:
    """The first index of a value that is not a number."""
    if array.dtype.kind != "f":
        return None
    bad = ~np.isfinite(array) if infinite else np.isnan(array)
    return tuple(map(int, np.unravel_index(bad.argmax(), bad.shape))) if bad.any() else None


def _value(array: Any, at: Index) -> str:
    return f"{array[at]} at index {at}" if at else f"{array[at]}"


def _arguments(op: Any, args: Sequence[Any], shape: Index, at: Index) -> str:
    """What the arguments are at an index of the output, as far as they correspond to it."""
    found = []
    for i, a in enumerate(args):
        last = min(i, len(op.names) - 1)
        if a is None or not op.signature.operands[last]:
            continue
        name, values = op.names[last], to_array(a)
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
    """The plan of an op, which looks at the gradients that come and go."""

    def __init__(self, plan: Backward, line: str, infinite: bool) -> None:
        self.plan, self.line, self.infinite = plan, line, infinite

    @property
    def op(self) -> Any:
        """That of the plan."""
        return self.plan.op

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, arrive: Callable[[Vertex, Any], object]) -> None:
        """Pass the gradients on, if they are numbers."""
        seed = seed.whole() if isinstance(seed, Part) else seed
        upstream = to_array(seed)
        self._look("the gradient of its output (a sum of several, or what backward() was given)", upstream)

        def passed(parent: Vertex, gradient: Any) -> None:
            gradient = gradient.whole() if isinstance(gradient, Part) else gradient
            rules = zip(getattr(self.plan, "rules", ()), node.parents, strict=False)
            names = " and ".join(repr(self.op.signature.name_of(k)) for (k, *_), p in rules if p is parent)
            self._look(f"the gradient of argument {names or '?'}", to_array(gradient), upstream)
            arrive(parent, gradient)

        # In a pass that records itself, an op of a rule is told of by the op whose rule it is.
        def hear(op: Any, args: Sequence[Any], out: Tensor) -> None:
            _watch(out, f"{self.line} (in its backward pass)", self.infinite)

        with listening(hear), np.errstate(all="ignore"):
            self.plan.pull(node, seed, needed, passed)

    def _look(self, what: str, values: Any, upstream: Any = None) -> None:
        at = _first(values, self.infinite)
        if at is not None:
            same = upstream is not None and upstream.shape == values.shape
            there = f", where that of its output is {upstream[at]}" if same else ""
            raise _anomaly(self.op.name, f"{what} is {_value(values, at)}{there}", self.line)
