"""What a loader can draw from: anything with a length and an index, and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..arguments import integer, listed, said
from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from ..ops.creation import Seed, generator_of
from ..tensor import Tensor, to_array


class Dataset(Protocol):
    """Samples by number: ``dataset[i]`` is a number, an array, a Tensor, or a tuple of these.

    With a true attribute ``batched``, ``dataset[indices]`` takes an array of integers and gives new arrays that hold
    the samples along their first axis; a loader then fetches a batch at once.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...


class Columns:
    """Arrays of equal length as one data set: sample i is element i of each."""

    batched = True

    def __init__(self, columns: Sequence[Any]) -> None:
        for i, column in enumerate(columns):
            if not isinstance(column, (np.ndarray, Tensor)):
                raise DTypeError(
                    f"data set: element {i} of the tuple is a {type(column).__name__}, expected an array or a Tensor; "
                    "pass np.asarray(it)"
                )
        try:
            self.columns = [to_array(column) for column in columns]
        except DTypeError as error:
            raise DTypeError(f"data set: {error}") from None
        shapes = [column.shape for column in self.columns]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ShapeError(
                f"data set: got arrays of the shapes {shapes}, expected one or more, equally long on the first "
                "axis; cut the longer ones"
            )

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        return tuple(column[index] for column in self.columns)


def as_dataset(data: Any) -> Dataset:
    """An array or a tuple of arrays as a data set; a data set as it is."""
    if isinstance(data, (np.ndarray, Tensor)):
        return Columns((data,))
    if isinstance(data, tuple):
        return Columns(data)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, (type, str, bytes, Mapping)):
        dataset: Dataset = data
        return dataset
    raise DTypeError(
        f"data set: got a {type(data).__name__}, expected an array, a tuple of arrays, or an object with __len__ and "
        "__getitem__; list(it) may be one"
    )


class Subset:
    """Some samples of a data set, in the order of ``indices``. Nothing is copied.

    Args:
        dataset: a data set, an array, or a tuple of arrays of equal length.
        indices: which samples: integers, a slice, or a boolean array of the length of the data set.

    Raises:
        OutOfRangeError: no such sample.
        ShapeError: indices of more than one axis.

    >>> import numpy as np
    >>> from tinygrad_lenet.data import Subset
    >>> tens = np.arange(0, 60, 10)
    >>> Subset(tens, [5, 0])[:]
    (array([50,  0]),)
    >>> len(Subset(tens, tens > 20))
    3
    """

    def __init__(self, dataset: Any, indices: Any) -> None:
        self.dataset = as_dataset(dataset)
        self.batched = getattr(self.dataset, "batched", False)
        size = len(self.dataset)
        if isinstance(indices, Tensor):
            indices = indices.numpy()
        try:
            self.indices: NDArray[np.int64] = np.arange(size)[
                indices if isinstance(indices, (slice, np.ndarray)) else list(indices)
            ]
        except (IndexError, TypeError, ValueError) as error:
            raise OutOfRangeError(
                f"Subset: indices: {error}; expected integers below {size}, a slice, or a boolean array of "
                f"length {size}"
            ) from None
        if self.indices.ndim != 1:
            raise ShapeError(f"Subset: indices of shape {self.indices.shape}, expected one axis; pass indices.ravel()")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        try:
            chosen = self.indices[index.numpy() if isinstance(index, Tensor) else index]
        except Exception as error:
            raise OutOfRangeError(f"Subset: index: {error}; it has {len(self)} samples, got {said(index)}") from None
        return self.dataset[chosen if isinstance(chosen, np.ndarray) else int(chosen)]

    def __repr__(self) -> str:
        return f"Subset({len(self)} of {len(self.dataset)} samples)"


def random_split(dataset: Any, lengths: Sequence[int], seed: Seed = None) -> list[Subset]:
    """Deal the samples out at random, each to exactly one part.

    Args:
        dataset: a data set, an array, or a tuple of arrays of equal length.
        lengths: the number of samples of each part; together, all.
        seed: an integer for the same split every time, a generator to draw from, or None for another split each time.

    Returns:
        One :class:`Subset` for each length.

    Raises:
        ArgumentError: the lengths do not add up to the data set's, or one is negative.

    >>> import numpy as np
    >>> from tinygrad_lenet.data import random_split
    >>> random_split(np.zeros((10, 3)), [8, 2], seed=0)
    [Subset(8 of 10 samples), Subset(2 of 10 samples)]
    """
    data = as_dataset(dataset)
    given = listed("random_split", "lengths", lengths, "a list of integers")
    counts = [integer("random_split", "each of lengths", length, 0) for length in given]
    if sum(counts) != len(data):
        raise ArgumentError(
            f"random_split: lengths {counts} add up to {sum(counts)}, expected the {len(data)} samples of the data; "
            "let the last one be what remains"
        )
    order = generator_of(seed, "random_split: seed").permutation(len(data))
    return [Subset(data, part) for part in np.split(order, np.cumsum(counts)[:-1])] if counts else []
