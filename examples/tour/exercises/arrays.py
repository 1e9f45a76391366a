"""The exercises of lessons 5 to 8: broadcasting, convolution and pooling."""

import numpy as np
from hypothesis import strategies as st

import tinygrad_lenet as tl

from .exercise import Exercise, check_rule, distinct, drawn, floats, small, vjp

# Lesson 5: broadcasting and products


def linear_gradients(x, w, g):
    x_grad, w_grad = vjp(lambda x: x @ w.T, x, g), vjp(lambda w: tl.tensor(x) @ w.T, w, g)
    return x_grad, w_grad, vjp(lambda b: tl.tensor(0 * g) + b, 0 * g[0], g)


def named_gradients(x, w, g):
    return {f"the gradient of {name}": part for name, part in zip("xwb", linear_gradients(x, w, g), strict=True)}


def mean_gradient(x, g):
    return vjp(lambda x: x.mean(axis=1, keepdims=True), x, g)


FIVE = [
    Exercise(
        "mean_gradient",
        drawn(small(1, 3), small(1, 4))(lambda n, m: (floats(n, m), floats(n, 1))),
        right=mean_gradient,
        mistakes={
            "1 / m is missing": lambda x, g: mean_gradient(x, g) * x.shape[1],
            "divided by the number of rows, not of columns": lambda x, g: mean_gradient(x, g) * x.shape[1] / x.shape[0],
            "divided by the number of all elements": lambda x, g: mean_gradient(x, g) / x.shape[0],
            "the result has the shape of g; it must be stretched to that of x": lambda x, g: g / x.shape[1],
        },
        hints=(
            "y[i, 0] is the sum of x[i, j] / m over j. What is its slope along x[i, j]?",
            "Each x[i, j] is used once, with the slope 1 / m.",
            "np.broadcast_to, or np.ones_like(x) * ..., stretches g.",
        ),
    ),
    Exercise(
        "linear_gradients",
        drawn(small(1, 3), small(1, 3), small(1, 3))(lambda n, i, o: (floats(n, i), floats(o, i), floats(n, o))),
        right=named_gradients,
        mistakes={
            "the gradient of b is a mean, not a sum": lambda x, w, g: (*linear_gradients(x, w, g)[:2], g.mean(axis=0)),
            "divided by the number of rows: nothing here is a mean": lambda x, w, g: linear_gradients(x, w, g / len(x)),
            "`=` in place of `+=` for b: each row adds": lambda x, w, g: (*linear_gradients(x, w, g)[:2], g[-1]),
            "the gradient of w is transposed": lambda x, w, g: (
                linear_gradients(x, w, g)[0],
                linear_gradients(x, w, g)[1].T,
                g.sum(axis=0),
            ),
            "the gradient of b is not summed over the rows": lambda x, w, g: (*linear_gradients(x, w, g)[:2], g),
            "the three are in another order": lambda x, w, g: (
                linear_gradients(x, w, g)[1:] + linear_gradients(x, w, g)[:1]
            ),
        },
        hints=(
            "The shapes leave little choice: g is (n, o), w is (o, i), and the gradient of x must be (n, i).",
            "x @ w.T is the product of the lesson with w.T in the place of w.",
            "b is used by each row: broadcasting is undone by a sum.",
        ),
    ),
]

# Lessons 6 and 7: convolution


def convolve(x, w, stride):
    x, w = (value if isinstance(value, tl.Tensor) else tl.tensor(value) for value in (x, w))
    return tl.conv2d(x.reshape(1, 1, *x.shape), w.reshape(1, 1, *w.shape), stride=stride)[0, 0]


W = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])


def image_gradient(w, g, stride, shape, flip=False):
    kernel = w[::-1, ::-1].copy() if flip else w
    return vjp(lambda x: convolve(x, kernel, stride), np.zeros(shape), g)


def last_products(x, w, stride):
    """Of each window only the last product, as with `=` in place of `+=`."""
    return convolve(x[w.shape[0] - 1 :, w.shape[1] - 1 :].copy(), w[-1:, -1:].copy(), stride).numpy()


def first_windows(x, w, stride):
    """As many windows as there should be, but each beside the last."""
    height, width = convolve(x, w, stride).shape
    return convolve(x, w, 1).numpy()[:height, :width]


def set_not_added(w, g, stride, shape):
    x = np.zeros(shape)
    for i, j in np.ndindex(g.shape):
        x[i * stride : i * stride + w.shape[0], j * stride : j * stride + w.shape[1]] = g[i, j] * w
    return x


