"""The Tensor itself: construction, what it holds, protocols of Python, changes in place, copies."""

import copy
import pickle

import numpy as np
import pytest

import tinygrad_lenet as tl


def same(tensor, values, dtype=np.float32):
    assert isinstance(tensor, tl.Tensor)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.numpy(), values)
    return True


# Construction


@pytest.mark.parametrize("data", [3, 2.5, True, [1, 2], [[1.0], [2]], (1, (2)), [], [[], []], range(3), [True, 2.5]])
def test_python_numbers_and_lists_become_float32(data):
    if data is True:
        assert same(tl.tensor(data), True, np.bool_)
    else:
        assert same(tl.tensor(data), np.array(data, np.float32))
        assert tl.tensor(data).shape == np.shape(data)


def test_lists_of_booleans_stay_booleans():
    assert same(tl.tensor([[True, False]]), [[True, False]], np.bool_)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
def test_arrays_and_numpy_scalars_keep_their_dtype(dtype):
    array = np.array([[1, 0], [1, 1]], dtype)
    assert same(tl.tensor(array), array, dtype)
    assert same(tl.tensor(array[0, 0]), array[0, 0], dtype)
    assert same(tl.tensor(tl.tensor(array)), array, dtype)
    assert same(tl.tensor(array, dtype=np.float64), array, np.float64)


def test_arrays_are_copied():
    array = np.array([1.0, 2.0])
    x = tl.tensor(array)
    array[0] = 9
    assert same(x, [1, 2], np.float64)
    y = tl.tensor(x)
    x[0] = 7
    assert same(y, [1, 2], np.float64)


def test_lists_may_hold_tensors_and_numpy_scalars():
    parts = [tl.tensor(1.5), np.float64(2), 3, np.array(4.5)]
    assert same(tl.tensor(parts), [1.5, 2, 3, 4.5])
    assert same(tl.tensor([[tl.tensor([1.0, 2.0]), [3, tl.tensor(4)]]]), [[[1, 2], [3, 4]]])


def test_arrays_of_every_layout_give_the_same_tensor():
    array = np.arange(12.0).reshape(3, 4)
    read_only = array.copy()
    read_only.flags.writeable = False
    for variant in (array[::-1, ::2], array.T, np.asfortranarray(array), np.broadcast_to(array[0], (2, 4)), read_only):
        x = tl.tensor(variant)
        assert same(x, variant, np.float64)
        x[...] = 5  # its own memory, which can be written
        assert not np.shares_memory(x.numpy(), array)
    swapped = array.astype(array.dtype.newbyteorder())
    assert same(tl.tensor(swapped), array, np.float64)
    assert tl.tensor(swapped).dtype.isnative
    assert type(tl.tensor(np.ma.array([1.0])).numpy()) is np.ndarray


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (1j, "complex gives complex128"),
        (np.zeros(2, np.complex64), "ndarray gives complex64"),
        ("abc", "str gives"),
        (["1.0"], "list gives"),
        (None, "NoneType gives object"),
        ({"a": 1}, "dict gives object"),
        (np.array(["2020-01-01"], "M8"), "datetime64"),
        ([[1.0, None]], "list gives object"),
        (np.zeros(2, np.longdouble), "longdouble|float128|float96"),
        (2**70, "object"),
        (b"xy", "bytes gives"),
    ],
)
def test_what_is_no_number_is_refused_by_name(data, given):
    with pytest.raises(tl.DTypeError, match=given):
        tl.tensor(data)


def test_ragged_lists_are_refused_with_a_word_on_their_rows():
    with pytest.raises(tl.TinygradLenetError, match="rows of the list of equal length"):
        tl.tensor([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("dtype", ["complex64", "object", "U3", "longdouble", "no such dtype"])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: tl.tensor([1.0], dtype=dtype),
        lambda dtype: tl.zeros(2, dtype=dtype),
        lambda dtype: tl.full((2,), 1, dtype=dtype),
        lambda dtype: tl.ones(2).astype(dtype),
    ],
    ids=["tensor", "zeros", "full", "astype"],
)
def test_a_dtype_that_no_tensor_has_is_refused(make, dtype):
    with pytest.raises(tl.DTypeError):
        make(dtype)


# Creation functions


@pytest.mark.parametrize("make", [tl.zeros, tl.ones, tl.rand, tl.randn])
def test_shapes_can_be_spelled_in_both_ways(make):
    assert make(2, 3).shape == make((2, 3)).shape == make([2, 3]).shape == (2, 3)
    assert make(4).shape == make((4,)).shape == (4,)
    assert make().shape == make(()).shape == ()
    assert make(0, 2).shape == (0, 2)
    assert make(np.int64(2)).shape == (2,)
    x = make(2, dtype=np.float64, requires_grad=True)
    assert (x.dtype, x.requires_grad, x.is_leaf) == (np.float64, True, True)
    assert make(2).dtype == np.float32


