"""State that belongs to parameters, groups that change, float16, and gradients at the ends of the range."""

import copy
import itertools
import pickle

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim, training
from tinygrad_lenet.errors import ArgumentError, DTypeError, GradientError


def leaf(*values, dtype=np.float64):
    return tl.tensor(np.array(values, dtype), requires_grad=True)


def step(optimizer, *gradients):
    """One step, with a gradient of the same number in each element for each parameter; None for no gradient."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for p, g in zip(params, gradients, strict=True):
        p.grad = None if g is None else tl.tensor(np.full(p.shape, g, p.dtype))
    optimizer.step()


MAKES = {
    "SGD": lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    "Adam": lambda params: optim.Adam(params, lr=0.1, amsgrad=True),
    "AdamW": lambda params: optim.AdamW(params, lr=0.1),
    "RMSprop": lambda params: optim.RMSprop(params, lr=0.1, momentum=0.9, centered=True),
    "Adagrad": lambda params: optim.Adagrad(params, lr=0.1),
}


# State by parameter


def test_momentum_stays_with_its_parameter_when_another_is_removed():
    a, b = leaf(0.0), leaf(0.0)
    optimizer = optim.SGD([a, b], lr=1.0, momentum=0.9)
    step(optimizer, 1.0, 100.0)
    del optimizer.param_groups[0]["params"][0]
    step(optimizer, 100.0)
    assert (a.item(), b.item()) == (-1.0, -290.0)
    assert list(optimizer.state_dict()["state"]) == [0]  # of b, which is the first now
    optimizer.param_groups[0]["params"].append(a)
    step(optimizer, None, 1.0)
    assert a.item() == pytest.approx(-1.0 - 1.9)  # its state has waited


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("change", ["insert", "swap", "replace the list", "move", "new group", "new group by hand"])
def test_each_parameter_goes_on_as_if_alone(name, change):
    ours, alone = [leaf(1.0, 2.0), leaf(-1.0)], [leaf(1.0, 2.0), leaf(-1.0)]
    optimizer, single = MAKES[name](ours), [MAKES[name]([p]) for p in alone]
    for t in range(3):
        step(optimizer, 3.0 + t, 5.0)
        step(single[0], 3.0 + t), step(single[1], 5.0)
    new, group = leaf(7.0), optimizer.param_groups[0]
    if change == "insert":
        group["params"].insert(0, new)
    elif change == "swap":
        group["params"].reverse()
    elif change == "replace the list":
        group["params"] = [ours[1], new, ours[0]]
    elif change == "move":
        optimizer.add_param_group({"params": new})
        optimizer.param_groups[1]["params"].append(group["params"].pop(0))
    elif change == "new group":
        optimizer.add_param_group({"params": (new,)})
    else:
        optimizer.param_groups.insert(0, {**group, "params": [new]})
    alone.append(leaf(7.0))
    single.append(MAKES[name]([alone[2]]))
    for t in range(3):
        for p, g in zip([*ours, new], (1.0 + t, 2.0, 4.0), strict=True):
            p.grad = tl.tensor(np.full(p.shape, g, p.dtype))
        optimizer.step()
        step(single[0], 1.0 + t), step(single[1], 2.0)
        if change != "swap":
            step(single[2], 4.0)
    for p, q in zip([*ours, new], alone, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_parameter_exchanged_for_an_equal_one_begins_anew():
    a, b = leaf(5.0), leaf(5.0)
    optimizer = optim.SGD([a], lr=1.0, momentum=0.9)
    step(optimizer, 0.0)
    optimizer.param_groups[0]["params"] = [b]  # == says True of the two
    step(optimizer, 1.0)
    assert (a.item(), b.item()) == (5.0, 4.0)


def test_an_added_group_is_as_in_torch(torch):
    ours, theirs = [leaf(1.0), leaf(2.0)], [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (1, 2)]
    a, b = optim.Adam(ours[:1], lr=0.1, amsgrad=True), torch.optim.Adam(theirs[:1], lr=0.1, amsgrad=True)
    for t in range(6):
        if t == 2:
            a.add_param_group({"params": ours[1], "lr": 0.5, "betas": (0.5, 0.6)})
            b.add_param_group({"params": theirs[1], "lr": 0.5, "betas": (0.5, 0.6)})
        for p, q in zip(ours, theirs, strict=True):
            p.grad, q.grad = tl.tensor(np.array([1.0 + t])), torch.tensor([1.0 + t], dtype=torch.float64)
        a.step(), b.step()
    assert [p.item() for p in ours] == pytest.approx([q.item() for q in theirs], rel=1e-13)
    assert [group["params"] for group in a.state_dict()["param_groups"]] == [[0], [1]]
    assert {k: v for k, v in a.param_groups[1].items() if k != "params"} == {
        **{k: v for k, v in a.param_groups[0].items() if k != "params"},
        "lr": 0.5,
        "betas": (0.5, 0.6),
    }


def test_a_group_that_cannot_be_added_changes_nothing():
    a, b = leaf(1.0), leaf(2.0)
    optimizer = optim.Adam([a])
    given = {"params": b, "lr": 3.0}
    for group, error, words in [
        ({"params": [b, a]}, ArgumentError, "given twice"),
        ({"params": [b, b]}, ArgumentError, "given twice"),
        ({"params": [tl.ones(2)]}, GradientError, r"shape \(2,\) is not a leaf"),
        ({"params": [b * 2]}, GradientError, "not a leaf"),
        ({"params": {b}}, DTypeError, "Adam.add_param_group: params is a set, whose order changes"),
        ({"params": [1.0]}, DTypeError, "Adam.add_param_group: params must be Tensors, got float"),
        ({"params": None}, DTypeError, "Adam.add_param_group: params must be Tensors"),
        ({"lr": 0.1}, ArgumentError, "Adam.add_param_group: a group must be a dict with 'params'"),
        ([b], ArgumentError, "Adam.add_param_group: a group must be a dict"),
        ({"params": b, "lr": -1}, ArgumentError, r"Adam.add_param_group: lr must lie in \[0, inf\), got -1"),
        ({"params": b, "betas": 1}, DTypeError, "Adam.add_param_group: betas must be"),
    ]:
        with pytest.raises(error, match=words):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1
    optimizer.add_param_group(given)
    assert given == {"params": b, "lr": 3.0}  # the caller's dict is left alone


@pytest.mark.parametrize("several", [set, frozenset])
def test_parameters_without_an_order_are_refused(several):
    # The order of a set changes from run to run, and states are saved by position.
    for params in (several([leaf(1.0)]), [{"params": several([leaf(1.0)])}]):
        with pytest.raises(DTypeError, match="SGD: params is a set"):
            optim.SGD(params)


class Counting(optim.Optimizer):
    """Keeps what no optimiser of the package keeps: numbers, a list, and an array of another shape."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1, "momentum": 0.9, "nesterov": True})

    def update(self, w, g, state, options):
        state["product"] = state.get("product", 1.0) * 0.5
        state.setdefault("norms", np.zeros(9))[state["step"]] = np.linalg.norm(g)
        state.setdefault("seen", []).append(state["step"])
        w -= options["lr"] * state["product"] * g + state["norms"].sum()


