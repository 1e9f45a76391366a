"""Memory for time: functions whose intermediate values are not kept for the backward pass, but computed again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from .checks import function, instance, listed
from .core.graph import Node, Vertex, ancestors, now, pullback, sources
from .core.modes import enable_grad, is_grad_enabled, listener, listening, watcher
from .core.python_object import root_of
from .core.saved import changed, save
from .core.signature import checked
from .core.tensor import Tensor, Version
from .errors import GradientError, OutOfMemoryError, TinygradLenetError, foreign, named
from .kernels.memory import storage

__all__ = ["checkpoint"]


class _Use(NamedTuple):
    """A tensor from outside of a call, as a recorded op of the call used it."""

    tensor: Any  # None if it was gone when the call ended
    shape: tuple[int, ...]
    version: Version
    changes: float  # in place, when it was used
    requires_grad: bool = False
    values: Any = None  # a fingerprint, where neither the tensor nor the version can tell

    def same(self, first: _Use) -> bool:
        """True if it has the values of the tensor that the first call used."""
        if self.version is first.version and self.changes == first.changes:
            return True
        values = first.values
        if values is None and first.tensor is not None and first.version[0] == first.changes:
            values = _fingerprint(first.tensor._data)
        return values is None or values == _fingerprint(self.tensor._data)


class _Step(NamedTuple):
    """A recorded op: the number of its node, its arguments other than tensors, and the tensors from outside."""

    number: int
    name: str
    options: Any
    uses: list[_Use]


class _Before(NamedTuple):
    """Memory as it was before a call changed it in place."""

    version: Version
    stamp: Version
    memory: Any
    copy: Any


class _Trace:
    """The inputs of a call from outside. A second call with the same inputs computes the same: ops are deterministic.

    It is enough to compare the recorded ops that the outputs depend on: their names, the tensors from outside by their
    version counters, numbers and arrays by fingerprints; and last the outputs. What a function does besides, such as
    filling a cache or printing a mean, may differ.
    """

    def __init__(self) -> None:
        self.since = now()
        self.steps: list[_Step] = []
        self.numbers: set[int] = set()  # of the nodes that the outputs depend on
        self.outputs: list[Any] = []
        self.others: list[_Use] = []  # by ops that were not recorded
        self.before: list[_Before] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Follow the ops inside. A listener from before, such as an outer checkpoint, goes on listening."""
        outer, outer_watch = listener(), watcher()

        def hear(op: Any, args: tuple[Any, ...], out: Any) -> None:
            uses: list[_Use] = []
            if out._node is not None:
                self.steps.append(_Step(out._node.number, op.name, self._options(args, uses), uses))
            else:
                self.others += [_Use(None, a.shape, a._version, a._version[0]) for a in args if isinstance(a, Tensor)]
            if outer is not None:
                outer(op, args, out)

        def watch(tensor: Any, index: Any, value: Any) -> None:
            version = tensor._version
            if all(version is not b.version for b in self.before):
                memory = storage(tensor._data)
                self.before.append(_Before(version, version[:], memory, memory.copy()))
            if outer_watch is not None:
                outer_watch(tensor, index, value)

        with listening(hear, watch):
            yield

    def _options(self, value: Any, uses: list[_Use]) -> Any:
        """A fingerprint of arguments; tensors from outside are appended to ``uses``."""
        if isinstance(value, (list, tuple)):
            return tuple([self._options(v, uses) for v in value])
        if not isinstance(value, Tensor):
            return _fingerprint(value)
        if value._node is None or value._node.number < self.since:
            changes = value._version[0]
            foreign = None if changes >= 0 else _fingerprint(value._data)
            uses.append(_Use(value, value.shape, value._version, changes, value._requires_grad, foreign))
        return None

    def end(self, outputs: Sequence[Tensor]) -> None:
        """End the call: keep the ops that its outputs depend on."""
        for node in ancestors([root_of(y) for y in outputs], self.since):
            self.numbers.add(node.number)
            if isinstance(node.plan.op, _Recomputation):  # which stands for ops that were heard of
                self.numbers |= node.plan.op.numbers
        besides = [use for step in self.steps if step.number not in self.numbers for use in step.uses]
        self.others += [use._replace(tensor=None) for use in besides]  # if the second call fails, they may tell why
        self.steps = [step for step in self.steps if step.number in self.numbers]
        self.outputs = [_fingerprint(y._data) for y in outputs]

    def settle(self) -> None:
        """Free what the call made; a tensor that nobody else holds is replaced by a fingerprint."""
        self.others = [use for use in self.others if use.version[0] == use.changes]  # else the call changed it itself
        uses = [(step.uses, use) for step in self.steps for use in step.uses]
        found = [(into, use._replace(tensor=None), weakref.ref(use.tensor), use.tensor._data) for into, use in uses]
        for step in self.steps:
            step.uses.clear()
        uses.clear()
        for into, use, there, data in found:
            if there() is None and use.version[0] == use.changes:
                use = use._replace(values=_fingerprint(data))
            into.append(use._replace(tensor=there()))
        states = [(b._replace(memory=None), weakref.ref(b.memory)) for b in self.before]
        self.before.clear()
        self.before += [b._replace(memory=there()) for b, there in states if there() is not None]

    def moved(self) -> TinygradLenetError | None:
        """An error if a tensor that the ops used was changed in place since, other than by the call itself."""
        own = {id(b.version) for b in self.before}
        for use in [*(use for step in self.steps for use in step.uses), *self.others]:
            if use.version[0] != use.changes >= 0 and id(use.version) not in own:
                return named(changed("a tensor that the function uses", use.shape, use.version), "checkpoint")
        return None

    def differs(self, first: _Trace) -> TinygradLenetError | None:
        """The refusal of a call that is not like the first one."""
        found = self._difference(first)
        if found is None:
            return None
        return first.moved() or _refusal(
            f"the function gave other values when it was called again for the backward pass: {found}; name its random "
            "generators in generators=, and do not change what it uses in between"
        )

    def _difference(self, first: _Trace) -> str | None:
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

    @contextmanager
    def rewound(self, back: bool) -> Iterator[None]:
        """Tensors that the call changed in place are inside what they were before it, and afterwards what they are.

        If not ``back``, they begin as they are.
        """
        present = [_Before(version, version[:], memory, memory.copy()) for version, _, memory, _ in self.before]
        try:
            _restore(self.before if back else ())
            yield
        finally:
            _restore(present)


