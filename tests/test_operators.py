"""Operators between Tensors, arrays and numbers, in both orders; and changes in place."""

import operator

import numpy as np
import pytest

import tinygrad_lenet as tl

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
A = np.array([[0.5, 1.5, 2.0], [2.5, 0.25, 3.0]], np.float32)
B = np.array([1.5, 1.5, 0.5], np.float32)

name_of = {op: op.__name__ for op in ARITHMETIC + COMPARISONS}.get


def agree(out, expected):
    assert isinstance(out, tl.Tensor)
    assert out.dtype == expected.dtype
    np.testing.assert_array_equal(out.numpy(), expected)


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS, ids=name_of)
def test_tensors_arrays_and_numbers_mix_in_both_orders(op):
    x, y = tl.tensor(A), tl.tensor(B)
    agree(op(x, y), op(A, B))
    agree(op(x, B), op(A, B))
    agree(op(A, y), op(A, B))
    agree(op(x, 2), op(A, 2))
    agree(op(2, x), op(2, A))
    agree(op(x, 1.5), op(A, 1.5))
    agree(op(1.5, x), op(1.5, A))
    agree(op(x, [1.5, 1.5, 0.5]), op(A, B))
    agree(op([1.5, 1.5, 0.5], x), op(B, A))
    for scalar in (np.float32(1.5), np.float64(1.5), np.int64(2)):
        agree(op(x, scalar), op(A, scalar))
        agree(op(scalar, x), op(scalar, A))
    agree(op(x, np.array(1.5)), op(A, np.array(1.5)))
    agree(op(np.array(1.5), x), op(np.array(1.5), A))


@pytest.mark.parametrize("op", ARITHMETIC, ids=name_of)
@pytest.mark.parametrize("other", [2, 1.5, np.float32(1.5), B])
def test_the_gradient_arrives_in_both_orders(op, other):
    for flip in (False, True):
        x = tl.tensor(A.astype(np.float64), requires_grad=True)
        out = op(other, x) if flip else op(x, other)
        g = np.linspace(-1, 2, 6).reshape(2, 3)
        out.backward(g)
        h = 1e-6
        values = [op(other, A + d) if flip else op(A + d, other) for d in (np.float64(h), np.float64(-h))]
        np.testing.assert_allclose(x.grad.numpy(), g * (values[0] - values[1]) / (2 * h), rtol=1e-6, atol=1e-6)


def test_matrix_products_mix_in_both_orders():
    x = tl.tensor(A)
    agree(x @ B, A @ B)
    agree(A.T @ x, A.T @ A)
    agree([1.0, 2.0] @ x, np.array([1, 2], np.float32) @ A)
    agree(x @ [1.0, 2.0, 3.0], A @ np.array([1, 2, 3], np.float32))


def test_unary_operators():
    x = tl.tensor([-1.5, 2.0], requires_grad=True)
    agree(-x, -x.numpy())
    agree(abs(x), abs(x.numpy()))
    agree(+x, x.numpy())
    agree(~tl.tensor([True, False]), np.array([False, True]))


@pytest.mark.parametrize("op", [operator.and_, operator.or_])
def test_logic_mixes_in_both_orders(op):
    p, q = np.array([True, True, False, False]), np.array([True, False, True, False])
    agree(op(tl.tensor(p), tl.tensor(q)), op(p, q))
    agree(op(tl.tensor(p), q), op(p, q))
    agree(op(p, tl.tensor(q)), op(p, q))
    agree(op(tl.tensor(p), True), op(p, True))
    agree(op(True, tl.tensor(p)), op(True, p))


BITS = [np.bool_, np.int8, np.uint8, np.int16, np.uint32, np.int64]


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor], ids=lambda op: op.__name__)
@pytest.mark.parametrize("left", BITS)
@pytest.mark.parametrize("right", BITS)
def test_bits_of_integers_are_numpys(op, left, right):
    p, q = np.array([[6, 3], [0, 1]]).astype(left), np.array([3, 5]).astype(right)
    name = {"and_": "and", "or_": "or"}.get(op.__name__, op.__name__)
    agree(op(tl.tensor(p), tl.tensor(q)), op(p, q))
    agree(op(tl.tensor(p), q), op(p, q))
    agree(op(p, tl.tensor(q)), op(p, q))
    agree(getattr(tl, f"bitwise_{name}")(p, q), op(p, q))
    agree(getattr(np, f"bitwise_{name}")(tl.tensor(p), tl.tensor(q)), op(p, q))
    for number in (3, True, np.int8(3), np.uint8(5)):
        agree(op(tl.tensor(p), number), op(p, number))
        agree(op(number, tl.tensor(p)), op(number, p))
    agree(~tl.tensor(p), ~p)
    agree(np.invert(tl.tensor(p)), ~p)
    agree(tl.bitwise_not(p), ~p)


