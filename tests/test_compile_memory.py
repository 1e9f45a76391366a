"""Memory of arguments and results: shared as in the function, or else refused; and the sign of a zero."""

import gc
import itertools

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import optim


def twice(x):
    y = x * 2
    return [y, y.T, y[1:], y.detach(), y]


def views_of_the_argument(x):
    return [x.T, x, x.detach(), x[0]]


def gradients_that_are_kept():
    weight = tl.ones(3, 4, requires_grad=True)

    def function(x):
        weight.grad = None
        (weight * x).sum().backward()
        return [weight.grad, weight.grad.T, weight.detach(), weight]

    return function


@pytest.mark.parametrize("make", [lambda: twice, lambda: views_of_the_argument, gradients_that_are_kept])
def test_results_share_memory_as_those_of_the_function_do(make):
    function, compiled, logs = make(), tl.compile(make()), []
    for call in (function, compiled):
        logs.append([])
        for k in range(5):
            x = tl.rand(3, 4, generator=k)
            found = [x, *call(x)]
            with tl.no_grad():
                for i, result in enumerate(found):
                    result += i + 1
            shared = [[a is b for b in found] + [a._version is b._version for b in found] for a in found]
            logs[-1].append((shared, [(t.requires_grad, t.tolist()) for t in found]))
    assert compiled.replayed == 3
    assert logs[0] == logs[1]


def test_a_returned_constant_is_another_tensor_at_each_call():
    compiled = tl.compile(lambda x: (tl.zeros(3), x * 1))
    reversed_ones = tl.compile(lambda x: (tl.ones(2)[::-1], x * 1))
    weight = tl.ones(3, requires_grad=True)
    optimizer = optim.SGD([weight], lr=0.1)
    zeroed = tl.compile(lambda: optimizer.zero_grad(set_to_none=False))
    for k in range(5):
        weight.grad = tl.ones(3)
        zeroed()
        for zeros in (compiled(tl.ones(2))[0], weight.grad):
            assert zeros.tolist() == [0, 0, 0]
            if k:
                zeros += 1
        ones = reversed_ones(tl.ones(2))[0]
        assert ones.tolist() == [1, 1]
        if k:
            ones += 1
    assert compiled.replayed == zeroed.replayed == reversed_ones.replayed == 3


def test_a_returned_loss_and_its_detached_value():
    weight = tl.ones(3, requires_grad=True)
    compiled = tl.compile(lambda x: (lambda loss: (loss, loss.detach()))((weight * x).sum()))
    for k in range(5):
        loss, value = compiled(tl.rand(3, generator=k))
        assert (loss.requires_grad, value.requires_grad) == (True, False)
        loss.backward()


def test_a_result_of_a_graph_that_the_function_has_freed():
    def function(weight, x):
        y = (x * weight).exp()
        weight.grad = None
        y.sum().backward()
        return y, y * 2, y.max()

    weights = [tl.ones(3, requires_grad=True) for _ in range(2)]
    compiled = tl.compile(lambda x: function(weights[1], x))
    for k in range(5):
        x = tl.rand(3, generator=k)
        for a, b in zip(function(weights[0], x), compiled(x), strict=True):
            assert a.detach().tolist() == b.detach().tolist()
    assert compiled.replayed == 3


def test_an_outside_tensor_that_is_returned_detached():
    weight = tl.ones(3, requires_grad=True)
    compiled = tl.compile(lambda x: (weight.detach(), x * 1))
    for k in range(5):
        found = compiled(tl.ones(3))[0]
        assert (found.requires_grad, found.tolist()) == (False, [k + 1.0] * 3)
        found += 1
    assert compiled.replayed == 3


def test_the_memory_of_a_replay_is_free_with_its_result():
    weight = tl.ones(3, requires_grad=True)
    compiled = tl.compile(lambda x: (lambda loss: (loss, loss.detach()))((weight * x).sum()))
    gc.disable()
    try:
        values = [compiled(tl.rand(3, generator=k))[1] for k in range(9)]
    finally:
        gc.enable()
    assert len(compiled.guards[0].recording.programs.idle) == 1
    assert len({value.item() for value in values}) == 9


def test_an_array_as_argument_that_is_changed_in_place():
    array, function = np.zeros((2, 3), np.float32), lambda x, array: x[array[:, 0].astype(int)] + tl.tensor(array)
    compiled = tl.compile(function)
    for k in range(8):
        array[...] = max(0, k - 3) % 3
        x = tl.rand(3, 3, generator=k)
        assert compiled(x, array).tolist() == function(x, array).tolist()
    assert compiled.replayed == 3


def test_a_gradient_with_a_graph_is_differentiated_outside():
    weights = [tl.tensor([1.0, 2.0, 3.0], requires_grad=True) for _ in range(2)]

    def function(weight, x):
        weight.grad = None
        (weight**3 * x).sum().backward(create_graph=True)

    compiled = tl.compile(lambda x: function(weights[1], x))
    for k in range(5):
        x, found = tl.rand(3, generator=k), []
        function(weights[0], x)
        compiled(x)
        for weight in weights:
            first, weight.grad = weight.grad, None
            (first**2 + weight).sum().backward()
            found.append(weight.grad.tolist())
        assert found[0] == found[1]
    assert compiled.replayed == 3


def test_a_leaf_that_the_function_makes_and_returns_keeps_its_gradient():
    def function(x):
        leaf = x.detach()
        leaf.requires_grad = True
        (leaf**2).sum().backward()
        return leaf

    compiled = tl.compile(function)
    inputs = [tl.rand(3, generator=k) for k in range(4)]
    with pytest.warns(UserWarning, match="the function returns a leaf that it made"):
        found = [compiled(x).grad.tolist() for x in inputs]
    assert found == [(x * 2).tolist() for x in inputs]


def part_of(weight):
    return weight.detach()[0]


@pytest.mark.parametrize("argument", [part_of, lambda weight: weight.detach().T, lambda weight: weight.detach()])
@pytest.mark.parametrize("own", [0, 3])
def test_an_argument_in_the_memory_of_a_tensor_that_is_changed(argument, own):
    weight = tl.zeros(3, 3)

    def function(x):
        weight.add_(1)
        return x * 1

    compiled = tl.compile(function)
    with pytest.warns(UserWarning, match="an argument.* is changed in place"):
        found = [compiled(argument(weight).clone() if k < own else argument(weight)) for k in range(6)]
    assert [result.max().item() for result in found] == [k if k < own else k + 1 for k in range(6)]


def test_a_gradient_that_is_set_at_every_second_call():
    weight, count = tl.ones(3, requires_grad=True), itertools.count()

    def function(x):
        if next(count) % 2:
            weight.grad = None
        return x * 2

    def kept(call):
        weight.grad = tl.ones(3)
        call(tl.ones(3))
        return weight.grad is not None

    compiled = tl.compile(function)
    with pytest.warns(UserWarning, match="at the second call"):
        found = [kept(compiled) for _ in range(6)]
    assert found == [True, False] * 3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_pooling_after_relu_keeps_the_sign_of_zero(dtype):
    def function(x):
        return tl.max_pool2d(tl.relu(x), 2)

    compiled = tl.compile(function)
    for k in range(5):
        signs = np.random.default_rng(k).choice([0.0, -0.0, -1.0, np.nan], (1, 3, 6, 6)).astype(dtype)
        x = tl.tensor(signs)
        assert compiled(x).numpy().tobytes() == function(x).numpy().tobytes()
    assert compiled.replayed == 3
