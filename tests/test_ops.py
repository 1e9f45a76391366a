"""Ops against NumPy over drawn shapes, and against PyTorch on random input."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_lenet as tl
from tinygrad_lenet import functional as F

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
FULL = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)


def values(shape, seed=0, low=0.5, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape)


def leaf(array):
    return tl.tensor(array, requires_grad=True)


def both_gradients(out, inputs, g):
    """The gradients of plain NumPy and of the recorded pass, which must be equal."""
    plain = tl.grad(out, inputs, tl.tensor(g), retain_graph=True)
    recorded = tl.grad(out, inputs, tl.tensor(g), create_graph=True)
    for a, b in zip(plain, recorded, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)
    return [a.numpy() for a in plain]


# Broadcasting

BINARY = {  # forward, and the partial derivatives
    "add": (np.add, lambda x, y: 1, lambda x, y: 1),
    "sub": (np.subtract, lambda x, y: 1, lambda x, y: -1),
    "mul": (np.multiply, lambda x, y: y, lambda x, y: x),
    "div": (np.divide, lambda x, y: 1 / y, lambda x, y: -x / y**2),
    "pow": (np.power, lambda x, y: y * x ** (y - 1), lambda x, y: x**y * np.log(x)),
    "maximum": (np.maximum, lambda x, y: x > y, lambda x, y: y > x),
    "minimum": (np.minimum, lambda x, y: x < y, lambda x, y: y < x),
}


def sum_to(gradient, shape):
    """Undo broadcasting, element by element: slow and plain."""
    out = np.zeros(shape)
    for index in np.ndindex(gradient.shape):
        tail = index[len(index) - len(shape) :]
        out[tuple(0 if n == 1 else i for i, n in zip(tail, shape, strict=True))] += gradient[index]
    return out


@pytest.mark.parametrize("name", BINARY)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=3))
def test_binary_ops_broadcast_and_their_gradients_sum_back(name, shapes):
    forward, dx, dy = BINARY[name]
    a, b = (values(s, i) for i, s in enumerate(shapes.input_shapes))
    x, y = leaf(a), leaf(b)
    out = getattr(tl, name)(x, y)
    np.testing.assert_array_equal(out.numpy(), forward(a, b))
    g = values(out.shape, 2, -1, 1)
    gx, gy = both_gradients(out, [x, y], g)
    a, b = np.broadcast_arrays(a, b)
    np.testing.assert_allclose(gx, sum_to(g * dx(a, b), x.shape), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gy, sum_to(g * dy(a, b), y.shape), rtol=1e-10, atol=1e-12)


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, min_side=0, max_side=3))
def test_where_broadcasts_three_ways(shapes):
    c, a, b = (values(s, i) for i, s in enumerate(shapes.input_shapes))
    x, y, take = leaf(a), leaf(b), c > 1.2
    out = tl.where(take, x, y)
    np.testing.assert_array_equal(out.numpy(), np.where(take, a, b))
    g = values(out.shape, 3, -1, 1)
    gx, gy = both_gradients(out, [x, y], g)
    np.testing.assert_allclose(gx, sum_to(np.where(take, g, 0), x.shape), atol=1e-12)
    np.testing.assert_allclose(gy, sum_to(np.where(take, 0, g), y.shape), atol=1e-12)


@given(st.data(), hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), st.integers(1, 3), st.integers(0, 3))
def test_matmul_broadcasts_its_leading_axes(data, lead, k, n):
    other = data.draw(hnp.broadcastable_shapes(lead, max_dims=2, min_side=1, max_side=3))
    left = data.draw(st.sampled_from([(k,), (*lead, n, k), (*lead, 2, k)]))
    right = data.draw(st.sampled_from([(k,), (*other, k, 2), (*other, k, n)]))
    a, b = values(left, 1, -1), values(right, 2, -1)
    x, y = leaf(a), leaf(b)
    out = x @ y
    np.testing.assert_allclose(out.numpy(), a @ b, rtol=1e-12, atol=1e-12)
    g = values(out.shape, 3, -1, 1)
    gx, gy = both_gradients(out, [x, y], g)
    # The derivative as a sum over products, without matmul: X is (..., n, k), Y is (..., k, m).
    wide_a, wide_b = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    wide_g = g[..., None] if b.ndim == 1 else g
    wide_g = wide_g[..., None, :] if a.ndim == 1 else wide_g
    products = wide_g[..., :, None, :] * np.ones_like(wide_a)[..., :, :, None]
    dx = (products * wide_b[..., None, :, :]).sum(-1)
    dy = (wide_g[..., :, None, :] * wide_a[..., :, :, None]).sum(-3)
    np.testing.assert_allclose(gx, sum_to(dx, wide_a.shape).reshape(left), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gy, sum_to(dy, wide_b.shape).reshape(right), rtol=1e-10, atol=1e-12)


# Reductions

REDUCTIONS = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "var": np.var,
    "std": np.std,
    "logsumexp": lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims)),
}


@st.composite
def axes_of(draw, shape):
    """None, one axis, or several in any order, counted from either end."""
    some = st.lists(st.integers(0, len(shape) - 1), unique=True).map(
        lambda axes: tuple(a - len(shape) * draw(st.booleans()) for a in axes)
    )
    return draw(st.none() | st.integers(-len(shape), len(shape) - 1) | some)


@pytest.mark.parametrize("name", REDUCTIONS)
@given(data=st.data(), shape=FULL, keepdims=st.booleans())
def test_reductions_over_any_axes(name, data, shape, keepdims):
    axis = data.draw(axes_of(shape))
    a = np.random.default_rng(1).permutation(np.linspace(-2, 2, int(np.prod(shape)))).reshape(shape)  # no ties
    x = leaf(a)
    out = getattr(tl, name)(x, axis, keepdims)
    expected = np.asarray(REDUCTIONS[name](a, axis=axis, keepdims=keepdims))
    assert out.shape == expected.shape
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(getattr(x, name)(axis=axis, keepdims=keepdims).numpy(), out.numpy())
    g = values(out.shape, 3, -1, 1)
    (gx,) = both_gradients(out, [x], g)
    held = REDUCTIONS[name](a, axis=axis, keepdims=True)
    wide = np.broadcast_to(g.reshape(held.shape), shape)
    n = a.size / max(held.size, 1)
    centred = a - a.mean(axis=axis, keepdims=True)
    partial = {
        "sum": 1,
        "mean": 1 / n,
        "max": a == held,
        "min": a == held,
        "var": 2 * centred / n,
        "std": centred / n / np.where(held == 0, 1, held),
        "logsumexp": np.exp(a - held),
    }[name]
    np.testing.assert_allclose(gx, wide * partial, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@given(data=st.data(), shape=FULL, keepdims=st.booleans())
def test_argmax_and_argmin_find_the_first(name, data, shape, keepdims):
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    a = np.random.default_rng(1).integers(0, 3, shape).astype(np.float32)
    out = getattr(tl, name)(tl.tensor(a), axis, keepdims)
    np.testing.assert_array_equal(out.numpy(), getattr(np, name)(a, axis, keepdims=keepdims))
    assert out.dtype == np.int64


def test_ddof_of_variance_and_deviation():
    a = values((4, 3))
    np.testing.assert_allclose(tl.var(tl.tensor(a), 0, ddof=1).numpy(), a.var(0, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(tl.std(tl.tensor(a), ddof=2).numpy(), a.std(ddof=2), rtol=1e-12)


def test_the_variance_of_a_large_mean_keeps_its_digits():
    a = values(1000) + 1e8
    np.testing.assert_allclose(tl.tensor(a).var().item(), a.var(), rtol=1e-12)


# Shapes


@given(st.data(), SHAPES)
def test_ops_that_move_elements_agree_with_numpy(data, shape):
    a = values(shape)
    x, ndim = leaf(a), len(shape)
    order = data.draw(st.permutations(range(ndim)))
    signed = tuple(i - ndim * data.draw(st.booleans()) for i in order)
    at = data.draw(st.integers(-ndim - 1, ndim))
    start = data.draw(st.integers(0, max(ndim - 1, 0)))
    end = data.draw(st.integers(start, max(ndim - 1, 0)))
    joined = (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :]) if ndim else (1,)
    target = tuple(data.draw(st.permutations(shape)))
    target = data.draw(st.sampled_from([target, (*target, 1), (1, *target), (a.size,), (1, a.size, 1)]))
    ones = tuple(i for i, n in enumerate(shape) if n == 1)
    wide = tuple(data.draw(st.integers(0, 3)) if n == 1 else n for n in shape)
    wide = data.draw(st.sampled_from([wide, (2, *wide), (0, *wide)]))
    cases = [
        (x.permute(*signed) if ndim else x.permute(()), np.transpose(a, order)),
        (x.transpose(signed), np.transpose(a, order)),
        (x.transpose(), a.T),
        (x.T, a.T),
        (x.reshape(target), a.reshape(target)),
        (x.T.reshape([*target]), a.T.reshape(target)),
        (x.unsqueeze(at), np.expand_dims(a, at)),
        (x.squeeze(), a.squeeze()),
        (x.flatten(start, end), a.reshape(joined)),
        (x.broadcast_to(wide), np.broadcast_to(a, wide)),
        *((x.squeeze(i), a.squeeze(i)) for i in ones),
        *((x.transpose(i, -1), np.swapaxes(a, i, -1)) for i in range(ndim)),
    ]
    for out, expected in cases:
        assert out.shape == expected.shape
        np.testing.assert_array_equal(out.numpy(), expected)
        g = values(out.shape, 1, -1, 1)
        (gx,) = both_gradients(out, [x], g)
        # Each op is a linear map of zeros and ones: <op(v), g> = <v, gradient> for any v, here for random v.
        assert np.isclose((out.numpy() * g).sum(), (a * gx).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1), (1, 1, 1, 1)])
def test_one_element_loses_all_its_axes_and_gets_them_back(shape):
    x = leaf(np.full(shape, 3.0))
    for out in (x.squeeze(), x.reshape(()), x.sum()):
        assert out.shape == ()
        (gx,) = both_gradients(out, [x], np.array(2.0))
        np.testing.assert_array_equal(gx, np.full(shape, 2.0))


def test_the_gradient_of_a_permutation_goes_back_by_its_inverse():
    a = values((2, 3, 4, 5))
    x = leaf(a)
    for order, back in (((2, 0, 3, 1), (1, 3, 0, 2)), ((-1, 0, 1, 2), (1, 2, 3, 0))):
        out = x.permute(order)
        g = values(out.shape, 1, -1, 1)
        (gx,) = both_gradients(out, [x], g)
        np.testing.assert_array_equal(gx, g.transpose(back))


@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 2, 3, 4), (1, 2, 3), (2, 1, 1)])
def test_images_with_the_batch_innermost_become_features_that_lie_so_too(shape):
    """So a convolution hands them over; the linear layer behind it is faster for it."""
    a = np.moveaxis(np.arange(np.prod(shape), dtype=float).reshape(*shape[1:], shape[0]), -1, 0)
    innermost = lambda array: array.strides[0] == array.itemsize  # noqa: E731
    x = tl.mul(a, 1.0)
    features = tl.reshape(x, shape[0], -1)
    np.testing.assert_array_equal(features.numpy(), a.copy().reshape(shape[0], -1))
    images = tl.reshape(features, shape)
    np.testing.assert_array_equal(images.numpy(), a)
    if shape[0] > 1:
        assert innermost(features.numpy())
        assert innermost(images.numpy())
    for target in ((-1,), (shape[0] * shape[1], -1), (1, *shape), shape[::-1]):  # anything else is as in NumPy
        np.testing.assert_array_equal(tl.reshape(x, target).numpy(), a.copy().reshape(target))
        np.testing.assert_array_equal(tl.reshape(features, target).numpy(), a.copy().reshape(target))


@given(st.data(), FULL)
def test_a_reshaped_gradient_goes_back_to_its_own_element(data, shape):
    x = leaf(values(shape))
    target = tuple(data.draw(st.permutations(shape)))
    y = x.permute(*range(len(shape))[::-1]).reshape(target)  # of a view that is not contiguous
    g = values(target, 1, -1, 1)
    (gx,) = both_gradients(y, [x], g)
    np.testing.assert_array_equal(gx, g.reshape(shape[::-1]).T)


@given(st.data(), FULL, st.integers(1, 4))
def test_concatenate_and_stack_agree_with_numpy(data, shape, count):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    arrays = []
    for i, n in enumerate(lengths):
        s = list(shape)
        s[axis] = n
        arrays.append(values(s, i))
    parts = [leaf(a) for a in arrays]
    out = tl.concatenate(parts, axis)
    np.testing.assert_array_equal(out.numpy(), np.concatenate(arrays, axis))
    g = values(out.shape, 9, -1, 1)
    for found, expected in zip(both_gradients(out, parts, g), np.split(g, np.cumsum(lengths)[:-1], axis), strict=True):
        np.testing.assert_array_equal(found, expected)
    at = data.draw(st.integers(-len(shape) - 1, len(shape)))
    layers = [leaf(values(shape, i)) for i in range(count)]
    out = tl.stack(layers, at)
    np.testing.assert_array_equal(out.numpy(), np.stack([p.numpy() for p in layers], at))
    g = values(out.shape, 9, -1, 1)
    for i, found in enumerate(both_gradients(out, layers, g)):
        np.testing.assert_array_equal(found, np.take(g, i, at))


@given(st.data(), SHAPES)
def test_pad_agrees_with_numpy_in_all_three_spellings(data, shape):
    widths = [(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in shape]
    a = values(shape)
    x = leaf(a)
    expected = np.pad(a, widths, constant_values=0.5) if shape else a
    flat = [n for pair in widths[::-1] for n in pair]
    for spelled in (widths, flat) if shape else ([],):
        out = tl.pad(x, spelled, value=0.5)
        np.testing.assert_array_equal(out.numpy(), expected)
        g = values(out.shape, 1, -1, 1)
        (gx,) = both_gradients(out, [x], g)
        np.testing.assert_array_equal(gx, g[tuple(slice(b, b + n) for (b, _), n in zip(widths, shape, strict=True))])
    np.testing.assert_array_equal(tl.pad(x, 1).numpy(), np.pad(a, 1) if shape else a)


# PyTorch

UNARY = {
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "exp": "exp",
    "sin": "sin",
    "cos": "cos",
    "abs": "abs",
    "square": "square",
    "sign": "sign",
}
CALLS = {  # the same call in both, with torch's names of arguments
    "leaky_relu": lambda f, x: f.leaky_relu(x, 0.2),
    "elu": lambda f, x: f.elu(x, 1.3),
    "softplus": lambda f, x: f.softplus(x, 2.0, 1.5),
    "softmax": lambda f, x: f.softmax(x, dim=1),
    "log_softmax": lambda f, x: f.log_softmax(x, dim=0),
    "prelu": lambda f, x: f.prelu(x, x[0, :1] * 0 + 0.3),
    "pad": lambda f, x: f.pad(x, (1, 0, 2, 1), value=0.3),
}
METHODS = {
    "sum": lambda x: x.sum(dim=1, keepdim=True),
    "mean": lambda x: x.mean(dim=(0, 1)),
    "logsumexp": lambda x: x.logsumexp(1),
    "pow": lambda x: abs(x) ** 2.5,
    "roots": lambda x: (abs(x) + 0.1).sqrt() / (abs(x) + 0.1).log(),
    "clip": lambda x: x.clip(-0.5, 0.7),
    "transpose": lambda x: x.transpose(0, 1) @ x,
    "flatten": lambda x: x.flatten(0, 1) * x.reshape(-1),
}


def compare(torch, ours, theirs, a):
    x, t = leaf(a), torch.tensor(a, requires_grad=True)
    out, expected = ours(x), theirs(t)
    np.testing.assert_allclose(out.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    if not out.requires_grad:
        return
    g = values(out.shape, 5, -1, 1)
    out.backward(g)
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", [*UNARY, *CALLS, *METHODS])
def test_values_and_gradients_agree_with_pytorch(torch, name, seed):
    a = np.random.default_rng(seed).standard_normal((4, 5)) * 2
    if name in UNARY:
        compare(torch, getattr(tl, name), getattr(torch, name), a)
    elif name in CALLS:
        compare(torch, lambda x: CALLS[name](F, x), lambda x: CALLS[name](torch.nn.functional, x), a)
    else:
        compare(torch, METHODS[name], METHODS[name], a)


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_agree_with_pytorch_also_where_they_tie(torch, name):
    a = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [-1.0, 0.0, 1.0]])
    compare(torch, lambda x: getattr(x, name)(axis=1), lambda x: getattr(x, f"a{name}")(dim=1), a)
    compare(torch, lambda x: getattr(x, name)(), lambda x: getattr(x, f"a{name}")(), a)
    b = np.array([[1.0, 3.0, 0.0]])
    other = {"max": "maximum", "min": "minimum"}[name]
    compare(torch, lambda x: getattr(tl, other)(x, leaf(b)), lambda x: getattr(torch, other)(x, torch.tensor(b)), a)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32"])
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_the_mean_of_any_dtype_is_numpys(dtype, axis):
    x = np.array([[0, 1, 1], [1, 1, 0]], dtype)
    np.testing.assert_allclose(tl.mean(tl.tensor(x), axis).numpy(), x.mean(axis), rtol=1e-3 if "16" in dtype else 1e-6)
    assert tl.mean(tl.tensor(x)).dtype == x.mean().dtype


def test_products_of_matrices_that_do_not_fit_are_named():
    with pytest.raises(tl.ShapeError, match=r"\(2, 3\) @ \(2, 3\).*length 3.*last but one axis of the second 2"):
        tl.zeros(2, 3) @ tl.zeros(2, 3)
    with pytest.raises(tl.ShapeError, match=r"\(2, 3\) @ \(2,\).*only axis of the second 2"):
        tl.zeros(2, 3) @ tl.zeros(2)


# Size: from some number of elements on, memory is recycled, the cores share the work, matrices are cut into tiles

OF_ONE = "abs ceil clone cos cosh erf exp expm1 floor log log10 log1p log2 neg reciprocal round sign sin sinh sqrt"
OF_ONE += (
    " square tan arccos arcsin arctan tanh celu elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish"
)
OF_ONE += " relu relu6 selu sigmoid silu softplus softsign"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OF_ONE.split())
def test_large_tensors_are_computed_as_small_ones(name, dtype):
    function, x, pieces = getattr(tl, name), values(90_000, low=0.05, high=0.95).astype(dtype), 90
    x = x if name in ("log", "log2", "log10", "sqrt", "arccos", "arcsin") else x - dtype(0.4)
    ups = [np.random.default_rng(i).standard_normal(x.shape).astype(dtype) for i in (1, 2)]

    def derivatives(x, g, h):
        x = leaf(x)
        y = function(x)
        if name in ("ceil", "floor", "round", "sign"):
            return [y.numpy()]
        (first,) = tl.grad(y, x, tl.tensor(g), create_graph=True)
        (plain,) = tl.grad(function(x), x, tl.tensor(g))
        second = tl.grad(first, x, tl.tensor(h), allow_unused=True)[0] if first.requires_grad else None
        return [y.numpy(), first.numpy(), plain.numpy(), *([] if second is None else [second.numpy()])]

    whole = derivatives(x, *ups)
    parts = [derivatives(*cut) for cut in zip(*(np.split(a, pieces) for a in (x, *ups)), strict=True)]
    for found, *expected in zip(whole, *parts, strict=True):
        np.testing.assert_allclose(found, np.concatenate(expected), rtol=8 * np.finfo(dtype).eps, atol=1e-7)
    if len(whole) > 1:  # laid out in columns
        square = leaf(x.reshape(300, 300).T)
        (columns,) = tl.grad(function(square), square, tl.tensor(ups[0].reshape(300, 300).T))
        np.testing.assert_allclose(columns.numpy().T.ravel(), whole[1], rtol=8 * np.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("function", [tl.tanh, tl.relu])
def test_the_gradient_of_a_large_tensor_may_be_broadcast(function):
    x = leaf(values((300, 300), low=-1))
    y = function(x)
    (of_sum,) = tl.grad(y.sum(), x, retain_graph=True)  # one number, seen as many
    (of_ones,) = tl.grad(y, x, tl.ones(300, 300))
    np.testing.assert_array_equal(of_sum.numpy(), of_ones.numpy())


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 12), (6, 4), (2, 4, 3, 2), (1, 6, 4), (3, 4, 4)])
def test_reshape_means_the_same_however_the_elements_lie(shape):
    rows = np.arange(np.prod(shape)).reshape(shape)
    for x in (rows, np.moveaxis(np.ascontiguousarray(np.moveaxis(rows, 0, -1)), -1, 0), np.asfortranarray(rows)):
        n = x.size
        targets = [(a, b, n // (a * b)) for a in (1, 2, 3, 4, 6) for b in (1, 2, 3, 4) if n % (a * b) == 0]
        for target in [*targets, *((a * b, c) for a, b, c in targets), *((a, b, c, 1) for a, b, c in targets)]:
            np.testing.assert_array_equal(tl.reshape(tl.Tensor._wrap(x), target).numpy(), rows.reshape(target))


# Large products


@pytest.mark.parametrize("shape", [(70, 9, 65), (3, 100, 7), (129, 33, 1), (40, 1, 50), (8, 2, 260)])
@pytest.mark.parametrize(("name", "value"), [("products._TILE", 300), ("products._TILE", 5000), ("products._DEEP", 8)])
@pytest.mark.parametrize("dtypes", [("f8", "f8"), ("f4", "f8"), ("i8", "i8")])
def test_how_a_matrix_product_is_cut_into_tiles_does_not_matter(shape, name, value, dtypes):
    m, k, n = shape
    x, y = (values(s, low=-9, high=9).astype(dtype) for s, dtype in zip(((m, k), (k, n)), dtypes, strict=True))
    with oracles.small_blocks("products._TILE", 100), oracles.small_blocks(name, value):
        tl.matmul(x * 1.0, y * np.nan)  # NaN in the memory that the next call gets
        found = tl.matmul(x, y)
    assert found.dtype == (x @ y).dtype
    np.testing.assert_allclose(found.numpy(), x @ y, rtol=1e-12, atol=1e-11)
