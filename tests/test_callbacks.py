"""Bodies and rules of the user's own ops: what they may do to their arguments, and what their errors say."""

import traceback

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet.core.names import METHODS
from tinygrad_lenet.core.primitive import REGISTRY
from tinygrad_lenet.testing import gradcheck


def op_with(rule=lambda g: g, body=lambda x: x * x, view=False):
    """An op of the user's own."""

    @tl.primitive(view=view)
    def swish(x: tl.Array) -> tl.Array:
        return body(x)

    swish.vjp(x=rule)
    return swish


def first(rule, *shape):
    """Call a rule with arrays."""
    x = tl.full(shape or (2,), 0.5, requires_grad=True)
    op_with(rule)(x).backward(tl.ones(x.shape))
    return x.grad


def second(rule, *shape):
    """Call a rule with Tensors."""
    x = tl.full(shape or (2,), 0.5, requires_grad=True)
    return tl.grad(op_with(rule)(x), x, tl.ones(x.shape), create_graph=True)[0]


# Arrays and Tensors

WHO = r"^swish: the rule of 'x': "
METHOD_OF_TENSOR = {
    "sigmoid": lambda g, x: g * x.sigmoid(),
    "relu": lambda g, x: (g * x).relu(),
    "unsqueeze": lambda g, x: g.unsqueeze(0)[0],
    "softmax": lambda g, x: g * x.softmax(0),
}


@pytest.mark.parametrize("name", METHOD_OF_TENSOR)
def test_a_method_of_tensor_in_a_rule_is_explained_where_it_fails(name):
    message = rf"{WHO}'numpy.ndarray' object has no attribute '{name}'; a rule gets NumPy arrays .*: write tl.{name}\("
    with pytest.raises(tl.DTypeError, match=message) as caught:
        first(METHOD_OF_TENSOR[name])
    assert type(caught.value.__cause__) is AttributeError
    lines = "".join(traceback.format_exception(caught.value))
    assert f'"{name}": lambda g' in lines  # the line of the rule
    assert second(METHOD_OF_TENSOR[name]).shape == (2,)


def test_what_the_advice_names_takes_arrays_and_tensors():
    for name in METHOD_OF_TENSOR:
        assert METHODS[name] is getattr(tl, name)
    rule = lambda g, x: g * (tl.sigmoid(x) + x * tl.sigmoid(x) * (1 - tl.sigmoid(x)))  # noqa: E731
    good = op_with(rule, lambda x: x / (1 + np.exp(-x)))
    assert gradcheck(good, [np.array([0.3, -2.0])], order=2)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (lambda g, x: g * x.mean(dim=0), "unexpected keyword argument 'dim'"),
        (lambda g, x: g * x.sum(keepdim=True), "unexpected keyword argument 'keepdim'"),
        (lambda g, x: g * x.numpy(), "no attribute 'numpy'"),
        (lambda g, x: g * x.detach(), "no attribute 'detach'"),
        (lambda g, x: g * x.requires_grad, "no attribute 'requires_grad'"),
        (lambda g, x: g * x.sigmoidd(), "no attribute 'sigmoidd'"),
    ],
)
def test_other_habits_of_tensors_are_explained(rule, text):
    with pytest.raises(tl.DTypeError, match=rf"{WHO}.*{text}.*a rule gets NumPy arrays.*functions such as tl\.exp"):
        first(rule)


@pytest.mark.parametrize(
    ("rule", "error", "text"),
    [
        (lambda g, x: g * x.copy(), tl.DTypeError, "'Tensor' object has no attribute 'copy'"),
        (lambda g, x: g * x.conj(), tl.DTypeError, "'Tensor' object has no attribute 'conj'"),
        (lambda g, x: g * np.i0(x), tl.UnsupportedError, "np.i0 has no counterpart"),
        (lambda g, x: np.multiply(g, x, out=np.empty(2, np.float32)), tl.GradientError, "out= would go unrecorded"),
        (lambda g, x: g * np.asarray(x), tl.GradientError, "an array would lose"),
        (lambda g, x: g * x.sum(where=[True, False]), tl.DTypeError, "no argument 'where'"),
    ],
)
def test_habits_of_arrays_are_explained_in_a_recorded_pass(rule, error, text):
    assert first(rule).shape == (2,)
    with pytest.raises(error, match=rf"{WHO}.*{text}.*Tensors only with create_graph=True") as caught:
        second(rule)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("order", [first, second])
