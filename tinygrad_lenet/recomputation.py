"""Memory for time: functions whose intermediate values are not kept for the backward pass, but computed again."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from .arguments import function, instance, listed
from .errors import GradientError
from .graph import Node, Vertex, enable_grad, is_grad_enabled, listener, listening, now, pullback, sources, watcher
from .memory import storage
from .primitive import changed, kept
from .tensor import Tensor, Version, root_of

__all__ = ["checkpoint"]


class _Use(NamedTuple):
    """A tensor that a call used and that no op of the call made."""

    tensor: Tensor | None  # None if it was gone when the call ended
    version: Version
    changes: float  # in place, when it was used: of the version counter
    requires_grad: bool
    values: Any  # a fingerprint, where neither the tensor nor the count can tell


class _Before(NamedTuple):
    """Memory as it was before a call changed it in place."""

    version: Version
    stamp: Version
    memory: Any
    copy: Any


class _Trace:
    """What a call took from outside and in which order: a second call that takes the same computes the same.

    Ops are deterministic. So it is enough to compare their names, the tensors that no op of the call made (by their
    version counters) and all numbers and arrays among the arguments (by fingerprints); and, last, the outputs.
    """

    def __init__(self, first: _Trace | None = None) -> None:
        self.first, self.error = first, ""
        self.steps: list[tuple[str, int]] = []
        self.uses: list[_Use] = []
        self.before: list[_Before] = []
        self._made: dict[int, Version] = {}  # version lists by identity, which they keep while they are held here
        self._used: dict[int, Version] = {}
        self._changed: set[int] = set()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Follow what is computed inside; who listened before, an outer checkpoint say, goes on listening."""
        outer, outer_watch = listener(), watcher()

        def hear(op: Any, args: tuple[Any, ...], out: Any) -> None:
            self._step(op.name, args)
            if id(out._version) not in self._used:
                self._made[id(out._version)] = out._version
            if outer is not None:
                outer(op, args, out)

        def watch(tensor: Any, index: Any, value: Any) -> None:
            self._step("a change in place", (index, value))
            version = tensor._version
            if id(version) not in self._made and id(version) not in self._changed:
                memory = storage(tensor._data)
                self._changed.add(id(version))
                self.before.append(_Before(version, version[:], memory, memory.copy()))
            if outer_watch is not None:
                outer_watch(tensor, index, value)

        with listening(hear, watch):
            yield

    def _step(self, name: str, args: Sequence[Any]) -> None:
        self.steps.append((name, hash(tuple([self._argument(a) for a in args]))))
        if self.first is not None and self.steps[-1:] != self.first.steps[len(self.steps) - 1 : len(self.steps)]:
            self._differ(f"step {len(self.steps)} ({name}) is another one, or has other arguments")

    def _argument(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple([self._argument(v) for v in value])
        if not isinstance(value, Tensor):
            return _fingerprint(value)
        version = value._version
        if id(version) not in self._made and id(version) not in self._used:
            self._used[id(version)] = version
            count = version[0]
            foreign = None if count >= 0 else _fingerprint(value._data)
            self.uses.append(_Use(value, version, count, value._requires_grad, foreign))
            if self.first is not None:
                self._compare(value, self.first.uses[len(self.uses) - 1 : len(self.uses)])
        return None

    def _compare(self, value: Tensor, found: list[_Use]) -> None:
        """A tensor that the second call uses, with what the first one used at that place."""
        if not found or found[0].requires_grad != value._requires_grad:
            self._differ(f"it used another tensor, of shape {value.shape}")
            return
        tensor, version, count, _, values = found[0]
        if version is value._version and count >= 0:
            if version[0] != count:
                self.error = self.error or str(changed("checkpoint: a tensor that the function uses", value))
            return
        if tensor is not None and version[0] == count:
            values = _fingerprint(tensor._data)
        if values is not None and values != _fingerprint(value._data):
            self._differ(f"a tensor of shape {value.shape} holds other values")

    def _differ(self, what: str) -> None:
        self.error = self.error or (
            f"checkpoint: the function gave other values when it was called again for the backward pass: {what}; name "
            "its random generators in generators=, and do not change what it uses in between"
        )

    def end(self, outputs: Sequence[Any]) -> None:
        """The call is over; it gave these arrays."""
        self._step("the outputs", outputs)
        if self.first is not None and len(self.steps) < len(self.first.steps):
            self._differ("it did less")
        if self.error:
            raise GradientError(self.error)

    def settle(self) -> None:
        """Let go of what the call made; of tensors that nobody else holds, a fingerprint is enough."""
        self._made.clear()
        self._used.clear()
        uses, self.uses = self.uses[::-1], []
        while uses:
            use: Any = uses.pop()
            data, there = use.tensor._data, weakref.ref(use.tensor)
            use = use._replace(tensor=None)
            if there() is None and use.version[0] == use.changes:
                use = use._replace(values=_fingerprint(data))
            self.uses.append(use._replace(tensor=there()))
        before, self.before = self.before[::-1], []
        while before:
            version, stamp, memory, copy = before.pop()
            there = weakref.ref(memory)
            memory = None
            if there() is not None:
                self.before.append(_Before(version, stamp, there(), copy))

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Tensors that the call changed in place are inside what they were before it, and afterwards what they are."""
        present = [_Before(version, version[:], memory, memory.copy()) for version, _, memory, _ in self.before]
        try:
            _restore(self.before)
            yield
        finally:
            _restore(present)


def _restore(states: Sequence[_Before]) -> None:
    for version, stamp, memory, copy in states:
        memory[...] = copy
        version[:] = stamp


def _fingerprint(value: Any) -> Any:
    """Equal for the same numbers, to the bit, and hardly ever for others."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        data: Any = value if value.flags.c_contiguous else value.tobytes()
        return value.shape, value.dtype.str, zlib.crc32(data)
    if isinstance(value, (int, float, complex, str, slice, np.generic, type(None), type(Ellipsis))):
        return repr(value)
    return type(value).__name__


def _tensors(found: Any) -> list[Tensor]:
    """What can be differentiated of a result: of lists, tuples and dicts, to any depth."""
    if isinstance(found, Tensor):
        return [found] if found._requires_grad else []
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _replaced(found: Any, twins: Iterator[Tensor]) -> Any:
    """The same result with other tensors in place of :func:`_tensors`."""
    if isinstance(found, Tensor):
        return next(twins) if found._requires_grad else found
    if isinstance(found, dict):
        return {key: _replaced(value, twins) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        parts = [_replaced(value, twins) for value in found]
        return type(found)(*parts) if hasattr(found, "_fields") else type(found)(parts)
    return found


class _Recomputation:
    """Stands in the graph for a function, which is called again in the backward pass."""

    name = "checkpoint"

    def __init__(self, fn: Callable[..., Any], generators: Sequence[np.random.Generator]) -> None:
        self.fn, self.generators = fn, generators
        self.states = [generator.bit_generator.state for generator in generators]

    @property
    def op(self) -> _Recomputation:
        """Itself: it has a name, by which messages call it."""
        return self

    def call(self, args: Sequence[Any], trace: _Trace) -> tuple[Any, list[Tensor], int]:
        """What the function returns; of that, what can be differentiated; and when it was called."""
        since = now()
        try:
            with trace.listening():
                found = self.fn(*args)
        except Exception:
            if trace.error:  # of which the exception may come
                raise GradientError(trace.error) from None
            raise
        outputs = _tensors(found)
        trace.end([y._data for y in outputs])
        return found, outputs, since

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """The generators are inside what they were before the first call, and afterwards what they are."""
        later = [generator.bit_generator.state for generator in self.generators]
        try:
            for generator, state in zip(self.generators, self.states, strict=True):
                generator.bit_generator.state = state
            yield
        finally:
            for generator, state in zip(self.generators, later, strict=True):
                generator.bit_generator.state = state

    def pull(self, node: Node, seed: Any, needed: set[Vertex] | None, arrive: Callable[[Vertex, Any], object]) -> None:
        """Compute again, this time recorded, and pass the gradient through that record."""
        (args, _), (trace, _) = node.saved or [(None, 0)] * 2  # pullback has made sure that it is there
        with self.rewound(), trace.rewound():
            with enable_grad():
                _, outputs, since = self.call([a for a, _ in args], _Trace(trace))
            seeds = [seed]
            if len(outputs) > 1 or seed.shape != outputs[0].shape:
                ends = accumulate(y.size for y in outputs)
                seeds = [seed[end - y.size : end].reshape(y.shape) for y, end in zip(outputs, ends, strict=True)]
            wanted = {parent for parent in node.parents if needed is None or parent in needed}
            pullback([root_of(y) for y in outputs], seeds, wanted, isinstance(seed, Tensor), since, arrive)


def checkpoint(fn: Callable[..., Any], *args: Any, generators: Sequence[np.random.Generator] = ()) -> Any:
    """``fn(*args)``, without keeping what its gradient needs: it is called again in the backward pass, for memory.

    The memory of a chain of n checkpoints grows with the largest of them, not with their sum, for one more forward pass
    (Chen et al., *Training deep nets with sublinear memory cost*, 2016; PyTorch's ``torch.utils.checkpoint``).
    Gradients of any order also flow to what ``fn`` uses besides its arguments, such as the parameters of a module.

    The second call must compute what the first one did. It is compared op by op: the tensors that ``fn`` uses from
    outside, whether recorded or not, must not have been changed in place or exchanged; numbers and arrays given to ops
    must be equal, and so must the outputs. Tensors that ``fn`` itself changes in place, such as running statistics,
    are set back for the second call and keep the values that the first one gave them.

    What reaches no op cannot be watched: a Python number or a plain array that only the ``forward`` of a primitive or
    a rule of your own reads. Other side effects, such as a list that grows or a count that is a Python number, happen
    twice.

    Args:
        fn: a function or module that returns a tensor, or lists, tuples and dicts of them.
        args: its arguments.
        generators: random generators that ``fn`` draws from, set back for the second call. Those that are attributes
            of a module (``Dropout``) are found.

    Raises:
        GradientError: in the backward pass, if the second call differs from the first.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.0, 2.0], requires_grad=True)
    >>> y = tl.checkpoint(lambda x: x.exp().sin(), x)
    >>> y.sum().backward()
    >>> x.grad  # e^x cos(e^x)
    tensor([-2.4783502,  3.3129318])
    """
    function("checkpoint", "fn", fn)
    for generator in listed("checkpoint", "generators", generators, "random generators"):
        instance("checkpoint", "generators", generator, np.random.Generator)
    if not is_grad_enabled():
        return fn(*args)
    modules = fn.modules() if hasattr(fn, "modules") else ()
    found = [g for module in modules for g in vars(module).values() if isinstance(g, np.random.Generator)]
    plan = _Recomputation(fn, list({id(g): g for g in (*generators, *found)}.values()))
    given, trace = [kept(a, a) for a in args], _Trace()
    result = _recorded_again(plan, given, trace)
    trace.settle()
    return result


def _recorded_again(plan: _Recomputation, given: list[tuple[Any, Any]], trace: _Trace) -> Any:
    """What the function returns, hanging on one node in place of its own graph, which tells what it depends on."""
    result, outputs, since = plan.call([a for a, _ in given], trace)
    if not outputs:
        return result
    parents = list(sources([root_of(y) for y in outputs], since))
    saved: list[tuple[Any, Any]] = [(given, 0), (trace, 0)]
    if isinstance(result, Tensor):
        node = Node(plan, parents, result.shape, result.dtype, saved)
        return Tensor._wrap(result._data, node, result._version)
    # A node has one output: several are joined, and cut apart again.
    flat = np.concatenate([y._data.reshape(-1) for y in outputs])
    joined = Tensor._wrap(flat, Node(plan, parents, flat.shape, flat.dtype, saved))
    ends = accumulate(y.size for y in outputs)
    parts = [joined[end - y.size : end].reshape(y.shape).astype(y.dtype) for y, end in zip(outputs, ends, strict=True)]
    return _replaced(result, iter(parts))
