"""Functions of networks, under the names and with the signatures of ``torch.nn.functional``; imported as ``F``.

Here are the composites: losses, batch normalisation, dropout. The primitives they are
made of are reachable here too, so that ``F.conv2d``, ``tinygrad_lenet.conv2d`` and ``x.conv2d`` are one and the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, DTypeError, ShapeError
from .ops.convolution import conv2d, conv_transpose2d, fold, unfold
from .ops.creation import Seed, generator_of
from .ops.elementwise import abs as _abs
from .ops.elementwise import elu, leaky_relu, relu, select, sigmoid, softplus, sqrt, square, tanh, where
from .ops.linalg import linear
from .ops.normalization import moments, normalize
from .ops.pooling import avg_pool2d, max_pool2d
from .ops.reduction import log_softmax, softmax, softmax_nll
from .ops.shape import pad
from .primitive import Array
from .tensor import Tensor, to_array

__all__ = [
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "conv_transpose2d",
    "cross_entropy",
    "dropout",
    "elu",
    "fold",
    "l1_loss",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "pad",
    "prelu",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
    "unfold",
]


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


def prelu(input: Array, weight: Array) -> Tensor:
    """``input`` where positive, ``weight * input`` elsewhere, with a weight for each channel (axis 1) or one for all
    (He et al., 2015).

    >>> import tinygrad_lenet as tl
    >>> tl.prelu(tl.tensor([-2.0, 3.0]), tl.tensor([0.25]))
    tensor([-0.5,  3. ])
    """
    x, weight = _tensor(input), _tensor(weight)
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
    x = _tensor(input)
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
    x = _tensor(input)
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
        scale = scale * _tensor(weight).reshape(channel)
    out = (x - running_mean.reshape(channel)) * scale
    return out if bias is None else out + _tensor(bias).reshape(channel)


# Losses


def _reduce(values: Tensor, reduction: str, op: str, count: float | None = None) -> Tensor:
    if reduction == "mean":
        return values.mean() if count is None else values.sum() / count
    if reduction == "sum":
        return values.sum()
    if reduction == "none":
        return values
    raise ArgumentError(f"{op}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def _class_last(x: Tensor) -> Tensor:
    """(C,) as (1, C), and (N, C, d1, ...) as (N * d1 * ..., C)."""
    if x.ndim == 2:
        return x
    if x.ndim == 1:
        return x.unsqueeze(0)
    return x.permute(0, *range(2, x.ndim), 1).reshape(-1, x.shape[1])


def _target(target: Any) -> Tensor:
    """Lists of integers stay integers here: they are class indices."""
    if isinstance(target, (Tensor, np.ndarray, np.generic)):
        return target if isinstance(target, Tensor) else Tensor(target)
    found = np.asarray(target)
    return Tensor(found if found.dtype.kind in "iu" else target)


def _weight(op: str, weight: Any, x: Tensor) -> NDArray[Any] | None:
    """A factor for each class, in the dtype of the input."""
    if weight is None:
        return None
    classes, array = x.shape[min(1, x.ndim - 1)], to_array(weight, x.dtype)
    if array.shape != (classes,):
        raise ShapeError(f"{op}: there are {classes} classes, weight must have shape ({classes},), got {array.shape}")
    return array


def _classes(op: str, x: Tensor, target: Tensor, ignore_index: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """The class indices, flat, those to ignore as 0; and which count, None if all do."""
    classes = x.shape[min(1, x.ndim - 1)]
    expected = x.shape[:1] * (x.ndim > 1) + x.shape[2:]
    if target.shape != expected:
        raise ShapeError(
            f"{op}: input of shape {x.shape} (batch, classes, ...) needs class indices of shape {expected}, "
            f"got {target.shape}"
        )
    if target.dtype.kind not in "iu":
        raise DTypeError(f"{op}: class indices must be integers, got {target.dtype}; convert: target.astype('int64')")
    index = target._data.reshape(-1)
    if not 0 <= ignore_index < classes and ((index >= 0) & (index < classes)).all():
        return index, None
    counts = index != ignore_index
    wrong = counts & ((index < 0) | (index >= classes))
    if wrong.any():
        raise ArgumentError(
            f"{op}: there are {classes} classes, 0 … {classes - 1}, but a target is {index[wrong][0]} "
            f"(ignore_index is {ignore_index})"
        )
    return np.where(counts, index, 0), counts


def _factor(index: NDArray[Any], counts: NDArray[np.bool_] | None, weight: Any, dtype: Any) -> NDArray[Any]:
    """What each target counts: the weight of its class, 0 if it is to be ignored."""
    factor = np.ones(index.shape, dtype) if weight is None else weight[index]
    return factor if counts is None else factor * counts


def _average(
    op: str,
    losses: Tensor,
    shape: tuple[int, ...],
    index: NDArray[Any],
    counts: NDArray[np.bool_] | None,
    weight: Any,
    reduction: str,
) -> Tensor:
    """Losses of single targets, weighted and reduced."""
    if weight is None and counts is None:
        return _reduce(losses if losses.shape == shape else losses.reshape(shape), reduction, op)
    factor = _factor(index, counts, weight, losses.dtype)
    weighted = losses * factor
    return _reduce(
        (weighted if counts is None else select(weighted, counts)).reshape(shape), reduction, op, factor.sum()
    )


def nll_loss(
    input: Array, target: Array, weight: Array | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """Negative log-likelihood: ``-weight[target] * input[target]``, PyTorch's ``nll_loss``.

    Args:
        input: log-probabilities, (N, C), (N, C, d1, ...) or (C,).
        target: class indices, (N,), (N, d1, ...) or ().
        weight: (C,), a factor for each class, or None.
        ignore_index: targets of this value count for nothing.
        reduction: ``"mean"`` (over the weights of the targets that count), ``"sum"`` or ``"none"``.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.nll_loss(tl.tensor([[-1.0, -2.0], [-3.0, -4.0]]), [0, 1])
    tensor(2.5)
    """
    x, target = _tensor(input), _target(target)
    if not x.ndim:
        raise ShapeError("nll_loss: input needs an axis of classes, got a tensor without axes")
    weight = _weight("nll_loss", weight, x)
    index, counts = _classes("nll_loss", x, target, ignore_index)
    picked = -_class_last(x)[np.arange(index.size), index]
    return _average("nll_loss", picked, target.shape, index, counts, weight, reduction)


def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy on logits, ``-sum over c of weight[c] * p[c] * log_softmax(input)[c]``, PyTorch's
    ``cross_entropy``.

    Stable: finite for logits of ±1e4 in float32.

    Args:
        input: logits, (N, C), (N, C, d1, ...) or (C,).
        target: class indices, (N,), (N, d1, ...) or (); or probabilities, floats of the shape of ``input``.
        weight: (C,), a factor for each class, or None.
        ignore_index: class indices of this value count for nothing.
        reduction: ``"mean"`` (over the weights of the targets that count; over N for probabilities), ``"sum"`` or
            ``"none"``.
        label_smoothing: the share of each target that is spread evenly over all classes (Szegedy et al., 2016).

    >>> import tinygrad_lenet as tl
    >>> logits = tl.tensor([[2.0, 0.0], [0.0, 0.0]], requires_grad=True)
    >>> loss = tl.cross_entropy(logits, [0, 1])
    >>> loss.backward()
    >>> f"{loss.item():.4f}"
    '0.4100'
    >>> print(logits.grad.numpy().round(2))
    [[-0.06  0.06]
     [ 0.25 -0.25]]
    """
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"cross_entropy: label_smoothing lies between 0 and 1, got {label_smoothing}")
    x, target = _tensor(input), _target(target)
    if not x.ndim:
        raise ShapeError("cross_entropy: input needs an axis of classes, got a tensor without axes")
    weight = _weight("cross_entropy", weight, x)
    logits = _class_last(x)
    classes = logits.shape[1]
    if target.dtype.kind == "f" and target.shape == x.shape:
        p = _class_last(target) * (1 - label_smoothing) + label_smoothing / classes
        losses = -(log_softmax(logits) * (p if weight is None else p * weight)).sum(axis=1)
        return _reduce(losses.reshape(x.shape[:1] * (x.ndim > 1) + x.shape[2:]), reduction, "cross_entropy")
    index, counts = _classes("cross_entropy", x, target, ignore_index)
    if weight is None and counts is None and not label_smoothing and reduction == "mean" and index.size:
        return softmax_nll(logits, index, True)
    losses = softmax_nll(logits, index)
    loss = _average("cross_entropy", losses, target.shape, index, counts, weight, reduction)
    if not label_smoothing:
        return loss
    logp = log_softmax(logits)
    spread = -(logp if weight is None else logp * weight).sum(axis=1)
    spread = (spread if counts is None else select(spread, counts)).reshape(target.shape)
    uniform = _reduce(spread, reduction, "cross_entropy", _factor(index, counts, weight, x.dtype).sum())
    return loss * (1 - label_smoothing) + uniform * (label_smoothing / classes)


