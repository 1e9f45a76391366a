"""Convolution and pooling as a textbook writes them: loops over every index, in float64. Slow, and easy to believe.

All sizes are pairs, (height, width); padding is ``((top, bottom), (left, right))``. Images are (N, C, H, W), weights
(O, C / groups, kh, kw), as in the package; no oracle uses the package. At the end stands what the tests of both share.
"""

import contextlib
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import kernels


def starts(size, kernel, stride, padding, dilation=1, ceil_mode=False):
    """Where windows begin on one axis, counted from the image's first pixel; the first lies in the padding."""
    end = size + padding[1]
    if ceil_mode:  # PyTorch: a window may hang over the end by less than a stride, but begins before the image ends
        end += stride - 1
    found, start = [], -padding[0]
    while start + dilation * (kernel - 1) < end and not (ceil_mode and start >= size):
        found.append(start)
        start += stride
    return found


def windows(size, kernel, stride, padding, dilation=(1, 1), ceil_mode=False):
    """Each window as (i, j) and the list of what it sees in row-major order: ``(a, b, y, x)``, kernel (a, b) on pixel
    (y, x), which may lie outside the image.
    """
    rows, columns = (starts(*axis, ceil_mode) for axis in zip(size, kernel, stride, padding, dilation, strict=True))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            seen = [(a, b, top + a * dilation[0], left + b * dilation[1]) for a, b in np.ndindex(*kernel)]
            yield i, j, seen


def grid(*geometry):
    """The size of the output: how many windows there are."""
    i, j, _ = max(windows(*geometry))
    return i + 1, j + 1


def inside(size, y, x):
    """Return True if a pixel belongs to the image, not to its padding."""
    return 0 <= y < size[0] and 0 <= x < size[1]


