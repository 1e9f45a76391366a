"""Data sets, the loader, and parts of data sets."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_files import REPOSITORY, Tiny, put

import tinygrad_lenet as tl
from tinygrad_lenet.data import DataLoader, Subset, random_split
from tinygrad_lenet.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError

REAL = REPOSITORY / "examples" / "data" / "mnist"
few = settings(max_examples=50, deadline=None)


@pytest.fixture
def tiny(tmp_path):
    return Tiny(put(tmp_path / "tiny"), train=False, normalize=False)


# Loading


def orders(loader, epochs=1):
    return [np.concatenate([batch[-1].numpy() for batch in loader]).tolist() for _ in range(epochs)]


class Pairs:
    """A data set that knows samples only."""

    def __init__(self, *columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns[0])

    def __getitem__(self, index):
        assert type(index) is int
        return tuple(column[index] for column in self.columns)


class Views:
    """A data set that gives whole batches, but breaks the rule that they are new."""

    batched = True

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index[0] : index[-1] + 1]


@few
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**70), st.booleans())
def test_each_epoch_is_a_permutation(n, size, seed, drop_last):
    if drop_last and n < size:
        with pytest.raises(ArgumentError, match="smaller batch_size"):
            DataLoader(np.arange(n), size, drop_last=True)
        return
    loader = DataLoader(np.arange(n), size, shuffle=True, seed=seed, drop_last=drop_last)
    first, second = (list(loader) for _ in range(2))
    for batches in (first, second):
        lengths = [len(x) for (x,) in batches]
        assert len(lengths) == len(loader) == (n // size if drop_last else -(-n // size))
        assert set(lengths[:-1]) <= {size}
        assert lengths[-1] == (size if drop_last else n - size * (len(loader) - 1))
        values = np.concatenate([x.numpy() for (x,) in batches])
        assert len(set(values.tolist())) == len(values) == sum(lengths)
    again = DataLoader(np.arange(n), size, shuffle=True, seed=seed, drop_last=drop_last)
    again.epoch = 1  # as a run that goes on after one epoch
    assert orders(again) == [np.concatenate([x.numpy() for (x,) in second]).tolist()]


def test_orders_depend_on_seed_and_epoch_alone():
    data = np.arange(50)
    one, two = (orders(DataLoader(data, 7, shuffle=True, seed=3), 4) for _ in range(2))
    assert one == two
    assert one[2] == np.random.default_rng([3, 2]).permutation(50).tolist()  # as documented
    others = orders(DataLoader(data, 7, shuffle=True, seed=4), 4)
    assert len({tuple(order) for order in one + others}) == 8
    loader = DataLoader(data, 7, shuffle=True, seed=3)
    next(iter(loader))  # an epoch that is broken off counts
    assert orders(loader, 3) == one[1:]


def test_loops_over_one_loader_may_be_nested():
    loader = DataLoader(np.arange(6), 2, shuffle=True, seed=0)
    outer, inner = iter(loader), iter(loader)
    pairs = [(x.tolist(), y.tolist()) for (x,), (y,) in zip(outer, inner, strict=True)]
    expected = orders(DataLoader(np.arange(6), 2, shuffle=True, seed=0), 2)
    assert [list(itertools.chain(*parts)) for parts in zip(*pairs, strict=True)] == expected


def test_seeds_may_be_generators_or_fresh():
    data = np.arange(50)
    drawn = [DataLoader(data, shuffle=True, seed=np.random.default_rng(5)) for _ in range(2)]
    assert orders(drawn[0]) == orders(drawn[1])
    shared = np.random.default_rng(5)
    assert DataLoader(data, seed=shared).seed != DataLoader(data, seed=shared).seed
    fresh = DataLoader(data, shuffle=True)
    assert fresh.seed != DataLoader(data, shuffle=True).seed
    assert orders(fresh) == orders(DataLoader(data, shuffle=True, seed=fresh.seed))


def test_without_shuffle_the_order_is_the_data_sets():
    assert orders(DataLoader(np.arange(10), 3), 2) == [list(range(10))] * 2


def test_all_kinds_of_data_sets_agree(tiny):
    images, labels = tiny[:]
    kinds = [
        tiny,
        (images, labels),
        (tl.tensor(images), tl.tensor(labels)),
        Pairs(images, labels),
        Pairs(list(map(tl.tensor, images)), labels.tolist()),
        list(zip(images, labels, strict=True)),
        Subset(tiny, slice(None)),
        Subset(Pairs(images, labels), range(7)),
    ]
    for kind in kinds:
        batches = list(DataLoader(kind, 3, shuffle=True, seed=9))
        assert [len(x) for x, _ in batches] == [3, 3, 1]
        for x, y in batches:
            assert isinstance(x, tl.Tensor)
            assert (x.dtype, y.dtype, x.shape[1:]) == (np.float32, np.int64, (1, 5, 3))
            np.testing.assert_array_equal(x.numpy(), images[y.numpy()])
        order = np.random.default_rng([9, 0]).permutation(7)
        np.testing.assert_array_equal(np.concatenate([y.numpy() for _, y in batches]), order)


def test_dtypes_stay_and_numbers_get_the_usual_ones():
    for dtype in ("u1", "i2", "f4", "f8", "?", ">f4"):
        ((x,),) = DataLoader(np.ones((3, 2), dtype))
        assert x.dtype == np.dtype(dtype).newbyteorder("=")
    foreign = type("Foreign", (Views,), {"__getitem__": lambda self, index: self.data[index]})(np.ones(3, ">f4"))
    ((x,),) = DataLoader(foreign)
    assert x.dtype.isnative
    ((x, y, z, (w, _)),) = DataLoader([(1.5, 1, True, [1.0, 2.0]), (2.5, 2, False, [3.0, 4.0])])
    assert [t.dtype for t in (x, y, z, w)] == [np.float32, np.int64, np.bool_, np.float32]
    ((x,),) = DataLoader([np.float64(1), np.float64(2)])
    assert x.dtype == np.float64


def test_changing_a_batch_leaves_the_data_alone():
    for wrap in (lambda a: a, lambda a: (a,), Pairs, list, Views):
        data = np.zeros((4, 2), np.float32)
        for (x,) in DataLoader(wrap(data), 4):
            x += 1
            assert x.tolist() == [[1, 1]] * 4
        assert not data.any()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"dataset": (np.zeros(3), np.zeros(4))}, ShapeError, r"\[\(3,\), \(4,\)\].*of equal length"),
        ({"dataset": ()}, ShapeError, r"shapes \[\], expected one or more"),
        ({"dataset": np.array(1.0)}, ShapeError, r"shapes \[\(\)\]"),
        ({"dataset": ([1, 2], np.zeros(2))}, DTypeError, "element 0 .* list.*np.asarray"),
        ({"dataset": np.array(["a"])}, DTypeError, "U1"),
        ({"dataset": iter([1, 2])}, DTypeError, "list_iterator.*list"),
        ({"dataset": []}, ArgumentError, "no samples"),
        ({"dataset": np.zeros((0, 3))}, ArgumentError, "no samples"),
        ({"dataset": np.zeros(3), "batch_size": 0}, ArgumentError, "batch_size must be at least 1, got 0"),
        ({"dataset": np.zeros(3), "batch_size": 2.5}, DTypeError, "batch_size must be an integer, got 2.5"),
        ({"dataset": np.zeros(3), "seed": -1}, ArgumentError, "seed must be at least 0, got -1"),
        ({"dataset": np.zeros(3), "seed": "one"}, DTypeError, "seed must be an integer"),
    ],
)
def test_arguments_that_cannot_be(arguments, error, words):
    with pytest.raises(error, match=words):
        DataLoader(**arguments)


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        ([np.zeros(2), np.zeros(3)], ShapeError, r"sample 1 has shape \(3,\), but sample 0 has shape \(2,\)"),
        ([(1, 2), (1, 2, 3)], ShapeError, "sample 1 has length 3, but sample 0 has length 2"),
        (["a", "b"], DTypeError, "U1"),
        ([None], DTypeError, "object"),
    ],
)
def test_samples_that_make_no_batch(samples, error, words):
    with pytest.raises(error, match=words):
        list(DataLoader(samples))


# Parts of a data set


@few
@given(st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(sum), st.integers(0, 2**32))
def test_a_split_deals_out_every_sample_once(lengths, seed):
    data = np.arange(sum(lengths))
    parts = random_split(data, lengths, seed)
    assert [len(part) for part in parts] == lengths
    dealt = [part[:][0].tolist() for part in parts]
    assert sorted(itertools.chain(*dealt)) == data.tolist()
    assert dealt == [part[:][0].tolist() for part in random_split(data, lengths, seed)]


def test_splits_differ_by_seed():
    splits = [random_split(np.arange(50), [25, 25], seed)[0][:][0].tolist() for seed in (0, 1, None, None)]
    assert len(set(map(tuple, splits))) == 4


def test_a_split_needs_fitting_lengths():
    for lengths in ([3, 3], [], [11]):
        with pytest.raises(ArgumentError, match="the 10 samples"):
            random_split(np.zeros(10), lengths)
    with pytest.raises(ArgumentError, match="at least 0, got -1"):
        random_split(np.zeros(10), [11, -1])
    with pytest.raises(ArgumentError, match=r"fractions must add up to 1"):
        random_split(np.zeros(10), [0.5, 0.4])


def test_subsets(tiny):
    part = Subset(tiny, tiny.labels > 3)
    assert repr(part) == "Subset(3 of 7 samples)"
    assert [label for _, label in part] == [4, 5, 6]
    assert Subset(part, (2, 0))[:][1].tolist() == [6, 4]
    assert Subset(tiny, [-1])[0][1] == 6
    assert len(Subset(tiny, [])) == 0
    for indices in ([7], [0.5], np.ones(6, bool)):
        with pytest.raises(OutOfRangeError, match=r"Subset: .*expected integers below 7"):
            Subset(tiny, indices)
    with pytest.raises(DTypeError, match=r"Subset: indices must be integers, .* got 3"):
        Subset(tiny, 3)
    with pytest.raises(OutOfRangeError, match=r"Subset\(3 of 7 samples\): index .* below 3"):
        part[3]
    with pytest.raises(ShapeError, match="one axis"):
        Subset(tiny, [[0, 1]])


def test_importing_data_imports_no_network():
    heavy = {"gzip", "http.client", "tempfile", "urllib.request"}
    code = f"import sys, tinygrad_lenet.data; print(*{heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("\n", "")
