"""Comparisons, truth values, and the bits of integers: Python's ``&``, ``|``, ``^`` and ``~``. None has a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.primitive import Array, draw, primitive
from ..errors import DTypeError

# Comparison: no gradients


@primitive
def eq(x: Array, y: Array) -> Array:
    """``x == y``, element by element, as booleans without a gradient. NaN equals nothing.

    >>> import tinygrad_lenet as tl
    >>> tl.eq(tl.tensor([1.0, 2.0]), 2)
    tensor([False,  True])
    """
    return np.equal(x, y)


eq.known_as(operator="eq", numpy=np.equal, torch="eq", onnx="Equal")


@primitive
def ne(x: Array, y: Array) -> Array:
    """``x != y``, element by element, as booleans without a gradient. NaN differs from everything.

    >>> import tinygrad_lenet as tl
    >>> tl.ne(tl.tensor([1.0, 2.0]), 2)
    tensor([ True, False])
    """
    return np.not_equal(x, y)


ne.known_as(operator="ne", numpy=np.not_equal, torch="ne", onnx=lambda g, t, x, y: g.node("Not", g.node("Equal", x, y)))


@primitive
def lt(x: Array, y: Array) -> Array:
    """``x < y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.lt(tl.tensor([1.0, 2.0]), 2)
    tensor([ True, False])
    """
    return np.less(x, y)


lt.known_as(operator="lt", numpy=np.less, torch="lt", onnx="Less")


@primitive
def le(x: Array, y: Array) -> Array:
    """``x <= y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.le(tl.tensor([1.0, 2.0]), 1.5)
    tensor([ True, False])
    """
    return np.less_equal(x, y)


le.known_as(operator="le", numpy=np.less_equal, torch="le", onnx="LessOrEqual")


@primitive
def gt(x: Array, y: Array) -> Array:
    """``x > y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.gt(tl.tensor([1.0, 2.0]), 1)
    tensor([False,  True])
    """
    return np.greater(x, y)


gt.known_as(operator="gt", numpy=np.greater, torch="gt", onnx="Greater")


@primitive
def ge(x: Array, y: Array) -> Array:
    """``x >= y``, element by element, as booleans without a gradient. False for NaN.

    >>> import tinygrad_lenet as tl
    >>> tl.ge(tl.tensor([1.0, 2.0]), 1.5)
    tensor([False,  True])
    """
    return np.greater_equal(x, y)


ge.known_as(operator="ge", numpy=np.greater_equal, torch="ge", onnx="GreaterOrEqual")


for _comparison in (eq, ne, lt, le, gt, ge):
    _comparison.vjp(x=None, y=None)
    _comparison.check(draw(3, 2), draw(2))


# Truth values


@primitive
def logical_and(x: Array, y: Array) -> Array:
    """Logical and, as booleans: True where both are not 0. For bits see :func:`bitwise_and`.

    >>> import tinygrad_lenet as tl
    >>> tl.logical_and(tl.tensor([True, True]), tl.tensor([True, False]))
    tensor([ True, False])
    """
    return np.logical_and(x, y)


@primitive
def logical_or(x: Array, y: Array) -> Array:
    """Logical or, as booleans: True where at least one is not 0. For bits see :func:`bitwise_or`.

    >>> import tinygrad_lenet as tl
    >>> tl.logical_or(tl.tensor([False, True]), False)
    tensor([False,  True])
    """
    return np.logical_or(x, y)


@primitive
def logical_not(x: Array) -> Array:
    """Logical not, as booleans: True where ``x`` is 0. For bits see :func:`bitwise_not`.

    >>> import tinygrad_lenet as tl
    >>> tl.logical_not(tl.tensor([True, False]))
    tensor([False,  True])
    """
    return np.logical_not(x)


logical_and.vjp(x=None, y=None)
logical_and.check(draw(3, 2), draw(2))
logical_and.known_as(numpy=np.logical_and, torch="logical_and", onnx="And")
logical_or.vjp(x=None, y=None)
logical_or.check(draw(3, 2), draw(2))
logical_or.known_as(numpy=np.logical_or, torch="logical_or", onnx="Or")
logical_not.vjp(x=None)
logical_not.check(draw(3, 2))
logical_not.known_as(numpy=np.logical_not, torch="logical_not", onnx="Not")


# Bits


def _bits(*values: Any) -> None:
    """Floats have no bits to combine; a single bit of a boolean is its truth."""
    for value in values:
        kind = np.result_type(value)
        if kind.kind not in "iub":
            raise DTypeError(
                f"bits are those of integers and booleans, got {kind}; for truth use logical_and, logical_or or "
                "logical_not, for integers x.astype('int64') (a list of numbers is float32: give an array)"
            )


@primitive
def bitwise_and(x: Array, y: Array) -> Array:
    """The bits that both have, ``x & y``, of integers or booleans; no gradient.

    Raises:
        DTypeError: floats; see :func:`logical_and`.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_and(tl.tensor([6], dtype="int64"), 3), tl.tensor([True, True]) & tl.tensor([True, False])
    (tensor([2], dtype=int64), tensor([ True, False]))
    """
    _bits(x, y)
    return np.bitwise_and(x, y)


bitwise_and.known_as(operator="and", numpy=np.bitwise_and, torch="bitwise_and")


@primitive
def bitwise_or(x: Array, y: Array) -> Array:
    """The bits that at least one has, ``x | y``, of integers or booleans; no gradient.

    Raises:
        DTypeError: floats; see :func:`logical_or`.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_or(tl.tensor([6], dtype="int64"), 3), tl.tensor([False, True]) | False
    (tensor([7], dtype=int64), tensor([False,  True]))
    """
    _bits(x, y)
    return np.bitwise_or(x, y)


bitwise_or.known_as(operator="or", numpy=np.bitwise_or, torch="bitwise_or")


@primitive
def bitwise_xor(x: Array, y: Array) -> Array:
    """The bits that one has and the other has not, ``x ^ y``, of integers or booleans; no gradient.

    Raises:
        DTypeError: floats; of truths, write ``(x != 0) ^ (y != 0)``.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_xor(tl.tensor([6], dtype="int64"), 3), tl.tensor([False, True]) ^ True
    (tensor([5], dtype=int64), tensor([ True, False]))
    """
    _bits(x, y)
    return np.bitwise_xor(x, y)


bitwise_xor.known_as(operator="xor", numpy=np.bitwise_xor, torch="bitwise_xor")


@primitive
def bitwise_not(x: Array) -> Array:
    """All bits inverted, ``~x``: ``-x - 1`` of signed integers, the opposite of booleans; no gradient.

    Raises:
        DTypeError: floats; see :func:`logical_not`.

    >>> import tinygrad_lenet as tl
    >>> tl.bitwise_not(tl.tensor([6], dtype="int64")), ~tl.tensor([True, False])
    (tensor([-7], dtype=int64), tensor([False,  True]))
    """
    _bits(x)
    return np.bitwise_not(x)


for _of_bits in (bitwise_and, bitwise_or, bitwise_xor):
    _of_bits.vjp(x=None, y=None)
    _of_bits.check(np.array([6, -1], np.int32), np.array([[3], [0]], np.int32))
bitwise_not.vjp(x=None)
bitwise_not.check(np.array([6, -1], np.int32))
bitwise_not.known_as(operator="invert", numpy=np.invert, torch="bitwise_not")