@pytest.mark.parametrize("found", [3.0, [1.0, 2.0], "text", (1, 2), True])
def test_what_a_rule_returns_must_be_an_array(found, order):
    with pytest.raises(
        tl.GradientError, match=r"swish: the rule of 'x' gave .*, which is not an array of shape \(2,\)"
    ):
        order(lambda g: found)


def test_a_body_gets_arrays_and_the_error_says_so():
    for body, text in (
        (lambda x: x * x.sigmoid(), r"no attribute 'sigmoid'; a body gets NumPy arrays: write tl\.sigmoid\("),
        (lambda x: x * x.mean(dim=0), r"argument 'dim'; a body gets NumPy arrays: use operators"),
    ):
        with pytest.raises(tl.DTypeError, match=rf"^swish: .*{text}.*\(given: x=Tensor float32 of shape \(2,\)\)"):
            op_with(body=body)(tl.ones(2))
    # A number is converted, and the body called again.
    assert op_with(body=lambda x: x.sum())(2.0).item() == 2


@pytest.mark.parametrize("error", [ValueError("mine"), KeyError("mine"), AttributeError("mine"), tl.ShapeError("mine")])
@pytest.mark.parametrize("order", [first, second])
def test_other_errors_of_a_rule_come_out_as_they_are(error, order):
    def rule(g):
        raise error

    with pytest.raises(type(error)) as caught:
        order(rule)
    assert caught.value is error


def test_an_error_in_a_body_shows_its_line():
    with pytest.raises(tl.ShapeError, match=r"^swish: operands could not be broadcast.*given: x=Tensor"):
        op_with(body=lambda x: x + np.ones(7))(tl.ones(2))
    try:
        op_with(body=lambda x: x + np.ones(7))(tl.ones(2))
    except tl.ShapeError:
        assert "x + np.ones(7)" in traceback.format_exc()


# Writing to arguments


def at(x):
    x[0] = 5
    return x * 1


def times(x):
    x *= 2
    return x


def reshaped(x):
    x.shape = (2, 1)
    return x * 1


WRITERS = {
    "x *= 2": times,
    "x[0] = 5": at,
    "out=x": lambda x: np.exp(x, out=x),
    "x.sort()": lambda x: (x.sort(), x)[1],
    "x.fill(0)": lambda x: (x.fill(0), x)[1],
    "np.copyto": lambda x: (np.copyto(x, 0), x)[1],
    "np.put": lambda x: (np.put(x, 0, 9), x)[1],
    "shuffle": lambda x: (np.random.default_rng(0).shuffle(x), x)[1],
    "a view": lambda x: times(x[:1]),
    "memoryview": lambda x: (memoryview(x).__setitem__(0, 9.0), x)[1],
}
WRITTEN = (tl.ArgumentError, tl.DTypeError, tl.GradientError)  # as the kind of the error of NumPy, or of a Tensor
ADVICE = "must not write to their arguments: copy first"


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_body_cannot_write_to_its_argument(name, view):
    own = op_with(body=WRITERS[name], view=view)
    for given in (np.array([2.0, 1.0]), tl.tensor([2.0, 1.0]), tl.tensor([2.0, 1.0], requires_grad=True)):
        with pytest.raises(WRITTEN, match=rf"^swish: .*read-only.*{ADVICE}, x = np\.copy\(x\)") as caught:
            own(given)
        assert isinstance(caught.value.__cause__, (ValueError, TypeError))
        np.testing.assert_array_equal(given.detach().numpy() if isinstance(given, tl.Tensor) else given, [2, 1])
    copying = op_with(body=lambda x: WRITERS[name](np.copy(x)))
    assert copying(tl.tensor([2.0, 1.0])).size