def test_an_optimizer_of_the_users_own_saves_all_that_it_keeps():
    a, b = leaf(1.0, 2.0, dtype=np.float32), leaf(1.0, 2.0, dtype=np.float32)
    first, second = Counting([a]), Counting([b])
    step(first, 3.0)
    saved = first.state_dict()
    step(first, 1.0)
    assert saved["state"][0].pop("seen") == [1]  # a copy
    second.load_state_dict(saved)
    b.data = [float(v) for v in a.numpy()]
    step(first, 2.0)
    saved["state"][0]["norms"][:] = 7.0
    step(second, 1.0), step(second, 2.0)
    for key in ("step", "product", "norms"):
        np.testing.assert_array_equal(first.state[a][key], second.state[b][key])
    with pytest.raises(ArgumentError, match=r"SGD\.load_state_dict: momentum_buffer of parameter 0 has shape"):
        optim.SGD([a]).load_state_dict(
            {**optim.SGD([a]).state_dict(), "state": {0: {"step": 1, "momentum_buffer": 1.0}}}
        )


def test_lists_changed_by_hand_are_checked_before_a_step():
    a, b = leaf(1.0), leaf(2.0)
    optimizer = optim.SGD([{"params": [a]}, {"params": [b]}], lr=1.0)
    groups = optimizer.param_groups
    for change, error, words in [
        (lambda: groups[1]["params"].append(a), ArgumentError, "given twice"),
        (lambda: groups[1]["params"].append(tl.ones(3)), GradientError, r"shape \(3,\) is not a leaf"),
        (lambda: groups[1]["params"].append(3), DTypeError, "must be Tensors, got int"),
        (lambda: groups[1].update(params=None), DTypeError, "SGD.step: params must be Tensors, .*got None"),
        (lambda: groups[1].update(params={b}), DTypeError, "params is a set, whose order changes"),
        (lambda: groups.append({"params": [leaf(1.0)]}), ArgumentError, "group 2 lacks lr, momentum.*add_param_group"),
    ]:
        before = [dict(group, params=[*group["params"]]) for group in groups]
        change()
        a.grad = tl.tensor(np.array([1.0]))
        with pytest.raises(error, match=words):
            optimizer.step()
        assert a.item() == 1.0
        groups[:] = before
    a.grad, b.grad = None, tl.tensor(np.array([0.5]))
    groups[1]["params"] = iter([b])  # a list from the first step on
    optimizer.step(), optimizer.step()
    assert b.item() == 1.0
    a.requires_grad = False  # a parameter that learns no more may stay
    groups[1]["params"].append(leaf(3.0))
    step(optimizer, None, 1.0, 1.0)
    assert b.item() == 0.0


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_model_and_optimizer_goes_on_alike(name, how):
    model = nn.Linear(3, 2, generator=0)
    optimizer = MAKES[name](model.parameters())
    schedule = optim.StepLR(optimizer, 1, 0.5)
    pairs = [(model, optimizer, schedule)]

    def run(model, optimizer, schedule):
        for t in range(3):
            optimizer.zero_grad()
            (model(tl.ones(1, 3) * (t + 1.0)) ** 2).sum().backward()
            optimizer.step()
            schedule.step()

    run(*pairs[0])
    pairs.append(how(pairs[0]))
    for pair in pairs:
        run(*pair)
    for p, q in zip(*(pair[0].parameters() for pair in pairs), strict=True):
        assert p is not q
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_files_and_pickles_of_earlier_versions_go_on():
    a, b = leaf(0.0), leaf(0.0)
    optimizer = optim.SGD([a, b], lr=1.0, momentum=0.9)
    group = {"lr": 1.0, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "params": [0, 1]}
    states = {0: {"step": 1, "momentum_buffer": np.array([1.0])}, 1: {"step": 1, "momentum_buffer": np.array([100.0])}}
    optimizer.load_state_dict({"state": states, "param_groups": [group]})
    step(optimizer, 1.0, 100.0)
    assert (a.item(), b.item()) == (-1.9, -190.0)
    old = optim.SGD.__new__(optim.SGD)  # what a pickle held
    by_number = {i: {**state, "scratch": np.empty(1)} for i, state in states.items()}
    old.__setstate__(
        {"defaults": optimizer.defaults, "param_groups": optimizer.param_groups, "state": by_number, "_checked": {}}
    )
    step(old, 1.0, 100.0)
    assert (a.item(), b.item()) == pytest.approx((-3.8, -380.0))


