"""``zero_ fill_ copy_ add_ mul_``, judged by PyTorch: values, dtypes, the count of changes, and what hears them."""

import warnings

import numpy as np
import pytest
from test_tensor_words import VALUES, pair, same

import tinygrad_lenet as tl

CHANGES = {
    "zero_": [lambda x, y: x.zero_()],
    "fill_": [lambda x, y: x.fill_(2), lambda x, y: x.fill_(y[0, 0])],
    "copy_": [lambda x, y: x.copy_(y), lambda x, y: x.copy_(y[0]), lambda x, y: x.copy_(y[0, 1])],
    "add_": [lambda x, y: x.add_(y), lambda x, y: x.add_(1), lambda x, y: x.add_(y, alpha=2)],
    "mul_": [lambda x, y: x.mul_(y), lambda x, y: x.mul_(2), lambda x, y: x.mul_(y[0])],
}
CHANGES["add_"] += [lambda x, y: x.add_(0.5), lambda x, y: x.add_(y, alpha=0.5), lambda x, y: x.add_(y[1], alpha=-1)]
CHANGED = [pytest.param(call, id=f"{name}-{i}") for name, calls in CHANGES.items() for i, call in enumerate(calls)]


@pytest.mark.parametrize("other", ["int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("call", CHANGED)
def test_changes_in_place(torch, call, dtype, other):
    (x, t), (y, u) = pair(torch, dtype), pair(torch, other, values=VALUES[::-1] + 1)
    count = x._version[0]
    try:
        expected = call(t, u)
    except RuntimeError:  # it cannot hold floats, or cannot be scaled by one
        with pytest.raises(tl.DTypeError):
            call(x, y)
        np.testing.assert_array_equal(x.numpy(), VALUES)
        return
    found = call(x, y)
    assert expected is t
    assert found is x
    assert x._version[0] == count + 1
    same(x, t)


@pytest.mark.parametrize("call", CHANGED)
def test_changes_in_place_are_not_recorded(call):
    y = tl.tensor(VALUES * 1.0)
    leaf = tl.tensor(VALUES * 1.0, requires_grad=True)
    node, view = leaf * 1, leaf.view(-1).view(2, 6)
    for x in (leaf, node, view):
        with pytest.raises(tl.GradientError, match=r"cannot be changed in place.*no_grad"):
            call(x, y)
        np.testing.assert_array_equal(x.detach().numpy(), VALUES)
    with tl.no_grad():
        assert call(leaf, y) is leaf
    assert leaf.requires_grad
    assert leaf.is_leaf
    for x in (leaf, leaf.detach()):
        if call not in (CHANGES["zero_"][0], CHANGES["fill_"][0], CHANGES["add_"][1], CHANGES["mul_"][1]):
            before = x.detach().numpy().copy()
            plain = tl.tensor(before)
            if call is not CHANGES["add_"][3]:  # of a number
                with pytest.raises(tl.GradientError, match="would not record the gradient of value"):
                    call(plain, y.clone().requires_grad_())
                np.testing.assert_array_equal(plain.numpy(), before)


def test_a_change_in_place_after_it_was_saved_is_noticed():
    for calls in CHANGES.values():
        w, x, y = tl.ones(2, 6, requires_grad=True), tl.ones(2, 6), tl.ones(2, 6)
        product = w * x
        calls[0](x, y)
        with pytest.raises(tl.GradientError, match=rf"changed in place .*{__file__.rpartition('/')[2]}, line"):
            product.sum().backward()


def test_add_scales_a_list_by_its_numbers():
    assert tl.ones(4).add_([1, 2, 3, 4], alpha=2).tolist() == [3, 5, 7, 9]
    assert tl.ones(2).add_((1, 2), alpha=-1).tolist() == [0, -1]
    with pytest.raises(tl.ShapeError):
        tl.ones(4).add_([1, 2, 3], alpha=4)


@pytest.mark.parametrize("call", CHANGED)
def test_a_compiled_function_repeats_changes_in_place(call):
    def step(state, x):
        with tl.no_grad():
            call(state, x)
        return x * state + call(x * 2, x)

    states = tl.ones(2, 6), tl.ones(2, 6)
    compiled = tl.compile(lambda x: step(states[1], x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(4):
            x = tl.tensor(np.float32(VALUES + i))
            np.testing.assert_array_equal(compiled(x).numpy(), step(states[0], x).numpy(), strict=True)
            np.testing.assert_array_equal(states[1].numpy(), states[0].numpy(), strict=True)
            assert states[0]._version[0] == states[1]._version[0]
    assert compiled.replayed == 2


@pytest.mark.parametrize("call", CHANGED)
def test_a_checkpoint_sets_changes_in_place_back(call):
    def f(x):
        with tl.no_grad():
            call(state, x.detach() + 1)
        return x * state * x

    results = []
    for wrap in (lambda x: f(x), lambda x: tl.checkpoint(f, x)):
        state, x = tl.tensor(np.float32(VALUES)), tl.tensor(np.float32(VALUES), requires_grad=True)
        wrap(x).sum().backward()
        results.append((x.grad.numpy(), state.numpy(), state._version[0]))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step_by_hand_as_in_pytorch(torch):
    w, v = pair(torch, "float32", grad=True)
    for library, p in ((tl, w), (torch, v)):
        for _ in range(3):
            (p * p).sum().backward()
            with library.no_grad():
                p.add_(p.grad, alpha=-0.1).mul_(0.9)
            p.grad.zero_()
    np.testing.assert_allclose(w.detach().numpy(), v.detach().numpy(), rtol=1e-6)
    same(w.grad, v.grad)
