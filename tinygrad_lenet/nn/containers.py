"""Modules that hold other modules: a sequence, a list and a dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from ..checks import instance, integer, listed
from ..core.signature import checked
from ..errors import ArgumentError, OutOfRangeError, brief
from . import module as _module
from .module import Model, Module


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
        only = modules[0] if len(modules) == 1 and not isinstance(modules[0], Module) else None
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


class ModuleDict(Module, dict[str, Module]):
    """A dict of modules, from which the model's ``forward`` picks; it has the methods of a dict. Their parameters are
    named ``key.weight`` and so on.

    Modules in a plain dict are found as well, but this dict is a module itself.

    Raises:
        DTypeError: ``modules`` is not a dict, or an element is not a module.

    >>> from tinygrad_lenet import nn
    >>> heads = nn.ModuleDict({"digit": nn.Linear(4, 10), "parity": nn.Linear(4, 2)})
    >>> heads["parity"], "colour" in heads
    (Linear(4, 2)  # 10 parameters, False)
    >>> [name for name, _ in heads.named_parameters()]
    ['digit.weight', 'digit.bias', 'parity.weight', 'parity.bias']
    """

    __eq__, __hash__ = object.__eq__, object.__hash__  # type: ignore[assignment]  # as other modules

    @checked
    def __init__(self, modules: dict[str, Module] | None = None) -> None:
        super().__init__()
        for name, module in instance("modules", {} if modules is None else modules, dict).items():
            self[name] = instance(f"element {name} of modules", module, Module)

    @checked
    def __setitem__(self, name: str, module: Model) -> None:
        dict.__setitem__(self, name, module)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules with their names."""
        return ((name, instance(f"element {name}", module, Module)) for name, module in self.items())


for _class in (Sequential, ModuleList):
    setattr(_module, _class.__name__, _class)  # where older pickles look
