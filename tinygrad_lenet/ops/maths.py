"""Powers, exponentials, logarithms and angles, elementwise, each with its derivative beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..primitive import Array, draw, primitive
from .elementwise import select, where

__all__ = ["cos", "exp", "log", "pow", "sin", "sqrt", "square"]


@primitive
def pow(x: Array, y: Array) -> Array:
    """Power, ``x ** y``; NaN for a negative base with a fractional exponent.

    The gradient of ``x ** 0`` is 0 everywhere, and at ``x = 0`` the gradient for ``y`` is 0, as in PyTorch.
    """
    return x**y


def _pow_x(g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)):  # stays a Python number, which widens nothing
        return g * y * x ** (y - 1) if y else select(g, np.False_)
    return select(g * y * where(y == 0, 1, x) ** where(y == 0, 1, y - 1), y != 0)


def _pow_y(g: Any, out: Any, x: Any) -> Any:
    if isinstance(x, (int, float)):
        return g * out * (math.log(x) if x > 0 else 0.0 if x == 0 else math.nan)
    return g * out * log(where(x == 0, 1, x))


pow.vjp(x=_pow_x, y=_pow_y)
pow.check(draw(3, 2, low=0.5, high=2), draw(2))
pow.check(draw(3), 2)
pow.check(draw(3), 0)
pow.check(draw(3, low=0.5, high=2), -1.5)
pow.check(2.0, draw(3))


@primitive
def square(x: Array) -> Array:
    """Square, ``x * x``."""
    return np.square(x)


square.vjp(x=lambda g, x: 2 * g * x)
square.check(draw(3, 2))


@primitive
def sqrt(x: Array) -> Array:
    """Square root; its gradient at 0 is inf."""
    return np.sqrt(x)


sqrt.vjp(x=lambda g, out: g / (2 * out))
sqrt.check(draw(3, 2, low=0.5, high=2))


@primitive
def exp(x: Array) -> Array:
    """Exponential, ``e ** x``."""
    return np.exp(x)


exp.vjp(x=lambda g, out: g * out)
exp.check(draw(3, 2))


@primitive
def log(x: Array) -> Array:
    """Natural logarithm."""
    return np.log(x)


log.vjp(x=lambda g, x: g / x)
log.check(draw(3, 2, low=0.5, high=2))


@primitive
def sin(x: Array) -> Array:
    """Sine of an angle in radians."""
    return np.sin(x)


@primitive
def cos(x: Array) -> Array:
    """Cosine of an angle in radians."""
    return np.cos(x)


sin.vjp(x=lambda g, x: g * cos(x))
sin.check(draw(3, 2))
cos.vjp(x=lambda g, x: -g * sin(x))
cos.check(draw(3, 2))
