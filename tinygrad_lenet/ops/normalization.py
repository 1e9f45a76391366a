"""Normalisation of channels: mean 0 and variance 1, then a scale and a shift (Ioffe & Szegedy, *Batch normalization*,
2015). The fast code is in ``kernels/channels.py``.

The definitions at the top are the formulas, channel by channel and row by row. They are ``tinygrad_lenet.reference``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.primitive import Array, draw, primitive
from ..core.tensor import to_array
from ..errors import ShapeError
from ..kernels import channels as fast
from ..kernels import memory
from ..kernels.channels import Channels
from ..kernels.sums import single
from .maths import sqrt, square
from .reduction import _wide, mean, sum

# The definitions


def batch_norm_definition(x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each channel of ``x``, (N, C, ...), in training.

    The mean and the (biased) variance of a channel are taken over the batch and over all further axes. ``weight`` and
    ``bias`` are (C,).

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.batch_norm(np.array([[1.0], [3.0]]), [1.0], [0.0], eps=0.0)
    array([[-1.],
           [ 1.]])
    """
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        channel = x[:, c]
        mean = channel.mean()
        var = ((channel - mean) ** 2).mean()
        out[:, c] = (channel - mean) / np.sqrt(var + eps) * weight[c] + bias[c]
    return out


def layer_norm_definition(x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each row of ``x``, (N, D).

    ``weight`` and ``bias`` are (D,).

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.layer_norm(np.array([[1.0, 3.0]]), 1.0, 0.0, eps=0.0)
    array([[-1.,  1.]])
    """
    out = np.empty_like(x)
    for i, row in enumerate(x):
        mean = row.mean()
        var = ((row - mean) ** 2).mean()
        out[i] = (row - mean) / np.sqrt(var + eps) * weight + bias
    return out


# The ops


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel (axis 1), in float64."""
    x = single(x)
    at = fast.channels(x)
    return fast.moments(at.view(x), at)


def _prepared(x: Array, stats: Any) -> tuple[Channels, Array, Array, Array]:
    """How ``x`` lies in memory, ``x`` as (A, C, B), and the moments: those that are given, or computed."""
    at = fast.channels(x)
    data = at.view(x)
    if stats is None:
        return (at, data, *fast.moments(data, at))
    mean, var = (to_array(value) for value in stats)
    if mean.shape != x.shape[1:2] or var.shape != x.shape[1:2]:
        raise ShapeError(f"stats must be mean and variance of {x.shape[1]} channels, got {mean.shape} and {var.shape}")
    return at, data, mean, var


@primitive
def normalize(x: Array, weight: Array, bias: Array, eps: float, stats: Any = None) -> Array:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for channels on axis 1, where ``mean, var = moments(x)``.

    ``stats`` are the moments of ``x``, if they are known already. The gradient for ``x`` includes what flows through
    them (Ioffe & Szegedy, 2015, section 3).
    """
    wide = single(x)
    at, data, mean, var = _prepared(wide, stats)
    out = memory.empty(at.shape, wide.dtype)
    fast.normalize(out, data, at, mean, var, weight, bias, eps)
    return at.images(out).astype(x.dtype, copy=False)


@primitive
def _normalize_x(g: Array, x: Array, weight: Array, eps: float, stats: Any) -> Array:
    """``weight / sqrt(var + eps) * (g - mean(g) - standard * mean(g * standard))``, where ``standard`` is ``x`` with
    mean 0 and variance 1.
    """
    g, x = single(g), single(x)
    at, data, mean, var = _prepared(x, stats)
    out = memory.empty(at.shape, x.dtype)
    fast.input_grad(out, at.view(g), data, at, mean, var, weight, eps)
    return at.images(out)


@primitive
def _normalize_weight(g: Array, x: Array, eps: float, stats: Any) -> Array:
    """``sum(g * standard)`` of each channel."""
    g, x = single(g), single(x)
    at, data, mean, var = _prepared(x, stats)
    return fast.weight_grad(at.view(g), data, at, mean, var, eps)


normalize.vjp(
    x=lambda g, x, weight, eps, stats: _normalize_x(g, x, weight, eps, stats),
    weight=lambda g, x, eps, stats: _normalize_weight(g, x, eps, stats),
    bias=lambda g: sum(single(g), (0, *range(2, g.ndim))),
)
normalize.check(draw(3, 2, 2, 3), draw(2), draw(2), 1e-3)
normalize.check(draw(5, 2), draw(2), draw(2), 1e-3)


# Both gradients are linear in g, and each is made of the other and of normalize.


def _standard(x: Any, eps: float) -> tuple[Any, Any]:
    """The channels with mean 0 and variance 1, and the factor that made them, in the next wider dtype, where no square
    overflows or vanishes.
    """
    x, axes = _wide(x), (0, *range(2, x.ndim))
    rough = x - mean(x, axes, keepdims=True)
    centred = rough - mean(rough, axes, keepdims=True)  # without the rounding of the mean
    factor = 1 / sqrt(mean(square(centred), axes, keepdims=True) + eps)
    return centred * factor, factor


def _normalize_x_weight(g_: Any, g: Any, x: Any, eps: float, stats: Any) -> Any:
    slope = _normalize_x(g, x, np.ones(x.shape[1], x.dtype), eps, stats)
    return sum(single(g_) * slope, (0, *range(2, g_.ndim)))


def _normalize_x_x(g_: Any, g: Any, x: Any, weight: Any, eps: float) -> Any:
    """With ``p(v) = v - mean(v) - standard * mean(v * standard)``, which is its own transpose:
    ``-weight / (var + eps) * (standard * mean(g_ * p(g)) + p(g_) * mean(g * standard) + p(g) * mean(g_ * standard))``.
    """
    axes, (standard, factor) = (0, *range(2, x.ndim)), _standard(x, eps)
    along, along_ = (mean(v * standard, axes, keepdims=True) for v in (g, g_))
    rest, rest_ = (
        v - mean(v, axes, keepdims=True) - standard * part for v, part in ((_wide(g), along), (_wide(g_), along_))
    )
    total = standard * mean(g_ * rest, axes, keepdims=True) + rest_ * along + rest * along_
    return (-total * factor * factor * weight.reshape(1, -1, *[1] * (x.ndim - 2))).astype(single(x).dtype)


_normalize_x.vjp(
    g=lambda g_, x, weight, eps, stats: _normalize_x(g_, x, weight, eps, stats),
    x=_normalize_x_x,
    weight=_normalize_x_weight,
)
_normalize_x.check(draw(3, 2, 2, 3), draw(3, 2, 2, 3), draw(2), 1e-3, None)
_normalize_x.check(draw(5, 2), draw(5, 2), draw(2), 1e-3, None)
_normalize_weight.vjp(
    g=lambda g_, x, eps, stats: normalize(x, g_, np.zeros(x.shape[1], x.dtype), eps, stats),
    x=lambda g_, g, x, eps, stats: _normalize_x(g, x, g_, eps, stats),
)
_normalize_weight.check(draw(3, 2, 2, 3), draw(3, 2, 2, 3), 1e-3, None)
_normalize_weight.check(draw(5, 2), draw(5, 2), 1e-3, None)
