"""Optimisers: by hand, step for step against PyTorch, their groups and state; clipping of gradients."""

import itertools

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import optim
from tinygrad_lenet.errors import ArgumentError, DTypeError, GradientError


def rng(seed=0):
    return np.random.default_rng(seed)


def leaf(*values, dtype=np.float64):
    return tl.tensor(np.array(values, dtype), requires_grad=True)


def step(optimizer, p, *gradients):
    """One step for each gradient; the values after it."""
    for g in gradients:
        p.grad = tl.tensor(np.full(p.shape, g, p.dtype))
        optimizer.step()
    return p.numpy().copy()


# By hand: w = 2, gradients 3 and then 1, lr 0.1; no weight decay but where it is named

BY_HAND = [
    ("SGD", {}, [1.7, 1.6]),
    ("SGD", {"weight_decay": 0.5}, [2 - 0.1 * (3 + 0.5 * 2), 1.6 - 0.1 * (1 + 0.5 * 1.6)]),
    ("SGD", {"momentum": 0.5}, [1.7, 1.7 - 0.1 * (0.5 * 3 + 1)]),
    ("SGD", {"momentum": 0.5, "dampening": 0.2}, [1.7, 1.7 - 0.1 * (0.5 * 3 + 0.8 * 1)]),
    ("SGD", {"momentum": 0.5, "nesterov": True}, [2 - 0.1 * (3 + 0.5 * 3), 1.55 - 0.1 * (1 + 0.5 * 2.5)]),
    # the first step of Adam is lr, whatever the gradient: m / (1 - b1) = g, sqrt(v / (1 - b2)) = |g|
    ("Adam", {"eps": 0.0}, [1.9, 1.9 - 0.1 * ((0.27 + 0.1) / 0.19) / np.sqrt((0.999 * 9 + 1) * 1e-3 / (1 - 0.999**2))]),
    ("Adam", {"eps": 1.0}, [2 - 0.1 * 3 / (3 + 1)]),
    ("Adam", {"eps": 0.0, "weight_decay": 4.0}, [1.9]),  # the decay goes through the gradient, and is normalised away
    ("AdamW", {"eps": 0.0, "weight_decay": 0.5}, [2 * (1 - 0.1 * 0.5) - 0.1]),
    ("RMSprop", {"alpha": 0.75, "eps": 0.0}, [2 - 0.1 * 2, 1.8 - 0.1 / np.sqrt(0.75 * 0.25 * 9 + 0.25)]),
    ("RMSprop", {"alpha": 0.75, "eps": 1.0}, [2 - 0.1 * 3 / (1.5 + 1)]),
    ("RMSprop", {"alpha": 0.75, "eps": 0.0, "centered": True}, [2 - 0.1 * 3 / np.sqrt(9 / 4 - 9 / 16)]),
    ("RMSprop", {"alpha": 0.75, "eps": 0.0, "momentum": 0.5}, [1.8, 1.7 - 0.1 / np.sqrt(0.75 * 0.25 * 9 + 0.25)]),
    ("Adagrad", {"eps": 0.0}, [1.9, 1.9 - 0.1 / np.sqrt(10)]),
    ("Adagrad", {"eps": 1.0, "initial_accumulator_value": 7.0}, [2 - 0.1 * 3 / (4 + 1)]),
    ("Adagrad", {"eps": 0.0, "lr_decay": 0.25}, [1.9, 1.9 - 0.1 / 1.25 / np.sqrt(10)]),
]


@pytest.mark.parametrize(("name", "options", "expected"), BY_HAND)
def test_first_steps_by_hand(name, options, expected):
    p = leaf(2.0)
    optimizer = getattr(optim, name)([p], lr=0.1, **options)
    for g, value in zip((3.0, 1.0), expected, strict=False):
        np.testing.assert_allclose(step(optimizer, p, g), [value], rtol=1e-14)


