"""The class of an exercise, and strategies that draw its arguments."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet.testing import GradientCheckError, gradcheck


class TooSlow(Exception):
    """An answer that would take too long."""


class Wrong(Exception):
    """A wrong answer. The message says where it is wrong."""


def kind(value):
    """A short description of a value, for a message."""
    if value is None:
        return "None: is a return missing?"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


def show(arguments, names):
    """Arguments in a line for a message: small arrays in full, large ones by their shape."""
    words = []
    for name, value in zip(names, arguments, strict=False):  # an answer may lack a parameter
        if isinstance(value, np.ndarray):
            text = str(value.tolist()) if value.size <= 12 else f"an array of shape {value.shape}"
        else:
            text = f"{value:g}" if isinstance(value, float) else str(value)
        words.append(f"{name} = {text}")
    return ", ".join(words)


@dataclass
class Exercise:
    """One hole: the function to write, and how to judge it.

    ``draw`` draws its arguments. ``call(names, answer, *arguments)`` calls it, with the names of the lesson, and
    returns what to compare with ``right(*arguments)``, which is a dict if the parts of a tuple have names. Each of
    ``mistakes`` returns what a usual mistake leads to.
    """

    function: str
    draw: st.SearchStrategy
    right: Callable
    mistakes: dict = field(default_factory=dict)
    hints: tuple = ()
    call: Callable = lambda names, answer, *arguments: answer(*arguments)
    rule: Callable | None = None  # runs gradcheck on the answer
    show: Callable | None = None  # describes the arguments; by default, each with its name


def floats(*shape, low=-2.0, high=2.0):
    """Arrays of this shape. Whole tenths shrink to numbers that are easy to read."""
    size = math.prod(shape)
    numbers = st.lists(st.integers(int(10 * low), int(10 * high)), min_size=size, max_size=size)
    return numbers.map(lambda numbers: np.array(numbers, float).reshape(shape) / 10)


def distinct(*shape):
    """Arrays without ties."""
    order = st.permutations(range(math.prod(shape)))
    return order.map(lambda order: (np.array(order, float).reshape(shape) - 3) / 10)


def drawn(*sizes):
    """A decorator: the function gets drawn sizes, and returns strategies for the arguments."""
    return lambda strategies: st.tuples(*sizes).flatmap(lambda found: st.tuples(*strategies(*found)))


def named(names, f):
    """The function f, whose tuples become dicts with these names."""
    return lambda *arguments: dict(zip(names, f(*arguments), strict=True))


def vjp(f, x, g):
    """The gradient of x by the package, if f(x) has the gradient g."""
    x = tl.tensor(x, requires_grad=True)
    f(x).backward(tl.tensor(g))
    return x.grad.numpy()


def check_rule(forward, gradient, x):
    """Run gradcheck on an op of ``x`` whose rule is an answer, ``gradient(x, g)``."""

    @tl.primitive
    def op(x: tl.Array) -> tl.Array:
        return forward(tl.tensor(x)).numpy().copy()

    op.vjp(x=lambda g, x: gradient(x, g))
    try:
        gradcheck(op, [x])
    except GradientCheckError as error:
        raise Wrong(f"gradcheck says: {error}") from None


def small(low, high):
    return st.integers(low, high)