def test_values_of_the_creation_functions():
    assert same(tl.full(2, 7), [7, 7])
    assert same(tl.full((1, 2), 0.5), [[0.5, 0.5]])
    assert same(tl.eye(2, 3), np.eye(2, 3))
    assert same(tl.arange(2, 8, 3), [2, 5], np.int64)
    assert same(tl.arange(1.0), [0])
    assert same(tl.arange(3, dtype=np.float16), [0, 1, 2], np.float16)
    tl.zeros(2)[...] = 1  # all own their memory


@pytest.mark.parametrize("make", [tl.rand, tl.randn])
def test_random_tensors_are_the_same_bits_for_the_same_seed(make):
    a, b, c = make(50, generator=3), make(50, generator=3), make(50, generator=4)
    assert same(a, b.numpy())
    assert (a != c).numpy().any()
    generator = np.random.default_rng(3)
    assert same(make(50, generator=generator), a.numpy())
    assert (make(50, generator=generator) != a).numpy().any()  # a generator moves on
    assert (make(50) != make(50)).numpy().any()
    draws = []
    for between in (lambda: None, lambda: make(3)):
        np.random.seed(0)  # noqa: NPY002  # the global state is somebody else's, and must not be used
        between()
        draws.append(np.random.random())  # noqa: NPY002
    assert draws[0] == draws[1]
    with pytest.raises(tl.ArgumentError, match=r"generator must be a seed.*got str"):
        make(2, generator="x")
    with pytest.raises(tl.ArgumentError, match="-1"):
        make(2, generator=-1)


@pytest.mark.parametrize("shape", [(2, -3), (2.5,)])
@pytest.mark.parametrize("make", [tl.zeros, tl.ones, tl.rand])
def test_a_shape_that_is_none_is_refused_by_an_error_of_the_package(make, shape):
    with pytest.raises(tl.TinygradLenetError):
        make(*shape)


# What it holds


def test_numpy_is_a_read_only_view_that_shows_later_changes():
    x = tl.tensor([1.0, 2.0])
    view = x.numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5
    x[0] = 7
    assert view[0] == 7
    for array in (np.asarray(x), x.data, np.array(x, copy=None), np.asarray(x.detach())):
        assert np.shares_memory(array, x.numpy())
        assert not array.flags.writeable
    mine = np.array(x)
    mine[0] = 0
    assert x[0].item() == 7
    assert np.asarray(x, np.float64).dtype == np.float64
    assert np.mean(np.asarray(x)) == 4.5


def test_assigning_data_changes_the_memory_that_views_share():
    x = tl.tensor([[1.0, 2.0]], requires_grad=True)
    view = x.detach().reshape(2)
    x.data = [[3, 4]]
    assert same(view, [3, 4])
    x.data = tl.tensor(np.array([[5.5, 6.5]]))
    assert same(view, [5.5, 6.5])
    assert x.requires_grad
    with pytest.raises(tl.ShapeError, match=r"keep its shape \(1, 2\), got \(2,\)"):
        x.data = [1, 2]
    with pytest.raises(tl.DTypeError):
        x.data = "ab"


def test_single_elements_become_python_numbers():
    assert tl.tensor([[2.5]]).item() == 2.5
    assert isinstance(tl.tensor(2.5).item(), float)
    assert isinstance(tl.arange(1)[0].item(), int)
    assert isinstance((tl.ones(()) > 0).item(), bool)
    assert (float(tl.tensor([2.5])), int(tl.tensor(2.7)), bool(tl.tensor(0.0)), bool(tl.tensor([[3.0]]))) == (
        2.5,
        2,
        False,
        True,
    )
    assert [10, 20, 30][tl.arange(3)[1]] == 20
    assert list(range(tl.arange(4)[2])) == [0, 1]
    for convert in (lambda x: x.item(), float, int):
        with pytest.raises(tl.ShapeError, match=r"one element, not for shape \(2,\)"):
            convert(tl.ones(2))
    for x in (tl.ones(2), tl.zeros(0)):
        with pytest.raises(tl.ShapeError, match=r"truth value .* ambiguous"):
            bool(x)
    with pytest.raises(tl.DTypeError, match="integers can be an index, this one is float32"):
        [1, 2][tl.tensor(1.0)]


def test_length_iteration_and_membership():
    x = tl.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    assert len(x) == 3
    rows = list(x)
    assert [r.shape for r in rows] == [(2,)] * 3
    (rows[2] * tl.tensor([1.0, 10.0])).sum().backward()
    assert same(x.grad, [[0, 0], [0, 0], [1, 10]])
    a, b = tl.tensor([1.0, 2.0])
    assert (a.item(), b.item()) == (1, 2)
    assert 2.0 in tl.tensor([1.0, 2.0])
    assert 5.0 not in tl.tensor([1.0, 2.0])
    assert list(tl.zeros(0)) == []
    for refused in (len, iter, list):
        with pytest.raises(tl.ShapeError, match="without axes"):
            refused(tl.tensor(1.0))


