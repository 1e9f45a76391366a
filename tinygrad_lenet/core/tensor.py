"""The Tensor: an array, its gradient, and the node of the graph that produced it.

This file has no maths. Operators and methods such as ``x * y`` and ``x.sum()`` call the ops of ``ops/``; they are
attached by ``operators.py``, and ``_methods.py`` holds their types. The rest is in these files:

- ``python_object.py``: Python's protocols, such as ``float(x)``, ``x[0] = 1`` and checked attributes; conversion of the
  user's data to arrays (``copied``, ``to_array``); where a backward pass starts (``root_of``), and with which gradient
  (``seed_of``: the one given, or 1).
- ``hooks.py``: ``x.register_hook(f)`` calls ``f`` with the gradient of ``x``.
- ``accumulation.py``: ``accumulate`` adds the gradients of a backward pass to ``.grad``, to all or, after Ctrl-C, none.

Data is protected, so that no gradient is silently wrong. A Tensor holds a private copy of what the user gave, and
:meth:`Tensor.numpy` returns a read-only view. Every in-place change therefore goes through a Tensor, which increments a
version counter. Views of the same memory share one counter. An op notes the version of each value it saves, and the
backward pass refuses to use a value whose version has changed.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import DTypeLike, NDArray

from ..checks import flag
from ..errors import TinygradLenetError, named
from .accumulation import accumulate, accumulate_recorded
from .graph import Node, pullback, pulled
from .hooks import register_hook, retain_grad
from .modes import enable_grad
from .python_object import PythonObject, copied, leaves_of, root_of, seed_of
from .python_object import to_array as to_array

# [number of in-place changes], and after the first [number, the user's line that made the last one]. A list, so that
# views can share it. The number is NaN, which equals nothing, once another library can write to the memory.
Version: TypeAlias = list[Any]


class Tensor(PythonObject):
    """A multi-dimensional array that records what is computed from it.

    Args:
        data: an array (copied; its dtype is kept), a number or nested lists of numbers (float32), or a Tensor.
        requires_grad: whether :meth:`backward` computes a gradient for this tensor; floats only.
        dtype: the dtype to convert to.

    Raises:
        DTypeError: complex numbers, objects, strings; or ``requires_grad`` with integers.

    >>> import tinygrad_lenet as tl
    >>> x = tl.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad
    tensor([2., 4., 6.])
    """

    __slots__ = ()
    __hash__ = object.__hash__  # == compares elements; a Tensor is still one object in a set
    register_hook = register_hook
    retain_grad = retain_grad

    def __init__(self, data: Any, requires_grad: bool = False, dtype: DTypeLike | None = None) -> None:
        self._data = copied(data, dtype)
        self._node = None  # the op that produced this tensor; None for a leaf
        self._grad = None  # of a leaf: the sum of the gradients of all backward passes so far
        self._hooks = None  # of a leaf: other tensors keep their hooks in the node
        self._version: Version = [0]
        self.requires_grad = requires_grad

    @staticmethod
    def _wrap(array: NDArray[Any], node: Node | None = None, version: Version | None = None) -> Tensor:
        """A Tensor around an array that no one else writes to. Nothing is copied or checked."""
        self = Tensor.__new__(Tensor)
        self._data = array
        self._grad = self._hooks = None
        self._node = node
        self._requires_grad = node is not None
        self._version = [0] if version is None else version
        return self

    @property
    def is_leaf(self) -> bool:
        """True if this tensor was made by the user, and not by a recorded op."""
        return self._node is None

    def numpy(self) -> NDArray[Any]:
        """The values as a read-only view, which shows later changes of the tensor. ``.copy()`` it to write to it."""
        self._read("numpy()")
        view = self._data.view()
        view.flags.writeable = False
        return view

    to_numpy = numpy  # pandas' word, by which Matplotlib asks: a tensor that requires a gradient can be plotted

    def detach(self) -> Tensor:
        """A leaf with the same values. It shares memory with this tensor, but not its history."""
        return Tensor._wrap(self._data, None, self._version)

    def backward(
        self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False, inputs: Any = None
    ) -> None:
        """Add the gradient of this tensor to the ``.grad`` of every leaf that it was computed from.

        Args:
            gradient: the gradient to start from, of this tensor's shape; 1 if the tensor has one element.
            retain_graph: keep the graph, so that another backward pass can go through it; by default as
                ``create_graph``.
            create_graph: record the pass, so that ``.grad`` can be differentiated again. A leaf and such a ``.grad``
                refer to each other: set it to None afterwards, or Python frees them late. See also :func:`grad`.
            inputs: the leaf, or the leaves, whose ``.grad`` to add to; all if None.

        Raises:
            GradientError: nothing here requires a gradient; the graph was freed; saved data was changed in place; one
                of ``inputs`` is not a leaf that requires a gradient.
            ShapeError: more than one element and no ``gradient``, or one of another shape.

        >>> import tinygrad_lenet as tl
        >>> x = tl.tensor(3.0, requires_grad=True)
        >>> (x**2).backward()
        >>> x.grad
        tensor(6.)
        """
        try:
            create_graph = create_graph if type(create_graph) is bool else flag("create_graph", create_graph)
            retain = create_graph if retain_graph is None else flag("retain_graph", retain_graph)
            root, seed = root_of(self), seed_of(self, gradient)
            wanted = None if inputs is None else leaves_of(inputs)
        except TinygradLenetError as error:
            raise named(error, "backward")  # noqa: B904  # it is the same error
        if create_graph:
            with enable_grad():
                accumulate_recorded(pullback([root], [seed], wanted, retain))
        else:
            accumulate(pulled([root], [seed], wanted, retain), seed._data)


def tensor(data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False) -> Tensor:
    """Make a Tensor; see :class:`Tensor`. Python's integers become float32; in PyTorch int64: ``dtype="int64"``.

    >>> import tinygrad_lenet as tl
    >>> tl.tensor([[1, 2], [3, 4]])
    tensor([[1., 2.],
            [3., 4.]])
    """
    return Tensor(data, requires_grad, dtype)


def as_tensor(data: Any) -> Tensor:
    """``data`` itself if it is a Tensor, else a new one; see :class:`Tensor`.

    >>> import tinygrad_lenet as tl
    >>> x = tl.as_tensor([1, 2])
    >>> x, tl.as_tensor(x) is x
    (tensor([1., 2.]), True)
    """
    return data if isinstance(data, Tensor) else Tensor(data)


def tensor_of(name: str, value: Any, dtype: DTypeLike | None = None) -> Tensor:
    """An argument as a Tensor; numbers and lists get the dtype, if one is given. An error begins with the name."""
    try:
        return as_tensor(value) if dtype is None or hasattr(value, "dtype") else Tensor(value, dtype=dtype)
    except TinygradLenetError as error:
        raise type(error)(f"{name}: {error}") from None
