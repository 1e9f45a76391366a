"""Normalisation and cross-entropy against their definitions, and the kernels with memory that is passed in."""

import numpy as np
import pytest
from oracles import layouts

import tinygrad_lenet as tl
from tinygrad_lenet import reference
from tinygrad_lenet.kernels import channels, softmax

SHAPES = [(5, 3, 4, 2), (64, 3, 9, 9), (1, 2, 1, 7), (300, 4, 1, 1)]


def some(*shape, seed=0, offset=0.0):
    return np.random.default_rng(seed).standard_normal(shape) + offset


def dirty(shape, dtype):
    """Memory that holds NaN, so that what is read before it is written shows."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 99, dtype)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_is_what_its_definition_says(shape, offset):
    x, weight, bias = some(*shape, offset=offset), some(shape[1], seed=1), some(shape[1], seed=2)
    expected = reference.batch_norm(x, weight, bias, 1e-3)
    for lying in layouts(x):
        found = tl.functional.batch_norm(lying, None, None, weight, bias, True, eps=1e-3)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 6), (1, 300), (700, 2)])
def test_layer_norm_is_what_its_definition_says(shape):
    x, weight, bias = some(*shape), some(shape[1], seed=1), some(shape[1], seed=2)
    found = tl.layer_norm(x, shape[1], weight, bias, 1e-3).numpy()
    np.testing.assert_allclose(found, reference.layer_norm(x, weight, bias, 1e-3), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 6), (1, 2), (700, 10)])
def test_cross_entropy_is_what_its_definition_says(shape):
    x, index = 5 * some(*shape), np.random.default_rng(1).integers(0, shape[1], shape[0])
    found = tl.cross_entropy(x, index).numpy()
    np.testing.assert_allclose(found, reference.cross_entropy(x, index), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_of_channels_write_to_the_memory_that_they_are_given(shape, dtype, monkeypatch):
    for x in layouts(some(*shape).astype(dtype)):
        weight, bias, g = (some(*s, seed=i).astype(dtype) for i, s in enumerate((shape[1:2], shape[1:2], shape)))
        at = channels.channels(x)
        assert channels.channels(x.copy("K")[...]).shape == at.shape
        data, grads = at.view(x), at.view(g)
        np.testing.assert_array_equal(at.images(data), x)
        moments = channels.moments(data, at)
        with monkeypatch.context() as patch:
            patch.setattr(channels.memory, "empty", dirty)
            for mine, clean in zip(channels.moments(data, at), moments, strict=True):
                np.testing.assert_array_equal(mine, clean)
        out = dirty(at.shape, x.dtype)
        channels.normalize(out, data, at, *moments, weight, bias, 1e-3)
        options = {"weight": weight, "bias": bias, "training": True, "eps": 1e-3}
        tensors = {name: tl.tensor(options[name], requires_grad=True) for name in ("weight", "bias")}
        input = tl.Tensor._wrap(x)
        input.requires_grad = True
        result = tl.functional.batch_norm(input, **{**options, **tensors})
        np.testing.assert_array_equal(at.images(out), result.detach().numpy())
        result.backward(g)
        out = dirty(at.shape, x.dtype)
        with monkeypatch.context() as patch:
            patch.setattr(channels.memory, "empty", dirty)
            channels.input_grad(out, grads, data, at, *moments, weight, 1e-3)
            found = channels.weight_grad(grads, data, at, *moments, 1e-3)
        np.testing.assert_array_equal(at.images(out), input.grad.numpy())
        np.testing.assert_array_equal(found, tensors["weight"].grad.numpy())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_kernels_of_cross_entropy_write_to_the_memory_that_they_are_given(dtype, order):
    x = np.array(some(700, 10), dtype, order=order)
    index = np.arange(700) % 10
    losses = dirty(700, x.dtype)
    for step in softmax.nll_steps(losses, dirty, x, index, None):
        step()
    input = tl.Tensor._wrap(x)
    input.requires_grad = True
    loss = tl.cross_entropy(input, index, reduction="none")
    if dtype != np.float16:  # whose losses are computed in float32
        np.testing.assert_array_equal(losses, loss.detach().numpy())
        g = some(700, seed=1).astype(dtype)
        loss.backward(g)
        out = np.array(dirty(x.shape, x.dtype), order=order)
        for step in softmax.nll_grad_steps(out, dirty, g, x, index, None):
            step()
        np.testing.assert_array_equal(out, input.grad.numpy())