def _refusal(why: str) -> TinygradLenetError:
    """An error of the backward pass, in which no door gives it the name."""
    return named(GradientError(why), "checkpoint")


def _failed(error: Exception) -> Exception:
    """The error to raise if the second call fails: its ops got other arguments than in the first."""
    if not isinstance(error, TinygradLenetError) or isinstance(error, (GradientError, OutOfMemoryError)):
        return error
    refusal = _refusal(
        f"the function failed when it was called again for the backward pass: {error}; do not change what it uses in "
        "between"
    )
    refusal.__cause__ = error
    return refusal


def _restore(states: Sequence[_Before]) -> None:
    for version, stamp, memory, copy in states:
        memory[...] = copy
        version[:] = stamp


def _fingerprint(value: Any) -> Any:
    """Equal for the same numbers, to the bit, and hardly ever for others."""
    import zlib  # here, because most programs do without

    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        data: Any = value if value.flags.c_contiguous else value.tobytes()
        return value.shape, value.dtype.str, zlib.crc32(data)
    if isinstance(value, (int, float, complex, str, slice, np.generic, type(None), type(Ellipsis))):
        return repr(value)
    return type(value).__name__


def _tensors(found: Any) -> list[Tensor]:
    """The tensors of a result that require a gradient, from lists, tuples and dicts of any depth."""
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
    view = True  # the function may return its argument

    def __init__(self, fn: Callable[..., Any], generators: Sequence[np.random.Generator]) -> None:
        self.fn, self.generators = fn, generators
        self.states = [generator.bit_generator.state for generator in generators]
        self.numbers: set[int] = set()  # of the nodes that it stands for

    @property
    def op(self) -> _Recomputation:
        """Itself: it has a name, by which messages call it."""
        return self

    def call(self, args: Sequence[Any], trace: _Trace) -> tuple[Any, list[Tensor]]:
        """The result of the function, and its tensors that require a gradient."""
        with trace.listening(), foreign:
            found = self.fn(*args)
        outputs = _tensors(found)
        trace.end(outputs)
        self.numbers = trace.numbers
        return found, outputs

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
        (args, _), (first, _) = node.saved or [(None, 0)] * 2  # pullback has made sure that it is there
        error: Exception | None = None
        # A function may set tensors up when it is called for the first time, and leave them alone from then on.
        for back in (True, False) if first.before else (False,):
            with self.rewound(), first.rewound(back):
                trace, outputs = _Trace(), list[Tensor]()
                different: Exception | None
                try:
                    with enable_grad():
                        _, outputs = self.call([a for a, _ in args], trace)
                    different = trace.differs(first)
                except Exception as failure:
                    different = first.moved() or _failed(failure)
                if different is None:
                    seeds = [seed]
                    if len(outputs) > 1 or seed.shape != outputs[0].shape:
                        ends = accumulate(y.size for y in outputs)
                        seeds = [
                            seed[end - y.size : end].reshape(y.shape) for y, end in zip(outputs, ends, strict=True)
                        ]
                    wanted = {parent for parent in node.parents if needed is None or parent in needed}
                    roots = [root_of(y) for y in outputs]
                    pullback(roots, seeds, wanted, isinstance(seed, Tensor), trace.since, arrive)
                    return
            error = error or different
        raise error or _refusal("the function could not be called again")


