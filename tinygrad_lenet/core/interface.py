"""Arguments and results of ops: the annotation of a tensor argument, the dtype of numbers beside arrays, the memory of
results, and the arguments that tests draw.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ..checks import integer, number
from ..errors import TinygradLenetError, named
from .tensor import Tensor, Version, to_array

if TYPE_CHECKING:
    Array: TypeAlias = Any
else:

    class Array:
        """The word in signatures for a tensor argument: a Tensor, a NumPy array, a number, or a list of numbers.

        Numbers and lists become float32; beside a tensor, a number takes its dtype. What comes back is a Tensor. In the
        body of a :func:`primitive` the word stands for the NumPy array. It is for annotations only.

        >>> import tinygrad_lenet as tl
        >>> tl.add([1, 2], 0.5)
        tensor([1.5, 2.5])
        """


def beside(*values: Any) -> list[Any]:
    """The values, Python numbers as arrays of the dtype that NumPy 2 gives them beside the tensors and arrays here.

    >>> beside(np.ones(2), 0.1, [0.1])
    [array([1., 1.]), array(0.1), [0.1]]
    """
    dtypes = [v.dtype for v in values if isinstance(v, (Tensor, np.ndarray, np.generic))]
    return [to_array(v, np.result_type(v, *dtypes)) if dtypes and number_like(v) else v for v in values]


def number_like(value: Any) -> bool:
    """True for a Python number, which has no dtype of its own."""
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


def borrows(out: Any, values: Iterable[Any], depth: int = 9) -> bool:
    """True if an array is read-only, or shares memory with one of the values, or with an array in a list or dict there.

    A list may hold itself, so the search has a largest depth.
    """
    view = out.base is not None
    for value in values:
        array = value._data if isinstance(value, Tensor) else value
        if array is out or (view and isinstance(array, np.ndarray) and np.may_share_memory(array, out)):
            return True
        held = array.values() if type(array) is dict else array if type(array) in (list, tuple) else ()
        if held and depth and borrows(out, held, depth - 1):
            return True
    return view and not (out.flags.writeable and out.size)  # empty memory overlaps with nothing


def version_of(out: Any, args: tuple[Any, ...]) -> Version | None:
    """The version counter of the tensor that a view looks at."""
    home = out.base
    for a in args:
        if isinstance(a, Tensor):
            array = a._data
            if array is home or (home is not None and array.base is home) or np.may_share_memory(array, out):
                return a._version
    return None


class Draw(NamedTuple):
    """How tests may draw one tensor argument: distinct values, spread evenly over ``low … high``, none of them at a
    kink; or just these ``values``.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    values: object = None


def draw(*shape: int, low: float = -1.0, high: float = 1.0, values: Any = None) -> Draw:
    """Describe a test argument for :meth:`Primitive.check`: a shape and a range, or the values themselves.

    >>> import tinygrad_lenet as tl
    >>> tl.draw(3, 2, low=0.5)
    Draw(shape=(3, 2), low=0.5, high=1.0, values=None)
    """
    lengths = tuple(integer("a length of the shape", n, 0) for n in shape)
    low, high = number("low", low), number("high", high)
    try:
        return Draw(lengths if values is None else to_array(values).shape, low, high, values)
    except TinygradLenetError as error:
        raise named(error, "draw: values")  # noqa: B904  # it is the same error
