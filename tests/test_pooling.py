from typing import NamedTuple

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judges import judge
from oracles import KERNELS, both, close, one_or_two, random_like, tracked, twice

import tinygrad_lenet as tl
from tinygrad_lenet import reference
from tinygrad_lenet.errors import ArgumentError, ShapeError
from tinygrad_lenet.testing import gradcheck


class Case(NamedTuple):
    """Images of small integers, full of ties; the arguments as a user writes them, and spelled out for the oracles."""

    x: np.ndarray
    options: dict
    exact: dict


def make(shape, kernel, stride=None, padding=0, dilation=1, ceil_mode=False, seed=0):
    steps = both(kernel if stride is None else stride)
    if padding == "same":
        pads = oracles.same_padding(shape[2:], both(kernel), steps, both(dilation))
    else:
        pads = tuple(both(p) for p in both(0 if padding == "valid" else padding))
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    exact = {"kernel": both(kernel), "stride": steps, "padding": pads, "ceil_mode": ceil_mode}
    if both(dilation) != (1, 1):
        options["dilation"] = dilation
        exact["dilation"] = both(dilation)
    return Case(np.random.default_rng(seed).integers(-2, 3, shape).astype(float), options, exact)


@st.composite
def cases(draw, largest_dilation=1, smallest_batch=0, symmetric=False):
    kernel = draw(st.sampled_from(KERNELS))
    shape, seed = (draw(st.integers(smallest_batch, 3)), draw(st.integers(1, 3))), draw(st.integers(0, 99))
    if draw(st.integers(0, 3)) == 0:  # windows that cover each pixel once are computed differently
        return make((*shape, *(k * draw(st.integers(1, 3)) for k in kernel)), kernel, seed=seed)
    stride, dilation = draw(st.none() | one_or_two(1, 4)), draw(one_or_two(1, largest_dilation))
    halves = [st.integers(0, k // 2) for k in kernel]
    paddings = st.tuples(*halves)
    if not symmetric:
        paddings |= st.tuples(*(st.tuples(half, half) for half in halves))
        if largest_dilation == 1:
            paddings |= st.sampled_from(["same", "valid"])
    padding = draw(paddings)
    pads = [(0, 0), (0, 0)] if isinstance(padding, str) else [both(p) for p in padding]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, both(dilation), strict=True)]
    least = [max(d, r - sum(p)) for d, r, p in zip(both(dilation), reach, pads, strict=True)]
    size = [n + draw(st.integers(0, 5)) for n in least]
    return make((*shape, *size), kernel, stride, padding, dilation, draw(st.booleans()), seed)


averages = st.fixed_dictionaries(
    {"count_include_pad": st.booleans(), "divisor_override": st.none() | st.sampled_from([1, 3, 7])}
)


def pulled(function, x, g=None, **options):
    """The output, and the gradient for an upstream gradient of unequal values."""
    (x,) = tracked(x)
    out = function(x, **options)
    g = np.random.default_rng(1).integers(1, 50, out.shape) if g is None else g
    return out.detach(), tl.grad(out, x, tl.tensor(g.astype(out.dtype)))[0], g


# Against loops


@given(cases(3))
def test_max_pool2d_and_its_gradient_equal_the_loops(case):
    out, grad, g = pulled(tl.max_pool2d, case.x, **case.options)
    arguments = {"dilation": (1, 1), **case.exact}
    geometry = [arguments[k] for k in ("kernel", "stride", "padding", "dilation", "ceil_mode")]
    close(out, oracles.max_pool2d(case.x, *geometry), 0)
    close(grad, oracles.max_pool2d_gradient(g, case.x, *geometry), 0)
    assert grad.numpy().sum() == g.sum()  # whatever the ties, all of it arrives