def test_bits_of_floats_are_refused_with_the_logical_op():
    x, n = tl.tensor(A), tl.tensor([6], dtype="int64")
    refused = [lambda: x & x, lambda: n | 1.5, lambda: 0.5 ^ n, lambda: ~x, lambda: n & x, lambda: np.bitwise_and(x, n)]
    for call in refused:
        with pytest.raises(tl.DTypeError, match="logical_and"):
            call()
    for call in (lambda: n.astype("uint8") & 300, lambda: n.astype("uint8") | -1):  # as NumPy
        with pytest.raises(tl.TinygradLenetError, match="uint8"):
            call()
    agree(tl.logical_and(x, n[0]), np.logical_and(A, 6))
    agree(tl.logical_not(n), np.array([False]))


def test_comparisons_are_never_recorded():
    x = tl.tensor(A, requires_grad=True)
    for op in COMPARISONS:
        assert not op(x, x).requires_grad
        assert op(x, B).dtype == np.bool_


def test_comparison_with_nan_is_ieee():
    x = tl.tensor([np.nan, 1.0])
    agree(x == x, np.array([False, True]))
    agree(x != x, np.array([True, False]))
    agree(x < 2, np.array([False, True]))


def test_an_array_cannot_swallow_a_tensor_and_lose_its_gradient():
    a = A.copy()
    with pytest.raises(tl.GradientError, match=r"np\.add: out= would go unrecorded.*x = x \+ tensor"):
        a += tl.tensor(B, requires_grad=True)
    np.testing.assert_array_equal(a, A)
    a += tl.tensor(B)
    np.testing.assert_array_equal(a, A + B)


@pytest.mark.parametrize("op", ARITHMETIC, ids=name_of)
def test_what_does_not_fit_is_named_with_op_and_shapes(op):
    name = {"truediv": "true_divide"}.get(op.__name__, op.__name__)
    with pytest.raises(
        tl.ShapeError, match=rf"^{name}: .*x=Tensor float32 of shape \(2, 3\); y=Tensor float32 of shape \(2,\)"
    ):
        op(tl.tensor(A), tl.ones(2))
    with pytest.raises(tl.DTypeError, match="str"):
        op(tl.tensor(A), "abc")
    with pytest.raises(tl.DTypeError, match="None"):
        op(tl.tensor(A), None)


