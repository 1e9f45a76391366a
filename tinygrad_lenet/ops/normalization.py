"""Normalisation of channels: mean 0 and variance 1, then a scale and a shift (Ioffe & Szegedy, *Batch normalization*,
2015). The fast code is in ``kernels/channels.py``.

The definitions at the top are the formulas, channel by channel and row by row. They are ``tinygrad_lenet.reference``.
"""

from __future__ import annotations

import math
from types import NoneType
from typing import Any

import numpy as np

from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor, to_array
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..kernels import channels as fast
from ..kernels import memory
from ..kernels.channels import Channels
from ..kernels.sums import single
from .maths import sqrt, square
from .reduction import _wide, mean, sum
from .shape import listed

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


# The functions


@composite
def batch_norm(
    input: Array,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel (axis 1) to mean 0 and variance 1, then scale and shift it (Ioffe & Szegedy, 2015,
    algorithm 1).

    ``(input - mean) / sqrt(var + eps) * weight + bias``; in training with the batch's own mean and (biased) variance,
    and the running statistics move towards the batch's mean and *unbiased* variance by ``momentum``, as in PyTorch;
    else with the running statistics. An infinite weight gives ±inf (PyTorch: NaN in part), as in :func:`group_norm`.
    Definition: :func:`tinygrad_lenet.reference.batch_norm`.

    Args:
        input: (N, C, ...).
        running_mean: (C,), changed in place in training; may be None in training.
        running_var: likewise.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        training: whether to use the batch's statistics.
        momentum: the weight of the newest batch in the running statistics.
        eps: keeps the division finite.

    Raises:
        ArgumentError: no running statistics, and not ``training``.
        DTypeError: the input is not floats.
        ShapeError: something has not one value for each channel; or, in ``training``, a channel has one value only.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.batch_norm(tl.tensor([[1.0], [3.0]]), training=True)
    tensor([[-0.999995],
            [ 0.999995]])
    """
    x = as_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"expected input of shape (N, C, ...), got {x.shape}")
    if x.dtype.kind != "f":
        raise DTypeError(f"input must be floats, got {x.dtype}; convert: input.astype('float32')")
    channel = (1, -1, *[1] * (x.ndim - 2))
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in given.items():
        if name.startswith("running") and not isinstance(value, (Tensor, NoneType)):
            raise DTypeError(f"{name} is changed in place, so it must be a Tensor, got {brief(value)}")
        if value is not None and np.shape(value) != x.shape[1:2]:
            raise ShapeError(f"input of shape {x.shape} has {x.shape[1]} channels, {name} has shape {np.shape(value)}")
    if training:
        wider = np.result_type(x.dtype, *[as_tensor(v).dtype for v in (weight, bias) if v is not None])
        x = x if x.dtype == wider else x.astype(wider)
        count = len(x) * math.prod(x.shape[2:])  # of each channel, of which there may be none
        if count < 2:
            raise ShapeError(
                f"in training a channel needs more than one value, input has shape {x.shape}; call "
                "eval() or use larger batches"
            )
        mean, var = moments(x._data)
        if running_mean is not None and running_var is not None:
            for running, newest in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
                found = (1 - momentum) * running.numpy() + momentum * newest
                with np.errstate(over="ignore"):  # beyond float32 it is infinite, as in PyTorch
                    running.data = found.astype(running.dtype)
        ones, zeros = np.ones(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
        return normalize(x, ones if weight is None else weight, zeros if bias is None else bias, eps, (mean, var))
    if running_mean is None or running_var is None:
        raise ArgumentError("without training it needs running_mean and running_var")
    half = _half(x, *given.values())
    scale = 1 / sqrt(single(running_var).reshape(channel) + eps)
    if weight is not None:
        scale = scale * as_tensor(weight).reshape(channel)
    out: Tensor = (single(x) - running_mean.reshape(channel)) * scale
    out = out if bias is None else out + as_tensor(bias).reshape(channel)
    return out.astype(np.float16) if half else out


batch_norm.known_as(torch="nn.functional.batch_norm")


def _half(*values: Array | None) -> bool:
    """True if all are float16, to be computed in float32 and rounded once."""
    return all(value is None or as_tensor(value).dtype == np.float16 for value in values)


@composite
def layer_norm(
    input: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise the last axes to mean 0 and variance 1, then scale and shift each element (Ba et al., *Layer
    normalization*, 2016).

    ``(input - mean) / sqrt(var + eps) * weight + bias``, with the biased variance. The gradients of an infinite weight
    are those of this formula (PyTorch: NaN in more places). Definition: :func:`tinygrad_lenet.reference.layer_norm`.

    Args:
        input: (..., *normalized_shape), floats.
        normalized_shape: the lengths of the last axes.
        weight: of that shape, or None for 1.
        bias: of that shape, or None for 0.
        eps: keeps the division finite.

    Raises:
        DTypeError: the input is not floats.
        ShapeError: weight, bias or the input's last axes are not of that shape.

    >>> import tinygrad_lenet as tl
    >>> tl.layer_norm(tl.tensor([[1.0, 3.0], [0.0, 8.0]]), 2).numpy().round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """
    x = as_tensor(input)
    shape = tuple(listed(normalized_shape, "normalized_shape"))
    if not shape or x.shape[x.ndim - len(shape) :] != shape:
        raise ShapeError(f"normalized_shape {shape} must be the last lengths of the input {x.shape}")
    _check_scale(shape, weight, bias)
    half = _half(x, weight, bias)
    out = _standardize(single(x) if half else x, x.shape[: x.ndim - len(shape)], eps)
    out = out if weight is None else out * weight
    out = out if bias is None else out + bias
    return out.astype(np.float16) if half else out


layer_norm.known_as(torch="nn.functional.layer_norm")


@composite
def group_norm(
    input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise groups of channels of each image to mean 0 and variance 1, then scale and shift each channel (Wu & He,
    *Group normalization*, 2018).

    ``(input - mean) / sqrt(var + eps) * weight + bias``, with the biased variance of a group of one image.
    An infinite weight gives ±inf (PyTorch, which multiplies before it subtracts the mean: NaN).

    Args:
        input: (N, C, ...), floats.
        num_groups: a divisor of C.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        eps: keeps the division finite.

    Raises:
        DTypeError: the input is not floats.
        ShapeError: the groups do not divide the channels, or weight or bias is not of that shape.

    >>> import tinygrad_lenet as tl
    >>> tl.group_norm(tl.tensor([[1.0, 3.0, 0.0, 8.0]]), num_groups=2).round(3)
    tensor([[-1.,  1., -1.,  1.]])
    """
    x = as_tensor(input)
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ShapeError(f"input must be (N, C, ...) with C divisible by {num_groups}, got {x.shape}")
    _check_scale(x.shape[1:2], weight, bias)
    half = _half(x, weight, bias)
    out = _standardize(single(x) if half else x, (x.shape[0], num_groups), eps)
    channel = (-1, *[1] * (x.ndim - 2))
    out = out if weight is None else out * as_tensor(weight).reshape(channel)
    out = out if bias is None else out + as_tensor(bias).reshape(channel)
    return out.astype(np.float16) if half else out


group_norm.known_as(torch="nn.functional.group_norm")


def _check_scale(shape: tuple[int, ...], weight: Array | None, bias: Array | None) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and np.shape(value) != shape:
            raise ShapeError(f"{name} must have shape {shape}, got {np.shape(value)}")


def _standardize(x: Tensor, rows: tuple[int, ...], eps: float) -> Tensor:
    """Mean 0 and variance 1 for each of the rows that the first axes make up: a batch norm of one sample."""
    if x.dtype.kind != "f":
        raise DTypeError(f"input must be floats, got {x.dtype}; convert: input.astype('float32')")
    count = math.prod(rows)
    if not x.size:
        return x.clone()
    flat = x.reshape(1, count, x.size // count)
    return normalize(flat, np.ones(count, x.dtype), np.zeros(count, x.dtype), eps).reshape(x.shape)
