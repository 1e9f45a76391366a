"""Batches of Tensors from a data set, epoch after epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.creation import Seed, generator_of
from ..tensor import Tensor
from .dataset import as_dataset, integer


class DataLoader:
    """Go through a data set in batches; each ``for`` loop over the loader is one epoch.

    A batch is a tuple of Tensors that hold the samples along their first axis; of one Tensor if a sample is no tuple.
    Arrays keep their dtype; Python numbers become float32 and int64. The last batch may be smaller than the others.

    The order of epoch k depends on the seed and on k alone: ``default_rng([seed, k]).permutation(len(dataset))`` of
    ``np.random``. So a run can be repeated, and one that stopped after k epochs goes on with ``loader.epoch = k``.

    Args:
        dataset: a data set (:class:`MNIST`, any object with ``__len__`` and ``__getitem__``), an array, or a tuple of
            arrays or Tensors of equal length. A data set with a true attribute ``batched`` is asked for a whole batch,
            with an array of indices, and gives new arrays; others are asked sample by sample, with an int.
        batch_size: the number of samples in a batch.
        shuffle: a new random order in each epoch, or else the order of the data set.
        seed: an integer, or a generator to draw one from; None draws a fresh one.
        drop_last: leave out a last batch that is smaller than the others.

    Attributes:
        epoch: the number of the next epoch, from 0.
        seed: the integer in use.

    Raises:
        ShapeError: arrays of unequal length; on iteration, samples that differ in shape or number of parts.
        ArgumentError: no samples, or no whole batch with ``drop_last``; ``batch_size`` below 1; a negative seed.
        DTypeError: something that is not a data set; on iteration, samples that are neither numbers nor arrays.

    >>> import numpy as np
    >>> from tinygrad_lenet.data import DataLoader
    >>> x, y = np.zeros((5, 1, 2, 2), np.float32), np.arange(5)
    >>> loader = DataLoader((x, y), batch_size=2)
    >>> len(loader)
    3
    >>> for images, labels in loader:
    ...     print(images.shape, labels.tolist())
    (2, 1, 2, 2) [0, 1]
    (2, 1, 2, 2) [2, 3]
    (1, 1, 2, 2) [4]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 64,
        shuffle: bool = False,
        seed: Seed = None,
        drop_last: bool = False,
    ) -> None:
        self.dataset = as_dataset(dataset)
        self.batch_size = integer("DataLoader: batch_size", batch_size, least=1)
        self.shuffle = shuffle
        if seed is None or isinstance(seed, np.random.Generator):
            seed = int(generator_of(seed).integers(2**63))
        self.seed = integer("DataLoader: seed", seed, least=0)
        self.drop_last = drop_last
        self.epoch = 0
        if not len(self.dataset):
            raise ArgumentError(
                "DataLoader: the data set has no samples, expected at least one; check what was selected for it"
            )
        if not len(self):
            raise ArgumentError(
                f"DataLoader: {len(self.dataset)} samples with drop_last=True make no batch of {self.batch_size}, "
                "expected at least one; choose a smaller batch_size"
            )

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        size, step = len(self.dataset), self.batch_size
        order = np.random.default_rng([self.seed, self.epoch]).permutation(size) if self.shuffle else np.arange(size)
        self.epoch += 1
        return (self._batch(order[i * step : (i + 1) * step]) for i in range(len(self)))

    def _batch(self, indices: NDArray[np.int64]) -> tuple[Tensor, ...]:
        if getattr(self.dataset, "batched", False):
            found = self.dataset[indices]
            return tuple(map(_to_tensor, found if isinstance(found, tuple) else (found,)))
        return tuple(map(_to_tensor, _collate([self.dataset[i] for i in indices.tolist()])))

    def __repr__(self) -> str:
        order = f"shuffle=True, seed={self.seed}" if self.shuffle else "shuffle=False"
        return f"DataLoader({len(self.dataset)} samples, batch_size={self.batch_size}, {order})"


def _collate(samples: list[Any]) -> list[NDArray[Any]]:
    """Samples as arrays that hold them along their first axis, one for each part of a sample."""
    rows = [sample if isinstance(sample, tuple) else (sample,) for sample in samples]
    counts = set(map(len, rows))
    if len(counts) > 1:
        raise ShapeError(
            f"DataLoader: found samples of {sorted(counts)} parts in one batch, expected as many in each; "
            "correct the data set"
        )
    return [_stack(part) for part in zip(*rows, strict=True)]


def _stack(values: tuple[Any, ...]) -> NDArray[Any]:
    arrays = [np.asarray(value) for value in values]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ShapeError(
            f"DataLoader: found samples of the shapes {sorted(shapes)} in one batch, expected one shape; crop or pad "
            "them in the data set, or, if these are arrays that belong together, pass them as a tuple, not as a list"
        )
    stacked = np.stack(arrays)
    if stacked.dtype == np.float64 and not hasattr(values[0], "dtype"):
        return stacked.astype(np.float32)  # as all numbers that come without a dtype
    return stacked


def _to_tensor(part: Any) -> Tensor:
    array = np.asarray(part)
    if array.dtype.kind not in "fiub":
        raise DTypeError(
            f"DataLoader: the data set gave {array.dtype}, expected numbers or arrays of numbers, or a tuple of these; "
            "convert them in its __getitem__"
        )
    # A copy where a change of the batch would reach the data set.
    private = array.base is None and array.flags.writeable and array.dtype.isnative
    return Tensor._wrap(array) if private else Tensor(array)
