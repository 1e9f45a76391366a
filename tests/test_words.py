"""Words that people bring along from PyTorch: new tensors, dtypes, seeds, modes and places; PyTorch is the judge."""

import copy
import importlib
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim
from tinygrad_lenet.ops import creation

DTYPES = (
    "bool double float float16 float32 float64 half int int16 int32 int64 int8 long short uint16 uint32 uint64 uint8"
)


def same(ours, theirs):
    """The same dtype, shape and values."""
    expected = theirs.detach().numpy()
    assert ours.dtype == expected.dtype
    np.testing.assert_array_equal(ours.numpy(), expected, strict=True)


# Dtypes


@pytest.mark.parametrize("name", DTYPES.split())
def test_a_dtype_by_name_is_what_pytorch_means(torch, name):
    dtype = getattr(tl, name)
    assert dtype == torch.zeros((), dtype=getattr(torch, name)).numpy().dtype
    for x in (
        tl.zeros(2, dtype=dtype),
        tl.ones(2).astype(dtype),
        tl.tensor([1.0], dtype=dtype),
        tl.arange(2, dtype=dtype),
    ):
        assert x.dtype is dtype
    assert np.zeros(2, dtype).dtype is dtype


# New tensors


@given(
    shape=st.lists(st.integers(0, 3), max_size=3).map(tuple),
    dtype=st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint8", "bool"]),
    other=st.none() | st.sampled_from(["float32", "float64", "int32", "bool"]),
)
def test_tensors_like_others(torch, shape, dtype, other):
    x, t = tl.ones(*shape, dtype=dtype), torch.ones(shape, dtype=getattr(torch, dtype))
    ours, theirs = ({}, {}) if other is None else ({"dtype": getattr(tl, other)}, {"dtype": getattr(torch, other)})
    same(tl.zeros_like(x, **ours), torch.zeros_like(t, **theirs))
    same(tl.ones_like(x, **ours), torch.ones_like(t, **theirs))
    same(tl.full_like(x, 3, **ours), torch.full_like(t, 3, **theirs))
    assert tl.empty(*shape, **ours).shape == shape
    for like, there in ((tl.rand_like, torch.rand_like), (tl.randn_like, torch.randn_like)):
        if tl.ones_like(x, **ours).dtype.kind == "f":
            found, expected = like(x, **ours), there(t, **theirs)
            assert (found.shape, found.dtype) == (tuple(expected.shape), expected.numpy().dtype)
        else:
            with pytest.raises(tl.DTypeError, match=f"{like.__name__}: .*floats.*randint"):
                like(x, **ours)


@pytest.mark.parametrize("make", [tl.zeros_like, tl.ones_like, tl.rand_like, tl.randn_like])
def test_a_tensor_like_a_leaf_is_a_leaf_of_its_own(make):
    x = tl.ones(2, requires_grad=True)
    assert not make(x).requires_grad
    y = make(x, requires_grad=True)
    (y * 3).sum().backward()
    assert (x.grad, y.grad.tolist()) == (None, [3, 3])
    assert make([1, 2]).dtype == make(2.5).dtype == np.float32


@given(
    start=st.integers(-9, 9) | st.floats(-9, 9),
    end=st.integers(-9, 9) | st.floats(-9, 9),
    steps=st.integers(0, 9),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_linspace(torch, start, end, steps, dtype):
    expected = torch.linspace(start, end, steps, dtype=getattr(torch, dtype)).numpy()
    for found in (
        tl.linspace(start, end, steps, dtype=getattr(tl, dtype)),
        tl.linspace(start, end=end, steps=steps, dtype=getattr(tl, dtype)),
        tl.linspace(start, stop=end, num=steps, dtype=getattr(tl, dtype)),
    ):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-6)


@given(
    low=st.integers(-300, 300),
    width=st.integers(1, 300),
    shape=st.lists(st.integers(0, 4), max_size=2).map(tuple),
    dtype=st.sampled_from(["int64", "int32", "int8", "uint8", "float32", "float16"]),
)
def test_random_integers_in_pytorchs_forms(torch, low, width, shape, dtype):
    high, options = low + width, {"generator": 1, "dtype": getattr(tl, dtype)}
    try:
        expected = torch.randint(low, high, shape, dtype=getattr(torch, dtype))
    except RuntimeError:  # out of bounds
        with pytest.raises(tl.DTypeError, match=f"randint: the result is {dtype}, which cannot hold"):
            tl.randint(low, high, shape, **options)
        return
    found = tl.randint(low, high, shape, **options)
    assert (found.shape, found.dtype) == (shape, expected.numpy().dtype)
    assert (low <= found.numpy().astype(int)).all()
    assert (found.numpy().astype(int) < high).all()
    for again in (
        tl.randint(low, high, size=shape, **options),
        tl.randint(low=low, high=high, size=list(shape), **options),
    ):
        np.testing.assert_array_equal(again.numpy(), found.numpy())


