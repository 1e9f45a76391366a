"""Values by which a rule differs from its mutants, where no other test looks: see ``tools/mutate.py``."""

import numpy as np
import pytest

import tinygrad_lenet as tl

X = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("function", ["dot", "inner"])
def test_a_number_beside_a_vector_is_a_factor(function):
    ours, numpys = getattr(tl, function), getattr(np, function)
    for a, b in ((2.0, X[0]), (X[0], 2.0), (X, np.float64(3.0))):
        np.testing.assert_array_equal(ours(a, b).numpy(), numpys(a, b))


def test_axes_and_shifts_may_be_an_array():
    np.testing.assert_array_equal(tl.roll(X, np.array([1, 2]), (0, 1)).numpy(), np.roll(X, [1, 2], (0, 1)))
    np.testing.assert_array_equal(tl.roll(X, np.array(1), 1).numpy(), np.roll(X, 1, 1))
    with pytest.raises(tl.DTypeError, match="shift must be an integer"):
        tl.roll(X, np.array([[1], [2]]), (0, 1))
    with pytest.raises(tl.DTypeError, match="shift must be an integer"):
        tl.roll(X, memoryview(b"\1\2"), (0, 1))


def test_an_axis_is_not_a_float_even_if_the_same_axis_was_used_before():
    tl.sum(X, (0, 1))
    for axis in ((0.0, 1.0), (0, 1.0), [0, 1.0]):
        with pytest.raises(tl.DTypeError, match="axis must be an integer"):
            tl.sum(X, axis)


def test_a_layer_of_float16_is_rounded_once():
    half = [np.array(a, np.float16) for a in ([[1, 1]], [[2048, 1]], [-2048])]
    out = tl.linear(*half)
    assert (out.dtype, out.item()) == (np.float16, 1.0)  # 2049 is no number of float16
    wide = tl.linear(half[0], half[1].astype(np.float32), half[2])
    assert (wide.dtype, wide.item()) == (np.float32, 1.0)


@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_a_variance_without_degrees_of_freedom_is_not_a_number():
    with np.errstate(all="ignore"):
        for ddof in (3, 4):
            np.testing.assert_array_equal(tl.var(X, axis=1, ddof=ddof).numpy(), np.var(X, axis=1, ddof=ddof))


def test_second_derivatives_of_batch_norm_do_not_depend_on_an_offset():
    def second(offset):
        x = tl.tensor(np.array([[0.25], [-1.5], [3.0]]) + offset, requires_grad=True)
        y = tl.batch_norm(x, training=True)
        (slope,) = tl.grad((y**3).sum(), x, create_graph=True)
        return tl.grad((slope**2).sum(), x)[0].numpy()

    np.testing.assert_allclose(second(2.0**30), second(0.0), rtol=1e-6)
