"""The Tensor: an array, its gradient, and the node of the graph that made it. No maths of its own.

Data is protected, so that a gradient is never silently wrong: a Tensor holds a private copy of what the user gave,
``numpy()`` is a read-only view, and every change in place goes through the Tensor, which counts it. Views share the
counter of the memory they look at; an op notes the count of what it saves, and the backward pass compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._methods import Methods
from ..checks import flag, function
from ..errors import ArgumentError, DTypeError, GradientError, ShapeError, TinygradLenetError, brief, named, translated
from ..kernels.memory import storage
from ..kernels.threads import exclusively
from .graph import Hook, Node, pullback
from .modes import is_grad_enabled, no_grad, user_line, watcher
from .parameters import NATIVE, as_index, checked, unchanged

_DIFFERENTIABLE = "f"  # kinds of dtype that can carry a gradient


def to_array(value: Any, dtype: DTypeLike | None = None) -> NDArray[Any]:
    """An array of a dtype that Tensors may have; numbers and lists of numbers become float32. May share memory with
    ``value``.
    """
    if isinstance(value, Tensor):
        value = value._data
    if dtype is None and type(value) is np.ndarray and value.dtype in NATIVE:
        return value
    wanted = None if dtype is None else checked(dtype)
    kind, typed = type(value).__name__, isinstance(value, (np.ndarray, np.generic))
    try:
        if not typed:
            value = _unwrap(value)
        array = np.asarray(value)
        if type(value) is not np.ndarray and np.any(getattr(value, "mask", False)):
            raise ArgumentError("tensor: a masked array hides some of its values; give it values for them: x.filled(0)")
        native = checked(array.dtype, f"{kind} gives")
        if wanted is None:
            wanted = np.dtype(np.float32) if not hasattr(value, "dtype") and native.kind in "iuf" else native
        # Of Python's numbers NumPy sees whether the dtype can hold them.
        return np.asarray(array if typed else value, wanted)
    except TinygradLenetError as error:
        raise named(error, "tensor")  # noqa: B904  # it is the same error
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise DTypeError(
            f"tensor: {kind} gives no array of {wanted or 'numbers'} "
            f"(are the rows of the list of equal length?): {error}"
        ) from None


def _unwrap(value: Any) -> Any:
    """A list may hold Tensors."""
    if isinstance(value, (list, tuple)):
        return [_unwrap(v) for v in value]
    if isinstance(value, Tensor):
        if value._requires_grad and is_grad_enabled():
            raise GradientError(
                "a list holds tensors that require a gradient, which would be lost; join them with tl.stack([...]), or "
                "use their .detach()"
            )
        return value._data
    return value


# How often the memory was changed, and (from the first time on) the line that did it last; shared by all views of it.
# NaN once another library can write to the memory as well: it equals no count, not even itself.
Version: TypeAlias = list[Any]


class Tensor(Methods):
    """A multi-dimensional array that records what is computed from it.

    Args:
        data: an array (copied; its dtype is kept), a number or nested lists of numbers (float32), or a Tensor.
        requires_grad: whether :meth:`backward` shall collect a gradient here; only floats can.
        dtype: the dtype to convert to.

    Raises:
        DTypeError: complex numbers, objects, strings; or integers that shall require a gradient.

    >>> import tinygrad_lenet as tl
    >>> x = tl.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    __slots__ = ("__weakref__", "_data", "_grad", "_hooks", "_node", "_requires_grad", "_version")
    __hash__ = object.__hash__  # == compares elements; a Tensor is still one object in a set

    _data: NDArray[Any]
    _grad: Tensor | None
    _hooks: list[Hook] | None  # of a leaf; others keep them in the node
    _node: Node | None
    _requires_grad: bool
    _version: Version

    def __init__(self, data: Any, requires_grad: bool = False, dtype: DTypeLike | None = None) -> None:
        try:
            self._data = np.array(to_array(data, dtype))
        except MemoryError as error:
            raise translated(error, "tensor", f"data is {brief(data)}") from None
        self._grad = self._node = self._hooks = None
        self._version = [0]
        self._requires_grad = False
        self.requires_grad = requires_grad

    @staticmethod
    def _wrap(array: NDArray[Any], node: Node | None = None, version: Version | None = None) -> Tensor:
        """A Tensor around an array that nobody else will write to, without a copy."""
        self = Tensor.__new__(Tensor)
        self._data = array
        self._grad = self._hooks = None
        self._node = node
        self._requires_grad = node is not None
        self._version = [0] if version is None else version
        return self

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype of the elements."""
        return self._data.dtype

    @property
    def is_leaf(self) -> bool:
        """Whether the user made it, not a recorded op."""
        return self._node is None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor. Can be set on leaves."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        value = flag("requires_grad", value)
        if self._node is not None and not value:
            raise GradientError(
                "requires_grad can be switched off on leaf tensors only; use x.detach() to cut the graph here"
            )
        if value and self.dtype.kind not in _DIFFERENTIABLE:
            raise DTypeError(
                f"only tensors of floats can require a gradient, this one is {self.dtype}; convert it: "
                "x.astype('float32')"
            )
        self._requires_grad = value

    @property
    def grad(self) -> Tensor | None:
        """The gradient that :meth:`backward` has summed up so far; None before. Same shape and dtype as the tensor."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and (
            not isinstance(value, Tensor) or value.shape != self.shape or value.dtype != self.dtype
        ):
            got = f"{value.dtype} of shape {value.shape}" if hasattr(value, "dtype") else type(value).__name__
            raise ShapeError(f"grad must be None or a Tensor of {self.dtype} and shape {self.shape}, got {got}")
        self._grad = value

    # What it holds

    def numpy(self) -> NDArray[Any]:
        """The values, as a read-only view: no copy is made, and later changes of the tensor show. ``.copy()`` it to
        write.
        """
        view = self._data.view()
        view.flags.writeable = False
        return view

    @property
    def data(self) -> NDArray[Any]:
        """The values, as :meth:`numpy` gives them. Assigning replaces them in place, in the tensor's dtype: it rounds
        float64 to float32, and refuses 1e300 for float32 and 2.5 for an integer. ``x[i] = value`` converts as NumPy
        does: 1e300 becomes inf, and 2.5 becomes 2.
        """
        return self.numpy()

    @data.setter
    def data(self, value: Any) -> None:
        typed = isinstance(value, (Tensor, np.ndarray, np.generic))
        with np.errstate(over="ignore", invalid="ignore"):
            array = to_array(value, self.dtype)
        unchanged("data", array, to_array(value, None if typed else np.float64))
        if array.shape != self.shape:
            raise ShapeError(
                f"data must keep its shape {self.shape}, got {array.shape}; make a new tensor for another shape"
            )
        with no_grad():
            self._write(..., array)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if self._requires_grad and is_grad_enabled():
            raise GradientError(
                "this tensor requires a gradient, which an array would lose; use tensor.numpy() or tensor.detach(), or "
                "convert under `with no_grad():`"
            )
        return np.array(self._data, dtype) if copy else np.asarray(self.numpy(), dtype)

    def item(self) -> float:
        """The value of the one element, as a Python number: an int or a bool where the dtype says so."""
        if self.size != 1:
            raise ShapeError(
                f"item() is for one element, this tensor has shape {self.shape}; use x.numpy() or x[i].item()"
            )
        return self._data.item()  # type: ignore[no-any-return]  # by the kinds of dtype that are admitted

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._data.tolist()

    def detach(self) -> Tensor:
        """The same values, cut off from the graph. Shares memory with this tensor."""
        return Tensor._wrap(self._data, None, self._version)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"only a tensor of integers can be an index, this one is {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"the truth value of a tensor of shape {self.shape} is ambiguous; say (x > 0).numpy().all() or "
                ".any(), or x is None"
            )
        return bool(self._data.item())

    def __format__(self, spec: str) -> str:
        return format(self._data.item(), spec) if spec and self.size == 1 else format(str(self), spec)

    def __len__(self) -> int:
        if not self.ndim:
            raise ShapeError("a tensor without axes has no length; its value is x.item()")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        values = np.array2string(self._data, separator=", ", prefix="tensor(", threshold=1000)
        notes = [] if self.dtype in (np.float32, np.bool_) else [f"dtype={self.dtype}"]
        if self._node is not None:
            notes.append(f"op={self._node.plan.op.name}")
        elif self._requires_grad:
            notes.append("requires_grad=True")
        if self.size == 0:
            notes.insert(0, f"shape={self.shape}")
        return f"tensor({', '.join([values, *notes])})"

    # Changes in place

    def _write(self, key: Any, value: NDArray[Any]) -> None:
        """Change elements: refused where that would go unrecorded, else counted."""
        if self._requires_grad and is_grad_enabled():
            raise GradientError(
                "a tensor that requires a gradient cannot be changed in place, since that would not be recorded; "
                "write an expression, such as where(mask, value, x), or change it under `with no_grad():`"
            )
        if not self._data.flags.writeable:
            raise ArgumentError(
                f"this tensor of shape {self.shape} is a read-only view (of broadcast_to?); change its clone() instead"
            )
        watch = watcher()
        if watch is not None:
            watch(self, key, value)
        before = self._version[:]
        self._version[:] = before[0] + 1, user_line()  # before the change, since Ctrl-C may come between the two
        try:
            self._data[key] = value
        except Exception as error:
            self._version[:] = before
            raise translated(error, "x[...] = value", f"x has shape {self.shape}; value is {brief(value)}") from None

    def __setitem__(self, index: Any, value: Any) -> None:
        try:
            key = as_index(index)
            array = to_array(value) if isinstance(value, (Tensor, np.ndarray)) else to_array(value, self.dtype)
        except TinygradLenetError as error:
            raise named(error, "x[...] = value")  # noqa: B904  # it is the same error
        if isinstance(value, Tensor) and value._requires_grad and is_grad_enabled():
            raise GradientError(
                "x[...] = value would not record the gradient of value; use where(mask, value, x) or value.detach()"
            )
        self._write(key, array)

    def _in_place(self, name: str, other: Any) -> Tensor:
        """Python's ``x += y``: in place where nothing is to be recorded, else a new tensor under the old name."""
        recorded = is_grad_enabled() and (self._requires_grad or (isinstance(other, Tensor) and other._requires_grad))
        if recorded and not (self._node is None and self._requires_grad):
            result: Tensor = getattr(self, f"__{name}__")(other)
            return result
        result = getattr(self.detach(), f"__{name}__")(other)
        if result.shape != self.shape:
            raise ShapeError(
                f"an update in place keeps the shape {self.shape}, the result would have {result.shape} (given: "
                f"{brief(other)})"
            )
        if not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise DTypeError(
                f"an update in place keeps the dtype {self.dtype}, the result would be {result.dtype}; write x = x ... "
                f"(given: {brief(other)})"
            )
        self._write(..., result._data)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise GradientError(
                "a tensor that hangs on a graph cannot be copied or pickled with it; copy x.detach() instead"
            )
        twin = type(self).__new__(type(self))
        twin._data, twin._node, twin._version, twin._requires_grad = self._data.copy(), None, [0], self._requires_grad
        twin._grad, twin._hooks = None if self._grad is None else Tensor(self._grad), None
        memo[id(self)] = twin
        return twin

    def __reduce__(self) -> Any:
        if self._node is not None:
            raise GradientError(
                "a tensor that hangs on a graph cannot be copied or pickled with it; pickle x.detach() instead"
            )
        return (type(self), (self._data, self._requires_grad))

    # Gradients

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to the ``.grad`` of every leaf that it was computed from.

        Args:
            gradient: the gradient to start from, of this tensor's shape; 1 when the tensor has one element.
            retain_graph: keep the graph, so that another backward pass can go through it.

        Raises:
            GradientError: nothing here requires a gradient; the graph was freed; saved data was changed in place.
            ShapeError: more than one element and no ``gradient``, or one of another shape.

        >>> import tinygrad_lenet as tl
        >>> x = tl.tensor(3.0, requires_grad=True)
        >>> (x**2).backward()
        >>> x.grad
        tensor(6.)
        """
        retain_graph = flag("retain_graph", retain_graph)
        try:
            root, seed = root_of(self), seed_of(self, gradient)._data
        except TinygradLenetError as error:
            raise named(error, "backward")  # noqa: B904  # it is the same error
        taken = {id(storage(seed))}
        gradients: dict[Any, Any] = pullback([root], [seed], retain=retain_graph)  # of leaves: nodes have been visited

        def accumulate() -> None:
            found: list[tuple[Any, Tensor | None, Tensor]] = []
            for leaf, array in gradients.items():
                if leaf._grad is not None:
                    array = np.asarray(leaf._grad._data + array)
                elif id(storage(array)) in taken or not array.flags.writeable:
                    array = array.copy()  # a rule may hand one array to two parents; each leaf gets its own
                taken.add(id(storage(array)))
                found.append((leaf, leaf._grad, Tensor._wrap(array)))
            try:
                for leaf, _, new in found:
                    leaf._grad = new
            except BaseException:  # Ctrl-C: all leaves have got theirs, or none
                for leaf, old, _ in found:
                    leaf._grad = old
                raise

        exclusively(accumulate)  # threads may have graphs of the same leaves: all is summed, in any order

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Hook:
        """Have ``hook(gradient)`` called whenever a backward pass has computed the gradient of this tensor.

        What it returns, unless None, takes the place of the gradient, here and further back. The gradient is the whole
        one of that pass: the sum over all uses of the tensor. Hooks are called in the order of their registration.

        Returns:
            A handle, whose ``remove()`` takes the hook away.

        Raises:
            GradientError: the tensor does not require a gradient; or, later, the hook returns no tensor of its shape.

        >>> import tinygrad_lenet as tl
        >>> x = tl.tensor([1.0, 2.0], requires_grad=True)
        >>> y = x * x
        >>> handle = y.register_hook(lambda gradient: gradient.clip(-1, 1))
        >>> (y * 10).sum().backward()
        >>> x.grad  # 2 x, and not 20 x
        tensor([2., 4.])
        """
        if not self._requires_grad:
            raise GradientError("register_hook: this tensor requires no gradient; make it with requires_grad=True")

        function("hook", hook)

        def run(gradient: Any) -> Any:
            found = hook(gradient if isinstance(gradient, Tensor) else Tensor(gradient))
            if found is None:
                return gradient
            if not isinstance(found, Tensor) or found.shape != self_shape or found.dtype != self_dtype:
                got = f"{found.dtype} of shape {found.shape}" if hasattr(found, "dtype") else type(found).__name__
                raise GradientError(
                    f"a hook must return None or a Tensor of {self_dtype} and shape {self_shape}, this one gave {got}"
                )
            return found if isinstance(gradient, Tensor) else found._data.copy()

        self_shape, self_dtype = self.shape, self.dtype  # not the tensor itself: that would be a cycle
        vertex = self._node or self
        if vertex._hooks is None:
            vertex._hooks = []
        return Hook(vertex._hooks, run)


def root_of(output: Tensor) -> Node | Tensor:
    """Where a backward pass from this tensor begins."""
    if not output._requires_grad:
        raise GradientError(
            "this tensor does not depend on anything that requires a gradient; "
            "make an input with requires_grad=True, and compute outside of no_grad()"
        )
    return output._node or output


def seed_of(output: Tensor, gradient: Any) -> Tensor:
    """The gradient that a backward pass begins with: the one given, or 1."""
    if gradient is None:
        if output.size != 1:
            raise ShapeError(
                f"backward() starts from one element, this tensor has shape {output.shape}; "
                "reduce it, as in y.sum().backward(), or pass gradient= of that shape"
            )
        return Tensor._wrap(np.ones(output.shape, output.dtype))
    # Numbers and lists take the dtype of the tensor: float32 would round them.
    seed = (
        gradient if isinstance(gradient, Tensor) else Tensor(gradient, False, getattr(gradient, "dtype", output.dtype))
    )
    if seed.shape != output.shape:
        raise ShapeError(f"the gradient to start from must have the tensor's shape {output.shape}, got {seed.shape}")
    return seed if seed.dtype == output.dtype else seed.astype(output.dtype)


def tensor(data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Make a Tensor; see :class:`Tensor`.

    >>> import tinygrad_lenet as tl
    >>> tl.tensor([[1, 2], [3, 4]])
    tensor([[1., 2.],
            [3., 4.]])
    """
    return Tensor(data, requires_grad, dtype)


def as_tensor(data: Any) -> Tensor:
    """The Tensor itself, if ``data`` is one; else a new one, see :class:`Tensor`.

    >>> import tinygrad_lenet as tl
    >>> x = tl.as_tensor([1, 2])
    >>> x, tl.as_tensor(x) is x
    (tensor([1., 2.]), True)
    """
    return data if isinstance(data, Tensor) else Tensor(data)
