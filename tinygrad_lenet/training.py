"""Small comforts for a training loop that you write yourself: each stands alone, and none hides the loop.

A batch too large for the memory needs nothing of this: gradients add up in ``.grad`` until ``zero_grad``, so
``(loss / parts).backward()`` for each part of the batch, then one ``optimizer.step()``, is a step of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ArgumentError, GradientError, OutOfRangeError, ShapeError
from .functional import cross_entropy
from .graph import no_grad
from .nn import Module, first_nonfinite
from .tensor import Tensor, to_array

__all__ = [
    "EarlyStopping",
    "Evaluation",
    "ExponentialMovingAverage",
    "accuracy",
    "check_finite",
    "confusion_matrix",
    "evaluate",
]


def accuracy(logits: Any, labels: Any) -> float:
    """The share of rows of logits (N, C) whose largest is the label (N,).

    Raises:
        ShapeError: not as many labels as rows, or none.

    >>> import tinygrad_lenet as tl
    >>> tl.training.accuracy(tl.tensor([[0.1, 0.9], [0.8, 0.2]]), [1, 1])
    0.5
    """
    scores, targets = to_array(logits), np.asarray(to_array(labels))
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ShapeError(f"accuracy: expected logits (N, C) and labels (N,), got {scores.shape} and {targets.shape}")
    if not len(targets):
        raise ShapeError("accuracy: there are no samples, expected at least one")
    return float((scores.argmax(1) == targets).mean())


def confusion_matrix(labels: Any, predictions: Any, num_classes: int) -> NDArray[np.int64]:
    """How often a sample of class i (row) was taken for class j (column), (num_classes, num_classes).

    Raises:
        ArgumentError: the classes are no integers.
        OutOfRangeError: a class beyond ``num_classes``.
        ShapeError: not as many labels as predictions.

    >>> from tinygrad_lenet.training import confusion_matrix
    >>> confusion_matrix([0, 1, 1], [0, 1, 0], num_classes=2)
    array([[1, 0],
           [1, 1]])
    """
    true, found = (np.asarray(x.numpy() if isinstance(x, Tensor) else x) for x in (labels, predictions))
    if true.ndim != 1 or true.shape != found.shape:
        raise ShapeError(f"confusion_matrix: expected two lists of classes (N,), got {true.shape} and {found.shape}")
    both = np.concatenate([true, found])
    if both.dtype.kind not in "iub" and both.size:
        raise ArgumentError(f"confusion_matrix: classes must be integers, got {both.dtype}; pass logits.argmax(1)")
    if both.size and not 0 <= both.min() <= both.max() < num_classes:
        raise OutOfRangeError(
            f"confusion_matrix: classes must lie in 0 … {num_classes - 1}, got {both.min()} … {both.max()}"
        )
    counts = np.bincount(true.astype(np.int64) * num_classes + found.astype(np.int64), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found: mean loss, accuracy, and for each sample its logits (N, C) and label (N,).

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> found = tl.training.evaluate(nn.Identity(), [(tl.eye(2), tl.tensor([0, 0], dtype="int64"))])
    >>> found.accuracy, found.logits.shape, found.confusion.tolist()
    (0.5, (2, 2), [[1, 1], [0, 0]])
    """

    loss: float
    accuracy: float
    logits: NDArray[Any]
    labels: NDArray[Any]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """See :func:`confusion_matrix`."""
        return confusion_matrix(self.labels, self.logits.argmax(1), self.logits.shape[1])


def evaluate(
    model: Module, loader: Iterable[tuple[Any, ...]], loss: Callable[..., Tensor] = cross_entropy
) -> Evaluation:
    """Go through a loader of (inputs, labels) with the model in evaluation mode, and leave it in the mode it had.

    ``loss(logits, labels, reduction="sum")`` is asked for the loss of each batch.

    Raises:
        ArgumentError: the loader gives no batch.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import data, nn
    >>> x, y = np.eye(3, dtype=np.float32), np.arange(3)
    >>> tl.training.evaluate(nn.Identity(), data.DataLoader((x, y), batch_size=2)).accuracy
    1.0
    """
    modes = [(module, module.training) for module in model.modules()]
    total, logits, labels = 0.0, [], []
    try:
        model.eval()
        with no_grad():
            for inputs, targets in loader:
                scores = model(inputs)
                total += loss(scores, targets, reduction="sum").item()
                logits.append(scores.numpy())
                labels.append(np.asarray(to_array(targets)))
    finally:
        for module, mode in modes:
            module.training = mode
    if not labels:
        raise ArgumentError("evaluate: the loader gave no batch, expected at least one")
    scores, targets = np.concatenate(logits), np.concatenate(labels)
    return Evaluation(total / len(targets), accuracy(scores, targets), scores, targets)


