"""Modules: layers and models that own parameters. They are plain classes with plain attributes.

A module keeps no register: :func:`_members` searches its attributes for parameters, buffers and submodules whenever
they are needed. ``Sequential`` and ``ModuleList`` hold other modules. The last functions check the inputs of layers.

``@checked`` (``core/signature.py``) checks arguments by their annotations, and begins an error with the name of the
class or method.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..checks import instance, integer, listed
from ..core.python_object import numbers
from ..core.signature import checked
from ..core.tensor import Tensor, as_tensor
from ..core.values import narrowed
from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, TinygradLenetError, brief, listing, named
from .naming import name_layer, title

M = TypeVar("M", bound="Module")
P = ParamSpec("P")
R = TypeVar("R", covariant=True)

if TYPE_CHECKING:

    class _Forward(Protocol[P, R]):
        """An object that is called with the parameters of its method ``forward``, and returns its result."""

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
        """Return ``self.forward(...)``. Type checkers know its parameters and its result.

        If the module is a layer of the package, an error begins with its class and its options.
        """
        try:
            return self.forward(*args, **kwargs)
        except TinygradLenetError as error:
            name_layer(error, self, any(isinstance(value, Module) for value in vars(self).values()))
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        # Refuse to overwrite a parameter with something else: it would silently stop being trained and saved.
        before = vars(self).get(name)
        kind = next((kind for kind in (Parameter, Tensor, Module) if isinstance(before, kind)), object)
        if value is not None and not isinstance(value, kind):
            text = f"{name} is a {kind.__name__}, which {brief(value)} cannot replace; give another, or `del` it first"
            raise named(DTypeError(text), type(self).__name__)
        super().__setattr__(name, value)

    # Parameters, buffers and submodules

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, with their names."""
        return ((name, value) for name, value in _members(vars(self)) if isinstance(value, Module))

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """The module itself and all below it, depth first, with dotted names.

        A shared module appears once; with ``remove_duplicate=False`` it appears under all its names.
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
        """Parameters and buffers under all their names."""
        return dict(self._tensors(remove_duplicate=False))

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
        arrays = {name: narrowed(name, numbers(name, state[name]), own[name].dtype) for name in own if name in state}
        problems: dict[str, list[str]] = {}
        if strict:
            # Old files of PyTorch lack the count of batches, which no result depends on.
            problems["missing"] = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
            problems["unexpected"] = [str(name) for name in state if name not in own]
        problems["misshapen"] = [
            f"{name} (expected {own[name].shape}, given {array.shape})"
            for name, array in arrays.items()
            if array.shape != own[name].shape
        ]
        found = "; ".join(f"{problem}: {listing(names)}" for problem, names in problems.items() if names)
        if found:
            advice = "use the options of the saved model; strict=False allows missing and unexpected keys"
            raise StateError(f"the state dict does not fit. {found}; {advice}")
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


Model: TypeAlias = Annotated[Module, partial(instance, kind=Module)]  # a module as an argument, for @checked


def _members(attributes: Mapping[Any, Any], outer: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The Tensors and modules among attributes, also those in lists, tuples and dicts, with dotted names.

    ``outer`` holds the enclosing containers, since a container that contains itself is skipped.
    """
    for key, value in attributes.items():
        if isinstance(value, (Tensor, Module)):
            yield str(key), value
        elif isinstance(value, (list, tuple, dict)) and not any(value is container for container in outer):
            inner = value if isinstance(value, dict) else dict(enumerate(value))
            for name, member in _members(inner, (*outer, value)):
                yield f"{key}.{name}", member


class _Container(Module):
    """Base of modules that hold a sequence of others. Their names are "0", "1", "2", unless others are given."""

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @checked
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            found = list(self.named_children())[index]
            return Sequential(dict(found)) if isinstance(self, Sequential) else ModuleList(m for _, m in found)
        return list(self.children())[self._position(index)]

    def _position(self, index: Any) -> int:
        """The position counted from the start. Negative indices count from the end."""
        count, found = len(self), integer("an index", index)
        if not -count <= found < count:
            raise OutOfRangeError(f"there are {count} modules, no number {brief(found)}")
        return found % count

    @checked
    def append(self, module: Model) -> Self:
        """Add a module at the end."""
        number = len(self)
        while str(number) in vars(self):
            number += 1
        setattr(self, str(number), module)
        return self


class Sequential(_Container):
    """Modules that are applied one after the other. Without modules, the output is the input itself.

    Raises:
        ArgumentError: a name is empty, contains a dot, or is that of an attribute of every module.
        DTypeError: an element is not a module.

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
            if not isinstance(name, str) or not name or "." in name or hasattr(type(self), name):
                raise ArgumentError(f"a name must be a word without dots, and no attribute of modules, got {name!r}")
            setattr(self, name, instance(f"element {name} of modules", module, Module))

    def forward(self, x: Any) -> Any:
        """Apply the modules in order."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                try:
                    x = value(x)
                except Exception as error:
                    error.add_note(f"in layer {name} of {type(self).__name__}")
                    raise
        return x


class ModuleList(_Container):
    """A list of modules, which the model's ``forward`` applies. Their parameters are named ``0.weight`` and so on.

    Modules in a plain list are found as well, but this list is a module itself.

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
    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end."""
        for module in [instance("each of modules", module, Module) for module in listed("modules", modules, "Modules")]:
            self.append(module)
        return self

    @checked
    def __setitem__(self, index: int, module: Model) -> None:
        setattr(self, str(self._position(index)), module)


def differs(value: Any, default: Any) -> bool:
    """Whether an option differs from its default, in its type or its value, so that ``repr`` shows it."""
    return type(value) is not type(default) or bool(value != default)


def tensor_of(name: str, value: Any) -> Tensor:
    """An argument as a Tensor. An error begins with the argument's name."""
    try:
        return as_tensor(value)
    except TinygradLenetError as error:
        raise type(error)(f"{name}: {error}") from None


def check_input(layer: Module, x: Any, ndim: tuple[int, ...], features: int | None = None, layout: str = "") -> None:
    """Raise unless the input has one of the numbers of axes ``ndim``, and ``features`` elements along axis 1."""
    try:
        shape = tuple(np.shape(x))
    except Exception as error:
        raise DTypeError(f"the input must be a Tensor, got {brief(x)} ({error})") from None
    if len(shape) not in ndim or (features is not None and shape[1] != features):
        raise misshapen(layer, layout, shape)


def misshapen(layer: Module, layout: str, shape: tuple[int, ...]) -> TinygradLenetError:
    """The error for an input of the wrong shape. It names the layer with its options."""
    return named(ShapeError(f"expected input of shape {layout}, got {shape}"), title(layer))


@contextmanager
def evaluating(model: M) -> Iterator[M]:
    """Set evaluation mode within the block, and restore the mode of each module after it."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, training in modes:
            module.training = training
