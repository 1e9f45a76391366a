"""What declarations of ops are written with: the annotation of a tensor argument, and the arguments that tests draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .arguments import integer, number
from .errors import TinygradLenetError, named
from .tensor import to_array

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
    lengths = tuple(integer("draw", "a length of the shape", n, 0) for n in shape)
    low, high = number("draw", "low", low), number("draw", "high", high)
    try:
        return Draw(lengths if values is None else to_array(values).shape, low, high, values)
    except TinygradLenetError as error:
        raise named(error, "draw: values")  # noqa: B904  # it is the same error