@pytest.mark.filterwarnings("ignore:Setting the shape")
def test_every_argument_is_protected():
    @tl.primitive
    def last(x: tl.Array, *others: tl.Array) -> tl.Array:
        others[-1][...] = 0
        return x

    @tl.primitive
    def table(x: tl.Array, values: object, weight: tl.Array | None = None) -> tl.Array:
        (values if weight is None else weight)[...] = 0
        return x

    @tl.primitive
    def tables(x: tl.Array, values: object) -> tl.Array:
        values[0][...] = 0
        return x

    x, held = tl.ones(2), np.ones(2)
    for call in (
        lambda: last(x, 1.0, held),
        lambda: last(x, held, x),
        lambda: table(x, held),
        lambda: table(x, x),
        lambda: table(x, None, held),
        lambda: tables(x, [held, None]),
        lambda: tables(x, (held,)),
    ):
        with pytest.raises(tl.TinygradLenetError, match="read-only"):
            call()
    assert held.all()
    assert x.numpy().all()
    op_with(body=reshaped)(x)
    assert x.shape == (2,)


def test_a_list_without_arrays_is_the_callers_own():
    @tl.primitive
    def noted(x: tl.Array, log: object) -> tl.Array:
        log.append(x.size)
        return x

    log = [1]
    noted(tl.ones(2), log)
    assert log == [1, 2]


def test_a_view_can_be_written_to_if_its_argument_can():
    def windows(x):
        return np.lib.stride_tricks.sliding_window_view(x, 2)

    x = tl.tensor(np.arange(6.0))
    for body in (lambda x: x[::-2], lambda x: x, lambda x: x.reshape(2, 3).T, lambda x: x[:0]):
        op_with(body=body, view=True)(x)[...] = 7
    assert (x.numpy()[[1, 3, 5]] == 7).all()
    for body in (windows, lambda x: np.broadcast_to(x, (2, 6))):
        with pytest.raises(tl.ArgumentError, match="read-only view"):
            op_with(body=body, view=True)(x)[...] = 7
    with pytest.raises(tl.ArgumentError, match="read-only view"):
        op_with(body=lambda x: x[0], view=True)(tl.broadcast_to(x, (2, 6)))[...] = 7


def test_a_body_that_keeps_its_argument_cannot_change_it_later():
    kept = []
    x = tl.tensor([2.0, 1.0], requires_grad=True)
    y = op_with(lambda g, x: 2 * g * x, lambda x: (kept.append(x), x * x)[1])(x)
    with pytest.raises(ValueError, match="read-only"):
        kept[0][...] = 7
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 2])


def test_a_body_may_reuse_the_array_that_it_returns():
    buffer = np.zeros(2, np.float32)
    double = op_with(lambda g: 2 * g, lambda x: np.multiply(x, 2, out=buffer))
    first, second = double(tl.ones(2)), double(tl.zeros(2))
    buffer[...] = 7
    np.testing.assert_array_equal(first.numpy(), [2, 2])
    np.testing.assert_array_equal(second.numpy(), [0, 0])


def test_a_rule_may_reuse_the_array_that_it_returns():
    buffer, kept = np.zeros(2, np.float32), tl.full((2,), 3.0)
    square = op_with(lambda g, x: np.multiply(g, 2 * x, out=buffer), lambda x: x * x)
    x, y = tl.tensor([1.0, 2.0], requires_grad=True), tl.tensor([3.0, 4.0], requires_grad=True)
    (square(x) + square(y)).backward(tl.ones(2))
    buffer[...] = 7
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4])
    np.testing.assert_array_equal(y.grad.numpy(), [6, 8])
    x.grad = None
    op_with(lambda g: kept)(x).backward(tl.ones(2))
    x.grad[...] = 7
    np.testing.assert_array_equal(kept.numpy(), [3, 3])


