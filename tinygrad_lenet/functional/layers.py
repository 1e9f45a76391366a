"""What layers compute, where that is no op of its own: dropout, normalisation."""

from __future__ import annotations

import numpy as np

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.creation import Seed, generator_of
from ..ops.elementwise import select, where
from ..ops.maths import sqrt
from ..ops.normalization import moments, normalize
from ..primitive import Array
from ..tensor import Tensor, as_tensor

__all__ = ["batch_norm", "dropout", "prelu"]


def prelu(input: Array, weight: Array) -> Tensor:
    """``input`` where positive, ``weight * input`` elsewhere, with a weight for each channel (axis 1) or one for all
    (He et al., 2015).

    >>> import tinygrad_lenet as tl
    >>> tl.prelu(tl.tensor([-2.0, 3.0]), tl.tensor([0.25]))
    tensor([-0.5,  3. ])
    """
    x, weight = as_tensor(input), as_tensor(weight)
    if weight.size != 1:
        if weight.ndim != 1 or x.ndim < 2 or x.shape[1] != weight.size:
            raise ShapeError(
                f"prelu: input of shape {x.shape} needs a weight of one element or one for each channel, got "
                f"{weight.shape}"
            )
        weight = weight.reshape(-1, *[1] * (x.ndim - 2))
    return where(x > 0, x, select(x, x <= 0) * weight)  # in the branch not taken, 0 and not inf * 0


def dropout(input: Array, p: float = 0.5, training: bool = True, generator: Seed = None) -> Tensor:
    """Set each element to 0 with probability ``p`` and scale the others by ``1 / (1 - p)``, so that the mean stays
    (Srivastava et al., 2014).

    The identity when not ``training``. ``generator`` is a NumPy generator (or a seed, which draws the same mask at each
    call).

    >>> import tinygrad_lenet as tl
    >>> tl.functional.dropout(tl.ones(6), p=0.5, generator=0)
    tensor([2., 2., 2., 0., 0., 0.])
    """
    if not 0 <= p <= 1:
        raise ArgumentError(f"dropout: p is a probability between 0 and 1, got {p}")
    x = as_tensor(input)
    if not training or p == 0:
        return x
    if x.dtype.kind != "f":
        raise DTypeError(f"dropout: expected floats, got {x.dtype}; convert: x.astype('float32')")
    if p == 1:
        return x * 0
    keep = generator_of(generator).random(x.shape, np.float32) >= p
    return x * np.multiply(keep, 1 / (1 - p), dtype=x.dtype)


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
    else with the running statistics.

    Args:
        input: (N, C, ...).
        running_mean: (C,), changed in place in training; may be None in training.
        running_var: likewise.
        weight: (C,), or None for 1.
        bias: (C,), or None for 0.
        training: whether to use the batch's statistics.
        momentum: the weight of the newest batch in the running statistics.
        eps: keeps the division finite.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.batch_norm(tl.tensor([[1.0], [3.0]]), training=True)
    tensor([[-0.999995],
            [ 0.999995]])
    """
    x = as_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: expected input of shape (N, C, ...), got {x.shape}")
    if x.dtype.kind != "f":
        raise DTypeError(f"batch_norm: expected floats, got {x.dtype}; convert: x.astype('float32')")
    channel = (1, -1, *[1] * (x.ndim - 2))
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in given.items():
        if value is not None and np.shape(value) != x.shape[1:2]:
            raise ShapeError(
                f"batch_norm: input of shape {x.shape} has {x.shape[1]} channels, {name} has shape {np.shape(value)}"
            )
    if training:
        count = x.size // max(1, x.shape[1])
        if count < 2:
            raise ShapeError(
                f"batch_norm: in training a channel needs more than one value, input has shape {x.shape}; call "
                "eval() or use larger batches"
            )
        mean, var = moments(x._data)
        if running_mean is not None and running_var is not None:
            unbiased = var * (count / (count - 1))
            running_mean.data = (1 - momentum) * running_mean.numpy() + momentum * mean
            running_var.data = (1 - momentum) * running_var.numpy() + momentum * unbiased
        ones, zeros = np.ones(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
        return normalize(x, ones if weight is None else weight, zeros if bias is None else bias, eps, (mean, var))
    if running_mean is None or running_var is None:
        raise ArgumentError("batch_norm: without training it needs running_mean and running_var")
    scale = 1 / sqrt(running_var.reshape(channel) + eps)
    if weight is not None:
        scale = scale * as_tensor(weight).reshape(channel)
    out = (x - running_mean.reshape(channel)) * scale
    return out if bias is None else out + as_tensor(bias).reshape(channel)
