"""Normalisation to mean 0 and variance 1, then a scale and a shift: of batches, layers and groups.

First come the definitions, channel by channel and row by row, which are ``tinygrad_lenet.reference``; then the op that
normalises the channels of a batch, with its rules; then the functions made of it. The fast code is in
``kernels/channels.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import NoneType
from typing import Any

import numpy as np

from ..checks import number
from ..core.modes import no_grad
from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..errors import ArgumentError, DTypeError, ShapeError, brief
from ..kernels import channels as fast
from ..kernels import memory
from ..kernels.channels import Channels
from ..kernels.sums import single
from .maths import sqrt, square
from .reduction import all_half, mean, sum, wider
from .shape import integers

# The definitions


def _standardized(values: Any, eps: float) -> Any:
    """Return the values, shifted and scaled to mean 0 and (but for ``eps``) variance 1."""
    return (values - values.mean()) / np.sqrt(values.var() + eps)


def batch_norm_definition(x: Any, weight: Any, bias: Any, eps: float = 1e-5) -> Any:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for each channel of ``x``, (N, C, ...), in training.

    The mean and the (biased) variance of a channel are those over the batch and all further axes. ``weight`` and
    ``bias`` are (C,).

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.batch_norm(np.array([[1.0], [3.0]]), [1.0], [0.0], eps=0.0)
    array([[-1.],
           [ 1.]])
    """
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        out[:, c] = _standardized(x[:, c], eps) * weight[c] + bias[c]
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
        out[i] = _standardized(row, eps) * weight + bias
    return out


# The op, and its rules


@primitive
def channel_moments(x: Array) -> Array:
    """Mean and (biased) variance of each channel (axis 1), as two rows of float64. No gradient: see ``normalize``."""
    return np.stack(_with_moments(x, None)[2:])


channel_moments.vjp(x=None)
channel_moments.check(np.arange(12.0).reshape(3, 2, 2))


def _with_moments(x: Array, stats: Array | None) -> tuple[Channels, Array, Array, Array]:
    """Return the memory layout of ``x``, ``x`` as (A, C, B), float16 as float32, and the moments; they are computed if
    ``stats`` is None.
    """
    x = single(x)
    at = fast.channels(x)
    data = at.view(x)
    mean, var = fast.moments(data, at) if stats is None else stats
    return at, data, mean, var


def _write_normalized(out: Array, x: Array, weight: Array, bias: Array, eps: float, stats: Any) -> None:
    at, data, mean, var = _with_moments(x, stats)
    fast.normalize(out, data, at, mean, var, weight, bias, eps)


def _write_input_grad(out: Array, g: Array, x: Array, weight: Array, eps: float, stats: Any) -> None:
    at, data, mean, var = _with_moments(x, stats)
    fast.input_grad(out, at.view(single(g)), data, at, mean, var, weight, eps)


def _written(write: Callable[..., None], x: Array, *arguments: Any) -> Array:
    """Return an array in the memory layout of ``x``, which ``write(out, *arguments)`` fills as (A, C, B)."""
    at = fast.channels(x)
    out = memory.empty(at.shape, x.dtype)
    write(out, *arguments)
    return at.images(out)


def _step(write: Callable[..., None], out: Array, x: Array, *arguments: Any) -> Any:
    """Return the step that fills ``out``, or None if it does not have the memory layout of ``x``."""
    view = fast.channels(x).view(out)
    return [partial(write, view, *arguments)] if x.dtype != np.float16 and np.may_share_memory(view, out) else None


