"""The strategies draw what they promise, and importing the package does not import hypothesis."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet.testing import strategies


@given(strategies.tensors(low=-2, high=3))
def test_distinct_values_lie_apart_and_not_in_the_middle(x):
    values = np.sort(x.numpy(), axis=None)
    assert x.dtype == np.float64
    assert not x.requires_grad
    if x.size:
        assert values[0] >= -2
        assert values[-1] < 3
        assert (np.diff(values) > 4 / x.size).all()
        assert (np.abs(values - 0.5) > 0.1 / x.size).all()


@given(strategies.tensors((40,), dtype=np.float32, distinct=False, requires_grad=True))
def test_values_that_need_not_be_distinct_have_ties(x):
    assert x.requires_grad
    assert x.dtype == np.float32
    assert len({*x.tolist()}) <= 9


@given(strategies.broadcastable_shapes(3, min_side=0))
def test_shapes_broadcast(shapes):
    assert len(shapes) == 3
    np.broadcast_shapes(*shapes)


@given(strategies.shapes(min_side=0).flatmap(lambda s: st.tuples(st.just(s), strategies.indices(s))))
def test_indices_are_numpys(drawn):
    shape, index = drawn
    x = np.arange(int(np.prod(shape))).reshape(shape)
    np.testing.assert_array_equal(tl.tensor(x)[index].numpy(), x[index])


@given(st.integers(0, 4).flatmap(lambda n: st.tuples(st.just(n), strategies.axes(n))))
def test_axes_are_valid(drawn):
    ndim, axis = drawn
    np.zeros((2,) * ndim).sum(axis=axis)


@given(strategies.conv_geometries())
def test_convolutions_are_valid(at):
    out = tl.conv2d(tl.ones(at.x), tl.ones(at.weight), **at.options)
    assert min(out.shape) >= 1


@given(strategies.pool_geometries())
def test_poolings_are_valid(at):
    assert min(tl.max_pool2d(tl.ones(at.x), **at.options).shape) >= 1


@pytest.mark.parametrize(
    "wanted",
    [
        lambda at: at.x[2] != at.x[3] and at.weight[2] != at.weight[3],
        lambda at: at.groups > 1 and at.dilation != (1, 1),
        lambda at: at.stride[0] != at.stride[1] and at.padding[0] != at.padding[1],
    ],
)
def test_geometries_are_varied(wanted):
    assert find(strategies.conv_geometries(), wanted)


def test_shapes_and_indices_are_varied():
    assert find(strategies.shapes(min_side=0), lambda s: 0 in s) is not None
    assert find(strategies.axes(3), lambda a: isinstance(a, tuple) and len(a) > 1 and min(a) < 0)
    assert find(strategies.indices((3, 2)), lambda i: isinstance(i, tuple) and None in [k for k in i if k is None])
    assert find(strategies.indices((3, 2)), lambda i: isinstance(i, tuple) and i and isinstance(i[0], np.ndarray))


PROBE = "import tinygrad_lenet.testing, sys; assert 'hypothesis' not in sys.modules; tinygrad_lenet.testing.strategies"


def test_hypothesis_is_imported_with_the_strategies_and_missed_with_a_hint():
    subprocess.run([sys.executable, "-c", PROBE], check=True, timeout=60)
    missing = "import sys; sys.modules['hypothesis'] = None; " + PROBE.replace("'hypothesis' not in", "'torch' not in")
    run = subprocess.run([sys.executable, "-c", missing], capture_output=True, text=True, timeout=60)
    assert 'needs hypothesis: pip install "tinygrad_lenet[check]"' in run.stderr
