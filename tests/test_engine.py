"""The graph: accumulation, freeing, higher orders, depth, memory."""

import gc
import weakref

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet.core.graph import Node

RNG = np.random.default_rng(7)


def leaf(*shape, dtype=np.float64):
    return tl.tensor(RNG.standard_normal(shape), dtype=dtype, requires_grad=True)


# Accumulation and freeing


def test_backward_adds_to_what_grad_holds_already():
    x = tl.tensor([1.0, -2.0], requires_grad=True)
    (x * 3).backward([1.0, 10.0])
    first = x.grad
    (x * x).backward([1.0, 1.0])
    np.testing.assert_array_equal(x.grad.numpy(), [3 + 2, 30 - 4])
    np.testing.assert_array_equal(first.numpy(), [3, 30])  # what somebody holds is not changed under their hands


def test_a_gradient_that_the_user_set_is_added_to_and_left_alone():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    mine = tl.tensor([100.0, 200.0])
    x.grad = mine
    (x * 2).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [102, 202])
    np.testing.assert_array_equal(mine.numpy(), [100, 200])


def test_a_second_backward_through_a_freed_graph_says_what_to_pass():
    x = leaf(3)
    y = x.exp().sum()
    y.backward()
    before = x.grad.numpy().copy()
    with pytest.raises(tl.GradientError, match=r"sum: .*freed.*retain_graph=True"):
        y.backward()
    np.testing.assert_array_equal(x.grad.numpy(), before)


def test_a_freed_part_of_a_new_graph_raises_too():
    x = leaf(3)
    h = x.tanh()
    h.sum().backward()
    with pytest.raises(tl.GradientError, match=r"tanh: .*retain_graph=True"):
        (h * 2).sum().backward()
    with pytest.raises(tl.GradientError, match=r"tanh: .*retain_graph=True"):
        tl.grad((h * 2).sum(), x)


def test_retain_graph_lets_backward_run_again_and_accumulates():
    x = leaf(3)
    y = (x * x * x).sum()
    y.backward(retain_graph=True)
    once = x.grad.numpy().copy()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 3 * once, rtol=1e-15)
    np.testing.assert_allclose(once, 3 * x.numpy() ** 2)
    with pytest.raises(tl.GradientError, match="retain_graph=True"):
        y.backward()


def test_backward_frees_what_the_graph_kept():
    x = leaf(3)
    h = x * 2
    watched = weakref.ref(h)
    y = h.exp() * h
    del h
    assert watched() is not None  # mul saved it
    y.backward([1.0, -2.0, 3.0])
    assert watched() is None


def test_backward_on_a_leaf_copies_the_seed():
    x = leaf(2)
    seed = tl.tensor([3.0, 4.0], dtype=np.float64)
    x.backward(seed)
    np.testing.assert_array_equal(x.grad.numpy(), [3, 4])
    seed.data = [0.0, 0.0]
    np.testing.assert_array_equal(x.grad.numpy(), [3, 4])


# Shapes of graphs


def test_a_tensor_that_is_used_twice_gets_both_gradients():
    x, g = leaf(4), RNG.standard_normal(4)
    (x * x).backward(g)
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy() * g)
    y = leaf(4)
    (y + y).backward(g)
    np.testing.assert_allclose(y.grad.numpy(), 2 * g)
    z = leaf(4)
    (z - z).backward(g)
    np.testing.assert_array_equal(z.grad.numpy(), np.zeros(4))


def test_a_diamond_sums_both_sides_before_it_goes_on():
    x, g = leaf(4), RNG.standard_normal(4)
    h = x.exp()
    (h.sin() * (h * 2)).backward(g)
    e = np.exp(x.numpy())
    np.testing.assert_allclose(x.grad.numpy(), g * (np.cos(e) * 2 * e + 2 * np.sin(e)) * e)


def test_a_ladder_of_diamonds_visits_each_node_once(monkeypatch):
    from tinygrad_lenet.core.primitive import Plan

    visits, pull = [], Plan.pull
    monkeypatch.setattr(Plan, "pull", lambda self, node, *rest: visits.append(node.number) or pull(self, node, *rest))
    x = tl.tensor(1.0, dtype=np.float64, requires_grad=True)
    y = x
    for _ in range(60):  # 2^60 paths
        y = y + y
    y.backward()
    assert x.grad.item() == 2.0**60
    assert len(visits) == len(set(visits)) == 60
    assert visits == sorted(visits, reverse=True)


