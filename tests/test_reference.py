"""The fast code gives what the definitions give: values and gradients, for all options and dtypes."""

import inspect
import sys

import numpy as np
import oracles
import pytest
from hypothesis import given
from oracles import close, convolutions, random_like, tracked
from tools.calls import CHECK, calls

import tinygrad_lenet as tl
from tinygrad_lenet import reference

RNG = np.random.default_rng(0)
IMAGES, WEIGHT, BIAS = (RNG.standard_normal(shape) for shape in ((2, 4, 7, 6), (6, 2, 3, 2), (6,)))
OPTIONS = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "groups": 2}
SIZES = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
OUT = RNG.standard_normal(tl.conv2d(IMAGES, WEIGHT, **OPTIONS).shape)
MANY = 3 * RNG.standard_normal((200, 200))  # computed on all cores
LOGITS, CLASSES = 5 * RNG.standard_normal((700, 10)), np.arange(700) % 10
COLUMNS = RNG.standard_normal(tl.unfold(IMAGES, (3, 2), **SIZES).shape)


def input_grad(g, weight, size, **options):
    x = tl.zeros(len(g), weight.shape[1] * options["groups"], *size, dtype=g.dtype, requires_grad=True)
    return tl.grad(tl.conv2d(x, weight, **options), [x], tl.tensor(g))[0]


