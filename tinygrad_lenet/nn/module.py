"""Modules: layers and models that own parameters, as plain classes with plain attributes.

A module registers nothing. :func:`_members` finds its parameters, buffers and submodules by walking through its
attributes, each time they are needed. ``Sequential`` and ``ModuleList`` hold other modules. The last functions check
the inputs of layers.

``@checked`` (``core/signature.py``) checks arguments by their annotations, and begins an error with the name of the
class or method.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..checks import instance, integer, listed
from ..core.python_object import numbers
from ..core.signature import checked
from ..core.tensor import Tensor, as_tensor
from ..core.values import narrowed
from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, TinygradLenetError, brief, named

M = TypeVar("M", bound="Module")
_PACKAGE = __name__.partition(".")[0] + "."
P = ParamSpec("P")
R = TypeVar("R", covariant=True)

if TYPE_CHECKING:

    class _Forward(Protocol[P, R]):
        """An object that is called with the parameters of its method ``forward``, and returns its result."""

        def forward(self, *args: P.args, **kwargs: P.kwargs) -> R: ...


class Parameter(Tensor):
    """A Tensor for a module to learn: it requires a gradient, and :meth:`Module.parameters` lists it.

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

    Assign parameters, buffers and other modules as attributes, or in lists, tuples and dicts: they are found there, in
    the order of assignment. A buffer is a Tensor that is part of the state but not learned, such as a running mean.

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

    training: bool = True

    def __init__(self) -> None:
        self.training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. Each subclass defines it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method; write one")

    def __call__(self: _Forward[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Compute the output by :meth:`forward`, from which type checkers take the parameters and the result.

        In a module of the package, an error of :meth:`forward` begins with the name of the class.
        """
        try:
            return self.forward(*args, **kwargs)
        except TinygradLenetError as error:
            if not type(self).forward.__module__.startswith(_PACKAGE):  # the user's own
                error.caller = error.caller or "?"
            if error.caller:
                raise
            raise named(error, type(self).__name__)  # noqa: B904  # it is the same error

    def __setattr__(self, name: str, value: Any) -> None:
        # Refuse to overwrite a parameter with something else: it would silently stop being trained and saved.
        before = vars(self).get(name)
        kind = next((kind for kind in (Parameter, Tensor, Module) if isinstance(before, kind)), None)
        if kind is not None and value is not None and not isinstance(value, kind):
            advice = "wrap it in a Module" if kind is Module else f"to set its values write {name}.data = ..."
            error = DTypeError(
                f"{name} is a {kind.__name__}, which {brief(value)} cannot replace; {advice}, or `del` it first"
            )
            raise named(error, type(self).__name__)
        super().__setattr__(name, value)

    # Parameters, buffers and submodules

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        return ((name, value) for name, value in _members(vars(self)) if isinstance(value, Module))

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """The module itself and all below it, depth first, with dotted names.

        A shared module appears once, or under all its names if not ``remove_duplicate``.
        """
        seen: set[int] = set()

        def below(name: str, module: Module) -> Iterator[tuple[str, Module]]:
            if id(module) in seen:
                return
            seen.add(id(module))
            yield name, module
            for key, child in module.named_children():
                yield from below(f"{name}.{key}" if name else key, child)
            if not remove_duplicate:
                seen.remove(id(module))  # so that only cycles are left out

        return below(prefix, self)

    def modules(self) -> Iterator[Module]:
        """The module itself and all below it, depth first."""
        return (module for _, module in self.named_modules())

    def children(self) -> Iterator[Module]:
        """The modules directly below this one."""
        return (module for _, module in self.named_children())

    def _tensors(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """All parameters and buffers, with dotted names; a shared one once, or under all its names."""
        seen: set[int] = set()
        for prefix, module in self.named_modules("", remove_duplicate):
            for name, value in _members(vars(module)):
                if isinstance(value, Tensor) and not (remove_duplicate and id(value) in seen):
                    seen.add(id(value))
                    yield (f"{prefix}.{name}" if prefix else name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their dotted names, in the order of assignment; a shared one once."""
        return ((name, tensor) for name, tensor in self._tensors() if isinstance(tensor, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, to pass to an optimiser."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their dotted names: Tensors that are part of the state but not learned."""
        return ((name, tensor) for name, tensor in self._tensors() if not isinstance(tensor, Parameter))

    def buffers(self) -> Iterator[Tensor]:
        """The buffers: Tensors that are part of the state but not learned."""
        return (buffer for _, buffer in self.named_buffers())

    # Training, evaluation and state

    @checked
    def train(self: M, mode: bool = True) -> M:
        """Set training mode here and below: dropout is active, batch norm uses the batch. ``False`` ends it."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Set evaluation mode here and below."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to None."""
        for parameter in self.parameters():
            parameter.grad = None

    @checked
    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters and buffers, under PyTorch's names. A shared one appears under all its names.

        ``np.savez(path, **model.state_dict())`` saves them.
        """
        return {name: tensor.numpy().copy() for name, tensor in self._named_state().items()}

    def _named_state(self) -> dict[str, Tensor]:
        """Parameters and buffers under all their names. Raise if two have the same name."""
        found: dict[str, Tensor] = {}
        for name, tensor in self._tensors(remove_duplicate=False):
            if found.setdefault(name, tensor) is not tensor:
                raise ArgumentError(
                    f"two tensors would both be called {name!r} in a state dict; rename an attribute or a key so that "
                    "it has no dot"
                )
        return found

    @checked
    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Set parameters and buffers from a state dict of arrays or Tensors.

        Values are converted to the dtype of the parameter or buffer: float64 values are rounded to float32.

        Raises:
            StateError: keys are missing or unexpected (only if ``strict``), shapes differ, or a tensor with two names
                has two values.
            DTypeError: not numbers, or numbers that the dtype cannot hold, such as 2.5 in an integer buffer. An error
                changes nothing.
        """
        instance("state", state, Mapping, "pass what state_dict() or load() gave")  # type: ignore[type-abstract]
        own = self._named_state()
        # Old files of PyTorch lack the count of batches, which no result depends on.
        missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
        unexpected = [str(name) for name in state if name not in own]
        arrays = {name: _array_for(name, state[name], tensor) for name, tensor in own.items() if name in state}
        misshapen = [
            f"{name} (expected {own[name].shape}, given {array.shape})"
            for name, array in arrays.items()
            if array.shape != own[name].shape
        ]
        problems = {"missing": missing, "unexpected": unexpected} if strict else {}
        found = [f"{what}: {', '.join(k)}" for what, k in {**problems, "misshapen": misshapen}.items() if k]
        if found:
            advice = "" if misshapen else ", or pass strict=False"
            raise StateError(
                f"the state dict does not fit. {'; '.join(found)}. Build the model with the same options as the one "
                f"that was saved{advice}"
            )
        first: dict[int, str] = {}
        for name, array in arrays.items():
            other = first.setdefault(id(own[name]), name)
            if not np.array_equal(array, arrays[other], equal_nan=array.dtype.kind == "f"):
                raise StateError(
                    f"{other} and {name} are one tensor, but differ in the state dict; leave one out, with strict=False"
                )
        for name, array in arrays.items():
            own[name].data = array

    def extra_repr(self) -> str:
        """The options of the layer, which ``repr`` shows."""
        return ""

    @reprlib.recursive_repr("(see above)")  # modules may hold each other
    def __repr__(self) -> str:
        count = sum(parameter.size for parameter in self.parameters())
        head = f"{type(self).__name__}({self.extra_repr()})" + (f"  # {count:,} parameters" if count else "")
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        return "\n  ".join([head, *lines])

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(self, name):
            # Python calls this only if the attribute does not exist.
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}; it has {', '.join(vars(self)) or 'none yet'}"
            )


Model: TypeAlias = Annotated[Module, partial(instance, kind=Module)]  # a module as an argument, for @checked


def _members(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The Tensors and modules among attributes, and in lists, tuples and dicts among these, with dotted names.

    Iterative, because containers may be nested deeper than Python's stack. A container within itself is skipped.
    """
    levels: list[tuple[str, Any, Iterator[tuple[Any, Any]]]] = [("", attributes, iter(attributes.items()))]
    while levels:
        prefix, _, pairs = levels[-1]
        for key, value in pairs:
            if isinstance(value, (Tensor, Module)):
                yield f"{prefix}{key}", value
            elif isinstance(value, (list, tuple, dict)) and not any(value is outer for _, outer, _ in levels):
                inner = [*(value.items() if isinstance(value, dict) else enumerate(value))]
                levels.append((f"{prefix}{key}.", value, iter(inner)))
                break
        else:
            levels.pop()


def _array_for(name: str, value: Any, target: Tensor) -> NDArray[Any]:
    """A value of a state dict as an array of the target's dtype."""
    array = numbers(name, value)
    if not target._data.flags.writeable:
        raise ArgumentError(f"{name} is a read-only view, whose values cannot be set; make it a clone()")
    return narrowed(name, array, target.dtype)


class _Container(Module):
    """The base of modules that are a sequence of others."""

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @checked
    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return list(self.children())[self._position(index)]
        try:
            return self._slice(list(self.named_children())[index])
        except Exception as error:  # the ends of a slice may be objects of the user, which may raise anything
            raise ArgumentError(f"{error}, got {brief(index)}") from None

    def _slice(self, children: list[tuple[str, Module]]) -> Module:
        raise NotImplementedError

    def _position(self, index: Any) -> int:
        """The position counted from the start. Negative indices count from the end."""
        count, found = len(self), integer("an index", index)
        if not -count <= found < count:
            raise OutOfRangeError(f"there are {count} modules, no number {brief(found)}")
        return found % count

    def _element(self, name: str, value: Any) -> Module:
        """The value, which must be a module and must not contain this container."""
        if not isinstance(value, Module):
            raise ArgumentError(f"{name} must be a Module, got a {type(value).__name__}")
        if any(module is self for module in value.modules()):
            raise ArgumentError(f"{name} is a {type(value).__name__} that holds it itself, which would go on for ever")
        return value


class Sequential(_Container):
    """Modules that are applied one after the other. Without modules, the output is the input itself.

    Raises:
        ArgumentError: an element is not a module, or has the name of an attribute that every module has.

    >>> from tinygrad_lenet import nn
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> model
    Sequential()  # 23 parameters
      (0): Linear(4, 3)  # 15 parameters
      (1): ReLU()
      (2): Linear(3, 2)  # 8 parameters
    >>> len(model), model[-1]
    (3, Linear(3, 2)  # 8 parameters)
    """

    @checked
    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        only = modules[0] if len(modules) == 1 else None
        named = only if isinstance(only, Mapping) else {str(i): module for i, module in enumerate(modules)}
        for name, module in named.items():
            self._element(f"element {name} of modules", module)
            if not isinstance(name, str) or not name or "." in name:
                raise ArgumentError(f"an element is called by a word without dots, not {brief(name)}")
            if hasattr(type(self), name) or name == "training":
                raise ArgumentError(f"every module has an attribute {name!r}; give the element another name")
            setattr(self, name, module)

    def forward(self, x: Any) -> Any:
        """Apply the modules in order."""
        for value in vars(self).values():
            if isinstance(value, Module):
                x = value(x)
        return x

    @checked
    def append(self, module: Module) -> Sequential:
        """Add a module at the end."""
        self._element("module", module)
        name = len(self)
        while str(name) in vars(self):
            name += 1
        setattr(self, str(name), module)
        return self

    def _slice(self, children: list[tuple[str, Module]]) -> Module:
        return Sequential(dict(children))


class ModuleList(_Container):
    """A list of modules, for the model's ``forward`` to apply. Their parameters are named ``0.weight`` and so on.

    Modules in a plain list are found as well. This list is itself a module.

    >>> from tinygrad_lenet import nn
    >>> layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    >>> len(layers), [name for name, _ in layers[:1].named_parameters()]
    (3, ['0.weight', '0.bias'])
    """

    @checked
    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    @checked
    def append(self, module: Module) -> ModuleList:
        """Add a module at the end."""
        return self.extend([module])

    @checked
    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Add several modules at the end."""
        several = listed("modules", modules, "Modules")
        for module in several:
            self._element("each of modules", module)
        for module in several:
            setattr(self, str(len(self)), module)
        return self

    def _slice(self, children: list[tuple[str, Module]]) -> Module:
        return ModuleList(module for _, module in children)

    @checked
    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, str(self._position(index)), self._element("module", module))


def differs(value: Any, default: Any) -> bool:
    """Whether ``repr`` shows an option: it differs from its default, in its type or in its value."""
    return type(value) is not type(default) or bool(value != default)


def tensor_of(name: str, value: Any) -> Tensor:
    """An argument as a Tensor. An error begins with the argument's name."""
    try:
        return as_tensor(value)
    except TinygradLenetError as error:
        raise type(error)(f"{name}: {error}") from None


def check_input(layer: Module, x: Any, ndim: tuple[int, ...], features: int | None = None, layout: str = "") -> None:
    """Raise unless the input has one of the ranks ``ndim``, and ``features`` elements along axis 1."""
    try:
        shape = tuple(np.shape(x))
    except Exception as error:
        raise DTypeError(f"the input must be a Tensor, got {brief(x)} ({error})") from None
    if len(shape) not in ndim or (features is not None and shape[1] != features):
        raise misshapen(layer, layout, shape)


def misshapen(layer: Module, layout: str, shape: tuple[int, ...]) -> TinygradLenetError:
    """The error for an input of the wrong shape. It names the layer with its options."""
    caller = f"{type(layer).__name__}({layer.extra_repr()})"
    return named(ShapeError(f"expected input of shape {layout}, got {shape}"), caller)


@contextmanager
def evaluating(model: M) -> Iterator[M]:
    """Set evaluation mode within the block, and restore the mode of each module after it."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training
