"""Dtypes follow NumPy 2, gradients have the dtype of their tensor; and tensors without axes or without elements."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F

FLOATS = [np.float16, np.float32, np.float64]
RNG = np.random.default_rng(11)


def leaf(*shape, dtype=np.float32):
    return tl.tensor(RNG.uniform(0.3, 0.9, shape), dtype=dtype, requires_grad=True)


OPS = {
    "arithmetic": lambda x: (x * 2 + 1 - 0.5) / 3 - x / (1 + x),
    "reflected": lambda x: 1 - 2 / (3 * x),
    "power": lambda x: x**2 + x**0.5 + x**-1 + x**0,
    "power of a number": lambda x: 2**x + 2.5**x,
    "maths": lambda x: x.exp() + x.log() + x.sin() + x.cos() + x.sqrt() + x.square() + abs(x),
    "activations": lambda x: x.tanh() + x.sigmoid() + x.relu() + F.leaky_relu(x) + F.elu(x) + F.softplus(x, beta=2),
    "choice": lambda x: tl.maximum(x, 0.5) + tl.minimum(0.7, x) + x.clip(0.4, 0.8) + tl.where(x > 0.5, x, 0.0),
    "reductions": lambda x: x.sum(1) + x.mean(1) + x.max(1) + x.min(1) + x.std(1) + x.var(1, ddof=1) + x.logsumexp(1),
    "softmax": lambda x: x.softmax() + x.log_softmax(),
    "shapes": lambda x: tl.pad(tl.stack([x, x]).reshape(2, -1).T[::2, [0, 1, 1]], 1, value=0.5),
    "losses": lambda x: F.cross_entropy(x, [0, 1]) + F.mse_loss(x, x * 0.5) + F.l1_loss(x, x * 2),
    "binary": lambda x: F.binary_cross_entropy_with_logits(x, x * 0) + F.prelu(x - 0.5, x[0, :1]).sum(),
    "dropout": lambda x: F.dropout(x, 0.3, generator=0),
    "batch norm": lambda x: F.batch_norm(x, training=True),
    "weights of classes": lambda x: F.cross_entropy(x, [0, 1], weight=[1.0, 2.0, 3.0]),
    "and smoothed": lambda x: F.cross_entropy(x, [0, 1], weight=np.array([1.0, 2.0, 3.0]), label_smoothing=0.1),
    "numbers of numpy": lambda x: x * np.float16(2) + x.dtype.type(3) - x / np.int8(2),
}


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", OPS)
def test_nothing_widens_and_gradients_have_the_dtype_of_their_tensor(name, dtype):
    x = leaf(2, 3, dtype=dtype)
    out = OPS[name](x)
    assert out.dtype == dtype
    (g,) = tl.grad(out, x, tl.ones(*out.shape), create_graph=True)
    assert g.dtype == dtype
    out.backward(np.ones(out.shape))
    assert x.grad.dtype == dtype
    assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize("dtypes", [(a, b) for a in FLOATS for b in [*FLOATS, np.int8, np.int64, np.uint8, np.bool_]])
@pytest.mark.parametrize("op", [tl.add, tl.mul, tl.div, tl.maximum, tl.matmul, lambda x, y: tl.concatenate([x, y])])
def test_mixed_dtypes_promote_as_numpy_does_and_gradients_come_back(op, dtypes):
    x, y = leaf(2, 2, dtype=dtypes[0]), tl.tensor([[1, 1], [1, 1]], dtype=dtypes[1])
    y.requires_grad = y.dtype.kind == "f"
    out = op(x, y)
    assert out.dtype == np.result_type(*dtypes)
    out.backward(np.ones(out.shape))
    assert x.grad.dtype == dtypes[0]
    assert y.grad is None or y.grad.dtype == dtypes[1]


@pytest.mark.parametrize("dtypes", [(a, b) for a in FLOATS for b in FLOATS])
@pytest.mark.parametrize("turned", [False, True])
def test_a_wider_bias_widens_a_linear_map(dtypes, turned):
    x, weight, bias = leaf(3, 2).astype(dtypes[0]), leaf(4, 3, dtype=dtypes[0]), leaf(4, dtype=dtypes[1])
    out = F.linear(x.T if turned else x.reshape(2, 3), weight, bias)
    assert out.dtype == np.result_type(*dtypes)
    out.sum().backward()
    assert (weight.grad.dtype, bias.grad.dtype) == dtypes


def test_a_float32_parameter_with_float64_data():
    w, data = leaf(3), RNG.standard_normal((4, 3))
    for out in (w * data, data * w, tl.tensor(data) * w, data @ w):
        assert out.dtype == np.float64
    out.backward(np.array([1.0, 2.0, -3.0, 0.5]))
    assert w.grad.dtype == np.float32
    np.testing.assert_allclose(w.grad.numpy(), data.T @ [1, 2, -3, 0.5], rtol=1e-6)


def test_python_numbers_and_lists_are_float32_where_nothing_else_decides():
    for out in (tl.add(1, 2), tl.exp(1.0), tl.add([1, 2], 3), tl.sum([1.0, 2.0]), tl.maximum(True, 2.5)):
        assert out.dtype == np.float32
    assert tl.add(np.float64(1), 2).dtype == np.float64
    assert (tl.arange(3) + 1).dtype == np.int64
    assert (tl.arange(3) * 1.5).dtype == np.float64  # as NumPy: int64 with a float
    assert (tl.arange(3) / 2).dtype == np.float64
    assert (tl.ones(2) * np.float64(2)).dtype == np.float64  # a NumPy scalar has a dtype of its own


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_integers_and_booleans_cannot_require_a_gradient(dtype):
    with pytest.raises(tl.DTypeError, match=rf"this one is {np.dtype(dtype)}; convert it: x\.astype"):
        tl.tensor([1, 0], dtype=dtype, requires_grad=True)
    x = tl.tensor([1, 0], dtype=dtype)
    with pytest.raises(tl.DTypeError):
        x.requires_grad = True
    with pytest.raises(tl.DTypeError):
        tl.zeros(2, dtype=dtype, requires_grad=True)
    assert not leaf(2).astype(dtype).requires_grad


def test_integer_results_of_float_inputs_need_no_gradient():
    x = leaf(2, 3)
    assert not x.argmax().requires_grad
    assert not (x > 0.5).requires_grad
    assert not tl.logical_not(x).requires_grad


def test_astype_carries_the_gradient_between_floats():
    x = leaf(3)
    y = x.astype(np.float64)
    y.backward(np.array([1.0, 2.0, 1e-300]))
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad.numpy(), np.float32([1, 2, 0]))


SWAPPED = np.dtype(np.float32).newbyteorder()


FROM_SWAPPED = {
    "tensor": lambda a: tl.tensor(a),
    "dtype of tensor": lambda a: tl.tensor([1.0, 2.0], dtype=a.dtype),
    "relu": lambda a: tl.relu(a),
    "reshape": lambda a: tl.reshape(a, 1, 2),
    "getitem": lambda a: tl.getitem(a, 0),
    "add": lambda a: tl.add(a, a),
    "where": lambda a: tl.where(a > 1, a, a),
    "concatenate": lambda a: tl.concatenate([a, a]),
    "pad": lambda a: tl.pad(a, 1),
    "clone": lambda a: tl.clone(a),
    "clip": lambda a: tl.clip(a, 0),
    "matmul": lambda a: tl.matmul(a, a),
    "dropout": lambda a: F.dropout(a, training=False),
    "astype": lambda a: tl.ones(2).astype(a.dtype),
    "zeros": lambda a: tl.zeros(2, dtype=a.dtype),
    "ones": lambda a: tl.ones(2, dtype=a.dtype),
    "full": lambda a: tl.full((2,), 1.0, dtype=a.dtype),
    "eye": lambda a: tl.eye(2, dtype=a.dtype),
    "rand": lambda a: tl.rand(2, dtype=a.dtype),
    "randn": lambda a: tl.randn(2, dtype=a.dtype),
    "arange": lambda a: tl.arange(2, dtype=a.dtype),
}


@pytest.mark.parametrize("name", FROM_SWAPPED)
def test_the_byte_order_of_the_machine_is_the_only_one(name):
    out = FROM_SWAPPED[name](np.array([1.0, 2.0], SWAPPED))
    assert out.dtype == np.float32
    assert out.dtype.isnative


def test_values_and_gradients_of_arrays_in_the_other_byte_order():
    a, w = np.array([1.5, -2.0], SWAPPED), leaf(2)
    out = tl.relu(w * a) + w * a
    out.backward([1.0, 10.0])
    np.testing.assert_allclose(out.numpy(), [3 * w.numpy()[0], -2 * w.numpy()[1]], rtol=1e-6)
    np.testing.assert_allclose(w.grad.numpy(), [3, -20])


# No axes, no elements


@pytest.mark.parametrize("name", [n for n in OPS if n in ("arithmetic", "reflected", "power", "maths", "activations")])
def test_tensors_without_axes_stay_arrays_without_axes(name):
    x = leaf()
    y = OPS[name](x)
    assert y.shape == ()
    assert isinstance(y.numpy(), np.ndarray)
    y.backward()
    assert x.grad.shape == ()
    assert isinstance(x.grad.numpy(), np.ndarray)
    x.grad *= 2


def test_reductions_and_shapes_of_a_tensor_without_axes():
    x = leaf()
    y = x.sum() + x.mean() + x.max() + x.logsumexp() + x.reshape(1)[0] + x.unsqueeze(0).squeeze() + x.flatten().sum()
    y = y + x.T + x[...] + x.broadcast_to(3).sum() + x.permute(())
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 13, rtol=1e-6)


EMPTY = {
    "elementwise": lambda x: (x * 2).exp().relu() + x.sigmoid() - F.leaky_relu(x) + x.clip(0, 1) + abs(x) ** 2,
    "broadcast": lambda x: x + tl.ones(3) * tl.ones(1, 1),
    "sum": lambda x: x.sum(),
    "sum over the empty axis": lambda x: x.sum(axis=0),
    "max over the other": lambda x: x.max(axis=1),
    "softmax": lambda x: x.softmax(axis=1) + x.log_softmax(axis=1),
    "logsumexp": lambda x: x.logsumexp(axis=1),
    "matmul": lambda x: x @ tl.ones(3, 2),
    "inner matmul": lambda x: x.T @ x,
    "linear": lambda x: F.linear(x, tl.ones(4, 3), tl.ones(4)),
    "reshape": lambda x: x.reshape(3, 0).T.flatten(),
    "getitem": lambda x: x[:, 1:],
    "getitem by list": lambda x: x[[]],
    "mask": lambda x: x[np.zeros(0, bool)],
    "concatenate": lambda x: tl.concatenate([x, tl.ones(2, 3)]),
    "stack": lambda x: tl.stack([x, x]),
    "pad": lambda x: tl.pad(x, 1),
    "where": lambda x: tl.where(x > 0, x, 0.0),
    "maximum": lambda x: tl.maximum(x, 0.0),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_tensors_pass_through_forward_and_backward(name):
    x = tl.zeros(0, 3, requires_grad=True)
    out = EMPTY[name](x)
    (g,) = tl.grad(out, x, tl.ones(*out.shape), create_graph=True)
    assert g.shape == (0, 3)
    out.backward(np.ones(out.shape))
    assert x.grad.shape == (0, 3)
    assert x.grad.dtype == np.float32


def test_a_weight_gets_a_zero_gradient_from_an_empty_batch():
    w, b = leaf(4, 3), leaf(4)
    F.linear(tl.zeros(0, 3), w, b).sum().backward()
    assert not w.grad.numpy().any()
    assert not b.grad.numpy().any()
    (tl.zeros(0, 4) * b).sum().backward()
    assert b.grad.shape == (4,)