def check_finite(model: Module, loss: Tensor, *inputs: Any) -> None:
    """After ``loss.backward()`` and before ``optimizer.step()``: raise if the loss or a gradient is NaN or infinite,
    and say which layer was the first to go wrong. Takes about a hundredth of a step of LeNet-5.

    Raises:
        GradientError: with the words of :func:`tinygrad_lenet.nn.first_nonfinite` for the inputs; or, if the loss is
            finite, the parameter nearest to the loss whose gradient is not.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Linear(1, 1, generator=0)
    >>> x = tl.ones(1, 1)
    >>> loss = model(x).sum()
    >>> loss.backward()
    >>> tl.training.check_finite(model, loss, x)
    >>> with tl.no_grad():
    ...     model.weight[...] = float("nan")
    >>> tl.training.check_finite(model, model(x).sum(), x)
    Traceback (most recent call last):
    tinygrad_lenet.errors.GradientError: the loss is nan: parameter weight holds nan in 1 of 1 elements
    """
    if not np.isfinite(loss.item()):
        where = first_nonfinite(model, *inputs) or "the loss itself is the first; what the model gives is finite"
        raise GradientError(f"the loss is {loss.item()}: {where}")
    for name, parameter in reversed(list(model.named_parameters())):
        grad = parameter.grad
        if grad is not None and not np.isfinite(grad.numpy()).all():
            raise GradientError(f"the loss is {loss.item()}, but the gradient of {name} is not finite")


class ExponentialMovingAverage:
    """The average of a model's weights over the last steps, which often generalises better than the last weights
    (Polyak & Juditsky, *Acceleration of stochastic approximation by averaging*, 1992).

    ``average = d * average + (1 - d) * weights`` after each step t, with ``d = min(decay, (1 + t) / (10 + t))`` so that
    the first weights, which were drawn at random, are soon forgotten. Buffers, such as running statistics, are averaged
    too if they are floats, else copied.

    Args:
        model: the model; call :meth:`update` after each ``optimizer.step()``.
        decay: below 1; the average reaches about ``1 / (1 - decay)`` steps back.

    Raises:
        ArgumentError: ``decay`` outside of [0, 1).

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Linear(1, 1, generator=0)
    >>> average = tl.training.ExponentialMovingAverage(model, decay=0.5)
    >>> before = model.weight.item()
    >>> model.weight.data = model.weight.data + 1
    >>> average.update()
    >>> with average.applied():
    ...     round(model.weight.item() - before, 6)
    0.818182
    >>> round(model.weight.item() - before, 6)
    1.0
    """

    def __init__(self, model: Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ArgumentError(f"ExponentialMovingAverage: decay must lie in [0, 1), got {decay}")
        self.model, self.decay, self.steps = model, decay, 0
        self.averages = model.state_dict()

    def update(self) -> None:
        """Take the weights of now into the average."""
        self.steps += 1
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in self.model._tensors(remove_duplicate=False):
            average, now = self.averages[name], tensor.numpy()
            if average.dtype.kind == "f":
                average += (1 - d) * (now - average)
            else:
                average[...] = now

    @contextmanager
    def applied(self) -> Iterator[Module]:
        """Within it, the model has the averages as its weights."""
        own = self.model.state_dict()
        self.model.load_state_dict(self.averages)
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on."""
        return {"steps": self.steps, "averages": {name: array.copy() for name, array in self.averages.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        given = {name: np.shape(array) for name, array in state["averages"].items()}
        own = {name: array.shape for name, array in self.averages.items()}
        if given != own:
            raise ShapeError(f"ExponentialMovingAverage: the state is of weights {given}, this model has {own}")
        self.steps = int(state["steps"])
        self.averages = {name: np.array(state["averages"][name], array.dtype) for name, array in self.averages.items()}


class EarlyStopping:
    """Tells when a quantity has not become better for ``patience`` epochs.

    Args:
        patience: how many epochs without a better value are allowed.
        min_delta: by how much a value must be better to count.
        mode: ``"max"`` if larger is better, or ``"min"``.

    Raises:
        ArgumentError: an option outside of its range.

    >>> from tinygrad_lenet.training import EarlyStopping
    >>> watch = EarlyStopping(patience=2)
    >>> [watch.step(value) for value in (0.5, 0.7, 0.6, 0.7)]
    [True, True, False, False]
    >>> watch.stop, watch.best, watch.best_epoch
    (True, 0.7, 2)
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0, mode: str = "max") -> None:
        if mode not in ("max", "min") or patience < 1 or not min_delta >= 0:
            raise ArgumentError(
                "EarlyStopping: patience must be at least 1, min_delta 0 or more and mode 'max' or 'min'; got "
                f"{patience}, {min_delta}, {mode!r}"
            )
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.epoch, self.best_epoch, self.best = 0, 0, -np.inf if mode == "max" else np.inf

    def step(self, value: float) -> bool:
        """Take the value of another epoch; say whether it is the best so far."""
        self.epoch += 1
        gain = value - self.best if self.mode == "max" else self.best - value
        if not gain > self.min_delta:
            return False
        self.best, self.best_epoch = value, self.epoch
        return True

    @property
    def stop(self) -> bool:
        """Whether it is time."""
        return self.epoch - self.best_epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {"epoch": self.epoch, "best_epoch": self.best_epoch, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.epoch, self.best_epoch, self.best = (state[name] for name in ("epoch", "best_epoch", "best"))
