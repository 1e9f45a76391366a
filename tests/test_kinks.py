"""Kinks, ties, borders, NaN and extreme values, in one table each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet.core.primitive import REGISTRY

inf, nan = np.inf, np.nan

# op at a kink: function, where, upstream gradient, gradient that the docstring promises
KINKS = {
    "relu at 0": (tl.relu, [-1.0, 0.0, -0.0, 2.0], [3.0, 5.0, 7.0, 9.0], [0, 0, 0, 9]),
    "abs at 0": (tl.abs, [-2.0, 0.0, -0.0, 1.0], [3.0, 5.0, 7.0, 9.0], [-3, 0, 0, 9]),
    "sign at 0": (lambda x: tl.sign(x) + x * 0, [0.0, 1.0], [1.0, 1.0], [0, 0]),
    "leaky_relu at 0": (lambda x: F.leaky_relu(x, 0.1), [-1.0, 0.0, 1.0], [10.0, 10.0, 10.0], [1, 1, 10]),
    "elu at 0": (lambda x: F.elu(x, 0.5), [0.0, 1.0], [10.0, 10.0], [5, 10]),
    "prelu at 0": (lambda x: F.prelu(x, tl.tensor(0.25)), [0.0, 1.0, -1.0], [8.0, 8.0, 8.0], [2, 8, 2]),
    "softplus at its threshold": (lambda x: F.softplus(x, 1, 0), [1e-9, 0.0], [1.0, 1.0], [1, 0.5]),
    "clip at its borders": (lambda x: x.clip(-1, 2), [-1.5, -1, 0, 2, 2.5], [1, 2, 3, 4, 5], [0, 2, 3, 4, 0]),
    "clip below only": (lambda x: x.clip(min=0), [-1.0, 0.0, 9.0], [1.0, 2.0, 3.0], [0, 2, 3]),
    "clip above only": (lambda x: x.clip(max=0), [-1.0, 0.0, 9.0], [1.0, 2.0, 3.0], [1, 2, 0]),
    "clip with one border": (lambda x: x.clip(1, 1), [0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [0, 2, 0]),
    "x ** 0": (lambda x: x**0, [-1.0, 0.0, 2.0], [1.0, 2.0, 3.0], [0, 0, 0]),
    "x ** 0 at inf and NaN": (lambda x: x**0, [inf, -inf, nan], [1.0, 2.0, 3.0], [0, 0, 0]),
    "x ** 0.0": (lambda x: x**0.0, [-1.0, 0.0, 2.0], [1.0, 2.0, 3.0], [0, 0, 0]),
    "x ** tensor 0": (lambda x: x ** tl.zeros(3), [-1.0, 0.0, 2.0], [1.0, 2.0, 3.0], [0, 0, 0]),
    "x ** tensor 1": (lambda x: x ** tl.ones(3), [-1.0, 0.0, 2.0], [1.0, 2.0, 3.0], [1, 2, 3]),
    "x ** 1 at 0": (lambda x: x**1, [0.0], [3.0], [3]),
    "x ** 2 at 0": (lambda x: x**2, [0.0], [3.0], [0]),
    "0 ** y": (lambda y: 0.0**y, [0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0, 0, 0]),
    "tensor 0 ** y": (lambda y: tl.zeros(3) ** y, [0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [0, 0, 0]),
    "1 ** y": (lambda y: 1**y, [0.0, 5.0], [1.0, 1.0], [0, 0]),
    "maximum with a number": (lambda x: tl.maximum(x, 1), [0.0, 1.0, 2.0], [2.0, 4.0, 6.0], [0, 2, 6]),
    "minimum with a number": (lambda x: tl.minimum(1, x), [0.0, 1.0, 2.0], [2.0, 4.0, 6.0], [2, 2, 0]),
    "maximum with itself": (lambda x: tl.maximum(x, x), [0.0, 1.0], [2.0, 4.0], [2, 4]),
    "maximum of infinities": (lambda x: tl.maximum(x, inf), [inf, -inf], [2.0, 4.0], [1, 0]),
    "maximum of 0 and -0": (lambda x: tl.maximum(x, -0.0), [0.0], [2.0], [1]),
    "maximum with NaN": (lambda x: tl.maximum(x, tl.tensor([nan, 0.0])), [1.0, nan], [2.0, 4.0], [2, 4]),
    "minimum with NaN": (lambda x: tl.minimum(x, tl.tensor([nan, 0.0])), [1.0, nan], [2.0, 4.0], [2, 4]),
    "max of ties": (lambda x: x.max(), [3.0, 1.0, 3.0, 3.0], 6.0, [2, 0, 2, 2]),
    "min of ties": (lambda x: x.min(), [1.0, 1.0, 3.0], 6.0, [3, 3, 0]),
    "max of infinities": (lambda x: x.max(), [inf, inf, 0.0], 6.0, [3, 3, 0]),
    "max of -infinities only": (lambda x: x.max(), [-inf, -inf], 6.0, [3, 3]),
    "max with a NaN": (lambda x: x.max(), [nan, 1.0], 6.0, [6, 0]),
    "min with a NaN": (lambda x: x.min(), [nan, 1.0], 6.0, [6, 0]),
    "std of equal elements": (lambda x: x.std(), [2.0, 2.0, 2.0], 5.0, [0, 0, 0]),
    "var of equal elements": (lambda x: x.var(), [2.0, 2.0, 2.0], 5.0, [0, 0, 0]),
    "l1_loss at equality": (lambda x: F.l1_loss(x, [1.0, 2.0], reduction="sum"), [1.0, 3.0], 5.0, [0, 5]),
    "hardtanh at its borders": (tl.hardtanh, [-2.0, -1, 0, 1, 2], [1, 2, 3, 4, 5], [0, 0, 3, 0, 0]),
    "relu6 at its borders": (tl.relu6, [-1.0, 0, 3, 6, 7], [1, 2, 3, 4, 5], [0, 0, 3, 0, 0]),
    "hardsigmoid at its borders": (tl.hardsigmoid, [-4.0, -3, 0, 3, 4], [6, 6, 6, 6, 6], [0, 0, 1, 0, 0]),
    "hardswish at its borders": (tl.hardswish, [-4.0, -3, 0, 3, 4], [6, 6, 6, 6, 6], [0, 0, 3, 6, 6]),
    "celu at 0": (lambda x: tl.celu(x, 0.5), [0.0, 1.0], [10.0, 10.0], [10, 10]),
    "selu at 0": (tl.selu, [0.0, 1.0], [1.0, 1.0], [1.6732632423543772 * 1.0507009873554805, 1.0507009873554805]),
    "softsign at 0": (tl.softsign, [0.0, -0.0], [5.0, 7.0], [5, 7]),
    "hypot at 0": (lambda x: tl.hypot(x, 0.0), [0.0, 3.0, -3.0], [5.0, 5.0, 5.0], [0, 5, -5]),
    "arctan2 at 0": (lambda x: tl.arctan2(x, x), [0.0], [5.0], [0]),
    "arctan2 on its cut": (lambda y: tl.arctan2(0.0, y) + 0 * y, [-2.0, 2.0], [5.0, 5.0], [0, 0]),
    "logaddexp of equals": (lambda x: tl.logaddexp(x, x), [0.0, 1e4], [5.0, 5.0], [5, 5]),
    "hypot with itself at 0": (lambda x: tl.hypot(x, x), [0.0], [5.0], [0]),
    "norm at 0": (lambda x: tl.norm(x), [0.0, 0.0], 5.0, [0, 0]),
    "norm 1 at 0": (lambda x: tl.norm(x, 1), [0.0, -2.0, 3.0], 5.0, [0, -5, 5]),
    "norm 3 at 0": (lambda x: tl.norm(x, 3), [0.0, 0.0], 5.0, [0, 0]),
    "norm inf of ties": (lambda x: tl.norm(x, inf), [3.0, -3.0, 1.0], 6.0, [3, -3, 0]),
    "norm 0": (lambda x: tl.norm(x, 0) + x.sum() * 0, [3.0, 0.0], 6.0, [0, 0]),
    "mod where it jumps": (lambda x: tl.mod(x, 2.0), [-2.0, 0.0, 1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1, 2, 3, 4]),
    "mod by what it divides": (lambda y: tl.mod(5.0, y), [2.0, 2.5], [1.0, 1.0], [-2, -2]),
    "mod of a quotient that rounds up": (lambda y: tl.mod(1.0, y), [0.1], [1.0], [-9]),
    "floor, ceil and round": (lambda x: tl.floor(x) + tl.ceil(x) + tl.round(x) + 0 * x, [0.5, 1.0], [3.0, 3.0], [0, 0]),
    "median of ties": (lambda x: tl.median(x), [2.0, 1.0, 2.0, 2.0, 3.0], 6.0, [0, 0, 6, 0, 0]),
    "median of an even number": (lambda x: tl.median(x), [4.0, 1.0, 2.0, 3.0], 6.0, [0, 0, 3, 3]),
    "sort of ties": (tl.sort, [2.0, 1.0, 2.0], [10.0, 20.0, 30.0], [20, 10, 30]),
    "sort of ties, falling": (lambda x: tl.sort(x, descending=True), [2.0, 1.0, 2.0], [10, 20, 30], [10, 30, 20]),
    "topk of ties": (lambda x: tl.topk(x, 2)[0], [2.0, 3.0, 2.0, 2.0], [10.0, 20.0], [20, 10, 0, 0]),
    "amax of ties": (lambda x: tl.amax(x), [3.0, 1.0, 3.0], 6.0, [3, 0, 3]),
    "prod with one 0": (lambda x: tl.prod(x), [2.0, 0.0, 3.0], 5.0, [0, 30, 0]),
    "prod with two 0": (lambda x: tl.prod(x), [2.0, 0.0, 0.0], 5.0, [0, 0, 0]),
    "cumprod with one 0": (lambda x: tl.cumprod(x), [2.0, 0.0, 3.0], [1.0, 10.0, 100.0], [1, 620, 0]),
    "huber_loss where it bends": (lambda x: tl.huber_loss(x, [0.0] * 4, "sum"), [-1.0, 0, 1, 2], 5.0, [-5, 0, 5, 5]),
    "smooth_l1_loss where it bends": (
        lambda x: tl.smooth_l1_loss(x, [0.0] * 4, "sum", beta=0.5),
        [-0.5, 0, 0.5, 2],
        5.0,
        [-5, 0, 5, 5],
    ),
    "multi_margin_loss where it bends": (lambda x: tl.multi_margin_loss(x, 0), [1.0, 0.0, 0.5], 3.0, [-1, 0, 1]),
    "kl_div of 0": (lambda x: tl.kl_div(x, [0.0, 1.0], "sum"), [-inf, -1.0], 5.0, [0, -5]),
    "where guards sqrt": (lambda x: tl.where(x > 0, tl.where(x > 0, x, 1).sqrt(), 0), [0.0, 4.0], [1.0, 8.0], [0, 2]),
}


@pytest.mark.parametrize("name", KINKS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_gradient_at_a_kink_is_what_the_docstring_says(name, create_graph):
    function, at, g, expected = KINKS[name]
    x = tl.tensor(at, dtype=np.float64, requires_grad=True)
    out = function(x)
    (gx,) = tl.grad(out, x, tl.tensor(g), create_graph=create_graph)
    np.testing.assert_allclose(gx.numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize(
    ("loss", "curvature"),
    [(tl.huber_loss, 1), (lambda x, y: tl.huber_loss(x, y, delta=0.5), 1)]
    + [(lambda x, y, beta=beta: tl.smooth_l1_loss(x, y, beta=beta), 1 / beta) for beta in (1.0, 0.25)],
)
def test_a_quadratic_loss_keeps_its_curvature_where_it_is_zero(loss, curvature):
    second = tl.hessian(lambda x: loss(x, np.array([1.0])))
    for at, expected in ((1.0, curvature), (1.0 + 1e-9, curvature), (9.0, 0), (-np.inf, 0)):
        np.testing.assert_allclose(second(np.array([at])).numpy(), [[expected]])


def test_where_gives_clean_gradients_whatever_the_other_branch_holds():
    bad = tl.tensor([nan, inf, 1.0], requires_grad=True)
    x = tl.tensor([1.0, 2.0, 3.0], requires_grad=True)
    take = np.array([True, True, False])
    out = tl.where(take, x, bad)
    np.testing.assert_array_equal(out.numpy(), [1, 2, 1])
    out.backward([nan, 5.0, inf])  # an upstream gradient that is not finite stays on its own side
    np.testing.assert_array_equal(x.grad.numpy(), [nan, 5, 0])
    np.testing.assert_array_equal(bad.grad.numpy(), [0, 0, inf])


def test_relu_and_the_reductions_mask_by_selection_and_not_by_a_product():
    x = tl.tensor([-1.0, 2.0], requires_grad=True)
    x.relu().backward([inf, inf])
    np.testing.assert_array_equal(x.grad.numpy(), [0, inf])
    y = tl.tensor([1.0, 2.0], requires_grad=True)
    y.max().backward(inf)
    np.testing.assert_array_equal(y.grad.numpy(), [0, inf])
    z = tl.tensor([-5.0, 0.0], requires_grad=True)
    z.clip(-1, 1).backward([nan, inf])
    np.testing.assert_array_equal(z.grad.numpy(), [0, inf])


def test_the_gradient_of_sqrt_at_0_is_inf():
    x = tl.tensor([0.0, 4.0], requires_grad=True)
    with np.errstate(divide="ignore"):
        x.sqrt().backward([1.0, 1.0])
    np.testing.assert_array_equal(x.grad.numpy(), [inf, 0.25])


FEW = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.sampled_from([0, 1, 2]))


@pytest.mark.parametrize("name", ["max", "min"])
@given(data=st.data(), a=FEW)
def test_the_shares_of_tied_elements_are_equal_and_sum_to_the_upstream(name, data, a):
    axis = data.draw(st.none() | st.integers(0, a.ndim - 1))
    x = tl.tensor(a, requires_grad=True)
    out = getattr(x, name)(axis=axis)
    g = np.random.default_rng(0).uniform(0.5, 2, out.shape)
    out.backward(g)
    shares = x.grad.numpy()
    np.testing.assert_allclose(shares.sum(axis=axis), g, rtol=1e-12)
    held = getattr(a, name)(axis=axis, keepdims=True)
    hit = a == held
    expected = np.where(hit, g.reshape(held.shape) / hit.sum(axis=axis, keepdims=True), 0)
    np.testing.assert_allclose(shares, expected, rtol=1e-12)


@pytest.mark.parametrize("op", [tl.maximum, tl.minimum])
@given(a=FEW)
def test_the_shares_of_two_sum_to_the_upstream(op, a):
    b = np.random.default_rng(1).integers(0, 3, a.shape).astype(float)
    x, y = tl.tensor(a, requires_grad=True), tl.tensor(b, requires_grad=True)
    out = op(x, y)
    g = np.random.default_rng(0).uniform(0.5, 2, out.shape)
    out.backward(g)
    np.testing.assert_allclose(x.grad.numpy() + y.grad.numpy(), g, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy()[a == b], g[a == b] / 2, rtol=1e-12)


# Extreme values: no warning (pytest makes them errors), and the limit

BIG = np.float32(1e4)
EXTREMES = {
    "tanh": (tl.tanh, [-1000, 1000, -inf, inf], [-1, 1, -1, 1], [0, 0, 0, 0]),
    "sigmoid": (tl.sigmoid, [-1000, 1000, -inf, inf], [0, 1, 0, 1], [0, 0, 0, 0]),
    "softplus": (F.softplus, [-1000, 1000, -inf, inf], [0, 1000, 0, inf], [0, 1, 0, 1]),
    "softplus without threshold": (lambda x: F.softplus(x, 1, inf), [-1000, 1000, inf], [0, 1000, inf], [0, 1, 1]),
    "relu": (tl.relu, [-inf, inf, -3e38, 3e38], [0, inf, 0, 3e38], [0, 1, 0, 1]),
    "leaky_relu": (F.leaky_relu, [-inf, inf], [-inf, inf], [0.01, 1]),
    "elu": (F.elu, [-1000, 1000, -inf, inf], [-1, 1000, -1, inf], [0, 1, 0, 1]),
    "gelu": (tl.gelu, [-1e4, 1e4], [0, 1e4], [0, 1]),
    "gelu by tanh": (lambda x: tl.gelu(x, "tanh"), [-1e4, 1e4], [0, 1e4], [0, 1]),
    "silu": (tl.silu, [-1e4, 1e4], [0, 1e4], [0, 1]),
    "mish": (tl.mish, [-1e4, 1e4], [0, 1e4], [0, 1]),
    "softsign": (tl.softsign, [-1e4, 1e4], [-1e4 / 10001, 1e4 / 10001], [1 / 10001**2, 1 / 10001**2]),
    "hardtanh": (tl.hardtanh, [-1e4, 1e4, -inf, inf], [-1, 1, -1, 1], [0, 0, 0, 0]),
    "relu6": (tl.relu6, [-1e4, 1e4, inf], [0, 6, 6], [0, 0, 0]),
    "hardsigmoid": (tl.hardsigmoid, [-1e4, 1e4, -inf, inf], [0, 1, 0, 1], [0, 0, 0, 0]),
    "hardswish": (tl.hardswish, [-1e4, 1e4], [0, 1e4], [0, 1]),
    "celu": (tl.celu, [-1e4, 1e4, -inf, inf], [-1, 1e4, -1, inf], [0, 1, 0, 1]),
    "selu": (tl.selu, [-1e4, 1e4], [-1.7580993408473766, 1e4 * 1.0507009873554805], [0, 1.0507009873554805]),
    "logsigmoid": (tl.logsigmoid, [-1e4, 1e4, inf], [-1e4, 0, 0], [1, 0, 0]),
    "erf": (tl.erf, [-1e4, 1e4, -inf, inf], [-1, 1, -1, 1], [0, 0, 0, 0]),
    "arctan": (tl.arctan, [-inf, inf], [-np.pi / 2, np.pi / 2], [0, 0]),
    "hypot": (lambda x: tl.hypot(x, x), [1e30, -1e30], [2**0.5 * 1e30, 2**0.5 * 1e30], [2**0.5, -(2**0.5)]),
    "arctan2": (lambda x: tl.arctan2(x, 1e30), [1e30, -1e30, 0.0], [np.pi / 4, -np.pi / 4, 0], [5e-31, 5e-31, 1e-30]),
    "arctan2 near 0": (lambda x: tl.arctan2(x, 1e-30), [1e-30, -1e-30], [np.pi / 4, -np.pi / 4], [5e29, 5e29]),
    "logaddexp": (lambda x: tl.logaddexp(x, 0.0), [1e4, -1e4, inf, -inf], [1e4, 0, inf, 0], [1, 0, 1, 0]),
    "rsqrt": (tl.rsqrt, [inf, 1e30], [0, 1e-15], [0, 0]),
    "log1p": (tl.log1p, [1e30, 1e-30], [np.log(1e30), 1e-30], [1e-30, 1]),
    "expm1": (tl.expm1, [-1e4, 1e-30], [-1, 1e-30], [0, 1]),
    "norm": (lambda x: tl.norm(x, inf), [1e30, 0.0], 1e30, [1, 0]),
    "clip": (lambda x: x.clip(-1, 1), [-inf, inf], [-1, 1], [0, 0]),
    "softmax": (lambda x: x.softmax(), [1e4, -1e4, 1e4], [0.5, 0, 0.5], [0, 0, 0]),
    "log_softmax": (lambda x: x.log_softmax(), [1e4, -1e4], [0, -2e4], [1 - 2, 1]),
    "logsumexp": (lambda x: x.logsumexp(), [1e4, 1e4, -1e4], 1e4 + np.log(2), [0.5, 0.5, 0]),
    "logsumexp with -inf": (lambda x: x.logsumexp(), [-inf, 2.0, 2.0], 2 + np.log(2), [0, 0.5, 0.5]),
    "log_softmax with -inf": (lambda x: x.log_softmax(), [-inf, 0.0], [-inf, 0], [1, 1 - 2]),
    "softmax with -inf": (lambda x: x.softmax(), [-inf, 0.0, 0.0], [0, 0.5, 0.5], [0, 0, 0]),
}


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_values_reach_their_limits_without_a_warning(name, dtype):
    function, at, values, slopes = EXTREMES[name]
    x = tl.tensor(at, dtype=dtype, requires_grad=True)
    out = function(x)
    assert out.dtype == dtype
    np.testing.assert_allclose(out.numpy(), np.asarray(values, dtype), rtol=1e-6)
    out.backward(np.ones(out.shape))
    np.testing.assert_allclose(x.grad.numpy(), slopes, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("at", "value"),
    [([-inf, -inf], -inf), ([inf, 0.0], inf), ([inf, -inf], inf), ([inf, 1000.0], inf), ([-inf], -inf)],
)
def test_logsumexp_of_infinities(torch, at, value):
    x = tl.tensor(at, dtype=np.float64, requires_grad=True)
    out = x.logsumexp()
    assert out.item() == value
    t = torch.tensor(at, dtype=torch.float64, requires_grad=True)
    torch.logsumexp(t, 0).backward()
    with np.errstate(invalid="ignore"):  # the slope at infinity does not exist: NaN, of inf - inf
        out.backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy())


def test_a_float16_mean_does_not_overflow_on_the_way_as_numpys_does_not():
    many = np.ones(70000, np.float16)
    assert tl.tensor(many).mean().item() == many.mean() == 1
    x = tl.tensor([60000.0, 60000.0], dtype=np.float16)
    assert x.softmax().tolist() == [0.5, 0.5]
    assert x.mean().item() == 60000


# NaN

STEPS = {"sign", "argmax", "argmin", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not"}
NAN_IN = {
    **{n: getattr(tl, n) for n in ("abs", "sign", "square", "sqrt", "exp", "log", "sin", "cos", "tanh", "sigmoid")},
    **{n: getattr(tl, n) for n in ("relu", "leaky_relu", "elu", "softplus", "neg", "clone", "logsumexp")},
    **{n: getattr(tl, n) for n in ("sum", "mean", "max", "min", "var", "std", "softmax", "log_softmax")},
    "clip": lambda x: x.clip(-1, 1),
    "maximum": lambda x: tl.maximum(x, 0.0),
    "maximum, NaN second": lambda x: tl.maximum(0.0, x),
    "minimum": lambda x: tl.minimum(x, 0.0),
    "pow": lambda x: x**2,
    "max_pool2d": lambda x: F.max_pool2d(x.reshape(1, 1, 1, 2), (1, 2)),
    "avg_pool2d": lambda x: F.avg_pool2d(x.reshape(1, 1, 1, 2), (1, 2)),
}


@pytest.mark.parametrize("name", NAN_IN)
@pytest.mark.parametrize("at", [(nan, 0.5), (0.5, nan)])
def test_nan_in_gives_nan_out_without_a_warning(name, at):
    x = tl.tensor(at, requires_grad=True)
    out = NAN_IN[name](x).numpy()
    if out.shape == (2,) and "softmax" not in name:
        np.testing.assert_array_equal(np.isnan(out), np.isnan(at))
    else:
        assert np.isnan(out).all()


# Arguments are only read


def test_no_op_of_the_elementwise_kind_writes_into_its_argument():
    big = np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)  # beyond where memory is recycled
    for name, op in REGISTRY.items():
        if not name.startswith(("tinygrad_lenet.ops.elementwise", "tinygrad_lenet.ops.reduction")):
            continue
        function = getattr(tl, op.name, None)
        if function is None or op.signature.arity - op.signature.defaults.count(None) < 1 or op.name == "where":
            continue
        arguments = [big.copy() + 3 for _ in range(op.signature.required)]
        if op.name == "pow":
            arguments[1] = arguments[1] * 0 + 2
        kept = [a.copy() for a in arguments]
        for a in arguments:
            a.flags.writeable = False
        with np.errstate(all="ignore"):
            out = function(*arguments)
        for a, b in zip(arguments, kept, strict=True):
            np.testing.assert_array_equal(a, b)
            assert not np.shares_memory(out.numpy(), a)


def test_an_earlier_result_is_not_overwritten_by_a_later_one():
    x = tl.tensor(np.random.default_rng(0).standard_normal((200, 200)).astype(np.float32))
    first = x.relu()
    kept = first.numpy().copy()
    view = (x * -1).relu()[1:]
    held = view.numpy().copy()
    for _ in range(5):
        (x + 1).relu()
    np.testing.assert_array_equal(first.numpy(), kept)
    np.testing.assert_array_equal(view.numpy(), held)
