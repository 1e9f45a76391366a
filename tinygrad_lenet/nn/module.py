"""Modules: layers and models that own parameters. They are plain classes with plain attributes.

Parameters and submodules are in no register: :func:`_members` searches the attributes for them whenever they are
needed. Only the names of buffers are registered. Modules that hold others are in ``containers.py``.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, ParamSpec, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..checks import Function, entries, instance
from ..core.accumulation import clear
from ..core.hooks import Hook
from ..core.modes import tracer
from ..core.python_object import numbers
from ..core.signature import checked
from ..core.tensor import Tensor
from ..core.values import as_dtype, mapped, narrowed
from ..errors import ArgumentError, DTypeError, ShapeError, TinygradLenetError, brief, listing, named
from .naming import name_layer, title

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class _Forward(Protocol[P, R]):
    """An object that is called with the parameters of its method ``forward``, and returns its result."""

    forward_pre_hooks: Any
    forward_hooks: Any

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


class Parameter(Tensor):
    """A Tensor that a module learns. It requires a gradient, and :meth:`Module.parameters` lists it.

    >>> from tinygrad_lenet import nn
    >>> nn.Parameter([1.0, 2.0])
    tensor([1., 2.], requires_grad=True)
    """

    __slots__ = ()

    @checked
    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        try:
            super().__init__(data, requires_grad)
        except TinygradLenetError as error:
            raise named(error, "Parameter: data") from None


class StateError(TinygradLenetError, KeyError):
    """A state dict does not fit the module. The message lists every missing, unexpected or misshapen key."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr


