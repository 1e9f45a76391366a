# %% [markdown]
# # 7. How can loops become one product of matrices?
#
# The loops of lesson 6 are slow: Python needs more time for one product of numbers than a library for a hundred.
# Libraries are best at products of matrices. So write the windows into the rows of a matrix ("image to columns",
# im2col), and the kernels into the columns of another. Their product is the convolution.

# %%
import timeit

import numpy as np
from matplotlib import pyplot as plt
from tour import BLUE, digits, save

import tinygrad_lenet as tl

# %% [markdown]
# ## im2col
# Images are (N, C, H, W): N images of C channels (1 for grey, 3 for colour), H rows and W columns. A window of
# k x k pixels takes all channels, so it makes a row of C k k numbers. An image has (H - k + 1) (W - k + 1) windows.


# %%
def im2col_in_loops(x, k):
    windows = np.ndindex(x.shape[0], x.shape[2] - k + 1, x.shape[3] - k + 1)
    return np.array([x[image, :, i : i + k, j : j + k].ravel() for image, i, j in windows])


def im2col(x, k):
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))  # (N, C, rows, columns, k, k), no copy
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


def convolve_in_loops(x, w):
    k = w.shape[-1]
    y = np.zeros((len(x), len(w), x.shape[2] - k + 1, x.shape[3] - k + 1))
    for image, output, i, j in np.ndindex(y.shape):
        for channel, a, b in np.ndindex(w.shape[1:]):
            y[image, output, i, j] += x[image, channel, i + a, j + b] * w[output, channel, a, b]
    return y


def convolve(x, w):
    (n, _, height, width), (outputs, _, k, _) = x.shape, w.shape
    y = im2col(x, k) @ w.reshape(outputs, -1).T
    return y.reshape(n, height - k + 1, width - k + 1, outputs).transpose(0, 3, 1, 2)


rng = np.random.default_rng(0)
x, w = rng.normal(size=(2, 3, 9, 8)), rng.normal(size=(4, 3, 3, 3))
assert np.array_equal(im2col(x, 3), im2col_in_loops(x, 3))
assert np.allclose(convolve(x, w), convolve_in_loops(x, w))

# %% [markdown]
# ## Backwards
# The product has the gradients of lesson 5. A pixel has many copies among the columns. By lesson 4 the gradients of its
# copies are added: col2im.


# %%
def col2im_in_loops(columns, shape, k):
    x = np.zeros(shape)
    windows = np.ndindex(shape[0], shape[2] - k + 1, shape[3] - k + 1)
    for (image, i, j), row in zip(windows, columns, strict=True):
        x[image, :, i : i + k, j : j + k] += row.reshape(-1, k, k)
    return x


def col2im(columns, shape, k):
    n, c, rows, across = shape[0], shape[1], shape[2] - k + 1, shape[3] - k + 1
    windows = columns.reshape(n, rows, across, c, k, k).transpose(0, 3, 4, 5, 1, 2)
    x = np.zeros(shape)
    for a, b in np.ndindex(k, k):  # the pixel at (a, b) of all windows at once
        x[:, :, a : a + rows, b : b + across] += windows[:, :, a, b]
    return x


columns = rng.normal(size=im2col(x, 3).shape)
assert np.allclose(col2im(columns, x.shape, 3), col2im_in_loops(columns, x.shape, 3))

# %% [markdown]
# col2im does not undo im2col. It is its transpose, as x.T was in lesson 5. A linear map A and its transpose B satisfy
# <A x, c> = <x, B c> for all x and c, where <a, b> is the sum of the products a[i] b[i]:

# %%
assert np.isclose((im2col(x, 3) * columns).sum(), (x * col2im(columns, x.shape, 3)).sum())
uses = col2im(np.ones((24 * 24, 25)), (1, 1, 28, 28), 5)[0, 0]  # each copy counts 1
print(f"kernels of 5 x 5 use the pixel in the corner {uses[0, 0]:.0f} time, one in the middle {uses[14, 14]:.0f} times")

# %% [markdown]
# The package does the same in `kernels/convolution.py:conv2d`, block by block. Its plain definitions are
# `reference.py:unfold` and `reference.py:fold`. The time for four digits and six kernels of 5 x 5:

# %%
images, kernels = digits(4)[0], rng.normal(size=(6, 1, 5, 5)).astype("float32")
milliseconds = {}
for name, way in (("loops", convolve_in_loops), ("im2col", convolve), ("package", tl.conv2d)):
    milliseconds[name] = 1e3 * min(timeit.repeat(lambda: way(images, kernels), number=1, repeat=5))  # noqa: B023
    print(f"{name:8} {milliseconds[name]:10.2f} ms")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), width_ratios=[1, 1.3])
figure.colorbar(left.imshow(uses), label="windows")
left.set(title="Windows of 5 x 5 that use a pixel", xlabel="column", ylabel="row", xticks=[0, 4, 23], yticks=[0, 4, 23])
bars = right.barh(list(milliseconds), list(milliseconds.values()), color=BLUE)
right.bar_label(bars, fmt="%.2f ms", padding=3)
right.set(xscale="log", xlim=(0.01, 3000), xlabel="milliseconds", title="One convolution of four digits")
right.invert_yaxis()
save("07_im2col")


# %% Your turn
def im2col_stride(x, k, stride, padding):
    """7.1: im2col with a frame of `padding` zeros around each image, and windows `stride` pixels apart."""
    raise NotImplementedError


def col2im_stride(columns, shape, k, stride):
    """7.2: the transpose of im2col_stride(x, k, stride, 0), for x of this shape."""
    raise NotImplementedError
