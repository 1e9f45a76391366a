"""Kernels against plain NumPy, also beyond the sizes, dtypes and shapes for which they are fast."""

import numpy as np
import oracles
import pytest

from tinygrad_lenet.kernels import convolution, elementwise, masks, matmul, pooling, softmax, sums
from tinygrad_lenet.kernels.steps import computed, run
from tinygrad_lenet.ops.windows import windows

RNG = np.random.default_rng(0)


def numbers(shape, dtype):
    """Random numbers, and the special ones that the dtype has."""
    x = np.array(4 * RNG.standard_normal(shape)).astype(dtype)
    special = [0.0, -0.0, np.nan, np.inf, -np.inf] if x.dtype.kind == "f" else [0]
    x.reshape(-1)[: len(special)] = special
    return x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


PLAIN = {
    "relu": lambda x: np.maximum(x, 0),
    "where_positive": lambda g, y: np.where(y <= 0, 0, g),
    "tanh": np.tanh,
    "tanh_grad": lambda g, y: g * (1 - y * y),
    "sigmoid": sigmoid,
    "sigmoid_grad": lambda g, x: g * sigmoid(x) * sigmoid(-x),
}
SIZES = [(3, 4), (200, 300)]
DTYPES = [np.float16, np.float32, np.float64, np.int64]


def compare(name, *arrays):
    """Run a kernel and the plain function, in float64."""
    with np.errstate(all="ignore"):  # as ops have it
        found = getattr(elementwise, name)(*arrays)
        expected = PLAIN[name](*(array.astype(np.float64) for array in arrays))
    precision = max(np.finfo(a.dtype).eps if a.dtype.kind == "f" else 0 for a in (found, *arrays))
    np.testing.assert_allclose(found.astype(np.float64), expected, 8 * precision, 16 * precision)
    assert found.shape == expected.shape
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid"])
def test_functions_are_those_of_numpy(name, shape, dtype):
    x = numbers(shape, dtype)
    assert compare(name, x).dtype == (dtype if name == "relu" else np.tanh(x).dtype)


@pytest.mark.parametrize("dtypes", [(np.float32, np.float32), (np.float32, np.float64), (np.float64, np.float32)])
@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("name", ["where_positive", "tanh_grad", "sigmoid_grad"])
def test_gradients_are_those_of_numpy_for_every_pair_of_dtypes(name, shape, dtypes):
    g, y = (numbers(shape, dtype) for dtype in dtypes)
    compare(name, g[::-1, ::-1], np.tanh(y) if name == "tanh_grad" else y)


@pytest.mark.parametrize("name", ["where_positive", "tanh_grad"])
def test_gradients_broadcast(name):
    y = np.tanh(numbers((200, 300), np.float32))
    compare(name, np.full((1, 300), 2, np.float32), y)
    compare(name, np.full((2, 200, 300), 2, np.float32), y)


# Sums


