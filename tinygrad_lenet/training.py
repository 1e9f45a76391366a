"""Helpers for a training loop that you write yourself: metrics, evaluation, averaged weights, early stopping.

A batch that does not fit into memory needs no helper: gradients accumulate in ``.grad`` until ``zero_grad``. Call
``(loss / parts).backward()`` for each part of the batch, then ``optimizer.step()`` once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .checks import Decay, Function, NonNegative, Positive, entries, figure, instance, integer
from .core.modes import no_grad
from .core.python_object import numbers
from .core.signature import checked
from .core.tensor import Tensor
from .core.values import narrowed
from .errors import ArgumentError, DTypeError, GradientError, OutOfRangeError, ShapeError, brief, foreign
from .functional import cross_entropy
from .nn import Module, record_calls
from .nn.inspection import evaluating
from .nn.module import Model

__all__ = ["EarlyStopping", "Evaluation", "ExponentialMovingAverage"]
__all__ += ["accuracy", "check_finite", "confusion_matrix", "evaluate"]

Extreme: TypeAlias = Literal["max", "min"]


@checked
def accuracy(logits: Any, labels: Any) -> float:
    """The fraction of samples whose largest logit is that of the label, for logits (N, C) and labels (N,).

    Raises:
        ArgumentError: the labels are not integers.
        DTypeError: an argument does not hold numbers.
        OutOfRangeError: a label is not a class.
        ShapeError: the number of labels and rows differ, or there are none.

    >>> import tinygrad_lenet as tl
    >>> tl.training.accuracy(tl.tensor([[0.1, 0.9], [0.8, 0.2]]), [1, 1])
    0.5
    """
    scores, targets = numbers("logits", logits), numbers("labels", labels)
    if scores.ndim != 2 or not scores.size or targets.shape != scores.shape[:1]:
        expected = "logits (N, C), with samples and classes, and labels (N,)"
        raise ShapeError(f"expected {expected}, got {scores.shape} and {targets.shape}")
    right = scores.argmax(1) == _classes("labels", targets, scores.shape[1])
    return float((right & ~np.isnan(scores).any(1)).mean())  # a row with NaN has no largest logit


@checked
def confusion_matrix(labels: Any, predictions: Any, num_classes: int) -> NDArray[np.int64]:
    """The number of samples of class i (row) that were predicted as class j (column), (num_classes, num_classes).

    Raises:
        ArgumentError: the classes are not integers.
        DTypeError: an argument does not hold numbers.
        OutOfRangeError: a class is not below ``num_classes``.
        ShapeError: the numbers of labels and predictions differ.

    >>> from tinygrad_lenet.training import confusion_matrix
    >>> confusion_matrix([0, 1, 1], [0, 1, 0], num_classes=2)
    array([[1, 0],
           [1, 1]])
    """
    num_classes = integer("num_classes", num_classes, 1, 10_000)
    true, predicted = _classes("labels", labels, num_classes), _classes("predictions", predictions, num_classes)
    if true.ndim != 1 or true.shape != predicted.shape:
        raise ShapeError(f"expected two lists of classes (N,), got {true.shape} and {predicted.shape}")
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def _classes(name: str, value: Any, count: int) -> NDArray[np.int64]:
    """An array of class numbers below ``count``."""
    array = numbers(name, value)
    if array.dtype.kind == "f" and not (array == np.floor(array)).all():
        raise ArgumentError(f"{name} must be integers, got {array.dtype}; pass logits.argmax(1)")
    if array.size and not 0 <= array.min() <= array.max() < count:
        raise OutOfRangeError(f"{name} must lie in 0 ... {count - 1}, got {array.min()} ... {array.max()}")
    return array.astype(np.int64)


@dataclass(frozen=True)
class Evaluation:
    """The results of :func:`evaluate`: mean loss, accuracy, and the logits (N, C) and labels (N,) of all samples.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> result = tl.training.evaluate(nn.Identity(), [(tl.eye(2), tl.tensor([0, 0], dtype="int64"))])
    >>> result.accuracy, result.logits.shape, result.confusion.tolist()
    (0.5, (2, 2), [[1, 1], [0, 0]])
    """

    loss: float
    accuracy: float
    logits: NDArray[Any] = field(repr=False)
    labels: NDArray[Any] = field(repr=False)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """The :func:`confusion_matrix` of labels and predictions."""
        return confusion_matrix(self.labels, self.logits.argmax(1), self.logits.shape[1])


@checked
def evaluate(model: Model, loader: Iterable[tuple[Any, ...]], loss: Function = cross_entropy) -> Evaluation:
    """Evaluate a model on all batches (inputs, labels) of a loader.

    The model is in evaluation mode meanwhile, and returns to its own mode. The loss of a batch is
    ``loss(logits, labels, reduction="sum")``.

    Raises:
        DTypeError: an argument has the wrong type.
        ShapeError: the shapes of logits and labels do not fit together.
        ArgumentError: the loader yields no batch, or the labels are not integers.
        OutOfRangeError: a label is not a class.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import data, nn
    >>> x, y = np.eye(3, dtype=np.float32), np.arange(3)
    >>> tl.training.evaluate(nn.Identity(), data.DataLoader((x, y), batch_size=2)).accuracy
    1.0
    """
    if not isinstance(loader, Iterable) or isinstance(loader, (Tensor, np.ndarray)):
        raise DTypeError(f"loader must yield pairs of inputs and labels, got {brief(loader)}")
    total = 0.0
    logits: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    with evaluating(model), no_grad():
        for batch in loader:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise ShapeError(f"loader must yield pairs of inputs and labels, got {brief(batch)}")
            inputs, targets = batch
            with foreign:
                scores = model(inputs)
            instance("the output of the model", scores, Tensor)
            if scores.ndim != 2 or (logits and scores.shape[1] != logits[0].shape[1]):
                raise ShapeError(f"the model must return logits (N, C), with one C for all batches, got {scores.shape}")
            with foreign:
                total += loss(scores, targets, reduction="sum").item()
            logits.append(scores.numpy())
            labels.append(_classes("labels", targets, scores.shape[1]))
    if not labels:
        raise ArgumentError("the loader yields no batch, expected at least one")
    all_logits, all_labels = np.concatenate(logits), np.concatenate(labels)
    return Evaluation(total / len(all_labels), accuracy(all_logits, all_labels), all_logits, all_labels)


@checked
def check_finite(model: Model, loss: Tensor, *inputs: Any) -> None:
    """Raise an error if the loss or a gradient is NaN or infinite.

    Call it after ``loss.backward()`` and before ``optimizer.step()``. For LeNet-5, it takes about one percent of the
    time of a step.

    Raises:
        GradientError: if the loss is not finite, the message says where that began: in an input, a parameter, a buffer,
            or the output of a layer. If a gradient is not finite, it names the parameter nearest to the loss.

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
    tinygrad_lenet.errors.GradientError: check_finite: the loss is nan: parameter weight holds nan in 1 of 1 elements
    """
    if not np.isfinite(instance("loss", loss, Tensor).item()):
        raise GradientError(f"the loss is {loss.item()}: {_origin(model, inputs)}")
    for name, parameter in reversed(list(model.named_parameters())):
        grad = parameter.grad
        if grad is not None and not np.isfinite(grad.numpy()).all():
            raise GradientError(f"the loss is {loss.item()}, but the gradient of {name} is not finite")


def _origin(model: Module, inputs: tuple[Any, ...]) -> str:
    """Where the first NaN or infinity appears when the model is called with these inputs."""
    found = [(f"input {i}", x) for i, x in enumerate(inputs)]
    found += [(f"parameter {name}", p) for name, p in model.named_parameters()]
    found += [(f"buffer {name}", buffer) for name, buffer in model.named_buffers()]
    with no_grad(), record_calls(model) as calls, np.errstate(all="ignore"), foreign:
        model(*inputs)
    for call in calls:
        layer = f"the output of layer {call.name or 'itself'} ({type(call.module).__name__})"
        found += [(layer, x) for x in (call.output if isinstance(call.output, tuple) else (call.output,))]
    for name, x in found:
        values = x.numpy() if isinstance(x, Tensor) else np.asarray(x)
        bad = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        if bad.any():
            return f"{name} holds {values[bad][0]} in {bad.sum():,} of {values.size:,} elements"
    return "it begins in the loss itself; the output of the model is finite"


class ExponentialMovingAverage:
    """A moving average of a model's weights, which often generalises better than the last weights
    (Polyak & Juditsky, *Acceleration of stochastic approximation by averaging*, 1992).

    After each step t, ``average = d * average + (1 - d) * weights`` with ``d = min(decay, (1 + t) / (10 + t))``. The
    second term lets the random initial weights fade quickly. Buffers such as running statistics are averaged if they
    are floats, and copied otherwise.

    Args:
        model: the model; call :meth:`update` after each ``optimizer.step()``.
        decay: in [0, 1); the average reaches back about ``1 / (1 - decay)`` steps.

    Raises:
        ArgumentError: ``decay`` is outside [0, 1).

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

    @checked
    def __init__(self, model: Model, decay: Decay = 0.999) -> None:
        self.model, self.decay = model, decay
        self.steps = 0
        # An update adds about a thousandth of a weight, which float16 would round away.
        own = model.state_dict()
        self.averages = {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in own.items()}

    @checked
    def update(self) -> None:
        """Update the average with the current weights."""
        tensors = self.model._named_state()
        if {n: t.shape for n, t in tensors.items()} != {n: a.shape for n, a in self.averages.items()}:
            raise ShapeError("the names or shapes of the model's weights have changed; make a new average")
        self.steps += 1
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in tensors.items():
            average, now = self.averages[name], tensor.numpy()
            if average.dtype.kind == "f":
                average += (1 - d) * (now - average)
            else:
                average[...] = now

    def __repr__(self) -> str:
        return f"ExponentialMovingAverage(decay={self.decay}, {self.steps} steps)"

    @contextmanager
    def applied(self) -> Iterator[Module]:
        """A context in which the averages are the model's weights."""
        own = self.model.state_dict()
        self.model.load_state_dict(self.averages)
        try:
            yield self.model
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        """The state that a later run needs to continue."""
        return {"steps": self.steps, "averages": {name: array.copy() for name, array in self.averages.items()}}

    @checked
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of :meth:`state_dict`. Averages keep their dtype: float64 is rounded to float32."""
        steps, averages = entries(state, "steps", "averages")
        entries(averages)
        averages = self.model._renamed(averages)
        for name, _ in self.model._search(Tensor, remove_duplicate=False):
            if name not in self.averages:  # a Tensor that is not part of the state: earlier versions averaged it
                averages.pop(name, None)
        arrays = {name: numbers(str(name), array) for name, array in averages.items()}
        given = {name: array.shape for name, array in arrays.items()}
        own = {name: array.shape for name, array in self.averages.items()}
        if given != own:
            raise ShapeError(f"the state is of weights {given}, this model has {own}")
        self.steps = integer("steps", steps, 0)
        self.averages = {n: narrowed(n, arrays[n], array.dtype).copy() for n, array in self.averages.items()}


class EarlyStopping:
    """Stop when a metric has not improved for ``patience`` epochs.

    Args:
        patience: the number of epochs without improvement after which to stop.
        min_delta: the smallest difference that counts as an improvement.
        mode: ``"max"`` if larger is better, ``"min"`` if smaller is better.

    Raises:
        ArgumentError: an option is outside its range.

    >>> from tinygrad_lenet.training import EarlyStopping
    >>> watch = EarlyStopping(patience=2)
    >>> [watch.step(value) for value in (0.5, 0.7, 0.6, 0.7)]
    [True, True, False, False]
    >>> watch.stop, watch.best, watch.best_epoch
    (True, 0.7, 2)
    """

    @checked
    def __init__(self, patience: Positive = 5, min_delta: NonNegative = 0.0, mode: Extreme = "max") -> None:
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.epoch, self.best_epoch, self.best = 0, 0, -np.inf if mode == "max" else np.inf

    @checked
    def step(self, value: float | Tensor) -> bool:
        """Add the metric of an epoch; return whether it is the best so far."""
        value = figure("value", value)
        self.epoch += 1
        gain = value - self.best if self.mode == "max" else self.best - value
        if not gain > self.min_delta:
            return False
        self.best, self.best_epoch = value, self.epoch
        return True

    def __repr__(self) -> str:
        return f"EarlyStopping(patience={self.patience}, best={self.best} in epoch {self.best_epoch})"

    @property
    def stop(self) -> bool:
        """Return True to stop."""
        return self.epoch - self.best_epoch >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """The state that a later run needs to continue."""
        return {"epoch": self.epoch, "best_epoch": self.best_epoch, "best": self.best}

    @checked
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of :meth:`state_dict`."""
        epoch, best_epoch, best = entries(state, "epoch", "best_epoch", "best")
        epoch, best = integer("epoch", epoch, 0), figure("best", best)
        self.epoch, self.best_epoch, self.best = epoch, integer("best_epoch", best_epoch, 0, epoch), best
