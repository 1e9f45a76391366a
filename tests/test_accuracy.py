"""The bounds of tests/tools/accuracy.py hold for every differentiable op; what infinities give; sums of a million."""

import math

import numpy as np
import pytest
from accuracy import ROWS
from ulps import Error, mp

import tinygrad_lenet as tl
from tinygrad_lenet.core.primitive import REGISTRY

NAMED = [pytest.param(row, id=f"{i}-{row.name}") for i, row in enumerate(ROWS)]


@pytest.mark.parametrize("row", NAMED)
def test_errors_are_within_their_bounds(row):
    for error, bound in zip(row.errors(), row.bounds, strict=True):
        assert error.ulps.max(initial=0) <= bound
        # Of results that have fewer digits, in units of the smallest that has all; arctan squares what may overflow.
        assert error.tiny < (0.3 if row.name == "arctan" else 1e-4)


def test_every_differentiable_op_is_measured():
    ops = {
        op.name.strip("_")
        for name, op in REGISTRY.items()
        if name.startswith("tinygrad_lenet.") and any(op.rules.values())
    }
    assert ops <= {row.name for row in ROWS}


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "var", "std", "norm", "sigmoid", "softplus"])
def test_those_that_networks_rest_on_are_within_four_units(name):
    rows = [row for row in ROWS if row.name == name]
    assert rows
    assert all(bound <= 4 or name == "norm" for row in rows for bound in row.bounds[: 1 + (name != "sigmoid")])


# Where ours is NaN and the limit is not: 0 * inf. PyTorch's is NaN there too, but for the slope of hardswish.
NAN = {"silu": "both", "gelu": "both", "mish": "forward", "softsign": "forward", "hardswish": "forward"}
NAN |= {"gelu_tanh": "forward", "bell": "gradient"}
WHOLE = [p for p in NAMED if p.values[0].kind in ("elementwise", "activations") and len(p.values[0].arrays) == 1]


@pytest.mark.parametrize("row", [p for p in WHOLE if p.values[0].arrays[0].min() < -1])
def test_infinities_give_the_limit_and_nan_gives_nan(row):
    x = tl.tensor(np.float32([-math.inf, math.inf, math.nan]), requires_grad=True)
    with np.errstate(all="ignore"):
        out = row.call(x)
        (slope,) = tl.grad(out.sum(), x)
    assert np.isnan(out.numpy()[2])
    if row.name in ("sin", "cos", "tan"):
        assert np.isnan(out.numpy()).all()
        return
    far = np.array([-(mp.mpf(2) ** 200), mp.mpf(2) ** 200], object)
    (value, _), ((steep, _),) = row.truth(far, np.ones(2, np.float32))
    for got, true, which in ((out, value, "forward"), (slope, steep, "gradient")):
        if NAN.get(row.name) in (which, "both"):
            assert np.isnan(got.numpy()[:2]).any()
        else:
            assert Error.of(got.numpy()[:2], true).ulps.max(initial=0) < 2


def test_a_million_equal_numbers_add_up():
    for lengths, axis in (((1_000_000,), 0), ((1_000_000, 2), 0), ((2, 1_000_000), 1), ((100, 2, 10_000), (0, 2))):
        x = tl.full(lengths, 0.1)
        bias = tl.zeros(*(2 if n == 2 else 1 for n in lengths), requires_grad=True)
        (grad,) = tl.grad(x + bias, bias, x)  # broadcasting, undone
        for total in (x.sum(axis), x.mean(axis) * 1e6, grad):
            assert np.abs(total.numpy() / (np.float64(np.float32(0.1)) * 1e6) - 1).max() < 20 * 2**-23


def test_batches_far_from_zero_are_normalised_whatever_their_order():
    """The rough mean is that of the first numbers: sorted ones, or an outlier in front, are far from it."""
    rng = np.random.default_rng(0)
    for x in (
        np.sort(rng.standard_normal((4096, 3)), axis=0),
        np.concatenate([np.full((64, 3), 1e6), rng.standard_normal((4000, 3))]),
        np.where(np.arange(4000)[:, None] < 2000, 1e4, 1e4 + 1e-2) + rng.standard_normal((4000, 3)) * 1e-3,
        rng.standard_normal((100, 3)) * 1e25,
        np.full((100, 3), 0.1),
    ):
        x = x.astype(np.float32)
        y = x.astype(np.float64)
        expected = (y - y.mean(0)) / np.sqrt(y.var(0) + 1e-5)
        mean, var = tl.zeros(3), tl.zeros(3)
        with np.errstate(over="ignore"):  # in the running variance, which is float32
            out = tl.batch_norm(x, mean, var, training=True, momentum=1.0).numpy()
            unbiased = y.var(0, ddof=1).astype(np.float32)
        np.testing.assert_allclose(out, expected, 1e-5, 4e-6)
        np.testing.assert_allclose(mean.numpy(), y.mean(0), 1e-6, 1e-6 * np.abs(y).max())
        np.testing.assert_allclose(var.numpy(), unbiased, 1e-5, 1e-30)