def test_random_integers_below_a_number():
    forms = [tl.randint(5, (99,), generator=0), tl.randint(5, size=(99,), generator=0)]
    forms += [tl.randint(high=5, size=(99,), generator=0), tl.randint(0, 5, (99,), generator=0)]
    for found in forms:
        assert found.dtype == np.int64
        assert {*found.tolist()} == {*range(5)}
        np.testing.assert_array_equal(found.numpy(), forms[0].numpy())
    for kind in (tl.float32, tl.int8):
        assert tl.randperm(9, dtype=kind).dtype == kind
    counts = np.bincount(tl.randint(6, (60_000,), generator=0).numpy())
    assert abs(counts - 10_000).max() < 500


@given(n=st.integers(0, 50), seed=st.integers(0, 99))
def test_random_permutations(n, seed):
    found = tl.randperm(n, generator=seed)
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == [*range(n)]
    np.testing.assert_array_equal(found.numpy(), tl.randperm(n, generator=seed).numpy())
    assert n < 9 or found.tolist() != tl.randperm(n, generator=seed + 1).tolist()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: tl.randint(5, 10), tl.DTypeError, r"randint: size must be a tuple of lengths, as in .*got 10"),
        (lambda: tl.randint(5), tl.DTypeError, "randint: size must be a tuple of lengths"),
        (lambda: tl.randint(5, 5, (2,)), tl.ArgumentError, "randint: high must be at least 6, got 5"),
        (lambda: tl.randint(0, (2,)), tl.ArgumentError, "randint: high must be at least 1, got 0"),
        (lambda: tl.randint(0, 2.5, (2,)), tl.DTypeError, "randint: high must be an integer, got 2.5"),
        (lambda: tl.randint(0, 9, (-2,)), tl.ArgumentError, "randint: a length in the shape must be at least 0"),
        (lambda: tl.randperm(-1), tl.ArgumentError, "randperm: n must be at least 0"),
        (lambda: tl.randperm(2.0), tl.DTypeError, "randperm: n must be an integer"),
        (lambda: tl.rand(2, dtype="int64"), tl.DTypeError, "rand: random numbers must be floats, got dtype int64"),
        (lambda: tl.linspace(0, 1, -1), tl.ArgumentError, "linspace: num must be at least 0"),
        (lambda: tl.diag(tl.ones(2, 2, 2)), tl.ShapeError, "diag: expected a vector or a matrix.*see diagonal"),
        (lambda: tl.diff(tl.tensor(1.0)), tl.AxisError, "diff: there is no axis -1"),
        (lambda: tl.diff(tl.ones(3), -1), tl.ArgumentError, "diff: n must be at least 0"),
        (
            lambda: tl.diff(tl.ones(2, 3), prepend=tl.ones(1, 3)),
            tl.ShapeError,
            "diff: the shapes may differ along axis 1",
        ),
        (lambda: tl.hstack([tl.ones(2, 3), tl.ones(1, 3)]), tl.ShapeError, "hstack: the shapes may differ"),
        (lambda: tl.vstack([]), tl.ArgumentError, "vstack: tensors must hold at least one"),
        (lambda: tl.hstack([]), tl.ArgumentError, "hstack: tensors must hold at least one"),
        (lambda: tl.manual_seed(-1), tl.ArgumentError, "manual_seed: seed must be at least 0"),
        (lambda: tl.set_grad_enabled("no"), tl.DTypeError, "mode must be True or False, got 'no'"),
    ],
)
def test_mistakes(call, error, words):
    with pytest.raises(error, match=words):
        call()
    assert tl.is_grad_enabled()


# Comparisons


@given(data=st.data())
def test_allclose(torch, data):
    values = st.sampled_from([0.0, 1.0, 1 + 1e-6, 1 + 1e-4, -1.0, np.inf, -np.inf, np.nan])
    x, y = (np.array(data.draw(st.lists(values, min_size=2, max_size=2))) for _ in "xy")
    equal_nan = data.draw(st.booleans())
    expected = torch.allclose(torch.tensor(x), torch.tensor(y), equal_nan=equal_nan)
    assert tl.allclose(tl.tensor(x), y, equal_nan=equal_nan) is expected
    assert tl.tensor(x).allclose(y, 1e-3, 0.0) is torch.tensor(x).allclose(torch.tensor(y), 1e-3, 0.0)


