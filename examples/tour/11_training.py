# %% [markdown]
# # 11. How should a network step, and where should it start?
#
# The gradient says where the loss falls now. How far to go, and from where? Four optimisers race, then layers start.

# %%
import numpy as np
from matplotlib import pyplot as plt
from tour import BLUE, GREEN, ORANGE, RED, save

import tinygrad_lenet as tl
from tinygrad_lenet import optim

# %% [markdown]
# ## Four ways to step
# - **SGD**: w -= rate g.
# - **Momentum**: keep a speed, v = 0.9 v + g, and step by it. Zigzag cancels, steady slopes add up.
# - **RMSprop**: divide each slope by its usual size, the root of the mean of g^2. Flat directions get large steps.
# - **Adam**: both. Its means m of g and s of g^2 start at 0, so after t steps each is divided by 1 - b^t to make up.
#
# The package: `optim/optimizers.py:Adam`. The race is in a valley 20 times steeper across than along.


# %%
def adam_in_loops(w, gradients, rate, b1=0.9, b2=0.999, eps=1e-8):
    m, s = [0.0] * len(w), [0.0] * len(w)
    for t, g in enumerate(gradients, 1):
        for i in range(len(w)):
            m[i] = b1 * m[i] + (1 - b1) * g[i]
            s[i] = b2 * s[i] + (1 - b2) * g[i] ** 2
            w[i] -= rate * (m[i] / (1 - b1**t)) / ((s[i] / (1 - b2**t)) ** 0.5 + eps)
    return w


gradients = np.random.default_rng(0).normal(size=(20, 5))
w = tl.zeros(5, dtype=float, requires_grad=True)
adam = optim.Adam([w], lr=0.1)
for g in gradients:
    w.grad = tl.tensor(g)
    adam.step()
assert np.allclose(w.numpy(), adam_in_loops([0.0] * 5, gradients, 0.1))

valley = lambda w: 0.05 * w[0] ** 2 + w[1] ** 2


def race(optimizer, **options):
    w, path = tl.tensor([-9.0, 2.5], requires_grad=True), []
    racer = optimizer([w], **options)
    for _ in range(60):
        path.append(w.numpy().copy())
        racer.zero_grad()
        valley(w).backward()
        racer.step()
    return np.array(path)


# %% [markdown]
# ## Where to start
# Twenty layers of 200 tanh units. If the initial weights are too small, the signal shrinks from layer to layer. If they
# are too large, every unit is stuck at -1 or 1, where the slope of tanh is 0: it is **saturated**. A variance of 1 /
# inputs is right (`nn/init.py:xavier_normal_`), or 2 / inputs for ReLU (`nn/init.py:kaiming_normal_`). A ReLU that is 0
# for each input has the slope 0 for all: it is **dead**. Batch norm helps in each case: it subtracts the mean of a unit
# over the batch and divides by the standard deviation (`nn/normalization.py:BatchNorm1d`). Dropout (11.2,
# `nn/layers.py:Dropout`) sets units to 0 at random in training, so that none relies on another.


# %%
def standardized(x, eps=1e-5):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + eps)


def last_layer(function, scale, normalize):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 200))
    for _ in range(20):
        x = function(normalize(x @ rng.normal(scale=scale / np.sqrt(200), size=(200, 200))))
    return x


assert np.allclose(standardized(gradients), tl.nn.BatchNorm1d(5)(gradients).numpy(), atol=1e-6)
panels = {
    "tanh,\ntoo small": last_layer(np.tanh, 0.5, np.array),
    "tanh,\ntoo large": last_layer(np.tanh, 4, np.array),
    "too large,\nbatch norm": last_layer(np.tanh, 4, standardized),
    "how often a\nReLU is not 0": (last_layer(tl.reference.relu, 2**0.5, np.array) > 0).mean(axis=0),
    "ReLU,\nbatch norm": (last_layer(tl.reference.relu, 1, standardized) > 0).mean(axis=0),
}
stuck, free, on, on_norm = list(panels.values())[1:]
print(f"saturated: {(abs(stuck) > 0.99).mean():.0%} of tanh units, {(abs(free) > 0.99).mean():.0%} with batch norm")
print(f"dead: {(on == 0).mean():.0%} of ReLUs with the right variance, {(on_norm == 0).mean():.0%} with batch norm")

above, below = plt.figure(figsize=(9, 5.6)).subfigures(2, 1, height_ratios=[1.25, 1])
axes = above.subplots()
across, along = np.linspace(-10.5, 4, 200), np.linspace(-3, 3, 120)
axes.contour(across, along, valley((across, along[:, None])), levels=[0.05, 0.2, 0.6, 1.4, 3, 6], colors="0.8")
axes.plot(*race(optim.SGD, lr=0.9).T, ".-", color=RED, label="SGD")
axes.plot(*race(optim.SGD, lr=0.12, momentum=0.9).T, ".-", color=ORANGE, label="momentum")
axes.plot(*race(optim.RMSprop, lr=0.25).T, ".-", color=GREEN, label="RMSprop")
axes.plot(*race(optim.Adam, lr=0.4).T, ".-", color=BLUE, label="Adam")
axes.plot([-9, 0], [2.5, 0], "k*", ms=10)
axes.set(xlabel="w[0], along the valley", ylabel="w[1], across", title="Four optimisers, 60 steps from star to star")
axes.legend(loc="upper right", frameon=True, framealpha=1)
for axes, (name, values) in zip(below.subplots(1, 5), panels.items(), strict=True):
    ends = (0, 1) if "ReLU" in name else (-1, 1)
    axes.hist(values.ravel(), bins=41, range=ends)
    axes.set(yticks=[], xticks=ends, title=name)
below.suptitle("Histograms of the 20th layer", fontsize=11)
save("11_training")


# %% Your turn
def momentum_step(w, g, v, rate, beta):
    """11.1: one step of momentum on arrays. Returns the new w and the new v, with v = beta v + g; changes neither."""
    raise NotImplementedError


def dropout(x, p, rng):
    """11.2: a copy of x, each number 0 with probability p (by rng), else enlarged: its expected value stays x."""
    raise NotImplementedError