def test_amsgrad_remembers_the_largest_square():
    p = leaf(2.0)
    optimizer = optim.Adam([p], lr=0.1, betas=(0.0, 0.5), eps=0.0, amsgrad=True)
    after = step(optimizer, p, 4.0)
    # v: 0.5 * 16 = 8, then 4 + 0.5; the larger stays
    np.testing.assert_allclose(step(optimizer, p, 1.0), after - 0.1 / np.sqrt(8 / 0.75), rtol=1e-14)


# Against PyTorch


def grid(**options):
    return [dict(zip(options, values, strict=True)) for values in itertools.product(*options.values())]


GRIDS = [
    *(("SGD", o) for o in grid(lr=[0.1], momentum=[0.0, 0.9], dampening=[0.0, 0.3], weight_decay=[0.0, 0.1])),
    *(("SGD", o) for o in grid(lr=[0.1], momentum=[0.9], nesterov=[True], weight_decay=[0.0, 0.1])),
    *(("Adam", o) for o in grid(betas=[(0.9, 0.999), (0.0, 0.5)], weight_decay=[0.0, 0.1], amsgrad=[False, True])),
    *(("AdamW", o) for o in grid(lr=[0.001, 0.1], weight_decay=[0.0, 0.1], amsgrad=[False, True])),
    *(
        ("RMSprop", o)
        for o in grid(alpha=[0.99, 0.5], weight_decay=[0, 0.1], momentum=[0, 0.9], centered=[False, True])
    ),
    *(("Adagrad", o) for o in grid(lr_decay=[0.0, 0.1], weight_decay=[0.0, 0.1], initial_accumulator_value=[0.0, 0.5])),
    *((name, {}) for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad")),  # the defaults are PyTorch's
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "options"), GRIDS)
def test_a_hundred_steps_agree_with_torch(torch, dtype, name, options):
    # In float32 each step rounds a handful of times, by 2^-24 of numbers up to about 4, in another order than PyTorch
    # does: of either sign, so after 100 steps some 4 * 10 * 4 * 2^-24, 1e-5. What grows is a quotient by a small
    # square root.
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    start = [rng().standard_normal((3, 2)).astype(dtype), rng(1).standard_normal(4).astype(dtype)]
    ours = [tl.tensor(a, requires_grad=True) for a in start]
    theirs = [torch.tensor(a, requires_grad=True) for a in start]
    a, b = getattr(optim, name)(ours, **options), getattr(torch.optim, name)(theirs, **options)
    for t in range(100):
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            g = rng((t, i)).standard_normal(p.shape).astype(dtype)
            p.grad, q.grad = tl.tensor(g), torch.tensor(g)
        a.step()
        b.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=tolerance, atol=tolerance)
            assert p.dtype == dtype
    for i, q in enumerate(theirs):
        state = {k: v.numpy() for k, v in b.state[q].items() if v is not None and v.ndim}
        assert {k for k, v in a.state_dict()["state"][i].items() if isinstance(v, np.ndarray)} == set(state)
        for key, value in state.items():
            np.testing.assert_allclose(a.state_dict()["state"][i][key], value, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["none", "some"])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, float("inf")])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 100.0])
def test_clipping_agrees_with_torch(torch, norm_type, max_norm, kind):
    arrays = [rng().standard_normal((3, 2)), rng(1).standard_normal(4), np.zeros(2)]
    ours, theirs = [leaf(*a) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    for p, q in zip(ours[:2], theirs[:2], strict=True):  # the last has none
        if kind == "some":
            p.grad, q.grad = tl.tensor(p.numpy()), q.detach().clone()
    total = optim.clip_grad_norm_(iter(ours), max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-14)
    assert ours[2].grad is None
    for p, q in zip(ours[:2], theirs[:2], strict=True):
        if kind == "some":
            np.testing.assert_allclose(p.grad.numpy(), q.grad, rtol=1e-14)
        else:
            assert p.grad is None


def test_clipping_by_hand():
    p, q = leaf(3.0, 0.0), leaf(4.0)
    p.grad, q.grad = tl.tensor(p.numpy()), tl.tensor(q.numpy())
    assert optim.clip_grad_norm_([p, q], 10.0).item() == 5.0
    assert q.grad.tolist() == [4.0]  # small enough
    assert optim.clip_grad_norm_([p, q], 1.0).item() == 5.0
    np.testing.assert_allclose([*p.grad.tolist(), *q.grad.tolist()], [0.6, 0.0, 0.8], rtol=1e-6)
    assert optim.clip_grad_norm_([leaf(1.0)], 1.0).item() == 0.0
    q.grad = tl.tensor(np.array([np.inf]))
    with pytest.raises(GradientError, match="norm of the gradients is inf"):
        optim.clip_grad_norm_([p, q], 1.0, error_if_nonfinite=True)
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0.0], rtol=1e-6)  # left alone


