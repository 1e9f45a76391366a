"""A Tensor as a Python object: checked attributes, numbers, truth, length, copies, and changes in place.

Everything here is a boundary: it checks how the user treats a tensor, and explains mistakes. ``tensor.py`` describes
the fields.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from operator import attrgetter, methodcaller
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._methods import Methods
from ..checks import flag, listed
from ..errors import ArgumentError, DTypeError, GradientError, ShapeError, TinygradLenetError, brief, named, translated
from ..hints import answering
from .modes import is_grad_enabled, no_grad, tracer, user_line, watcher
from .values import NATIVE, as_index, converted, mapped, unchanged

if TYPE_CHECKING:
    from .graph import Node
    from .tensor import Tensor


def to_array(value: Any, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """The value as an array that a Tensor can hold. Python numbers become float32. May share memory with ``value``."""
    if isinstance(value, PythonObject):
        value = value.numpy()
    if dtype is None and type(value) is np.ndarray and value.dtype in NATIVE:
        return value
    return converted(value, dtype, _unwrap)


def numbers(name: str, value: Any) -> NDArray[Any]:
    """A value of a state or an input as an array, in its own dtype. May share memory with ``value``."""
    try:
        array = value.numpy() if isinstance(value, PythonObject) else np.asarray(value)
    except Exception as error:  # an object of the user may raise anything
        raise DTypeError(f"{name} must be an array of numbers ({error})") from None
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{name} must be an array of numbers, got {array.dtype}")
    if type(value) is not np.ndarray and np.any(getattr(value, "mask", False)):
        raise ArgumentError(f"{name} is a masked array, which hides some of its values; give it values: x.filled(0)")
    return array


def _unwrap(value: Any) -> Any:
    """The value with arrays in place of Tensors, also of those in lists."""
    if isinstance(value, (list, tuple)):
        return [_unwrap(v) for v in value]
    if isinstance(value, PythonObject):
        if value._recorded():
            raise GradientError("a list of tensors would lose their gradients; join them with tl.stack([...])")
        return value.numpy()
    return value


def copied(value: Any, dtype: DTypeLike | None) -> NDArray[Any]:
    """A copy of the user's data as an array that a Tensor can hold."""
    try:
        found = np.array(to_array(value, dtype))
    except MemoryError as error:
        raise translated(error, "tensor", f"data is {brief(value)}") from None
    if (trace := tracer()) is not None and isinstance(value, np.ndarray):
        trace.copied(value, found)
    return found