@pytest.mark.parametrize("run", [2, 3, 64])
@pytest.mark.parametrize("shape", [(5,), (300, 3), (7, 70, 5), (1000, 13)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_sums_are_those_of_numpy_for_every_layout_and_axis(monkeypatch, shape, dtype, run):
    monkeypatch.setattr(sums, "_RUN", run)
    x = RNG.integers(-2, 3, shape).astype(dtype)
    gaps = np.zeros([2 * n for n in shape], dtype)[(slice(None, None, 2),) * len(shape)]
    gaps[...] = x
    for lying in (x, np.asfortranarray(x), gaps, np.flip(np.flip(x).copy())):
        for axes in {(0,), (x.ndim - 1,), (*range(x.ndim),), (), (*range(1, x.ndim),)}:
            for keepdims in (False, True):
                for wide in (None, np.float32, np.float64):
                    found = np.asarray(sums.added(lying, axes, wide, keepdims))
                    expected = np.asarray(np.add.reduce(x, axes, wide, keepdims=keepdims))
                    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("shape", [(1 << 18, 3), (1 << 18,), (3, 1 << 18), (512, 512, 3), (3, 512, 512)])
def test_long_sums_of_float32_keep_their_digits_along_every_axis(shape):
    x = RNG.random(shape, np.float32)
    axes = tuple(axis for axis, n in enumerate(shape) if n > 3)
    for lying in (x, np.asfortranarray(x)):
        np.testing.assert_allclose(sums.added(lying, axes), x.sum(axes, np.float64), rtol=5e-7)


@pytest.mark.parametrize("axes", [(0,), (0, 1)])
def test_sums_of_float16_are_rounded_once(axes):
    x = np.full((5000, 4), 0.1, np.float16)
    expected = np.asarray(x.sum(axes, np.float64)).astype(np.float16)
    found = sums.added(x, axes)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, expected, strict=True)


def test_only_float16_is_widened():
    for dtype, wide in ((np.float16, np.float32), (np.float32, np.float32), (np.int64, np.int64)):
        x = np.ones(3, dtype)
        assert sums.single(x).dtype == wide
        assert (sums.single(x) is x) == (dtype == wide)


def test_scalars_become_arrays_and_arrays_stay():
    x = np.ones(3)
    assert type(sums.as_array(x[0])) is np.ndarray
    assert sums.as_array(x) is x


# Masks


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("when", [True, False])
def test_a_mask_keeps_or_clears_elements_even_if_they_are_not_finite(dtype, when):
    x = numbers((4, 6), dtype)
    for mask in (RNG.random((4, 6)) < 0.5, RNG.random(6) < 0.5, np.asfortranarray(RNG.random((4, 6)) < 0.5)):
        expected = np.where(mask == when, x, np.zeros((), dtype))
        np.testing.assert_array_equal(masks.mask_bits(x, mask, when), expected, strict=True)


# Products


@pytest.mark.parametrize("tile", [1, 64, 1000, 262_144])
@pytest.mark.parametrize("deep", [4, 8, 1024])
@pytest.mark.parametrize(
    "shape", [(5, 7, 6), (70, 1, 9), (1, 30, 1), (33, 20, 70), (130, 9, 200), (4, 2, 5), (0, 3, 4), (3, 0, 4)]
)
def test_products_are_those_of_numpy_however_they_are_cut(shape, tile, deep):
    (m, k, n), wide = shape, min(deep, 64)
    with oracles.small_blocks("matmul._TILE", tile), pytest.MonkeyPatch.context() as patch:
        patch.setattr(matmul, "_DEEP", deep)
        patch.setattr(matmul, "_WIDE", wide)
        for dtypes in ((np.float32,) * 2, (np.float16,) * 2, (np.int64,) * 2, (np.float32, np.float64)):
            a, b = (
                RNG.integers(-3, 4, size).astype(dtype) for size, dtype in zip(((m, k), (k, n)), dtypes, strict=True)
            )
            for left, right in ((a, b), (np.asfortranarray(a), b), (a[::-1], np.asfortranarray(b))):
                np.testing.assert_array_equal(matmul.dot(left, right), left @ right, strict=True)
        stack = RNG.integers(-3, 4, (2, 3, m, k)).astype(np.float32)
        b = RNG.integers(-3, 4, (3, k, n)).astype(np.float32)
        out = np.full((2, 3, m, n), np.nan, np.float32)
        run(matmul.product(stack, b, out, np.empty))
        np.testing.assert_array_equal(out, stack @ b)
    oracles.forget_geometry()


def test_products_of_float16_are_rounded_once():
    a, b = np.full((2, 5000), 0.1, np.float16), np.full((5000, 3), 0.1, np.float16)
    expected = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float16)
    np.testing.assert_array_equal(matmul.dot(a, b), expected, strict=True)


# Cross-entropy


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(6, 4), (1, 1), (0, 3), (0, 0)])
def test_cross_entropy_and_its_gradient_are_what_their_definitions_say(shape, dtype, order):
    x = np.array(8 * RNG.standard_normal(shape), dtype, order=order)
    index = RNG.integers(0, max(1, shape[1]), shape[0])
    precision = np.finfo(dtype if dtype != np.int64 else np.float64).eps
    rows, wide = np.arange(shape[0]), x.astype(np.longdouble)
    out = np.full(shape[0], np.nan, np.float64 if dtype == np.int64 else dtype)
    computed(softmax.nll_steps, out, x, index, None)
    probabilities = np.exp(wide) / np.exp(wide).sum(1, keepdims=True)
    np.testing.assert_allclose(out, -np.log(probabilities[rows, index]), 4 * precision, 4 * precision)
    if dtype in (np.float32, np.float64):
        expected = probabilities.copy()
        expected[rows, index] -= 1
        for g in (RNG.standard_normal(shape[0]).astype(dtype), np.array(3, dtype)):
            found = computed(softmax.nll_grad_steps, np.full_like(x, np.nan), g, x, index, None)
            np.testing.assert_allclose(found, expected * g.reshape(-1, 1), 0, 16 * precision)