def stride_forgotten(w, g, stride, shape):
    x = np.zeros((shape[0] + w.shape[0] + g.shape[0], shape[1] + w.shape[1] + g.shape[1]))
    for i, j in np.ndindex(g.shape):
        x[i : i + w.shape[0], j : j + w.shape[1]] += g[i, j] * w
    return x[: shape[0], : shape[1]]


def image_cases(stride, rows, columns, a, b):
    height, width = (rows - 1) * stride + a, (columns - 1) * stride + b
    more = st.tuples(small(0, stride - 1), small(0, stride - 1))
    return (
        floats(a, b),
        floats(rows, columns),
        st.just(stride),
        more.map(lambda m: (height + m[0], width + m[1])),
    )


SIX = [
    Exercise(
        "convolve_stride",
        drawn(small(1, 3), small(1, 3), small(1, 3), small(0, 4), small(0, 4))(
            lambda stride, a, b, height, width: (floats(a + height, b + width), floats(a, b), st.just(stride))
        ),
        right=lambda x, w, stride: convolve(x, w, stride).numpy(),
        mistakes={
            "the stride is forgotten": lambda x, w, stride: convolve(x, w, 1).numpy(),
            "window (i, j) begins at (i, j), not at (i * stride, j * stride)": first_windows,
            "`=` in place of `+=`: only the last product of each window is left": last_products,
            "the kernel is flipped": lambda x, w, stride: convolve(x, w[::-1, ::-1].copy(), stride).numpy(),
        },
        hints=(
            "Window (i, j) now begins at row i * stride and column j * stride.",
            "With one row: windows begin at 0, stride, 2 * stride, and the last must end inside of x.",
            "There are (height - kernel height) // stride + 1 rows of windows.",
        ),
    ),
    Exercise(
        "image_gradient",
        drawn(small(1, 3), small(1, 3), small(1, 3), small(1, 3), small(1, 3))(image_cases),
        right=image_gradient,
        rule=lambda answer: check_rule(
            lambda x: convolve(x, W, 2), lambda x, g: answer(W, g, 2, x.shape), np.linspace(-1, 1, 42).reshape(7, 6)
        ),
        mistakes={
            "the kernel is flipped where it should not be, or not where it should": lambda *a: image_gradient(
                *a, flip=True
            ),
            "the stride is forgotten": stride_forgotten,
            "the stride is forgotten: put stride - 1 zeros between the numbers of g": lambda w, g, stride, shape: (
                image_gradient(w, g, 1, [n + k - 1 for n, k in zip(g.shape, w.shape, strict=True)])
            ),
            "`=` in place of `+=`: windows overlap, and each adds": set_not_added,
        },
        hints=(
            "Write the loops of gradients_in_loops with i * stride + a in the place of i + a.",
            "Begin with zeros of the given shape; pixels that no window reaches keep 0.",
            "Each window adds g[i, j] * w to its pixels.",
        ),
    ),
]


def columns(x, k, stride, padding):
    windows = tl.unfold(tl.tensor(x), k, stride=stride, padding=padding).numpy()
    return windows.swapaxes(1, 2).reshape(-1, x.shape[1] * k * k)


def windows(x, k, stride, padding):
    """All windows, (N, C, rows, columns, k, k)."""
    rows, across = (count(n + 2 * padding, k, stride) for n in x.shape[2:])
    found = columns(x, k, stride, padding).reshape(len(x), rows, across, x.shape[1], k, k)
    return found.transpose(0, 3, 1, 2, 4, 5)


def without_the_last(x, k, stride, padding):
    found = windows(x, k, stride, padding)[:, :, :-1, :-1].transpose(0, 2, 3, 1, 4, 5)
    return found.reshape(-1, x.shape[1] * k * k) if found.size else np.array([])  # as np.array of an empty list


def folded(c, shape, k, stride):
    return vjp(
        lambda x: tl.unfold(x, k, stride=stride).swapaxes(1, 2).reshape(-1, shape[1] * k * k), np.zeros(shape), c
    )


def count(n, k, stride):
    return (n - k) // stride + 1


def fold_cases(n, c, k, stride, rows, across):
    height, width = (rows - 1) * stride + k, (across - 1) * stride + k
    more = st.tuples(small(0, stride - 1), small(0, stride - 1))  # rows and columns that no window reaches
    shape = more.map(lambda m: (n, c, height + m[0], width + m[1]))
    return floats(n * rows * across, c * k * k), shape, st.just(k), st.just(stride)