def test_repr_shows_what_matters():
    assert repr(tl.tensor([1.0, 2.5])) == "tensor([1. , 2.5])"
    assert repr(tl.tensor(2.0, requires_grad=True)) == "tensor(2., requires_grad=True)"
    assert repr(tl.tensor(2.0, requires_grad=True) * 2) == "tensor(4., op=mul)"
    assert repr(tl.arange(2)) == "tensor([0, 1], dtype=int64)"
    assert repr(tl.tensor([True])) == "tensor([ True])"
    assert repr(tl.zeros(0, 3)) == "tensor([], shape=(0, 3))"
    assert (
        repr(tl.ones(2, dtype=np.float16, requires_grad=True)) == "tensor([1., 1.], dtype=float16, requires_grad=True)"
    )
    assert len(repr(tl.zeros(2000))) < 100


def test_tensors_are_hashed_as_objects_and_compared_by_elements():
    a, b = tl.tensor([1.0]), tl.tensor([1.0])
    assert len({a, b, a}) == 2
    assert same(a == b, [True], np.bool_)


def test_lists_and_axes():
    x = tl.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert x.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert tl.tensor(1.5).tolist() == 1.5
    assert (x.shape, x.ndim, x.size) == ((2, 3), 2, 6)
    assert same(x.T, x.numpy().T)
    assert np.shares_memory(x.T.numpy(), x.numpy())
    assert tl.zeros(2, 3, 4).T.shape == (4, 3, 2)


def test_detach_shares_memory_and_ends_the_graph():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    y = (x * 2).detach()
    assert (y.requires_grad, y.is_leaf) == (False, True)
    d = x.detach()
    d[0] = 9
    assert same(x, [9, 2])


def test_requires_grad_can_be_switched_on_leaves_only():
    x = tl.ones(2)
    assert not (x * 2).requires_grad
    x.requires_grad = True
    y = x * 2
    assert y.requires_grad
    assert not y.is_leaf
    y.requires_grad = True  # it does already
    with pytest.raises(tl.GradientError, match=r"only leaves can .*; use x\.detach\(\)"):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2).requires_grad


def test_grad_can_be_set_to_none_or_to_a_fitting_tensor_only():
    x = tl.ones(2, requires_grad=True)
    x.grad = tl.tensor([1.0, 2.0])
    x.grad = None
    assert x.grad is None
    for wrong in (tl.ones(3), tl.ones(2, dtype=np.float64), np.ones(2, np.float32), 1.0):
        with pytest.raises(tl.ShapeError, match=r"Tensor of float32 and shape \(2,\), got"):
            x.grad = wrong


# Copies


def test_leaves_can_be_copied_and_pickled():
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    (x * 3).sum().backward()
    twins = {"deepcopy": copy.deepcopy(x), "copy": copy.copy(x), "pickle": pickle.loads(pickle.dumps(x))}
    for twin in twins.values():
        assert same(twin, [1, 2])
        assert twin.requires_grad
        assert twin.is_leaf
        assert not np.shares_memory(twin.numpy(), x.numpy())
        twin.data = [0, 0]
    assert same(x, [1, 2])
    grad = twins["deepcopy"].grad
    assert same(grad, [3, 3])
    assert not np.shares_memory(grad.numpy(), x.grad.numpy())


def test_one_tensor_in_two_places_stays_one_in_a_deep_copy_and_a_pickle():
    x = tl.tensor([1.0])
    for a, b in (copy.deepcopy([x, x]), pickle.loads(pickle.dumps([x, x]))):
        assert a is b


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, pickle.dumps])
def test_a_tensor_on_a_graph_refuses_to_be_copied_with_it(duplicate):
    y = tl.ones(2, requires_grad=True) * 2
    with pytest.raises(tl.GradientError, match=r"hangs on a graph.*x\.detach\(\)"):
        duplicate(y)
    duplicate(y.detach())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int64, np.bool_])
def test_copies_keep_the_dtype(dtype):
    x = tl.tensor([1, 0], dtype=dtype)
    assert same(copy.deepcopy(x), [1, 0], dtype)
    assert same(pickle.loads(pickle.dumps(x)), [1, 0], dtype)


def test_one_element_can_be_formatted_as_a_number():
    assert f"{tl.tensor(3.14159):.2f}" == "3.14"
    assert f"{tl.tensor([[7.0]], requires_grad=True):5.1f}" == "  7.0"
    assert f"{tl.ones(2)}" == "tensor([1., 1.])"


def test_the_elements_of_a_vector_can_be_formatted_as_numbers():
    assert f"{tl.tensor([3.14159, -1.0]):.2f}" == "[3.14, -1.00]"
    assert f"{tl.tensor([[0.5], [0.25]]):.0%}" == "[[50%],\n [25%]]"
    assert f"{tl.tensor([1, 20], dtype='int64'):3d}" == "[  1,  20]"
    assert f"{tl.zeros(0):.2f}" == "[]"
    assert f"{tl.ones(2):>20}" == "    tensor([1., 1.])"