def test_a_loss_is_finite_for_large_logits():
    x, out = np.array([[1e4, -1e4], [-1e4, 1e4]]), np.empty(2)
    computed(softmax.nll_steps, out, x, np.array([0, 0]), None)
    np.testing.assert_array_equal(out, [0, 2e4])


def test_a_loss_near_zero_and_its_gradient_keep_their_digits():
    x, index, out = np.array([[0.0, 60.0, 1.0]], np.float32), np.array([1]), np.empty(1, np.float32)
    expected = np.exp(-60.0) + np.exp(-59.0)
    computed(softmax.nll_steps, out, x, index, None)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    given = computed(softmax.nll_grad_steps, np.empty_like(x), np.array(2, np.float32), x, index, None)
    np.testing.assert_allclose(given, [[2 * np.exp(-60.0), -2 * expected, 2 * np.exp(-59.0)]], rtol=1e-6)


# Convolution and pooling


@pytest.mark.parametrize("bias", [None, np.arange(2, dtype=np.float16)])
def test_convolutions_of_float16_are_rounded_once(bias):
    at = convolution.Geometry(windows((5, 6), 3, 1, 1, 1), 1)
    x, weight = RNG.standard_normal((2, 40, 5, 6)).astype(np.float16), np.ones((2, 40, 3, 3), np.float16) / 3
    g = RNG.standard_normal((2, 2, 5, 6)).astype(np.float16)
    calls = (convolution.conv2d, x, weight, bias), (convolution.input_grad, g, weight), (convolution.weight_grad, x, g)
    for function, *arrays in calls:
        found = function(*arrays, at)
        wide = function(*(a if a is None else a.astype(np.float64) for a in arrays), at)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, wide, rtol=np.finfo(np.float16).eps / 2 * 1.01, atol=1e-5)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "apart"),
    [(1, 1, 1, True), (2, 2, 1, True), (2, 3, 2, True), (2, 1, 1, False), (2, 2, 2, False), (3, 2, 1, False)],
)
def test_blocks_of_rows_share_no_pixels(kernel, stride, dilation, apart, parts):
    at = windows((40, 3), (kernel, 1), (stride, 1), 0, (dilation, 1))._replace(grid=(12, 3))
    found = pooling.blocks(at, parts)
    assert [row for block in found for row in range(12)[block.rows]] == [*range(12)]
    pixels = [{pixel for place in block.places for pixel in range(40)[place[1]]} for block in found]
    assert sum(map(len, pixels)) == len(set.union(*pixels))
    assert len(found) == ({1: 1, 2: 2, 3: 4, 4: 4}[parts] if apart else 1)  # an even number, for two threads


def test_a_window_with_a_nan_picks_nothing():
    x, g = np.array([[[[np.nan, 2.0, 3.0, 4.0]]]]), np.array([[[[5.0, 6.0, 7.0, 8.0]]]])
    at = windows((1, 4), (1, 2), (1, 2), 0, 1)
    np.testing.assert_array_equal(pooling.repool(g, x, pooling.max_pool2d(x, at), at), [[[[0, 8]]]])


@pytest.mark.parametrize("padding", [0, 1])
def test_gradients_of_float16_are_rounded_once(padding):
    at = windows((5, 6), 3, 1, padding, 1)
    g = np.random.default_rng(0).standard_normal((2, 3, *at.grid)).astype(np.float16)
    x = np.zeros((2, 3, 5, 6), np.float16)
    x[:, :, 2, 3] = 1  # most windows have their maximum there
    averages, peak = pooling.Averages(at, False, None), pooling.max_pool2d(x, at)
    pairs = (pooling.unpool, (g, x, peak, at)), (pooling.avg_unpool, (g, averages))
    for function, (first, *rest) in pairs:
        wide = function(first.astype(np.float64), *rest)
        found = function(first, *rest)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, wide, rtol=np.finfo(np.float16).eps / 2 * 1.01, atol=1e-7)
