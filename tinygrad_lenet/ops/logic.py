"""Truth values, and the bits of integers: Python's ``&``, ``|``, ``^`` and ``~``."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.primitive import Array, draw, primitive
from ..errors import DTypeError

__all__ = ["bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "logical_and", "logical_not", "logical_or"]


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
logical_or.vjp(x=None, y=None)
logical_or.check(draw(3, 2), draw(2))
logical_not.vjp(x=None)
logical_not.check(draw(3, 2))


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
