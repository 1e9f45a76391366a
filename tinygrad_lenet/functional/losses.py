"""Losses, with PyTorch's names, arguments and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.activations import relu, softplus
from ..ops.elementwise import abs, select, where
from ..ops.maths import exp, log, square
from ..ops.reduction import log_softmax, softmax_nll
from ..primitive import Array, composite
from ..tensor import Tensor, as_tensor, to_array

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "nll_loss",
    "smooth_l1_loss",
]


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


def _classes(
    op: str, x: Tensor, target: Tensor, ignore_index: int | None = None
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
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
    if (ignore_index is None or not 0 <= ignore_index < classes) and ((index >= 0) & (index < classes)).all():
        return index, None
    counts = np.ones(index.shape, np.bool_) if ignore_index is None else index != ignore_index
    wrong = counts & ((index < 0) | (index >= classes))
    if wrong.any():
        raise ArgumentError(
            f"{op}: there are {classes} classes, 0 … {classes - 1}, but a target is {index[wrong][0]}"
            + ("" if ignore_index is None else f" (ignore_index is {ignore_index})")
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


@composite
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

    Raises:
        ArgumentError: a class that there is not, or an unknown reduction.
        DTypeError: the class indices are no integers.
        ShapeError: target or weight does not fit the input.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.nll_loss(tl.tensor([[-1.0, -2.0], [-3.0, -4.0]]), [0, 1])
    tensor(2.5)
    """
    x, target = as_tensor(input), _target(target)
    if not x.ndim:
        raise ShapeError("nll_loss: input needs an axis of classes, got a tensor without axes")
    weight = _weight("nll_loss", weight, x)
    index, counts = _classes("nll_loss", x, target, ignore_index)
    picked = -_class_last(x)[np.arange(index.size), index]
    return _average("nll_loss", picked, target.shape, index, counts, weight, reduction)


@composite
def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Softmax cross-entropy on logits, ``-sum over c of weight[c] * p[c] * log_softmax(input)[c]``, PyTorch's
    ``cross_entropy``: for a class index ``-log(share of that class)``.

    Stable: finite for logits of ±1e4 in float32. Its gradient is ``(softmax(input) - p) / N``.

    Args:
        input: logits, (N, C), (N, C, d1, ...) or (C,).
        target: class indices, (N,), (N, d1, ...) or (); or probabilities, floats of the shape of ``input``.
        weight: (C,), a factor for each class, or None.
        ignore_index: class indices of this value count for nothing.
        reduction: ``"mean"`` (over the weights of the targets that count; over N for probabilities), ``"sum"`` or
            ``"none"``.
        label_smoothing: the share of each target that is spread evenly over all classes (Szegedy et al., 2016).

    Raises:
        ArgumentError: a class that there is not, an unknown reduction, or a smoothing outside of 0 … 1.
        DTypeError: the targets are neither integers nor probabilities.
        ShapeError: target or weight does not fit the input.

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
    x, target = as_tensor(input), _target(target)
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


@composite
def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Tensor:
    """Squared error, ``(input - target)^2``, of two tensors of one shape; the mean, the sum, or (``"none"``) each.

    Raises:
        ArgumentError: an unknown reduction.
        ShapeError: the shapes differ; broadcasting here is nearly always a mistake.

    >>> import tinygrad_lenet as tl
    >>> tl.mse_loss(tl.tensor([1.0, 2.0]), tl.tensor([1.0, 4.0]))
    tensor(2.)
    """
    input, target = as_tensor(input), as_tensor(target)
    _check_same("mse_loss", input, target)
    return _reduce(square(input - target), reduction, "mse_loss")


@composite
def l1_loss(input: Array, target: Array, reduction: str = "mean") -> Tensor:
    """Absolute error, ``|input - target|``, of two tensors of one shape; the mean, the sum, or (``"none"``) each. Its
    gradient is 0 where they are equal.

    Raises:
        ArgumentError: an unknown reduction.
        ShapeError: the shapes differ.

    >>> import tinygrad_lenet as tl
    >>> tl.l1_loss(tl.tensor([1.0, 2.0]), tl.tensor([1.0, 4.0]), reduction="none")
    tensor([0., 2.])
    """
    input, target = as_tensor(input), as_tensor(target)
    _check_same("l1_loss", input, target)
    return _reduce(abs(input - target), reduction, "l1_loss")


