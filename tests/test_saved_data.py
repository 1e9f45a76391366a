"""What an op saved for its backward pass is protected, and gradients own their memory."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_registry import CASES, find, materialise

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F
from tinygrad_lenet import nn, optim
from tinygrad_lenet.primitive import REGISTRY

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
    "sigmoid": lambda x: x.sigmoid(),
    "relu": lambda x: x.relu(),
    "softmax": lambda x: x.softmax(),
    "log_softmax": lambda x: x.log_softmax(),
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


# Every op, from its declaration: each argument, and the output, is changed before the backward pass. What the op kept
# of it is noticed, and op, argument and line are named; what it did not keep makes no difference to any bit.

THIS_LINE = re.escape(f"{Path(__file__)}, line ")


def mutable(value):
    """Lengths and axes as a list, to which a caller could write afterwards."""
    return list(value) if type(value) is tuple and all(isinstance(v, int) for v in value) else value


def scribble(value):
    """Write to all that can be written to, within lists and tuples too; say whether there was anything."""
    if isinstance(value, np.ndarray) and value.size:
        value[...] = ~value if value.dtype.kind == "b" else value[..., ::-1] * 3 if value.dtype.kind == "f" else 0
        return True
    found = [scribble(v) for v in value] if isinstance(value, (list, tuple)) else []
    if isinstance(value, list):
        value.clear()
        return True
    return any(found)


class Recorded:
    """An op applied to one of its cases."""

    def __init__(self, op, case):
        values, kwargs, drawn = materialise(case)
        self.arguments = [tl.tensor(v, requires_grad=True) if i in drawn else v for i, v in enumerate(values)]
        self.arguments = [v.copy() if isinstance(v, np.ndarray) else v for v in self.arguments]
        self.leaves = [self.arguments[i] for i in drawn]
        self.kwargs = dict(kwargs)
        self.out = find(op)(*self.arguments, **self.kwargs)

    def gradients(self):
        seed = np.random.default_rng(0).standard_normal(self.out.shape).astype(self.out.dtype)
        found = tl.grad(self.out, self.leaves, tl.tensor(seed), allow_unused=True)
        return [None if g is None else g.numpy().tobytes() for g in found]


DIFFERENTIABLE = [c for c in CASES if Recorded(*c.values).out.requires_grad]


@pytest.mark.parametrize(("op", "case"), DIFFERENTIABLE)
def test_every_op_notices_a_change_of_what_it_saved_and_minds_no_other(op, case):
    expected = Recorded(op, case).gradients()
    for i in range(len(Recorded(op, case).leaves) + 1):
        tried = Recorded(op, case)
        target = [*tried.leaves, tried.out][i].detach()
        if not target.size or not target._data.flags.writeable:
            continue
        saved = [v for v, _ in tried.out._node.saved]
        saved = [v for s in saved for v in ([pair[0] for pair in s] if isinstance(s, list) else [s])]
        kept = any(np.shares_memory(v.numpy(), target.numpy()) for v in saved if isinstance(v, tl.Tensor))
        target[...] = 0.123
        if kept:
            who = rf"^{op.name}: (its output|argument '\w+'), of shape "
            with pytest.raises(tl.GradientError, match=rf"{who}.* was changed in place .*: at {THIS_LINE}\d+; do"):
                tried.gradients()
        else:
            assert tried.gradients() == expected


@pytest.mark.parametrize(("op", "case"), DIFFERENTIABLE)
def test_every_op_keeps_copies_of_the_arrays_and_lists_that_are_no_tensors(op, case):
    args, kwargs = case
    expected = Recorded(op, case).gradients()
    tried = Recorded(op, (tuple(map(mutable, args)), kwargs))
    if scribble([a for a in tried.arguments if not isinstance(a, tl.Tensor)]):
        assert tried.gradients() == expected


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


# Who shares, and who was there before


def test_of_every_argument_of_a_variadic_op_a_change_is_noticed():
    @tl.primitive
    def total(*xs: tl.Array) -> tl.Array:
        return np.sum([x**3 for x in xs], axis=0)

    total.vjp(xs=lambda g, xs, position: g * 3 * xs[position] ** 2)
    x, y, z = leaf(3), leaf(3), leaf(3)
    assert tl.testing.gradcheck(total, [x, y, z], order=2)
    out = total(x, y, z)
    by_data(y)
    with pytest.raises(tl.GradientError, match=r"total: argument 'xs', of shape \(3,\), was changed in place"):
        out.backward(np.ones(3))
    array = np.ones(3)
    out = total(x, array)
    array[...] = 7
    out.backward(np.ones(3))
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.numpy() ** 2)
    del REGISTRY[f"{__name__}.total"]


def test_an_index_array_that_is_written_to_before_backward_does_no_harm():
    index, src = np.array([[0, 2, 1]]), leaf(1, 3)
    for scatter in (tl.scatter_add, tl.scatter):
        src.grad = None
        out = scatter(plain(3, 3), 0, index, src)
        index[...] = 0
        out.backward(np.arange(9.0).reshape(3, 3))
        np.testing.assert_array_equal(src.grad.numpy(), [[0, 7, 5]])
        index[...] = [[0, 2, 1]]


def test_a_parameter_that_changes_between_a_checkpoint_and_its_backward_pass_is_noticed_however_little_it_does():
    x, w = leaf(3), leaf(3)
    out = tl.checkpoint(lambda x: x * w.exp(), x)
    with tl.no_grad():
        w += 1e-9
    with pytest.raises(tl.GradientError, match=r"checkpoint: a tensor that the function uses, .* changed in place"):
        out.backward(np.ones(3))


def test_an_array_given_to_a_checkpoint_may_be_written_to_afterwards():
    w, array = leaf(3), np.array([1.0, 2.0, 3.0])
    out = tl.checkpoint(lambda w, a: w.exp() * a, w, array)
    array[...] = 0
    out.backward(np.ones(3))
    np.testing.assert_allclose(w.grad.numpy(), np.exp(w.numpy()) * [1, 2, 3])


def test_memory_that_another_library_can_write_to_gives_no_wrong_gradient():
    array = np.array([1.0, 2.0])
    x = tl.from_dlpack(array)
    x.requires_grad = True
    y = (x**3).sum()
    array[...] = 50  # the op has a copy
    (slope,) = tl.grad(y, x, create_graph=True)
    np.testing.assert_array_equal(slope.numpy(), [3, 12])
    (curvature,) = tl.grad(slope.sum(), x)
    np.testing.assert_array_equal(curvature.numpy(), [6, 12])
    checkpointed = tl.checkpoint(lambda x: x**3, x).sum()
    array[...] = 1
    checkpointed.backward()
    np.testing.assert_array_equal(x.grad.numpy(), [7500, 7500])


def test_memory_given_away_between_forward_and_backward_is_refused_and_before_is_copied():
    x, w = plain(3), leaf(3)
    early = x * w
    theirs = np.from_dlpack(x)
    with pytest.raises(tl.GradientError, match=rf"mul: argument 'x'.* was shared with another library.*{THIS_LINE}"):
        early.backward(np.ones(3))
    late, before = x * w, x.numpy().copy()
    if theirs.flags.writeable:
        theirs[...] = 0
    late.backward(np.ones(3))
    np.testing.assert_array_equal(w.grad.numpy(), before)


def test_a_write_that_was_refused_counts_as_no_change():
    x = leaf(3)
    out = (x * x).sum()
    with tl.no_grad():
        for key, value in ((5, 1.0), (slice(0, 2), [1.0, 2.0, 3.0])):
            with pytest.raises((tl.OutOfRangeError, tl.ShapeError)):
                x[key] = value
    out.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * x.numpy())


def test_a_parameter_of_two_modules_gets_both_gradients_and_one_step():
    first, second = nn.Linear(3, 3, bias=False, generator=0), nn.Linear(3, 3, bias=False, generator=1)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    x = tl.randn(4, 3, generator=2, dtype=np.float64)
    model(x).sum().backward()
    w = tl.tensor(first.weight.detach(), requires_grad=True)
    ((x @ w.T) @ w.T).sum().backward()
    np.testing.assert_allclose(first.weight.grad.numpy(), w.grad.numpy(), rtol=1e-6)
    before = first.weight.numpy().copy()
    optim.SGD(model.parameters(), lr=0.5).step()
    np.testing.assert_allclose(second.weight.numpy(), before - 0.5 * w.grad.numpy(), rtol=1e-6)


def test_a_module_used_twice_gets_the_sum_also_with_a_buffer_that_changes():
    norm = nn.BatchNorm1d(3)
    x = tl.randn(4, 3, generator=0, dtype=np.float64)
    norm.train()
    (norm(norm(x)) * x).sum().backward()  # running statistics are written to between the two uses and the pass
    together = norm.weight.grad.numpy().copy()
    first, second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    (second(first(x)) * x).sum().backward()
    np.testing.assert_allclose(together, first.weight.grad.numpy() + second.weight.grad.numpy(), rtol=1e-5)


def test_running_statistics_may_change_after_evaluation_used_them():
    norm, x = nn.BatchNorm1d(3), leaf(4, 3)
    norm.eval()
    seed = RNG.standard_normal((4, 3))
    (expected,) = tl.grad(norm(x), x, tl.tensor(seed))
    out = norm(x)
    norm.train()
    norm(x)
    (found,) = tl.grad(out, x, tl.tensor(seed))
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
