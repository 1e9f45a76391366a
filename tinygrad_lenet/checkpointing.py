"""Trade time for memory: functions whose intermediate values are recomputed in the backward pass instead of kept."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from .checks import Function, instance, listed
from .core.graph import Node, Vertex, ancestors, now, pullback, sources
from .core.modes import effect, enable_grad, is_grad_enabled, listener, listening, watcher
from .core.python_object import root_of
from .core.saved import changed, save
from .core.signature import checked
from .core.tensor import Tensor, Version
from .core.values import mapped
from .errors import GradientError, OutOfMemoryError, TinygradLenetError, foreign, named
from .kernels.memory import storage
from .ops.creation import SHARED
from .ops.shape import concatenate

__all__ = ["checkpoint"]


@dataclass
class _Use:
    """The use of an outside tensor by an op of a call."""

    held: Any  # the tensor; None if it was freed when the call ended
    shape: tuple[int, ...]
    version: Version
    changes: float  # its version at that time
    requires_grad: bool = False
    values: Any = None  # a fingerprint, if neither the tensor nor its version is enough to compare

    def same(self, first: _Use) -> bool:
        """Return True if the tensor has the values that the first call used."""
        if self.version is first.version and self.changes == first.changes:
            return True
        values = first.values
        if values is None and first.held is not None and first.version[0] == first.changes:
            values = _fingerprint(first.held._data)
        return values is None or values == _fingerprint(self.held._data)


class _Step(NamedTuple):
    """A recorded op."""

    number: int  # of its node
    name: str
    options: Any  # a fingerprint of its arguments other than tensors
    uses: list[_Use]  # of outside tensors


class _State:
    """The contents and the version of memory, or the state of a random generator, at this time."""

    def __init__(self, held: Any, version: Version | None = None) -> None:
        self.held, self.version = held, version
        self.note()

    def __eq__(self, other: object) -> bool:  # a replay compares the arguments of effects
        return isinstance(other, _State) and other.held is self.held

    @effect
    def note(self) -> None:
        """Remember how it is now."""
        if self.version is None:
            self.copy = self.held.bit_generator.state
        else:
            self.copy = self.held.copy()
            self.stamp = self.version[:]

    @effect
    def restore(self) -> None:
        """Return it to that."""
        if self.version is None:
            self.held.bit_generator.state = self.copy
        else:
            self.held[...] = self.copy
            self.version[:] = self.stamp


class _Trace:
    """The inputs of a call. Ops are deterministic, so another call with equal inputs computes equal outputs.

    Only the recorded ops that the outputs depend on are compared: their names, their outside tensors by version
    counters, their numbers and arrays by fingerprints. So the function may also fill a cache or print a mean, and may
    do so only once.
    """

    def __init__(self) -> None:
        self.since = now()
        self.steps: list[_Step] = []
        self.outputs: list[Any] = []  # fingerprints
        self.before: list[_State] = []  # of memory that the call changed in place

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record the ops of a block. A listener that was set before, such as an outer checkpoint, hears them too."""
        outer, outer_watch = listener(), watcher()

        def hear(op: Any, args: tuple[Any, ...], out: Any) -> None:
            if out._node is not None:
                uses: list[_Use] = []
                self.steps.append(_Step(out._node.number, op.name, self._options(args, uses), uses))
            if outer is not None:
                outer(op, args, out)

        def watch(tensor: Any, index: Any, value: Any) -> None:
            if all(tensor._version is not state.version for state in self.before):
                self.before.append(_State(storage(tensor._data), tensor._version))
            if outer_watch is not None:
                outer_watch(tensor, index, value)

        with listening(hear, watch):
            yield

    def _options(self, value: Any, uses: list[_Use]) -> Any:
        """A fingerprint of arguments; appends the outside tensors among them to ``uses``."""
        if isinstance(value, (list, tuple)):
            return tuple([self._options(v, uses) for v in value])
        if not isinstance(value, Tensor):
            return _fingerprint(value)
        if value._node is None or value._node.number < self.since:
            changes = value._version[0]
            shared = None if changes >= 0 else _fingerprint(value._data)  # another library may change it uncounted
            uses.append(_Use(value, value.shape, value._version, changes, value._requires_grad, shared))
        return None

    def end(self, outputs: Sequence[Tensor]) -> set[int]:
        """Keep the steps that the outputs depend on; return the numbers of their nodes."""
        numbers: set[int] = set()
        for node in ancestors([root_of(y) for y in outputs], self.since):
            numbers.add(node.number)
            if isinstance(node.plan.op, _Recomputation):  # an inner checkpoint, whose ops were heard too
                numbers |= node.plan.op.numbers
        self.steps = [step for step in self.steps if step.number in numbers]
        self.outputs = [_fingerprint(y._data) for y in outputs]
        return numbers

    def uses(self) -> list[_Use]:
        """The uses of outside tensors by all steps."""
        return [use for step in self.steps for use in step.uses]

    def settle(self) -> None:
        """Release tensors and memory that nothing else holds; of such tensors, keep a fingerprint."""
        uses = self.uses()
        arrays = [use.held._data for use in uses]
        holders: list[Any] = [*uses, *self.before]
        references = [weakref.ref(holder.held) for holder in holders]
        for holder in holders:
            holder.held = None
        for holder, reference in zip(holders, references, strict=True):
            holder.held = reference()
        for use, array in zip(uses, arrays, strict=True):
            if use.held is None and use.version[0] == use.changes:
                use.values = _fingerprint(array)
        self.before = [state for state in self.before if state.held is not None]

    def moved(self) -> TinygradLenetError | None:
        """An error if an outside tensor was changed in place after the call, and not by the call."""
        own = {id(state.version) for state in self.before}
        for use in self.uses():
            if use.version[0] != use.changes >= 0 and id(use.version) not in own:
                return named(changed("a tensor that the function uses", use.shape, use.version), "checkpoint")
        return None

    def difference(self, first: _Trace) -> str | None:
        """How this call differs from the first one, if it does."""
        for i, (step, was) in enumerate(zip(self.steps, first.steps, strict=False), 1):
            if step[1:3] != was[1:3] or len(step.uses) != len(was.uses):
                return f"op {i}, {step.name}, is not the same or has other arguments"
            for use, earlier in zip(step.uses, was.uses, strict=True):
                moved = use.version is earlier.version and use.changes != earlier.changes >= 0
                if moved or use.requires_grad != earlier.requires_grad or not use.same(earlier):
                    return f"op {i}, {step.name}, uses another tensor of shape {use.shape}"
        if len(self.steps) != len(first.steps):
            return f"{len(self.steps)} ops in place of {len(first.steps)}"
        return None if self.outputs == first.outputs else "an output differs"


