"""Small comforts for a training loop that you write yourself: each stands alone, and none hides the loop.

A batch too large for the memory needs nothing of this: gradients add up in ``.grad`` until ``zero_grad``, so
``(loss / parts).backward()`` for each part of the batch, then one ``optimizer.step()``, is a step of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .checks import Decay, NonNegative, Positive, entries, figure, function, instance, integer, said
from .core.modes import no_grad
from .core.signature import checked
from .core.tensor import Tensor, to_array
from .core.values import narrowed
from .errors import ArgumentError, DTypeError, GradientError, OutOfRangeError, ShapeError, TinygradLenetError, foreign
from .functional import cross_entropy
from .nn import Module, first_nonfinite
from .nn.module import evaluating

__all__ = [
    "EarlyStopping",
    "Evaluation",
    "ExponentialMovingAverage",
    "accuracy",
    "check_finite",
    "confusion_matrix",
    "evaluate",
]

Extreme: TypeAlias = Literal["max", "min"]


@checked
def accuracy(logits: Any, labels: Any) -> float:
    """The share of rows of logits (N, C) whose largest is the label (N,).

    Raises:
        OutOfRangeError: a label that is no class, or an index that is not there.
        ShapeError: not as many labels as rows, or none.

    >>> import tinygrad_lenet as tl
    >>> tl.training.accuracy(tl.tensor([[0.1, 0.9], [0.8, 0.2]]), [1, 1])
    0.5
    """
    scores, targets = _array("logits", logits), _array("labels", labels)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ShapeError(f"expected logits (N, C) and labels (N,), got {scores.shape} and {targets.shape}")
    if not scores.size:
        raise ShapeError("logits hold no samples or no classes, expected at least one")
    wrong = targets[~((targets >= 0) & (targets < scores.shape[1]) & (targets == np.floor(targets)))]
    if wrong.size:
        raise OutOfRangeError(f"labels are the numbers of classes, 0 … {scores.shape[1] - 1}, got {wrong[0]}")
    right = scores.argmax(1) == targets
    return float((right & ~np.isnan(scores).any(1)).mean())  # what is NaN has no largest


def _array(name: str, value: Any) -> NDArray[Any]:
    """An array of numbers."""
    try:
        array = to_array(value)
    except TinygradLenetError as error:
        raise type(error)(f"in {name}: {error}") from None
    return array.astype(np.int8) if array.dtype == np.bool_ else array


@checked
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
    num_classes = integer("num_classes", num_classes, 1, 10_000)
    true, found = _classes("labels", labels), _classes("predictions", predictions)
    if true.ndim != 1 or true.shape != found.shape:
        raise ShapeError(f"expected two lists of classes (N,), got {true.shape} and {found.shape}")
    for name, given in (("labels", true), ("predictions", found)):
        if given.size and not 0 <= given.min() <= given.max() < num_classes:
            raise OutOfRangeError(f"{name} must lie in 0 … {num_classes - 1}, got {given.min()} … {given.max()}")
    counts = np.bincount(true.astype(np.int64) * num_classes + found.astype(np.int64), minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def _classes(name: str, value: Any) -> NDArray[Any]:
    """Numbers of classes; in a list, integers stay what they are."""
    try:
        array = np.asarray(value.numpy() if isinstance(value, Tensor) else value)
    except Exception as error:  # whatever an object of the user's own raises
        raise ShapeError(f"{name} must be a list of integers ({error})") from None
    if array.dtype.kind not in "iub" and (array.size or array.dtype.kind != "f"):
        raise ArgumentError(f"{name} must be integers, got {array.dtype}; pass logits.argmax(1)")
    return array


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


@checked
def evaluate(
    model: Module, loader: Iterable[tuple[Any, ...]], loss: Callable[..., Tensor] = cross_entropy
) -> Evaluation:
    """Go through a loader of (inputs, labels) with the model in evaluation mode, and leave it in the mode it had.

    ``loss(logits, labels, reduction="sum")`` is asked for the loss of each batch.

    Raises:
        DTypeError: an argument of another type.
        ShapeError: shapes that do not fit.
        ArgumentError: the loader gives no batch.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import data, nn
    >>> x, y = np.eye(3, dtype=np.float32), np.arange(3)
    >>> tl.training.evaluate(nn.Identity(), data.DataLoader((x, y), batch_size=2)).accuracy
    1.0
    """
    instance("model", model, Module)
    function("loss", loss)
    if not isinstance(loader, Iterable) or isinstance(loader, (Tensor, np.ndarray)):
        raise DTypeError(f"loader must give pairs of inputs and labels, got {said(loader)}")
    total = 0.0
    logits: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    with evaluating(model), no_grad():
        for batch in loader:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise ShapeError(f"loader must give pairs of inputs and labels, it gave {said(batch)}")
            inputs, targets = batch
            with foreign:
                scores = model(inputs)
            instance("what the model gives", scores, Tensor)
            labels.append(_array("labels", targets))
            if (
                scores.ndim != 2
                or labels[-1].shape != scores.shape[:1]
                or (logits and scores.shape[1] != logits[0].shape[1])
            ):
                raise ShapeError(
                    f"expected logits (N, C) from the model, as many classes each time, and labels (N,), "
                    f"got {scores.shape} and {labels[-1].shape}"
                )
            with foreign:
                total += loss(scores, targets, reduction="sum").item()
            logits.append(scores.numpy())
    if not labels:
        raise ArgumentError("the loader gave no batch, expected at least one")
    all_logits, all_labels = np.concatenate(logits), np.concatenate(labels)
    return Evaluation(total / len(all_labels), accuracy(all_logits, all_labels), all_logits, all_labels)


@checked
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
    tinygrad_lenet.errors.GradientError: check_finite: the loss is nan: parameter weight holds nan in 1 of 1 elements
    """
    instance("model", model, Module)
    if not np.isfinite(instance("loss", loss, Tensor).item()):
        with foreign:
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

    @checked
    def __init__(self, model: Module, decay: Decay = 0.999) -> None:
        self.model, self.decay = instance("model", model, Module), decay
        self.steps = 0
        # The last steps are a thousandth of a weight: too little to be added to float16.
        self.averages = {
            name: array.astype(np.float32) if array.dtype == np.float16 else array
            for name, array in model.state_dict().items()
        }

    @checked
    def update(self) -> None:
        """Take the weights of now into the average."""
        tensors = self.model._named_state()
        if {n: t.shape for n, t in tensors.items()} != {n: a.shape for n, a in self.averages.items()}:
            raise ShapeError("the model has got other weights than it had when the average was made; make a new one")
        self.steps += 1
        d = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, tensor in tensors.items():
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

    @checked
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken. Averages keep their dtype: float64 is rounded to float32."""
        steps, averages = entries(state, "steps", "averages")
        entries(averages)
        arrays = {name: _array(str(name), array) for name, array in averages.items()}
        given = {name: array.shape for name, array in arrays.items()}
        own = {name: array.shape for name, array in self.averages.items()}
        if given != own:
            raise ShapeError(f"the state is of weights {given}, this model has {own}")
        self.steps = integer("steps", steps, 0)
        self.averages = {
            name: narrowed(name, arrays[name], array.dtype).copy() for name, array in self.averages.items()
        }


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

    @checked
    def __init__(self, patience: Positive = 5, min_delta: NonNegative = 0.0, mode: Extreme = "max") -> None:
        self.patience, self.min_delta, self.mode = patience, min_delta, mode
        self.epoch, self.best_epoch, self.best = 0, 0, -np.inf if mode == "max" else np.inf

    @checked
    def step(self, value: float | Tensor) -> bool:
        """Take the value of another epoch; say whether it is the best so far."""
        value = figure("value", value)
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

    @checked
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        epoch, best_epoch, best = entries(state, "epoch", "best_epoch", "best")
        epoch, best = integer("epoch", epoch, 0), figure("best", best)
        self.epoch, self.best_epoch, self.best = epoch, integer("best_epoch", best_epoch, 0, epoch), best