@composite
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

    Raises:
        ArgumentError: an unknown reduction.
        ShapeError: the shapes differ.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.binary_cross_entropy_with_logits(tl.tensor([0.0, 1e4]), tl.tensor([1.0, 1.0]))
    tensor(0.3465736)
    """
    input, target = as_tensor(input), as_tensor(target)
    _check_same("binary_cross_entropy_with_logits", input, target)
    positive = target * softplus(-input, threshold=np.inf)
    losses = (positive if pos_weight is None else positive * pos_weight) + (1 - target) * softplus(
        input, threshold=np.inf
    )
    return _reduce(losses if weight is None else losses * weight, reduction, "binary_cross_entropy_with_logits")


@composite
def huber_loss(input: Array, target: Array, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """``d^2 / 2`` for ``d = |input - target|`` up to ``delta``, ``delta * (d - delta / 2)`` beyond (Huber, 1964); the
    two must have one shape.

    Raises:
        ArgumentError: ``delta`` is not above 0, or an unknown reduction.
        ShapeError: the shapes differ.

    >>> import tinygrad_lenet as tl
    >>> tl.huber_loss(tl.tensor([0.5, 3.0]), tl.zeros(2), reduction="none")
    tensor([0.125, 2.5  ])
    """
    if not delta > 0:
        raise ArgumentError(f"huber_loss: delta must be above 0, got {delta}")
    return _reduce(_huber("huber_loss", input, target, delta), reduction, "huber_loss")


def _huber(op: str, input: Array, target: Array, delta: float) -> Tensor:
    x, y = as_tensor(input), as_tensor(target)
    _check_same(op, x, y)
    d = abs(x - y)
    return where(d <= delta, square(d) * 0.5, delta * (d - 0.5 * delta))


@composite
def smooth_l1_loss(input: Array, target: Array, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """:func:`huber_loss` with ``delta=beta``, divided by ``beta``, so that the slope is 1 beyond; with ``beta=0`` the
    absolute error (Girshick, *Fast R-CNN*, 2015).

    Raises:
        ArgumentError: ``beta`` is below 0, or an unknown reduction.
        ShapeError: the shapes differ.

    >>> import tinygrad_lenet as tl
    >>> tl.smooth_l1_loss(tl.tensor([0.5, 3.0]), tl.zeros(2), reduction="none")
    tensor([0.125, 2.5  ])
    """
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss: beta must be 0 or more, got {beta}")
    if not beta:
        return l1_loss(input, target, reduction)
    return _reduce(_huber("smooth_l1_loss", input, target, beta) / beta, reduction, "smooth_l1_loss")


@composite
def kl_div(input: Array, target: Array, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Kullback and Leibler's divergence ``target * (log(target) - input)``, element by element; where the target is 0,
    it is 0.

    Args:
        input: logarithms of probabilities.
        target: probabilities of the same shape, or their logarithms.
        reduction: ``"batchmean"`` (the sum over the length of the first axis: the divergence as defined), ``"mean"``
            (over all elements), ``"sum"`` or ``"none"``.
        log_target: whether the target is logarithms.

    Raises:
        ArgumentError: an unknown reduction.
        ShapeError: the shapes differ.

    >>> import tinygrad_lenet as tl
    >>> half = tl.tensor([[0.5, 0.5]])
    >>> tl.kl_div(half.log(), tl.tensor([[1.0, 0.0]]), reduction="batchmean")  # log(2)
    tensor(0.6931472)
    """
    x, y = as_tensor(input), as_tensor(target)
    _check_same("kl_div", x, y)
    if log_target:
        losses = exp(y) * (y - x)
    else:
        some = y > 0
        losses = select(y * (log(where(some, y, 1)) - where(some, x, 0)), some)
    if reduction == "batchmean":
        return losses.sum() / max(1, x.shape[0] if x.ndim else 1)
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError(f"kl_div: reduction must be 'batchmean', 'mean', 'sum' or 'none', got {reduction!r}")
    return _reduce(losses, reduction, "kl_div")


@composite
def multi_margin_loss(
    input: Array,
    target: Array,
    p: int = 1,
    margin: float = 1.0,
    weight: Array | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Multi-class hinge loss: the sum of ``max(0, margin - input[target] + input[j])^p`` over all other classes j, over
    the number of classes (Crammer & Singer, 2001; PyTorch's ``multi_margin_loss``); its gradient at the margin is 0.

    Args:
        input: scores, (N, C) or (C,).
        target: class indices, (N,) or ().
        p: 1 or 2.
        margin: by how much the score of the target shall be above the others.
        weight: (C,), a factor for each class of target, or None.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ArgumentError: ``p`` is neither 1 nor 2, a class that there is not, or an unknown reduction.
        DTypeError: the class indices are no integers.
        ShapeError: target or weight does not fit the input.

    >>> import tinygrad_lenet as tl
    >>> tl.multi_margin_loss(tl.tensor([[0.5, 0.0, 2.0]]), [0])  # (0.5 + 2.5) / 3
    tensor(1.)
    """
    if p not in (1, 2):
        raise ArgumentError(f"multi_margin_loss: p must be 1 or 2, got {p}")
    x, goal = as_tensor(input), _target(target)
    if x.ndim not in (1, 2):
        raise ShapeError(f"multi_margin_loss: expected scores of shape (N, C) or (C,), got {x.shape}")
    weights = _weight("multi_margin_loss", weight, x)
    scores = _class_last(x)
    index, _ = _classes("multi_margin_loss", x, goal)
    rows = np.arange(index.size)
    short = relu(margin - scores[rows, index].reshape(-1, 1) + scores)
    others = np.ones(scores.shape, np.bool_)
    others[rows, index] = False
    losses = select(short if p == 1 else square(short), others).sum(axis=1) / scores.shape[1]
    losses = losses if weights is None else losses * weights[index]
    return _reduce(losses.reshape(goal.shape), reduction, "multi_margin_loss")