@primitive
def normalize(x: Array, weight: Array, bias: Array, eps: float, stats: Array | None = None) -> Array:
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for channels on axis 1, with the :func:`channel_moments`.

    ``stats`` are the moments of ``x`` if the caller has computed them already. They depend on ``x``, and the gradient
    includes this (Ioffe & Szegedy, 2015, section 3).
    """
    return _written(_write_normalized, single(x), x, weight, bias, eps, stats).astype(x.dtype, copy=False)


@primitive
def _normalize_x(g: Array, x: Array, weight: Array, eps: float, stats: Array | None) -> Array:
    """``weight / sqrt(var + eps) * (g - mean(g) - standard * mean(g * standard))``, where ``standard`` is ``x`` with
    mean 0 and variance 1.
    """
    return _written(_write_input_grad, single(x), g, x, weight, eps, stats)


@primitive
def _normalize_weight(g: Array, x: Array, eps: float, stats: Array | None) -> Array:
    """``sum(g * standard)`` for each channel."""
    at, data, mean, var = _with_moments(x, stats)
    return fast.weight_grad(at.view(single(g)), data, at, mean, var, eps)


normalize.vjp(x=lambda g, x, weight, eps, stats: _normalize_x(g, x, weight, eps, stats))
normalize.vjp(weight=lambda g, x, eps, stats: _normalize_weight(g, x, eps, stats))
normalize.vjp(bias=lambda g: sum(single(g), (0, *range(2, g.ndim))), stats=None)
normalize.planned(lambda out, room, x, *more: _step(_write_normalized, out, x, x, *more))
_normalize_x.planned(lambda out, room, g, x, *more: _step(_write_input_grad, out, x, g, x, *more))
normalize.check(draw(3, 2, 2, 3), draw(2), draw(2), 1e-3)
normalize.check(draw(5, 2), draw(2), draw(2), 1e-3)


# Second derivatives. Both gradients are linear in g, so their rules need each other and normalize.


def _standard(x: Any, eps: float) -> tuple[Any, Any]:
    """Return the channels with mean 0 and variance 1, and the factor of each, ``1 / sqrt(var + eps)``, in the next
    wider dtype, where no square overflows or vanishes.
    """
    x, axes = wider(x), (0, *range(2, x.ndim))
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
    g, g_ = wider(g), wider(g_)
    along, along_ = (mean(v * standard, axes, keepdims=True) for v in (g, g_))
    rest, rest_ = (v - mean(v, axes, keepdims=True) - standard * part for v, part in ((g, along), (g_, along_)))
    total = standard * mean(g_ * rest, axes, keepdims=True) + rest_ * along + rest * along_
    return (-total * factor * factor * weight.reshape(1, -1, *[1] * (x.ndim - 2))).astype(single(x).dtype)


_normalize_x.vjp(g=lambda g_, x, weight, eps, stats: _normalize_x(g_, x, weight, eps, stats))
_normalize_x.vjp(x=_normalize_x_x, weight=_normalize_x_weight, stats=None)
_normalize_x.check(draw(3, 2, 2, 3), draw(3, 2, 2, 3), draw(2), 1e-3, None)
_normalize_x.check(draw(5, 2), draw(5, 2), draw(2), 1e-3, None)
_normalize_weight.vjp(g=lambda g_, x, eps, stats: normalize(x, g_, np.zeros(x.shape[1], x.dtype), eps, stats))
_normalize_weight.vjp(x=lambda g_, g, x, eps, stats: _normalize_x(g, x, g_, eps, stats), stats=None)
_normalize_weight.check(draw(3, 2, 2, 3), draw(3, 2, 2, 3), 1e-3, None)
_normalize_weight.check(draw(5, 2), draw(5, 2), 1e-3, None)


@primitive
def _moved(running: Any, newest: Any, momentum: Any) -> Array:
    """``(1 - momentum) * running + momentum * newest``, computed with ``momentum`` as a Python number."""
    with np.errstate(over="ignore"):  # beyond float32 it is infinite, as in PyTorch
        return ((1 - float(momentum)) * running + float(momentum) * newest).astype(running.dtype)


_moved.check(np.ones(3), np.zeros(3), 0.1)


# The functions


def _check_arguments(x: Tensor, shape: tuple[int, ...], **values: Any) -> None:
    """Raise unless the input is floats, and the values have this shape or are None."""
    if x.dtype.kind != "f":
        raise DTypeError(f"input must be floats, got {x.dtype}; convert: input.astype('float32')")
    for name, value in values.items():
        if value is not None and np.shape(value) != shape:
            raise ShapeError(f"for an input of shape {x.shape} {name} must have shape {shape}, got {np.shape(value)}")


def _per_channel(values: Any, ndim: int) -> Any:
    """Reshape (C,) so that it broadcasts against (N, C, ...); None stays."""
    return None if values is None else as_tensor(values).reshape(-1, *[1] * (ndim - 2))


def _scaled(x: Tensor, weight: Any, bias: Any, half: bool) -> Tensor:
    """Return ``x * weight + bias``, as float16 if ``half``. None changes nothing."""
    x = x if weight is None else x * weight
    x = x if bias is None else x + bias
    return x.astype(np.float16) if half else x


def _normalized_rows(x: Tensor, rows: tuple[int, ...], eps: float) -> Tensor:
    """Normalise each row, with the first axes taken as one: a batch norm of one sample whose channels are the rows."""
    if not x.size:
        return x.clone()
    count = math.prod(rows)
    flat = x.reshape(1, count, x.size // count)
    return normalize(flat, np.ones(count, x.dtype), np.zeros(count, x.dtype), eps).reshape(x.shape)


@composite(torch="nn.functional.batch_norm")
def batch_norm(
    input: Array,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: Array = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel (axis 1) to mean 0 and variance 1, then scale and shift it (Ioffe & Szegedy, 2015,
    algorithm 1).

    ``(input - mean) / sqrt(var + eps) * weight + bias``. In training, mean and (biased) variance are those of the
    batch, and the running statistics move towards its mean and *unbiased* variance by ``momentum``, as in PyTorch.
    Otherwise the running statistics are used. An infinite weight gives ±inf (PyTorch: NaN in part), as in
    :func:`group_norm`. Definition: :func:`tinygrad_lenet.reference.batch_norm`.

    Args:
        input: (N, C, ...).
        running_mean: (C,), changed in place in training; None only in training.
        running_var: likewise.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        training: whether to use the statistics of the batch.
        momentum: the weight of the newest batch in the running statistics, a number or a Tensor of one.
        eps: keeps the division finite.

    Raises:
        ArgumentError: no running statistics, and not ``training``.
        DTypeError: the input is not floats.
        ShapeError: an argument does not have one value per channel; or, in ``training``, a channel has only one value.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.batch_norm(tl.tensor([[1.0], [3.0]]), training=True)
    tensor([[-0.999995],
            [ 0.999995]])
    """
    x = as_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"expected input of shape (N, C, ...), got {x.shape}")
    momentum = momentum if isinstance(momentum, Tensor) else number("momentum", momentum)
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in given.items():
        if name.startswith("running") and not isinstance(value, (Tensor, NoneType)):
            raise DTypeError(f"{name} is changed in place, so it must be a Tensor, got {brief(value)}")
    _check_arguments(x, x.shape[1:2], **given)
    if training:
        dtype = np.result_type(*(as_tensor(value).dtype for value in (x, weight, bias) if value is not None))
        x = x if x.dtype == dtype else x.astype(dtype)
        count = len(x) * math.prod(x.shape[2:])  # values of a channel; there may be no channel
        if not count:  # then the running statistics stay
            return _scaled(x, _per_channel(weight, x.ndim), _per_channel(bias, x.ndim), False)
        if count < 2:
            raise ShapeError(f"in training a channel needs more than one value, got {x.shape}; call eval()")
        stats = channel_moments(x)
        if running_mean is not None and running_var is not None:
            with no_grad():
                for running, newest in ((running_mean, stats[0]), (running_var, stats[1] * (count / (count - 1)))):
                    running._write(..., _moved(running, newest, momentum)._data)
        weight = np.ones(x.shape[1], x.dtype) if weight is None else weight
        bias = np.zeros(x.shape[1], x.dtype) if bias is None else bias
        return normalize(x, weight, bias, eps, stats)
    if running_mean is None or running_var is None:
        raise ArgumentError("without training it needs running_mean and running_var")
    scale = 1 / sqrt(_per_channel(single(running_var), x.ndim) + eps)
    if weight is not None:
        scale = scale * _per_channel(weight, x.ndim)
    out = (single(x) - _per_channel(running_mean, x.ndim)) * scale
    return _scaled(out, None, _per_channel(bias, x.ndim), all_half(x, *given.values()))


