"""Comparisons, logical operations, and bitwise operations (``&``, ``|``, ``^`` and ``~``). None has a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.primitive import Array, composite, draw
from ..core.tensor import to_array
from ..errors import DTypeError
from .ufuncs import ufunc

# Comparisons


@ufunc(np.equal, draw(3, 2), draw(2), operator="eq", onnx="Equal", x=None, y=None)
def eq(x: Array, y: Array) -> Array:
    """``x == y``, element by element, as booleans without a gradient. NaN equals nothing.

    >>> import tinygrad_lenet as tl
    >>> tl.eq(tl.tensor([1.0, 2.0]), 2)
    tensor([False,  True])
    """


@ufunc(np.not_equal, draw(3, 2), draw(2), operator="ne", x=None, y=None)
def ne(x: Array, y: Array) -> Array:
    """``x != y``, element by element, as booleans without a gradient. NaN differs from everything.

    >>> import tinygrad_lenet as tl
    >>> tl.ne(tl.tensor([1.0, 2.0]), 2)
    tensor([ True, False])
    """


ne.known_as(onnx=lambda g, t, x, y: g.node("Not", g.node("Equal", x, y)))


@ufunc(np.less, draw(3, 2), draw(2), operator="lt", onnx="Less", x=None, y=None)
def lt(x: Array, y: Array) -> Array:
    """``x < y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.lt(tl.tensor([1.0, 2.0]), 2)
    tensor([ True, False])
    """


@ufunc(np.less_equal, draw(3, 2), draw(2), operator="le", onnx="LessOrEqual", x=None, y=None)
def le(x: Array, y: Array) -> Array:
    """``x <= y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.le(tl.tensor([1.0, 2.0]), 1.5)
    tensor([ True, False])
    """


@ufunc(np.greater, draw(3, 2), draw(2), operator="gt", onnx="Greater", x=None, y=None)
def gt(x: Array, y: Array) -> Array:
    """``x > y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.gt(tl.tensor([1.0, 2.0]), 1)
    tensor([False,  True])
    """


@ufunc(np.greater_equal, draw(3, 2), draw(2), operator="ge", onnx="GreaterOrEqual", x=None, y=None)
def ge(x: Array, y: Array) -> Array:
    """``x >= y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.ge(tl.tensor([1.0, 2.0]), 1.5)
    tensor([False,  True])
    """


@ufunc(np.isnan, draw(3, 2), onnx="IsNaN", x=None)
def isnan(x: Array) -> Array:
    """True where an element is NaN, as booleans without a gradient.

    >>> import tinygrad_lenet as tl
    >>> tl.isnan(tl.tensor([1.0, float("nan")]))
    tensor([False,  True])
    """


@ufunc(np.isinf, draw(3, 2), onnx="IsInf", x=None)
def isinf(x: Array) -> Array:
    """True where an element is infinite, as booleans without a gradient.

    >>> import tinygrad_lenet as tl
    >>> tl.isinf(tl.tensor([1.0, -float("inf")]))
    tensor([False,  True])
    """


@ufunc(np.isfinite, draw(3, 2), x=None)
def isfinite(x: Array) -> Array:
    """True where an element is neither infinite nor NaN, as booleans without a gradient.

    >>> import tinygrad_lenet as tl
    >>> tl.isfinite(tl.tensor([1.0, float("inf"), float("nan")]))
    tensor([ True, False, False])
    """


isfinite.known_as(onnx=lambda g, t, x: g.node("Not", g.node("Or", g.node("IsNaN", x), g.node("IsInf", x))))


@composite(method=True, torch="allclose")
def allclose(x: Array, y: Array, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """True if ``|x - y| <= atol + rtol * |y|`` for all elements, a bool of Python. NaN is close to nothing, or
    with ``equal_nan`` to NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.allclose(tl.tensor([1.0, 2.0]), tl.tensor([1.0, 2.00001]))
    True
    """
    return np.allclose(to_array(x), to_array(y), rtol, atol, equal_nan)


# Logical operations


@ufunc(np.logical_and, draw(3, 2), draw(2), method=False, onnx="And", x=None, y=None)
def logical_and(x: Array, y: Array) -> Array:
    """Logical and, as booleans: True where neither is 0. For bits see :func:`bitwise_and`.

    >>> import tinygrad_lenet as tl
    >>> tl.logical_and(tl.tensor([True, True]), tl.tensor([True, False]))
    tensor([ True, False])
    """


@ufunc(np.logical_or, draw(3, 2), draw(2), method=False, onnx="Or", x=None, y=None)
def logical_or(x: Array, y: Array) -> Array:
    """Logical or, as booleans: True where at least one is not 0. For bits see :func:`bitwise_or`.

    >>> import tinygrad_lenet as tl
    >>> tl.logical_or(tl.tensor([False, True]), False)
    tensor([False,  True])
    """


@ufunc(np.logical_not, draw(3, 2), method=False, onnx="Not", x=None)
def logical_not(x: Array) -> Array:
    """Logical not, as booleans: True where ``x`` is 0. For bits see :func:`bitwise_not`.

    >>> import tinygrad_lenet as tl
    >>> tl.logical_not(tl.tensor([True, False]))
    tensor([False,  True])
    """


# Bitwise operations

_BITS = np.array([6, -1], np.int32), np.array([[3], [0]], np.int32)


def _of_bits(function: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse values other than integers and booleans."""

    def checked(*values: Any) -> Any:
        for name, dtype in zip("xy", map(np.result_type, values), strict=False):
            if dtype.kind not in "iub":
                raise DTypeError(f"{name} must hold integers or booleans, got {dtype}; for truth see logical_and")
        return function(*values)

    return checked