@given(cases(), averages)
def test_avg_pool2d_and_its_gradient_equal_the_loops(case, average):
    out, grad, g = pulled(tl.avg_pool2d, case.x, **case.options, **average)
    close(out, oracles.avg_pool2d(case.x, **case.exact, **average))
    close(grad, oracles.avg_pool2d_gradient(g, case.x.shape[2:], **case.exact, **average))
    close((grad.numpy() * case.x).sum(), (g * out.numpy()).sum())  # it is linear: its gradient is its adjoint


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("divisor_override", [None, 5])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("padding", [0, 1, (1, 0), ((0, 1), (1, 0))])
def test_what_a_mean_counts(padding, ceil_mode, divisor_override, count_include_pad):
    case = make((2, 2, 6, 7), (2, 3), (2, 2), padding, ceil_mode=ceil_mode)
    average = {"count_include_pad": count_include_pad, "divisor_override": divisor_override}
    out, grad, g = pulled(tl.avg_pool2d, case.x, **case.options, **average)
    close(out, oracles.avg_pool2d(case.x, **case.exact, **average))
    close(grad, oracles.avg_pool2d_gradient(g, case.x.shape[2:], **case.exact, **average))


def test_windows_as_many_as_tiles_but_dilated_are_no_tiling():
    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8))
    out, grad, g = pulled(tl.max_pool2d, x, kernel_size=4, stride=1, dilation=2)
    geometry = ((4, 4), (1, 1), ((0, 0), (0, 0)), (2, 2))
    close(out, oracles.max_pool2d(x, *geometry))
    close(grad, oracles.max_pool2d_gradient(g, x, *geometry))


@pytest.mark.parametrize("kernel", [(4, 3), (2, 6), (8, 12)])
def test_large_windows_that_tile_the_image_equal_the_loops(kernel):
    x = np.random.default_rng(0).integers(-3, 4, (2, 3, 8, 12)).astype(np.float64)
    out, grad, g = pulled(tl.avg_pool2d, x, kernel_size=kernel)
    close(out, oracles.avg_pool2d(x, kernel, kernel, ((0, 0), (0, 0))))
    close(grad, oracles.avg_pool2d_gradient(g, x.shape[2:], kernel, kernel, ((0, 0), (0, 0))))
    out, grad, g = pulled(tl.max_pool2d, x, kernel_size=kernel)
    close(out, oracles.max_pool2d(x, kernel, kernel, ((0, 0), (0, 0)), (1, 1)), 0)
    close(grad, oracles.max_pool2d_gradient(g, x, kernel, kernel, ((0, 0), (0, 0)), (1, 1)), 0)


# Against the definitions


@given(cases(3), averages)
def test_pooling_is_as_defined(case, average):
    close(tl.max_pool2d(case.x, **case.options), reference.max_pool2d(case.x, **case.options), 0)
    options = {key: value for key, value in case.options.items() if key != "dilation"}
    if options == case.options:
        close(tl.avg_pool2d(case.x, **options, **average), reference.avg_pool2d(case.x, **options, **average))


DEFINED = [
    {"kernel_size": 2},
    {"kernel_size": (4, 6)},
    {"kernel_size": (3, 2), "stride": (2, 1)},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": (2, 3), "stride": 1, "padding": "same"},
    {"kernel_size": (3, 2), "stride": 2, "padding": ((1, 0), (0, 1)), "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
]
DILATED = [
    {"kernel_size": (3, 2), "dilation": (1, 2)},
    {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": (2, 1)},
    {"kernel_size": (2, 3), "stride": (2, 3), "padding": (0, 1), "dilation": (3, 2), "ceil_mode": True},
]


def quotients(defined, x, g, **options):
    """The gradient of ``sum(g * defined(x))``: how it grows with each pixel, all images at once."""
    slopes = np.zeros(x.shape)
    for y, z in np.ndindex(x.shape[2:]):
        more = x.copy()
        more[:, :, y, z] += 0.5
        slopes[:, :, y, z] = ((defined(more, **options) - defined(x, **options)) * g).sum((2, 3)) / 0.5
    return slopes


@pytest.mark.parametrize("options", [*DEFINED, *DILATED])
def test_the_gradient_of_max_pooling_is_that_of_the_definition(options):
    x = np.random.default_rng(0).permutation(2 * 3 * 4 * 6).reshape(2, 3, 4, 6).astype(float)  # no ties
    _, grad, g = pulled(tl.max_pool2d, x, **options)
    close(grad, quotients(reference.max_pool2d, x, g, **options))


@pytest.mark.parametrize("average", [{}, {"count_include_pad": False}, {"divisor_override": 3}])
@pytest.mark.parametrize("options", DEFINED)
def test_the_gradient_of_average_pooling_is_that_of_the_definition(options, average):
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 6))
    _, grad, g = pulled(tl.avg_pool2d, x, **options, **average)
    close(grad, quotients(reference.avg_pool2d, x, g, **options, **average), 1e-9)


