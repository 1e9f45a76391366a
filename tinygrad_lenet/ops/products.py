"""The matrix product, and the affine map of a dense layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.primitive import Array, draw, primitive
from ..errors import ShapeError
from ..kernels import matmul as fast
from ..kernels import memory
from ..kernels.matmul import dot, fixed, rows
from ..kernels.steps import but_for_half, computed
from ..kernels.sums import single


@primitive
def matmul(x: Array, y: Array) -> Array:
    """The matrix product ``x @ y`` as in NumPy: (..., n, k) times (..., k, m) is (..., n, m).

    Leading axes broadcast. A vector is a row on the left and a column on the right.

    Raises:
        ShapeError: the inner lengths differ, or an operand has no axes.

    >>> import tinygrad_lenet as tl
    >>> tl.matmul(tl.tensor([[1, 2], [3, 4]]), tl.tensor([1, 10]))
    tensor([21., 43.])
    """
    inner = -2 if y.ndim > 1 else 0
    if x.ndim and y.ndim and x.shape[-1] != y.shape[inner]:
        fault = f"axis -1 of x has length {x.shape[-1]}, axis {inner} of y {y.shape[inner]}"
        raise ShapeError(f"{x.shape} @ {y.shape} does not fit: {fault}")
    return dot(x, y) if x.ndim == y.ndim == 2 else np.matmul(x, y)


def _as_matrices(g: Any, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> Any:
    """The gradient with the axes of length 1 that matmul dropped for vectors."""
    shape = g.shape
    if len(y_shape) == 1:
        shape = (*shape, 1)
    if len(x_shape) == 1:
        shape = (*shape[:-1], 1, shape[-1])
    return g.reshape(shape)


def swapped(x: Any) -> Any:
    """Swap the last two axes."""
    return x.transpose((*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2))


def _matmul_x(g: Any, x_shape: tuple[int, ...], y: Any) -> Any:
    g = _as_matrices(g, x_shape, y.shape)
    dx = matmul(g, swapped(y) if len(y.shape) > 1 else y.reshape(1, -1))
    return dx.reshape((*dx.shape[:-2], dx.shape[-1])) if len(x_shape) == 1 else dx


def _matmul_y(g: Any, x: Any, y_shape: tuple[int, ...]) -> Any:
    g = _as_matrices(g, x.shape, y_shape)
    dy = matmul(swapped(x) if len(x.shape) > 1 else x.reshape(-1, 1), g)
    return dy.reshape(dy.shape[:-1]) if len(y_shape) == 1 else dy


matmul.vjp(x=_matmul_x, y=_matmul_y)
matmul.check(draw(3, 4), draw(4, 2))
matmul.check(draw(4), draw(4))
matmul.check(draw(4), draw(2, 4, 3))
matmul.check(draw(2, 3, 4), draw(4))
matmul.check(draw(5, 1, 3, 4), draw(2, 4, 2))
matmul.planned(but_for_half(fast.matmul_steps))
matmul.known_as(method=True, operator="matmul", numpy=np.matmul, torch="matmul", onnx="MatMul")
for _name in ("mm", "bmm"):
    matmul.known_as(name=_name, method=True, torch=_name)
mm = bmm = matmul  # PyTorch's names of it for matrices, and for batches of matrices


@primitive
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """The affine map ``x @ weight.T + bias``, PyTorch's ``linear``.

    Args:
        x: (..., in_features)
        weight: (out_features, in_features)
        bias: (out_features,), or None

    Returns:
        (..., out_features), in the memory layout of ``x``: a batch that is innermost in memory remains innermost.

    Raises:
        ShapeError: the shape of the weight or of the bias does not fit.

    >>> import tinygrad_lenet as tl
    >>> tl.linear(tl.ones(2, 3), tl.ones(4, 3), tl.zeros(4)).shape
    (2, 4)
    """
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[1:]:
        n = weight.shape[1] if weight.ndim == 2 else "in_features"
        raise ShapeError(f"expected x (..., {n}) and a weight (out_features, {n}), got {x.shape} and {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"weight of shape {weight.shape} needs a bias of shape {weight.shape[:1]}, got {bias.shape}")
    dtype = np.result_type(x, weight) if bias is None else np.result_type(x, weight, bias)
    if x.dtype == weight.dtype == np.float16:
        wide: Array = linear.op.forward(single(x), single(weight), None if bias is None else single(bias))
        return wide.astype(dtype)
    shape = *x.shape[:-1], len(weight)
    out = memory.empty(shape[::-1], dtype).T if fast.batch_innermost(x) else memory.empty(shape, dtype)
    result, a = (out, x) if x.ndim == 2 else (rows(out), rows(x))
    computed(fast.linear_steps, result, a, weight, bias)
    return out


@primitive
def _linear_weight_grad(g: Array, x: Array) -> Array:
    """The gradient of :func:`linear` with respect to its weight: the sum over the batch of ``g`` times ``x``."""
    return dot(rows(g).T, rows(x))


linear.vjp(x=lambda g, weight: linear(g, weight.T), weight=lambda g, x: _linear_weight_grad(g, x), bias=lambda g: g)
_linear_weight_grad.vjp(g=lambda g_, x: linear(x, g_), x=lambda g_, g: linear(g, g_.T))
linear.planned(
    lambda out, room, x, *w: fast.linear_steps(rows(out), room, rows(x), *w) if fixed(x) else None, rows=(0,)
)
_linear_weight_grad.planned(
    lambda out, room, g, x: fast.dot_steps(out, room, rows(g).T, rows(x)) if fixed(g) and fixed(x) else None,
    added=(0, 1),
)
_linear_weight_grad.check(draw(3, 2), draw(3, 4))
_linear_weight_grad.check(draw(2, 3, 2), draw(2, 3, 4))
linear.check(draw(3, 4), draw(2, 4), draw(2))
linear.check(draw(2, 3, 4), draw(2, 4))
linear.check(draw(4), draw(2, 4), draw(2))
linear.known_as(torch="nn.functional.linear")
