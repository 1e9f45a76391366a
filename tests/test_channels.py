"""The kernels of batch normalisation in float32 against the formulas in float64, where rounding would cost digits."""

import numpy as np
import pytest

from tinygrad_lenet.kernels import channels

EPS = 1e-3
SHAPE = (64, 3, 9, 9)
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(SHAPE)
WEIGHT, BIAS, G = RNG.standard_normal(3), RNG.standard_normal(3), RNG.standard_normal(SHAPE) + 1


def moments(x):
    at = channels.channels(x)
    return channels.moments(at.view(x), at)


def exact_moments(x):
    x = x.astype(np.float64)
    return x.mean((0, 2, 3)), x.var((0, 2, 3))


def close(found, expected, ulps):
    """Within so many units in the last place, in float32, of the largest number."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=ulps * np.finfo(np.float32).eps * np.abs(expected).max())


@pytest.mark.parametrize("offset", [0, 1e4, -3e5])
def test_a_large_offset_costs_no_digits(offset):
    x, g, weight, bias = ((a.astype(np.float32)) for a in (NOISE + offset, G, WEIGHT, BIAS))
    at, column = channels.channels(x), (1, 3, 1, 1)
    mean, var = exact_moments(x)
    standard = (x - mean.reshape(column)) / np.sqrt(var + EPS).reshape(column)
    found = moments(x)
    np.testing.assert_allclose(found[0], mean, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found[1], var, rtol=1e-6)
    data, grads, out = at.view(x), at.view(g), np.empty(at.shape, np.float32)
    channels.normalize(out, data, at, mean, var, weight, bias, EPS)
    close(at.images(out), standard * weight.reshape(column) + bias.reshape(column), 3)
    for_weight = channels.weight_grad(grads, data, at, mean, var, EPS)
    close(for_weight, (g * standard).sum((0, 2, 3)), 8)
    channels.input_grad(out, grads, data, at, mean, var, weight, EPS)
    through = (g * standard).mean((0, 2, 3), keepdims=True) * standard + g.mean((0, 2, 3), keepdims=True)
    close(at.images(out), (weight / np.sqrt(var + EPS)).reshape(column) * (g - through), 3)


@pytest.mark.parametrize("offset", [1, 1e4])
def test_moments_take_one_pass_if_the_first_elements_are_like_the_others(monkeypatch, offset):
    passes, original = 0, channels._powers

    def counted(*args):
        nonlocal passes
        passes += 1
        return original(*args)

    monkeypatch.setattr(channels, "_powers", counted)
    moments((NOISE / 9 + offset).astype(np.float32))
    assert passes == 1


@pytest.mark.parametrize("first", [1, 2])
def test_moments_are_exact_if_the_first_elements_are_not_like_the_others(first):
    x = (NOISE + 1e4).astype(np.float32)
    x[:first] = 0
    for found, expected in zip(moments(x), exact_moments(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_constant_channel_has_variance_zero():
    mean, var = moments(np.full(SHAPE, 0.1, np.float32))
    np.testing.assert_array_equal(mean, np.full(3, np.float32(0.1), np.float64))
    np.testing.assert_array_equal(var, np.zeros(3))


def test_squares_beyond_float32_are_computed_in_float64():
    x = (NOISE * 1e30).astype(np.float32)
    with np.errstate(over="ignore"):  # as ops have it
        found = moments(x)
    for mine, expected in zip(found, exact_moments(x), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


def test_an_infinite_weight_gives_infinities_and_no_nan():
    x = NOISE.astype(np.float32)
    at, (mean, var) = channels.channels(x), exact_moments(x)
    out = np.empty(at.shape, np.float32)
    channels.normalize(out, at.view(x), at, mean, var, np.full(3, np.inf, np.float32), np.zeros(3, np.float32), EPS)
    np.testing.assert_array_equal(at.images(out), np.sign(x - mean.reshape(1, 3, 1, 1)) * np.inf)


def test_an_infinite_number_makes_the_mean_of_its_channel_infinite_and_no_other():
    x = NOISE.astype(np.float32)
    x[5, 1, 2, 3] = -np.inf
    with np.errstate(invalid="ignore"):
        mean, var = moments(x)
        expected, _ = exact_moments(x)
    assert mean[1] == -np.inf
    assert np.isnan(var[1])
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-7)
