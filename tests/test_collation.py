"""How a loader makes one batch of samples that have parts: lists, tuples and dicts, also within each other."""

from collections import namedtuple
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import training
from tinygrad_lenet.data import DataLoader, Subset, random_split
from tinygrad_lenet.errors import DTypeError, ShapeError

few = settings(max_examples=100, deadline=None)
Pair = namedtuple("Pair", "image mask")
LEAVES = [
    lambda rng: rng.standard_normal((2, 3)).astype(np.float32),
    lambda rng: rng.integers(0, 9, (1,)),
    lambda rng: rng.standard_normal(),
    lambda rng: int(rng.integers(9)),
    lambda rng: bool(rng.integers(2)),
    lambda rng: np.float64(rng.standard_normal()),
    lambda rng: np.uint8(rng.integers(9)),
]


def structures(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: lambda rng: [part(rng) for part in parts]),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: lambda rng: tuple(part(rng) for part in parts)),
        st.tuples(inner, inner).map(lambda parts: lambda rng: Pair(*(part(rng) for part in parts))),
        st.dictionaries(st.sampled_from(["a", "b", 3]), inner, min_size=1, max_size=3).map(
            lambda parts: lambda rng: {name: part(rng) for name, part in parts.items()}
        ),
    )


def assert_same(ours, theirs):
    """The same structure, tuples in place of lists, and the same elements."""
    if isinstance(theirs, dict):
        assert type(ours) is dict
        assert list(ours) == list(theirs)
        for name in theirs:
            assert_same(ours[name], theirs[name])
    elif isinstance(theirs, (tuple, list)):
        assert type(ours) is (Pair if isinstance(theirs, Pair) else tuple)
        for a, b in zip(ours, theirs, strict=True):
            assert_same(a, b)
    else:
        assert isinstance(ours, tl.Tensor)
        assert ours.shape == tuple(theirs.shape)
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy().astype(ours.dtype))


@few
@given(st.recursive(st.sampled_from(LEAVES), structures, max_leaves=6), st.integers(1, 5), st.integers(0, 99))
def test_a_batch_has_the_parts_that_pytorch_gives_it(make, count, seed):
    collate = pytest.importorskip("torch.utils.data", reason="PyTorch, an oracle, is not installed").default_collate
    samples = [make(np.random.default_rng([seed, i])) for i in range(count)]
    (batch,) = DataLoader(samples)
    theirs = collate(samples)
    assert_same(batch, theirs if isinstance(theirs, (list, tuple, dict)) else [theirs])


def test_an_image_and_a_mask_of_one_shape_stay_two_parts():
    rng = np.random.default_rng(0)
    images, masks = rng.standard_normal((2, 5, 3, 3))
    lists = [[image, mask] for image, mask in zip(images, masks, strict=True)]

    class Whole:
        batched = True

        def __len__(self):
            return 5

        def __getitem__(self, index):
            return [images[index], masks[index]]

    for data in (lists, list(map(tuple, lists)), Subset(lists, range(5)), Whole(), (images, masks)):
        (batch,) = DataLoader(data)
        assert type(batch) is tuple
        for found, expected in zip(batch, (images, masks), strict=True):
            np.testing.assert_array_equal(found.numpy(), expected)
    first, second = random_split(lists, [3, 2], seed=0)
    assert [x.shape for x in next(iter(DataLoader(first)))] == [(3, 3, 3)] * 2
    assert len(next(iter(DataLoader(second)))[0]) == 2


def test_lists_of_an_image_and_a_label_train_a_model():
    samples = [[np.float32([i, -i]), int(i < 0)] for i in range(-3, 4)]
    result = training.evaluate(tl.nn.Identity(), DataLoader(samples, batch_size=2))
    assert (result.accuracy, result.logits.shape) == (1.0, (7, 2))
    with pytest.raises(ShapeError, match=r"^evaluate: loader must yield pairs of inputs and labels, got \{"):
        training.evaluate(tl.nn.Identity(), DataLoader([{"image": x, "label": y} for x, y in samples]))


def test_the_transform_gets_the_first_array():
    calls = []

    def transform(images, generator):
        calls.append(images.shape)
        return images + 1

    samples = [{"image": np.zeros(3), "pair": [1, 2]}, {"image": np.ones(3), "pair": [3, 4]}]
    (batch,) = DataLoader(samples, transform=transform)
    assert (batch["image"].tolist(), batch["pair"][1].tolist()) == ([[1] * 3, [2] * 3], [2, 4])
    (batch,) = DataLoader([[s["image"], s["pair"]] for s in samples], transform=transform)
    assert (batch[0].tolist(), batch[1][0].tolist()) == ([[1] * 3, [2] * 3], [1, 3])
    assert calls == [(2, 3)] * 2


def test_data_sets_of_pytorch_give_batches():
    torch = pytest.importorskip("torch", reason="PyTorch, an oracle, is not installed")
    data = torch.utils.data.TensorDataset(torch.arange(6.0).reshape(3, 2), torch.arange(3))
    ((x, y),) = DataLoader(data)
    assert (x.tolist(), y.tolist(), x.dtype) == ([[0, 1], [2, 3], [4, 5]], [0, 1, 2], np.float32)
    (part,) = DataLoader([MappingProxyType({"x": torch.ones(2)})])
    assert part["x"].shape == (1, 2)


ZEROS = np.zeros(2)


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([[ZEROS, 1]] * 3 + [[np.zeros(3), 1]], r"sample 3\[0\] has shape \(3,\), but sample 0\[0\] has shape \(2,\)"),
        ([[1, 2], [1, 2], [1]], "sample 2 has length 1, but sample 0 has length 2"),
        ([(1, 2), 1], r"sample 1 has shape \(\), but sample 0 has length 2"),
        ([{"x": [1]}, {"x": [1, 2]}], r"sample 1\['x'\] has length 2, but sample 0\['x'\] has length 1"),
        ([{"x": 1}, {"y": 1}], r"sample 1 has keys \[\"'y'\"\], but sample 0 has keys"),
        ([{"x": 1}, {"x": 1, "y": 1}], "sample 1 has keys"),
        ([{"x": 1}, [1]], "sample 1 has length 1, but sample 0 has keys"),
    ],
)
def test_samples_that_differ_are_named(samples, words):
    with pytest.raises(ShapeError, match="DataLoader: " + words):
        list(DataLoader(samples))
    turned = DataLoader(Subset(samples, range(len(samples))), shuffle=True, seed=1)
    with pytest.raises(ShapeError, match=r"DataLoader: sample \d"):
        list(turned)


def test_the_index_in_an_error_is_that_of_the_data_set():
    samples = [np.zeros(2)] * 7 + [np.zeros(3)]
    with pytest.raises(ShapeError, match=r"sample 7 has shape \(3,\), but sample 6 has"):
        list(DataLoader(samples, batch_size=3))


def test_other_parts_are_refused():
    for part in (None, "name", b"name", {1, 2}, object()):
        with pytest.raises(DTypeError, match="expected numbers or arrays of numbers"):
            list(DataLoader([[1, part], [2, part]]))
