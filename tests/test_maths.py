"""The error function, which NumPy does not have: against Python's, to the last places; and what is built on it."""

import math

import numpy as np
import pytest

import tinygrad_lenet as tl


def points():
    rng = np.random.default_rng(0)
    edges = np.concatenate([np.nextafter(v, [-np.inf, v, np.inf]) for v in (0.0, 0.5, 1.0, 2.0, 5.9, 6.0, 28.0)])
    tiny = 10.0 ** np.arange(-300, 0, 7)
    x = np.concatenate([rng.uniform(-7, 7, 20_000), rng.standard_normal(5_000), edges, tiny])
    return np.concatenate([x, -x])


@pytest.mark.parametrize(("dtype", "ulps"), [(np.float64, 3), (np.float32, 3), (np.float16, 1)])
def test_erf_is_python_s_to_the_last_places(dtype, ulps):
    x = points().astype(dtype)
    found, expected = tl.erf(x).numpy(), np.array([math.erf(float(v)) for v in x])
    assert found.dtype == dtype
    error = np.abs(found.astype(np.float64) - expected) / np.spacing(np.abs(expected).astype(dtype)).astype(np.float64)
    assert error.max() <= ulps
    assert np.copysign(1, tl.erf(dtype(-0.0)).numpy()) == -1


def test_erf_rises_from_minus_1_to_1():
    found = tl.erf(np.linspace(-7, 7, 100_001)).numpy()
    assert (np.diff(found) >= -2.3e-16).all()
    assert (found[0], found[-1]) == (-1, 1)
    assert np.isnan(tl.erf(np.nan).numpy())


def test_gelu_is_the_share_of_the_normal_distribution():
    x = points()
    expected = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    np.testing.assert_allclose(tl.gelu(x).numpy(), expected, rtol=0, atol=4e-16 * 7)
