"""What ops keep for their backward pass, tried over every op of the registry; and what can be written to by others."""

import re
from pathlib import Path

import numpy as np
import pytest
from test_registry import CASES, find, materialise

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.core.primitive import REGISTRY

RNG = np.random.default_rng(3)


def leaf(*shape):
    return tl.tensor(RNG.uniform(0.2, 0.9, shape), requires_grad=True)


def plain(*shape):
    return tl.tensor(RNG.uniform(0.2, 0.9, shape))


# Every op, from its declaration: each argument, and the output, is changed before the backward pass. What the op kept
# of it is noticed, and op, argument and line are named; what it did not keep makes no difference to any bit.

THIS_LINE = re.escape(f"{Path(__file__)}, line ")


def mutable(value):
    """Lengths and axes as a list, to which a caller could write afterwards."""
    return list(value) if type(value) is tuple and all(isinstance(v, int) for v in value) else value


def scribble(value):
    """Write to all that can be written to, within lists and tuples too; say whether there was anything."""
    if isinstance(value, np.ndarray) and value.size:
        value[...] = ~value if value.dtype.kind == "b" else np.flip(value) * 3 if value.dtype.kind == "f" else 0
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


# Who shares, and who was there before


def test_of_every_argument_of_a_variadic_op_a_change_is_noticed():
    @tl.primitive
    def total(*xs: tl.Array) -> tl.Array:
        return np.sum([x**3 for x in xs], axis=0)

    total.vjp(xs=lambda g, xs, position: g * 3 * xs[position] ** 2)
    x, y, z = leaf(3), leaf(3), leaf(3)
    assert tl.testing.gradcheck(total, [x, y, z], order=2)
    out = total(x, y, z)
    y.data = np.full(3, 0.5)
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


@pytest.mark.parametrize("view", [lambda x: x[:2], lambda x: x.reshape(1, 3), lambda x: x[::-1], lambda x: x.T])
def test_a_view_of_shared_memory_shares_its_fate(view):
    w = leaf(1)
    array = np.array([1.0, 2.0, 3.0])
    out = (view(tl.from_dlpack(array)) * w).sum()
    expected = view(array.copy()).sum()
    array[...] = -5
    out.backward()
    assert w.grad.item() == expected
    tensor = plain(3)
    out = (view(tensor) * w).sum()
    np.from_dlpack(tensor)
    with pytest.raises(tl.GradientError, match="was shared with another library"):
        out.backward()


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
