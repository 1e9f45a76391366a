"""NumPy's functions on Tensors, and memory shared with other libraries.

``np.exp(tensor)`` calls ``tl.exp(tensor)``, which is recorded and returns a Tensor. A function without a counterpart
here raises an error, since NumPy's result would be an array without a gradient. Functions that only inspect values
(``np.shape``, ``np.allclose``, ``np.nonzero``) are NumPy's own.

The protocols are NumPy's NEP 13 (``__array_ufunc__``) and NEP 18 (``__array_function__``), and DLPack of the Python
array API standard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .core.modes import is_grad_enabled, user_line
from .core.names import NUMPY, import_all
from .core.primitive import composite
from .core.signature import VARIADIC, parameters
from .core.tensor import Tensor
from .core.values import as_dtype, mapped
from .errors import ArgumentError, GradientError, UnsupportedError

# Functions that only inspect values: they have no gradient to lose.
_FACTS = "signbit isclose allclose array_equal array_equiv nonzero argwhere flatnonzero "
_FACTS += "array_repr array_str array2string save savez savez_compressed savetxt bincount digitize searchsorted"
OF_SHAPES = {np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.may_share_memory, np.shares_memory}
OF_SHAPES |= {np.iscomplexobj, np.isrealobj}
FACTS = {getattr(np, name) for name in _FACTS.split()} | OF_SHAPES
_NAMES = {"a_min": "min", "a_max": "max", "correction": "ddof", "k": "diagonal"}
_IRRELEVANT = {"kind", "stable", "optimize", "overwrite_input", "subok"}  # options that do not change the result
# Functions written in C may have no signature.
_IN_C: dict[Any, Callable[..., None]] = {
    np.concatenate: lambda arrays, axis=0, out=None, dtype=None, casting="same_kind": None,
    np.where: lambda condition, x=None, y=None: None,
    np.dot: lambda a, b, out=None: None,
    np.inner: lambda a, b: None,
}


def _values(value: Any, function: Any = None) -> Any:
    """The value with arrays in place of Tensors, also in lists and dicts. An export allows it if only shapes matter."""
    return mapped(value, lambda v: v if not isinstance(v, Tensor) else v._data if function in OF_SHAPES else v.numpy())


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the counterpart of a function of NumPy."""
    # Ufuncs have no __module__ before NumPy 2.2.
    name = f"np.{'linalg.' * (getattr(function, '__module__', '') == 'numpy.linalg')}{function.__name__}"
    if function in FACTS:
        return function(*_values(args, function), **_values(kwargs, function))
    if function not in NUMPY:
        import_all()
    ours = NUMPY.get(function)
    if ours is None:
        raise UnsupportedError(f"{name} has no counterpart with a gradient here; it takes tensor.numpy()")
    names = parameters(getattr(ours, "__wrapped__", ours))
    others: dict[Any, Any] = kwargs
    if not isinstance(function, np.ufunc):
        args, others = _arguments(function, ours, args, kwargs)
    unknown = [str(k) for k in others if k not in names]
    if unknown:
        raise UnsupportedError(f"{name} of a Tensor takes {', '.join(names)}; got {', '.join(unknown)}; see .astype")
    return ours(*args, **others)


def _arguments(
    function: Any, ours: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of NumPy's function for ours, without those that have NumPy's default value.

    An argument is passed by name if our function has a parameter of that name, else by position.
    """
    import inspect

    signature = inspect.signature(_IN_C.get(function, function))
    theirs = signature.parameters
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise TypeError(f"{function.__name__}() takes {', '.join(theirs)}: {error}") from None
    ours = getattr(ours, "__wrapped__", ours)
    places = parameters(ours)
    by_name = {*places[1:]} - ({places[-1]} if ours.__code__.co_flags & VARIADIC else set())
    first: list[Any] = []
    others: dict[str, Any] = {}
    for name, value in bound.items():
        parameter = theirs[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            first.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            others.update(value)
        elif name in _IRRELEVANT or _is_default(value, parameter.default):
            continue
        elif _NAMES.get(name, name) in by_name:
            others[_NAMES.get(name, name)] = value
        elif len(first) < len(places) and (places[len(first)] == name or places[len(first)] not in theirs):
            first.append(value)
        else:
            others[name] = value
    return tuple(first), others


def _is_default(value: Any, default: Any) -> bool:
    """Return True if an argument is the default value. Arrays are not compared."""
    same = type(value) is type(default) and type(value) in (bool, int, str) and value == default
    return same or value is default or value is np._NoValue


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
    """NEP 13: call a ufunc that has a Tensor among its arguments."""
    recorded = is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
    if out is not None and not recorded and not any(isinstance(o, Tensor) for o in out):
        return getattr(ufunc, method)(*_values(inputs), out=out, **kwargs)  # array += tensor
    if out is not None:
        raise GradientError(f"np.{ufunc.__name__}: out= would go unrecorded, as array += tensor; write x = x + tensor")
    if method != "__call__":
        raise UnsupportedError(f"np.{ufunc.__name__}.{method} has no counterpart here; see tl.sum, tl.amax, tl.cumsum")
    return _call(ufunc, inputs, kwargs)


def _array_function(self: Tensor, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """NEP 18: call another function of NumPy that has a Tensor among its arguments."""
    return _call(function, args, kwargs)


# Shared memory


def _dlpack(self: Tensor, **options: Any) -> Any:
    """The memory of the tensor, without a copy, for ``np.from_dlpack`` and ``torch.from_dlpack``.

    The other library can write to it without the tensor noticing. So from now on, an op that needs these values for its
    gradient saves a copy, and an op that saved them before refuses its backward pass.

    Raises:
        GradientError: the tensor requires a gradient, which would be lost; share ``tensor.detach()``.
    """
    if self.requires_grad:
        raise GradientError("this tensor requires a gradient, which would be lost; share tensor.detach()")
    self._version[:] = math.nan, user_line()
    self._read("__dlpack__()")
    return self._data.__dlpack__(**options)


@composite(view=True)
def from_dlpack(x: Any) -> Tensor:
    """A Tensor that shares the memory of another library's array on the CPU: NumPy's, PyTorch's, JAX's.

    Later changes by the other library show in the Tensor, which cannot notice them. So an op that needs the values for
    its gradient saves a copy. To copy at once, call ``tl.tensor(np.from_dlpack(x))``. Before NumPy 2.1, the Tensor is
    read-only.

    Raises:
        ArgumentError: ``x`` does not support DLPack, or its memory is not on the CPU.
        DTypeError: Tensors do not have the dtype, such as bfloat16.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> array = np.zeros(3)
    >>> shared = tl.from_dlpack(array)
    >>> array[1] = 5
    >>> shared
    tensor([0., 5., 0.], dtype=float64)
    """
    if not hasattr(x, "__dlpack__"):
        raise ArgumentError(f"a {type(x).__name__} has no __dlpack__; use tl.tensor(x), which copies")
    try:
        array = np.from_dlpack(x)
    except GradientError:
        raise
    except (BufferError, RuntimeError, ValueError) as error:
        kind = type(x).__name__
        raise ArgumentError(f"NumPy cannot share the memory of this {kind}: {error}; use x.detach().cpu()") from None
    as_dtype(array.dtype, "got")
    return Tensor._wrap(array, None, [math.nan, user_line()])


def _dlpack_device(self: Tensor) -> Any:
    """The device of the memory."""
    return self._data.__dlpack_device__()


for _method in (_array_ufunc, _array_function, _dlpack, _dlpack_device):
    setattr(Tensor, f"_{_method.__name__}__", _method)