def _check_same(op: str, input: Tensor, target: Tensor) -> None:
    if input.shape != target.shape:
        raise ShapeError(
            f"{op}: input {input.shape} and target {target.shape} must have one shape; broadcasting here is "
            "nearly always a mistake"
        )


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Tensor:
    """Squared error, ``(input - target)^2``; the two must have one shape."""
    input, target = _tensor(input), _tensor(target)
    _check_same("mse_loss", input, target)
    return _reduce(square(input - target), reduction, "mse_loss")


def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Tensor:
    """Absolute error, ``|input - target|``; the two must have one shape. Its gradient is 0 where they are equal."""
    input, target = _tensor(input), _tensor(target)
    _check_same("l1_loss", input, target)
    return _reduce(_abs(input - target), reduction, "l1_loss")


def binary_cross_entropy_with_logits(
    input: Array, target: Array, weight: Array | None = None, reduction: str = "mean", pos_weight: Array | None = None
) -> Tensor:
    """Cross-entropy of ``sigmoid(input)`` with targets between 0 and 1, stable for any finite logit.

    ``weight * (pos_weight * target * softplus(-input) + (1 - target) * softplus(input))``

    Args:
        input: logits, any shape.
        target: probabilities of the same shape.
        weight: a factor that broadcasts to that shape, or None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        pos_weight: a factor for the positive term, or None.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.binary_cross_entropy_with_logits(tl.tensor([0.0, 1e4]), tl.tensor([1.0, 1.0]))
    tensor(0.3465736)
    """
    input, target = _tensor(input), _tensor(target)
    _check_same("binary_cross_entropy_with_logits", input, target)
    positive = target * softplus(-input, threshold=np.inf)
    losses = (positive if pos_weight is None else positive * pos_weight) + (1 - target) * softplus(
        input, threshold=np.inf
    )
    return _reduce(losses if weight is None else losses * weight, reduction, "binary_cross_entropy_with_logits")
