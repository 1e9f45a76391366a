"""Is the gradient right? Hypothesis draws the inputs, and each test states a property that holds for all of them."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from squared_distances import squared_distances

import tinygrad_lenet as tl
from tinygrad_lenet.testing import gradcheck
from tinygrad_lenet.testing.strategies import tensors

# A gradient check calls the op for each element of its inputs, so it may take longer than the 0.2 s that hypothesis
# allows for one drawn input. And hypothesis would explain a failure by the lines of gradcheck that report it.
settings.register_profile("gradients", deadline=None, phases=set(Phase) - {Phase.explain})
settings.load_profile("gradients")


@st.composite
def point_sets(draw, dtype=np.float64, least=1):
    """Two sets of points with as many coordinates. Short axes are enough: rules fail on small shapes as on large ones.

    ``tensors`` draws values that are all different, so that nothing is right by chance.
    """
    n, m, d = (draw(st.integers(least, 3)) for _ in range(3))
    return draw(tensors((n, d), dtype)), draw(tensors((m, d), dtype))


# First, the values. The plain definition is slow, and too simple to be wrong.
def by_definition(x, y):
    rows = [[sum((float(a) - float(b)) ** 2 for a, b in zip(p, q, strict=True)) for q in y] for p in x]
    return np.array(rows).reshape(len(x), len(y))


@pytest.mark.parametrize(("dtype", "accuracy"), [(np.float16, 1e-2), (np.float32, 1e-5), (np.float64, 1e-13)])
@given(data=st.data())
def test_the_values_are_those_of_the_definition(dtype, accuracy, data):
    x, y = data.draw(point_sets(dtype, least=0))  # also no points, and points without coordinates
    found = squared_distances(x, y)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), by_definition(x.numpy(), y.numpy()), accuracy, accuracy)


# Second, the gradient. gradcheck moves each element of each input by 1e-6, in float64, and compares the change of the
# result with what the rules say. With order=2 it checks the derivative of the gradient too, which nobody wrote: it
# follows from the ops that the rules are made of.
@given(point_sets())
def test_the_gradient_is_the_numerical_one(points):
    assert gradcheck(squared_distances, points, order=2)


# The op may get one array twice, and then gets both gradients.
@given(tensors((3, 2)))
def test_distances_within_one_set(x):
    assert gradcheck(lambda x: squared_distances(x, x), [x], order=2)


# gradcheck computes in float64. The gradient of a float32 tensor is float32.
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@given(data=st.data())
def test_the_gradient_has_the_dtype_and_the_shape_of_its_tensor(dtype, data):
    x, y = data.draw(point_sets(dtype, least=0))
    x.requires_grad = y.requires_grad = True
    squared_distances(x, y).sum().backward()
    for points in (x, y):
        assert points.grad.dtype == dtype
        assert points.grad.shape == points.shape


# Third, what you know about the maths. Moving both sets changes no distance. The whole numbers here are exact in
# float32, so the results are equal to the last bit. (With |x|^2 - 2 x.y + |y|^2, a popular formula, they are not.)
@given(point_sets(), st.integers(-10_000, 10_000))
def test_moving_both_sets_changes_nothing(points, shift):
    x, y = (tl.tensor((p * 100).round().numpy(), "float32", requires_grad=True) for p in points)
    near = squared_distances(x, y)
    far = squared_distances(x + shift, y + shift)
    np.testing.assert_array_equal(far.numpy(), near.numpy())
    for a, b in zip(tl.grad(far.sum(), [x, y]), tl.grad(near.sum(), [x, y]), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


# Last, the edges: special values by hand, since a drawn number is hardly ever one of them.
def test_equal_points_have_distance_zero_and_gradient_zero():
    x, y = tl.tensor([[1.0, 2.0]], requires_grad=True), tl.tensor([[1.0, 2.0]], requires_grad=True)
    squared_distances(x, y).sum().backward()
    assert squared_distances(x, y).tolist() == [[0.0]]
    assert x.grad.tolist() == y.grad.tolist() == [[0.0, 0.0]]


def test_infinity_and_nan_stay_in_their_row():
    x = tl.tensor([[0.0, 0.0], [np.inf, 0.0], [np.nan, 0.0], [1e30, 0.0]], requires_grad=True)
    with np.errstate(over="ignore"):  # 1e60 is larger than a float32 can be
        found = squared_distances(x, [[3.0, 4.0]])
        found.sum().backward()
    np.testing.assert_array_equal(found.numpy(), [[25.0], [np.inf], [np.nan], [np.inf]])
    np.testing.assert_array_equal(x.grad.numpy()[:, 0], np.float32([-6.0, np.inf, np.nan, 2e30]))


def test_wrong_shapes_are_refused():
    for x, y in ((tl.ones(2, 1), tl.ones(2, 3)), (tl.ones(2), tl.ones(2)), (tl.ones(2, 2, 2), tl.ones(2, 2))):
        with pytest.raises(tl.ShapeError, match=r"must have shapes \(N, D\) and \(M, D\), got"):
            squared_distances(x, y)
