"""Checkpoints: a change between the two calls of the function is noticed, and the error says what changed."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import GradientError, nn


def closure(kind):
    """A function that uses a tensor from outside of it, and the tensor."""
    base = tl.tensor(np.where(np.arange(5000) % 7 == 3, 0.0, 1.0))
    leaf = tl.tensor(np.arange(5000.0), requires_grad=True)
    mean, var = tl.zeros(5000, dtype="float64"), tl.ones(5000, dtype="float64")
    mask, index = tl.tensor(np.arange(5000) % 2 == 0), tl.tensor(np.arange(5000))
    with tl.no_grad():
        made = leaf * 2
    functions = {
        "a constant": (lambda x: x * base, base),
        "a recorded tensor": (lambda x: x * other, other := leaf * 3),
        "a parameter": (lambda x: x * leaf, leaf),
        "a tensor made without a graph": (lambda x: x * made, made),
        "detach": (lambda x: x * leaf.detach(), leaf),
        "a view": (lambda x: x[1:] * base[1:], base),
        "a mask": (lambda x: tl.where(mask, x, x * x), mask),
        "a mask as an index": (lambda x: x[mask], mask),
        "an index": (lambda x: x[index], index),
        "statistics": (lambda x: tl.batch_norm(x[None], mean, var)[0], mean),
        "numpy": (lambda x: x * base.numpy(), base),
        "data": (lambda x: x * base.data, base),
        "asarray": (lambda x: x * np.asarray(base), base),
        "item": (lambda x: x * base[1234].item(), base),
        "truth": (lambda x: x * 2 if base[1234] < 1.5 else x * 3, base),
        "tolist": (lambda x: x * tl.tensor(base.tolist(), dtype="float64"), base),
        "a tensor made of it": (lambda x: x * tl.tensor(base), base),
        "written to a buffer": (lambda x: x * written(tl.zeros(5000, dtype="float64"), base), base),
    }
    return functions[kind] if kind else list(functions)


def written(buffer, value):
    buffer[...] = value
    return buffer


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("kind", closure(None))
def test_a_checkpoint_notices_one_element_that_changed_of_what_the_function_uses(kind, create_graph):
    for values in (np.ones(5000), np.zeros(5000)):  # at 0 the outputs stay the same
        fn, used = closure(kind)
        x = tl.tensor(values, requires_grad=True)
        y = tl.checkpoint(fn, x)
        (expected,) = tl.grad(fn(x), x, tl.ones(y.shape))
        (found,) = tl.grad(y, x, tl.ones(y.shape), create_graph=create_graph, retain_graph=True)
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        with tl.no_grad():
            used[1234] = ~used[1234] if used.dtype == bool else used[1234] * 0 + 2
        with pytest.raises(GradientError, match=r"checkpoint: (a tensor that|the function gave other values)"):
            tl.grad(y, x, tl.ones(y.shape), create_graph=create_graph)


def test_a_checkpoint_says_which_line_changed_the_tensor():
    x, mask = tl.ones(5000, requires_grad=True), tl.ones(5000)
    y = tl.checkpoint(lambda x: x * mask, x)
    mask[70] = 200
    with pytest.raises(
        GradientError, match=r"that the function uses, of shape \(5000,\).* at .*test_checkpoint_changes.py, line"
    ):
        y.sum().backward()


def test_a_checkpoint_says_what_changed_when_the_second_call_fails():
    @tl.primitive
    def inverse(x: tl.Array) -> tl.Array:
        return np.linalg.inv(x)  # raises where x is 0

    inverse.vjp(x=lambda g, out: -(out.T @ g @ out.T))
    matrix = tl.tensor([[1.0, 0.0], [0.5, 2.0]], requires_grad=True)
    scale, holder = tl.ones(2, 2), Holder(value=tl.ones(2, 2))
    functions = {
        "an argument": (inverse, matrix, "was changed in place after"),
        "a constant": (lambda x: inverse(x * scale), scale, "was changed in place after"),
    }
    for fn, used, message in functions.values():
        before = used.numpy().copy()
        y = tl.checkpoint(fn, matrix)
        with tl.no_grad():
            used[...] = 0
        with pytest.raises(GradientError, match=f"^checkpoint: .*{message}"):
            y.sum().backward()
        used.data = before
    y = tl.checkpoint(lambda x: x * holder.value, matrix)
    holder.value = tl.ones(3, 3)
    with pytest.raises(GradientError, match=r"^checkpoint: the function failed when .*mul: ") as caught:
        y.sum().backward()
    assert caught.value.__cause__.__notes__ == ["A checkpoint called its function again for the backward pass."]


class Holder:
    """An object whose attributes a function reads."""

    def __init__(self, **values):
        vars(self).update(values)


EXCHANGED = {
    "a tensor": (tl.ones(3), tl.tensor([1.0, 2, 1]), lambda x, v: x * v),
    "a parameter": (tl.ones(3, requires_grad=True), tl.tensor([1.0, 2, 1], requires_grad=True), lambda x, v: x * v),
    "an array": (np.ones(3), np.array([1.0, 2, 1]), lambda x, v: x * v),
    "a number": (2.0, 3.0, lambda x, v: x * v),
    "a shape": (1, 2, lambda x, v: tl.concatenate([x] * v)),
    "an index": ([0, 1], [1, 0], lambda x, v: x[v]),
    "a function": (tl.sin, tl.tanh, lambda x, v: v(x)),
    "frozen": (tl.ones(3, requires_grad=True), tl.ones(3), lambda x, v: x * v),
}


@pytest.mark.parametrize("kind", EXCHANGED)
def test_a_checkpoint_notices_what_was_exchanged(kind):
    first, second, fn = EXCHANGED[kind]
    holder, x = Holder(value=first), tl.zeros(3, requires_grad=True)
    y = tl.checkpoint(lambda x: fn(x, holder.value), x)
    holder.value = second
    with pytest.raises(GradientError, match=r"gave other values when it was called again for the backward pass: "):
        y.sum().backward()
    holder.value = first
    y = tl.checkpoint(lambda x: fn(x, holder.value), x)
    holder.value = tl.tensor(first, requires_grad=first.requires_grad) if isinstance(first, tl.Tensor) else first
    if not (isinstance(first, tl.Tensor) and first.requires_grad):  # an equal tensor is as good
        y.sum().backward()


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.Dropout(0.5, generator=0)], ids=["BatchNorm", "Dropout"])
def test_a_checkpoint_notices_that_a_module_went_to_evaluation(layer):
    layer.train()
    x = tl.rand(8, 4, generator=0, requires_grad=True)
    y = tl.checkpoint(layer, x)
    layer.eval()
    with pytest.raises(GradientError, match="called again for the backward pass"):
        y.sum().backward()
    layer.train()


def test_what_the_outputs_do_not_depend_on_may_differ_between_the_calls():
    cache, seen = [], []
    scale = tl.tensor([2.0, 3.0])

    def fn(x):
        if not cache:  # filled by the first call
            cache.append(tl.tril(tl.ones(2, 2)) * 2)
            seen.append((x * x).mean().item())
        unused = x * scale
        return (x @ cache[0]).exp(), unused.detach()

    x = tl.tensor([[0.1, 0.2]], requires_grad=True)
    y, _ = tl.checkpoint(fn, x)
    scale += 1
    (y * 1).sum().backward()
    (expected,) = tl.grad(fn(x)[0].sum(), x)
    np.testing.assert_array_equal(x.grad.numpy(), expected.numpy())
    cache[0][0, 0] = 5.0
    y, _ = tl.checkpoint(fn, x)
    cache[0][0, 0] = 6.0
    with pytest.raises(GradientError, match=r"that the function uses, of shape \(2, 2\), was changed in place"):
        y.sum().backward()


def test_a_checkpoint_within_a_checkpoint_is_compared_too():
    mask = tl.tensor(np.ones(3))

    def inner(x):
        return (x * mask).sin(), x.exp()

    def outer(x):
        a, b = tl.checkpoint(inner, x * 2)
        return tl.checkpoint(lambda x: x * mask, a * b)

    for values in (np.arange(3.0), np.zeros(3)):
        x = tl.tensor(values, requires_grad=True)
        y = tl.checkpoint(outer, x)
        (expected,) = tl.grad((np.sin(1) * tl.sin(x * 2) * tl.exp(x * 2)).sum(), x)
        found = tl.grad((y * np.sin(1)).sum(), x, retain_graph=True, create_graph=True)
        np.testing.assert_allclose(found[0].numpy(), expected.numpy(), rtol=1e-12)
        np.testing.assert_array_equal(tl.grad((y * np.sin(1)).sum(), x, retain_graph=True)[0].numpy(), found[0].numpy())
        mask[1] = 2.0
        with pytest.raises(GradientError, match=r"that the function uses, of shape \(3,\), was changed in place"):
            y.sum().backward()
        mask[1] = 1.0


def test_a_change_after_the_last_use_of_memory_that_others_write_to_is_noticed():
    array = np.array([1.0, 2.0])
    outside = tl.from_dlpack(array)
    x = tl.tensor([3.0, 4.0], requires_grad=True)
    y = tl.checkpoint(lambda x: x * outside, x)
    y.sum().backward(retain_graph=True)
    np.testing.assert_array_equal(x.grad.numpy(), [1, 2])
    array[1] = 5.0
    with pytest.raises(GradientError, match="uses another tensor of shape"):
        y.sum().backward()


def test_a_function_that_sets_a_tensor_up_in_its_first_call_only_is_refused():
    class Scale(nn.Module):  # "ActNorm"
        def __init__(self):
            super().__init__()
            self.scale, self.ready = nn.Parameter(np.zeros(2)), False

        def forward(self, x):
            if not self.ready:
                self.scale.data = 1 / x.numpy().std(0)
                self.ready = True
            return x * self.scale

    layer, x = Scale(), tl.tensor([[1.0, 2.0], [3.0, 8.0]], requires_grad=True)
    y = tl.checkpoint(layer, x)
    scale = layer.scale.numpy().copy()
    with pytest.raises(GradientError, match=r"uses another tensor of shape \(2,\)"):
        y.sum().backward()
    np.testing.assert_array_equal(layer.scale.numpy(), scale)
