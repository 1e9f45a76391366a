"""How ops are declared: ``Array``, ``composite`` and ``draw``; and the attributes of the declared functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeAlias, TypeVar, overload

from ..checks import Real, integer
from ..errors import TinygradLenetError
from .names import known_as
from .python_object import numbers
from .signature import Unread, checked
from .tensor import Tensor
from .values import flattened

if TYPE_CHECKING:
    from .primitive import Op

    Array: TypeAlias = Any
else:

    class Array:
        """The annotation of a tensor argument: a Tensor, a NumPy array, a number, or a list of numbers.

        Numbers and lists become float32; beside a tensor, a number takes its dtype. In the body of a :func:`primitive`
        the argument is a NumPy array. ``Array`` is for annotations only.

        >>> import tinygrad_lenet as tl
        >>> tl.add([1, 2], 0.5)
        tensor([1.5, 2.5])
        """


P = ParamSpec("P")
R = TypeVar("R", covariant=True)
Rule: TypeAlias = Callable[..., Any]


class Composite(Generic[P, R]):
    """A public function that is made of ops, as type checkers see it: a function with these attributes."""

    __name__: str
    __call__: Callable[P, R]
    known_as = known_as


class Primitive(Composite[P, Tensor]):
    """A function of Tensors, arrays or numbers that returns a Tensor and has rules for its derivatives."""

    op: Op  # the record of the op: forward function, rules, test cases

    def vjp(self, **rules: Rule | None) -> None:
        """Declare the rule of each argument; ``None`` means that its gradient is zero or does not exist.

        >>> import tinygrad_lenet as tl
        >>> @tl.primitive
        ... def square(x: tl.Array) -> tl.Array:
        ...     return x * x
        >>> square.vjp(x=lambda g, x: 2 * g * x)
        """
        self.op.signature.check_rules(rules)
        self.op.rules.update(rules)
        self.op.plans.clear()

    def check(self, *args: Any, **kwargs: Any) -> None:
        """Add the arguments of one test case. An op without a test case fails the tests."""
        self.op.cases.append((args, kwargs))

    def planned(
        self,
        steps: Callable[..., Any] | None = None,
        rows: tuple[int, ...] | None = None,
        added: tuple[int, ...] | None = None,
    ) -> None:
        """Declare how a replay computes the op in memory that it already has, and in chunks of a batch.

        ``steps(out, room, *arguments)`` returns the steps that write the result to ``out`` (``kernels/steps.py``), with
        the same bits as the op's function; or None if it cannot do so for these arrays. The arguments are those of the
        function. ``out`` has the shape, the dtype and the order of axes in memory that the function's result has.

        Row i of the result depends on row i of the arguments at the positions ``rows``, and on others as a whole; the
        empty tuple says that the op is elementwise. Or the result is a sum over the rows of the arguments ``added``.
        """
        self.op.steps, self.op.rows, self.op.added = steps, rows, added


@overload
def composite(function: Callable[P, R], /) -> Composite[P, R]: ...
@overload
def composite(*, view: bool = ..., **names: Any) -> Callable[[Callable[P, R]], Composite[P, R]]: ...
def composite(function: Any = None, *, view: bool = False, **names: Any) -> Any:
    """Make a public function of a function that is made of ops, and so needs no rule of its own.

    It has the conventions of a primitive: PyTorch's spellings and NumPy's (``dim`` and ``axis``, ``input`` and ``x``),
    checked options, errors with its name, and a result that owns its memory unless it is declared a ``view``. ``names``
    are the arguments of :meth:`Composite.known_as`.
    """
    if function is None:
        return functools.partial(composite, view=view, **names)
    signature = Unread(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            found = signature.call(args, kwargs)
            return found if view else _owned(found, (*args, *kwargs.values()))
        except Exception as error:
            if not isinstance(error, TinygradLenetError) and _of_python(error):
                raise
            signature.explain(error, signature.given(args, kwargs))

    call.known_as = MethodType(known_as, call)  # type: ignore[attr-defined]  # a function may carry attributes
    known_as(call, **names)
    return call


def _of_python(error: Exception) -> bool:
    """Return True if the call itself failed: an argument has a wrong name, or too many or too few were given."""
    inner = error.__traceback__ and error.__traceback__.tb_next
    return inner is None or inner.tb_next is None


def _owned(found: Any, values: Iterable[Any]) -> Any:
    """The result of a composite, with copies of the tensors that share memory with an argument."""
    if type(found) is tuple:
        return tuple([_owned(one, values) for one in found])
    if not isinstance(found, Tensor):
        return found
    for value in flattened(values):
        if isinstance(value, Tensor) and value._version is found._version:  # they share memory too
            return found.clone()
    return found if found._data.flags.writeable else found.clone()


class Draw(NamedTuple):
    """A random tensor argument for tests: distinct values, spread evenly over ``low … high``, none of them at a kink;
    or just these ``values``.
    """

    shape: tuple[int, ...]
    low: float
    high: float
    values: object = None


@checked
def draw(*shape: int, low: Real = -1.0, high: Real = 1.0, values: Any = None) -> Draw:
    """Describe a test argument for :meth:`Primitive.check`: a shape and a range, or the values themselves.

    >>> import tinygrad_lenet as tl
    >>> tl.draw(3, 2, low=0.5)
    Draw(shape=(3, 2), low=0.5, high=1.0, values=None)
    """
    lengths = tuple(integer("a length of the shape", n, 0) for n in shape)
    return Draw(lengths if values is None else numbers("values", values).shape, low, high, values)
