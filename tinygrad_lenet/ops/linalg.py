"""Products of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError
from ..primitive import Array, draw, primitive


@primitive
def matmul(x: Array, y: Array) -> Array:
    """Matrix product ``x @ y``, as NumPy defines it: leading axes broadcast, a vector on the left is a row, on the
    right a column.
    """
    return np.matmul(x, y)


def _as_matrices(g: Any, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> Any:
    """The gradient with the axes that matmul took away from vectors."""
    shape = g.shape
    if len(y_shape) == 1:
        shape = (*shape, 1)
    if len(x_shape) == 1:
        shape = (*shape[:-1], 1, shape[-1])
    return g.reshape(shape)


def _flip(x: Any) -> Any:
    """Swap the last two axes."""
    return x.transpose((*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2))


def _matmul_x(g: Any, x_shape: tuple[int, ...], y: Any) -> Any:
    g = _as_matrices(g, x_shape, y.shape)
    dx = g @ (_flip(y) if len(y.shape) > 1 else y.reshape(1, -1))
    return dx.reshape((*dx.shape[:-2], dx.shape[-1])) if len(x_shape) == 1 else dx


def _matmul_y(g: Any, x: Any, y_shape: tuple[int, ...]) -> Any:
    g = _as_matrices(g, x.shape, y_shape)
    dy = (_flip(x) if len(x.shape) > 1 else x.reshape(-1, 1)) @ g
    return dy.reshape(dy.shape[:-1]) if len(y_shape) == 1 else dy


matmul.vjp(x=_matmul_x, y=_matmul_y)
matmul.check(draw(3, 4), draw(4, 2))
matmul.check(draw(4), draw(4))
matmul.check(draw(4), draw(2, 4, 3))
matmul.check(draw(2, 3, 4), draw(4))
matmul.check(draw(5, 1, 3, 4), draw(2, 4, 2))


@primitive
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Affine map ``x @ weight.T + bias``, PyTorch's ``linear``.

    Args:
        x: (..., in_features)
        weight: (out_features, in_features)
        bias: (out_features,), or None

    Returns:
        (..., out_features); in memory it lies as ``x`` does, so that a batch which comes feature by feature stays so.

    >>> import tinygrad_lenet as tl
    >>> tl.linear(tl.ones(2, 3), tl.ones(4, 3), tl.zeros(4)).shape
    (2, 4)
    """
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"linear: x of shape {x.shape} needs a weight of shape (out_features, "
            f"{x.shape[-1] if x.ndim else '?'}), got {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(
            f"linear: weight of shape {weight.shape} needs a bias of shape {weight.shape[:1]}, got {bias.shape}"
        )
    if x.ndim == 2 and x.flags.f_contiguous:
        out = np.matmul(weight, x.T)
        if bias is not None:
            out += bias[:, None]
        return out.T
    out = np.matmul(x, weight.T)
    if bias is not None:
        out += bias
    return out


linear.vjp(
    x=lambda g, weight: linear(g, weight.T),
    weight=lambda g, x: g.reshape(-1, g.shape[-1]).T @ x.reshape(-1, x.shape[-1]),
    bias=lambda g: g,
)
linear.check(draw(3, 4), draw(2, 4), draw(2))
linear.check(draw(2, 3, 4), draw(2, 4))
linear.check(draw(4), draw(2, 4), draw(2))
