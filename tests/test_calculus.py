"""Derivatives as functions, hooks and checkpoints: against PyTorch's, against each other, and at their limits."""

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.errors import ArgumentError, DTypeError, GradientError, ShapeError


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


A, B, V = random(3, 2), random(2, 3, seed=1), random(3, 2, seed=2)
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


def matrix(x, y):
    """Of both libraries: a function of two matrices, of all orders."""
    return (x @ y).tanh() * (y @ x).sum() + x.sum()


def number(x, y):
    return (matrix(x, y) ** 3).mean()


def same(ours, theirs):
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
        return
    assert isinstance(ours, tl.Tensor)
    assert ours.shape == tuple(theirs.shape)
    assert not ours.requires_grad
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), **CLOSE)


# What importing torch.func warns of.
quiet = pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:DeprecationWarning")


@quiet
@pytest.mark.parametrize("argnums", [0, 1, (0,), (1, 0)])
def test_gradients_jacobians_and_hessians_are_pytorchs(torch, argnums):
    f = torch.func
    a, b = torch.tensor(A), torch.tensor(B)
    same(tl.grad(number, argnums)(A, B), f.grad(number, argnums)(a, b))
    gradient, value = f.grad_and_value(number, argnums)(a, b)
    same(tl.value_and_grad(number, argnums)(A, B), (value, gradient))
    same(tl.jacobian(matrix, argnums)(A, B), f.jacrev(matrix, argnums)(a, b))
    same(tl.hessian(number, argnums)(A, B), f.hessian(number, argnums)(a, b))


@quiet
def test_products_are_pytorchs(torch):
    a, b, v, w = (torch.tensor(x) for x in (A, B, V, random(2, 3, seed=3)))
    value, pull = tl.vjp(matrix, A, B)
    expected, torch_pull = torch.func.vjp(matrix, a, b)
    g = random(3, 3, seed=4)
    same(value, expected)
    for _ in range(2):  # it may be called again
        same(pull(g), torch_pull(torch.tensor(g)))
    _, pull = tl.vjp(lambda x: matrix(x, tl.tensor(B)), A)  # one primal: one gradient, alone
    same(pull(g), torch_pull(torch.tensor(g))[0])
    same(tl.jvp(matrix, (A, B), (v.numpy(), w.numpy())), torch.func.jvp(matrix, (a, b), (v, w)))
    _, expected = torch.autograd.functional.hvp(number, (a, b), (v, w))
    same(tl.hvp(number, (A, B), (v.numpy(), w.numpy())), expected)


def test_functions_that_return_several():
    def two(x):
        return x.sin(), (x * 2).sum()

    x, v = random(3), random(3, seed=1)
    for found, expected in zip(tl.jacobian(two)(x), (np.diag(np.cos(x)), np.full(3, 2.0)), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, **CLOSE)
    (sine, total), (ds, dt) = tl.jvp(two, x, v)
    np.testing.assert_allclose(sine.numpy(), np.sin(x), **CLOSE)
    np.testing.assert_allclose(ds.numpy(), np.cos(x) * v, **CLOSE)
    np.testing.assert_allclose([total.item(), dt.item()], [2 * x.sum(), 2 * v.sum()], **CLOSE)
    pull = tl.vjp(two, x)[1]
    np.testing.assert_allclose(pull(v, 3.0).numpy(), np.cos(x) * v + 6, **CLOSE)


def power(n):
    return lambda x: x**n


@pytest.mark.parametrize("order", range(5))
def test_they_nest_to_any_order(order):
    f = power(5)
    for _ in range(order):
        f = tl.grad(f)
    factor = np.prod(np.arange(5, 5 - order, -1.0))
    found = f(tl.tensor(1.5, dtype=np.float64))
    assert (found.item(), found.requires_grad) == (pytest.approx(factor * 1.5 ** (5 - order)), False)
    if order < 4:  # forward over reverse
        value, slope = tl.jvp(f, tl.tensor(1.5, dtype=np.float64), tl.tensor(2.0, dtype=np.float64))
        assert value.item() == pytest.approx(factor * 1.5 ** (5 - order))
        assert slope.item() == pytest.approx(2 * factor * (5 - order) * 1.5 ** (4 - order))