# float16


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1.0, 300.0, 3e4])
def test_float16_parameters_follow_those_of_float32(name, scale):
    w, wide = leaf(1.0, -0.5, 3.0, dtype=np.float16), leaf(1.0, -0.5, 3.0, dtype=np.float32)
    optimizer, reference, chance = MAKES[name]([w]), MAKES[name]([wide]), np.random.default_rng(0)
    for _ in range(20):
        w.grad = tl.tensor((chance.uniform(-1, 1, 3) * scale).astype(np.float16))
        wide.grad = tl.tensor(w.grad.numpy().astype(np.float32))
        optimizer.step(), reference.step()
        np.testing.assert_array_equal(w.numpy(), wide.numpy().astype(np.float16))
    assert w.dtype == np.float16
    assert np.isfinite(w.numpy()).all()
    state = optimizer.state_dict()
    assert {a.dtype for a in state["state"][0].values() if isinstance(a, np.ndarray)} <= {np.dtype(np.float32)}
    # the state goes on, also one that an earlier version wrote in float16
    twin = tl.tensor(w.numpy(), requires_grad=True)
    resumed = MAKES[name]([twin])
    resumed.load_state_dict(state)
    twin.grad = w.grad
    optimizer.step(), resumed.step(), reference.step()
    np.testing.assert_array_equal(twin.numpy(), w.numpy())
    w.data = np.array([5.0, *w.numpy()[1:]])  # what something else sets counts
    wide.data = np.array([5.0, *wide.numpy()[1:]])
    optimizer.step(), reference.step()
    np.testing.assert_array_equal(w.numpy(), wide.numpy().astype(np.float16))
    with np.errstate(over="ignore"):
        halves = {k: v.astype(np.float16) if isinstance(v, np.ndarray) else v for k, v in state["state"][0].items()}
    resumed.load_state_dict({**state, "state": {0: halves}})
    resumed.step()
    assert resumed.state[twin]["scratch"].dtype == np.float32


