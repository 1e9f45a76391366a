"""detect_anomaly: the first op that gives NaN or infinity is named, with the line that called it and the index."""

import re
import threading
from pathlib import Path

import numpy as np
import pytest
from test_registry import CASES, as_function

import tinygrad_lenet as tl
from tinygrad_lenet import nn

HERE = re.escape(str(Path(__file__)))


def leaf(*values):
    return tl.tensor(values, dtype=np.float64, requires_grad=True)


FORWARD = [
    (lambda: tl.log(leaf(1.0, -2.0, -3.0)), r"log: the output is nan at index \(1,\), where x is -2.0;"),
    (lambda: leaf(1.0, 2.0, 0.0) / [1.0, 0.0, 0.0], r"div: .* inf at index \(1,\), where x is 2.0, where y is 0.0;"),
    (lambda: leaf(1.0, 2.0) / 0.0, r"div: the output is inf at index \(0,\), where x is 1.0, where y is 0.0;"),
    (lambda: tl.exp(leaf(1.0, 800.0)), r"exp: the output is inf at index \(1,\), where x is 800.0;"),
    (lambda: tl.log(tl.tensor(0.0)), r"log: the output is -inf, where x is 0.0;"),
    (
        lambda: tl.tensor([[1e38, 1.0]]) @ tl.tensor([[1e38], [1.0]]),
        r"matmul: the output is inf at index \(0, 0\), x of shape \(1, 2\) is finite, y of shape \(2, 1\) is finite;",
    ),
    (lambda: leaf(1.0, np.nan, 2.0).sum(), r"sum: the output is nan, x of shape \(3,\) has nan at index \(1,\);"),
]


@pytest.mark.parametrize(("call", "words"), FORWARD)
def test_an_output_is_told_of_with_op_index_arguments_and_line(call, words):
    with tl.detect_anomaly(), pytest.raises(tl.AnomalyError, match=f"^{words} .* was called at {HERE}, line \\d+: "):
        call()


def test_the_line_is_the_user_s_also_inside_of_layers_and_losses():
    model = nn.Sequential(nn.Linear(2, 2, generator=0), nn.ReLU())
    with tl.detect_anomaly(), pytest.raises(tl.AnomalyError) as caught:
        model(tl.tensor([[np.inf, 1.0]]))  # this line
    assert str(caught.value).startswith("linear: ")
    assert str(caught.value).endswith("model(tl.tensor([[np.inf, 1.0]]))  # this line")


BACKWARD = [
    (lambda x: x.sqrt(), leaf(4.0, 0.0), r"sqrt: the gradient of argument 'x' is inf at index \(1,\), where .* 1.0;"),
    (lambda x: x**0.5, leaf(0.0, 1.0), r"pow: the gradient of argument 'x' is inf at index \(0,\), where .* 1.0;"),
    (lambda x: tl.linalg.norm(x) ** 0.5, leaf(0.0, 0.0), r"pow: the gradient of argument 'x' is inf, where .* 1.0;"),
]


@pytest.mark.parametrize(("function", "x", "words"), BACKWARD)
def test_a_gradient_is_told_of_with_op_argument_index_and_the_line_of_the_forward_pass(function, x, words):
    with tl.detect_anomaly():
        y = function(x).sum()
    with pytest.raises(tl.AnomalyError, match=f"^{words} .* called at {HERE}, line .*lambda x: "):
        y.backward()  # outside: what was recorded inside is watched
    assert x.grad is None


def test_a_sum_of_gradients_that_overflows_is_seen_and_a_seed():
    x = leaf(1e-300)
    with tl.detect_anomaly():
        h = x * 1.0
        y = h * 1e308 + h * 1e308
    with pytest.raises(tl.AnomalyError, match=r"mul: the gradient of its output \(a sum of several.*\) is inf at"):
        y.backward()
    with tl.detect_anomaly():
        y = x * 2
    with pytest.raises(tl.AnomalyError, match=r"or what backward\(\) was given\) is nan at index"):
        y.backward([np.nan])


def test_of_an_argument_that_stands_twice_both_names_are_told():
    x = leaf(1e100)
    with tl.detect_anomaly():
        y = x * x
    with pytest.raises(tl.AnomalyError, match="mul: the gradient of argument 'x' and 'y' is inf"):
        y.backward(np.array([1e300]))


@pytest.mark.parametrize("order", [2, 3])
def test_derivatives_of_derivatives_are_watched_and_told_by_the_op_they_come_from(order):
    x = leaf(0.0)
    with tl.detect_anomaly():
        y = x ** (order - 0.5)
        for _ in range(order - 1):
            (y,) = tl.grad(y, x, create_graph=True, grad_outputs=tl.ones(1))
    with pytest.raises(tl.AnomalyError, match=r"x \*\* \(order - 0.5\) \(in its backward pass\)"):
        tl.grad(y, x, grad_outputs=tl.ones(1))


def test_infinities_may_be_allowed_and_nan_is_still_seen():
    x = leaf(1.0, 0.0)
    with tl.detect_anomaly(infinite=False):
        y = x.log()
        y.sum().backward()
        assert np.isinf(x.grad.numpy()).any()
        with pytest.raises(tl.AnomalyError, match=r"mul: the output is nan at index \(1,\), where x is -inf"):
            y * 0


def test_it_ends_with_its_block_and_is_a_decorator_and_one_thread_s():
    x = leaf(-1.0)

    @tl.detect_anomaly()
    def root(x):
        return x.sqrt()

    for _ in range(2):
        with pytest.raises(tl.AnomalyError):
            root(x)
    with np.errstate(all="ignore"):
        assert np.isnan(x.sqrt().item())
        found = []
        with tl.detect_anomaly():
            thread = threading.Thread(target=lambda: found.append(quietly(x)))
            thread.start()
            thread.join()
    assert np.isnan(found[0])


def quietly(x):
    with np.errstate(all="ignore"):
        return x.sqrt().item()


def test_a_checkpoint_is_watched_when_it_is_computed_again():
    x = leaf(4.0, 0.0)
    with tl.detect_anomaly():
        y = tl.checkpoint(lambda x: x.sqrt() * 2, x).sum()
        with pytest.raises(tl.AnomalyError, match="sqrt: the gradient of argument 'x' is inf"):
            y.backward()


@pytest.mark.parametrize(("op", "case"), CASES)
def test_every_op_is_left_in_peace_where_all_is_finite_and_gives_the_same_bits(op, case):
    function, arrays = as_function(op, case)
    results = []
    for watch in (False, True):
        tensors = [tl.tensor(a, requires_grad=True) for a in arrays]
        if watch:
            with tl.detect_anomaly(infinite=op.name != "where"):
                out = function(*tensors)
        else:
            out = function(*tensors)
        if out.requires_grad:
            out.backward(np.random.default_rng(0).standard_normal(out.shape))
        results.append(
            [out.numpy().tobytes(), *(None if t.grad is None else t.grad.numpy().tobytes() for t in tensors)]
        )
    assert results[0] == results[1]