def test_the_gradient_of_a_gradient_that_uses_an_outer_variable():
    # d/dy of (d/dx of x y^2) at x = y: perturbations of the two levels must not mix (Siskind & Pearlmutter, 2005)
    nested = tl.grad(lambda y: y * tl.grad(lambda x: x * y * y)(y))
    assert nested(3.0).item() == 27
    assert tl.grad(lambda x: x * tl.grad(lambda y: x + y)(1.0))(1.0).item() == 1


def test_what_is_recorded_outside_flows_through():
    w = tl.tensor([2.0, 3.0], requires_grad=True)
    x = tl.tensor([1.0, 4.0], requires_grad=True)
    slope = tl.grad(lambda x: (w * x * x).sum())(x)  # 2 w x
    slope.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), [2, 8])
    np.testing.assert_array_equal(x.grad.numpy(), [4, 6])
    w.grad = None
    slope = tl.grad(lambda x: (w * x * x).sum())([1.0, 4.0])
    assert slope.requires_grad  # through w
    with tl.no_grad():
        assert not tl.grad(lambda x: (w * x * x).sum())(x).requires_grad
    assert not tl.grad(lambda x: (x * x).sum())([1.0]).requires_grad
    cotangent = tl.tensor([1.0, 1.0], requires_grad=True)
    pulled = tl.vjp(lambda x: x * x, [1.0, 4.0])[1](cotangent)
    pulled.sum().backward()
    np.testing.assert_array_equal(cotangent.grad.numpy(), [2, 8])
    tangent = tl.tensor([1.0, 1.0], requires_grad=True)
    tl.jvp(lambda x: x * x, tl.tensor([1.0, 4.0]), tangent)[1].sum().backward()
    np.testing.assert_array_equal(tangent.grad.numpy(), [2, 8])


def test_no_grad_attribute_is_touched_and_inputs_stay_as_they_are():
    model = nn.Linear(3, 2, generator=0)
    x = tl.tensor(random(4, 3), dtype=np.float32)
    tl.grad(lambda x: model(x).square().sum())(x)
    tl.hvp(lambda x: model(x).tanh().sum(), x, x)
    assert not x.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_arguments_that_have_no_influence_get_zeros():
    np.testing.assert_array_equal(tl.grad(lambda x, y: x, 1)(tl.tensor(1.0), [2.0, 3.0]).numpy(), [0, 0])
    np.testing.assert_array_equal(tl.grad(lambda x: tl.tensor(1.0))([1.0]).numpy(), [0])
    np.testing.assert_array_equal(tl.hessian(lambda x: x.sum())([1.0, 2.0]).numpy(), np.zeros((2, 2)))
    np.testing.assert_array_equal(tl.jvp(lambda x: tl.ones(2), tl.ones(1), tl.ones(1))[1].numpy(), [0, 0])
    np.testing.assert_array_equal(tl.grad(lambda x: x)(5.0).numpy(), 1)
    assert tl.jacobian(lambda x: x[:0])(tl.ones(3)).shape == (0, 3)
    assert tl.hvp(lambda x: x.sum(), tl.ones(2), tl.ones(2)).tolist() == [0, 0]


