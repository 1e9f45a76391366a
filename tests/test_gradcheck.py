"""The checker is checked: planted errors are caught, correct rules never fail, and messages say what is wrong."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet.errors import ArgumentError
from tinygrad_lenet.testing import GradientCheckError, gradcheck, numerical_gradient, numerical_jacobian, strategies

X, Y = np.array([[0.3, -1.2], [0.7, 2.0]]), np.array([0.5, -0.4])


def product_with(rule):
    """The product of two, with another rule for its first argument."""

    @tl.primitive
    def product(x: tl.Array, y: tl.Array) -> tl.Array:
        return x * y

    product.vjp(x=rule, y=lambda g, x: g * x)
    return product


def one_percent(g, y):
    return g * y * np.array([[1.0, 1.0], [1.0, 1.01]])


WRONG = {
    "sign": lambda g, y: -g * y,
    "factor": lambda g, y: 2 * g * y,
    "transposed": lambda g, y: (g * y).T,
    "one percent in one element": one_percent,
    "nothing": lambda g, y: g * 0,
    "not finite": lambda g, y: g * y * np.nan,
    "the other's": lambda g, x: g * x,
}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_a_planted_wrong_rule_is_caught(name, fast):
    with pytest.raises(GradientCheckError, match="argument 0"):
        gradcheck(product_with(WRONG[name]), [X, Y], fast=fast)
    assert gradcheck(product_with(lambda g, y: g * y), [X, Y], order=2, fast=fast)
    assert gradcheck(product_with(WRONG[name]), [X, Y], fast=fast, raise_exception=False) is False


@pytest.mark.parametrize("fast", [False, True])
def test_a_rule_that_is_wrong_only_at_second_order_is_caught(fast):
    @tl.primitive
    def cube(x: tl.Array) -> tl.Array:
        return x * x * x

    cube.vjp(x=lambda g, x: 3 * g * x * (x.detach() if isinstance(x, tl.Tensor) else x))
    assert gradcheck(cube, [X], fast=fast)
    with pytest.raises(GradientCheckError, match=r"second order: .*argument 0"):
        gradcheck(cube, [X], order=2, fast=fast)


def test_a_rule_that_is_another_when_it_is_recorded_is_caught():
    rule = lambda g, x: 2 * g * x if isinstance(g, np.ndarray) else 2.02 * g * x  # noqa: E731  # a rule is a lambda

    @tl.primitive
    def twofaced(x: tl.Array) -> tl.Array:
        return x * x

    twofaced.vjp(x=rule)
    with pytest.raises(GradientCheckError, match="argument 0: with create_graph=True the gradient differs"):
        gradcheck(twofaced, [X], order=2)


@pytest.mark.parametrize("fast", [False, True])
def test_a_missing_broadcast_sum_is_caught(monkeypatch, fast):
    from tinygrad_lenet.core import accumulation

    def forgetful(gradient, shape, dtype):
        return gradient if gradient.shape == shape else gradient[0]

    monkeypatch.setattr(accumulation, "unbroadcast", forgetful)
    with pytest.raises(GradientCheckError, match="argument 1"):
        gradcheck(tl.mul, [X, Y], fast=fast)


def test_a_missing_rule_names_op_and_argument():
    @tl.primitive
    def half_done(x: tl.Array, y: tl.Array) -> tl.Array:
        return x + y

    half_done.vjp(x=lambda g: g)
    with pytest.raises(tl.GradientError, match=r"half_done.*'y'.*half_done\.vjp\(y="):
        half_done(tl.tensor(1.0), tl.tensor(1.0, requires_grad=True))


# Manners


def square_with(forward, rule):
    @tl.primitive
    def own(x: tl.Array) -> tl.Array:
        return forward(x)

    own.vjp(x=rule)
    return own


def test_a_stale_buffer_of_the_forward_function_is_caught():
    buffer = np.zeros((2, 2))

    def forward(x):
        buffer[...] = 2 * x  # for the rule, until the next call
        return x * x

    with pytest.raises(GradientCheckError, match="argument 0"):
        gradcheck(square_with(forward, lambda g: g * buffer), [X])


def test_a_stale_buffer_of_the_rule_is_caught():
    buffer = np.zeros((2, 2))

    def rule(g, x):
        return np.multiply(g, 2 * x, out=buffer)

    # The engine copies what it returns; so the buffer is seen where the two passes are compared, or nowhere.
    assert gradcheck(square_with(np.square, rule), [X])


def test_writing_to_an_input_is_caught():
    def forward(x):
        out = x * x
        x += 1e-3
        return out

    with pytest.raises(ArgumentError, match=r"^own: output array is read-only; .*copy first"):
        gradcheck(square_with(forward, lambda g, x: 2 * g * x), [X])

    def rule(g, x):
        x *= 2
        return g * x

    with pytest.raises(ArgumentError, match=r"^own: the rule of 'x': output array is read-only; .*copy first"):
        gradcheck(square_with(np.square, rule), [X])

    def function(x):
        with tl.no_grad():
            x *= 2
        return x * x

    with pytest.raises(GradientCheckError, match="argument 0 was written to"):
        gradcheck(function, [X])


def test_writing_to_the_upstream_gradient_is_caught():
    def rule(g, x):
        g *= 2
        return g * x

    with pytest.raises(ArgumentError, match=r"^own: the rule of 'x': output array is read-only; .*copy first"):
        gradcheck(square_with(np.square, rule), [X])


def contiguous_only(x):
    """Right for arrays in row-major order only: it looks at memory as it lies."""
    return np.frombuffer(np.asarray(x).tobytes("A")).reshape(x.shape) ** 2


def test_a_function_that_is_wrong_for_another_layout_is_caught():
    with pytest.raises(GradientCheckError, match="with column-major inputs the function returns another result"):
        gradcheck(square_with(contiguous_only, lambda g, x: 2 * g * x), [X])
    rule = lambda g, x: 2 * g * np.frombuffer(x.tobytes("A")).reshape(x.shape)  # noqa: E731
    with pytest.raises(GradientCheckError, match="with column-major inputs the gradient of argument 0 differs"):
        gradcheck(square_with(np.square, rule), [X])

    def in_place(x):
        with tl.no_grad():
            x += 0.0  # harmless, but not for data that cannot be written to
        return x * x

    with pytest.raises(GradientCheckError, match=r"with read-only inputs the function fails: .*read-only"):
        gradcheck(in_place, [X])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_inputs_of_size_zero(shape):
    assert gradcheck(lambda x: (x * x).sum(axis=0), [np.zeros(shape)], order=2)
    assert gradcheck(lambda x: x.exp(), [np.zeros(shape)], order=2, fast=True)


# Several inputs, several outputs


def test_every_output_counts_and_is_named():
    wrong = product_with(lambda g, y: g * y * 1.001)

    def several(x, y):
        return tl.add(x, y), (x > 0), wrong(x, y)

    with pytest.raises(GradientCheckError, match=r"^output 1, argument 0, index \("):
        gradcheck(several, [X, Y])
    with pytest.raises(GradientCheckError, match="output 1, argument 0, along a random direction"):
        gradcheck(several, [X, Y], fast=True)
    # Errors of two outputs that cancel in the sum
    two = product_with(lambda g, y: g * y * 0.999)
    with pytest.raises(GradientCheckError):
        gradcheck(lambda x, y: (wrong(x, y), two(x, y)), [X, Y])


def test_integers_are_passed_on_and_unused_inputs_have_no_gradient():
    assert gradcheck(lambda x, i, unused: x[i], [X, np.array([1, 0, 1]), Y], order=2)
    assert gradcheck(lambda x: x.detach() * 0 + 1.0, [X], order=2)
    assert gradcheck(lambda x: (x > 0, x * x), [X])
    with pytest.raises(GradientCheckError, match="argument 0"):  # the value depends on it, the graph does not
        gradcheck(lambda x: x.detach() * 2.0, [X])


def test_float32_is_taken_in_float64():
    assert gradcheck(lambda x: (x * 1e3).sin(), [X.astype(np.float32)])
    assert gradcheck(lambda x: x.exp(), [tl.tensor([1.0, 2.0])])


# Messages


def test_the_check_hints_at_kinks_and_chance():
    with pytest.raises(GradientCheckError, match="kink or a tie"):
        gradcheck(tl.relu, [np.array([0.0, 1.0])])
    with pytest.raises(GradientCheckError, match="kink or a tie"):
        gradcheck(lambda x: F.max_pool2d(x, 2), [np.ones((1, 1, 2, 2))])
    rng = np.random.default_rng()
    with pytest.raises(GradientCheckError, match="two calls of the function differ: it is not deterministic"):
        gradcheck(lambda x: x * rng.random(), [X])
    with pytest.raises(GradientCheckError, match="not deterministic"):
        gradcheck(lambda x: F.dropout(x, 0.5), [np.arange(1.0, 41.0)])  # so many that no two masks are alike
    assert gradcheck(lambda x: F.dropout(x, 0.5, generator=3), [X], order=2)


def test_a_message_has_the_worst_index_both_values_and_their_difference():
    with pytest.raises(GradientCheckError) as caught:
        gradcheck(product_with(one_percent), [X, Y], seed=1)
    found = re.fullmatch(
        r"argument 0, index \(1, 1\): the recorded gradient is (\S+), the numerical one (\S+) "
        r"\(relative error 0\.01; 1 of 4 elements differ\)",
        str(caught.value),
    )
    assert float(found[1]) == pytest.approx(1.01 * float(found[2]))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: gradcheck(tl.exp, X), r"inputs must be a list of the function's arguments.*write \[x\]"),
        (lambda: gradcheck(tl.exp, [X], order=3), "order must be 1 or 2, got 3"),
        (
            lambda: gradcheck(lambda x: x.item(), [X[0, 0]]),
            "must return a Tensor or a tuple of them, got a float",
        ),
    ],
)
def test_mistakes_are_explained(call, match):
    with pytest.raises(ArgumentError, match=match):
        call()


# Numbers on their own


@given(strategies.tensors(strategies.shapes(1, 2)))
def test_the_numerical_jacobian_is_the_recorded_one(x):
    def f(x):
        return x.sum(axis=0).sin(), (x * x).sum()

    recorded = tl.jacobian(f)(x)
    for (numerical,), exact in zip(numerical_jacobian(f, [x]), recorded, strict=True):
        np.testing.assert_allclose(numerical, exact.numpy(), atol=1e-8)
    (gradient,) = numerical_gradient(f, [x])
    total = recorded[0].numpy().reshape(-1, *x.shape).sum(0) + recorded[1].numpy()
    np.testing.assert_allclose(gradient, total, atol=1e-8)


# Honest functions never fail

HONEST = {
    "elementwise": (lambda x: (x.tanh() * x.exp() + x.sigmoid()).sqrt(), {"low": 0.2, "high": 2}),
    "large values": (lambda x: (x * 1e6).sum() + x, {}),
    "a large offset": (lambda x: 1e8 + x.sin(), {}),
    "reductions": (lambda x: x.max(axis=0) * x.mean() + x.std(), {}),
    "softmax": (lambda x: F.log_softmax(x * 30, -1), {}),
    "products": (lambda x: x.prod() + x.cumprod(0).sum() + x.logsumexp(), {}),
    "sorting": (lambda x: x.sort(axis=0) * x.median(), {}),
    "activations": (lambda x: F.gelu(x) + F.mish(x) + F.selu(x) + F.hardswish(x), {}),
}


@pytest.mark.parametrize("name", HONEST)
@given(data=st.data())
def test_a_correct_rule_never_fails(name, data):
    function, values = HONEST[name]
    x = data.draw(strategies.tensors(strategies.shapes(1, 3, max_side=3), **values))
    seed, order, fast = data.draw(st.integers(0, 10**6)), data.draw(st.integers(1, 2)), data.draw(st.booleans())
    assert gradcheck(function, [x], order=order, seed=seed, fast=fast)


@given(strategies.conv_geometries(), st.data())
@settings(max_examples=20)
def test_correct_convolutions_never_fail(at, data):
    x, w = (data.draw(strategies.tensors(shape)) for shape in (at.x, at.weight))
    assert gradcheck(lambda x, w: F.conv2d(x, w, **at.options), [x, w], order=2, fast=True)


def test_the_fast_mode_finds_one_percent_in_one_of_many():
    size = 30_000
    factor = np.ones(size)
    factor[12_345] = 1.01

    @tl.primitive
    def nearly(x: tl.Array) -> tl.Array:
        return np.sin(x)

    nearly.vjp(x=lambda g, x: g * tl.cos(x) * factor)
    x = np.random.default_rng(0).standard_normal(size) * 0.5
    assert gradcheck(lambda x: x.sin(), [x], fast=True)
    with pytest.raises(GradientCheckError, match="along a random direction"):
        gradcheck(nearly, [x], fast=True)