def test_the_average_of_float16_weights_sees_small_changes():
    model = nn.Linear(1, 1, generator=0)
    model.weight = nn.Parameter(np.ones((1, 1), np.float16))
    average = training.ExponentialMovingAverage(model, decay=0.999)
    average.steps = 100_000
    model.weight.data = np.full((1, 1), 1.25, np.float16)
    for _ in range(1000):
        average.update()
    with average.applied():
        assert model.weight.item() == pytest.approx(1.25 - 0.25 * 0.999**1000, rel=1e-3)
    state = average.state_dict()
    average.load_state_dict({**state, "averages": {k: v.astype(np.float16) for k, v in state["averages"].items()}})
    assert average.averages["weight"].dtype == np.float32


# The ends of the range


def course(name, options, gradients, dtype):
    w = tl.tensor(np.array([1.0, -0.5], dtype), requires_grad=True)
    optimizer = getattr(optim, name)([w], lr=1e-3, **options)
    for g in gradients:
        w.grad = tl.tensor(np.full(2, g, dtype))
        optimizer.step()
    return w.numpy().astype(np.float64)


KINDS = [
    *(("SGD", o) for o in ({}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1})),
    *(("Adam", o) for o in ({}, {"eps": 0.0}, {"betas": (0.0, 0.0)}, {"betas": (1 - 1e-16, 1 - 1e-16)})),
    *((n, {"amsgrad": True}) for n in ("Adam", "AdamW")),
    *(("RMSprop", o) for o in ({}, {"eps": 0.0}, {"alpha": 0.0}, {"alpha": 0.5}, {"momentum": 0.9})),
    *(("Adagrad", o) for o in ({}, {"eps": 0.0}, {"lr_decay": 1e300}, {"initial_accumulator_value": 1.0})),
]
GRADIENTS = {
    "zero": [0.0] * 100,
    "constant": [1.0] * 100,
    "alternating": [1.0, -1.0] * 50,
    "once": [1.0] + [0.0] * 99,
    "smallest of float16": [6e-8] * 100,
    "largest of float16": [6e4, -6e4] * 50,
    "tiny": [1e-30] * 100,
    "huge": [1e30, -1e30] * 50,
    "huge and constant": [1e30] * 100,
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_any_gradient_gives_the_step_of_float64(dtype, kind):
    with np.errstate(over="ignore"):
        gradients = np.array(GRADIENTS[kind], dtype)
    if not np.isfinite(gradients).all():
        return
    most = float(np.finfo(dtype).max)
    for name, options in KINDS:
        exact = course(name, options, gradients.astype(np.float64), np.float64)
        if not (np.abs(exact) * 100 < most).all() or (kind, options) == ("tiny", {"eps": 0.0}):
            continue  # it leaves the range; squares of 1e-30 leave that of float32
        if "SGD" in name and "huge" in kind:
            continue  # rounding of the large steps
        found = course(name, options, gradients, dtype)
        tolerance = {2: 1e-3, 4: 2e-5, 8: 1e-12}[gradients.itemsize]  # one rounding of a weight near 1; a hundred
        scale = max(1.0, float(np.abs(exact).max()))
        np.testing.assert_allclose(found, exact, 0, tolerance * scale, err_msg=f"{name} {options}")


@pytest.mark.parametrize(("name", "options"), KINDS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_no_gradient_and_no_epsilon_is_no_step(name, options, dtype):
    least = {} if name == "SGD" else {"eps": 0.0}
    np.testing.assert_array_equal(course(name, options | least | {"weight_decay": 0.0}, [0.0] * 3, dtype), [1.0, -0.5])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_variance_of_equal_gradients_is_not_negative(dtype, alpha, momentum):
    for g, eps in itertools.product((0.0, 1e-3, 0.1, 1.0, 3.7, 1e3), (1e-8, 1.0)):
        options = {"alpha": alpha, "momentum": momentum, "centered": True, "eps": eps}
        with np.errstate(over="ignore"):  # 1 / 1e-8 is more than float16 can hold
            found = course("RMSprop", options, [g] * 200, dtype)
        assert not np.isnan(found).any(), (g, eps)
        if eps == 1.0 and g <= 1.0:  # where the rounding of the variance is small beside eps
            exact = course("RMSprop", options, [np.float64(dtype(g))] * 200, np.float64)
            np.testing.assert_allclose(found, exact, 1e-2 if dtype != np.float64 else 1e-6)


def test_nan_and_infinite_gradients_are_not_hidden():
    for name in ("Adam", "AdamW", "RMSprop", "Adagrad"):
        for bad in (np.nan, np.inf):
            w = leaf(1.0, 1.0, 1.0, dtype=np.float32)
            w.grad = tl.tensor(np.array([bad, 1e30, 1.0], np.float32))
            with np.errstate(all="ignore"):
                getattr(optim, name)([w], lr=0.1).step()
            assert np.isnan(w.numpy()).tolist() == [True, False, False], name


# Clipping


def test_the_norm_of_float16_gradients_may_exceed_float16():
    w = tl.tensor(np.zeros(1000, np.float16), requires_grad=True)
    w.grad = tl.tensor(np.full(1000, 6e4, np.float16))
    norm = optim.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)
    assert norm.dtype == np.float32
    assert norm.item() == pytest.approx(float(np.float16(6e4)) * 1000**0.5, rel=1e-6)
    np.testing.assert_allclose(w.grad.numpy(), 1000**-0.5, rtol=1e-3)
    w.grad = tl.tensor(np.full(1000, 6e4, np.float16))
    optim.clip_grad_norm_(w, 1e-4)  # by a factor that float16 does not have
    np.testing.assert_allclose(w.grad.numpy(), 1e-4 * 1000**-0.5, rtol=2e-2)
    large = leaf(0.0, 0.0, 0.0, 0.0, dtype=np.float32)
    large.grad = tl.tensor(np.full(4, 3e38, np.float32))
    assert optim.clip_grad_norm_(large, 1e-3, error_if_nonfinite=True).item() == pytest.approx(6e38)
    np.testing.assert_allclose(large.grad.numpy(), 5e-4, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, np.inf])