def _fingerprint(value: Any) -> Any:
    """A key. Values with equal bits have equal keys; others almost never do."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        data: Any = value if value.flags.c_contiguous else value.tobytes()
        return value.shape, value.dtype.str, zlib.crc32(data)
    if isinstance(value, (int, float, complex, str, slice, np.generic, type(None), type(Ellipsis))):
        return repr(value)
    return type(value).__name__


def _replaced(result: Any, replace: Callable[[Tensor], Any]) -> Any:
    """A result with another value in place of each tensor that requires a gradient, in lists, tuples and dicts."""
    return mapped(result, lambda v: replace(v) if isinstance(v, Tensor) and v._requires_grad else v)


def _split(flat: Any, outputs: Sequence[Tensor]) -> list[Any]:
    """The parts of a joined array or Tensor, in the shapes of the outputs."""
    ends = accumulate(y.size for y in outputs)
    return [flat[end - y.size : end].reshape(y.shape) for y, end in zip(outputs, ends, strict=True)]


class _Recomputation:
    """The plan of a node that replaces the graph of a function: it calls the function again in the backward pass."""

    name = "checkpoint"
    view = True  # the function may return its argument

    def __init__(self, fn: Function, generators: Sequence[np.random.Generator]) -> None:
        self.fn, self.generators = fn, [_State(generator) for generator in generators]
        self.numbers: set[int] = set()  # of the nodes that it replaces

    @property
    def op(self) -> _Recomputation:
        """The op, whose name messages use: this object."""
        return self

    def call(self, args: Sequence[Any]) -> tuple[Any, list[Tensor], _Trace]:
        """The result of the function, its tensors that require a gradient, and the trace of the call."""
        trace = _Trace()
        outputs: list[Tensor] = []
        with trace.listening(), foreign:
            result = self.fn(*[save(a, a)[0] for a in args])  # copies of arrays, which the function may write to
        _replaced(result, outputs.append)
        self.numbers = trace.end(outputs)
        return result, outputs, trace

    def call_again(self, args: Sequence[Any], first: _Trace) -> tuple[list[Tensor], int]:
        """The outputs of the function, and the time before its call. Raise unless it computes the same again."""
        try:
            with enable_grad():
                _, outputs, trace = self.call(args)
        except Exception as error:
            error.add_note("A checkpoint called its function again for the backward pass.")
            # An op did not accept its arguments, which it did in the first call.
            if isinstance(error, TinygradLenetError) and not isinstance(error, (GradientError, OutOfMemoryError)):
                message = f"the function failed when it was called again for the backward pass: {error}"
                raise first.moved() or named(GradientError(message), "checkpoint") from error
            raise first.moved() or error  # noqa: B904  # it is the same error
        difference = trace.difference(first)
        if difference is not None:
            message = (
                f"the function gave other values when it was called again for the backward pass: {difference}; name "
                "its random generators in generators=, and do not change what it uses in between"
            )
            raise first.moved() or named(GradientError(message), "checkpoint")
        return outputs, trace.since

    @contextmanager
    def rewound(self, before: list[_State]) -> Iterator[None]:
        """Return the generators, and memory that the first call changed, to their state before it, for one block."""
        with ExitStack() as after:
            for earlier in (*self.generators, *before):
                after.callback(_State(earlier.held, earlier.version).restore)
                earlier.restore()
            yield

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, add: Callable[[Vertex, Any], object]) -> None:
        """Call the function again, recorded, and pull the gradient back through that graph."""
        (args, _), (first, _) = node.saved or [(None, 0)] * 2  # pullback has checked that it is there
        with self.rewound(first.before):
            outputs, since = self.call_again([a for a, _ in args], first)
            seeds = _split(seed.reshape(-1), outputs)
            wanted = {parent for parent in node.parents if needed is None or parent in needed}
            pullback([root_of(y) for y in outputs], seeds, wanted, isinstance(seed, Tensor), since, add)


@checked
def checkpoint(fn: Function, *args: Any, generators: Sequence[np.random.Generator] = ()) -> Any:
    """Return ``fn(*args)`` without keeping what its gradient needs: the backward pass calls ``fn`` again.

    The memory of a chain of n checkpoints grows with the largest of them instead of their sum, at the price of another
    forward pass (Chen et al., *Training deep nets with sublinear memory cost*, 2016; PyTorch's
    ``torch.utils.checkpoint``). Gradients of any order also flow to tensors that ``fn`` uses besides its arguments,
    such as the parameters of a module.

    The second call must compute the same as the first. The recorded ops are compared one by one: the outside tensors
    that they use must not have been changed in place or replaced, whether they require a gradient or not; numbers and
    arrays among their arguments must be equal; and the outputs must be equal to the last bit. Tensors that ``fn``
    itself changes in place, such as running statistics, are set back for the second call and restored after it. So
    ``fn`` must not set a tensor up in place in its first call only.

    Values that are not arguments of an op are not compared, such as an array or a number that only the ``forward`` or a
    rule of your own :func:`primitive` reads. Other side effects happen twice: a list that grows, a count that is a
    Python number, or ``backward()`` inside ``fn``.

    Args:
        fn: a function or module that returns a tensor, or lists, tuples and dicts of tensors.
        args: its arguments.
        generators: random generators that ``fn`` draws from; they are set back for the second call. Those that are
            attributes of a module (``Dropout``), and that of :func:`manual_seed`, are found.

    Raises:
        GradientError: in the backward pass, if the second call differs from the first.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.0, 2.0], requires_grad=True)
    >>> y = tl.checkpoint(lambda x: x.exp().sin(), x)
    >>> y.sum().backward()
    >>> x.grad  # e^x cos(e^x)
    tensor([-2.4783502,  3.3129318])
    """
    for generator in listed("generators", generators, "random generators"):
        instance("generators", generator, np.random.Generator)
    if not is_grad_enabled():
        with foreign:
            return fn(*args)
    found = [g for _, g in fn._search(np.random.Generator)] if hasattr(fn, "_search") else []  # of a module
    plan = _Recomputation(fn, list({id(g): g for g in (*generators, *found, *SHARED)}.values()))
    result, trace = _recorded(plan, [save(a, a) for a in args])
    trace.settle()
    return result


def _recorded(plan: _Recomputation, given: list[tuple[Any, Any]]) -> tuple[Any, _Trace]:
    """The result as the output of one node that replaces the function's graph; its parents are the graph's inputs."""
    result, outputs, trace = plan.call([a for a, _ in given])
    if not outputs:
        return result, trace
    parents = list(sources([root_of(y) for y in outputs], trace.since))
    saved: list[tuple[Any, Any]] = [(given, 0), (trace, 0)]
    if isinstance(result, Tensor):
        node = Node(plan, parents, result.shape, result.dtype, saved)
        return Tensor._wrap(result._data, node, result._version), trace
    # A node has one output: join several, and split them again.
    flat = concatenate([y.detach().reshape(-1) for y in outputs])
    joined = Tensor._wrap(flat._data, Node(plan, parents, flat.shape, flat.dtype, saved))
    parts = iter([part.astype(y.dtype) for part, y in zip(_split(joined, outputs), outputs, strict=True)])
    return _replaced(result, lambda tensor: next(parts)), trace