def test_further_arguments_are_passed_on():
    def scaled(x, factor, *, shift=0.0):
        return (x * factor + shift).square().sum()

    assert tl.grad(scaled)(1.0, 3, shift=1.0).item() == 24
    assert tl.grad(scaled, 1)(1.0, 3).item() == 6  # a number is a tensor of floats


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: tl.grad(lambda x: x * 2)([1.0, 2.0]), ShapeError, r"one number, it returned a tensor of shape \(2,\)"),
        (lambda: tl.grad(lambda x: (x, x))(1.0), ShapeError, "returned 2 tensors; see jacobian"),
        (lambda: tl.grad(lambda x: x)(np.arange(3)), DTypeError, r"argument 0 is int64; convert it.*astype"),
        (lambda: tl.grad(lambda x: x.item())(1.0), DTypeError, "it returned a float"),
        (lambda: tl.grad(lambda x: x > 0)(1.0), DTypeError, "it returned bool"),
        (
            lambda: tl.grad(lambda x: x, 1)(1.0),
            ArgumentError,
            "argnums must be distinct positions of 1 arguments, got 1",
        ),
        (lambda: tl.grad(lambda x: x, (0, 0))(1.0), ArgumentError, "argnums must be distinct positions of 1 arguments"),
        (lambda: tl.jvp(lambda x: x, tl.ones(2), tl.ones(3)), ShapeError, r"tangents must have the shapes \(2,\), got"),
        (lambda: tl.vjp(lambda x: x, tl.ones(2))[1](tl.ones(1)), ShapeError, "cotangents must have the shapes"),
        (lambda: tl.grad(tl.ones(1)), ArgumentError, "inputs must be tensors, input 0 is a int"),
    ],
)
def test_mistakes_are_explained(call, error, match):
    with pytest.raises(error, match=match):
        call()


# Hooks


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_hook_sees_the_whole_gradient_once_and_may_replace_it(create_graph):
    seen = []
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    y = x * 3
    y.register_hook(lambda g: seen.append(("y", g.tolist())))
    y.register_hook(lambda g: g * 2)
    y.register_hook(lambda g: seen.append(("twice y", g.tolist())))
    x.register_hook(lambda g: seen.append(("x", g.tolist())))
    out = (y * y + y).sum()  # y is used three times: 2 y + 1
    (gx, gy) = tl.grad(out, [x, y], create_graph=create_graph)
    assert seen == [("y", [7, 13]), ("twice y", [14, 26]), ("x", [42, 78])]
    assert (gx.tolist(), gy.tolist()) == ([42, 78], [14, 26])
    assert gx.requires_grad is create_graph


def test_a_hook_is_pytorchs(torch):
    def run(library, tensor, log):
        x, w = tensor([0.5, -1.0]), tensor([2.0, 3.0])
        y = x * w
        y.register_hook(lambda g: g.clip(-1, 1))
        w.register_hook(lambda g: log.append(g.tolist()))
        z = y.tanh()
        z.register_hook(lambda g: log.append(g.tolist()))
        (z * y * 5).sum().backward()
        return x.grad.tolist(), w.grad.tolist(), log

    ours = run(tl, lambda a: tl.tensor(a, dtype=np.float64, requires_grad=True), [])
    theirs = run(torch, lambda a: torch.tensor(a, dtype=torch.float64, requires_grad=True), [])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def test_a_hook_can_be_removed_and_what_it_keeps_is_its_own():
    x, kept = tl.tensor([1.0, 2.0], requires_grad=True), []
    handle = x.register_hook(kept.append)
    (x * 2).sum().backward()
    handle.remove()
    handle.remove()
    x.grad *= 10
    (x * 2).sum().backward()
    assert [g.tolist() for g in kept] == [[2, 2]]
    assert x.grad.tolist() == [22, 22]


def test_hooks_and_the_second_derivative(torch):
    def run(library):
        x = library.tensor(2.0, requires_grad=True)
        y = x * x
        y.register_hook(lambda g: g * y)
        (g,) = grad_of[library](y * y, x, create_graph=True)
        return g.item(), grad_of[library](g, x)[0].item()

    grad_of = {tl: tl.grad, torch: torch.autograd.grad}
    assert run(tl) == run(torch)


@pytest.mark.parametrize(("bad", "match"), [(3.0, "gave 3.0"), (tl.ones(3), r"gave Tensor float32 of shape \(3,\)")])
def test_a_hook_that_returns_nonsense_is_named(bad, match):
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    x.register_hook(lambda g: bad)
    with pytest.raises(
        GradientError, match=r"a hook must return None or a Tensor of float32 and shape \(2,\).*" + match
    ):
        x.sum().backward()
    with pytest.raises(GradientError, match="register_hook: this tensor requires no gradient"):
        tl.ones(1).register_hook(lambda g: None)


