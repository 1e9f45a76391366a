# %% [markdown]
# # 8. What does pooling pass back, and who notices if it is wrong?
#
# Max pooling keeps the largest number of each 2 x 2 block: a feature counts, its exact place does not. Its gradient
# seems easy. We make it wrong on purpose, and the network learns all the same.
# %%
import numpy as np
from matplotlib import pyplot as plt
from tour import digits, save

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.testing import GradientCheckError, gradcheck


# %%
def pool_in_loops(x):
    n, c, height, width = x.shape
    y = np.zeros((n, c, height // 2, width // 2), x.dtype)
    for image, channel, i, j in np.ndindex(y.shape):
        y[image, channel, i, j] = x[image, channel, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max()
    return y


def blocks(x):
    """The 2 x 2 blocks of (N, C, H, W), as (N, C, H / 2, W / 2, 4): row by row within a block."""
    n, c, height, width = x.shape
    return x.reshape(n, c, height // 2, 2, width // 2, 2).swapaxes(3, 4).reshape(n, c, height // 2, width // 2, 4)


def unblocks(b):  # the images again
    n, c, rows, across, _ = b.shape
    return b.reshape(n, c, rows, across, 2, 2).swapaxes(3, 4).reshape(n, c, 2 * rows, 2 * across)


x = np.random.default_rng(0).normal(size=(2, 3, 6, 4))
assert np.array_equal(pool_in_loops(x), blocks(x).max(-1)) and np.array_equal(unblocks(blocks(x)), x)

# %% [markdown]
# ## The gradient, right and wrong
# If the largest number of a block grows, the output grows with it: slope 1. The other three may move a little without
# any effect: slope 0. So the whole gradient goes to the largest. In a **tie**, as in an empty corner with four zeros,
# the graph has a kink (lesson 1). Here, as in `ops/pooling.py:max_pool2d`, the first of the largest gets all.
#
# `@tl.primitive` makes an op of a function of arrays. `vjp` gives it a rule: from g, the gradient of the output, and x
# to the gradient of x. The wrong rule gives a quarter to each of the four, as if the block had been averaged.


# %%
@tl.primitive
def pool(x: tl.Array) -> tl.Array:
    return blocks(x).max(-1)


@tl.primitive
def spoiled_pool(x: tl.Array) -> tl.Array:
    return blocks(x).max(-1)


def to_the_first_largest(g, x):
    largest = np.eye(4, dtype=g.dtype)[blocks(x).argmax(-1)]  # one-hot; argmax takes the first
    return unblocks(g[..., None] * largest)


pool.vjp(x=to_the_first_largest)
spoiled_pool.vjp(x=lambda g, x: unblocks(np.repeat(g[..., None] / 4, 4, axis=-1)))

# %% [markdown]
# ## Both learn
# A small network on 6,000 digits, from the same initial weights in the same order. Its loss is explained in lesson 9.
# SGD steps against the gradient, as `fit` in lesson 4.


# %%
def train(pool):
    convolution, output = nn.Conv2d(1, 8, 5, generator=0), nn.Linear(8 * 12 * 12, 10, generator=1)
    model = lambda images: output(pool(tl.relu(convolution(images))).flatten(1))
    optimizer = optim.SGD([*convolution.parameters(), *output.parameters()], lr=0.05)
    (images, labels), losses = digits(6000), []
    for start in range(0, 6000, 50):
        loss = tl.cross_entropy(model(images[start : start + 50]), labels[start : start + 50])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tests, answers = digits(2000, train=False)
    return losses, tl.training.accuracy(model(tests), answers)


figure, axes = plt.subplots(figsize=(6.5, 3.6))
for name, way in (("right", pool), ("wrong", spoiled_pool)):
    losses, accuracy = train(way)
    axes.plot(losses, label=f"{name} gradient: {accuracy:.1%} of 2,000 test digits")
    print(f"{name} gradient: {accuracy:.1%} of 2,000 test digits are read correctly")
    assert accuracy > 0.8  # nobody would suspect anything
axes.set(xlabel="step", ylabel="loss", title="The loss does not tell which gradient is right")
axes.legend()
save("08_pooling")

# %% [markdown]
# Only the judge of lesson 1 sees it: `testing/gradcheck.py:gradcheck` moves each pixel and compares.

# %%
gradcheck(pool, [x])
try:
    gradcheck(spoiled_pool, [x])
except GradientCheckError as error:
    print(error)


# %% Your turn
def max_pool_gradient(x, g):
    """8.1: the gradient of x (H, W) if its 2 x 2 max pooling has the gradient g. The first of the largest gets all."""
    raise NotImplementedError


def avg_pool_gradient(g, k):
    """8.2: the gradient of x (k H, k W), if its average pooling in k x k blocks has the gradient g (H, W)."""
    raise NotImplementedError
