"""The base class of activations, losses and pooling layers: it makes a module class of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from ..checks import flag
from ..core.signature import Signature, checked
from ..core.tensor import Tensor
from ..errors import brief
from .module import Module


class Function(Module):
    """Base of modules that apply a function and have no parameters: ``class Tanh(Function, function=F.tanh)``.

    The constructor takes the options of the function, which are the parameters that it does not need to be called, with
    their defaults and checks. They become attributes; a Tensor, such as the weights of classes, becomes a buffer. The
    docstring of the class also contains that of the function. With ``inplace``, the constructor also has PyTorch's
    option of that name, last.
    """

    function: ClassVar[Callable[..., Tensor]]
    _kinds: ClassVar[dict[str, int]]  # the options by name; 2 for those that may be Tensors
    _signature: ClassVar[inspect.Signature]  # of the constructor, without self
    _door: ClassVar[Signature]  # of the function

    def __init_subclass__(cls, function: Callable[..., Tensor] | None = None, inplace: bool = False) -> None:
        super().__init_subclass__()
        if function is None:
            return
        cls.function = function
        if cls.__doc__ and function.__doc__:  # python -OO removes docstrings
            cls.__doc__ = f"{cls.__doc__}\n\nThe function:\n\n{inspect.cleandoc(function.__doc__)}"
        door, parameters = Signature(inspect.unwrap(function)), inspect.signature(function).parameters
        cls._kinds = {name: kind for name, kind in zip(door.names, door.operands, strict=True) if kind != 1}
        options = [parameters[name] for name in cls._kinds]
        options += [inspect.Parameter("inplace", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False)] * inplace
        cls._signature, cls._door = inspect.Signature(options), door

        @checked
        def __init__(self: Function, *args: Any, **options: Any) -> None:
            super(cls, self).__init__(*args, **options)

        # Each class has an __init__ of its own, since its signature must not hide that of a user's subclass.
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        __init__.__signature__ = inspect.Signature([itself, *options])  # type: ignore[attr-defined]
        cls.__init__ = __init__  # type: ignore[method-assign]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__()
        try:
            bound = self._signature.bind(*args, **{self._door.spellings.get(n, n): v for n, v in options.items()})
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}() takes {self._signature}: {error}") from None
        bound.apply_defaults()
        flag("inplace", bound.arguments.pop("inplace", False))  # the result has memory of its own either way
        for option in self._door.options:
            if type(bound.arguments[option.name]) not in option.quick:
                bound.arguments[option.name] = option.admit(bound.arguments[option.name])
        for name, value in bound.arguments.items():
            if self._kinds[name] == 2 and (value is None or type(value) is Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        new = {name: self._signature.parameters[name].default for name in self._kinds}
        older = attributes.pop("options", {})  # a dict of options
        super().__setstate__(new | attributes | older)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {name: getattr(self, name) for name in self._kinds}

    def forward(self, x: Any) -> Tensor:
        """Apply the function."""
        return type(self).function(x, **self.options) if self._kinds else type(self).function(x)

    def extra_repr(self) -> str:
        """The options."""
        options = {name: value for name, value in self.options.items() if value is not None}
        return ", ".join(f"{n}={v if isinstance(v, str) else brief(v)}" for n, v in options.items())
