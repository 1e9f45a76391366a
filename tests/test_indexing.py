"""Indexing: values as NumPy gives them, gradients as ``np.add.at`` puts them back, for drawn shapes and indices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_lenet as tl

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)


def values(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def check(array, index):
    """Forward, gradient and the gradient's own gradient against NumPy."""
    x = tl.tensor(array, requires_grad=True)
    out = x[index]
    plain = array[index]
    assert out.shape == np.shape(plain)
    np.testing.assert_array_equal(out.numpy(), plain)
    if out.size and np.shares_memory(plain, array):
        assert np.shares_memory(out.numpy(), x.numpy())  # a view where NumPy gives a view
    g = values(out.shape, 1)
    expected = np.zeros_like(array)
    np.add.at(expected, index, g)
    (first,) = tl.grad(out, x, tl.tensor(g), retain_graph=True)
    np.testing.assert_allclose(first.numpy(), expected, rtol=1e-12, atol=1e-14)
    seed = tl.tensor(g, requires_grad=True)
    (recorded,) = tl.grad(out, x, seed, create_graph=True)
    np.testing.assert_allclose(recorded.numpy(), expected, rtol=1e-12, atol=1e-14)
    back = values(array.shape, 2)
    (second,) = tl.grad(recorded, seed, tl.tensor(back))  # linear in the seed: the same index, forward
    np.testing.assert_array_equal(second.numpy(), back[index])


@given(st.data(), SHAPES)
def test_basic_indices(data, shape):
    check(values(shape), data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)))


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
def test_integer_arrays_with_repeats(data, shape):
    index = data.draw(
        hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
    )
    check(values(shape), index)


@given(st.data(), SHAPES)
def test_boolean_masks(data, shape):
    axes = data.draw(st.integers(1, len(shape)))
    check(values(shape), data.draw(hnp.arrays(np.bool_, shape[:axes])))


@given(st.data(), hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=4))
def test_slices_integers_arrays_masks_and_new_axes_mixed(data, shape):
    length = data.draw(st.integers(1, 3))
    index = []
    for n in shape[: data.draw(st.integers(1, len(shape)))]:
        kind = data.draw(st.sampled_from(["slice", "integer", "array", "mask", "list"]))
        if kind == "slice":
            index.append(data.draw(st.slices(n)))
        elif kind == "integer":
            index.append(data.draw(st.integers(-n, n - 1)))
        elif kind == "mask":  # of as many elements as the arrays beside it have
            mask = np.zeros(n, bool)
            mask[:1] = True
            index.append(mask)
        else:
            picks = data.draw(st.lists(st.integers(-n, n - 1), min_size=length, max_size=length))
            index.append(picks if kind == "list" else np.array(picks))
        if data.draw(st.booleans()) and len(index) < 5:
            index.append(None)
    if data.draw(st.booleans()):
        index.insert(data.draw(st.integers(0, len(index))), Ellipsis) if len(index) <= len(shape) else None
    try:
        values(shape)[tuple(index)]
    except IndexError:
        with pytest.raises(tl.OutOfRangeError):
            tl.tensor(values(shape))[tuple(index)]
        return
    check(values(shape), tuple(index))


@pytest.mark.parametrize(
    "index",
    [
        [],
        ([], slice(None)),
        True,
        False,
        np.True_,
        (True, 0),
        np.array(1),
        np.array(True),
        np.int64(-1),
        np.uint8(2),
        (np.array([0, 1]), np.array([[2], [0]])),
        (slice(None), [True, False, True, False]),
        ([0, 0, 0], [1, 1, 1]),
        [[0, 1], [2, 2]],
        (Ellipsis, -1),
        (slice(None, None, -1), slice(3, 0, -2)),
        (None, 1, None),
        (),
        slice(np.int64(1), np.int64(3)),
        range(2),
    ],
    ids=repr,
)
def test_odd_indices(index):
    plain = list(index) if isinstance(index, range) else index
    array = values((3, 4))
    x = tl.tensor(array, requires_grad=True)
    np.testing.assert_array_equal(x[index].numpy(), array[plain])
    check(array, plain)


def test_tensors_as_indices():
    array = values((3, 4))
    x = tl.tensor(array, requires_grad=True)
    np.testing.assert_array_equal(x[x > 0].numpy(), array[array > 0])
    np.testing.assert_array_equal(x[tl.arange(2), tl.tensor(np.array([3, 0]))].numpy(), array[[0, 1], [3, 0]])
    np.testing.assert_array_equal(x[tl.arange(2)[1] : tl.arange(4)[3]].numpy(), array[1:3])
    np.testing.assert_array_equal(x[x.argmax(axis=0), tl.arange(4)].numpy(), array.max(0))
    np.testing.assert_array_equal(x[tl.argmax(x[:, 0])].numpy(), array[array[:, 0].argmax()])
    with pytest.raises(tl.DTypeError, match=r"got float32; for a tensor use x\.astype"):
        x[tl.ones(2)]


def test_an_index_array_that_is_changed_before_backward_does_no_harm():
    x, index = tl.tensor(values(4), requires_grad=True), np.array([0, 0, 3])
    out = x[index]
    index[:] = 1
    out.backward([1.0, 2.0, 4.0])
    np.testing.assert_array_equal(x.grad.numpy(), [3, 0, 0, 4])
    mask = np.array([True, False, True, False])
    y = tl.tensor(values(4), requires_grad=True)
    out = y[tl.tensor(mask)]
    mask[:] = False
    out.backward([1.0, 2.0])
    np.testing.assert_array_equal(y.grad.numpy(), [1, 0, 2, 0])


def test_overlapping_slices_of_one_tensor_sum():
    x = tl.tensor(values(5), requires_grad=True)
    (x[:3] * 2 + x[1:4] * 10 + x[2:] * 100).backward([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(x.grad.numpy(), [2, 4 + 10, 6 + 20 + 100, 30 + 200, 300])
