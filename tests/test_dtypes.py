"""Dtypes follow NumPy 2, gradients have the dtype of their tensor; and tensors without axes or without elements."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F

FLOATS = [np.float16, np.float32, np.float64]
RNG = np.random.default_rng(11)
SEED = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def reseed():
    """The numbers of a test do not depend on which tests ran before."""
    RNG.bit_generator.state = SEED


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


PLACE = np.zeros(1, np.int64)
NAMES = "add sub mul div pow mod maximum minimum hypot eq lt outer"
BESIDE = {
    **{name: getattr(tl, name) for name in NAMES.split()},
    "dot": tl.dot,
    "inner": tl.inner,
    "tensordot": lambda x, y: tl.tensordot(x, y, 0),
    "einsum": lambda x, y: tl.einsum(",".join("i" * np.ndim(a) for a in (x, y)), x, y),
    "where": lambda x, y: tl.where(np.array([True, False, True]), x, y),
    "stack": lambda x, y: tl.stack([x, y]),
    "meshgrid": tl.meshgrid,
    "prelu": F.prelu,
    "scatter": lambda x, y: tl.scatter(x, 0, PLACE, y),
    "scatter_add": lambda x, y: tl.scatter_add(x, 0, PLACE, y),
    "weight": lambda x, y: F.binary_cross_entropy_with_logits(x, x, weight=y),
    "pos_weight": lambda x, y: F.binary_cross_entropy_with_logits(x, x, pos_weight=y),
    **{name: getattr(F, name) for name in ("mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "kl_div")},
    "binary": F.binary_cross_entropy_with_logits,
}


@pytest.mark.parametrize("dtype", [*FLOATS, np.int64])
@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("name", BESIDE)
def test_a_python_number_beside_an_array_is_not_rounded_to_float32_first(name, shape, dtype):
    x, same = (RNG.uniform(0.5, 3, shape)).astype(dtype), 0
    for number in (0.1, 16777217, True)[:: 2 if dtype == np.float16 else 1]:
        for wrap in (np.array, tl.tensor):
            exact = np.asarray(number, np.result_type(number, dtype))
            for i in (0, 1):
                args, expected = [wrap(x), wrap(x)], [wrap(x), wrap(x)]
                args[i], expected[i] = number, exact
                with np.errstate(all="ignore"):
                    try:
                        pairs = [BESIDE[name](*a) for a in (args, expected)]
                    except (tl.ShapeError, tl.DTypeError, tl.AxisError):
                        continue
                for found, right in zip(*pairs, strict=True) if isinstance(pairs[0], tuple) else [pairs]:
                    np.testing.assert_array_equal(found.numpy(), right.numpy(), strict=True)
                same += 1
    assert same or len(shape) == ("scatter" not in name)  # scatter needs an axis, losses one shape


def test_an_op_of_ones_own_that_asks_a_number_for_its_shape_gets_it_in_the_dtype_of_the_others():
    @tl.primitive
    def both(x: tl.Array, y: tl.Array) -> tl.Array:
        return x.astype(x.dtype) * y.astype(y.dtype) + x.sum()

    for x, y in ((np.array([0.3]), 0.1), (0.1, np.array([0.3]))):
        np.testing.assert_array_equal(both(x, y).numpy(), np.float64(x) * y + x, strict=False)
        assert both(x, y).dtype == np.float64
    assert both(0.5, 0.1).dtype == np.float32
    assert both(np.float16([0.5]), 0.1).dtype == np.float16


def test_tangents_and_cotangents_of_numbers_and_lists_are_of_the_dtype_of_the_primals():
    x = np.array(0.5)
    assert tl.jvp(lambda x: x * x, x, 0.1)[1].item() == 2 * 0.5 * 0.1
    assert tl.vjp(lambda x: x * x, x)[1](0.1).item() == 2 * 0.5 * 0.1
    assert tl.hvp(lambda x: x * x, x, 0.1).item() == 2 * 0.1
    assert tl.jvp(lambda x: x * 3, np.ones(2), [0.1, 0.3])[1].tolist() == [3 * 0.1, 3 * 0.3]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.bool_])
def test_integers_and_booleans_cannot_require_a_gradient(dtype):
    with pytest.raises(tl.DTypeError, match=rf"require a gradient, not a Tensor of {np.dtype(dtype)}; use astype"):
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


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (0, 3), (2, 0, 3)])
@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_of_no_axes_or_no_elements_is_pytorchs(torch, name, axis, shape):
    values = RNG.standard_normal(shape)
    theirs = torch.tensor(values, requires_grad=True)
    x = tl.tensor(values, requires_grad=True)
    if axis == 1 and len(shape) < 2:
        with pytest.raises(tl.AxisError, match="there is no axis 1"):
            getattr(tl, name)(x, axis)
        return
    expected, found = getattr(torch, name)(theirs, axis), getattr(tl, name)(x, axis)
    expected.backward(torch.ones(shape, dtype=torch.float64))
    np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-12, strict=True)
    for create_graph in (False, True):
        (g,) = tl.grad(found, x, np.ones(shape), create_graph=create_graph, retain_graph=True)
        np.testing.assert_allclose(g.detach().numpy(), theirs.grad.numpy(), atol=1e-12, strict=True)
    assert tl.grad(g, x, np.ones(shape))[0].shape == shape
    assert getattr(tl, name)(values.astype(np.float32), axis).dtype == np.float32


@pytest.mark.parametrize("shape", [(3, 0), (0, 0), (0, 3), (0,), (2, 0, 3), (0, 3, 2)])
def test_cross_entropy_of_no_rows_or_no_classes(torch, shape):
    x = tl.tensor(RNG.standard_normal(shape), requires_grad=True)
    for target in (np.ones(shape), np.zeros(shape[:1] * (len(shape) > 1) + shape[2:], np.int64)):
        if target.dtype == np.int64 and target.size and not shape[min(1, len(shape) - 1)]:
            with pytest.raises(tl.ArgumentError, match="there are 0 classes"):
                F.cross_entropy(x, target)
            continue
        for smoothing in (0.0, 0.1):
            found = F.cross_entropy(x, target, reduction="none", label_smoothing=smoothing)
            expected = torch.nn.functional.cross_entropy(
                torch.tensor(x.detach().numpy()), torch.tensor(target), reduction="none", label_smoothing=smoothing
            )
            np.testing.assert_array_equal(found.detach().numpy(), expected.numpy(), strict=True)
            assert tl.grad(found, x, np.ones(found.shape), create_graph=True)[0].shape == shape


def test_a_weight_gets_a_zero_gradient_from_an_empty_batch():
    w, b = leaf(4, 3), leaf(4)
    F.linear(tl.zeros(0, 3), w, b).sum().backward()
    assert not w.grad.numpy().any()
    assert not b.grad.numpy().any()
    (tl.zeros(0, 4) * b).sum().backward()
    assert b.grad.shape == (4,)


# float16: what is computed is what float64 would compute of the same numbers, rounded

MANY = [62_000, 70_000]  # 65,504 is the largest number, 2,048 the last after which 1 can be added
N, CLASSES = MANY[1], RNG.integers(0, 4, MANY[1])
WEIGHTS = np.array([0.125, 2.0, 3.0, 4.0])
SOME = np.where(np.arange(N) % 3, CLASSES, -100)


def halves(*shape, low=-2.0, high=2.0):
    return RNG.uniform(low, high, shape).astype(np.float16)


LOSSES = {
    "cross_entropy": lambda x, y, r: F.cross_entropy(x, CLASSES[: len(x)], reduction=r),
    "cross_entropy, weighted, smooth": lambda x, y, r: F.cross_entropy(
        x, SOME[: len(x)], WEIGHTS.astype(x.dtype), reduction=r, label_smoothing=0.1
    ),
    "cross_entropy of shares": lambda x, y, r: F.cross_entropy(x, y, reduction=r),
    "nll_loss": lambda x, y, r: F.nll_loss(x, CLASSES[: len(x)], WEIGHTS.astype(x.dtype), reduction=r),
    "multi_margin_loss": lambda x, y, r: F.multi_margin_loss(x, CLASSES[: len(x)], 2, reduction=r),
    "mse_loss": lambda x, y, r: F.mse_loss(x * 64, y * -64, r),
    "l1_loss": lambda x, y, r: F.l1_loss(x, y, r),
    "huber_loss": lambda x, y, r: F.huber_loss(x, y, r),
    "smooth_l1_loss": lambda x, y, r: F.smooth_l1_loss(x, y, r, 0.5),
    "kl_div": lambda x, y, r: F.kl_div(x, y, r),
    "kl_div, batchmean": lambda x, y, r: F.kl_div(x, y, "batchmean" if r == "mean" else r),
    "bce": lambda x, y, r: F.binary_cross_entropy_with_logits(x, y, reduction=r),
}
ALONG = {  # functions of many numbers along axis 0, beside two; and of the same lying the other way round
    **{
        name: (lambda x, name=name: getattr(tl, name)(x, 0))
        for name in ("sum", "mean", "var", "std", "logsumexp", "max", "softmax", "log_softmax", "cumsum")
    },
    "mean of all": lambda x: x.mean(),
    "prod": lambda x: tl.prod(x, 0),
    **{f"norm {p}": (lambda x, p=p: tl.norm(x, p, 0)) for p in (0.5, 1, 2, 3, np.inf)},
    "dot": lambda x: tl.dot(x[:, 0], x[:, 1]),
    "matmul": lambda x: x.T @ x,
    "einsum": lambda x: tl.einsum("ni,nj->ij", x, x),
    "einsum of three": lambda x: tl.einsum("ni,ni,nj->j", x, x, x[:, :1]),
    "linear": lambda x: F.linear(x.T, x.T / 8, x[:2, 0]),
    "broadcast": lambda x: x[:1] * x,
    "embedding": lambda x: F.embedding(CLASSES[: len(x)], x[:4]),
    "scatter_add": lambda x: tl.scatter_add(x[:4, 0], 0, CLASSES[: len(x)], x[:, 1]),
    "batch_norm": lambda x: F.batch_norm(x, None, None, x[0], x[1], True),
    "layer_norm": lambda x: F.layer_norm(x.T, len(x)),
    "group_norm": lambda x: F.group_norm(x.T.reshape(1, 2, -1), 1, x[0]),
    "avg_pool2d": lambda x: F.avg_pool2d(x.reshape(1, 1, 500, -1), (500, x.size // 500)),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x[: len(x) // 499 * 499].reshape(1, 2, 499, -1), 2),
    "conv2d": lambda x: F.conv2d(x.reshape(2, 1, 250, -1), x[:18].reshape(2, 2, 3, 3)[:, :1], x[0]),
}
SMALL = {  # of images (2, 8, 12, 12)
    "conv2d": lambda x: F.conv2d(x, x[:, :, :3, :3], x[0, 0, 0, :2], padding=1),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, x[0, :, None, :3, :3], x[0, 0, 0, :1], stride=2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "avg_pool2d of large numbers": lambda x: F.avg_pool2d(x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 5, 1, 2),
    "fold": lambda x: F.fold(x.reshape(2, 9, -1), (18, 10), 3),
    "interpolate": lambda x: F.interpolate(x, size=(33, 7), mode="bilinear", align_corners=True),
    "nearest": lambda x: F.interpolate(x, size=(133, 47)),
    "evaluation": lambda x: F.batch_norm(x, *(v.detach() for v in (x[0, :, 0, 0], x[0, :, 0, 1] ** 2)), x[0, :, 1, 1]),
    "many uses": lambda x: tl.stack([x[0, 0]] * 3000).sum(0),
    "mish": F.mish,
}


SCALES = {  # factor and shift of the numbers
    "prod": (1 / 1024, 1),
    "norm 0.5": (1 / 512, 0),
    "norm 1": (1 / 64, 0),
    "batch_norm": (16, 128),
    "avg_pool2d of large numbers": (30_000, 0),
    "mish": (4, 0),
}


def scaled(x, name):
    factor, shift = SCALES.get(name, (1, 0))
    return (x.astype(np.float64) * factor + shift).astype(np.float16)


def unit(v):
    """The distance to the next float16."""
    return np.spacing(np.abs(v).astype(np.float16)).astype(np.float64)


def assert_half(function, arrays, spread=3):
    """Value and gradients of float16 beside those of float64: a unit in the last place or two of their own; for
    gradients of the largest.
    """
    xs = [tl.tensor(a, requires_grad=True) for a in arrays]
    wide = [tl.tensor(a.astype(np.float64), requires_grad=True) for a in arrays]
    out, exact = function(*xs), function(*wide)
    assert out.dtype == np.float16
    found, true = out.numpy(), exact.numpy()
    largest = np.abs(true).max(initial=0)
    beyond = np.abs(true) >= 65_504
    np.testing.assert_array_equal(found[beyond], true[beyond].astype(np.float16))
    error = np.abs(found[~beyond] - true[~beyond])
    assert (error <= np.maximum(1.5 * unit(true[~beyond]), unit(min(largest, 65_504)) / 16)).all()
    g = RNG.uniform(0.5, 1.5, out.shape).astype(np.float16)
    expected = tl.grad(exact, wide, tl.tensor(g.astype(np.float64)), retain_graph=True, allow_unused=True)
    for create_graph in (False, True):
        found = tl.grad(out, xs, tl.tensor(g), create_graph=create_graph, retain_graph=True, allow_unused=True)
        for a, b in zip(found, expected, strict=True):
            if a is not None:
                assert a.dtype == np.float16
                with np.errstate(over="ignore"):
                    rounded = b.numpy().astype(np.float16)
                np.testing.assert_array_equal(np.isinf(a.numpy()), np.isinf(rounded))
                finite = np.isfinite(rounded)
                error = np.abs(a.numpy().astype(np.float64) - b.numpy())[finite]
                assert (error <= spread * unit(np.abs(rounded[finite]).max(initial=0))).all()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("n", MANY)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_many_rows_of_float16(name, reduction, n):
    x, y = halves(n, 4), halves(n, 4, low=0.1, high=0.4)
    assert_half(lambda x, y: LOSSES[name](x, y, reduction), [x, y])


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("n", MANY)
@pytest.mark.parametrize("name", ALONG)
def test_sums_and_means_of_many_numbers_of_float16(name, n):
    x = scaled(halves(n, 2), name)
    assert_half(ALONG[name], [x], spread=8)
    assert_half(ALONG[name], [np.asfortranarray(x)], spread=8)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("name", SMALL)
def test_windows_of_float16(name):
    assert_half(SMALL[name], [scaled(halves(2, 8, 12, 12), name)])


def test_the_mean_of_large_numbers_and_the_running_statistics_of_float16():
    x = halves(MANY[1], 2, low=190, high=300)
    mean, var = tl.zeros(2, dtype=np.float16), tl.ones(2, dtype=np.float16)
    F.batch_norm(x, mean, var, training=True)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), 0.1 * wide.mean(0), rtol=1e-3)
    np.testing.assert_allclose(var.numpy(), 0.9 + 0.1 * wide.var(0), rtol=1e-3)