# Groups, state, and the graph


def test_groups_have_their_own_options():
    p, q, r = leaf(2.0), leaf(2.0), leaf(2.0)
    optimizer = optim.SGD([{"params": [p, q], "lr": 1.0}, {"params": r, "weight_decay": 1.0}], lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.1]
    for x in (p, q, r):
        x.grad = tl.tensor(np.array([1.0]))
    optimizer.step()
    np.testing.assert_allclose([p.item(), q.item(), r.item()], [1.0, 1.0, 2 - 0.1 * (1 + 2)], rtol=1e-15)
    optimizer.param_groups[1]["lr"] = 0.0
    optimizer.step()
    assert (p.item(), r.item()) == (0.0, 2 - 0.1 * (1 + 2))
    options = "momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False"
    assert repr(optimizer).startswith(f"SGD(lr=1.0, {options}; lr=0")


def test_parameters_without_a_gradient_are_skipped():
    p, q = leaf(2.0), leaf(2.0)
    optimizer = optim.Adam([p, q], lr=0.1, weight_decay=0.1)
    step(optimizer, q, 1.0, 1.0)
    assert p.item() == 2.0
    assert list(optimizer.state_dict()["state"]) == [1]
    np.testing.assert_allclose(step(optimizer, p, 1.0), [1.9], rtol=1e-7)  # its own first step, with its own count
    assert [optimizer.state_dict()["state"][i]["step"] for i in (0, 1)] == [1, 3]


def test_zero_grad_forgets_all_gradients():
    p, q = leaf(1.0), leaf(2.0)
    optimizer = optim.SGD([{"params": [p]}, {"params": [q]}])
    (p * q).sum().backward()
    optimizer.zero_grad()
    assert p.grad is q.grad is None