@checked
def checkpoint(fn: Callable[..., Any], *args: Any, generators: Sequence[np.random.Generator] = ()) -> Any:
    """``fn(*args)``, without keeping what its gradient needs: it is called again in the backward pass, for memory.

    The memory of a chain of n checkpoints grows with the largest of them, not with their sum, for one more forward pass
    (Chen et al., *Training deep nets with sublinear memory cost*, 2016; PyTorch's ``torch.utils.checkpoint``).
    Gradients of any order also flow to what ``fn`` uses besides its arguments, such as the parameters of a module.

    The second call must compute what the first one did. The recorded ops are compared, one by one: the tensors that
    they use from outside, whether these require a gradient or not, must not have been changed in place or exchanged;
    numbers and arrays among their arguments must be equal, and so must the outputs, to the last bit. Tensors that
    ``fn`` itself changes in place, such as running statistics, are set back for the second call, and then keep the
    values that they have.

    What is no argument of an op cannot be watched: a plain array or a number that only the ``forward`` or a rule of
    your own :func:`primitive` reads. Other side effects, such as a list that grows, a count that is a Python number,
    or ``backward()`` inside of ``fn``, happen twice.

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
    function("fn", fn)
    for generator in listed("generators", generators, "random generators"):
        instance("generators", generator, np.random.Generator)
    if not is_grad_enabled():
        with foreign:
            return fn(*args)
    modules = fn.modules() if hasattr(fn, "modules") else ()
    found = [g for module in modules for g in vars(module).values() if isinstance(g, np.random.Generator)]
    plan = _Recomputation(fn, list({id(g): g for g in (*generators, *found)}.values()))
    given, trace = [save(a, a) for a in args], _Trace()
    result = _recorded_again(plan, given, trace)
    trace.settle()
    return result


def _recorded_again(plan: _Recomputation, given: list[tuple[Any, Any]], trace: _Trace) -> Any:
    """The result of the function, on one node in place of its own graph, which gives the parents of that node."""
    result, outputs = plan.call([a for a, _ in given], trace)
    if not outputs:
        return result
    parents = list(sources([root_of(y) for y in outputs], trace.since))
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