def test_a_tensor_that_is_used_a_thousand_times():
    x, factors = leaf(3), RNG.standard_normal(1000)
    total = tl.stack([x * float(f) for f in factors]).sum(axis=0)
    g = RNG.standard_normal(3)
    total.backward(g)
    np.testing.assert_allclose(x.grad.numpy(), g * factors.sum(), rtol=1e-10)


def test_a_node_in_the_middle_can_be_old_and_its_child_new():
    x = leaf(2)
    old = x * 2
    other = old.exp()  # newer than old, not above the output
    y = old * 3
    y.backward([1.0, 10.0])
    np.testing.assert_array_equal(x.grad.numpy(), [6, 60])
    assert other.requires_grad


def test_the_gradient_of_an_unequal_upstream_goes_to_the_right_elements():
    x, w = leaf(2, 3), leaf(3)
    g = np.array([[1.0, 10.0, 100.0], [-3.0, 7.0, 0.5]])
    (x * w).backward(g)
    np.testing.assert_allclose(x.grad.numpy(), g * w.numpy())
    np.testing.assert_allclose(w.grad.numpy(), (g * x.numpy()).sum(0))


def test_a_chain_of_a_hundred_thousand_ops_needs_no_recursion():
    x = tl.tensor(1.0, dtype=np.float64, requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    (slope,) = tl.grad(y, x, retain_graph=True)
    assert slope.item() == 1.0
    y.backward()
    assert x.grad.item() == 1.0
    for _ in range(100_000):  # and one that goes without a backward pass, so that deletion runs along the whole chain
        y = -y
    del y
    assert x.grad.item() == 1.0


# grad()


def test_grad_of_grad_of_grad_of_polynomials():
    x = tl.tensor([-1.5, 0.0, 0.5, 2.0], dtype=np.float64, requires_grad=True)
    v = x.numpy()
    y = (2 * x**4 - 3 * x**3 + x * x - 5 * x).sum()
    (d1,) = tl.grad(y, x, create_graph=True)
    (d2,) = tl.grad(d1.sum(), x, create_graph=True)
    (d3,) = tl.grad(d2.sum(), x, create_graph=True)
    (d4,) = tl.grad(d3.sum(), x)
    np.testing.assert_allclose(d1.numpy(), 8 * v**3 - 9 * v**2 + 2 * v - 5, atol=1e-12)
    np.testing.assert_allclose(d2.numpy(), 24 * v**2 - 18 * v + 2, atol=1e-12)
    np.testing.assert_allclose(d3.numpy(), 48 * v - 18, atol=1e-12)
    np.testing.assert_allclose(d4.numpy(), np.full(4, 48.0), atol=1e-12)
    assert x.grad is None
    assert not d4.requires_grad


def test_a_gradient_penalty_trains_through_backward():
    x, w = leaf(3), leaf(3)
    (gx,) = tl.grad((x * w * w).sum(), x, create_graph=True)
    (gx * gx).sum().backward()  # sum w^4
    np.testing.assert_allclose(w.grad.numpy(), 4 * w.numpy() ** 3)


def test_create_graph_records_inside_no_grad_too():
    x = tl.tensor(3.0, requires_grad=True)
    y = x**3
    with tl.no_grad():
        (slope,) = tl.grad(y, x, create_graph=True)
    assert slope.requires_grad
    assert tl.grad(slope, x)[0].item() == 18.0


def test_grad_with_respect_to_tensors_that_are_no_leaves():
    x = leaf(3)
    h = x.exp()
    y = (h * h).sum()
    gh, gx = tl.grad(y, [h, x])
    np.testing.assert_allclose(gh.numpy(), 2 * h.numpy())
    np.testing.assert_allclose(gx.numpy(), 2 * h.numpy() ** 2)
    (itself,) = tl.grad(x * 1, x, tl.ones(3))
    np.testing.assert_array_equal(itself.numpy(), [1, 1, 1])
    h = x * 2
    (itself,) = tl.grad(h, h, tl.tensor([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(itself.numpy(), [1, 2, 3])


def test_grad_of_several_outputs_sums_them_weighted_by_grad_outputs():
    x = leaf(2)
    a, b = x * 3, x * x
    ga, gb = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    (g,) = tl.grad([a, b], x, [ga, tl.tensor(gb)], retain_graph=True)
    np.testing.assert_allclose(g.numpy(), 3 * ga + 2 * x.numpy() * gb)
    (g,) = tl.grad([a.sum(), b.sum(), a.sum()], x)  # one element each: no grad_outputs needed
    np.testing.assert_allclose(g.numpy(), 6 + 2 * x.numpy())
    with pytest.raises(tl.ArgumentError, match="2 outputs need as many grad_outputs, got 1"):
        tl.grad([x * 1, x * 2], x, [ga])


@pytest.mark.parametrize("create_graph", [False, True])
def test_grad_outputs_of_one_output_may_be_an_array_as_for_backward(create_graph):
    x, g = leaf(2, 3), RNG.standard_normal((2, 3))
    (gx,) = tl.grad(x * 2, x, g, create_graph=create_graph)
    np.testing.assert_array_equal(gx.numpy(), 2 * g)
    with pytest.raises(tl.ShapeError, match=r"shape \(2, 3\), got"):
        tl.grad(x * 2, x, g[None], create_graph=create_graph)


def test_grad_touches_no_grad_attribute_and_pays_only_for_its_inputs():
    x, w = leaf(3), leaf(3)
    before = tl.tensor([1.0, 2.0, 3.0], dtype=np.float64)
    x.grad = before
    called = []

    @tl.primitive
    def watched(x: tl.Array, y: tl.Array) -> tl.Array:
        return x * y

    watched.vjp(x=lambda g, y: called.append("x") or g * y, y=lambda g, x: called.append("y") or g * x)
    side = watched(w, w)
    tl.grad((watched(x, w) * side).sum(), x)
    assert called == ["x"]  # neither w's own rule, nor the side that does not lead to x
    assert x.grad is before
    assert w.grad is None


def test_grad_names_the_input_that_is_not_reached():
    x, unused = leaf(2), leaf(2)
    y = (x * 2).sum()
    with pytest.raises(tl.GradientError, match=r"input 1.*allow_unused=True"):
        tl.grad(y, [x, unused], retain_graph=True)
    gx, none = tl.grad(y, [x, unused], allow_unused=True)
    assert none is None
    np.testing.assert_array_equal(gx.numpy(), [2, 2])
    with pytest.raises(tl.GradientError, match="input 0 does not require a gradient"):
        tl.grad((x * 2).sum(), tl.ones(2))
    with pytest.raises(tl.GradientError, match="does not depend on anything that requires"):
        tl.grad(tl.ones(()), x)


def test_the_same_input_twice_gives_two_gradients_of_their_own():
    x = leaf(2)
    a, b = tl.grad((x * 2).sum(), [x, x])
    assert not np.shares_memory(a.numpy(), b.numpy())


# What backward refuses


def test_backward_of_several_elements_needs_a_gradient():
    with pytest.raises(tl.ShapeError, match=r"shape \(3,\).*y\.sum\(\)\.backward\(\)"):
        (leaf(3) * 2).backward()
    x = leaf(1, 1)
    (x * 2).backward()  # one element will do
    assert x.grad.shape == (1, 1)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (1, 3)])
def test_backward_refuses_a_gradient_of_another_shape(shape):
    with pytest.raises(tl.ShapeError, match=r"tensor's shape \(3,\), got"):
        (leaf(3) * 2).backward(np.ones(shape))


def test_backward_without_anything_to_differentiate_says_how_to_put_it_right():
    for y in (tl.ones(()) * 2, leaf(1).detach(), tl.tensor(3)):
        with pytest.raises(tl.GradientError, match="requires_grad=True"):
            y.backward()


# Memory


def ours():
    return sum(issubclass(type(o), (tl.Tensor, Node)) for o in gc.get_objects())


def one_step(w, create_graph):
    x = tl.tensor(np.ones((4, 3)))
    h = tl.concatenate([x @ w, (x @ w).relu()], axis=1)
    loss = tl.functional.cross_entropy(h.reshape(2, -1), [1, 0]) + h.std() + h[[0, 0, 1]].exp().max()
    if create_graph:
        (g,) = tl.grad(loss, w, create_graph=True)
        (g * g).sum().backward()
    else:
        loss.backward()
    w.grad = None


@pytest.mark.parametrize("create_graph", [False, True])
def test_without_the_garbage_collector_a_training_loop_leaves_nothing_behind(create_graph):
    w = leaf(3, 2)
    one_step(w, create_graph)
    gc.collect()
    gc.disable()
    try:
        before = ours()
        for _ in range(5):
            one_step(w, create_graph)
        left = leaf(3).exp()  # nor does a graph that never saw a backward pass
        (left * left + left).sum()
        del left
        assert ours() == before
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        cyclic = [o for o in gc.garbage if issubclass(type(o), (tl.Tensor, Node))]
        assert not cyclic
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