class Size(int):
    """The number of elements, ``x.size``. As in PyTorch, ``x.size()`` is the shape, and ``x.size(0)`` a length.

    Arithmetic gives an ``int``. To NumPy, which takes other integers than ``int`` for int64, it is an ``int``.

    >>> import tinygrad_lenet as tl
    >>> x = tl.zeros(2, 3)
    >>> x.size, x.size(), x.size(-1)
    (6, (2, 3), 3)
    """

    shape: tuple[int, ...]

    def __call__(self, dim: Any = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        args, options = mapped((args, options), lambda v: int(v) if type(v) is Size else v)
        return function(*args, **options)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return self.__array_function__(getattr(ufunc, method), (), inputs, options)


# A type checker sees the type in the annotation of an attribute, and not that of a property.
_property: Any = property


class PythonObject(Methods):
    """Base of Tensor: its fields, Python's protocols, checked attributes and changes in place."""

    __slots__ = ("__weakref__", "_data", "_grad", "_hooks", "_node", "_requires_grad", "_version")
    _data: NDArray[Any]
    _grad: Tensor | None
    _hooks: list[Any] | None
    _node: Node | None
    _requires_grad: bool
    _version: list[Any]

    # The getters are written in C. They are faster than functions.
    shape: tuple[int, ...] = _property(attrgetter("_data.shape"), doc="The length of each axis.")
    ndim: int = _property(attrgetter("_data.ndim"), doc="The number of axes.")
    dtype: np.dtype[Any] = _property(attrgetter("_data.dtype"), doc="The NumPy dtype of the elements.")
    T: Tensor = _property(methodcaller("transpose"), doc="All axes reversed, a view; for batches see swapaxes.")

    if TYPE_CHECKING:

        @staticmethod
        def _wrap(array: NDArray[Any], node: Node | None = None, version: list[Any] | None = None) -> Tensor: ...
        def numpy(self) -> NDArray[Any]: ...
        def detach(self) -> Tensor: ...
    else:  # a type checker would accept any name
        __getattr__ = answering("Tensor")

    # Attributes

    @property
    def size(self) -> Size:
        """The number of elements. ``x.size()`` is the shape, as in PyTorch, and ``x.size(0)`` the length of an axis."""
        found = Size(self._data.size)
        found.shape = self.shape
        return found

    def numel(self) -> int:
        """The number of elements, ``x.size``; PyTorch's word."""
        return self._data.size

    def dim(self) -> int:
        """The number of axes, ``x.ndim``; PyTorch's word."""
        return self.ndim

    def _read(self, how: str) -> None:
        """Tell a trace that Python reads the values: a replay would not."""
        if (trace := tracer()) is not None:
            trace.refuse(f"{how} reads the values of a tensor (return it to read it outside; choose by tl.where)")

    def _recorded(self) -> bool:
        """Return True if an op on this tensor is recorded."""
        return self._requires_grad and is_grad_enabled()

    @property
    def requires_grad(self) -> bool:
        """True if gradients flow to this tensor. Can be set on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        value = flag("requires_grad", value)
        if self._node is not None and not value:
            raise GradientError("only leaves can switch off requires_grad; use x.detach() to cut the graph here")
        if value and self.dtype.kind != "f":
            raise DTypeError(f"only floats can require a gradient, not a Tensor of {self.dtype}; use astype('float32')")
        self._requires_grad = value

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set :attr:`requires_grad`, and return this tensor.

        >>> import tinygrad_lenet as tl
        >>> tl.tensor([1.0, 2.0]).requires_grad_()
        tensor([1., 2.], requires_grad=True)
        """
        self.requires_grad = requires_grad
        return self  # type: ignore[return-value]  # a Tensor

    @property
    def grad(self) -> Tensor | None:
        """The sum of the gradients of all calls of :meth:`backward`, in the tensor's shape and dtype; None before.

        Leaves have it, and tensors whose :meth:`retain_grad` was called; others warn that theirs is None.
        """
        if (trace := tracer()) is not None:
            trace.read_grad(self)
        if self._grad is None and self._node is not None and not self._node._hooks:
            warnings.warn("only leaves have a .grad; call x.retain_grad() before backward() to keep it", stacklevel=2)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (
            not isinstance(value, PythonObject) or value.shape != self.shape or value.dtype != self.dtype
        ):
            raise ShapeError(f"grad must be a Tensor of {self.dtype} and shape {self.shape}, got {brief(value)}")
        if (trace := tracer()) is not None:
            trace.set_grad(self)
        self._grad = value

    @property
    def data(self) -> NDArray[Any]:
        """The values, as :meth:`numpy` returns them. Assigning replaces them in place, in the tensor's dtype: it rounds
        float64 to float32, and refuses 1e300 for float32 and 2.5 for an integer. ``x[i] = value`` converts as NumPy
        does: 1e300 becomes inf, and 2.5 becomes 2.
        """
        return self.numpy()

    @data.setter
    def data(self, value: Any) -> None:
        if isinstance(value, PythonObject) and value.dtype == self.dtype:
            array = value._data
        else:
            typed = isinstance(value, (PythonObject, np.ndarray, np.generic))
            with np.errstate(over="ignore", invalid="ignore"):
                array = to_array(value, self.dtype)
            unchanged("data", array, to_array(value, None if typed else np.float64))
        if array.shape != self.shape:
            raise ShapeError(f"data must keep its shape {self.shape}, got {array.shape}; make a new tensor instead")
        with no_grad():
            self._write(..., array)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self._recorded():
            raise GradientError("this tensor requires a gradient, which an array would lose; use tensor.numpy()")
        return np.array(self._data, dtype) if copy else np.asarray(self.numpy(), dtype)

    def item(self) -> float:
        """The value of the only element as a Python number: a float, or an int or a bool, as the dtype is."""
        self._read("item()")
        if self._data.size != 1:
            raise ShapeError(f"item() is for one element, not for shape {self.shape}; use x.numpy() or x[i].item()")
        return self._data.item()  # type: ignore[no-any-return]  # a number, since dtypes are numeric

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        self._read("tolist()")
        return self._data.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"only a tensor of integers can be an index, this one is {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        self._read("bool()")
        if self._data.size != 1:
            raise ShapeError(f"the truth value of shape {self.shape} is ambiguous; use x.numpy().all() or .any()")
        return bool(self._data.item())

    def __format__(self, spec: str) -> str:
        self._read("format()")
        if self._data.size != 1 and spec.endswith(tuple("deEfFgGn%")):
            return np.array2string(self._data, separator=", ", formatter={"all": lambda number: format(number, spec)})
        return format(self._data.item(), spec) if spec and self._data.size == 1 else format(str(self), spec)

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("a tensor without axes has no length; its value is x.item()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        self._read("repr()")
        values = np.array2string(self._data, separator=", ", prefix="tensor(", threshold=1000)
        notes = [] if self.dtype in (np.float32, np.bool_) else [f"dtype={self.dtype}"]
        if self._node is not None:
            notes.append(f"op={self._node.plan.op.name}")
        elif self._requires_grad:
            notes.append("requires_grad=True")
        if self._data.size == 0:
            notes.insert(0, f"shape={self.shape}")
        return f"tensor({', '.join([values, *notes])})"

    # Changes in place

    def _write(self, key: Any, value: NDArray[Any]) -> None:
        """Change elements and count the change; raise if it would have to be recorded."""
        if self._recorded():
            raise GradientError("a tensor that requires a gradient cannot be changed in place; use where(), no_grad()")
        if not self._data.flags.writeable:
            raise ArgumentError(f"this tensor of shape {self.shape} is a read-only view; change its clone() instead")
        if (watch := watcher()) is not None:
            watch(self, key, value)
        before = self._version[:]
        self._version[:] = before[0] + 1, user_line()  # before the change, since Ctrl-C may come between the two
        try:
            self._data[key] = value
        except Exception as error:
            self._version[:] = before
            raise translated(error, "x[...] = value", f"x has shape {self.shape}; value is {brief(value)}") from None

    def _become(self, dtype: np.dtype[Any]) -> None:
        """Give a tensor of floats, and its gradient, another dtype of floats."""
        if self.dtype.kind == "f" and self.dtype != dtype:
            self._read("a change of dtype")
            self._version[:] = self._version[0] + 1, user_line()  # a graph that saved the old values must not use these
            self._data = self.detach().astype(dtype)._data
            self._grad = None if self._grad is None else self._grad.detach().astype(dtype)

    def __setitem__(self, index: Any, value: Any) -> None:
        try:
            key = index if index is ... else as_index(index)
            if isinstance(value, PythonObject):
                array = value._data
            else:
                array = to_array(value, None if isinstance(value, np.ndarray) else self.dtype)
        except TinygradLenetError as error:
            raise named(error, "x[...] = value")  # noqa: B904  # it is the same error
        if isinstance(value, PythonObject) and value._recorded():
            raise GradientError("x[...] = value would not record the gradient of value; use where() or value.detach()")
        self._write(key, array)

    def copy_(self, src: Any) -> Tensor:
        """Set all elements in place, ``x[...] = src``, and return ``x``: to a number, or those of a tensor or an array
        that broadcasts to the shape. Like all changes in place, it is not recorded.

        Raises:
            GradientError: ``x`` or ``src`` requires a gradient, outside of :class:`no_grad`.
            ShapeError: ``src`` does not broadcast to the shape of ``x``.

        >>> import tinygrad_lenet as tl
        >>> tl.zeros(2, 2).copy_([1, 2])
        tensor([[1., 2.],
                [1., 2.]])
        """
        self[...] = src
        return self  # type: ignore[return-value]  # a Tensor

    fill_ = copy_

    def zero_(self) -> Tensor:
        """Set all elements to 0 in place, and return this tensor; see :meth:`copy_`."""
        return self.copy_(0)

    def add_(self, other: Any, alpha: float = 1) -> Tensor:
        """Add ``alpha * other`` in place, and return this tensor.

        Raises:
            DTypeError: the sum has a kind of dtype that this tensor cannot hold, such as floats for integers.
            GradientError: an argument requires a gradient, outside of :class:`no_grad`.
            ShapeError: the sum has another shape.

        >>> import tinygrad_lenet as tl
        >>> tl.ones(2).add_([1.0, 2.0], alpha=10)
        tensor([11., 21.])
        """
        other = to_array(other) if isinstance(other, (list, tuple)) else other
        return self._in_place("add", other if alpha == 1 else other * alpha, True)

    def mul_(self, other: Any) -> Tensor:
        """Multiply in place, and return this tensor; raises as :meth:`add_` does."""
        return self._in_place("mul", other, True)

    def _in_place(self, name: str, other: Any, always: bool = False) -> Tensor:
        """Python's ``x += y``: in place if nothing needs to be recorded, else a new tensor under the old name. With
        ``always``, an error instead.
        """
        recorded = self._recorded() or (isinstance(other, PythonObject) and other._recorded())
        in_place = always or not recorded or (self._node is None and self._requires_grad)  # _write refuses such a leaf
        result: Tensor = getattr(self.detach() if in_place else self, f"__{name}__")(other)
        if not in_place:
            return result
        change = "an update in place would change the"
        if result.shape != self.shape:
            raise ShapeError(f"{change} shape {self.shape} to {result.shape}: {brief(other)}")
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise DTypeError(f"{change} dtype {self.dtype} to {result.dtype}: {brief(other)}")
        self[...] = result
        return self  # type: ignore[return-value]  # a Tensor

    def __reduce__(self) -> Any:
        self._read("a copy or a pickle")
        if self._node is not None:
            raise GradientError("a tensor that hangs on a graph cannot be copied or pickled; copy x.detach() instead")
        return (type(self), (self._data, self._requires_grad))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        make, arguments = self.__reduce__()
        twin: Tensor = make(*arguments)
        twin._grad = None if self._grad is None else self._wrap(self._grad._data.copy())
        memo[id(self)] = twin
        return twin


def root_of(output: Tensor) -> Node | Tensor:
    """The vertex at which a backward pass from this tensor begins: its node, or a leaf itself."""
    if not output._requires_grad:
        how = "make an input with requires_grad=True, and compute outside of no_grad()"
        raise GradientError(f"this tensor does not depend on anything that requires a gradient; {how}")
    return output._node or output


def seed_of(output: Tensor, gradient: Any) -> Tensor:
    """The gradient at which a backward pass begins: the given one, or 1."""
    if gradient is None:
        if output._data.size != 1:
            how = "use y.sum().backward(), or pass gradient= of that shape"
            raise ShapeError(f"backward() starts from one element, this tensor has shape {output.shape}; {how}")
        return output._wrap(np.ones(output.shape, output.dtype))
    seed: Tensor = gradient
    if not isinstance(gradient, PythonObject):  # numbers and lists take the tensor's dtype: float32 would round them
        seed = output._wrap(copied(gradient, getattr(gradient, "dtype", output.dtype)))
    if seed.shape != output.shape:
        raise ShapeError(f"the gradient to start from must have the tensor's shape {output.shape}, got {seed.shape}")
    return seed if seed.dtype == output.dtype else seed.astype(output.dtype)


def leaves_of(inputs: Any) -> set[Any]:
    """The leaves to whose ``.grad`` a backward pass adds."""
    found = [inputs] if isinstance(inputs, PythonObject) else listed("inputs", inputs, "a leaf or several")
    for x in found or [None]:
        if not isinstance(x, PythonObject) or x._node is not None or not x._requires_grad:
            raise GradientError(f"inputs must be leaves that require a gradient, got {brief(x)}; see grad(y, x)")
    return {*found}