NAMES = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"]
RICH = {"SGD": {"momentum": 0.9}, "Adam": {"amsgrad": True}, "RMSprop": {"momentum": 0.5, "centered": True}}


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_has_the_same_bits(name):
    def build(start, **extra):
        params = [tl.tensor(a, requires_grad=True) for a in start]
        return params, getattr(optim, name)([{"params": params[:1]}, {"params": params[1:], "lr": 0.03}], **extra)

    def run(params, optimizer, steps):
        for t in steps:
            for i, p in enumerate(params):
                p.grad = tl.randn(*p.shape, generator=100 * t + i)
            optimizer.step()

    params, optimizer = build([np.ones((2, 3), np.float32), np.ones(4, np.float32)], **RICH.get(name, {}))
    run(params, optimizer, range(3))
    state, weights = optimizer.state_dict(), [p.numpy().copy() for p in params]
    kept = str(state)
    run(params, optimizer, range(3, 6))
    assert str(state) == kept  # copies: later steps do not reach them
    others, resumed = build(weights, lr=7.0)  # its options come from the state
    resumed.load_state_dict(state)
    run(others, resumed, range(3, 6))
    assert str(state) == kept
    for p, q in zip(params, others, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert repr(resumed) == repr(optimizer)
    assert str(resumed.state_dict()) == str(optimizer.state_dict())


def test_a_step_between_forward_and_backward_is_noticed():
    p = leaf(2.0)
    optimizer = optim.SGD([p], lr=0.1)
    loss = (p * p).sum()
    p.grad = tl.tensor(np.array([1.0]))
    optimizer.step()
    with pytest.raises(GradientError, match="mul"):
        loss.backward()
    optimizer.zero_grad()
    (p * p).sum().backward()  # a new graph has no such problem
    assert p.grad.tolist() == [2 * 1.9]


def test_the_gradient_is_left_as_it_is():
    for name in NAMES:
        p = leaf(2.0)
        optimizer = getattr(optim, name)([p], lr=0.1, weight_decay=0.1)
        step(optimizer, p, 3.0, 3.0)
        assert p.grad.tolist() == [3.0], name
        p.grad *= 2  # and no buffer looks at it
        before = optimizer.state_dict()
        p.grad *= 2
        assert str(optimizer.state_dict()) == str(before)


# Mistakes

ONE = leaf(1.0, 2.0)


def loading(state):
    optimizer = optim.Adam([ONE])
    full = {"state": {}, "param_groups": [{**optimizer.param_groups[0], "params": [0]}]}
    optimizer.load_state_dict(full | state)


MISTAKES = [
    (lambda: optim.SGD([]), ArgumentError, "SGD: got no parameters in params"),
    (lambda: optim.SGD(np.array([], object)), ArgumentError, "SGD: got no parameters in params"),
    (lambda: optim.SGD(np.array(None, object)), DTypeError, "SGD: params must be Tensors"),
    (lambda: optim.SGD(tl.nn.Linear(2, 2)), DTypeError, r"SGD: .*parameters\(\).*Linear"),
    (lambda: optim.SGD([np.ones(2)]), DTypeError, "must be Tensors, got ndarray"),
    (lambda: optim.SGD([ONE, ONE]), ArgumentError, r"shape \(2,\) was given twice"),
    (lambda: optim.SGD([{"params": ONE}, {"params": [ONE]}]), ArgumentError, "twice"),
    (lambda: optim.SGD([tl.ones(2)]), GradientError, r"SGD: .*shape \(2,\) is not a leaf"),
    (lambda: optim.SGD([ONE * 2]), GradientError, "not a leaf that requires"),
    (lambda: optim.SGD([{"lr": 1.0}]), ArgumentError, "SGD: .*params"),
    (lambda: optim.SGD([{"params": [ONE]}, leaf(1.0)]), ArgumentError, "SGD: .*group"),
    (lambda: optim.SGD([ONE], lr=-1), ArgumentError, r"SGD: lr must lie in \[0, inf\), got -1"),
    (lambda: optim.SGD([ONE], lr=float("nan")), ArgumentError, "SGD: lr .*nan"),
    (
        lambda: optim.SGD([{"params": ONE, "momentum": -0.1}]),
        ArgumentError,
        r"momentum must lie in \[0, inf\), got -0.1",
    ),
    (lambda: optim.Adam([ONE], weight_decay=-2), ArgumentError, "Adam: weight_decay .* got -2"),
    (lambda: optim.Adam([ONE], eps=-2), ArgumentError, "Adam: eps .* got -2"),
    (lambda: optim.Adam([ONE], betas=(1.0, 0.9)), ArgumentError, r"betas must lie in \[0, 1\), got 1.0"),
    (lambda: optim.Adam([ONE], betas=(0.9,)), ArgumentError, r"Adam: betas .*\(0.9,\)"),
    (lambda: optim.RMSprop([ONE], alpha=-1), ArgumentError, "RMSprop: alpha .*-1"),
    (lambda: optim.RMSprop([ONE], alpha=1.5), ArgumentError, "RMSprop: alpha .*1.5"),
    (lambda: optim.Adagrad([ONE], lr_decay=-1), ArgumentError, "Adagrad: lr_decay"),
    (lambda: optim.SGD([ONE], nesterov=True), ArgumentError, "nesterov needs momentum above 0"),
    (lambda: optim.SGD([ONE], momentum=0.9, dampening=0.1, nesterov=True), ArgumentError, "dampening=0.1"),
    (lambda: loading({"param_groups": [{"params": [0, 1]}]}), ArgumentError, r"\[2\] parameters, this .* \[1\]"),
    (
        lambda: loading({"state": {0: {"step": 1, "exp_avg": np.ones(3)}}}),
        ArgumentError,
        r"exp_avg of parameter 0 .*\(3,\).*\(2,\)",
    ),
    (
        lambda: loading({"state": {5: {"step": 1}}}),
        ArgumentError,
        "Adam.load_state_dict: the number of a parameter must be at most 0, got 5",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), MISTAKES)
def test_mistakes_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_failed_load_changes_nothing():
    p, q = leaf(1.0, 2.0), leaf(1.0, 2.0)
    optimizer = optim.Adam([p], lr=0.5)
    step(optimizer, p, 1.0)
    before = str(optimizer.state_dict())
    state = optim.Adam([q], lr=0.1).state_dict() | {"state": {0: {"step": 3, "exp_avg": np.ones(3)}}}
    with pytest.raises(ArgumentError, match="exp_avg"):
        optimizer.load_state_dict(state)
    assert str(optimizer.state_dict()) == before


def test_a_loaded_state_takes_the_parameters_dtype():
    single, double = leaf(1.0, 2.0, dtype=np.float32), leaf(1.0, 2.0)
    optimizer, resumed = optim.Adam([single]), optim.Adam([double])
    step(optimizer, single, 1.0)
    resumed.load_state_dict(optimizer.state_dict())
    assert resumed.state_dict()["state"][0]["exp_avg"].dtype == np.float64


# Large parameters, in pieces


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("SGD", o) for o in ({}, {"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01})),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        *((name, o) for name in ("Adam", "AdamW") for o in ({}, {"amsgrad": True, "weight_decay": 0.1})),
        *(("RMSprop", o) for o in ({}, {"centered": True, "momentum": 0.9, "weight_decay": 0.1})),
        *(("Adagrad", o) for o in ({}, {"lr_decay": 0.1, "initial_accumulator_value": 1.0})),
    ],
)
@pytest.mark.parametrize("shape", [(31,), (9, 4), (2, 3, 5, 7), (1, 40)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_large_parameter_is_updated_to_the_bits_of_one_piece(monkeypatch, name, options, shape, dtype):
    made, start = getattr(optim, name), rng().standard_normal(shape).astype(dtype)
    p, w = tl.tensor(start, requires_grad=True), start.copy()
    optimizer = made([p], lr=0.1, **options)
    state = {"step": 0, "scratch": np.empty_like(w)}
    monkeypatch.setattr(optim.optimizers, "_PIECE", 16)
    for seed in range(4):
        if seed == 2 and "momentum" in optimizer.defaults:  # a state that a later step creates
            optimizer.param_groups[0]["momentum"] = 0.5
        g = rng(seed).standard_normal(shape).astype(dtype).T.copy().T
        p.grad = tl.tensor(g)
        optimizer.step()
        state["step"] += 1
        plain = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        made.update.__wrapped__(optimizer, w, g, state, plain)
        assert p.numpy().tobytes() == w.tobytes()
    assert optimizer.state[p].keys() == state.keys()
    for key, value in state.items():
        if key not in ("step", "scratch"):
            assert optimizer.state[p][key].tobytes() == value.tobytes()


def test_an_optimiser_of_ones_own_gets_whole_parameters():
    class Normed(optim.Optimizer):
        def update(self, w, g, state, options):
            w -= options["lr"] * g / np.linalg.norm(g)

    p = tl.tensor(np.ones((600, 600), np.float32), requires_grad=True)
    p.grad = tl.ones(600, 600)
    Normed([p], {"lr": 600.0}).step()
    np.testing.assert_allclose(p.numpy(), 0, atol=1e-5)