# Against PyTorch, which has symmetric padding only, and refuses an empty batch in places


@given(cases(3, smallest_batch=1, symmetric=True))
def test_max_pooling_and_gradients_of_both_orders_agree_with_pytorch(torch, case):
    agree_twice(torch, tl.max_pool2d, torch.nn.functional.max_pool2d, case.x, case.options)


@given(cases(smallest_batch=1, symmetric=True), averages)
def test_average_pooling_and_gradients_of_both_orders_agree_with_pytorch(torch, case, average):
    agree_twice(torch, tl.avg_pool2d, torch.nn.functional.avg_pool2d, case.x, case.options | average)


def agree_twice(torch, ours, theirs, image, options):
    (x,), other = tracked(image), torch.tensor(image, requires_grad=True)
    out, expected = ours(x, **options), theirs(other, **options)
    close(out, expected.detach())
    g, seed = random_like(out), random_like(x, 2)
    found = twice(tl.grad, out, [x], tl.tensor(g, requires_grad=True), [tl.tensor(seed)])
    wanted = twice(torch.autograd.grad, expected, [other], torch.tensor(g, requires_grad=True), [torch.tensor(seed)])
    for mine, theirs in zip(found, wanted, strict=True):
        close(mine, theirs.detach())


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_ceil_mode_counts_windows_as_pytorch_does(torch, name):
    for size in range(1, 9):
        for kernel, stride, padding in ((1, 3, 0), (2, 1, 1), (2, 3, 1), (3, 2, 0), (3, 2, 1), (3, 5, 1), (4, 3, 2)):
            if size + 2 * padding >= kernel:
                image = np.random.default_rng(size).standard_normal((1, 1, size, 9))
                options = {
                    "kernel_size": (kernel, 2),
                    "stride": (stride, 2),
                    "padding": (padding, 1),
                    "ceil_mode": True,
                }
                expected = getattr(torch.nn.functional, name)(torch.tensor(image), **options)
                close(getattr(tl, name)(image, **options), expected)


def test_with_ceil_mode_the_first_window_may_hang_over_the_end_as_in_pytorch(torch):
    image, options = np.arange(1.0, 7.0).reshape(1, 1, 2, 3), {"kernel_size": (3, 2), "stride": 2, "ceil_mode": True}
    for name in ("max_pool2d", "avg_pool2d"):
        expected = getattr(torch.nn.functional, name)(torch.tensor(image), **options)
        close(getattr(tl, name)(image, **options), expected)


@given(cases(), averages)
def test_how_rows_are_shared_among_threads_does_not_matter(case, average):
    for function, options in (tl.max_pool2d, {}), (tl.avg_pool2d, average):
        out, grad, g = pulled(function, case.x, **case.options, **options)
        with oracles.small_blocks("pooling._ROOM", 200):
            again, same, _ = pulled(function, case.x, g, **case.options, **options)
        np.testing.assert_array_equal(again.numpy(), out.numpy())
        np.testing.assert_array_equal(same.numpy(), grad.numpy())


# By hand


def test_kernel_height_and_width_are_not_swapped():
    image, g = np.array([[[[1.0, 5.0, 3.0, 4.0], [8.0, 2.0, 6.0, 0.0]]]]), np.array([[[[1.0, 10.0]]]])
    out, grad, _ = pulled(tl.max_pool2d, image, g, kernel_size=(2, 1), stride=(1, 2))
    np.testing.assert_array_equal(out, [[[[8, 6]]]])
    np.testing.assert_array_equal(grad, [[[[0, 0, 0, 0], [1, 0, 10, 0]]]])
    out, grad, _ = pulled(tl.avg_pool2d, image, g, kernel_size=(2, 1), stride=(1, 2))
    np.testing.assert_array_equal(out, [[[[4.5, 4.5]]]])
    np.testing.assert_array_equal(grad, [[[[0.5, 0, 5, 0], [0.5, 0, 5, 0]]]])


