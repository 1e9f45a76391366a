"""Powers, exponentials, logarithms and angles, elementwise, each with its derivative beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.primitive import Array, draw, primitive
from .elementwise import select, where


@primitive
def pow(x: Array, y: Array) -> Array:
    """Power, ``x ** y``; NaN for a negative base with a fractional exponent.

    The gradient of ``x ** 0`` is 0 everywhere, and at ``x = 0`` the gradient for ``y`` of 0 or more is 0, as in
    PyTorch. Powers of -inf are those of C (PyTorch's gradient of ``(-inf) ** 0.5`` is NaN, here it is 0).

    >>> import tinygrad_lenet as tl
    >>> tl.pow(tl.tensor([1.0, 2.0, 3.0]), 2), tl.pow(2, tl.tensor([-1.0]))
    (tensor([1., 4., 9.]), tensor([0.5]))
    """
    return x**y


def _pow_x(g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)):  # stays a Python number, which widens nothing
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


@primitive
def square(x: Array) -> Array:
    """Square, ``x * x``.

    >>> import tinygrad_lenet as tl
    >>> tl.square(tl.tensor([-3.0, 2.0]))
    tensor([9., 4.])
    """
    return np.square(x)


square.vjp(x=lambda g, x: 2 * g * x)
square.check(draw(3, 2))
square.known_as(method=True, numpy=np.square, torch="square", onnx=lambda g, t, x: g.node("Mul", x, x))


@primitive
def sqrt(x: Array) -> Array:
    """Square root; NaN below 0. Its derivative is half of the reciprocal of itself, so its gradient at 0 is inf.

    >>> import tinygrad_lenet as tl
    >>> tl.sqrt(tl.tensor([4.0, 9.0]))
    tensor([2., 3.])
    """
    return np.sqrt(x)


sqrt.vjp(x=lambda g, out: g / (2 * out))
sqrt.check(draw(3, 2, low=0.5, high=2))
sqrt.known_as(method=True, numpy=np.sqrt, torch="sqrt", onnx="Sqrt")


@primitive
def exp(x: Array) -> Array:
    """Exponential, ``e^x``; inf from 88.73 on in float32, from 709.79 on in float64. It is its own derivative.

    >>> import tinygrad_lenet as tl
    >>> tl.exp(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.    , 2.7183])
    """
    return np.exp(x)


exp.vjp(x=lambda g, out: g * out)
exp.check(draw(3, 2))
exp.known_as(method=True, numpy=np.exp, torch="exp", onnx="Exp")


@primitive
def log(x: Array) -> Array:
    """Natural logarithm; -inf at 0, NaN below. Its derivative is ``1 / x``.

    >>> import tinygrad_lenet as tl
    >>> tl.log(tl.tensor([1.0, 10.0])).round(4)
    tensor([0.    , 2.3026])
    """
    return np.log(x)


log.vjp(x=lambda g, x: g / x)
log.check(draw(3, 2, low=0.5, high=2))
log.known_as(method=True, numpy=np.log, torch="log", onnx="Log")


@primitive
def sin(x: Array) -> Array:
    """Sine of an angle in radians; NaN at ±inf. Its derivative is the cosine.

    >>> import tinygrad_lenet as tl
    >>> tl.sin(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 0.8415])
    """
    return np.sin(x)


@primitive
def cos(x: Array) -> Array:
    """Cosine of an angle in radians; NaN at ±inf. Its derivative is ``-sin(x)``.

    >>> import tinygrad_lenet as tl
    >>> tl.cos(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.    , 0.5403])
    """
    return np.cos(x)


sin.vjp(x=lambda g, x: g * cos(x))
sin.check(draw(3, 2))
sin.known_as(method=True, numpy=np.sin, torch="sin", onnx="Sin")
cos.vjp(x=lambda g, x: -g * sin(x))
cos.check(draw(3, 2))
cos.known_as(method=True, numpy=np.cos, torch="cos", onnx="Cos")


@primitive
def tan(x: Array) -> Array:
    """Tangent of an angle in radians, the sine over the cosine; its derivative is 1 plus its square.

    >>> import tinygrad_lenet as tl
    >>> tl.tan(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 1.5574])
    """
    return np.tan(x)


tan.vjp(x=lambda g, out: g * (1 + out * out))
tan.check(draw(3, 2))
tan.known_as(method=True, numpy=np.tan, torch="tan", onnx="Tan")


@primitive
def arcsin(x: Array) -> Array:
    """Inverse sine, an angle in radians between -pi/2 and pi/2; NaN outside of -1 … 1. Its gradient at ±1 is inf.

    >>> import tinygrad_lenet as tl
    >>> tl.arcsin(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 1.5708])
    """
    return np.arcsin(x)


@primitive
def arccos(x: Array) -> Array:
    """Inverse cosine, an angle in radians between 0 and pi; NaN outside of -1 … 1. Its gradient at ±1 is -inf.

    >>> import tinygrad_lenet as tl
    >>> tl.arccos(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.5708, 0.    ])
    """
    return np.arccos(x)


@primitive
def arctan(x: Array) -> Array:
    """Inverse tangent, an angle in radians between -pi/2 and pi/2, with the derivative ``1 / (1 + x^2)``.

    >>> import tinygrad_lenet as tl
    >>> tl.arctan(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 0.7854])
    """
    return np.arctan(x)


# (1 - x) (1 + x) and not 1 - x^2, which loses digits near 1
arcsin.vjp(x=lambda g, x: g / sqrt((1 - x) * (1 + x)))
arcsin.check(draw(3, 2, low=-0.8, high=0.8))
arcsin.known_as(method=True, numpy=np.arcsin, torch="arcsin", onnx="Asin")
arccos.vjp(x=lambda g, x: -g / sqrt((1 - x) * (1 + x)))
arccos.check(draw(3, 2, low=-0.8, high=0.8))
arccos.known_as(method=True, numpy=np.arccos, torch="arccos", onnx="Acos")
arctan.vjp(x=lambda g, x: g / (1 + x * x))
arctan.check(draw(3, 2, low=-2, high=2))
arctan.known_as(method=True, numpy=np.arctan, torch="arctan", onnx="Atan")


@primitive
def sinh(x: Array) -> Array:
    """Hyperbolic sine, ``(e^x - e^-x) / 2``; its derivative is ``cosh(x)``.

    >>> import tinygrad_lenet as tl
    >>> tl.sinh(tl.tensor([0.0, 1.0])).round(4)
    tensor([0.    , 1.1752])
    """
    return np.sinh(x)


@primitive
def cosh(x: Array) -> Array:
    """Hyperbolic cosine, ``(e^x + e^-x) / 2``; its derivative is ``sinh(x)``.

    >>> import tinygrad_lenet as tl
    >>> tl.cosh(tl.tensor([0.0, 1.0])).round(4)
    tensor([1.    , 1.5431])
    """
    return np.cosh(x)


sinh.vjp(x=lambda g, x: g * cosh(x))
sinh.check(draw(3, 2))
sinh.known_as(method=True, numpy=np.sinh, torch="sinh", onnx="Sinh")
cosh.vjp(x=lambda g, x: g * sinh(x))
cosh.check(draw(3, 2))
cosh.known_as(method=True, numpy=np.cosh, torch="cosh", onnx="Cosh")


@primitive
def expm1(x: Array) -> Array:
    """``e^x - 1``, with all digits near 0, where :func:`exp` loses them.

    >>> import tinygrad_lenet as tl
    >>> tl.expm1(tl.tensor([1e-8])), tl.exp(tl.tensor([1e-8])) - 1
    (tensor([1.e-08]), tensor([0.]))
    """
    return np.expm1(x)


expm1.vjp(x=lambda g, x: g * exp(x))
expm1.check(draw(3, 2))
expm1.known_as(method=True, numpy=np.expm1, torch="expm1", onnx=lambda g, t, x: g.node("Sub", g.node("Exp", x), t(1)))


@primitive
def log1p(x: Array) -> Array:
    """``log(1 + x)``, with all digits near 0; -inf at -1, NaN below.

    >>> import tinygrad_lenet as tl
    >>> tl.log1p(tl.tensor([1e-8])), tl.log(1 + tl.tensor([1e-8]))
    (tensor([1.e-08]), tensor([0.]))
    """
    return np.log1p(x)


log1p.vjp(x=lambda g, x: g / (1 + x))
log1p.check(draw(3, 2, low=-0.5, high=2))
log1p.known_as(method=True, numpy=np.log1p, torch="log1p", onnx=lambda g, t, x: g.node("Log", g.node("Add", x, t(1))))


@primitive
def log2(x: Array) -> Array:
    """Logarithm to base 2; -inf at 0, NaN below. Its derivative is ``1 / (x log(2))``.

    >>> import tinygrad_lenet as tl
    >>> tl.log2(tl.tensor([1.0, 8.0]))
    tensor([0., 3.])
    """
    return np.log2(x)


@primitive
def log10(x: Array) -> Array:
    """Logarithm to base 10; -inf at 0, NaN below. Its derivative is ``1 / (x log(10))``.

    >>> import tinygrad_lenet as tl
    >>> tl.log10(tl.tensor([1.0, 100.0])).round(4)
    tensor([0., 2.])
    """
    return np.log10(x)


log2.vjp(x=lambda g, x: g * (1 / math.log(2)) / x)
log2.check(draw(3, 2, low=0.5, high=2))
log2.known_as(
    method=True, numpy=np.log2, torch="log2", onnx=lambda g, t, x: g.node("Div", g.node("Log", x), t(math.log(2)))
)
log10.vjp(x=lambda g, x: g * (1 / math.log(10)) / x)
log10.check(draw(3, 2, low=0.5, high=2))
log10.known_as(
    method=True, numpy=np.log10, torch="log10", onnx=lambda g, t, x: g.node("Div", g.node("Log", x), t(math.log(10)))
)


@primitive
def hypot(x: Array, y: Array) -> Array:
    """``sqrt(x^2 + y^2)`` without overflow; its gradient at (0, 0) is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.hypot(tl.tensor([3.0, 3e30]), tl.tensor([4.0, 4e30]))
    tensor([5.e+00, 5.e+30])
    """
    return np.hypot(x, y)


hypot.vjp(x=lambda g, out, x: g * (x / where(out == 0, 1, out)), y=lambda g, out, y: g * (y / where(out == 0, 1, out)))
hypot.check(draw(3, 2), draw(2))
hypot.known_as(
    method=True,
    numpy=np.hypot,
    torch="hypot",
    onnx=lambda g, t, x, y: g.node("Sqrt", g.node("Add", g.node("Mul", x, x), g.node("Mul", y, y))),
)


# e^(a^2 / 2) times the normal distribution's share above a >= 0, over t = 8 / (a + 4): a polynomial in t - 1, highest
# power first, interpolated at Chebyshev's nodes with 50 digits; exact to 1.8e-9, and to 1e-15.
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
# erf(x) / x, a polynomial in x^2: Maclaurin's series (Abramowitz & Stegun, 7.1.5). For float32 the last eleven.
_ERF = tuple(2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(18, -1, -1))


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    """Horner's rule, highest power first."""
    out = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        out *= x
        out += coefficient
    return out


