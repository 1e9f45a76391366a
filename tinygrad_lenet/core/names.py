"""All names of a function, declared once: ``known_as``. Everything else that lists functions is derived from it.

    tanh.known_as(method=True, numpy=np.tanh, torch="nn.functional.tanh", onnx="Tanh")

``x.tanh()`` and ``np.tanh(x)`` now call ``tanh``, and ``onnx.export`` writes it as ONNX's ``Tanh``. The functions that
have a method, an operator, or a name in NumPy or PyTorch are the public ones: ``__all__``, the types of the methods in
``_methods.pyi``, and the tables in README and tests list them. A composite may be given its names by its decorator:
``@composite(method=True, torch="flip")``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from ..errors import ArgumentError
from .signature import trusted
from .tensor import Tensor

# Python's operators that have a second form: ``2 - x`` calls ``x.__rsub__(2)``, and ``x -= 2`` calls ``x.__isub__(2)``.
REFLECTED = {"add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "matmul", "and", "or", "xor"}
IN_PLACE = {"add", "sub", "mul", "truediv", "floordiv", "and", "or", "xor"}


class Names(NamedTuple):
    """A public function, and its names."""

    function: Callable[..., Any]
    name: str
    method: bool
    operator: str
    numpy: tuple[Callable[..., Any], ...]
    torch: str


NAMES: dict[str, Names] = {}  # by module and name
NUMPY: dict[Any, Callable[..., Any]] = {}  # by function of NumPy
METHODS: dict[str, Callable[..., Any]] = {}  # the attributes of Tensor that known_as has declared, operators too
_LATER: dict[str, set[str]] = {}  # by module of the package: the methods that it declares when it is imported


class Later:
    """A method of Tensor whose module is imported at its first use.

    The method takes the place of this object when the whole module is there: another thread may ask for it before.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __get__(self, tensor: Tensor | None, kind: type[Tensor]) -> Any:
        import_module(self.module)
        function: Any = METHODS[self.name]
        setattr(Tensor, self.name, function)
        return function.__get__(tensor, kind)


def later(module: str, methods: str) -> None:
    """Announce the methods that a module declares, which is not imported yet."""
    _LATER[module] = {*methods.split()}
    for name in _LATER[module]:
        setattr(Tensor, name, Later(module, name))


def import_all() -> None:
    """Import the modules that :func:`later` announced: for those who go through all names."""
    for module in _LATER:
        import_module(module)


def known_as(
    function: Any,
    *,
    name: str = "",
    method: bool = False,
    operator: str = "",
    numpy: Callable[..., Any] | tuple[Callable[..., Any], ...] = (),
    torch: str = "",
    onnx: Any = None,
) -> None:
    """Declare the names of a function.

    Args:
        function: a primitive or composite; given by ``function.known_as(...)``.
        name: its name in the package, if it is an alias, such as ``amax`` for ``max``.
        method: whether Tensors have a method of that name.
        operator: Python's operator, such as ``"add"``: ``x + y`` calls ``__add__``, and ``__radd__`` is added too.
        numpy: the functions of NumPy that call this one if they are given a Tensor.
        torch: PyTorch's name, after ``torch.``; with ``Tensor.`` and the same name, it is a method only.
        onnx: for primitives, how :func:`tinygrad_lenet.onnx.export` writes the op: the name of an operator of ONNX with
            the same inputs, and with the options as attributes of the same names; or a function that adds nodes and
            returns the name of the result, ``lambda g, dtype, x: g.node("Mul", x, x)``. It receives the graph, the
            dtype, and the arguments: the names of tensors, and options as they are.

    Raises:
        ArgumentError: Tensor has another attribute of that name.
    """
    if not trusted(function):
        import_all()  # so that a name that is taken is refused
    name = name or function.__name__
    functions = (numpy,) if callable(numpy) else numpy
    methods = _methods(function, name if method else "", operator)
    announced = _LATER.get(function.__module__, set())
    for key in methods:
        known = METHODS.get(key)
        # What Tensor has from object alone may be replaced.
        if known is None and key not in announced and any(key in vars(base) for base in Tensor.__mro__[:-1]):
            raise ArgumentError(f"known_as: Tensor has an attribute {key!r} already; give the function another name")
        _check_free(f"the method {key!r}", known, methods[key])
    for theirs in functions:
        _check_free(f"np.{theirs.__name__}", NUMPY.get(theirs), function)
    # Nothing was changed so far, so that an error leaves no half of a declaration.
    for key in methods.keys() - announced:
        setattr(Tensor, key, methods[key])
    METHODS.update(methods)
    NUMPY.update(dict.fromkeys(functions, function))
    if onnx is not None:
        function.op.onnx = onnx
    if method or operator or functions or torch:
        NAMES[f"{function.__module__}.{name}"] = Names(function, name, method, operator, functions, torch)


def _methods(function: Callable[..., Any], name: str, operator: str) -> dict[str, Callable[..., Any]]:
    """The attributes of Tensor for a method and an operator."""
    found = {name: function} if name else {}
    if operator:
        found[f"__{operator}__"] = function
    if operator in REFLECTED:
        found[f"__r{operator}__"] = lambda self, other: function(other, self)
    if operator in IN_PLACE:
        found[f"__i{operator}__"] = lambda self, other: self._in_place(operator, other)
    return found


def _check_free(name: str, known: Any, function: Any) -> None:
    """Raise if another module's function has a name; a cell of a notebook may run again."""
    if known is not None and known.__module__ != function.__module__:
        raise ArgumentError(f"known_as: {name} is {known.__module__}.{known.__name__} already")


def public(place: str = "") -> dict[str, Callable[..., Any]]:
    """The public functions of the package by name; with ``place``, those that PyTorch has there, as in
    ``"nn.functional"``, else all but those of ``linalg`` and what is a method only.
    """
    import_all()
    return {
        names.name: names.function
        for key, names in NAMES.items()
        if key.startswith("tinygrad_lenet.ops.")
        and names.torch != f"Tensor.{names.name}"
        and (names.torch.startswith(f"{place}.") if place else not names.torch.startswith("linalg."))
    }