# Checkpoints


def block(model, x):
    return model(x).tanh()


@given(st.integers(0, 100), st.booleans())
def test_a_checkpoint_changes_no_bit(seed, twice):
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(4, 5, generator=seed), nn.Tanh(), nn.Dropout(0.5, generator=seed))
    head = nn.Linear(5, 2, generator=seed)
    data = rng.standard_normal((3, 4)).astype(np.float32)

    def run(through):
        model[-1].generator = np.random.default_rng(seed)
        model.zero_grad()
        x = tl.tensor(data, requires_grad=True)
        y = through(model, x)
        if twice:
            y = y + through(lambda z: head(model(z)).sum(axis=1, keepdims=True), x)
        out = (y * y).sum()
        out.backward()
        return [out, x.grad, *(p.grad for p in model.parameters())]

    def plain(f, x):
        return f(x)

    def recomputed(f, x):
        return tl.checkpoint(f, x, generators=[model[-1].generator])

    for a, b in zip(run(plain), run(recomputed), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_checkpoint_gives_gradients_of_any_order_also_to_what_the_function_closes_over():
    from tinygrad_lenet.testing import gradcheck

    def f(x, w):
        inner = x * w  # older than the call, and no leaf
        return tl.checkpoint(lambda x: (x @ w.T).sin() * inner.sum(), x)

    assert gradcheck(f, [A, V], order=2)
    assert gradcheck(lambda x, w: tl.checkpoint(lambda x, w: (x @ w.T, (x * w).exp()), x, w), [A, V], order=2)
    third = tl.grad(tl.grad(tl.grad(lambda x: tl.checkpoint(lambda x: x**4, x))))
    assert third(tl.tensor(2.0)).item() == 48


def test_a_checkpoint_finds_the_generators_of_modules_and_complains_of_others():
    x = tl.ones(50, 50, requires_grad=True)
    y = tl.checkpoint(nn.Dropout(0.5, generator=0), x)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    rng = np.random.default_rng(0)
    y = tl.checkpoint(lambda x: tl.dropout(x, 0.5, generator=rng), x)
    with pytest.raises(GradientError, match=r"other values when it was called again.*generators="):
        y.sum().backward()
    layer = nn.Linear(50, 2)
    y = tl.checkpoint(layer, x)
    layer.weight.data = layer.weight.numpy() + 1
    with pytest.raises(GradientError, match=r"checkpoint: .*of shape \(2, 50\), was changed in place"):
        y.sum().backward()
    y = tl.checkpoint(lambda x: x * x, x)
    with tl.no_grad():
        x += 1
    with pytest.raises(GradientError, match=r"checkpoint: .*of shape \(50, 50\), was changed in place"):
        y.sum().backward()


def test_a_checkpoint_where_nothing_is_recorded_is_a_call():
    assert tl.checkpoint(lambda x: x * 2, tl.ones(1)).requires_grad is False
    with tl.no_grad():
        assert tl.checkpoint(lambda x: x * 2, tl.ones(1, requires_grad=True)).requires_grad is False
    x = tl.ones(2, requires_grad=True)
    one, index, _none = tl.checkpoint(lambda x: (x * 2, x.argmax(), None), x)
    one.sum().backward()
    assert (x.grad.tolist(), index.item()) == ([2, 2], 0)


def test_checkpoints_keep_less():
    def chain(x):
        for _ in range(8):
            x = (x * x).sin()
        return x

    def peak(through):
        x = tl.rand(200_000, generator=0, requires_grad=True)
        gc.collect()
        tracemalloc.start()
        y = x
        for _ in range(8):
            y = through(chain, y)
        kept = tracemalloc.get_traced_memory()[0]
        y.sum().backward()
        tracemalloc.stop()
        return kept

    assert peak(tl.checkpoint) < peak(lambda f, x: f(x)) / 6