@ufunc(_of_bits(np.bitwise_and), *_BITS, operator="and", numpy=np.bitwise_and, x=None, y=None)
def bitwise_and(x: Array, y: Array) -> Array:
    """Bitwise and, ``x & y``, of integers or booleans: the bits that are set in both.

    Raises:
        DTypeError: floats; see :func:`logical_and`.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_and(tl.tensor([6], dtype="int64"), 3), tl.tensor([True, True]) & tl.tensor([True, False])
    (tensor([2], dtype=int64), tensor([ True, False]))
    """


@ufunc(_of_bits(np.bitwise_or), *_BITS, operator="or", numpy=np.bitwise_or, x=None, y=None)
def bitwise_or(x: Array, y: Array) -> Array:
    """Bitwise or, ``x | y``, of integers or booleans: the bits that are set in at least one.

    Raises:
        DTypeError: floats; see :func:`logical_or`.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_or(tl.tensor([6], dtype="int64"), 3), tl.tensor([False, True]) | False
    (tensor([7], dtype=int64), tensor([False,  True]))
    """


@ufunc(_of_bits(np.bitwise_xor), *_BITS, operator="xor", numpy=np.bitwise_xor, x=None, y=None)
def bitwise_xor(x: Array, y: Array) -> Array:
    """Bitwise exclusive or, ``x ^ y``, of integers or booleans: the bits that are set in exactly one.

    Raises:
        DTypeError: floats; for their truth values, write ``(x != 0) ^ (y != 0)``.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_xor(tl.tensor([6], dtype="int64"), 3), tl.tensor([False, True]) ^ True
    (tensor([5], dtype=int64), tensor([ True, False]))
    """


@ufunc(_of_bits(np.invert), _BITS[0], operator="invert", numpy=np.invert, x=None)
def bitwise_not(x: Array) -> Array:
    """Bitwise not, ``~x``, of integers or booleans: ``-x - 1`` for signed integers, logical not for booleans.

    Raises:
        DTypeError: floats; see :func:`logical_not`.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_not(tl.tensor([6], dtype="int64")), ~tl.tensor([True, False])
    (tensor([-7], dtype=int64), tensor([False,  True]))
    """