def test_of_equal_maxima_the_first_by_rows_gets_the_whole_gradient():
    image = np.array([[[[0.0, 7.0, 1.0], [7.0, 7.0, 1.0]]]])
    _, grad, _ = pulled(tl.max_pool2d, image, np.array([[[[3.0, 5.0]]]]), kernel_size=2, stride=1)
    np.testing.assert_array_equal(grad, [[[[0, 8, 0], [0, 0, 0]]]])
    signed = np.array([[[[-0.0, 0.0]]]])
    np.testing.assert_array_equal(pulled(tl.max_pool2d, signed, kernel_size=(1, 2))[1] > 0, [[[[True, False]]]])


def test_max_pooling_pads_with_minus_infinity():
    image = np.full((2, 1, 3, 4), -1.0)
    for padding in (1, (0, 1), ((1, 0), (0, 1)), "same"):
        out, grad, g = pulled(tl.max_pool2d, image, kernel_size=(2, 3), stride=1, padding=padding)
        assert (out.numpy() == -1).all()
        assert grad.numpy().sum() == g.sum()
    for lowest in (np.int8, np.int64):
        assert (tl.max_pool2d(image.astype(lowest), 3, 1, 1).numpy() == -1).all()


@pytest.mark.parametrize("padding", [0, 1, ((1, 0), (0, 1))])
def test_pixels_of_minus_infinity_get_the_gradient_and_not_the_padding(padding):
    out, grad, g = pulled(tl.max_pool2d, np.full((1, 1, 3, 4), -np.inf), kernel_size=(2, 3), stride=1, padding=padding)
    assert (out.numpy() == -np.inf).all()
    assert grad.numpy().sum() == g.sum()


@pytest.mark.parametrize("tiling", [True, False])
def test_a_nan_makes_its_windows_nan_and_no_others(tiling):
    options = {"kernel_size": (2, 3)} if tiling else {"kernel_size": (2, 3), "stride": 1, "padding": (1, 0)}
    geometry = ((2, 3), (2, 3) if tiling else (1, 1), ((0, 0), (0, 0)) if tiling else ((1, 1), (0, 0)), (1, 1))
    for n, c, y, z in np.ndindex(1, 2, 4, 6):
        image = np.random.default_rng(0).standard_normal((1, 2, 4, 6))
        image[n, c, y, z] = np.nan
        out, grad, g = pulled(tl.max_pool2d, image, **options)
        np.testing.assert_array_equal(out, oracles.max_pool2d(image, *geometry))
        np.testing.assert_array_equal(grad, oracles.max_pool2d_gradient(g, image, *geometry))
        assert np.isnan(out.numpy()).any()
        sees = np.isnan(tl.avg_pool2d(image, **options).numpy())
        np.testing.assert_array_equal(np.isnan(out.numpy()), sees)


# Gradients


@pytest.mark.parametrize("function", [tl.max_pool2d, tl.avg_pool2d])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (2, 3)},
        {"kernel_size": (3, 2), "stride": (1, 2), "padding": ((0, 1), (1, 0))},
        {"kernel_size": (2, 3), "stride": (3, 2), "padding": (1, 0), "ceil_mode": True},
    ],
)
def test_gradients_of_both_orders_agree_with_differences(function, options):
    distinct = np.random.default_rng(0).permutation(48).reshape(2, 1, 4, 6) / 10
    assert gradcheck(lambda x: function(x, **options), [distinct], order=2)
    assert gradcheck(lambda x: function(x, **options) ** 2, [distinct], order=2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("function", [tl.max_pool2d, tl.avg_pool2d])
@pytest.mark.parametrize(
    "case",
    [make((3, 2, 4, 8), (2, 4)), make((3, 2, 5, 8), (2, 4), (1, 2), (1, 2)), make((3, 2, 5, 8), (2, 4), 3, 1, 1, True)],
    ids=["tiling", "overlapping", "hanging over"],
)
def test_floats_of_every_size_keep_it_and_agree_where_numbers_are_exact(function, case, dtype):
    out, grad, g = pulled(function, case.x.astype(dtype), **case.options)
    expected, wanted, _ = pulled(function, case.x, g, **case.options)
    assert (out.dtype, grad.dtype) == (dtype, dtype)
    close(out.numpy().astype(float), expected.numpy(), 4 * np.finfo(dtype).eps)
    close(grad.numpy().astype(float), wanted.numpy(), 0 if function is tl.max_pool2d else 8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int8, np.int64])
