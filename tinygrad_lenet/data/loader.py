"""Batches of Tensors from a data set, epoch after epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arguments import entries, flag, function, integer, said
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.creation import Seed, generator_of
from ..tensor import Tensor
from .augmentation import Transform
from .dataset import as_dataset


class DataLoader:
    """Go through a data set in batches; each ``for`` loop over the loader is one epoch.

    A batch is a tuple of Tensors that hold the samples along their first axis; of one Tensor if a sample is no tuple.
    Arrays keep their dtype; Python numbers become float32 and int64. The last batch may be smaller than the others.

    The order of epoch k depends on the seed and on k alone: ``default_rng([seed, k]).permutation(len(dataset))`` of
    ``np.random``, and ``transform`` gets ``default_rng([seed, k, number of the batch])``. So a run can be repeated, and
    one that stopped goes on: after k epochs with ``loader.epoch = k``, in the middle of one with :meth:`state_dict`.

    Args:
        dataset: a data set (:class:`MNIST`, any object with ``__len__`` and ``__getitem__``), an array, or a tuple of
            arrays or Tensors of equal length. A data set with a true attribute ``batched`` is asked for a whole batch,
            with an array of indices, and gives new arrays; others are asked sample by sample, with an int.
        batch_size: the number of samples in a batch.
        shuffle: a new random order in each epoch, or else the order of the data set.
        seed: an integer, or a generator to draw one from; None draws a fresh one.
        drop_last: leave out a last batch that is smaller than the others.
        transform: what is done to the first part of each batch, usually the images: a function of an array and a NumPy
            generator, such as :class:`Compose`.

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
        transform: Transform | None = None,
    ) -> None:
        self.dataset = as_dataset(dataset)
        self.batch_size = integer("DataLoader", "batch_size", batch_size, 1)
        self.shuffle = flag("DataLoader", "shuffle", shuffle)
        if seed is None or isinstance(seed, np.random.Generator):
            seed = int(generator_of(seed).integers(2**63))
        self.seed = integer("DataLoader", "seed", seed, 0)
        self.drop_last = flag("DataLoader", "drop_last", drop_last)
        self.transform = None if transform is None else function("DataLoader", "transform", transform)
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

    @property
    def epoch(self) -> int:
        """The number of the next epoch, from 0."""
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        number = integer("DataLoader", "epoch", number, 0)
        self._epoch, self._first, self._next = number, 0, (number, 0)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        epoch, first = self.epoch, self._first
        self.epoch, self._next = epoch + 1, (epoch, first)
        size = len(self.dataset)
        order = np.random.default_rng([self.seed, epoch]).permutation(size) if self.shuffle else np.arange(size)
        return self._batches(epoch, first, order)

    def _batches(self, epoch: int, first: int, order: NDArray[np.int64]) -> Iterator[tuple[Tensor, ...]]:
        step = self.batch_size
        for i in range(first, len(self)):
            indices = order[i * step : (i + 1) * step]
            parts = self._fetch(indices)
            if self.transform is not None and len(parts):
                generator = np.random.default_rng([self.seed, epoch, i])
                parts = (self.transform(np.asarray(parts[0]), generator), *parts[1:])
            for part in parts:  # else images would get other images' labels
                if np.shape(part)[:1] != indices.shape:
                    raise ShapeError(
                        f"DataLoader: the data set or the transform gave {said(part)} for a batch of {len(indices)} "
                        "samples, expected as many along the first axis"
                    )
            self._next = (epoch, i + 1) if i + 1 < len(self) else (epoch + 1, 0)
            yield tuple(map(_to_tensor, parts))

    def _fetch(self, indices: NDArray[np.int64]) -> Sequence[Any]:
        if getattr(self.dataset, "batched", False):
            found = self.dataset[indices]
            return found if isinstance(found, tuple) else (found,)
        return _collate([self.dataset[i] for i in indices.tolist()])

    def state_dict(self) -> dict[str, int]:
        """Which batch comes next: its number and its epoch, of the iteration that gave one last; and the seed."""
        epoch, batch = self._next
        return {"seed": self.seed, "epoch": epoch, "batch": batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next iteration begin where :meth:`state_dict` was taken.

        >>> import numpy as np
        >>> from tinygrad_lenet.data import DataLoader
        >>> loader, other = (DataLoader(np.arange(8), batch_size=2, shuffle=True, seed=0) for _ in range(2))
        >>> batches = iter(loader)
        >>> _ = next(batches), next(batches)
        >>> other.load_state_dict(loader.state_dict())
        >>> [x.tolist() for (x,) in other] == [x.tolist() for (x,) in batches]
        True
        """
        given = entries("DataLoader", state, "batch", "seed", "epoch")
        batch, seed, epoch = (
            integer("DataLoader", name, value, 0) for name, value in zip(("batch", "seed", "epoch"), given, strict=True)
        )
        if batch >= len(self):
            raise ArgumentError(
                f"DataLoader: the state is of batch {batch}, but there are {len(self)}; is it the same?"
            )
        self.seed, self.epoch = seed, epoch
        self._first, self._next = batch, (epoch, batch)

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
    try:
        arrays = [np.asarray(value) for value in values]
    except (ValueError, OverflowError) as error:
        raise ShapeError(f"DataLoader: a sample of the data set is no array of numbers ({error})") from None
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