class Module:
    """Base of layers and models. A subclass writes ``__init__`` and ``forward``.

    Assign parameters and other modules as attributes, or in lists, tuples and dicts: they are found there, in the order
    of assignment. :meth:`register_buffer` adds a buffer: a Tensor that is part of the state but not learned, such as a
    running mean. Every other Tensor is a plain attribute, which is not saved; of an activation, copies and pickles of
    the module have the values only. A leaf that requires a gradient is refused, since only parameters are trained.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> class Affine(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.scale = nn.Parameter([2.0])
    ...         self.shift = nn.Parameter([1.0])
    ...
    ...     def forward(self, x):
    ...         return x * self.scale + self.shift
    >>> model = Affine()
    >>> model(tl.tensor([3.0]))
    tensor([7.], op=add)
    >>> [name for name, _ in model.named_parameters()]
    ['scale', 'shift']
    """

    forward_pre_hooks: Sequence[Any] = ()
    forward_hooks: Sequence[Any] = ()
    training: bool = True
    _changes: ClassVar = [0]  # a count that grows with each assignment to an attribute of a module; replays watch it
    _buffers: Mapping[str, bool] = {}  # the names of buffers, and whether the state holds them; replaced, not changed

    def __init__(self) -> None:
        self.training = True
        self._buffers = {**self._buffers}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. Each subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method; write one")

    def __call__(self: _Forward[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return ``self.forward(...)``. Type checkers know its parameters and its result.

        If the module is a layer of the package, an error begins with its class and its options.
        """
        given: Any = args
        if (trace := tracer()) is not None:
            trace.modules[id(self)] = self
            if self.forward_pre_hooks or self.forward_hooks:
                trace.refuse(f"a {type(self).__name__} has a hook")
        for hook in (*self.forward_pre_hooks,):
            found = hook.run(self, given)
            given = given if found is None else found if isinstance(found, tuple) else (found,)
        try:
            output = self.forward(*given, **kwargs)
        except (TinygradLenetError, TypeError) as error:
            name_layer(error, self, any(isinstance(value, Module) for value in vars(self).values()))
            raise
        for hook in (*self.forward_hooks,):
            found = hook.run(self, given, output)
            output = output if found is None else found
        return output

    @checked
    def register_forward_pre_hook(self, hook: Function) -> Hook:
        """Call ``hook(module, args)`` before each call of the module, with the tuple of its positional arguments.

        What the hook returns replaces the arguments, unless it is None: a tuple of them, or the only one. Hooks are
        called in the order of their registration, also those of copies. ``remove()`` of the result removes the hook.

        >>> from tinygrad_lenet import nn
        >>> layer = nn.ReLU()
        >>> handle = layer.register_forward_pre_hook(lambda module, args: [-x for x in args[0]])
        >>> layer([-3.0, 1.0])
        tensor([3., 0.])
        """
        hooks = vars(self).setdefault("forward_pre_hooks", [])
        Module._changes[0] += 1
        return Hook(hooks, hook)

    @checked
    def register_forward_hook(self, hook: Function) -> Hook:
        """Call ``hook(module, args, output)`` after each call of the module. What the hook returns replaces the output,
        unless it is None. See :meth:`register_forward_pre_hook`.

        >>> from tinygrad_lenet import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> handle = model[0].register_forward_hook(lambda module, args, output: print(output.shape))
        >>> _ = model([[1.0, 2.0, 3.0, 4.0]])
        (1, 3)
        """
        hooks = vars(self).setdefault("forward_hooks", [])
        Module._changes[0] += 1
        return Hook(hooks, hook)

    def __setattr__(self, name: str, value: Any) -> None:
        Module._changes[0] += 1  # before the assignment, after which Ctrl-C may come
        if name in self._buffers and (name not in vars(self) or isinstance(value, Parameter)):
            self._buffers = {n: saved for n, saved in self._buffers.items() if n != name}  # deleted, or learned now
        # Refuse to overwrite a parameter with something else: it would silently stop being trained and saved.
        before = vars(self).get(name)
        kind: type = Parameter if isinstance(before, Parameter) else Module if isinstance(before, Module) else object
        kind = Tensor if name in self._buffers else kind
        if value is not None and not isinstance(value, kind):
            text = f"{name} is a {kind.__name__}, which {brief(value)} cannot replace; give another, or `del` it first"
            raise named(DTypeError(text), type(self).__name__)
        if isinstance(value, (Tensor, list, tuple, dict)):
            for key, tensor in _members({name: value}, Tensor):
                _refuse_untrained(key, tensor, self)
        super().__setattr__(name, value)
        Module._changes[0] += 1  # and after it: another thread may have looked at the attributes in between

    def __getstate__(self) -> dict[str, Any]:
        """The attributes for a copy or a pickle. Of a Tensor that hangs on a graph, only the values are copied."""
        state = {"_buffers": self._buffers, **vars(self)}
        detached = {id(t): t.detach() for _, t in _members(state, Tensor) if not t.is_leaf}
        for name, value in state.items():
            if any(id(t) in detached for _, t in _members({name: value}, Tensor)):
                state[name] = mapped(value, lambda v: detached.get(id(v), v))
        return state

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        if "_buffers" not in attributes:  # a pickle of an earlier version, in which every Tensor was a buffer
            attributes["_buffers"] = {n: True for n, t in _members(attributes, Tensor) if not isinstance(t, Parameter)}
        vars(self).update(attributes)

    # Parameters, buffers and submodules

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        return _members(vars(self), Module)

    def named_modules(
        self, prefix: str = "", remove_duplicate: bool = True, _seen: set[int] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """The module itself and all below it, depth first, with dotted names; a shared one once, or, with
        ``remove_duplicate=False``, under all its names.
        """
        seen = set() if _seen is None else _seen
        if id(self) not in seen:
            seen.add(id(self))
            yield prefix, self
            for name, child in self.named_children():
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, remove_duplicate, seen)
            if not remove_duplicate:
                seen.remove(id(self))  # so that only cycles are left out

    def modules(self) -> Iterator[Module]:
        """The module itself and all below it, depth first."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return (module for _, module in self.named_children())

    def _search(
        self, kind: type[T], remove_duplicate: bool = True, wanted: Callable[..., Any] = lambda *_: True
    ) -> Iterator[tuple[str, T]]:
        """The objects of a class in the attributes, with dotted names; a shared one once, or under all its names.

        ``wanted(module, name, object)`` says whether an object of a module is meant.
        """
        seen: set[int] = set()
        for prefix, module in self.named_modules(remove_duplicate=remove_duplicate):
            for name, value in _members(vars(module), kind):
                if wanted(module, name, value) and not (remove_duplicate and id(value) in seen):
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their dotted names, in the order of assignment; a shared one once."""
        for name, tensor in self._search(Tensor):
            _refuse_untrained(name, tensor, self)  # it may have been appended to a list
            if isinstance(tensor, Parameter):
                yield name, tensor

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, to pass to an optimiser."""
        return (parameter for _, parameter in self.named_parameters())

    @checked
    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a buffer as the attribute ``name``: a Tensor that is not learned, such as a running mean.

        The state dict holds it if ``persistent``. Another Tensor, or None for no buffer, may be assigned to it later.

        Raises:
            ArgumentError: the name is empty, contains a dot, or is that of another attribute.
            DTypeError: ``tensor`` is not a Tensor, or it is learned.

        >>> import tinygrad_lenet as tl
        >>> from tinygrad_lenet import nn
        >>> model = nn.Module()
        >>> model.register_buffer("mean", tl.zeros(2))
        >>> model.state_dict()
        {'mean': array([0., 0.], dtype=float32)}
        """
        if not name or "." in name or (name not in self._buffers and hasattr(self, name)):
            raise ArgumentError(f"name must be a word without dots, and no other attribute, got {brief(name)}")
        if tensor is not None and isinstance(instance("tensor", tensor, Tensor), Parameter):
            raise DTypeError("tensor must not be a Parameter, which is learned; assign it, or pass its detach()")
        setattr(self, name, tensor)
        self._buffers = {**self._buffers, name: persistent}

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their dotted names; see :meth:`register_buffer`."""
        return self._search(Tensor, wanted=lambda module, name, _: name in module._buffers)

    def buffers(self) -> Iterator[Tensor]:
        """The buffers; see :meth:`register_buffer`."""
        return (buffer for _, buffer in self.named_buffers())

    # Training, evaluation and state

    @checked
    def train(self, mode: bool = True) -> Self:
        """Set training mode, here and in all modules below: dropout is active, and batch norm uses the batch.

        ``train(False)`` sets evaluation mode.
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode, here and in all modules below."""
        return self.train(False)

    @checked
    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let all parameters require a gradient, or freeze them; return the module.

        >>> from tinygrad_lenet import nn
        >>> nn.Linear(2, 1).requires_grad_(False)([[1.0, 2.0]]).requires_grad
        False
        """
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    @checked
    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Self:
        """Convert all floats of the module to a dtype, with their gradients: ``to("float64")``. Return the module.

        Parameters stay the same objects, so an optimiser made before still has them. Buffers of integers stay as they
        are. A graph recorded before can no longer be differentiated. The device ``"cpu"`` changes nothing.

        Raises:
            ArgumentError: a device other than the CPU, two dtypes, or one of integers.
            DTypeError: not a dtype.

        >>> from tinygrad_lenet import nn
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).to("float64")
        >>> [array.dtype.name for array in model.state_dict().values()]
        ['float64', 'float64', 'float64', 'float64', 'float64', 'float64', 'int64']
        """
        given = [value for value in (*args, dtype, device) if value is not None and str(value) != "cpu"]
        if len(given) > 1 or str(*given).startswith(("cuda", "mps")) or (given and as_dtype(*given).kind != "f"):
            raise ArgumentError(f"expected one dtype of floats, or 'cpu', where everything runs; got {brief(given)}")
        for tensor in (*self.parameters(), *self.buffers()) if given else ():
            tensor._become(as_dtype(*given))
        return self

    def float(self) -> Self:
        """Convert all floats to float32; see :meth:`to`."""
        return self.to(np.float32)

    def double(self) -> Self:
        """Convert all floats to float64; see :meth:`to`."""
        return self.to(np.float64)

    def half(self) -> Self:
        """Convert all floats to float16; see :meth:`to`."""
        return self.to(np.float16)

    @checked
    def apply(self, fn: Function) -> Self:
        """Call ``fn(module)`` for each module below and then for this one, children first; return the module.

        >>> from tinygrad_lenet import nn
        >>> _ = nn.Sequential(nn.ReLU()).apply(lambda module: print(type(module).__name__))
        ReLU
        Sequential
        """
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    @checked
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients of all parameters to None, or to zeros with ``set_to_none=False``."""
        clear(self.parameters(), set_to_none)

    @checked
    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters and buffers, under PyTorch's names. A shared one appears under all its names.

        ``np.savez(path, **model.state_dict())`` saves them.
        """
        return {name: tensor.numpy().copy() for name, tensor in self._named_state().items()}

    def _named_state(self) -> dict[str, Tensor]:
        """What the state dict holds: parameters and persistent buffers under all their names."""
        return dict(self._search(Tensor, False, lambda m, name, t: isinstance(t, Parameter) or m._buffers.get(name)))

    def _renamed(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state dict with today's names; in earlier versions the weight of a loss was ``options.weight``."""
        own = self._named_state()
        today = {re.sub("[^.]*$", r"options.\g<0>", name, count=1): name for name in own if name not in state}
        return {name if name in own else today.get(name, name): value for name, value in state.items()}

    @checked
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Set parameters and buffers from a state dict of arrays or Tensors.

        Values are converted to the dtype of the parameter or buffer: float64 values are rounded to float32.

        Raises:
            StateError: shapes differ, or, if ``strict``, keys are missing or unexpected.
            DTypeError: not numbers, or numbers that the dtype cannot hold, such as 2.5 in an integer buffer. An error
                changes nothing.
        """
        instance("state", state, Mapping, "pass what state_dict() or load() gave")  # type: ignore[type-abstract]
        own = self._named_state()
        state = self._renamed(state)
        for name, tensor in self._search(Tensor, remove_duplicate=False):
            if name in state and numbers(name, state[name]).shape == tensor.shape:
                own[name] = tensor  # in earlier versions the state held every Tensor, not only buffers
        arrays = {name: narrowed(name, numbers(name, state[name]), own[name].dtype) for name in own if name in state}
        wrong = {name: array.shape for name, array in arrays.items() if array.shape != own[name].shape}
        problems = {
            # Old files of PyTorch lack the count of batches, which no result depends on.
            "missing": [n for n in own if strict and n not in state and not n.endswith("num_batches_tracked")],
            "unexpected": [str(name) for name in state if strict and name not in own],
            "misshapen": [f"{name} (expected {own[name].shape}, given {shape})" for name, shape in wrong.items()],
        }
        found = "; ".join(f"{problem}: {listing(names)}" for problem, names in problems.items() if names)
        if found:
            advice = "use the options of the saved model; strict=False allows missing and unexpected keys"
            raise StateError(f"the state dict does not fit. {found}; {advice}")
        for name, array in arrays.items():
            own[name].data = array

    def random_state(self) -> dict[str, Any]:
        """The states of all NumPy generators in the attributes, such as that of :class:`Dropout`, by dotted name.

        Save them by :func:`tinygrad_lenet.save_checkpoint`, and a continued run draws what the stopped one would have
        drawn. A shared generator appears once.
        """
        return {name: generator.bit_generator.state for name, generator in self._search(np.random.Generator)}

    @checked
    def load_random_state(self, state: Mapping[str, Any]) -> None:
        """Set the generators to the states that :meth:`random_state` gave. An error changes nothing.

        Raises:
            ArgumentError: names are missing or unexpected, or a state is not that of such a generator.

        >>> import tinygrad_lenet as tl
        >>> from tinygrad_lenet import nn
        >>> model, twin = nn.Dropout(generator=0), nn.Dropout(generator=1)
        >>> twin.load_random_state(model.random_state())
        >>> bool((model(tl.ones(9)) == twin(tl.ones(9))).all())
        True
        """
        own = {name: generator.bit_generator for name, generator in self._search(np.random.Generator)}
        entries(state, *own)
        if len(state) > len(own):
            raise ArgumentError(f"the state is of the generators {brief([*state])}, this module has {brief([*own])}")
        for name, generator in own.items():
            try:
                type(generator)(0).state = state[name]
            except Exception as error:  # the state may be anything
                raise ArgumentError(f"{name} must be the state of a {type(generator).__name__} ({error})") from None
        for name, generator in own.items():
            generator.state = state[name]

    def extra_repr(self) -> str:
        """The options of the layer, which ``repr`` shows."""
        return ""

    @reprlib.recursive_repr("(see above)")  # modules may hold each other
    def __repr__(self) -> str:
        count = sum(parameter.size for _, parameter in self._search(Parameter))
        head = f"{type(self).__name__}({self.extra_repr()})" + (f"  # {count:,} parameters" if count else "")
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        return "\n  ".join([head, *lines])


Model: TypeAlias = Annotated[Module, partial(instance, kind=Module)]  # a module as an argument, for @checked


def _members(attributes: Mapping[Any, Any], kind: type[T], outer: tuple[Any, ...] = ()) -> Iterator[tuple[str, T]]:
    """The objects of a class among attributes, also those in lists, tuples and dicts, with dotted names.

    ``outer`` holds the enclosing containers, at most 99. A container that contains itself is skipped.
    """
    for key, value in attributes.items():
        if isinstance(value, kind):
            yield str(key), value
        elif isinstance(value, (list, tuple, dict)) and len(outer) < 99 and not any(value is c for c in outer):
            inner = value if isinstance(value, dict) else dict(enumerate(value))
            for name, member in _members(inner, kind, (*outer, value)):
                yield f"{key}.{name}", member


def _refuse_untrained(name: str, tensor: Tensor, module: Module) -> None:
    """Raise if a tensor that requires a gradient would silently not be trained."""
    if tensor.requires_grad and tensor.is_leaf and not isinstance(tensor, Parameter):
        text = f"{name} requires a gradient, but only a Parameter is trained; assign nn.Parameter(x), or x.detach()"
        raise named(DTypeError(text), type(module).__name__)


def described(layer: Module, first: str, defaults: Mapping[str, Any], **parts: Any) -> str:
    """``first``, the options of a layer that differ from their defaults, in type or value, and its absent parts."""
    options = [(name, getattr(layer, name), default) for name, default in defaults.items()]
    changed = [f"{name}={brief(v)}" for name, v, default in options if type(v) is not type(default) or v != default]
    absent = [f"{name}=False" for name, part in parts.items() if part is None]
    return ", ".join(filter(None, [first, *changed, *absent]))


def check_input(layer: Module, x: Any, ndim: tuple[int, ...], features: int | None, layout: str, axis: int = 1) -> None:
    """Raise unless the input has one of the numbers of axes ``ndim``, and ``features`` elements along ``axis``.

    ``layout`` is the expected shape for the message, with {} in place of ``features``.
    """
    try:
        shape = x.shape if isinstance(x, Tensor) else tuple(np.shape(x))
    except Exception as error:
        raise DTypeError(f"the input must be a Tensor, got {brief(x)} ({error})") from None
    if len(shape) not in ndim or (features is not None and shape[axis] != features):
        expected = layout.replace("{}", str(features))
        raise named(ShapeError(f"expected input of shape {expected}, got {shape}"), title(layer))
