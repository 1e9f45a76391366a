"""Arithmetic, choice between elements, and copies: elementwise ops, each with its rules. All broadcast as in NumPy.

``mul.vjp(x=..., y=...)`` declares the vector-Jacobian product of each argument; ``None`` says that its gradient is 0.
``mul.check(draw(3, 2), draw(2))`` declares a test case with random arguments. ``mul.known_as(operator="mul", ...)``
makes ``x * y`` call ``mul``. So ``g * y`` in a rule is NumPy's product if both are arrays, and a recorded op if one is
a Tensor. ``ufunc`` declares all of this at once for an op that is a NumPy function.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ..core.primitive import Array, composite, draw, primitive
from ..core.signature import beside
from ..core.tensor import Tensor, as_tensor, tensor_of
from ..core.values import as_dtype
from ..errors import UnsupportedError
from ..kernels.elementwise import copy_steps, ufunc_steps
from ..kernels.masks import mask_bits
from .ufuncs import ufunc

Rounding: TypeAlias = Literal["trunc", "floor"]

# Arithmetic


@ufunc(np.add, draw(3, 2), draw(2), operator="add", onnx="Add", x=lambda g: g, y=lambda g: g)
def add(x: Array, y: Array) -> Array:
    """Sum, ``x + y``. Shapes broadcast, and dtypes are promoted as in NumPy 2: a Python number never makes float64 of a
    float32 tensor.

    Promotion differs from PyTorch's in two ways. Integers beside float32 give float64, and so do functions such as
    :func:`sqrt` of integers; PyTorch gives float32: ``i.astype(x.dtype) + x``. And a tensor without axes promotes like
    any other; in PyTorch, it does not widen others: ``x * y.item()``.

    >>> import tinygrad_lenet as tl
    >>> tl.add(tl.tensor([1.0, 2.0]), 10)
    tensor([11., 12.])
    """


add.check(draw(3, 1), draw(1, 2))


@ufunc(np.subtract, draw(2), draw(3, 2), operator="sub", onnx="Sub", x=lambda g: g, y=lambda g: -g)
def sub(x: Array, y: Array) -> Array:
    """Difference, ``x - y``.

    >>> import tinygrad_lenet as tl
    >>> tl.sub(tl.tensor([1.0, 2.0]), 10)
    tensor([-9., -8.])
    """


@primitive
def mul(x: Array, y: Array) -> Array:
    """Product, ``x * y``, element by element.

    >>> import tinygrad_lenet as tl
    >>> tl.mul(tl.tensor([1.0, 2.0]), 10)
    tensor([10., 20.])
    """
    return np.multiply(x, y)


mul.vjp(x=lambda g, y: g * y, y=lambda g, x: g * x)
mul.check(draw(3, 2), draw(2))
mul.check(draw(2, 1, 2), draw(3, 1))
mul.check(draw(2), 3.0)
mul.planned(ufunc_steps(np.multiply), rows=())
mul.known_as(operator="mul", numpy=np.multiply, torch="mul", onnx="Mul")


@ufunc(np.true_divide, draw(3, 2), draw(2, low=0.5, high=2), operator="truediv", onnx="Div")
def true_divide(x: Array, y: Array) -> Array:
    """Quotient, ``x / y``, a float even if both are integers. Division by zero gives ±inf or NaN, as in NumPy.

    >>> import tinygrad_lenet as tl
    >>> tl.true_divide(tl.tensor([1.0, 2.0]), 4)
    tensor([0.25, 0.5 ])
    """


true_divide.op.name = "div"
true_divide.vjp(x=lambda g, y: g / y, y=lambda g, out, y: -g * out / y)
true_divide.check(1.0, draw(2, low=-2, high=-0.5))


@composite(method=True, torch="div")
def div(x: Array, y: Array, rounding_mode: Rounding | None = None) -> Tensor:
    """Quotient: ``x / y``, :func:`true_divide`; or rounded, ``"trunc"`` towards 0, ``"floor"`` down as ``x // y``.
    Rounded quotients of integers are integers. Their gradient is 0, and not recorded.

    Raises:
        ArgumentError: another ``rounding_mode``.

    >>> import tinygrad_lenet as tl
    >>> tl.div(tl.tensor([7.0, -7.0]), 2), tl.div(tl.tensor([7.0, -7.0]), 2, rounding_mode="trunc")
    (tensor([ 3.5, -3.5]), tensor([ 3., -3.]))
    """
    if rounding_mode != "trunc":
        return floor_divide(x, y) if rounding_mode else true_divide(x, y)
    x, y = map(as_tensor, beside(x, y))
    if np.result_type(x.dtype, y.dtype).kind == "f":
        q = true_divide(x, y)
        return where(q < 0, ceil(q), floor(q))
    q = floor_divide(x, y)
    return add(q, ((q < 0) & (q * y != x)).astype(q.dtype))


@ufunc(lambda x: np.true_divide(1, x), draw(3, 2, low=0.5, high=2), numpy=np.reciprocal, onnx="Reciprocal")
def reciprocal(x: Array) -> Array:
    """Reciprocal, ``1 / x``, a float even for integers; ±inf at ±0.

    >>> import tinygrad_lenet as tl
    >>> tl.reciprocal(tl.tensor([2.0, -0.5]))
    tensor([ 0.5, -2. ])
    """


reciprocal.vjp(x=lambda g, out: -g * out * out)


@ufunc(np.negative, draw(3, 2), operator="neg", onnx="Neg", x=lambda g: -g)
def neg(x: Array) -> Array:
    """Negative, ``-x``.

    >>> import tinygrad_lenet as tl
    >>> tl.neg(tl.tensor([1.0, -2.0]))
    tensor([-1.,  2.])
    """


@ufunc(np.sign, draw(3, 2), onnx="Sign", x=None)
def sign(x: Array) -> Array:
    """Sign of ``x``: -1, 0 or 1; NaN for NaN, as in NumPy (PyTorch gives 0). Its gradient is 0, and not recorded.

    >>> import tinygrad_lenet as tl
    >>> tl.sign(tl.tensor([-3.0, 0.0, 2.0]))
    tensor([-1.,  0.,  1.])
    """


@ufunc(np.floor, draw(3, 2), onnx="Floor", x=None)
def floor(x: Array) -> Array:
    """The largest integer not greater than ``x``. Its gradient is 0, and not recorded.

    >>> import tinygrad_lenet as tl
    >>> tl.floor(tl.tensor([1.7, -1.2]))
    tensor([ 1., -2.])
    """


@ufunc(np.ceil, draw(3, 2), onnx="Ceil", x=None)
def ceil(x: Array) -> Array:
    """The smallest integer not less than ``x``. Its gradient is 0, and not recorded.

    >>> import tinygrad_lenet as tl
    >>> tl.ceil(tl.tensor([1.2, -1.7]))
    tensor([ 2., -1.])
    """


@primitive
def round(x: Array, decimals: int = 0) -> Array:
    """``x`` rounded to ``decimals`` digits after the point, ties to even. Its gradient is 0, and not recorded.

    >>> import tinygrad_lenet as tl
    >>> tl.round(tl.tensor([0.5, 1.5, 2.71])), tl.round(tl.tensor([2.71]), decimals=1)
    (tensor([0., 2., 3.]), tensor([2.7]))
    """
    return np.round(x, decimals)


round.vjp(x=None)
round.check(draw(3, 2))
round.check(draw(3, 2), decimals=1)
round.known_as(method=True, numpy=(np.rint, np.round), torch="round")


_BETWEEN_JUMPS = draw(3, 2, low=-1.3, high=-1.1), draw(2, low=0.8, high=1)


@ufunc(np.floor_divide, *_BETWEEN_JUMPS, method=True, operator="floordiv", x=None, y=None)
def floor_divide(x: Array, y: Array) -> Array:
    """``x // y``, the floor of the exact quotient: integers of integers. Its gradient is 0, and not recorded.

    A float divided by 0 is ±inf or NaN, an integer 0 with NumPy's warning (PyTorch raises an error).

    >>> import tinygrad_lenet as tl
    >>> tl.tensor([7.0, -7.0]) // 2, tl.arange(5) // 2
    (tensor([ 3., -4.]), tensor([0, 0, 1, 1, 2], dtype=int64))
    """


@ufunc(np.mod, draw(3, low=-4.9, high=-4.1), 3.0, method=True, operator="mod", torch="remainder")
def mod(x: Array, y: Array) -> Array:
    """Remainder, ``x - floor(x / y) * y``; NaN for ``y = 0``. Like Python's ``%`` and PyTorch's ``remainder`` it has
    the sign of ``y``.

    Its gradient is 1 for ``x`` and ``-floor(x / y)`` for ``y``, even where it jumps.

    >>> import tinygrad_lenet as tl
    >>> tl.mod(tl.tensor([5.0, -5.0]), 3)
    tensor([2., 1.])
    """


mod.vjp(x=lambda g: g, y=lambda g, x, y: -g * floor_divide(x, y))
mod.check(*_BETWEEN_JUMPS)
mod.known_as(onnx=lambda g, t, x, y: g.node("Sub", x, g.node("Mul", y, g.node("Floor", g.node("Div", x, y)))))


# Choice


@primitive
def select(x: Array, mask: Array, when: bool = True) -> Array:
    """``x`` where the mask equals ``when``, 0 elsewhere, even if ``x`` is inf or NaN. Rules mask gradients by it."""
    return mask_bits(np.asarray(x), np.asarray(mask, np.bool_), when)


select.vjp(x=lambda g, mask, when: select(g, mask, when), mask=None)
select.planned(rows=())
select.check(draw(3, 2), np.array([True, False]))
select.check(draw(3, 2), np.array([True, False]), when=False)


@primitive
def where(condition: Array, x: Array, y: Array) -> Array:
    """``x`` where the condition is true, ``y`` elsewhere; all three broadcast.

    The branch that is not taken gets the gradient 0, and NaN or inf in it does not reach the result. But the op that
    computed the branch multiplies this 0 by its own derivative. If that is infinite or NaN, the product is NaN, as in
    PyTorch. To avoid it, use a second ``where`` inside: give the op harmless values where its result is not used.

    >>> import tinygrad_lenet as tl
    >>> tl.where(tl.tensor([True, False]), tl.tensor([1.0, 2.0]), 0.0)
    tensor([1., 0.])
    >>> x = tl.tensor([-1.0, 4.0], requires_grad=True)
    >>> y = tl.where(x > 0, tl.sqrt(tl.where(x > 0, x, 1.0)), x)  # with tl.sqrt(x), NaN at -1
    >>> tl.grad(y.sum(), x)
    (tensor([1.  , 0.25]),)
    """
    return np.where(condition, x, y)


where.vjp(condition=None)
where.vjp(x=lambda g, condition: select(g, condition), y=lambda g, condition: select(g, condition, False))
where.check(np.array([True, False]), draw(3, 2), draw(2))
where.known_as(numpy=np.where, torch="where")


@ufunc(np.abs, draw(3, 2), method=True, operator="abs", numpy=(np.absolute, np.fabs), onnx="Abs")
def abs(x: Array) -> Array:
    """Absolute value, ``|x|``. Its gradient is 0 at 0 and at NaN, as in PyTorch.

    >>> import tinygrad_lenet as tl
    >>> tl.abs(tl.tensor([-3.0, 2.0]))
    tensor([3., 2.])
    """


abs.vjp(x=lambda g, x: g * select(sign(x), x == x))


@ufunc(np.maximum, draw(3, 2), draw(2, low=-0.9), onnx="Max")
def maximum(x: Array, y: Array) -> Array:
    """The larger of ``x`` and ``y``. Equal elements share the gradient equally. If either is NaN, the result is NaN and
    both get the gradient, as in PyTorch.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = tl.maximum(x, 2.0)
    >>> y.sum().backward()
    >>> y.detach(), x.grad
    (tensor([2., 2., 3.]), tensor([0. , 0.5, 1. ]))
    """


@ufunc(np.minimum, draw(3, 2), draw(2, low=-0.9), onnx="Min")
def minimum(x: Array, y: Array) -> Array:
    """The smaller of ``x`` and ``y``. Equal elements share the gradient equally. If either is NaN, the result is NaN
    and both get the gradient, as in PyTorch.

    >>> import tinygrad_lenet as tl
    >>> tl.minimum(tl.tensor([1.0, 2.0, 3.0]), 2.0)
    tensor([1., 2., 2.])
    """


def _winner(g: Any, loses: Any, ties: Any) -> Any:
    """Return the gradient of one of two competing elements: 0 where it loses, half where they tie, else all."""
    return where(ties, g * 0.5, select(g, loses, False))


maximum.vjp(x=lambda g, x, y: _winner(g, x < y, x == y), y=lambda g, x, y: _winner(g, y < x, x == y))
minimum.vjp(x=lambda g, x, y: _winner(g, x > y, x == y), y=lambda g, x, y: _winner(g, y > x, x == y))


@primitive
def clip(x: Array, min: Array | None = None, max: Array | None = None) -> Array:
    """``x`` limited to ``min … max``; None means no limit, and NaN stays. The bounds may be tensors, which broadcast.
    If ``min`` is above ``max``, the result is ``max``. A bound of one number does not change the dtype of floats.

    As in PyTorch, the gradient goes to ``x`` where ``min <= x <= max``, to ``min`` where ``x < min < max``, and to
    ``max`` where ``x > max`` or ``min > max``.

    >>> import tinygrad_lenet as tl
    >>> tl.clip(tl.tensor([-2.0, 0.5, 3.0]), -1, 1)
    tensor([-1. ,  0.5,  1. ])
    >>> tl.clip(tl.tensor([-2.0, 0.5, 3.0]), max=tl.tensor([0.0, 1.0, 2.0]))
    tensor([-2. ,  0.5,  2. ])
    """
    limits = [b.item() if isinstance(b, (np.ndarray, np.generic)) and not b.ndim else b for b in (min, max)]
    return np.array(x) if min is max is None else x.clip(*limits)  # NumPy before 2.1 requires one limit


clip.vjp(
    x=lambda g, x, min, max: select(g, (min is None or x >= min) & (max is None or x <= max)),
    min=lambda g, x, min, max: select(g, (x < min) & (True if max is None else min < max)),
    max=lambda g, x, min, max: select(g, (x > max) | (False if min is None else min > max)),
)
clip.check(draw(3, 2), -0.4, 0.6)
clip.check(draw(3, 2), min=0.15)
clip.check(draw(3, 2), draw(2, low=-0.4, high=-0.3), draw(3, 1, low=0.3, high=0.4))
clip.known_as(method=True, numpy=np.clip, torch="clip")
clip.known_as(name="clamp", method=True, torch="clamp")
clamp = clip


@composite(method=True, torch="masked_fill")
def masked_fill(x: Array, mask: Array, value: Array) -> Tensor:
    """A copy of ``x``, in its dtype, with ``value`` where the mask is true; all three broadcast. The value gets the sum
    of the gradients there.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> x.masked_fill(x > 2, -float("inf"))
    tensor([[  1.,   2.],
            [-inf, -inf]])
    """
    x = as_tensor(x)
    return where(mask, tensor_of("value", value, x.dtype).astype(x.dtype), x)


# Copies


@primitive
def clone(x: Array) -> Array:
    """Copy of ``x`` in its own memory. Gradients flow through it.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.0], requires_grad=True)
    >>> tl.clone(x).backward()
    >>> x.grad
    tensor([1.])
    """
    return np.array(x)


clone.planned(copy_steps, rows=())
clone.vjp(x=lambda g: g)
clone.check(draw(3, 2))
clone.known_as(method=True, operator="pos", numpy=(np.positive, np.copy), torch="clone", onnx="Identity")


@primitive
def cast(x: Array, dtype: DTypeLike, order: str = "K") -> Array:
    """``x`` in another float dtype. The engine gives its gradient the dtype of ``x``."""
    return np.asarray(x).astype(as_dtype(dtype), order)  # type: ignore[call-overload]  # one of NumPy's letters


cast.planned(copy_steps, rows=())
cast.vjp(x=lambda g: g)
cast.check(draw(3, 2), np.float64)


@composite(method=True, torch="Tensor.to")
def astype(x: Tensor, dtype: DTypeLike) -> Tensor:
    """``x`` in another dtype. Gradients flow between floats only: integers and booleans have none.

    Raises:
        DTypeError: a tensor cannot have that dtype.

    >>> import tinygrad_lenet as tl
    >>> tl.tensor([1.7, -2.0]).astype("int64")
    tensor([ 1, -2], dtype=int64)
    """
    target = as_dtype(dtype)
    return cast(x if target.kind == "f" or not isinstance(x, Tensor) else x.detach(), target)


# PyTorch's words for these. If there is nothing to change, they return the tensor itself, as PyTorch's do: a leaf stays
# a leaf, with its ``.grad``.


@composite(view=True, method=True, torch="Tensor.to")
def to(
    x: Tensor, *target: Any, dtype: Any = None, device: Any = "cpu", non_blocking: bool = False, copy: bool = False
) -> Tensor:
    """``x`` in another dtype, or ``x`` itself if that is its dtype already; PyTorch's ``Tensor.to``.

    The dtype may be ``tl.float32``, NumPy's, a word, or a tensor that has it. The only device is ``"cpu"``. Gradients
    flow between floats.

    Args:
        x: a tensor.
        target: a dtype, a device, both, or a tensor.
        dtype: the dtype, by name.
        device: the device, by name.
        non_blocking: has no effect.
        copy: return a copy even if the dtype is the same.

    Raises:
        DTypeError: a tensor cannot have that dtype.
        UnsupportedError: a device other than the CPU.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([1.5, -2.0])
    >>> x.to("int64"), x.to(tl.zeros(1, dtype="float64"))
    (tensor([ 1, -2], dtype=int64), tensor([ 1.5, -2. ], dtype=float64))
    >>> x.to("cpu") is x
    True
    """
    for word in (device, *target):
        if isinstance(word, Tensor):
            dtype = word.dtype
        elif str(word).startswith(("cuda", "mps", "xpu")):
            raise UnsupportedError(f"everything runs on the CPU; leave out {word!r}")
        elif str(word) != "cpu":
            dtype = word
    same = dtype is None or as_dtype(dtype) == x.dtype
    return x if same and not copy else astype(x, x.dtype if same else dtype)


@composite(view=True, method=True, torch="Tensor.contiguous")
def contiguous(x: Tensor) -> Tensor:
    """``x`` itself if its elements are in row-major order in memory, else a copy that is; PyTorch's word.

    >>> import tinygrad_lenet as tl
    >>> x = tl.zeros(2, 3)
    >>> x.contiguous() is x, x.T.contiguous().numpy().flags.c_contiguous
    (True, True)
    """
    return x if x._data.flags.c_contiguous else cast(x, x.dtype, "C")


def _converter(word: str, target: str) -> None:
    """Declare the method ``x.word()``."""

    def convert(x: Tensor) -> Tensor:
        return to(x, target)

    convert.__name__ = convert.__qualname__ = word
    convert.__doc__ = f"``x.to({target!r})``: ``x`` itself if there is nothing to change; see :meth:`to`."
    composite(view=True, method=True, torch=f"Tensor.{word}")(convert)


_WORDS = "cpu=cpu float=float32 double=float64 half=float16 int=int32 long=int64 bool=bool"
for _pair in _WORDS.split():
    _converter(*_pair.split("="))