@pytest.mark.parametrize("order", [first, second])
@pytest.mark.parametrize("what", ["g", "x", "out", "c"])
def test_a_rule_cannot_write_to_what_it_receives(what, order):
    @tl.primitive
    def scaled(x: tl.Array, c: tl.Array) -> tl.Array:
        return c * x

    rules = {
        "g": lambda g, c: times(g) * c,
        "x": lambda g, c, x: (at(x), g * c)[1],
        "out": lambda g, c, out: (at(out), g * c)[1],
        "c": lambda g, c: g * times(c),
    }
    scaled.vjp(x=rules[what], c=lambda g, x: g * x)
    x, c, seed = tl.tensor([2.0, 1.0], requires_grad=True), tl.tensor([3.0, 4.0]), tl.ones(2)
    values = [v.numpy().copy() for v in (x, c, seed)]
    with pytest.raises(WRITTEN, match=rf"^scaled: the rule of 'x': .*(read-only|in place).*{ADVICE}"):
        tl.grad(scaled(x, c), x, seed, create_graph=order is second)
    for v, before in zip((x, c, seed), values, strict=True):
        np.testing.assert_array_equal(v.numpy(), before)


def test_a_gradient_that_two_rules_share_stays_as_it_is():
    """``add`` passes one array on to both of its arguments."""

    def greedy(g):
        np.multiply(g, 100, out=g)
        return g

    a, b = tl.ones(2, requires_grad=True), tl.ones(2, requires_grad=True)
    with pytest.raises(tl.ArgumentError, match=ADVICE):
        (op_with(greedy)(a) + b * 1).backward(tl.ones(2))


def test_the_gradient_of_a_leaf_is_not_the_array_that_a_rule_was_given():
    for rule in (lambda g, x: x, lambda g, x: g, lambda g, x: x[::-1]):
        x, seed = tl.tensor([2.0, 1.0], requires_grad=True), tl.ones(2)
        op_with(rule)(x).backward(seed)
        assert not np.shares_memory(x.grad.numpy(), x.numpy())
        assert not np.shares_memory(x.grad.numpy(), seed.numpy())
        x.grad[...] = 7
        np.testing.assert_array_equal(x.numpy(), [2, 1])


@pytest.mark.parametrize("constant", [np.full(3, 3.0), np.full(3, 3), np.broadcast_to(3.0, 3)])
def test_a_constant_gradient_does_not_end_a_recorded_pass(torch, constant):
    triple = op_with(lambda g: constant, lambda x: 3 * x)  # right for a sum

    class Triple(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 3 * x

        @staticmethod
        def backward(ctx, g):
            return torch.full((3,), 3.0, dtype=torch.float64)

    values = np.array([0.1, 0.2, 0.3])
    x = tl.tensor(values, requires_grad=True)
    (slope,) = tl.grad(triple(x.exp()).sum(), x, create_graph=True)
    (found,) = tl.grad(slope.sum(), x)
    t = torch.tensor(values, requires_grad=True)
    (slope,) = torch.autograd.grad(Triple.apply(t.exp()).sum(), t, create_graph=True)
    (expected,) = torch.autograd.grad(slope.sum(), t)
    np.testing.assert_allclose(found.numpy(), expected.numpy())


def test_the_bodies_and_rules_of_the_package_are_called_directly():
    for op in REGISTRY.values():
        if op.forward.__module__.startswith("tinygrad_lenet."):
            assert op.signature.function is op.forward
            for plan in op.plans.values():
                for position, rule, _ in plan.rules:
                    assert rule is op.rules[op.signature.name_of(position)]


# Other functions of the user


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_hook_that_writes_to_a_gradient_changes_nothing(create_graph):
    def hook(g):
        with tl.no_grad():
            g[...] = 100

    x, seed = tl.ones(2, requires_grad=True), tl.ones(2)
    y = x * 2
    y.register_hook(hook)
    (found,) = tl.grad(y, x, seed, create_graph=create_graph)
    np.testing.assert_array_equal(found.numpy(), [2, 2])
    np.testing.assert_array_equal(seed.numpy(), [1, 1])


def test_a_checkpointed_function_may_write_to_arrays():
    array, x = np.ones(2), tl.ones(2, requires_grad=True)

    def f(x, array, pair):
        array *= 2
        pair[0][...] += 1
        return x * x * tl.tensor(array) * tl.tensor(pair[0])

    y = tl.checkpoint(f, x, array, [array])
    for _ in range(2):
        y.backward(tl.ones(2), retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), [16, 16])
    np.testing.assert_array_equal(array, [1, 1])