def same_padding(size, kernel, stride, dilation=(1, 1)):
    """The least padding that gives ``ceil(size / stride)`` windows, half on each side, an odd pixel at the end."""
    pads = []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = 0
        while len(starts(n, k, s, (0, total), d)) < -(-n // s):
            total += 1
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def meetings(size, weight_shape, stride, padding, dilation, groups):
    """Which weight meets which pixel for which output: at (o, i, j) of ``out``, (o, k, a, b) and (c, y, z)."""
    outputs, depth, *kernel = weight_shape
    for i, j, seen in windows(size, kernel, stride, padding, dilation):
        for a, b, y, z in seen:
            if inside(size, y, z):
                for o, k in np.ndindex(outputs, depth):
                    yield (o, i, j), (o, k, a, b), (o // (outputs // groups) * depth + k, y, z)


def conv2d(x, weight, stride, padding, dilation, groups):
    """``out[n, o, i, j] = sum over c, a, b of weight[o, c, a, b] * x[n, c, i * stride + a * dilation, ...]``."""
    size, kernel = x.shape[2:], weight.shape[2:]
    out = np.zeros((len(x), len(weight), *grid(size, kernel, stride, padding, dilation)))
    for at_out, at_weight, at_x in meetings(size, weight.shape, stride, padding, dilation, groups):
        out[:, *at_out] += weight[at_weight] * x[:, *at_x]
    return out


def conv2d_gradients(g, x, weight, stride, padding, dilation, groups):
    """The gradients of ``sum(g * conv2d(x, weight))`` for ``x`` and ``weight``: each product has two factors."""
    for_x, for_weight = np.zeros(x.shape), np.zeros(weight.shape)
    for at_out, at_weight, at_x in meetings(x.shape[2:], weight.shape, stride, padding, dilation, groups):
        for_x[:, *at_x] += g[:, *at_out] * weight[at_weight]
        for_weight[at_weight] += (g[:, *at_out] * x[:, *at_x]).sum()
    return for_x, for_weight


def conv_transpose2d(x, weight, stride, padding, output_padding, dilation, groups):
    """Each pixel stamps the kernel, (C, O / groups, kh, kw), onto the output; then padding is cut off its sides."""
    (n, c, h, w), (_, depth, kh, kw), (sh, sw), (dh, dw) = x.shape, weight.shape, stride, dilation
    (top, left), (below, right) = padding, output_padding
    full = np.zeros(
        (n, depth * groups, (h - 1) * sh + dh * (kh - 1) + 1 + below, (w - 1) * sw + dw * (kw - 1) + 1 + right)
    )
    for k, o, i, j, a, b in np.ndindex(c, depth, h, w, kh, kw):
        full[:, k // (c // groups) * depth + o, i * sh + a * dh, j * sw + b * dw] += x[:, k, i, j] * weight[k, o, a, b]
    return full[:, :, top : full.shape[2] - top, left : full.shape[3] - left]


def unfold(x, kernel, stride, padding, dilation):
    """Column (i, j) holds what window (i, j) sees: all of channel 0, row by row, then channel 1, ..."""
    (n, c, *size), (oh, ow) = x.shape, grid(x.shape[2:], kernel, stride, padding, dilation)
    columns = np.zeros((n, c, *kernel, oh, ow))
    for i, j, seen in windows(size, kernel, stride, padding, dilation):
        for a, b, y, z in seen:
            if inside(size, y, z):
                columns[:, :, a, b, i, j] = x[:, :, y, z]
    return columns.reshape(n, c * kernel[0] * kernel[1], oh * ow)


def fold(columns, size, kernel, stride, padding, dilation):
    """Every number of every column is added to the pixel that it would have come from."""
    n, depth, _ = columns.shape
    c = depth // (kernel[0] * kernel[1])
    columns = columns.reshape(n, c, *kernel, *grid(size, kernel, stride, padding, dilation))
    images = np.zeros((n, c, *size))
    for i, j, seen in windows(size, kernel, stride, padding, dilation):
        for a, b, y, z in seen:
            if inside(size, y, z):
                images[:, :, y, z] += columns[:, :, a, b, i, j]
    return images


def max_pool2d(x, *geometry):
    """The largest pixel of each window; padding is -inf; a NaN makes its windows NaN."""
    out = np.full((*x.shape[:2], *grid(x.shape[2:], *geometry)), -np.inf)
    for i, j, seen in windows(x.shape[2:], *geometry):
        for _, _, y, z in seen:
            if inside(x.shape[2:], y, z):
                out[:, :, i, j] = np.maximum(out[:, :, i, j], x[:, :, y, z])
    return out


def max_pool2d_gradient(g, x, *geometry):
    """Each window's gradient goes to the first of its largest pixels, in row-major order; to none if one is NaN."""
    grads = np.zeros(x.shape)
    for i, j, seen in windows(x.shape[2:], *geometry):
        pixels = [(y, z) for _, _, y, z in seen if inside(x.shape[2:], y, z)]
        for n, c in np.ndindex(x.shape[:2]):
            image = x[n, c]
            if pixels and not any(np.isnan(image[p]) for p in pixels):
                winner = max(pixels, key=lambda p: image[p])  # Python's max gives the first of equals
                grads[n, c, *winner] += g[n, c, i, j]
    return grads


def shares(size, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
    """For average pooling: each window, the pixels that it sees, and the number that it divides by."""
    (h, w), ((_, bottom), (_, right)) = size, padding
    for i, j, seen in windows(size, kernel, stride, padding, (1, 1), ceil_mode):
        pixels = [(y, z) for _, _, y, z in seen if inside(size, y, z)]
        with_padding = [(y, z) for _, _, y, z in seen if y < h + bottom and z < w + right]
        yield i, j, pixels, divisor_override or len(with_padding if count_include_pad else pixels)


def avg_pool2d(x, kernel, stride, padding, ceil_mode=False, count_include_pad=True, divisor_override=None):
    """The sum of each window's pixels, divided; what hangs over the padding is never counted."""
    size = x.shape[2:]
    out = np.zeros((*x.shape[:2], *grid(size, kernel, stride, padding, (1, 1), ceil_mode)))
    for i, j, pixels, divisor in shares(size, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
        for y, z in pixels:
            out[:, :, i, j] += x[:, :, y, z] / divisor
    return out


def avg_pool2d_gradient(
    g, size, kernel, stride, padding, ceil_mode=False, count_include_pad=True, divisor_override=None
):
    """Each pixel of a window gets an equal share of the window's gradient."""
    grads = np.zeros((*g.shape[:2], *size))
    for i, j, pixels, divisor in shares(size, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override):
        for y, z in pixels:
            grads[:, :, y, z] += g[:, :, i, j] / divisor
    return grads


# What the tests of convolution and pooling share


def close(actual, expected, tolerance=1e-11):
    """Assert equal shapes, and values equal up to rounding in float64."""
    actual = actual.numpy() if isinstance(actual, tl.Tensor) else np.asarray(actual)
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def both(value):
    """A pair, from a number or a pair."""
    return value if isinstance(value, tuple) else (value, value)


def one_or_two(least, most):
    """Strategy for a number or a pair of numbers."""
    numbers = st.integers(least, most)
    return numbers | st.tuples(numbers, numbers)


KERNELS = [(1, 2), (2, 1), (2, 3), (3, 2), (1, 4), (4, 3), (3, 1), (2, 4), (2, 2), (1, 1), (3, 3)]


class Convolution(NamedTuple):
    """Arrays, the arguments as a user writes them, and the same spelled out in pairs for the oracles."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    options: dict
    exact: dict


def convolution(batch, channels, outputs, size, kernel, stride=1, padding=0, dilation=1, groups=1, seed=0):
    """Random numbers of the given shapes."""
    rng = np.random.default_rng(seed)
    if padding == "same":
        pads = same_padding(size, kernel, both(stride), both(dilation))
    else:
        pads = tuple(both(p) for p in both(0 if padding == "valid" else padding))
    return Convolution(
        rng.standard_normal((batch, channels, *size)),
        rng.standard_normal((outputs, channels // groups, *kernel)),
        rng.standard_normal(outputs),
        {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        {"stride": both(stride), "padding": pads, "dilation": both(dilation), "groups": groups},
    )


@st.composite
def convolutions(draw, smallest_batch=0):
    """Strategy for convolutions of every kind."""
    kernel, groups = draw(st.sampled_from(KERNELS)), draw(st.integers(1, 3))
    stride, dilation = draw(one_or_two(1, 3)), draw(one_or_two(1, 3))
    sides = st.integers(0, 2)
    padding = draw(
        st.sampled_from(["same", "valid"])
        | one_or_two(0, 2)
        | st.tuples(st.tuples(sides, sides), st.tuples(sides, sides))
    )
    least = (1, 1)
    if padding != "same":
        pads = [both(p) for p in both(0 if padding == "valid" else padding)]
        least = [max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, both(dilation), pads, strict=True)]
    size = tuple(n + draw(st.integers(0, 4)) for n in least)
    channels, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    return convolution(
        draw(st.integers(smallest_batch, 3)),
        channels,
        outputs,
        size,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        draw(st.integers(0, 99)),
    )


def random_like(array, seed=1):
    """Unequal numbers, as an upstream gradient."""
    return np.random.default_rng(seed).standard_normal(array.shape)


def tracked(*arrays):
    """Tensors that require a gradient."""
    return [tl.tensor(a, requires_grad=True) for a in arrays]


def twice(grad, out, inputs, g, seeds):
    """First gradients, and the gradients of these for ``g`` and what else they depend on; for us and for PyTorch."""
    first = grad(out, inputs, g, create_graph=True)
    depends = [*inputs[:2], g] if len(inputs) > 1 else [g]
    return [*first, *grad(first, depends, seeds)]


@contextlib.contextmanager
def worth_threads(work):
    """Three threads, for which so much work is worth while."""
    before = tl.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinygrad_lenet.kernels.threads.WORTH", work)
        tl.set_num_threads(3)
        forget_geometry()
        try:
            yield
        finally:
            tl.set_num_threads(before)
            forget_geometry()


@contextlib.contextmanager
def small_blocks(name, value):
    """Three threads, for which work of any size is worth while, and other sizes of the blocks that they share."""
    with pytest.MonkeyPatch.context() as patch, worth_threads(1):
        patch.setattr(f"tinygrad_lenet.kernels.{name}", value)
        forget_geometry()
        yield
    forget_geometry()


def forget_geometry():
    """Empty the caches of geometry, and of steps, which depend on the sizes of blocks."""
    for module in (kernels.convolution, kernels.matmul, kernels.pooling, kernels.windows):
        for function in vars(module).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()


def layouts(x):
    """The same array of four axes, lying in memory in other ways: column-major, batch last, with gaps, backwards."""
    yield np.asfortranarray(x)
    yield x.transpose(1, 2, 3, 0).copy().transpose(3, 0, 1, 2)
    gaps = np.full([2 * n for n in x.shape], np.nan, x.dtype)[::2, ::2, ::2, ::2]
    gaps[...] = x
    yield gaps
    yield np.flip(np.flip(x).copy())