def test_norms_that_are_not_finite_are_as_in_torch(torch, bad, norm_type):
    grads = [np.array([1.0, bad]), np.array([2.0])]
    ours, theirs = (
        [leaf(0.0, 0.0), leaf(0.0)],
        [torch.zeros(2, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)],
    )
    for p, q, g in zip(ours, theirs, grads, strict=True):
        p.grad, q.grad = tl.tensor(g), torch.tensor(g)
    with np.errstate(invalid="ignore"):
        total = optim.clip_grad_norm_(ours, 0.5, norm_type)
    np.testing.assert_array_equal(total.numpy(), torch.nn.utils.clip_grad_norm_(theirs, 0.5, norm_type))
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), q.grad.numpy())


def test_a_gradient_that_two_parameters_share_is_scaled_once():
    a, b = leaf(0.0), leaf(0.0)
    a.grad = b.grad = tl.tensor(np.array([3.0]))
    optim.clip_grad_norm_([a, b], 18**0.5 / 2)
    assert a.grad.item() == pytest.approx(1.5, rel=1e-6)


# What a dtype cannot hold


def test_values_of_another_dtype_are_rounded_or_refused():
    x = tl.tensor([1.0, 2.0])
    x.data = np.array([0.1, 1 / 3])
    assert x.numpy().tolist() == np.array([0.1, 1 / 3], np.float32).tolist()
    n = tl.tensor(np.array([1, 2]))
    n.data = np.array([3.0, 4.0])
    assert n.numpy().tolist() == [3, 4]
    n.data = [2**63 - 1, 0]
    assert n.numpy().tolist() == [2**63 - 1, 0]
    x.data = [np.inf, -0.5]
    assert x.numpy().tolist() == [np.inf, -0.5]
    small = tl.tensor(np.array([1, 2], np.int8))
    for target, value, words in [
        (n, np.array([2.5, 1.0]), "data is int64, which cannot hold .*2.5"),
        (n, [2.5, 1.0], "data is int64, which cannot hold .*2.5"),
        (small, np.array([300, 1]), "data is int8, which cannot hold .*300"),
        (x, np.array([1e300, 1.0]), "data is float32, which cannot hold .*1e.300"),
        (x, [1.0, -1e300], "data is float32, which cannot hold .*-1e.300"),
    ]:
        before = target.numpy().tolist()
        with pytest.raises(DTypeError, match=words):
            target.data = value
        assert target.numpy().tolist() == before
    optimizer = optim.Adam([leaf(1.0, dtype=np.float32)])
    step(optimizer, 1.0)
    state = optimizer.state_dict()
    state["state"][0]["exp_avg"] = np.array([1e300])
    with pytest.raises(DTypeError, match="exp_avg of parameter 0 is float32, which cannot hold"):
        optimizer.load_state_dict(state)
    with pytest.raises(ArgumentError, match="step of parameter 0 must be at most"):
        optimizer.load_state_dict({**state, "state": {0: {"step": 10**400}}})
