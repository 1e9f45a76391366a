"""What layers compute, where that is no op of its own: dropout, normalisation."""

from __future__ import annotations

import math
from types import NoneType

import numpy as np

from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, brief
from ..ops.creation import Seed, generator_of
from ..ops.elementwise import select, where
from ..ops.indexing import getitem
from ..ops.maths import sqrt
from ..ops.normalization import moments, normalize
from ..ops.shape import listed
from ..primitive import Array, composite
from ..tensor import Tensor, as_tensor

__all__ = ["batch_norm", "dropout", "dropout2d", "embedding", "group_norm", "layer_norm", "prelu"]


@composite
def prelu(input: Array, weight: Array) -> Tensor:
    """``input`` where positive, ``weight * input`` elsewhere, with a weight for each channel (axis 1) or one for all
    (He et al., 2015); its gradient at 0 is ``weight``.

    Raises:
        ShapeError: not as many weights as channels.

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


@composite
def dropout(input: Array, p: float = 0.5, training: bool = True, generator: Seed = None) -> Tensor:
    """Set each element to 0 with probability ``p`` and scale the others by ``1 / (1 - p)``, so that the mean stays
    (Srivastava et al., 2014).

    The identity when not ``training``. ``generator`` is a NumPy generator (or a seed, which draws the same mask at each
    call).

    Raises:
        ArgumentError: ``p`` is no probability.
        DTypeError: the input is not floats.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.dropout(tl.ones(6), p=0.5, generator=0)
    tensor([2., 2., 2., 0., 0., 0.])
    """
    x = as_tensor(input)
    return _drop("dropout", x, p, training, generator, x.shape)


@composite
def dropout2d(input: Array, p: float = 0.5, training: bool = True, generator: Seed = None) -> Tensor:
    """:func:`dropout` of whole channels of images (N, C, H, W), whose pixels are alike (Tompson et al., 2015).

    Raises:
        ArgumentError: ``p`` is no probability.
        DTypeError: the input is not floats.
        ShapeError: the input has not four axes.

    >>> import tinygrad_lenet as tl
    >>> tl.dropout2d(tl.ones(1, 6, 1, 1), p=0.5, generator=0).reshape(6)
    tensor([2., 2., 2., 0., 0., 0.])
    """
    x = as_tensor(input)
    if x.ndim != 4:
        raise ShapeError(
            f"dropout2d: expected images of shape (N, C, H, W), got {x.shape}; add axes with x.unsqueeze(0)"
        )
    return _drop("dropout2d", x, p, training, generator, (*x.shape[:2], 1, 1))


def _drop(op: str, x: Tensor, p: float, training: bool, generator: Seed, shape: tuple[int, ...]) -> Tensor:
    """Dropout with a mask of a shape that broadcasts."""
    if not 0 <= p <= 1:
        raise ArgumentError(f"{op}: p is a probability between 0 and 1, got {p}")
    if not training or p == 0:
        return x
    if x.dtype.kind != "f":
        raise DTypeError(f"{op}: input must be floats, got {x.dtype}; convert: input.astype('float32')")
    if p == 1:
        return x * 0
    keep = generator_of(generator).random(shape, np.float32) >= p
    return x * np.multiply(keep, 1 / (1 - p), dtype=x.dtype)


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
        raise ShapeError(f"batch_norm: expected input of shape (N, C, ...), got {x.shape}")
    if x.dtype.kind != "f":
        raise DTypeError(f"batch_norm: input must be floats, got {x.dtype}; convert: input.astype('float32')")
    channel = (1, -1, *[1] * (x.ndim - 2))
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, value in given.items():
        if name.startswith("running") and not isinstance(value, (Tensor, NoneType)):
            raise DTypeError(f"batch_norm: {name} is changed in place, so it must be a Tensor, got {brief(value)}")
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

    ``(input - mean) / sqrt(var + eps) * weight + bias``, with the biased variance.

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
    shape = tuple(listed(normalized_shape, "layer_norm", "normalized_shape"))
    if not shape or x.shape[x.ndim - len(shape) :] != shape:
        raise ShapeError(f"layer_norm: normalized_shape {shape} must be the last lengths of the input {x.shape}")
    _check_scale("layer_norm", shape, weight, bias)
    out = _standardize("layer_norm", x, x.shape[: x.ndim - len(shape)], eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


@composite
def group_norm(
    input: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise groups of channels of each image to mean 0 and variance 1, then scale and shift each channel (Wu & He,
    *Group normalization*, 2018).

    ``(input - mean) / sqrt(var + eps) * weight + bias``, with the biased variance of a group of one image.

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
        raise ShapeError(f"group_norm: input must be (N, C, ...) with C divisible by {num_groups}, got {x.shape}")
    _check_scale("group_norm", x.shape[1:2], weight, bias)
    out = _standardize("group_norm", x, (x.shape[0], num_groups), eps)
    channel = (-1, *[1] * (x.ndim - 2))
    out = out if weight is None else out * as_tensor(weight).reshape(channel)
    return out if bias is None else out + as_tensor(bias).reshape(channel)


def _check_scale(op: str, shape: tuple[int, ...], weight: Array | None, bias: Array | None) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and np.shape(value) != shape:
            raise ShapeError(f"{op}: {name} must have shape {shape}, got {np.shape(value)}")


def _standardize(op: str, x: Tensor, rows: tuple[int, ...], eps: float) -> Tensor:
    """Mean 0 and variance 1 for each of the rows that the first axes make up: a batch norm of one sample."""
    if x.dtype.kind != "f":
        raise DTypeError(f"{op}: input must be floats, got {x.dtype}; convert: input.astype('float32')")
    count = math.prod(rows)
    if not x.size:
        return x.clone()
    flat = x.reshape(1, count, x.size // count)
    return normalize(flat, np.ones(count, x.dtype), np.zeros(count, x.dtype), eps).reshape(x.shape)


@composite
def embedding(input: Array, weight: Array, padding_idx: int | None = None) -> Tensor:
    """Rows of a table: for indices (...,) the vectors (..., D).

    Args:
        input: integers of any shape, 0 … V - 1.
        weight: the table, (V, D).
        padding_idx: the row that gets no gradient.

    Raises:
        DTypeError: the indices are no integers.
        OutOfRangeError: there is no such row.
        ShapeError: the table has not two axes.

    >>> import tinygrad_lenet as tl
    >>> tl.embedding([2, 0], tl.tensor([[0, 1], [2, 3], [4, 5]]))
    tensor([[4., 5.],
            [0., 1.]])
    """
    table, index = as_tensor(weight), np.asarray(input)
    if table.ndim != 2:
        raise ShapeError(f"embedding: weight must be a table (V, D), got {table.shape}")
    if index.dtype.kind not in "iu":
        raise DTypeError(f"embedding: indices must be integers, got {index.dtype} in input; convert: x.astype('int64')")
    bad = index[(index < 0) | (index >= len(table))]
    if bad.size:
        raise OutOfRangeError(f"embedding: indices must lie in 0 … {len(table) - 1}, got {bad[0]} in input")
    rows = getitem(table, index)
    if padding_idx is None:
        return rows
    if not -len(table) <= padding_idx < len(table):
        raise OutOfRangeError(f"embedding: padding_idx must lie in 0 … {len(table) - 1}, got {padding_idx}")
    return where((index == padding_idx % len(table))[..., None], rows.detach(), rows)
