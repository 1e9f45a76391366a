import numpy as np
import oracles
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from oracles import KERNELS, both, close, convolution, convolutions, one_or_two, random_like, tracked, twice

import tinygrad_lenet as tl
from tinygrad_lenet.errors import ArgumentError, ShapeError
from tinygrad_lenet.kernels import convolution as kernels
from tinygrad_lenet.kernels import threads
from tinygrad_lenet.kernels.convolution import Geometry
from tinygrad_lenet.ops.convolution import conv2d_input_grad
from tinygrad_lenet.ops.windows import windows
from tinygrad_lenet.testing import gradcheck

FIXED = [
    convolution(2, 2, 3, (5, 4), (3, 2)),
    convolution(2, 4, 2, (6, 7), (2, 3), stride=(2, 3), padding=((1, 0), (0, 2)), groups=2),
    convolution(1, 3, 3, (5, 6), (2, 4), stride=2, padding="same", groups=3),
    convolution(2, 1, 2, (7, 4), (3, 1), padding=(2, 1), dilation=(2, 3)),
]


def without_groups(options):
    return {key: value for key, value in options.items() if key != "groups"}


def results(case, dtype=np.float64):
    """Output and the three gradients, for an upstream gradient of unequal values."""
    inputs = tracked(*(a.astype(dtype) for a in case[:3]))
    out = tl.conv2d(*inputs, **case.options)
    return [out, *tl.grad(out, inputs, tl.tensor(random_like(out).astype(dtype)))]


# Against loops


@given(convolutions())
def test_conv2d_and_its_gradients_equal_the_loops(case):
    out, for_x, for_weight, for_bias = results(case)
    close(out, oracles.conv2d(case.x, case.weight, **case.exact) + case.bias.reshape(-1, 1, 1))
    g = random_like(out)
    expected_x, expected_weight = oracles.conv2d_gradients(g, case.x, case.weight, **case.exact)
    close(for_x, expected_x)
    close(for_weight, expected_weight)
    close(for_bias, [g[:, o].sum() for o in range(g.shape[1])])