@composite(torch="nn.functional.layer_norm")
def layer_norm(
    input: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise the last axes to mean 0 and variance 1, then scale and shift each element (Ba et al., *Layer
    normalization*, 2016).

    ``(input - mean) / sqrt(var + eps) * weight + bias``, with the biased variance. For an infinite weight, the
    gradients are those of this formula (PyTorch: NaN in more places). Definition:
    :func:`tinygrad_lenet.reference.layer_norm`.

    Args:
        input: (..., *normalized_shape), floats.
        normalized_shape: the lengths of the last axes.
        weight: of that shape, or None for 1.
        bias: of that shape, or None for 0.
        eps: keeps the division finite.

    Raises:
        DTypeError: the input is not floats.
        ShapeError: weight, bias or the last axes of the input do not have that shape.

    >>> import tinygrad_lenet as tl
    >>> tl.layer_norm(tl.tensor([[1.0, 3.0], [0.0, 8.0]]), 2).numpy().round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """
    x = as_tensor(input)
    shape = tuple(integers("normalized_shape", normalized_shape))
    if not shape or x.shape[x.ndim - len(shape) :] != shape:
        raise ShapeError(f"normalized_shape {shape} must be the last lengths of the input {x.shape}")
    _check_arguments(x, shape, weight=weight, bias=bias)
    half = all_half(x, weight, bias)
    out = _normalized_rows(single(x) if half else x, x.shape[: x.ndim - len(shape)], eps)
    return _scaled(out, weight, bias, half)


@composite(torch="nn.functional.group_norm")
def group_norm(
    input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise groups of channels of each image to mean 0 and variance 1, then scale and shift each channel (Wu & He,
    *Group normalization*, 2018).

    ``(input - mean) / sqrt(var + eps) * weight + bias``, with the mean and biased variance of a group of one image.
    An infinite weight gives ±inf (PyTorch, which multiplies before it subtracts the mean, gives NaN).

    Args:
        input: (N, C, ...), floats.
        num_groups: a divisor of C.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        eps: keeps the division finite.

    Raises:
        DTypeError: the input is not floats.
        ShapeError: the groups do not divide the channels, or weight or bias does not have that shape.

    >>> import tinygrad_lenet as tl
    >>> tl.group_norm(tl.tensor([[1.0, 3.0, 0.0, 8.0]]), num_groups=2).round(3)
    tensor([[-1.,  1., -1.,  1.]])
    """
    x = as_tensor(input)
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ShapeError(f"input must be (N, C, ...) with C divisible by {num_groups}, got {x.shape}")
    _check_arguments(x, x.shape[1:2], weight=weight, bias=bias)
    half = all_half(x, weight, bias)
    out = _normalized_rows(single(x) if half else x, (x.shape[0], num_groups), eps)
    return _scaled(out, _per_channel(weight, x.ndim), _per_channel(bias, x.ndim), half)