def placed(c, shape, k, stride, step, add=True):
    """The rows of ``c`` at windows ``step`` apart, added up, or each erasing those before."""
    rows, across = count(shape[2], k, stride), count(shape[3], k, stride)
    x = np.zeros((*shape[:2], shape[2] + rows * step, shape[3] + across * step))
    for (image, i, j), row in zip(np.ndindex(shape[0], rows, across), c, strict=True):
        place = (image, slice(None), slice(i * step, i * step + k), slice(j * step, j * step + k))
        x[place] = row.reshape(-1, k, k) + (x[place] if add else 0)
    return x[:, :, : shape[2], : shape[3]]


def averaged(c, shape, k, stride):
    return folded(c, shape, k, stride) / np.maximum(folded(np.ones_like(c), shape, k, stride), 1)


def channels_last(c, k):
    return c.reshape(len(c), -1, k, k).transpose(0, 2, 3, 1).reshape(c.shape)


def channels_first(c, k):
    return c.reshape(len(c), k, k, -1).transpose(0, 3, 1, 2).reshape(c.shape)


SEVEN = [
    Exercise(
        "im2col_stride",
        drawn(small(1, 2), small(1, 2), small(1, 3), small(0, 3), small(1, 3), small(0, 2))(
            lambda n, c, k, more, stride, padding: (
                floats(n, c, k + more, k + 1),
                st.just(k),
                st.just(stride),
                st.just(padding),
            )
        ),
        right=columns,
        mistakes={
            "the stride is forgotten": lambda x, k, stride, padding: columns(x, k, 1, padding),
            "the padding is forgotten": lambda x, k, stride, padding: columns(x, k, stride, 0),
            "the frame is below and to the right only": lambda x, k, stride, padding: columns(
                np.pad(x, ((0, 0), (0, 0), (0, padding), (0, padding))), k, stride, 0
            ),
            "np.pad(x, padding) adds images and channels too": lambda x, k, stride, padding: columns(
                np.pad(x, padding), k, stride, 0
            ),
            "the stride skips rows of the matrix; it must skip places of the window": lambda x, k, stride, padding: (
                columns(x, k, 1, padding)[::stride]
            ),
            "rows and columns of the matrix are exchanged: a row holds one window": lambda *a: columns(*a).T,
            "the last row and column of windows are missing": without_the_last,
            "before reshape, the axes must be transposed, so that those of a window are together": lambda x, k, *a: (
                windows(x, k, *a).reshape(-1, x.shape[1] * k * k)
            ),
            "within a row, channels come last; they come first": lambda x, k, *a: channels_last(columns(x, k, *a), k),
        },
        hints=(
            "np.pad puts a frame around the last two axes: ((0, 0), (0, 0), (p, p), (p, p)).",
            "Take all windows with sliding_window_view, then every stride-th: windows[:, :, ::stride, ::stride].",
            "The rest is as in im2col of the lesson.",
        ),
    ),
    Exercise(
        "col2im_stride",
        drawn(small(1, 2), small(1, 2), small(1, 3), small(1, 3), small(1, 3), small(1, 3))(fold_cases),
        right=folded,
        rule=lambda answer: check_rule(
            lambda x: tl.unfold(x, 2, stride=1).swapaxes(1, 2).reshape(-1, 8),
            lambda x, g: answer(g, x.shape, 2, 1),
            np.linspace(-1, 1, 24).reshape(1, 2, 4, 3),
        ),
        mistakes={
            "`=` in place of `+=`: pixels have several copies, and each adds": lambda c, shape, k, stride: placed(
                c, shape, k, stride, stride, add=False
            ),
            "the stride is forgotten": lambda c, shape, k, stride: placed(c, shape, k, stride, 1),
            "windows are k apart, not stride": lambda c, shape, k, stride: placed(c, shape, k, stride, k),
            "the copies are averaged; they must be added": averaged,
            "the result is too small: pixels that no window reaches keep 0": lambda c, shape, k, stride: folded(
                c, (*shape[:2], *((count(n, k, stride) - 1) * stride + k for n in shape[2:])), k, stride
            ),
            "within a row of the matrix, channels come first, not last": lambda c, shape, k, stride: folded(
                channels_first(c, k), shape, k, stride
            ),
        },
        hints=(
            "In loops: window (image, i, j) begins at row i * stride and column j * stride.",
            "There are (height - k) // stride + 1 rows of windows, and so for the columns.",
            "x[image, :, i * stride : i * stride + k, ...] += row.reshape(-1, k, k)",
        ),
    ),
]