def tail(a: Array) -> Array:
    """``e^(a^2 / 2)`` times the share of the standard normal distribution above ``a``, for 0 and more."""
    t = 8 / (a + 4)
    return t * _polynomial(t - 1, _TAIL_SINGLE if a.dtype.itemsize < 8 else _TAIL)


@primitive
def bell(x: Array, rate: float) -> Array:
    """``e^(-rate x^2)``, with all digits far out too: ``x`` in two parts, the square of the first being exact."""
    a = np.minimum(np.abs(x), 40)  # beyond, it is 0
    near = np.rint(a * 64) / 64
    return np.exp(near * near * -rate) * np.exp((a - near) * (a + near) * -rate)


bell.vjp(x=lambda g, out, x, rate: g * out * x * (-2 * rate))
bell.check(draw(3, 2), 0.7)
bell.known_as(onnx=lambda g, t, x, rate: g.node("Exp", g.node("Neg", g.node("Mul", t(rate), g.node("Mul", x, x)))))


@primitive
def erf(x: Array) -> Array:
    """Error function, ``2 / sqrt(pi)`` times the integral of ``e^(-t^2)`` from 0 to ``x``; exact to 3 units in the last
    place.

    >>> import tinygrad_lenet as tl
    >>> tl.erf(tl.tensor([-10.0, 0.0, 0.5]))
    tensor([-1.       ,  0.       ,  0.5204999])
    """
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    single = dtype.itemsize < 8
    a = np.minimum(np.abs(x.astype(np.float32 if single else np.float64)), 6)
    b = np.minimum(a, 1)
    near = b * _polynomial(b * b, _ERF[-11:] if single else _ERF)
    far = 1 - 2 * np.exp(-a * a) * tail(a * math.sqrt(2))
    return np.copysign(np.where(a < 1, near, far), x).astype(dtype)


erf.vjp(x=lambda g, x: g * (2 / math.sqrt(math.pi)) * bell(x, 1.0))
erf.check(draw(3, 2))
erf.check(draw(3, 2, low=-2.5, high=2.5))
erf.known_as(method=True, torch="erf", onnx="Erf")
