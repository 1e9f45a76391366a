"""What an op saved for its backward pass is protected, and gradients own their memory."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet import optim

RNG = np.random.default_rng(3)


def leaf(*shape, low=0.2, high=0.9):
    return tl.tensor(RNG.uniform(low, high, shape), requires_grad=True)


def plain(*shape):
    return tl.tensor(RNG.uniform(0.2, 0.9, shape))


# Ways to change a tensor in place


def by_setitem(x):
    with tl.no_grad():
        x[...] = 0.5


def by_one_element(x):
    with tl.no_grad():
        x[(0,) * x.ndim] = 0.5


def by_data(x):
    x.data = np.full(x.shape, 0.5)


def by_addition(x):
    with tl.no_grad():
        x += 1


def by_multiplication(x):
    with tl.no_grad():
        x *= 2


def by_view(x):
    with tl.no_grad():
        x.reshape(-1)[1:2] -= 3


def by_transposed_view(x):
    with tl.no_grad():
        x.T[...] = 0.5


def by_detach(x):
    y = x.detach()
    y /= 2


def by_view_of_detach(x):
    y = x.detach()[:1]
    y[...] = 0.25


WAYS = [
    by_setitem,
    by_one_element,
    by_data,
    by_addition,
    by_multiplication,
    by_view,
    by_transposed_view,
    by_detach,
    by_view_of_detach,
]

# name of the op that must be named -> what saves its tensor `x`, given another tensor `y` of the same shape
SAVES_INPUT = {
    "sigmoid": lambda x, y: x.sigmoid(),
    "log_softmax": lambda x, y: x.log_softmax(),
    "mul": lambda x, y: y * x,
    "div": lambda x, y: y / x,
    "pow": lambda x, y: x**3,
    "square": lambda x, y: x.square(),
    "abs": lambda x, y: abs(x),
    "log": lambda x, y: x.log(),
    "sin": lambda x, y: x.sin(),
    "cos": lambda x, y: x.cos(),
    "leaky_relu": lambda x, y: F.leaky_relu(x),
    "elu": lambda x, y: F.elu(x),
    "softplus": lambda x, y: F.softplus(x),
    "maximum": lambda x, y: tl.maximum(x, y),
    "clip": lambda x, y: x.clip(0.3, 0.6),
    "matmul": lambda x, y: y @ x,
    "linear": lambda x, y: F.linear(x, y),
    "max": lambda x, y: x.max(axis=0),
    "logsumexp": lambda x, y: x.logsumexp(),
    "softmax_nll": lambda x, y: F.cross_entropy(x, [0, 1, 0]),
    "conv2d": lambda x, y: F.conv2d(y.reshape(1, 1, 3, 3), x.reshape(1, 1, 3, 3), padding=1),
    "max_pool2d": lambda x, y: F.max_pool2d(x.reshape(1, 1, 3, 3), 2),
}
SAVES_OUTPUT = {
    "exp": lambda x: x.exp(),
    "sqrt": lambda x: x.sqrt(),
    "tanh": lambda x: x.tanh(),
    "relu": lambda x: x.relu(),
    "softmax": lambda x: x.softmax(),
    "div": lambda x: 1 / x,
}
SAVES_NOTHING = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: y - x,
    "neg": lambda x, y: -x,
    "sum": lambda x, y: x.sum(axis=0),
    "mean": lambda x, y: x.mean(),
    "reshape": lambda x, y: x.reshape(9),
    "permute": lambda x, y: x.T,
    "getitem": lambda x, y: x[[0, 0, 2]],
    "concatenate": lambda x, y: tl.concatenate([x, y]),
    "pad": lambda x, y: F.pad(x, (1, 1)),
    "mul by a number": lambda x, y: x * 2,
    "mul where only the other is differentiated": lambda x, y: x * y.detach(),
    "avg_pool2d": lambda x, y: F.avg_pool2d(x.reshape(1, 1, 3, 3), 2),
}


@pytest.mark.parametrize("name", SAVES_INPUT)
def test_a_changed_input_is_caught_and_the_op_is_named(name):
    x, y = leaf(3, 3), leaf(3, 3)
    out = SAVES_INPUT[name](x, y)
    by_setitem(x)
    with pytest.raises(tl.GradientError, match=rf"^{name}: .*was changed in place.*clone\(\)"):
        out.backward(np.ones(out.shape))
    assert x.grad is None


@pytest.mark.parametrize("name", SAVES_OUTPUT)
def test_a_changed_output_is_caught_and_the_op_is_named(name):
    x = leaf(3, 3)
    out = SAVES_OUTPUT[name](x)
    by_setitem(out)
    with pytest.raises(tl.GradientError, match=rf"^{name}: its output, of shape \(3, 3\), was changed in place"):
        out.backward(np.ones(out.shape))


@pytest.mark.parametrize("change", WAYS)
@pytest.mark.parametrize("build", [lambda x, y: x * y, lambda x, y: x.tanh().exp() + y, lambda x, y: x.T @ y])
def test_every_way_to_change_an_input_or_an_output_is_caught(change, build):
    x, y = leaf(3, 2), leaf(3, 2)
    if build.__code__.co_names[:1] == ("tanh",):
        hidden = x.tanh()
        out = hidden.exp()
        change(hidden)
    else:
        out = build(x, y)
        change(x)
    with pytest.raises(tl.GradientError, match="was changed in place"):
        out.backward(np.ones(out.shape))


@pytest.mark.parametrize("change", WAYS)
def test_a_change_of_the_base_is_seen_by_what_saved_a_view(change):
    x, w = leaf(3, 2), leaf(2)
    out = (x[1:].detach() * w).sum()
    change(x)
    with pytest.raises(tl.GradientError, match=r"mul: argument 'x', of shape \(2, 2\)"):
        out.backward()


def test_create_graph_notices_changes_too():
    x = leaf(3)
    y = (x * x).sum()
    by_data(x)
    with pytest.raises(tl.GradientError, match=r"mul: .*changed in place"):
        tl.grad(y, x, create_graph=True)


def test_a_change_between_first_and_second_order_is_caught():
    x = leaf(3)
    (g,) = tl.grad((x**3).sum(), x, create_graph=True)
    by_data(x)
    with pytest.raises(tl.GradientError, match="changed in place"):
        tl.grad(g.sum(), x)


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad])
def test_a_step_of_an_optimiser_between_forward_and_backward_is_caught(make):
    w, x = leaf(3, 3), leaf(3, 3)
    optimiser = make([w], lr=0.1)
    late = (x @ w).sum()
    (x @ w).sum().backward()
    optimiser.step()
    with pytest.raises(tl.GradientError, match=r"matmul: argument 'y'.*changed in place"):
        late.backward()


@pytest.mark.parametrize("change", [by_setitem, by_data, by_addition, by_view, by_detach])
@pytest.mark.parametrize("name", SAVES_NOTHING)
def test_a_change_of_what_no_rule_saved_is_no_error(name, change):
    x, y = leaf(3, 3), leaf(3, 3)
    out = SAVES_NOTHING[name](x, y)
    seed = RNG.standard_normal(out.shape)
    (expected,) = tl.grad(out, x, tl.tensor(seed), retain_graph=True)
    change(x)
    out.backward(seed)
    np.testing.assert_array_equal(x.grad.numpy(), expected.numpy())


def test_a_clone_may_be_changed():
    x = leaf(3)
    out = (x * x).sum()
    copy = x.clone().detach()
    copy[...] = 0
    before = x.numpy().copy()
    out.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * before)


def test_reading_does_not_count_as_a_change():
    x = leaf(3, 3)
    out = x * x
    x.numpy(), x.tolist(), x.detach(), repr(x), x[0], x.T, np.asarray(x.detach()), x.data, x == x
    out.backward(np.ones((3, 3)))


# Arrays of the user's, which no counter watches

ARRAY_OPERANDS = {
    "mul": lambda w, a: w * a,
    "rmul": lambda w, a: a * w,
    "div": lambda w, a: w / a,
    "matmul": lambda w, a: w @ a,
    "where": lambda w, a: tl.where(a > 0.5, w, 2 * w),
    "maximum": lambda w, a: tl.maximum(w, a),
    "linear": lambda w, a: F.linear(a, w),
    "conv2d": lambda w, a: F.conv2d(a.reshape(1, 1, 3, 3), w.reshape(1, 1, 3, 3), padding=1),
    "bce": lambda w, a: F.binary_cross_entropy_with_logits(w, a),
    "bce weight": lambda w, a: F.binary_cross_entropy_with_logits(w, tl.ones(3, 3), weight=a),
    "mse": lambda w, a: F.mse_loss(w, a),
    "l1": lambda w, a: F.l1_loss(w, a),
    "prelu": lambda w, a: F.prelu(a - 0.5, w[0, 0]),
    "prelu of the array itself": lambda w, a: F.prelu(a, w[0]),
    "cross_entropy": lambda w, a: F.cross_entropy(w, a),
    "batch_norm": lambda w, a: F.batch_norm(a, weight=w[0], bias=w[1], training=True),
    "batch_norm eval": lambda w, a: F.batch_norm(a, tl.zeros(3), tl.ones(3), w[0]),
    "a view op": lambda w, a: tl.reshape(a, 3, 3) * w,
    "getitem": lambda w, a: tl.getitem(a, (slice(0, 2),)) * w[:2],
    "transpose": lambda w, a: tl.transpose(a) * w,
    "stack of one": lambda w, a: tl.stack([a])[0] * w,
    "dropout": lambda w, a: F.dropout(a, training=False) * w,
}


@pytest.mark.parametrize("name", ARRAY_OPERANDS)
def test_an_array_that_the_user_writes_to_before_backward_does_no_harm(name):
    a, w = RNG.uniform(-1, 1, (3, 3)).astype(np.float32), leaf(3, 3)
    out = ARRAY_OPERANDS[name](w, a)
    seed = RNG.standard_normal(out.shape)
    (expected,) = tl.grad(out, w, tl.tensor(seed), retain_graph=True)
    a[...] = -7.5
    out.backward(seed)
    np.testing.assert_array_equal(w.grad.numpy(), expected.numpy())


VIEWS_OF_ARRAYS = {
    "reshape": lambda a: tl.reshape(a, 9),
    "permute": lambda a: tl.permute(a, 1, 0),
    "transpose": tl.transpose,
    "flatten": tl.flatten,
    "broadcast_to": lambda a: tl.broadcast_to(a, (2, 3, 3)),
    "unsqueeze": lambda a: tl.unsqueeze(a, 0),
    "getitem": lambda a: tl.getitem(a, 0),
    "pad": lambda a: tl.pad(a, 0),
    "clone": tl.clone,
    "concatenate": lambda a: tl.concatenate([a]),
    "dropout": lambda a: F.dropout(a, training=False),
    "mse_loss": lambda a: F.mse_loss(a, a * 0, reduction="none"),
    "clip": lambda a: tl.clip(a),
}


@pytest.mark.parametrize("name", VIEWS_OF_ARRAYS)
def test_a_tensor_made_of_an_array_by_an_op_shares_no_memory_with_it(name):
    a = RNG.uniform(-1, 1, (3, 3)).astype(np.float32)
    out = VIEWS_OF_ARRAYS[name](a)
    before = out.numpy().copy()
    a[...] = 99
    np.testing.assert_array_equal(out.numpy(), before)


# Gradients own their memory


def distinct(*arrays):
    arrays = [a.numpy() if isinstance(a, tl.Tensor) else a for a in arrays]
    return not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])


def test_the_parents_of_add_do_not_share_a_gradient_nor_take_the_seed():
    x, y, seed = leaf(3), leaf(3), tl.tensor([1.0, 2.0, 3.0])
    (x + y).backward(seed)
    assert distinct(x.grad, y.grad, seed)
    x.grad.data = [9.0, 9.0, 9.0]
    np.testing.assert_array_equal(y.grad.numpy(), [1, 2, 3])
    np.testing.assert_array_equal(seed.numpy(), [1, 2, 3])


SHARING = {
    "add": lambda x, y: x + y,
    "add twice": lambda x, y: (x + y) + x,
    "reshape": lambda x, y: x.reshape(-1) + y.reshape(-1),
    "transpose": lambda x, y: x.T + y.T,
    "concatenate": lambda x, y: tl.concatenate([x, y]),
    "stack": lambda x, y: tl.stack([x, y, x]),
    "slices": lambda x, y: x[:1] + y[1:],
    "clone": lambda x, y: x.clone() + y.clone(),
    "sum": lambda x, y: (x + y).sum(),
    "broadcast": lambda x, y: x.mean() + y.sum(axis=0),
}


@pytest.mark.parametrize("name", SHARING)
def test_gradients_of_grad_share_no_memory_and_can_be_written_to(name):
    x, y = leaf(2, 2), leaf(2, 2)
    out = SHARING[name](x, y)
    seed = tl.tensor(RNG.standard_normal(out.shape))
    gx, gy = tl.grad(out, [x, y], seed)
    assert distinct(gx, gy, seed, x, y)
    gx += 1
    gy += 1


@pytest.mark.parametrize("name", ["add", "transpose"])
def test_gradients_of_create_graph_do_not_change_each_other_nor_the_seed(name):
    x, y = leaf(2, 2), leaf(2, 2)
    seed = tl.tensor([[1.0, 2.0], [3.0, 4.0]])
    gx, gy = tl.grad(SHARING[name](x, y), [x, y], seed, create_graph=True)
    before = gy.numpy().copy()
    with tl.no_grad():
        gx += 1
    np.testing.assert_array_equal(gy.numpy(), before)
    np.testing.assert_array_equal(seed.numpy(), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "build", [lambda x: x.sum(), lambda x: x.mean(axis=0), lambda x: x.broadcast_to(4, 2, 2), lambda x: x.T]
)
def test_what_backward_leaves_in_grad_can_be_written_to(build):
    x = leaf(2, 2)
    out = build(x)
    out.backward(np.ones(out.shape))
    x.grad *= 2
    x.grad[0] = 0
    assert not x.grad.numpy()[0].any()


def test_the_seed_is_left_alone_by_a_pass_that_adds_in_place():
    x, seed = leaf(3), tl.tensor([1.0, -2.0, 3.0])
    y = x + x + x + x * 2
    y.backward(seed)
    np.testing.assert_array_equal(seed.numpy(), [1, -2, 3])
    np.testing.assert_allclose(x.grad.numpy(), [5, -10, 15])
