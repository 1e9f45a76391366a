"""Steps that are listed once compute again and again, from what their arrays hold by then."""

import numpy as np
import pytest

from tinygrad_lenet.kernels import elementwise, pooling
from tinygrad_lenet.kernels.steps import Blocked
from tinygrad_lenet.ops.windows import windows

RNG = np.random.default_rng(0)


def calls(steps):
    """The steps of all blocks as one list of calls."""
    for step in steps:
        if isinstance(step, Blocked):
            yield from (call for block in step.blocks for call in calls(step.steps(block)))
        else:
            yield step


def compare(steps, eager, arrays, *geometry):
    """Run recorded steps on new values, and the eager function."""
    out = np.empty_like(eager(*arrays, *geometry))
    recorded = [*calls(steps(out, np.empty, *arrays, *geometry))]
    for _ in range(2):
        for array in arrays:
            array[...] = RNG.integers(-9, 10, array.shape)
        expected = eager(*arrays, *geometry)
        out[...] = 99
        for call in recorded:
            call()
        np.testing.assert_array_equal(out, expected, strict=True)


WINDOWS = [
    windows((4, 6), 2, 2, 0, 1),
    windows((4, 6), (4, 6), (4, 6), 0, 1),
    windows((4, 6), (3, 2), (2, 1), 0, (1, 2)),
    windows((4, 6), 3, 2, 1, 1),
    windows((4, 6), (2, 3), 1, "same", 1),
    windows((4, 6), (3, 2), 2, ((1, 0), (0, 1)), 1, True),
    windows((4, 6), 2, 3, 0, 1, True),
    windows((4, 6), 1, 1, 0, 1),
]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("at", WINDOWS)
@pytest.mark.parametrize("room", [64, 10**9], ids=["many blocks", "one block"])
def test_pooling(monkeypatch, at, dtype, room):
    monkeypatch.setattr(pooling, "_ROOM", room)
    x, g, peak = np.zeros((2, 3, 4, 6), dtype), np.zeros((2, 3, *at.grid), dtype), np.zeros((2, 3, *at.grid), dtype)
    compare(pooling.max_steps, pooling.max_pool2d, [x], at)
    compare(pooling.unpool_steps, pooling.unpool, [g, x, peak], at)
    compare(pooling.repool_steps, pooling.repool, [x.copy(), x, peak], at)
    if at.dilation == (1, 1):
        averages = pooling.Averages(at, False, None)
        compare(pooling.mean_steps, pooling.avg_pool2d, [x], averages)
        compare(pooling.share_steps, pooling.avg_unpool, [g], averages)


@pytest.mark.parametrize("name", ["relu", "where_positive", "tanh", "tanh_grad", "sigmoid", "sigmoid_grad"])
@pytest.mark.parametrize("shape", [(3, 4), (200, 200)])
def test_activations(name, shape):
    function = getattr(elementwise, name)
    arrays = [np.zeros(shape, np.float32) for _ in range(function.__code__.co_argcount)]
    compare(getattr(elementwise, f"{name}_steps"), function, arrays)
