"""Powers, exponentials, logarithms, trigonometric and hyperbolic functions, elementwise, with their derivatives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor
from .elementwise import reciprocal, select, where
from .ufuncs import ufunc


@primitive
def pow(x: Array, y: Array) -> Array:
    """Power, ``x ** y``; NaN for a negative base with a fractional exponent.

    As in PyTorch, the gradient of ``x ** 0`` is 0 everywhere, and at ``x = 0`` the gradient for ``y >= 0`` is 0. Powers
    of -inf follow ``pow`` of C (the gradient of ``(-inf) ** 0.5`` is 0; PyTorch: NaN).

    >>> import tinygrad_lenet as tl
    >>> tl.pow(tl.tensor([1.0, 2.0, 3.0]), 2), tl.pow(2, tl.tensor([-1.0]))
    (tensor([1., 4., 9.]), tensor([0.5]))
    """
    return x**y


def _pow_x(g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)):  # a Python number changes no dtype
        return g * y * x ** (y - 1) if y else select(g, np.False_)
    return select(g * y * where(y == 0, 1, x) ** where(y == 0, 1, y - 1), y != 0)


def _pow_y(g: Any, out: Any, x: Any, y: Any) -> Any:
    if isinstance(x, (int, float)) and x:
        return g * out * (math.log(x) if x > 0 else math.nan)
    flat = (x == 0) & (y >= 0)
    return g * select(out * log(where(flat, 1, x)), flat, False)


pow.vjp(x=_pow_x, y=_pow_y)
pow.check(draw(3, 2, low=0.5, high=2), draw(2))
pow.check(draw(3), 2)
pow.check(draw(3), 0)
pow.check(draw(3, low=0.5, high=2), -1.5)
pow.check(2.0, draw(3))
pow.known_as(method=True, operator="pow", numpy=np.power, torch="pow", onnx="Pow")


@ufunc(np.square, draw(3, 2), onnx=lambda g, t, x: g.node("Mul", x, x), x=lambda g, x: 2 * g * x)
def square(x: Array) -> Array:
    """Square, ``x * x``.

    >>> import tinygrad_lenet as tl
    >>> tl.square(tl.tensor([-3.0, 2.0]))
    tensor([9., 4.])
    """


@ufunc(np.sqrt, draw(3, 2, low=0.5, high=2), onnx="Sqrt", x=lambda g, out: g / (2 * out))
def sqrt(x: Array) -> Array:
    """Square root; NaN below 0. Its derivative is ``1 / (2 * out)``, which is inf at 0.

    >>> import tinygrad_lenet as tl
    >>> tl.sqrt(tl.tensor([4.0, 9.0]))
    tensor([2., 3.])
    """


@ufunc(np.exp, draw(3, 2), onnx="Exp", x=lambda g, out: g * out)
def exp(x: Array) -> Array:
    """Exponential, ``e^x``, its own derivative. It overflows to inf above 88.72 in float32, above 709.78 in float64.

    >>> import tinygrad_lenet as tl
    >>> tl.exp(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.    , 2.7183])
    """


@ufunc(np.log, draw(3, 2, low=0.5, high=2), onnx="Log", x=lambda g, x: g / x)
def log(x: Array) -> Array:
    """Natural logarithm; -inf at 0, NaN below. Its derivative is ``1 / x``.

    >>> import tinygrad_lenet as tl
    >>> tl.log(tl.tensor([1.0, 10.0])).round(4)
    tensor([0.    , 2.3026])
    """


@ufunc(np.sin, draw(3, 2), onnx="Sin")
def sin(x: Array) -> Array:
    """Sine of an angle in radians; NaN at ±inf. Its derivative is the cosine.

    >>> import tinygrad_lenet as tl
    >>> tl.sin(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 0.8415])
    """


@ufunc(np.cos, draw(3, 2), onnx="Cos", x=lambda g, x: -g * sin(x))
def cos(x: Array) -> Array:
    """Cosine of an angle in radians; NaN at ±inf. Its derivative is ``-sin(x)``.

    >>> import tinygrad_lenet as tl
    >>> tl.cos(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.    , 0.5403])
    """


sin.vjp(x=lambda g, x: g * cos(x))


@ufunc(np.tan, draw(3, 2), onnx="Tan", x=lambda g, out: g * (1 + out * out))
def tan(x: Array) -> Array:
    """Tangent of an angle in radians. Its derivative is 1 plus its square.

    >>> import tinygrad_lenet as tl
    >>> tl.tan(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 1.5574])
    """


# (1 - x) * (1 + x) in two rules, since 1 - x^2 loses digits near 1.
@ufunc(np.arcsin, draw(3, 2, low=-0.8, high=0.8), onnx="Asin", x=lambda g, x: g / sqrt((1 - x) * (1 + x)))
def arcsin(x: Array) -> Array:
    """Inverse sine, an angle between -pi/2 and pi/2 in radians; NaN outside -1 … 1. Its gradient at ±1 is inf.

    >>> import tinygrad_lenet as tl
    >>> tl.arcsin(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 1.5708])
    """


@ufunc(np.arccos, draw(3, 2, low=-0.8, high=0.8), onnx="Acos", x=lambda g, x: -g / sqrt((1 - x) * (1 + x)))
def arccos(x: Array) -> Array:
    """Inverse cosine, an angle between 0 and pi in radians; NaN outside -1 … 1. Its gradient at ±1 is -inf.

    >>> import tinygrad_lenet as tl
    >>> tl.arccos(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.5708, 0.    ])
    """


@ufunc(np.arctan, draw(3, 2, low=-2, high=2), onnx="Atan", x=lambda g, x: g / (1 + x * x))
def arctan(x: Array) -> Array:
    """Inverse tangent, an angle between -pi/2 and pi/2 in radians. Its derivative is ``1 / (1 + x^2)``.

    >>> import tinygrad_lenet as tl
    >>> tl.arctan(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 0.7854])
    """


@ufunc(np.sinh, draw(3, 2), onnx="Sinh")
def sinh(x: Array) -> Array:
    """Hyperbolic sine, ``(e^x - e^-x) / 2``; its derivative is ``cosh(x)``.

    >>> import tinygrad_lenet as tl
    >>> tl.sinh(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 1.1752])
    """


@ufunc(np.cosh, draw(3, 2), onnx="Cosh", x=lambda g, x: g * sinh(x))
def cosh(x: Array) -> Array:
    """Hyperbolic cosine, ``(e^x + e^-x) / 2``; its derivative is ``sinh(x)``.

    >>> import tinygrad_lenet as tl
    >>> tl.cosh(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.    , 1.5431])
    """


sinh.vjp(x=lambda g, x: g * cosh(x))


@ufunc(np.expm1, draw(3, 2), onnx=lambda g, t, x: g.node("Sub", g.node("Exp", x), t(1)), x=lambda g, x: g * exp(x))
def expm1(x: Array) -> Array:
    """``e^x - 1``, accurate near 0, where subtracting 1 from :func:`exp` loses all digits.

    >>> import tinygrad_lenet as tl
    >>> tl.expm1(tl.tensor([1e-8])), tl.exp(tl.tensor([1e-8])) - 1
    (tensor([1.e-08]), tensor([0.]))
    """


@ufunc(np.log1p, draw(3, 2, low=-0.5, high=2), x=lambda g, x: g / (1 + x))
def log1p(x: Array) -> Array:
    """``log(1 + x)``, accurate near 0; -inf at -1, NaN below.

    >>> import tinygrad_lenet as tl
    >>> tl.log1p(tl.tensor([1e-8])), tl.log(1 + tl.tensor([1e-8]))
    (tensor([1.e-08]), tensor([0.]))
    """


log1p.known_as(onnx=lambda g, t, x: g.node("Log", g.node("Add", x, t(1))))


@ufunc(np.log2, draw(3, 2, low=0.5, high=2), x=lambda g, x: g * (1 / math.log(2)) / x)
def log2(x: Array) -> Array:
    """Logarithm to base 2; -inf at 0, NaN below. Its derivative is ``1 / (x log(2))``.

    >>> import tinygrad_lenet as tl
    >>> tl.log2(tl.tensor([1.0, 8.0]))
    tensor([0., 3.])
    """


@ufunc(np.log10, draw(3, 2, low=0.5, high=2), x=lambda g, x: g * (1 / math.log(10)) / x)
def log10(x: Array) -> Array:
    """Logarithm to base 10; -inf at 0, NaN below. Its derivative is ``1 / (x log(10))``.

    >>> import tinygrad_lenet as tl
    >>> tl.log10(tl.tensor([1.0, 100.0])).round(4)
    tensor([0., 2.])
    """


log2.known_as(onnx=lambda g, t, x: g.node("Div", g.node("Log", x), t(math.log(2))))
log10.known_as(onnx=lambda g, t, x: g.node("Div", g.node("Log", x), t(math.log(10))))


@ufunc(np.hypot, draw(3, 2), draw(2))
def hypot(x: Array, y: Array) -> Array:
    """``sqrt(x^2 + y^2)``, without overflow of the squares. Its gradient at (0, 0) is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.hypot(tl.tensor([3.0, 3e30]), tl.tensor([4.0, 4e30]))
    tensor([5.e+00, 5.e+30])
    """


hypot.vjp(x=lambda g, out, x: g * (x / where(out == 0, 1, out)), y=lambda g, out, y: g * (y / where(out == 0, 1, out)))
hypot.known_as(onnx=lambda g, t, x, y: g.node("Sqrt", g.node("Add", g.node("Mul", x, x), g.node("Mul", y, y))))


@ufunc(np.arctan2, draw(3, 2), draw(2))
def arctan2(x: Array, y: Array) -> Array:
    """The angle of the point with the ordinate ``x`` and the abscissa ``y``, between -pi and pi in radians: the inverse
    tangent of ``x / y`` in the right quadrant. Its gradient at (0, 0) is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.arctan2(tl.tensor([1.0, -1.0]), tl.tensor([-1.0, 0.0])).round(4)
    tensor([ 2.3562, -1.5708])
    """


def _turn(g: Any, other: Any, x: Any, y: Any) -> Any:
    """``g * other / (x^2 + y^2)``, without overflow of the squares."""
    length = hypot(x, y)
    length = where(length == 0, 1, length)
    return g * (other / length) / length


arctan2.vjp(x=lambda g, x, y: _turn(g, y, x, y), y=lambda g, x, y: -_turn(g, x, x, y))


@composite(method=True, torch="rsqrt")
def rsqrt(x: Array) -> Tensor:
    """``1 / sqrt(x)``; inf at 0, NaN below.

    >>> import tinygrad_lenet as tl
    >>> tl.rsqrt(tl.tensor([4.0, 0.25]))
    tensor([0.5, 2. ])
    """
    return reciprocal(sqrt(x))


# e^(a^2 / 2) times the upper tail of the standard normal distribution, over t = 8 / (a + 4): polynomials in t - 1, the
# highest power first, interpolated at Chebyshev nodes with 50 digits. Their errors are 1.8e-9 and 1e-15.
# fmt: off
_TAIL_SINGLE = (
    -2.747380426826457e-06, -2.1574903653617933e-07, 2.7221383206389746e-05,
    1.6705053279243603e-05, -0.00020303095465770988, -0.0004349928782250419,
    0.0009423360974939727, 0.007549580499771941, 0.023315248115966282,
    0.04839217430238919, 0.07598708002659792, 0.09441064131307923,
)
_TAIL = (
    -2.2171756304936384e-10, 1.6057273587406586e-10, 2.0670055969383003e-09,
    -2.4510423926174393e-09, -9.987313440702824e-09, 2.0289897100591957e-08,
    3.327909873604453e-08, -1.2838686008892927e-07, -7.8275859586995e-08,
    7.403724784593451e-07, 8.940921886636019e-08, -4.393205573227981e-06,
    -2.3848843604920944e-07, 2.8886893848460927e-05, 1.6668032362966047e-05,
    -0.00020385231098529554, -0.00043496154536129447, 0.0009425236211421641,
    0.0075495718613453, 0.0233152322449459, 0.048392175092777066,
    0.07598708024648664, 0.09441064130196894,
)
# fmt: on
# erf(x) / x, a polynomial in x^2: the Maclaurin series (Abramowitz & Stegun, 7.1.5). float32 needs the last eleven.
_ERF = tuple(2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(18, -1, -1))


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Evaluate a polynomial by Horner's rule; the coefficient of the highest power comes first."""
    out = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        out *= x
        out += coefficient
    return out