# Lesson 8: pooling


def max_gradient(x, g):
    return vjp(lambda x: tl.max_pool2d(x.reshape(1, 1, *x.shape), 2)[0, 0], x, g)


def spread(x, g):
    """G for each pixel of a block, and whether the pixel is one of the largest."""
    g, largest = (np.kron(value, np.ones((2, 2))) for value in (g, convolved_max(x)))
    return g, x == largest


def convolved_max(x):
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).max(axis=(1, 3))


def shared(x, g):
    g, largest = spread(x, g)
    ties = largest.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).sum(axis=(1, 3))
    return g * largest / np.kron(ties, np.ones((2, 2)))


def exchanged(x):
    """Each 2 x 2 block transposed."""
    return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).transpose(0, 3, 2, 1).reshape(x.shape)


def stride_one(x, g):
    result = np.zeros_like(x)
    for i, j in np.ndindex(g.shape):
        a, b = divmod(x[i : i + 2, j : j + 2].argmax(), 2)
        result[i + a, j + b] = g[i, j]
    return result


def mean_back(g, k):
    return np.kron(g, np.ones((k, k))) / k**2


EIGHT = [
    Exercise(
        "max_pool_gradient",
        drawn(small(1, 2), small(1, 2))(
            lambda rows, across: (
                floats(2 * rows, 2 * across, low=0, high=0.3) | distinct(2 * rows, 2 * across),
                floats(rows, across),
            )
        ),
        right=max_gradient,
        rule=lambda answer: check_rule(
            lambda x: tl.max_pool2d(x.reshape(1, 1, 4, 6), 2)[0, 0], answer, np.cos(7.0 * np.arange(24)).reshape(4, 6)
        ),
        mistakes={
            "in a tie, each of the largest gets all; only the first may": lambda x, g: np.multiply(*spread(x, g)),
            "in a tie, the largest share; the first must get all": shared,
            "in a tie, the last of the largest gets it": lambda x, g: max_gradient(
                x[::-1, ::-1].copy(), g[::-1, ::-1].copy()
            )[::-1, ::-1],
            "each of the four gets a quarter, as in average pooling": lambda x, g: mean_back(g, 2),
            "each of the four gets all": lambda x, g: spread(x, g)[0],
            "row and column within the block are exchanged": lambda x, g: exchanged(max_gradient(x, g)),
            "the largest gets 1; it must get g": lambda x, g: max_gradient(x, np.ones_like(g)),
            "the largest gets g times its value; the slope is 1": lambda x, g: max_gradient(x, g * convolved_max(x)),
            "this is the place of the smallest": lambda x, g: max_gradient(-x, g),
            "this is the place of the largest size; the sign counts": lambda x, g: max_gradient(abs(x), g),
            "the stride is forgotten: block (i, j) begins at row 2 i and column 2 j": stride_one,
        },
        hints=(
            "For each block, find where its largest number is.",
            "argmax of the flattened block gives the first of the largest, 0 to 3, row by row.",
            "divmod(place, 2) gives row and column within the block.",
        ),
    ),
    Exercise(
        "avg_pool_gradient",
        drawn(small(1, 3), small(1, 3), small(1, 3))(lambda rows, across, k: (floats(rows, across), st.just(k))),
        rule=lambda answer: check_rule(
            lambda x: tl.avg_pool2d(x.reshape(1, 1, 6, 3), 3)[0, 0], lambda x, g: answer(g, 3), np.ones((6, 3))
        ),
        right=lambda g, k: vjp(
            lambda x: tl.avg_pool2d(x.reshape(1, 1, *x.shape), k)[0, 0], np.zeros((len(g) * k, g.shape[1] * k)), g
        ),
        mistakes={
            "1 / k^2 is missing": lambda g, k: mean_back(g, k) * k**2,
            "divided by k, not by k^2": lambda g, k: mean_back(g, k) * k,
            "k is taken to be 2": lambda g, k: mean_back(g, 2),
            "divided by 4, whatever k is": lambda g, k: mean_back(g, k) * k**2 / 4,
            "np.tile repeats the whole array; each number must be repeated on the spot": lambda g, k: (
                np.tile(g, (k, k)) / k**2
            ),
        },
        hints=(
            "Each pixel of a block is used once, by the mean of its block. What is the slope?",
            "The slope is 1 / k^2.",
            "np.repeat along both axes, or np.kron, makes k x k pixels of each number.",
        ),
    ),
]
