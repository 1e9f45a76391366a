# %% [markdown]
# # 6. What does a convolution compute, and what are its gradients?
#
# A layer of lesson 5 has a weight for each pixel and each output. A convolution has a small kernel instead. It looks at
# one window of the image at a time, everywhere with the same weights. So a stroke is found wherever it is.

# %%
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from tour import RED, digits, save, show

import tinygrad_lenet as tl

# %% [markdown]
# ## In loops
# y[i, j] is the sum over a, b of x[i + a, j + b] w[a, b]: the kernel is laid on the window at (i, j), and the products
# are summed. (Mathematicians call this a cross-correlation, and flip the kernel in a convolution.)


# %%
def convolve(x, w):
    height, width = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
    y = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            for a in range(w.shape[0]):
                for b in range(w.shape[1]):
                    y[i, j] += x[i + a, j + b] * w[a, b]
    return y


# %% [markdown]
# ## The gradients, index by index
# Let g be the gradient of y. Each line of the loop uses x[i + a, j + b] with the slope w[a, b], and w[a, b] with the
# slope x[i + a, j + b]. By lesson 4, each use adds its part. So the same loops compute both gradients:


# %%
def gradients_in_loops(x, w, g):
    x_grad, w_grad = np.zeros_like(x), np.zeros_like(w)
    for i, j in np.ndindex(g.shape):
        for a, b in np.ndindex(w.shape):
            x_grad[i + a, j + b] += g[i, j] * w[a, b]
            w_grad[a, b] += g[i, j] * x[i + a, j + b]
    return x_grad, w_grad


# %% [markdown]
# ## Recognised
# **The kernel.** w_grad[a, b] is the sum over i, j of x[a + i, b + j] g[i, j]. This is the formula of a convolution,
# with g in the place of the kernel: `convolve(x, g)`.
#
# **The image.** x_grad[p, q] collects the terms with i + a = p and j + b = q. Put i = p - a and j = q - b: it is the
# sum over a, b of g[p - a, q - b] w[a, b]. The kernel runs backwards over g. Flip it, and put zeros around g, where
# p - a falls outside: `convolve(padded g, flipped w)`.


# %%
def gradients(x, w, g):
    around = [(n - 1, n - 1) for n in w.shape]
    return convolve(np.pad(g, around), w[::-1, ::-1]), convolve(x, g)


rng = np.random.default_rng(0)
x, w, g = rng.normal(size=(9, 8)), rng.normal(size=(3, 2)), rng.normal(size=(7, 7))
for plain, recognised in zip(gradients_in_loops(x, w, g), gradients(x, w, g), strict=True):
    assert np.allclose(plain, recognised)
print(f"image {x.shape}, kernel {w.shape}, output {g.shape}: the gradients in loops are two convolutions")

# %% [markdown]
# The package agrees: `ops/convolution.py:conv2d`. It takes many images at once, each with several channels, such as
# colours. So x and w have two more axes in front, here of length 1: `[None, None]`. Its definition in loops is
# `reference.py:conv2d`, and those of the gradients are beside it. The gradient of a convolution is a convolution again:
# each is an op with rules of its own, and second derivatives need nothing new.

# %%
image, kernel = (tl.tensor(array[None, None], requires_grad=True) for array in (x, w))
y = tl.conv2d(image, kernel)
y.backward(g[None, None])
assert np.allclose(y.numpy()[0, 0], convolve(x, w))
assert np.allclose(y.numpy(), tl.reference.conv2d(x[None, None], w[None, None]))
assert np.allclose(image.grad.numpy()[0, 0], gradients(x, w, g)[0])
assert np.allclose(kernel.grad.numpy()[0, 0], gradients(x, w, g)[1])

# %%
digit = digits(1)[0][0, 0].astype(float)
edges = np.array([[1.0, 1, 1], [0, 0, 0], [-1, -1, -1]])  # ink below and paper above: negative
found = convolve(digit, edges)
row, column = 5, 13  # the window to show
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), width_ratios=[28, 12, 26])
show(axes[0], digit, "image x, a window of 3 x 3")
show(axes[1], edges, "kernel w", signed=True)
show(axes[2], found, "output y, one number a window", signed=True)
for place in np.ndindex(3, 3):
    axes[1].text(
        *place[::-1], f"{edges[place]:.0f}", ha="center", va="center", color="white" if edges[place] else "black"
    )
axes[0].add_patch(Rectangle((column - 0.5, row - 0.5), 3, 3, fill=False, ec=RED, lw=2))
axes[2].add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=RED, lw=2))
axes[2].set_xlabel(f"y[{row}, {column}] = {found[row, column]:.2f}", color=RED)
save("06_convolution")


# %% Your turn
def convolve_stride(x, w, stride):
    """6.1: a convolution that moves its window by `stride` rows or columns at a time. Windows stay inside x."""
    raise NotImplementedError


def image_gradient(w, g, stride, shape):
    """6.2: the gradient of x, of the given shape, if y = convolve_stride(x, w, stride) has the gradient g."""
    raise NotImplementedError