def scaled_tail(a: Array) -> Array:
    """Return ``e^(a^2 / 2)`` times the upper tail of the standard normal distribution, for ``a >= 0``."""
    t = 8 / (a + 4)
    return t * _polynomial(t - 1, _TAIL_SINGLE if a.dtype.itemsize < 8 else _TAIL)


@primitive
def bell(x: Array, rate: float) -> Array:
    """Bell curve, ``e^(-rate x^2)``. It is accurate in its tails: the squared part of ``x`` has an exact square."""
    a = np.minimum(np.abs(x), 40)  # beyond, it is 0
    near = np.rint(a * 64) / 64
    return np.exp(near * near * -rate) * np.exp((a - near) * (a + near) * -rate)


bell.vjp(x=lambda g, out, x, rate: g * out * x * (-2 * rate))
bell.check(draw(3, 2), 0.7)


@primitive
def erf(x: Array) -> Array:
    """Error function, ``2 / sqrt(pi)`` times the integral of ``e^(-t^2)`` from 0 to ``x``. The error is at most 3 units
    in the last place.

    >>> import tinygrad_lenet as tl
    >>> tl.erf(tl.tensor([-10.0, 0.0, 0.5]))
    tensor([-1.       ,  0.       ,  0.5204999])
    """
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    single = dtype.itemsize < 8
    a = np.minimum(np.abs(x.astype(np.float32 if single else np.float64)), 6)
    b = np.minimum(a, 1)
    near = b * _polynomial(b * b, _ERF[-11:] if single else _ERF)
    far = 1 - 2 * np.exp(-a * a) * scaled_tail(a * math.sqrt(2))
    return np.copysign(np.where(a < 1, near, far), x).astype(dtype)


erf.vjp(x=lambda g, x: g * (2 / math.sqrt(math.pi)) * bell(x, 1.0))
erf.check(draw(3, 2))
erf.check(draw(3, 2, low=-2.5, high=2.5))
erf.known_as(method=True, torch="erf", onnx="Erf")