@pytest.mark.parametrize("name", ["arctan2", "logaddexp"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_functions_of_two_extremes_are_numpys(name, dtype):
    tiny, large = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    values = np.array([0.0, -0.0, 1, -1, tiny, -tiny, large, -large, np.inf, -np.inf, np.nan, 3.5, 700], dtype)
    x, y = values[:, None], values
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x, y)
        np.testing.assert_array_equal(getattr(tl, name)(x, y).numpy(), expected, strict=True)
        np.testing.assert_array_equal(getattr(np, name)(tl.tensor(x), y).numpy(), expected, strict=True)


def test_numpys_functions_of_these_names_are_recorded():
    x, y = tl.tensor([1.0, 4.0, 9.0], requires_grad=True), tl.ones(3)
    for found, op in (
        (np.arctan2(x, y), tl.arctan2(x, y)),
        (np.logaddexp(x, y), tl.logaddexp(x, y)),
        (np.diff(x, n=2), tl.diff(x, 2)),
        (np.diag(x), tl.diag(x)),
        (np.hstack([x, y]), tl.hstack([x, y])),
        (np.vstack([x, y]), tl.vstack([x, y])),
    ):
        assert found.requires_grad
        assert found.tolist() == op.tolist()
    assert np.isnan(x).tolist() == [False] * 3


# Seeds


def drawn():
    """The random numbers that need no generator of their own: new weights, dropout, the order of a loader."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.GRU(8, 3, num_layers=2, dropout=0.5))
    layers = [nn.LeNet5(), nn.Conv2d(2, 3, 3), nn.Embedding(5, 2), nn.ConvTranspose2d(2, 3, 3), nn.Dropout2d()]
    found = [p.numpy() for module in (model, *layers) for p in module.parameters()]
    x = tl.ones(6, 5, 4)
    found += [model(x)[0].detach().numpy(), tl.dropout(x).numpy(), layers[-1](tl.ones(2, 9, 1, 1)).numpy()]
    found += [draw(3, 4).numpy() for draw in (tl.rand, tl.randn)] + [tl.rand_like(x).numpy(), tl.randn_like(x).numpy()]
    found += [tl.randint(100, (20,)).numpy(), tl.randperm(50).numpy(), nn.init.normal_(tl.zeros(7)).numpy()]
    loader = data.DataLoader(np.arange(40.0), batch_size=8, shuffle=True, transform=lambda a, g: a + g.random(a.shape))
    found += [batch[0].numpy() for _ in range(2) for batch in loader]
    return found + [part.indices for part in data.random_split(np.arange(30), [20, 10])]


def equal(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def test_after_a_seed_everything_is_drawn_again():
    runs = []
    for seed in (0, 0, 1):
        generator = tl.manual_seed(seed)
        assert isinstance(generator, np.random.Generator)
        runs.append(drawn())
    assert equal(runs[0], runs[1])
    assert not any(a.tobytes() == b.tobytes() and a.std() for a, b in zip(runs[0], runs[2], strict=True))


def test_a_seed_reaches_the_dropout_of_a_model_that_was_made_after_one():
    tl.manual_seed(3)
    model, x = nn.Sequential(nn.Dropout(), nn.Dropout()), tl.ones(50)
    found = []
    for _ in range(2):
        tl.manual_seed(0)
        found.append(model(x).numpy())
    assert equal(found[:1], found[1:])
    assert not equal([model(x).numpy()], found[:1])  # it moves on


def test_without_a_seed_all_is_fresh_and_a_generator_of_its_own_is_left_alone():
    assert not creation.SHARED
    assert not equal([tl.rand(5).numpy()], [tl.rand(5).numpy()])
    before = tl.rand(5, generator=0).numpy()
    np.random.seed(0)  # noqa: NPY002  # somebody else's
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    tl.manual_seed(7)
    assert np.random.random() == expected  # noqa: NPY002
    assert equal([tl.rand(5, generator=0).numpy()], [before])
    assert equal([tl.rand(5, generator=7).numpy()], [tl.rand(5).numpy()])  # the same stream as that seed's


def test_the_state_of_a_seeded_model_is_saved_copied_and_continued():
    tl.manual_seed(0)
    model, x = nn.Sequential(nn.Dropout(), nn.Dropout()), tl.ones(50)
    state = model.random_state()
    expected = model(x).numpy()
    twins = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    model.load_random_state(state)
    assert equal([model(x).numpy()], [expected])
    for twin in twins:
        twin.load_random_state(state)
        assert equal([twin(x).numpy()], [expected])


@pytest.mark.parametrize("seeded", [False, True])
def test_a_compiled_function_draws_what_the_function_draws(seeded):
    generator = None if seeded else np.random.default_rng(0)

    def step(x):
        y = tl.dropout(x, generator=generator) + tl.rand_like(x, generator) + tl.randn_like(x, generator)
        return y * tl.randperm(4, generator) + tl.randint(9, (4,), generator=generator) + tl.randperm(4, generator=5)

    runs = []
    for function in (step, tl.compile(step), tl.compile(step, check=True)):
        if seeded:
            tl.manual_seed(1)
        else:
            generator.bit_generator.state = np.random.PCG64(1).state
        runs.append([function(tl.ones(4)).numpy() for _ in range(5)])
    assert function.replayed == 3
    assert equal(runs[0], runs[1])
    assert equal(runs[0], runs[2])


def test_a_checkpoint_draws_the_same_again():
    tl.manual_seed(0)
    x = tl.ones(20, requires_grad=True)
    y = tl.checkpoint(lambda x: tl.dropout(x.exp()).sin(), x)
    after = creation.SHARED[0].bit_generator.state
    y.sum().backward()
    assert creation.SHARED[0].bit_generator.state == after
    assert ((x.grad == 0).numpy() == (y == 0).numpy()).all()


# New functions inside a compiled function


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tl.arctan2(x, x + 1) + tl.logaddexp(x, 2.0) + tl.rsqrt(x),
        lambda x: tl.diff(x, prepend=0.0) + tl.diag(tl.diag(x)) + tl.where(tl.isnan(x), 0.0, x),
        lambda x: tl.hstack([x, x]) + tl.cat([x, x], 1) * tl.ones_like(tl.hstack([x, x])),
        lambda x: tl.vstack([x, x.diag()]).mm(x) * tl.isfinite(x[0]) + tl.zeros_like(x[0]),
    ],
)
def test_new_words_are_replayed(function):
    def step(x):
        y = function(x)
        (gradient,) = tl.grad(y.sum(), x)
        return y.detach(), gradient

    compiled, rng = tl.compile(step), np.random.default_rng(0)
    for _ in range(4):
        x = tl.tensor(rng.uniform(0.5, 2, (3, 3)), requires_grad=True)
        for a, b in zip(step(x), compiled(x), strict=True):
            assert equal([a.numpy()], [b.numpy()])
    assert compiled.replayed == 2


# Modes


def modes(library, x):
    """The state of recording after each statement of a program."""
    found = []

    def note():
        found.append((library.is_grad_enabled(), (x * 2).requires_grad))

    library.set_grad_enabled(False)
    note()
    with library.set_grad_enabled(True):
        note()
        with library.set_grad_enabled(False), library.enable_grad():
            note()
        note()
    note()
    library.set_grad_enabled(True)
    note()
    mode = library.set_grad_enabled(False)
    note()
    library.set_grad_enabled(True)
    for _ in range(2):
        with mode:
            note()
        note()
    with pytest.raises(KeyError), library.set_grad_enabled(mode=False):
        raise KeyError
    note()

    @library.set_grad_enabled(False)
    def inner(depth):
        note()
        if depth:
            inner(depth - 1)
        note()

    note()
    inner(2)
    note()
    with library.inference_mode():
        note()
        inner(0)
        note()

    @library.inference_mode()
    def infer():
        note()

    infer()
    note()
    with library.no_grad():
        library.set_grad_enabled(True)
        note()
    note()
    return found


def test_modes_are_pytorchs(torch):
    assert modes(tl, tl.ones(2, requires_grad=True)) == modes(torch, torch.ones(2, requires_grad=True))
    assert tl.is_grad_enabled()


def test_a_mode_is_that_of_its_thread():
    found = []
    tl.set_grad_enabled(False)
    try:
        thread = threading.Thread(target=lambda: found.append(tl.is_grad_enabled()))
        thread.start()
        thread.join()
        assert (found, tl.is_grad_enabled()) == ([True], False)
    finally:
        tl.set_grad_enabled(True)


# Places


def test_names_are_where_pytorch_has_them():
    F = importlib.import_module("tinygrad_lenet.nn.functional")
    assert tl.nn.functional is F
    for name in tl.functional.__all__:
        assert getattr(F, name) is getattr(tl.functional, name)
    schedules = importlib.import_module("tinygrad_lenet.optim.lr_scheduler")
    assert optim.lr_scheduler is schedules
    assert schedules.StepLR is optim.StepLR
    assert schedules.OneCycleLR is optim.OneCycleLR
    utils = importlib.import_module("tinygrad_lenet.nn.utils")
    assert nn.utils is utils
    assert utils.clip_grad_norm_ is optim.clip_grad_norm_


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_chunks_of_nothing_are_as_many_as_pytorchs(torch, chunks):
    found, expected = tl.chunk(tl.zeros(0, 2), chunks), torch.zeros(0, 2).chunk(chunks)
    assert [part.shape for part in found] == [tuple(part.shape) for part in expected]