def test_integers_and_booleans_pool_too(dtype):
    image = np.random.default_rng(0).integers(0, 2, (2, 3, 5, 4)).astype(dtype)
    geometry = (3, 2), (2, 1), ((1, 1), (1, 1))
    largest, mean = tl.max_pool2d(image, (3, 2), (2, 1), 1), tl.avg_pool2d(image, (3, 2), (2, 1), 1)
    assert (largest.dtype, mean.dtype) == (dtype, np.float32)
    np.testing.assert_array_equal(largest, oracles.max_pool2d(image.astype(float), *geometry))
    close(mean, oracles.avg_pool2d(image.astype(float), *geometry), 1e-6)


@pytest.mark.parametrize("function", [tl.max_pool2d, tl.avg_pool2d])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (3, 1, 5, 7), (1, 1, 2, 3), (2, 5, 32, 36)])
@pytest.mark.parametrize("options", [{"kernel_size": (2, 3)}, {"kernel_size": (2, 3), "stride": (2, 1), "padding": 1}])
def test_memory_layout_does_not_matter_and_nothing_given_is_written_to(function, shape, options):
    image = np.random.default_rng(0).integers(-2, 3, shape).astype(float)
    expected, wanted, g = pulled(function, image, **options)
    for arrays in zip(oracles.layouts(image), oracles.layouts(g.astype(float)), strict=True):
        copies = [a.copy() for a in arrays]
        for array in arrays:
            array.flags.writeable = False
        x = tl.Tensor._wrap(arrays[0])  # the constructor would copy the layout away
        x.requires_grad = True
        out = function(x, **options)
        out.backward(arrays[1])
        close(out, expected.numpy())
        close(x.grad, wanted.numpy())
        for array, copy in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("function", [tl.max_pool2d, tl.avg_pool2d])
@pytest.mark.parametrize("options", [{"kernel_size": (2, 3)}, {"kernel_size": 3, "stride": 2, "padding": 1}])
def test_a_sum_seeds_with_one_repeated_element(function, options):
    (x,) = tracked(np.random.default_rng(0).standard_normal((2, 2, 4, 6)))
    out = function(x, **options)
    (expected,) = tl.grad(out, x, tl.ones(*out.shape).astype(np.float64), retain_graph=True)
    out.sum().backward()
    close(x.grad, expected.numpy())


# Errors


IMAGES = np.ones((1, 2, 5, 6))


