"""Ops that are functions of NumPy. Each is declared by a decorator, and a function without a body.

@ufunc(np.sin, draw(3, 2), onnx="Sin", x=lambda g, x: g * cos(x))
def sin(x: Array) -> Array:
    ...  # only the docstring
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..core.interface import P, Primitive
from ..core.primitive import Array, primitive
from ..core.signature import parameters
from ..kernels.elementwise import ufunc_steps


def ufunc(
    function: Callable[..., Any],
    *case: Any,
    method: bool | None = None,
    operator: str = "",
    numpy: Any = None,
    torch: str = "",
    onnx: Any = None,
    **rules: Any,
) -> Callable[[Callable[P, Array]], Primitive[P]]:
    """Make an op of a NumPy function of ``x``, or of ``x`` and ``y``. The decorated function gives it a name and a
    docstring.

    Args:
        function: computes the result.
        case: the arguments of a test case, see :meth:`Primitive.check`.
        method: whether Tensors have a method of the op's name; by default, if there is no operator.
        operator: Python's operator that calls the op.
        numpy: NumPy's name of the function, if ``function`` only calls it.
        torch: PyTorch's name of the function, if it is not that of the op.
        onnx: see :meth:`Composite.known_as`.
        rules: the rule of each argument, see :meth:`Primitive.vjp`.
    """
    method = not operator if method is None else method

    def unary(x: Array) -> Array:
        return function(x)

    def binary(x: Array, y: Array) -> Array:
        return function(x, y)

    def declare(named: Callable[P, Array]) -> Primitive[P]:
        op: Primitive[P] = primitive(functools.wraps(named)(binary if "y" in parameters(named) else unary))
        op.vjp(**rules)
        op.check(*case)
        if isinstance(function, np.ufunc):
            op.planned(ufunc_steps(function), rows=())
        op.known_as(method=method, operator=operator, numpy=numpy or function, torch=torch or op.__name__, onnx=onnx)
        return op

    return declare