def weight_grad(x, g, kernel_size, **options):
    shape = (g.shape[1], x.shape[1] // options["groups"], *kernel_size)
    weight = tl.zeros(*shape, dtype=x.dtype, requires_grad=True)
    return tl.grad(tl.conv2d(x, weight, **options), [weight], tl.tensor(g))[0]


def batch_norm(x, weight, bias, eps):
    return tl.batch_norm(x, None, None, weight, bias, True, eps=eps)


def layer_norm(x, weight, bias, eps):
    return tl.layer_norm(x, x.shape[1:], weight, bias, eps)


# For each definition: the fast function, and the arguments of both.
COMPARED = [
    ("conv2d", tl.conv2d, (IMAGES, WEIGHT, BIAS), OPTIONS),
    ("conv2d", tl.conv2d, (IMAGES, WEIGHT), {"groups": 2, "padding": "same", "stride": 2}),
    ("conv2d", tl.conv2d, (IMAGES[:, :2], WEIGHT), {"padding": "valid"}),
    ("conv2d_input_grad", input_grad, (OUT, WEIGHT, (7, 6)), OPTIONS),
    ("conv2d_weight_grad", weight_grad, (IMAGES, OUT, (3, 2)), OPTIONS),
    ("unfold", tl.unfold, (IMAGES, (3, 2)), SIZES),
    ("fold", tl.fold, (COLUMNS, (7, 6), (3, 2)), SIZES),
    ("max_pool2d", tl.max_pool2d, (IMAGES, (3, 2)), {**SIZES, "ceil_mode": True}),
    ("avg_pool2d", tl.avg_pool2d, (IMAGES, (3, 2), (2, 1), (1, 0), True, False), {}),
    ("relu", tl.relu, (IMAGES,), {}),
    ("tanh", tl.tanh, (IMAGES,), {}),
    ("sigmoid", tl.sigmoid, (IMAGES,), {}),
    ("softplus", tl.softplus, (IMAGES,), {"beta": 2.0}),
    ("gelu", tl.gelu, (IMAGES,), {}),
    ("batch_norm", batch_norm, (IMAGES, BIAS[:4], BIAS[2:], 1e-3), {}),
    ("layer_norm", layer_norm, (LOGITS, LOGITS[0], LOGITS[1], 1e-3), {}),
    ("cross_entropy", tl.cross_entropy, (LOGITS, CLASSES), {}),
    *[(name, getattr(tl, name), (MANY,), {}) for name in ("relu", "tanh", "sigmoid", "softplus", "gelu")],
]


@pytest.mark.parametrize(("name", "fast", "args", "options"), COMPARED)
def test_the_fast_code_gives_what_the_definition_gives(name, fast, args, options):
    close(fast(*args, **options), getattr(reference, name)(*args, **options))


@pytest.mark.parametrize("name", reference.__all__)
def test_every_definition_is_compared_documented_and_named_in_the_help_of_its_op(name):
    assert name in {compared for compared, *_ in COMPARED}
    assert "reference." in getattr(reference, name).__doc__.split(">>>", 1)[1]
    op = getattr(tl, name, None) or getattr(sys.modules[getattr(reference, name).__module__], name)
    assert f":func:`tinygrad_lenet.reference.{name}`" in inspect.getdoc(op)


def without_groups(options):
    return {key: value for key, value in options.items() if key != "groups"}


# Convolution


@given(convolutions())
def test_conv2d_and_its_gradients_are_as_defined(case):
    x, weight, bias = tracked(*case[:3])
    out = tl.conv2d(x, weight, bias, **case.options)
    close(out, reference.conv2d(case.x, case.weight, case.bias, **case.options))
    g = random_like(out)
    for_x, for_weight = tl.grad(out, [x, weight], tl.tensor(g))
    close(for_x, reference.conv2d_input_grad(g, case.weight, case.x.shape[2:], **case.options))
    close(for_weight, reference.conv2d_weight_grad(case.x, g, case.weight.shape[2:], **case.options))


@given(convolutions())
def test_unfold_and_fold_are_as_defined(case):
    size, kernel, options = case.x.shape[2:], case.weight.shape[2:], without_groups(case.options)
    columns = tl.unfold(case.x, kernel, **options)
    np.testing.assert_array_equal(columns.numpy(), reference.unfold(case.x, kernel, **options))
    y = random_like(columns)
    close(tl.fold(y, size, kernel, **options), reference.fold(y, size, kernel, **options))


@given(convolutions())
def test_a_convolution_is_the_product_of_the_weight_with_unfolded_images(case):
    if case.options["groups"] == 1:
        columns = reference.unfold(case.x, case.weight.shape[2:], **without_groups(case.options))
        out = reference.conv2d(case.x, case.weight, **case.options)
        rows = case.weight.reshape(len(case.weight), columns.shape[1])
        close((rows @ columns).reshape(out.shape), out)


@pytest.mark.parametrize(("dtype", "tolerance"), [("f2", 2e-2), ("f4", 1e-5), ("f8", 1e-12), ("i8", 0)])
@pytest.mark.parametrize("groups", [1, 2])
def test_every_dtype_is_as_defined(dtype, tolerance, groups):
    rng = np.random.default_rng(0)
    x, weight = (rng.integers(-9, 9, shape).astype(dtype) for shape in ((3, 4, 9, 8), (6, 4 // groups, 3, 2)))
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": groups}
    out = tl.conv2d(x, weight, **options)
    assert out.dtype == dtype
    wide = [a.astype("f8") for a in (x, weight)]
    np.testing.assert_allclose(out.numpy(), reference.conv2d(*wide, **options), rtol=tolerance)
    if dtype != "i8":
        x, weight = tracked(x, weight)
        g = rng.integers(-9, 9, out.shape).astype(dtype)
        for_x, for_weight = tl.grad(tl.conv2d(x, weight, **options), [x, weight], tl.tensor(g))
        assert for_x.dtype == for_weight.dtype == dtype
        expected = reference.conv2d_input_grad(g.astype("f8"), wide[1], (9, 8), **options)
        np.testing.assert_allclose(for_x.numpy(), expected, rtol=tolerance)
        expected = reference.conv2d_weight_grad(wide[0], g.astype("f8"), (3, 2), **options)
        np.testing.assert_allclose(for_weight.numpy(), expected, rtol=tolerance)


def test_a_large_convolution_is_as_defined_in_many_blocks_and_on_many_threads():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((7, 4, 20, 19)), rng.standard_normal((6, 2, 3, 4)), rng.standard_normal(6)
    options = {"stride": (1, 2), "padding": "same", "dilation": (2, 1), "groups": 2}
    with oracles.small_blocks("convolution._RUN", 3):
        tensors = tracked(x, weight)
        out = tl.conv2d(*tensors, bias, **options)
        g = random_like(out)
        for_x, for_weight = tl.grad(out, tensors, tl.tensor(g))
    close(out, reference.conv2d(x, weight, bias, **options))
    close(for_x, reference.conv2d_input_grad(g, weight, (20, 19), **options))
    close(for_weight, reference.conv2d_weight_grad(x, g, (3, 4), **options))


def test_a_convolution_calls_few_functions_and_checks_a_known_geometry_no_more():
    found = calls()
    assert found[CHECK] == found["ops/windows.py", "windows"] == 0
    assert sum(found.values()) <= 110