@pytest.mark.parametrize("function", [tl.max_pool2d, tl.avg_pool2d], ids=["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize(
    ("error", "image", "options", "message"),
    [
        (ShapeError, IMAGES[0, 0], {"kernel_size": 2}, r"expected images .*\(N, C, H, W\).*, got shape \(5, 6\)"),
        (
            ShapeError,
            IMAGES[:, :, :1, :1],
            {"kernel_size": 4, "stride": 2, "ceil_mode": True},
            "4 pixels does not fit into 1 ",
        ),
        (ShapeError, IMAGES, {"kernel_size": (6, 2)}, r"6 pixels does not fit into 5 .*\(5, 6\).*kernel \(6, 2\)"),
        (ArgumentError, IMAGES, {"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        (ArgumentError, IMAGES, {"kernel_size": (2, 2, 2)}, r"kernel_size must be .* a pair.*got \(2, 2, 2\)"),
        (ArgumentError, IMAGES, {"kernel_size": 2, "stride": 0}, "stride must be at least 1, got 0"),
        (ArgumentError, IMAGES, {"kernel_size": 2, "padding": "full"}, "padding must be 'same'.*got 'full'"),
        (ArgumentError, IMAGES, {"kernel_size": 2, "padding": -1}, "padding must be at least 0, got -1"),
        (ArgumentError, IMAGES, {"kernel_size": (2, 4), "padding": 2}, r"padding 2 .*half of the kernel \(2, 4\)"),
        (ArgumentError, IMAGES, {"kernel_size": 3, "padding": (1, 2)}, r"padding \(1, 2\) .*half of the kernel 3"),
        (ArgumentError, IMAGES, {"kernel_size": 2, "padding": ((0, 2), (0, 0))}, r"padding \(\(0, 2\).*half"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_given(function, error, image, options, message):
    with pytest.raises(error, match=f"{function.__name__}: .*{message}"):
        function(image, **options)


def test_a_dilated_kernel_that_is_too_large_is_refused():
    with pytest.raises(ShapeError, match=r"max_pool2d.* 7 pixels .* 6 .*dilation \(1, 3\)"):
        tl.max_pool2d(IMAGES, 3, dilation=(1, 3))


def test_a_divisor_of_zero_is_refused():
    with pytest.raises(ArgumentError, match=r"avg_pool2d: divisor_override.*0"):
        tl.avg_pool2d(IMAGES, 2, divisor_override=0)


# Other sizes


def resized(torch, x, **options):
    """Ours and PyTorch's."""
    ours = tl.interpolate(x, **options).numpy()
    return ours, torch.nn.functional.interpolate(torch.tensor(x), **options).numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_nearest_pixel_is_pytorch_s_for_every_size_and_factor(torch, dtype):
    rng = np.random.default_rng(0)
    for n in range(1, 201):
        x = np.arange(n * 3, dtype=dtype).reshape(1, 1, n, 3)
        sizes = {n, 2 * n, *rng.integers(1, 201, 3).tolist()} & {*range(1, 201)}
        cases = [{"size": (m, 4)} for m in sizes]
        factors = {3.15, 2 + 1 / n, np.round(rng.uniform(0.1, 5), 2), rng.uniform(0.1, 3)}
        cases += [{"scale_factor": (float(f), 1.5)} for f in factors if n * f >= 1]
        for options in cases:
            ours, theirs = resized(torch, x, **options)
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{n}, {options}")


def test_a_factor_decides_and_not_the_size_that_comes_of_it():
    assert tl.interpolate([[[[0, 1]]]], scale_factor=(1, 3.15)).tolist() == [[[[0, 0, 0, 0, 1, 1]]]]
    with pytest.raises(tl.ArgumentError, match=r"a number or a pair of numbers, got \(1.5,\)"):
        tl.interpolate([[[[0, 1]]]], scale_factor=(1.5,))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_sizes_and_factors_of_images_with_gradients(torch, mode):
    rng = np.random.default_rng(0)
    for options in ({"size": (7, 3)}, {"size": (2, 9)}, {"scale_factor": (1.7, 0.6)}, {"size": (5, 4)}):
        for x in (rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((3, 3, 1, 6))):
            judge(
                torch,
                lambda x, o=options: tl.interpolate(x, mode=mode, **o),
                lambda x, o=options: torch.nn.functional.interpolate(x, mode=mode, **o),
                [x],
                np.float64,
            )


@pytest.mark.parametrize("factor", [1.1, 1.01, 1.2, 1.9, 2.1])
def test_bilinear_factors_that_leave_or_double_the_size(torch, factor):
    for n in (4, 9, 60):
        x = np.random.default_rng(0).standard_normal((1, 1, n, n))
        ours, theirs = resized(torch, x, scale_factor=factor, mode="bilinear")
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, (3, 2), (4, 5), (6, 7)])
def test_adaptive_windows_with_gradients(torch, size):
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 5))
    there = torch.nn.functional.adaptive_avg_pool2d
    judge(torch, lambda x: tl.adaptive_avg_pool2d(x, size), lambda x: there(x, size), [x], np.float64)
