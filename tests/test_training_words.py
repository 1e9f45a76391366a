"""PyTorch's words of training: options of optimisers, closures, rates of groups, data."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, optim
from tinygrad_lenet.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError

RNG = np.random.default_rng
OPTIMIZERS = {
    "SGD": [{"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.9, "nesterov": True}, {"dampening": 0.5}],
    "Adam": [{"weight_decay": 0.1}, {"amsgrad": True}],
    "AdamW": [{"weight_decay": 0.1}],
    "RMSprop": [{"momentum": 0.9, "centered": True, "weight_decay": 0.1}],
    "Adagrad": [{"lr_decay": 0.1, "weight_decay": 0.1}],
}
CASES = [(name, options) for name, rows in OPTIMIZERS.items() for options in rows]


def both(torch, array):
    return tl.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)


# Optimisers


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_maximize_climbs_as_in_pytorch(torch, name, options):
    start = RNG(0).standard_normal((3, 4))
    for maximize in (True, False):
        ours, theirs = both(torch, start)
        a = getattr(optim, name)([ours], lr=0.02, maximize=maximize, **options)
        b = getattr(torch.optim, name)([theirs], lr=0.02, maximize=maximize, **options)
        for step in range(60):
            a.zero_grad(), b.zero_grad()
            (ours**2 - ours * 0.1 * step).sum().backward(), (theirs**2 - theirs * 0.1 * step).sum().backward()
            a.step(), b.step()
            np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_maximize_is_an_option_of_each_group_and_of_states(torch):
    ours, theirs = zip(*(both(torch, RNG(i).standard_normal(3)) for i in range(2)), strict=True)
    found = []
    for library, params in ((optim, ours), (torch.optim, theirs)):
        optimizer = library.SGD([{"params": [params[0]], "maximize": True}, {"params": [params[1]]}], lr=0.1)
        sum((p**2).sum() for p in params).backward()
        optimizer.step()
        found.append([p.tolist() for p in params])
    np.testing.assert_allclose(*found, rtol=1e-12)
    state = optim.SGD(ours, lr=0.1, maximize=True).state_dict()
    fresh = optim.SGD(ours, lr=0.1)
    fresh.load_state_dict(state)
    assert fresh.param_groups[0]["maximize"] is True
    del state["param_groups"][0]["maximize"]  # a state of an earlier version
    other = optim.SGD(ours, lr=0.5)
    other.load_state_dict(state)
    assert (other.param_groups[0]["maximize"], other.param_groups[0]["lr"]) == (False, 0.1)
    del state["param_groups"][0]["lr"]
    with pytest.raises(ArgumentError, match="lacks lr"):
        other.load_state_dict(state)
    with pytest.raises(DTypeError, match=r"^SGD: maximize must be True or False, got 'up'"):
        optim.SGD(ours, maximize="up")


def test_an_optimiser_pickled_before_maximize_steps():
    w = tl.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([w], lr=0.5)
    del optimizer.defaults["maximize"], optimizer.param_groups[0]["maximize"]
    again = pickle.loads(pickle.dumps(optimizer))
    (p,) = again.param_groups[0]["params"]
    p.grad = tl.ones(1)
    again.step()
    assert p.item() == 0.5


def test_float16_is_maximised_in_float32():
    w = tl.tensor(np.float16([1.0]), requires_grad=True)
    optimizer = optim.SGD([w], lr=1e-4, maximize=True)
    for _ in range(100):
        w.grad = tl.tensor(np.float16([1.0]))
        optimizer.step()
    assert w.item() == np.float16(1.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_closure_is_called_once_and_its_loss_is_returned(torch, name):
    found = []
    for w, library, grad_mode in zip(
        both(torch, RNG(0).standard_normal(3)), (optim, torch.optim), (tl.no_grad, torch.no_grad), strict=True
    ):
        optimizer, losses, calls = getattr(library, name)([w], lr=0.1), [], []

        def closure(w=w, optimizer=optimizer, calls=calls):
            calls.append(1)
            optimizer.zero_grad()
            loss = (w**4).sum()
            loss.backward()
            return loss

        for _ in range(5):
            losses.append(optimizer.step(closure).item())
        with grad_mode():  # in which the closure records all the same
            losses.append(optimizer.step(closure=closure).item())
        assert optimizer.step() is None
        assert len(calls) == 6
        found.append([*losses, *w.tolist()])
    np.testing.assert_allclose(*found, rtol=1e-9)


def test_what_is_no_closure_is_refused():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)])
    with pytest.raises(DTypeError, match="closure must be a function, got Tensor"):
        optimizer.step(tl.ones(1))
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)


def test_a_compiled_step_with_a_closure_and_maximize_is_replayed():
    def make():
        w = tl.tensor([1.0, -2.0], requires_grad=True)
        optimizer = optim.Adam([w], lr=0.1, maximize=True)

        def step(x):
            def closure():
                optimizer.zero_grad()
                loss = (w * x).sum()
                loss.backward()
                return loss

            return optimizer.step(closure)

        return step, w

    (step, w), (eager, v) = make(), make()
    compiled = tl.compile(step)
    for i in range(6):
        x = tl.tensor([float(i), 1.0])
        assert compiled(x).item() == eager(x).item()
        np.testing.assert_array_equal(w.numpy(), v.numpy())
    assert compiled.replayed == 4


# Rates of groups


def pair(torch, *lrs, momentum=0.9):
    """An optimiser of each library, with a group for each rate."""
    made = []
    for library, ones in ((optim, tl.ones), (torch.optim, torch.ones)):
        groups = [{"params": [ones(1, requires_grad=True)], "lr": lr} for lr in lrs]
        made.append(library.SGD(groups, lr=9.0, momentum=momentum))
    return made


def same_course(a, b, ours, theirs, steps, *metrics):
    for t in range(steps):
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in (ours, theirs)]
        np.testing.assert_allclose(*rates, rtol=1e-12, atol=1e-15, err_msg=str(t))
        np.testing.assert_allclose(a.get_last_lr(), rates[0], rtol=1e-15)
        theirs.step()
        a.step(*metrics), b.step(*metrics)


SCHEDULES = {
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "ExponentialLR": {"gamma": 0.9},
    "MultiStepLR": {"milestones": [2, 2, 9]},
    "LinearLR": {"start_factor": 0.2, "total_iters": 7},
    "CosineAnnealingLR": {"T_max": 5, "eta_min": 0.01},
    "OneCycleLR": {"max_lr": [0.5, 0.2, 2.0], "total_steps": 41, "three_phase": True},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_group_has_a_course_of_its_own(torch, name):
    ours, theirs = pair(torch, 0.3, 0.1, 0.7)
    a, b = (
        getattr(optim, name)(ours, **SCHEDULES[name]),
        getattr(torch.optim.lr_scheduler, name)(theirs, **SCHEDULES[name]),
    )
    same_course(a, b, ours, theirs, 40)


@pytest.mark.parametrize("options", [{}, {"cycle_momentum": False}, {"anneal_strategy": "linear"}], ids=str)
def test_one_cycle_has_a_peak_for_each_group(torch, options):
    ours, theirs = pair(torch, 1.0, 1.0)
    options = {"max_lr": [0.1, 0.9], "total_steps": 30, **options}
    a, b = optim.OneCycleLR(ours, **options), torch.optim.lr_scheduler.OneCycleLR(theirs, **options)
    same_course(a, b, ours, theirs, 30)
    assert [group["momentum"] for group in ours.param_groups] == pytest.approx(
        [group["momentum"] for group in theirs.param_groups]
    )
    for wrong, words in [([0.1], "one for each of the 2, got 1"), ([0.1, -1], "max_lr must lie in"), ("a", "max_lr")]:
        with pytest.raises((ArgumentError, DTypeError), match=words):
            optim.OneCycleLR(ours, wrong, 30)


def test_one_cycle_with_peaks_goes_on_from_its_state(torch):
    ours, _ = pair(torch, 1.0, 1.0)
    schedule = optim.OneCycleLR(ours, [0.1, 0.9], 30)
    for _ in range(11):
        schedule.step()
    other, _ = pair(torch, 1.0, 1.0)
    twin = optim.OneCycleLR(other, [0.1, 0.9], 30)
    twin.load_state_dict(copy.deepcopy(schedule.state_dict()))
    for _ in range(5):
        schedule.step(), twin.step()
        assert twin.get_last_lr() == schedule.get_last_lr()


def test_lowest_rates_of_groups_hold(torch):
    ours, theirs = pair(torch, 1.0, 1.0)
    options = {"patience": 0, "factor": 0.5, "min_lr": [0.3, 0.1]}
    a, b = optim.ReduceLROnPlateau(ours, **options), torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    same_course(a, b, ours, theirs, 9, 1.0)


LAMBDAS = {
    "one": lambda t: 0.95**t,
    "warm up": lambda t: min(1.0, (t + 1) / 10),
    "several": [lambda t: 1 / (1 + t), lambda t: 2.0, lambda t: np.float64(0.5 * t)],
    "zero": lambda t: 0,
}


@pytest.mark.parametrize("name", LAMBDAS)
def test_lambda_lr_is_pytorchs(torch, name):
    ours, theirs = pair(torch, 0.3, 0.1, 0.3)
    a = optim.LambdaLR(ours, LAMBDAS[name])
    b = torch.optim.lr_scheduler.LambdaLR(theirs, lr_lambda=LAMBDAS[name])
    same_course(a, b, ours, theirs, 25)
    ours.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] = 5.0  # which both overwrite
    a.step(), b.step()
    same_course(a, b, ours, theirs, 5)


def test_lambda_lr_follows_a_warm_up_and_goes_on_from_its_state(torch):
    def make(library, schedulers):
        optimizer = library.SGD([{"params": [p], "lr": lr} for p, lr in params[library]], lr=1.0)
        warm = schedulers.LinearLR(optimizer, 0.1, total_iters=4)
        later = schedulers.LambdaLR(optimizer, [lambda t: 0.9**t, lambda t: 1 / (1 + t)])
        return optimizer, schedulers.SequentialLR(optimizer, [warm, later], milestones=[4])

    params = {
        library: [(ones(1, requires_grad=True), lr) for lr in (0.3, 0.3)]
        for library, ones in ((optim, tl.ones), (torch.optim, torch.ones))
    }
    ours, a = make(optim, optim)
    theirs, b = make(torch.optim, torch.optim.lr_scheduler)
    same_course(a, b, ours, theirs, 12)
    other, twin = make(optim, optim)
    other.load_state_dict(ours.state_dict())
    twin.load_state_dict(a.state_dict())
    for _ in range(5):
        a.step(), twin.step()
        assert twin.get_last_lr() == a.get_last_lr()


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (3, DTypeError, "lr_lambda must be a function, got 3"),
        ([], ArgumentError, "lr_lambda must be one for all groups, or one for each of the 2, got 0"),
        ([len, 3], DTypeError, "each of lr_lambda must be a function, got 3"),
        (lambda t: "a", DTypeError, "the result of lr_lambda must be a number, got 'a'"),
        (lambda t: float("nan"), ArgumentError, "the result of lr_lambda must lie in"),
    ],
)
def test_mistakes_of_lambda_lr(torch, function, error, words):
    ours, _ = pair(torch, 0.3, 0.1)
    with pytest.raises(error, match=f"^LambdaLR: {words}"):
        optim.LambdaLR(ours, function)
    assert [group["lr"] for group in ours.param_groups] == [0.3, 0.1]


def test_lambda_lr_takes_a_group_that_is_added_later():
    optimizer = optim.SGD([tl.ones(1, requires_grad=True)], lr=1.0)
    schedule = optim.LambdaLR(optimizer, lambda t: 0.5**t)
    schedule.step()
    optimizer.add_param_group({"params": tl.ones(1, requires_grad=True), "lr": 8.0})
    schedule.step()
    assert schedule.get_last_lr() == [0.25, 2.0]


# Data


def test_a_data_set_of_tensors_is_pytorchs(torch):
    x, y = RNG(0).standard_normal((7, 2, 3)).astype(np.float32), np.arange(7)
    ours, theirs = data.TensorDataset(tl.tensor(x), y), torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    assert len(ours) == len(theirs) == 7
    for index in (0, -1, slice(1, 4), [3, 0, 3]):
        for a, b in zip(ours[index], theirs[index], strict=True):
            assert type(a) is tl.Tensor
            np.testing.assert_array_equal(a.numpy(), b.numpy())
            assert a.dtype == b.numpy().dtype
    assert [t.shape for t in ours.tensors] == [(7, 2, 3), (7,)]
    assert repr(ours) == "TensorDataset(7 samples of 2 tensors)"
    batches = zip(data.DataLoader(ours, 3), torch.utils.data.DataLoader(theirs, 3), strict=True)
    for (a, b), (c, d) in batches:
        np.testing.assert_array_equal(a.numpy(), c.numpy())
        np.testing.assert_array_equal(b.numpy(), d.numpy())
    plain = data.DataLoader((x, y), 3, shuffle=True, seed=1)
    for a, b in zip(data.DataLoader(ours, 3, shuffle=True, seed=1), plain, strict=True):
        assert all((p.numpy() == q.numpy()).all() for p, q in zip(a, b, strict=True))
    first = data.Subset(ours, [4, 2])[0]
    assert first[1].item() == 4
    batch = next(iter(data.DataLoader(ours, 7)))[0]
    batch[...] = 0  # a batch is a copy
    assert ours.tensors[0].numpy().any()


def test_mistakes_of_a_data_set_of_tensors():
    for make, error, words in [
        (lambda: data.TensorDataset([1, 2]), DTypeError, "element 0 of the data set is a list, expected an array"),
        (lambda: data.TensorDataset(), ShapeError, "one or more"),
        (lambda: data.TensorDataset(tl.ones(2), tl.ones(3)), ShapeError, "of equal length"),
        (lambda: data.TensorDataset(tl.ones(2))[5], IndexError, "out of bounds"),
    ]:
        with pytest.raises(error, match=words):
            make()


FRACTIONS = [[0.5, 0.5], [0.9, 0.1], [0.7, 0.2, 0.1], [1.0], [0.0, 1.0], [1 / 3] * 3, [0.1] * 10, [0.5, 0.5, 0]]


@pytest.mark.filterwarnings("ignore:Length of split at index:UserWarning")
@pytest.mark.parametrize("fractions", FRACTIONS, ids=str)
@pytest.mark.parametrize("count", [1, 2, 7, 10, 101])
def test_fractions_are_rounded_as_in_pytorch(torch, fractions, count):
    theirs = torch.utils.data.random_split(range(count), fractions)
    parts = data.random_split(np.arange(count), fractions, generator=0)
    assert [*map(len, parts)] == [*map(len, theirs)]
    assert sorted(itertools.chain(*(part.indices for part in parts))) == [*range(count)]


def test_a_split_follows_its_generator():
    def split(*args, **options):
        return [part.indices.tolist() for part in data.random_split(np.arange(20), [0.5, 0.5], *args, **options)]

    assert split(generator=3) == split(seed=3) == split(3) == split(generator=RNG(3)) != split(generator=4)
    generator = RNG(0)
    assert split(generator) != split(generator)  # it goes on


@pytest.mark.parametrize(
    ("lengths", "error", "words"),
    [
        ([0.5, 0.4], ArgumentError, r"fractions must add up to 1, got \[0.5, 0.4\], which add up to 0.9"),
        ([1.5, -0.5], ArgumentError, r"each of lengths must lie in \[0, 1\], got 1.5"),
        ([5.0, 5.0], ArgumentError, "each of lengths must lie in"),
        ([0.5, "a"], DTypeError, "each of lengths must be a number, got 'a'"),
        ([float("nan"), 1.0], ArgumentError, "each of lengths must lie in"),
        ([4, 5], ArgumentError, "add up to 9, expected the 10 samples"),
    ],
)
def test_mistakes_of_a_split(lengths, error, words):
    with pytest.raises(error, match=f"^random_split: .*{words}"):
        data.random_split(np.arange(10), lengths)


def test_a_function_of_the_samples_makes_the_batch(torch):
    words = [([i] * (i % 3 + 1), i) for i in range(7)]  # of different lengths

    def padded(library):
        def collate(samples):
            longest = max(len(sample) for sample, _ in samples)
            rows = [sample + [0] * (longest - len(sample)) for sample, _ in samples]
            return {"x": library.tensor(rows), "y": [label for _, label in samples]}

        return collate

    ours = [*data.DataLoader(words, 3, collate_fn=padded(tl))]
    theirs = [*torch.utils.data.DataLoader(words, 3, collate_fn=padded(torch))]
    assert [(b["x"].tolist(), b["y"]) for b in ours] == [(b["x"].tolist(), b["y"]) for b in theirs]
    loader = data.DataLoader((np.arange(5), np.eye(5)), 2, collate_fn=list, drop_last=True)
    assert [[label for label, _ in batch] for batch in loader] == [[0, 1], [2, 3]]
    shuffled = data.DataLoader(words, 3, shuffle=True, seed=0, collate_fn=lambda s: [label for _, label in s])
    plain = data.DataLoader([label for _, label in words], 3, shuffle=True, seed=0)
    assert [*shuffled] == [x.tolist() for (x,) in plain]


def test_mistakes_of_a_function_of_the_samples():
    with pytest.raises(DTypeError, match=r"^DataLoader: collate_fn must be a function, got 3"):
        data.DataLoader(np.arange(3), collate_fn=3)
    with pytest.raises(ArgumentError, match=r"^DataLoader: give transform or collate_fn, not both"):
        data.DataLoader(np.arange(3), transform=lambda x, generator: x, collate_fn=list)
    loader = data.DataLoader(np.arange(3))
    del loader.collate_fn  # as pickles of earlier versions
    assert len([*pickle.loads(pickle.dumps(loader))]) == 1


# Binary cross-entropy of probabilities, and adaptive max pooling: their edges


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_is_pytorchs(torch, dtype, reduction, weighted):
    edges = [0.0, 1.0, 1e-45, 1e-30, 1e-13, 1e-7, 0.5, 1 - 1e-7, np.nextafter(np.float32(1), 0)]
    x, y = (a.ravel().astype(dtype) for a in np.meshgrid([*edges, *RNG(0).random(9)], [0.0, 1.0, 0.3, 0.9]))
    weight = RNG(1).random(x.shape).astype(dtype) if weighted else None
    found = []
    for library, make in ((tl.functional, tl.tensor), (torch.nn.functional, torch.tensor)):
        p, w = make(x, requires_grad=True), None if weight is None else make(weight)
        loss = library.binary_cross_entropy(p, make(y), w, reduction=reduction)
        loss.sum().backward()
        found.append((loss.numpy() if library is tl.functional else loss.detach().numpy(), p.grad.numpy()))
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-13}
    (a, slope), (b, expected) = found
    np.testing.assert_allclose(a, b, **tolerance)
    # Within 1e-12 of 0 and of 1, PyTorch also limits the slope of the term that is not steep there.
    steep = (x < 1e-12) & (y != 1) | (x.astype(np.float64) > 1 - 1e-12) & (y != 0)
    np.testing.assert_allclose(slope[~steep], expected[~steep], rtol=1e-4 if dtype == "float32" else 1e-8)
    assert np.isfinite(slope).all()


def test_binary_cross_entropy_agrees_with_that_of_logits_and_trains():
    z = tl.tensor(RNG(0).standard_normal((5, 3)), requires_grad=True)
    y = (RNG(1).random((5, 3)) > 0.5).astype(np.float64)
    slopes = []
    for loss in (tl.nn.BCELoss()(z.sigmoid(), y), tl.nn.BCEWithLogitsLoss()(z, y)):
        slopes.append((loss.item(), tl.grad(loss, z)[0].numpy()))
    assert slopes[0][0] == pytest.approx(slopes[1][0], rel=1e-12)
    np.testing.assert_allclose(slopes[0][1], slopes[1][1], rtol=1e-10)
    far = tl.tensor([100.0, -100.0], requires_grad=True)
    loss = tl.binary_cross_entropy(far.sigmoid(), [0.0, 1.0])
    loss.backward()
    assert np.isfinite(far.grad.numpy()).all()
    assert 40 < loss.item() <= 100


@pytest.mark.parametrize("bad", [[1.5], [-1e-7], [float("nan")], [float("inf")]])
def test_what_is_no_probability_is_refused(torch, bad):
    with pytest.raises(RuntimeError):
        torch.nn.functional.binary_cross_entropy(torch.tensor(bad), torch.ones(1))
    with pytest.raises(OutOfRangeError, match=r"input must lie in 0 \.\.\. 1, got .*with_logits takes logits"):
        tl.binary_cross_entropy(tl.tensor(bad), [1.0])


@pytest.mark.parametrize("size", [1, 2, 3, (2, 3), (None, 4), (5, 1), (7, 9)], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 7, 9), (3, 7, 9), (1, 1, 4, 6)], ids=str)
def test_the_first_of_equal_maxima_gets_the_gradient_as_in_pytorch(torch, size, shape):
    x = RNG(0).integers(0, 3, shape).astype(np.float32)  # full of ties
    ours, theirs = both(torch, x)
    a, b = tl.adaptive_max_pool2d(ours, size), torch.nn.functional.adaptive_max_pool2d(theirs, size)
    np.testing.assert_array_equal(a.numpy(), b.detach().numpy())
    up = RNG(1).integers(1, 9, a.shape).astype(np.float32)
    a.backward(up), b.backward(torch.tensor(up))
    np.testing.assert_array_equal(ours.grad.numpy(), theirs.grad.numpy())