@given(convolutions())
def test_conv2d_is_the_product_of_the_weight_with_unfolded_images(case):
    groups, (depth, *kernel) = case.options["groups"], case.weight.shape[1:]
    out = tl.conv2d(case.x, case.weight, case.bias, **case.options).numpy()
    n, o, oh, ow = out.shape
    columns = tl.unfold(case.x, kernel, **without_groups(case.options)).numpy()
    columns = columns.reshape(n, groups, depth * kernel[0] * kernel[1], oh * ow)
    product = case.weight.reshape(groups, o // groups, columns.shape[2]) @ columns
    close(out, product.reshape(out.shape) + case.bias.reshape(-1, 1, 1))


@given(convolutions())
def test_unfold_and_fold_equal_the_loops_and_fold_is_the_adjoint(case):
    size, kernel = case.x.shape[2:], case.weight.shape[2:]
    options, exact = without_groups(case.options), without_groups(case.exact)
    columns = tl.unfold(case.x, kernel, **options).numpy()
    close(columns, oracles.unfold(case.x, kernel, **exact), 0)
    y = random_like(columns)
    images = tl.fold(y, size, kernel, **options).numpy()
    close(images, oracles.fold(y, size, kernel, **exact))
    close((columns * y).sum(), (case.x * images).sum())


@st.composite
def transposed(draw):
    kernel, groups = draw(st.sampled_from(KERNELS)), draw(st.integers(1, 3))
    stride, dilation = draw(one_or_two(1, 3)), draw(one_or_two(1, 3))
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(both(stride), both(dilation), strict=True))
    size, padding = (draw(st.integers(1, 4)), draw(st.integers(1, 4))), draw(one_or_two(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.standard_normal((draw(st.integers(0, 3)), groups * draw(st.integers(1, 2)), *size))
    weight = rng.standard_normal((x.shape[1], draw(st.integers(1, 2)), *kernel))
    options = {"stride": stride, "padding": padding, "output_padding": extra, "dilation": dilation, "groups": groups}
    axes = zip(size, kernel, both(stride), both(padding), extra, both(dilation), strict=True)
    assume(all((n - 1) * s - 2 * p + d * (k - 1) + e + 1 > 0 for n, k, s, p, e, d in axes))
    return x, weight, options


@given(transposed())
def test_conv_transpose2d_equals_the_loops(case):
    x, weight, options = case
    exact = {key: value if key == "groups" else both(value) for key, value in options.items()}
    bias = np.arange(1.0, weight.shape[1] * options["groups"] + 1)
    expected = oracles.conv_transpose2d(x, weight, **exact)
    close(tl.conv_transpose2d(x, weight, **options), expected)
    close(tl.conv_transpose2d(x, weight, bias, **options), expected + bias.reshape(-1, 1, 1))


def test_output_padding_may_exceed_the_stride_if_it_is_less_than_the_dilation():
    x, weight = np.arange(1.0, 7.0).reshape(1, 1, 2, 3), np.arange(1.0, 7.0).reshape(1, 1, 3, 2)
    exact = {"stride": (1, 2), "padding": (1, 1), "output_padding": (2, 2), "dilation": (3, 3), "groups": 1}
    close(tl.conv_transpose2d(x, weight, **exact), oracles.conv_transpose2d(x, weight, **exact))


@given(convolutions())
def test_conv_transpose2d_is_the_adjoint_of_conv2d(case):
    out = tl.conv2d(case.x, case.weight, **case.options).numpy()
    y = random_like(out)
    size, kernel, (strides, pads, dilations, groups) = case.x.shape[2:], case.weight.shape[2:], case.exact.values()
    back = conv2d_input_grad(y, case.weight, Geometry(windows(size, kernel, strides, pads, dilations), groups))
    close((out * y).sum(), (case.x * back.numpy()).sum())
    if all(before == after for before, after in pads):
        padding = tuple(before for before, _ in pads)
        axes = zip(size, kernel, strides, padding, dilations, strict=True)
        rest = tuple((n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in axes)
        same = tl.conv_transpose2d(y, case.weight, None, strides, padding, rest, groups, dilations)
        close(same, back.numpy())


# 'same', and shapes


@pytest.mark.parametrize(
    ("padding", "pads"),
    [
        ([1, 2], ((1, 1), (2, 2))),
        ([[1, 0], [0, 2]], ((1, 0), (0, 2))),
        ((1, (0, 2)), ((1, 1), (0, 2))),
        (((2, 0), 1), ((2, 0), (1, 1))),
        ([1, [0, 2]], ((1, 1), (0, 2))),
        (np.int64(1), ((1, 1), (1, 1))),
    ],
)
def test_padding_is_a_number_for_each_axis_or_for_each_side(padding, pads):
    x, weight = np.random.default_rng(0).standard_normal((2, 5, 6)), np.ones((3, 2, 2, 3))
    padded = np.pad(x, ((0, 0), *pads))[None]
    found = tl.conv2d(x[None], weight, padding=padding).numpy()
    np.testing.assert_array_equal(found, tl.conv2d(padded, weight).numpy())
    np.testing.assert_array_equal(found, tl.conv2d(padded, weight, None, 1, 0, 1, 1).numpy())  # the defaults


@given(convolutions(), st.sampled_from([(1, 2), (2, 1), (2, 4), (4, 3), (3, 2)]))
@example(convolution(1, 1, 1, (5, 6), (2, 4)), (2, 4))
def test_same_padding_gives_the_size_over_the_stride_rounded_up(case, stride):
    x, weight = tracked(case.x, case.weight)
    out = tl.conv2d(x, weight, stride=stride, padding="same", groups=case.options["groups"])
    expected = tuple(-(-n // s) for n, s in zip(case.x.shape[2:], stride, strict=True))
    assert out.shape == (len(case.x), len(case.weight), *expected)
    for_x, for_weight = tl.grad(out, [x, weight], tl.ones(*out.shape))
    assert (for_x.shape, for_weight.shape) == (x.shape, weight.shape)


EMPTY = {
    "conv2d": lambda x, w: tl.conv2d(x, w, stride=(1, 2), padding=1),
    "conv2d by groups": lambda x, w: tl.conv2d(x, w[:, :1], groups=2),
    "conv_transpose2d": lambda x, w: tl.conv_transpose2d(x, w[:2]),
    "unfold": lambda x, w: tl.unfold(x, (3, 2), padding=1),
    "fold": lambda x, w: tl.fold(tl.unfold(x, (3, 2)), (5, 4), (3, 2)),
}


@pytest.mark.parametrize("value", [1, np.inf])
@pytest.mark.parametrize("function", EMPTY.values(), ids=EMPTY)
def test_an_empty_batch_gives_an_empty_result_and_gradients_of_zero(function, value):
    full, weight = np.ones((3, 2, 5, 4)), np.full((4, 2, 3, 2), float(value))
    x, w = tracked(full[:0], weight)
    out = function(x, w)
    assert out.shape == (0, *function(full, np.ones_like(weight)).shape[1:])
    for_x, for_w = tl.grad(out, [x, w], tl.zeros(*out.shape), allow_unused=True)
    assert for_x.shape == x.shape
    assert for_w is None or (for_w.shape == w.shape and not for_w.numpy().any())


# Gradients


@pytest.mark.parametrize("case", FIXED[1:], ids=range(len(FIXED[1:])))
def test_gradients_of_both_orders_agree_with_differences(case):
    assert gradcheck(lambda x, w, b: tl.conv2d(x, w, b, **case.options), case[:3], order=2)


def test_gradients_of_both_orders_of_transposed_convolution_agree_with_differences():
    x, weight, bias = (random_like(np.empty(shape)) for shape in ((2, 4, 2, 3), (4, 1, 3, 2), (2,)))
    options = {"stride": (2, 1), "padding": (1, 0), "output_padding": (1, 0), "groups": 2, "dilation": (1, 2)}
    assert gradcheck(lambda x, w, b: tl.conv_transpose2d(x, w, b, **options), [x, weight, bias], order=2)


@given(convolutions(smallest_batch=1))
def test_gradients_of_both_orders_agree_with_pytorch(torch, case):
    pad, conv2d = torch.nn.functional.pad, torch.nn.functional.conv2d
    ours = tracked(*case[:3])
    theirs = [torch.tensor(a, requires_grad=True) for a in case[:3]]
    (top, bottom), (left, right) = case.exact["padding"]
    out = tl.conv2d(*ours, **case.options)
    padded = pad(theirs[0], (left, right, top, bottom))
    expected = conv2d(padded, *theirs[1:], case.exact["stride"], 0, case.exact["dilation"], case.exact["groups"])
    close(out, expected.detach())
    g, seeds = random_like(out), [random_like(a, 2 + i) for i, a in enumerate(case[:3])]
    found = twice(tl.grad, out, ours, tl.tensor(g, requires_grad=True), [tl.tensor(s) for s in seeds])
    wanted = twice(
        torch.autograd.grad, expected, theirs, torch.tensor(g, requires_grad=True), [torch.tensor(s) for s in seeds]
    )
    for mine, other in zip(found, wanted, strict=True):
        close(mine, other.detach())


@pytest.mark.parametrize("case", FIXED, ids=range(len(FIXED)))
@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_only_what_requires_a_gradient_gets_one_and_it_is_the_same(case, which):
    everything = results(case)
    inputs = [tl.tensor(a, requires_grad=i in which) for i, a in enumerate(case[:3])]
    out = tl.conv2d(*inputs, **case.options)
    out.backward(random_like(out))
    for i, tensor in enumerate(inputs):
        if i in which:
            close(tensor.grad, everything[1 + i].numpy())
        else:
            assert tensor.grad is None


def test_a_sum_seeds_with_one_repeated_element():
    case = FIXED[1]
    inputs = tracked(*case[:3])
    tl.conv2d(*inputs, **case.options).sum().backward()
    g = np.ones(results(case)[0].shape)
    for_x, for_weight = oracles.conv2d_gradients(g, case.x, case.weight, **case.exact)
    for tensor, expected in zip(inputs, (for_x, for_weight, g.sum((0, 2, 3))), strict=True):
        close(tensor.grad, expected)


# Precision, memory, threads


@given(convolutions())
def test_float32_stays_float32_and_close_to_float64(case):
    for narrow, wide in zip(results(case, np.float32), results(case), strict=True):
        assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
        close(narrow, wide.numpy(), 5e-5)


@pytest.mark.parametrize("case", FIXED, ids=range(len(FIXED)))
def test_memory_layout_does_not_matter_and_nothing_given_is_written_to(case):
    expected = results(case)
    layouts = zip(*(oracles.layouts(a) for a in (case.x, case.weight, random_like(expected[0]))), strict=True)
    for arrays in layouts:
        for array in arrays:
            array.flags.writeable = False
        copies = [a.copy() for a in arrays]
        x, weight = (tl.Tensor._wrap(a) for a in arrays[:2])  # the constructor would copy the layout away
        bias = tl.tensor(case.bias)
        for tensor in (x, weight, bias):
            tensor.requires_grad = True
        out = tl.conv2d(x, weight, bias, **case.options)
        out.backward(arrays[2])
        for found, wanted in zip((out, x.grad, weight.grad, bias.grad), expected, strict=True):
            close(found, wanted.numpy())
        for array, copy in zip(arrays, copies, strict=True):
            np.testing.assert_array_equal(array, copy)


LARGE = [  # rows of 65, 261 and 129 pixels: blocks are of 64 or more
    convolution(5, 2, 6, (15, 13), (3, 2), padding="same"),
    convolution(9, 4, 6, (8, 59), (2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=2),
    convolution(3, 2, 40, (9, 47), (3, 5)),
    convolution(3, 2, 4, (9, 33), (5, 2)),  # a block sees fewer rows than the kernel has
    convolution(3, 2, 4, (9, 33), (4, 2), stride=(3, 1)),  # and one lies where no further window begins
]


def poison(case):
    """Leave NaN in the memory that the next call gets, so that what it forgets to write shows."""
    results(case._replace(x=case.x * np.nan, weight=case.weight * np.nan))


@pytest.mark.parametrize("case", LARGE, ids=range(len(LARGE)))
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("matmul._TILE", 100),
        ("matmul._TILE", 5000),
        ("matmul._DEEP", 8),
        ("convolution._BYTES", 1),
        ("convolution._RUN", 3),
    ],
)
def test_how_products_are_cut_into_blocks_does_not_matter(case, name, value):
    expected = results(case)
    with oracles.small_blocks(name, value):
        poison(case)
        for found, wanted in zip(results(case), expected, strict=True):
            close(found, wanted.numpy())
        poison(case)
        close(tl.conv2d(case.x, case.weight, **case.options) + case.bias.reshape(-1, 1, 1), expected[0].numpy())


@pytest.mark.parametrize(
    ("kernel", "dilation", "channels", "outs", "groups", "axes"),
    [
        ((3, 2), 1, 4, 2, 1, (4, 4)),
        ((3, 2), (2, 1), 4, 2, 1, (5, 5)),
        ((3, 2), (2, 1), 2, 1, 1, (5, 4)),
        ((3, 1), (2, 1), 1, 2, 1, (4, 5)),
        ((1, 3), (2, 1), 4, 2, 1, (4, 4)),
        ((3, 2), 1, 4, 4, 2, (4, 5)),
        ((3, 2), 1, 4, 2, 2, (4, 4)),
    ],
)
def test_columns_are_copied_only_where_they_cannot_be_a_view(kernel, dilation, channels, outs, groups, axes):
    at = Geometry(windows((7, 6), kernel, 1, 1, dilation), groups)
    found = [blocks(at, channels, outs, 3, 4) for blocks in (kernels._output_blocks, kernels._image_blocks)]
    assert tuple(len(blocks[0].columns.shape) for blocks, _ in found) == axes


def test_blocks_of_a_large_batch_copy_no_pixel_twice():
    at = Geometry(windows((14, 14), 5, 1, 0, 1), 1)
    blocks, _ = kernels._output_blocks(at, 6, 16, 512, 4)
    assert len(blocks) > 1
    # Each pixel of the 14 rows once for each of the 5 positions along the width.
    assert sum(np.prod(block.strips) for block in blocks) == 14 * 6 * 5 * 10 * 512


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_bias_that_is_not_finite_reaches_its_own_channel_only(value):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 4, 6, 5)), rng.standard_normal((6, 2, 3, 2))
    bias = np.array([0.5, value, 0.0, -1.0, 2.0, 3.0])
    options = {"stride": (2, 1), "dilation": (1, 2), "groups": 2}
    expected = tl.conv2d(x, weight, **options).numpy() + bias.reshape(-1, 1, 1)
    with np.errstate(invalid="ignore"):  # BLAS fills its registers with products of inf and 0, which it drops
        found = tl.conv2d(x, weight, bias, **options).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_work_is_the_number_of_multiply_adds():
    # stride 2, padding 1: an output of (3, 3); each group has 2 of 4 channels and 3 of 6 outputs
    at = Geometry(windows((5, 6), (3, 2), 2, (1, 0), 1), 2)
    assert kernels._output_blocks(at, 4, 6, 7, 4)[1] == 7 * 6 * (3 * 3) * 2 * (3 * 2)
    # The gradient of the images: of each pixel, over the outputs of its group and the positions in the kernel.
    assert kernels._image_blocks(at, 4, 6, 7, 4)[1] == 7 * 4 * (5 * 6) * 3 * (3 * 2)


@pytest.mark.parametrize("case", LARGE, ids=range(len(LARGE)))
def test_the_number_of_threads_does_not_matter(case):
    with oracles.worth_threads(1):
        tl.set_num_threads(1)
        expected = results(case)
        poison(case)
        tl.set_num_threads(3)
        found = results(case)
    assert threads._crew.helpers >= 2
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(actual.numpy(), wanted.numpy())


# Errors


IMAGES, WEIGHT = np.ones((2, 4, 5, 6)), np.ones((6, 4, 3, 2))
COLUMNS, BACK = np.ones((1, 8, 4)), WEIGHT[:4]
ERRORS = [
    (tl.conv2d, (IMAGES[:, :3], WEIGHT), {}, r"3 channels.*\(6, 4, 3, 2\).*groups=1.*4"),
    (tl.conv2d, (IMAGES, WEIGHT), {"groups": 2}, r"4 channels.*\(6, 4, 3, 2\).*groups=2.*8"),
    (tl.conv2d, (np.ones((1, 16, 5, 6)), WEIGHT), {"groups": 4}, r"6 outputs.* 4 groups"),
    (tl.conv2d, (IMAGES[0, 0], WEIGHT), {}, r"\(N, C, H, W\).*\(5, 6\)"),
    (tl.conv2d, (IMAGES, WEIGHT[0]), {}, r"weight.*\(4, 3, 2\)"),
    (tl.conv2d, (IMAGES, WEIGHT, np.ones(5)), {}, r"\(6, 4, 3, 2\).*bias.*\(6,\).*\(5,\)"),
    (tl.conv2d, (IMAGES, WEIGHT, np.ones(1)), {}, r"bias.*\(6,\).*\(1,\)"),
    (tl.conv2d, (IMAGES, WEIGHT, np.ones((6, 1))), {}, r"bias.*\(6,\).*\(6, 1\)"),
    (tl.conv2d, (IMAGES, np.ones((6, 4, 6, 2))), {}, r" 6 pixels.* 5 .*\(5, 6\)"),
    (tl.conv2d, (IMAGES, WEIGHT), {"dilation": (1, 7)}, r" 8 pixels.* 6 .*\(1, 7\)"),
    (tl.unfold, (IMAGES, (6, 2)), {}, r" 6 pixels.* 5 "),
    (tl.unfold, (IMAGES[0, 0], 2), {}, r"\(5, 6\)"),
    (tl.fold, (COLUMNS[:, :7, :3], (2, 4), 2), {}, r"\(N, C \* 4, 3\).*\(1, 7, 3\)"),
    (tl.fold, (COLUMNS, (2, 4), 2), {}, r"\(N, C \* 4, 3\).*\(1, 8, 4\)"),
    (tl.conv_transpose2d, (IMAGES, WEIGHT), {}, r"4 channels.*\(6, 4, 3, 2\)"),
    (tl.conv_transpose2d, (IMAGES, BACK), {"padding": 4}, r"padding 4.*-1"),
    (tl.conv_transpose2d, (IMAGES, BACK, np.ones(1)), {}, r"bias.*\(4,\).*\(1,\)"),
    (tl.conv_transpose2d, (IMAGES, BACK, np.ones(3)), {}, r"bias.*\(4,\).*\(3,\)"),
    (tl.conv_transpose2d, (IMAGES, BACK, np.ones((2, 2))), {}, r"bias.*\(4,\).*\(2, 2\)"),
]


@pytest.mark.parametrize(("function", "arguments", "options", "message"), ERRORS)
def test_shapes_that_do_not_fit_are_refused_with_what_was_given(function, arguments, options, message):
    with pytest.raises(ShapeError, match=f"^{function.__name__}: .*{message}"):
        function(*arguments, **options)


def test_there_is_at_least_one_group():
    with pytest.raises(ArgumentError, match=r"^conv2d: groups must be at least 1, got 0"):
        tl.conv2d(IMAGES, WEIGHT, groups=0)


def test_groups_of_a_transposed_convolution_divide_its_channels():
    with pytest.raises(ShapeError, match=r"\(4, 4, 3, 2\).*3 groups"):
        tl.conv_transpose2d(IMAGES, BACK, groups=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be at least 1, got 0"),
        ({"stride": (1, -2)}, r"stride must be at least 1, got \(1, -2\)"),
        ({"stride": 1.5}, r"stride must be an integer.*got 1\.5"),
        ({"stride": (1, 2, 3)}, r"stride must be an integer or a pair.*got \(1, 2, 3\)"),
        ({"dilation": 0}, "dilation must be at least 1, got 0"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"padding": "full"}, "padding must be 'same', 'valid'.*got 'full'"),
        ({"padding": None}, "padding must be .*got None"),
        ({"padding": ((1, 2), (3, -4))}, r"padding must be at least 0, got \(3, -4\)"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_with_what_was_given(options, message):
    with pytest.raises(ArgumentError, match=f"conv2d: {message}"):
        tl.conv2d(IMAGES, WEIGHT, **options)


def test_output_padding_has_a_limit():
    with pytest.raises(ArgumentError, match=r"output_padding \(0, 3\).*stride 2.*dilation \(1, 3\)"):
        tl.conv_transpose2d(IMAGES, WEIGHT[:4], stride=2, output_padding=(0, 3), dilation=(1, 3))


def test_what_is_refused_does_not_depend_on_earlier_calls():
    tl.conv2d(IMAGES, WEIGHT, stride=2)
    with pytest.raises(ArgumentError, match=r"stride.*got 2\.0"):
        tl.conv2d(IMAGES, WEIGHT, stride=2.0)
