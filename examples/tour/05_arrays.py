# %% [markdown]
# # 5. What changes when the values are arrays?
#
# A value per number is slow: LeNet-5 makes 833,000 sums and products for one image. So a value becomes an array, its
# gradient an array of the same shape, and an operation one call of NumPy. Elementwise operations keep their slopes,
# element by element. Two things are new: broadcasting, and products of matrices.

# %%
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from tour import BLUE, GREY, ORANGE, save

import tinygrad_lenet as tl

# %% [markdown]
# ## Broadcasting is undone by a sum
# A layer adds one bias per column to every row: (4, 3) + (3,). NumPy stretches the bias to four rows. So each bias is
# used four times, and by lesson 4 the gradients of its uses are added. In loops:

# %%
rng = np.random.default_rng(0)
x, bias, g = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(4, 3))  # g: the gradient of x + bias
by_loop = np.zeros(3)
for i in range(4):
    for j in range(3):
        by_loop[j] += g[i, j]  # bias[j] was used in row i
assert np.allclose(by_loop, g.sum(axis=0))

# %% [markdown]
# In general NumPy first puts axes of length 1 in front until both shapes have as many axes, then stretches axes of
# length 1. The gradient is summed over the axes in front, and over the stretched ones, which stay with length 1.


# %%
def unbroadcast(g, shape):
    """The gradient of an array of this shape that was stretched to the shape of g."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    stretched = tuple(axis for axis, n in enumerate(shape) if n == 1)
    return g.sum(axis=stretched, keepdims=True)


for a, b in (((4, 3), (3,)), ((4, 1), (3,)), ((2, 4, 3), (4, 1)), ((5,), ()), ((2, 3), (2, 3))):
    x, y = tl.tensor(rng.normal(size=a), requires_grad=True), tl.tensor(rng.normal(size=b), requires_grad=True)
    z = x * y
    g = rng.normal(size=z.shape)
    z.backward(g)  # the package as a judge: this gives z the gradient g, and goes back to x and y
    assert np.allclose(x.grad, unbroadcast(g * y.numpy(), a)) and np.allclose(y.grad, unbroadcast(g * x.numpy(), b))
    print(f"{a} * {b} are stretched to {z.shape}, and their gradients summed back to {a} and {b}")

# %% [markdown]
# The package does it in one place for all operations: `core/accumulation.py:unbroadcast`.
#
# ## The product of two matrices
# y = x w is y[i, k] = sum over j of x[i, j] w[j, k]. So x[i, j] is used once for each k, with the slope w[j, k], and
# w[j, k] once for each i, with the slope x[i, j]. Write down these sums, and they are products of matrices again.

# %%
x, w, g = rng.normal(size=(4, 3)), rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
x_grad, w_grad = np.zeros_like(x), np.zeros_like(w)
for i in range(4):
    for j in range(3):
        for k in range(2):
            x_grad[i, j] += g[i, k] * w[j, k]
            w_grad[j, k] += g[i, k] * x[i, j]
assert np.allclose(x_grad, g @ w.T)
assert np.allclose(w_grad, x.T @ g)

# %% [markdown]
# A way to remember it: there is only one product of g and w that has the shape of x. The package has the rules beside
# the op: `ops/products.py:matmul`.


# %%
def cells(axes, left, top, values, color, ghost=()):
    for (i, j), value in np.ndenumerate(values):
        style = {"ls": ":", "fc": "none"} if i in ghost else {"fc": color, "alpha": 0.85}
        axes.add_patch(Rectangle((left + j, top - i), 0.94, 0.94, ec=GREY, **style))
        axes.text(left + j + 0.47, top - i + 0.47, f"{value:.0f}", ha="center", va="center", color="black")


figure, axes = plt.subplots(figsize=(9, 2.6))
rows, row, gradient = np.arange(12).reshape(4, 3), np.array([[10, 20, 30]]), np.arange(12).reshape(4, 3) % 5 - 2
cells(axes, 0, 3, rows, "#bcd3ea")
cells(axes, 4, 3, np.repeat(row, 4, 0), "#f5cfa5", ghost=(1, 2, 3))
cells(axes, 8, 3, rows + row, "#bcd3ea")
cells(axes, 13, 3, gradient, "#bcd3ea")
cells(axes, 17.5, 1.5, gradient.sum(0, keepdims=True), "#f5cfa5")
for place, text in ((3.5, "+"), (7.5, "="), (16.75, "$\\rightarrow$")):
    axes.text(place, 2, text, ha="center", va="center", fontsize=16)
for place, height, color, text in (
    (1.5, 4.2, BLUE, "x"),
    (5.5, 4.2, ORANGE, "bias, stretched"),
    (9.5, 4.2, BLUE, "x + bias"),
    (14.5, 4.2, BLUE, "g"),
    (19, 2.7, ORANGE, "gradient of bias:\nsums of columns"),
):
    axes.text(place, height, text, ha="center", va="bottom", color=color)
axes.set(xlim=(-0.5, 21), ylim=(-0.3, 5), aspect="equal")
axes.set_title("Forward: one row is used four times. Backward: four gradients are added.")
axes.axis("off")
save("05_arrays")


# %% Your turn
def mean_gradient(x, g):
    """5.1: the gradient of x, an array (n, m), if y = x.mean(axis=1, keepdims=True) has the gradient g, (n, 1)."""
    raise NotImplementedError


def linear_gradients(x, w, g):
    """5.2: the gradients of x (n, i), w (o, i) and b (o,), if y = x @ w.T + b has the gradient g (n, o)."""
    raise NotImplementedError