def test_products_that_do_not_fit_are_named():
    with pytest.raises(tl.ShapeError, match=r"^matmul: \(2, 3\) @ \(2, 3\)"):
        tl.tensor(A) @ tl.tensor(A)
    with pytest.raises(tl.ShapeError, match=r"expected x \(..., 2\) .* got \(2, 3\) and \(4, 2\)"):
        tl.linear(tl.tensor(A), tl.ones(4, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: x.reshape(4, 2), tl.ShapeError, r"reshape: .*\(2, 3\)"),
        (lambda x: x.permute(0, 0), tl.ShapeError, "permute"),
        (
            lambda x: x.transpose(0, 5),
            tl.ArgumentError,
            "transpose: there is no axis 5; a tensor with 2 axes has axes -2 ... 1",
        ),
        (
            lambda x: x.squeeze(0),
            tl.ShapeError,
            r"squeeze: axis 0 of a tensor of shape \(2, 3\) does not have length 1",
        ),
        (lambda x: x.unsqueeze(4), tl.ArgumentError, "unsqueeze: there is no axis 4"),
        (lambda x: x.flatten(1, 0), tl.ArgumentError, "start_dim=1 comes after end_dim=0"),
        (lambda x: x.broadcast_to(3, 3), tl.ShapeError, "broadcast_to"),
        (lambda x: x.sum(axis=2), tl.ArgumentError, r"^sum: there is no axis 2; .* 2 axes"),
        (lambda x: x.mean(axis=(0, -2)), tl.ArgumentError, r"each axis can be named once, got \(0, -2\)"),
        (lambda x: x.softmax(axis=3), tl.TinygradLenetError, "softmax: .*3"),
        (lambda x: x.argmax(axis=3), tl.TinygradLenetError, "argmax: .*3"),
        (lambda x: tl.zeros(0).max(), tl.ShapeError, "max: zero-size"),
        (lambda x: x[5], tl.OutOfRangeError, "index 5 is out of bounds"),
        (lambda x: x[[0, 7]], tl.OutOfRangeError, "index 7 is out of bounds"),
        (lambda x: x[0, 0, 0], tl.OutOfRangeError, "too many indices"),
        (lambda x: x[1.5], tl.DTypeError, r"integers, booleans, slices, None or \.\.\., got float"),
        (lambda x: x["a"], tl.DTypeError, "an index is made of"),
        (lambda x: tl.concatenate([]), tl.ArgumentError, "at least one tensor"),
        (lambda x: tl.concatenate([x, tl.ones(2, 2)]), tl.ShapeError, "concatenate: .*axis 0 only"),
        (lambda x: tl.concatenate([x, x], axis=2), tl.ArgumentError, "concatenate: there is no axis 2"),
        (lambda x: tl.stack([x, tl.ones(3, 3)]), tl.ShapeError, r"one shape, got \(2, 3\), \(3, 3\)"),
        (lambda x: tl.pad(x, (1, 2, 3)), tl.ArgumentError, r"got \(1, 2, 3\)"),
        (lambda x: tl.pad(x, (-3, -1)), tl.ShapeError, r"pad=\(-3, -1\) crop more than there is of shape \(2, 3\)"),
        (lambda x: tl.pad(x, 1, mode="mirror"), tl.ArgumentError, "mode must be 'constant',.* got 'mirror'"),
        (lambda x: tl.add(x), TypeError, r"add\(\) needs the argument 'y'"),
        (lambda x: tl.add(x, x, x), TypeError, r"add\(\) takes 2 arguments \(x, y\), 3 were given"),
        (lambda x: tl.relu(x, inplace=True), TypeError, r"relu\(\) has no argument 'inplace'; it has x"),
        (lambda x: tl.sum(x, 0, axis=1), TypeError, "'axis' twice"),
        (lambda x: tl.relu("abc"), tl.DTypeError, "str gives"),
        (lambda x: tl.relu(1j), tl.DTypeError, "complex"),
        (lambda x: tl.relu(np.ones(2, complex)), tl.DTypeError, "complex128"),
    ],
)
def test_messages_name_what_was_given(call, error, message):
    with pytest.raises(error, match=message):
        call(tl.tensor(A))


@pytest.mark.parametrize("name", ["reshape", "permute", "broadcast_to"])
def test_a_method_that_needs_numbers_says_so_when_it_gets_none(name):
    with pytest.raises(tl.ShapeError) as caught:
        getattr(tl.tensor(A), name)()
    assert name in str(caught.value)
    assert "class" not in str(caught.value)  # nothing of how the package is made inside


# In place

IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.itruediv]


@pytest.mark.parametrize("op", IN_PLACE)
@pytest.mark.parametrize("other", [2, 1.5, B, "tensor"])
def test_in_place_keeps_object_and_memory_where_nothing_is_recorded(op, other):
    other = tl.tensor(B) if isinstance(other, str) else other
    x = tl.tensor(A)
    before, view = x, x.numpy()
    expected = op(A.copy(), other.numpy() if isinstance(other, tl.Tensor) else other)
    x = op(x, other)
    assert x is before
    assert np.shares_memory(view, x.numpy())
    np.testing.assert_array_equal(view, expected)
    assert x.dtype == np.float32


@pytest.mark.parametrize("op", IN_PLACE)
def test_in_place_gives_a_new_tensor_where_it_is_recorded(op):
    w = tl.tensor(A.astype(np.float64), requires_grad=True)
    x = before = w * 2
    x = op(x, w)
    assert x is not before
    assert x.requires_grad
    np.testing.assert_array_equal(before.numpy(), 2 * w.numpy())
    y = plain = tl.tensor(A)
    y = op(y, w)  # the other requires a gradient
    assert y.requires_grad
    np.testing.assert_array_equal(plain.numpy(), A)


def test_a_running_sum_differentiates():
    w, total = tl.tensor([1.0, 2.0], requires_grad=True), 0
    for i in range(4):
        total += w * i
    total.backward([1.0, 10.0])
    np.testing.assert_array_equal(w.grad.numpy(), [6, 60])


@pytest.mark.parametrize("op", IN_PLACE)
def test_a_leaf_that_requires_a_gradient_is_changed_in_place_under_no_grad_only(op):
    w = tl.tensor(A, requires_grad=True)
    with pytest.raises(tl.GradientError, match=r"cannot be changed in place.*no_grad\(\)"):
        op(w, 2)
    with pytest.raises(tl.GradientError, match="cannot be changed in place"):
        w[0] = 1
    np.testing.assert_array_equal(w.numpy(), A)
    with tl.no_grad():
        assert op(w, 2) is w
    assert w.requires_grad
    np.testing.assert_array_equal(w.numpy(), op(A.copy(), 2))


def test_in_place_cannot_change_shape_or_kind_of_dtype():
    x = tl.ones(3)
    with pytest.raises(tl.ShapeError, match=r"would change the shape \(3,\) to \(2, 3\)"):
        x += tl.ones(2, 3)
    x += np.ones(3)  # float64 into float32, as NumPy's same_kind
    assert x.dtype == np.float32
    n = tl.arange(3)
    with pytest.raises(tl.DTypeError, match=r"float64.*int64|int64.*float64"):
        n /= 2
    np.testing.assert_array_equal(n.numpy(), [0, 1, 2])


@pytest.mark.parametrize("op", [operator.iand, operator.ior, operator.ixor])
def test_bits_change_in_place_and_so_in_a_view(op):
    for dtype in (bool, np.uint8, np.int64):
        values, others = np.array([[1, 0, 6], [5, 7, 2]]).astype(dtype), np.array([1, 1, 0]).astype(dtype)
        x, expected = tl.tensor(values), values.copy()
        row, w = x[0], tl.ones(2, 3, requires_grad=True)
        y = w * x
        row = op(row, tl.tensor(others))
        expected[0] = op(expected[0], others)
        assert row._version is x._version
        np.testing.assert_array_equal(x.numpy(), expected)
        with pytest.raises(tl.GradientError, match="changed in place"):
            y.sum().backward()
    mask = tl.tensor([True, False])
    with pytest.raises(tl.DTypeError, match="would change the dtype bool to int64"):
        op(mask, np.array([1, 2]))
    with pytest.raises(tl.ShapeError, match="would change the shape"):
        op(mask, tl.tensor([[True], [False]]))


def test_assignment_to_elements():
    x = tl.zeros(2, 3)
    x[0] = [1, 2, 3]
    x[1, ::2] = tl.tensor([7.0, 8.0])
    x[x > 7.5] = 0
    x[tl.tensor([0], dtype=np.int64), tl.arange(1)] = 9
    np.testing.assert_array_equal(x.numpy(), [[9, 2, 3], [7, 0, 0]])
    x[:, 1] += 5
    np.testing.assert_array_equal(x.numpy(), [[9, 7, 3], [7, 5, 0]])


@pytest.mark.parametrize(
    ("assign", "error", "message"),
    [
        (lambda x: x.__setitem__(0, [1, 2]), tl.ShapeError, r"x has shape \(2, 3\)"),
        (lambda x: x.__setitem__(5, 1), tl.OutOfRangeError, "5"),
        (lambda x: x.__setitem__((0, 9), 1), tl.OutOfRangeError, "9"),
        (lambda x: x.__setitem__(0.5, 1), tl.DTypeError, "float"),
        (lambda x: x.__setitem__(0, "abc"), tl.DTypeError, "str"),
        (lambda x: x.__setitem__(0, 1j), tl.DTypeError, "complex"),
        (lambda x: x.__setitem__(0, tl.ones(3, requires_grad=True)), tl.GradientError, "would not record"),
        (lambda x: x.broadcast_to(4, 2, 3).__setitem__(0, 1), tl.ArgumentError, r"read-only view.*clone\(\)"),
        (lambda x: setattr(x.broadcast_to(1, 2, 3), "data", np.ones((1, 2, 3))), tl.ArgumentError, "read-only"),
    ],
)
def test_assignments_that_cannot_be_are_refused_and_change_nothing(assign, error, message):
    x = tl.tensor(A)
    with pytest.raises(error, match=message):
        assign(x)
    np.testing.assert_array_equal(x.numpy(), A)


def test_a_refused_assignment_does_not_count_as_a_change():
    x = tl.tensor(A, requires_grad=True)
    y = (x * x).sum()
    with tl.no_grad(), pytest.raises(tl.TinygradLenetError):
        x[0] = [1, 2]
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 2 * A)
