# %% [markdown]
# # 10. Can your own engine train LeNet-5?
#
# Lessons 2 to 9 hold all that is needed. `engine.py`, beside this file, puts it together in 60 lines of plain NumPy: an
# `Array` that remembers its parents, the pass from newest to oldest, convolution by im2col, pooling, linear layers and
# the loss. Read it first; each piece is known. Here it must compute what the package computes, and learn to read
# digits.

# %%
import numpy as np
from engine import Array, convolve, cross_entropy, flatten, linear, pool, relu
from matplotlib import pyplot as plt
from tour import BLUE, GREEN, RED, digits, save, show

import tinygrad_lenet as tl
from tinygrad_lenet import nn

# %% [markdown]
# ## LeNet-5
# Two convolutions, each followed by pooling, then three linear layers (Y. LeCun and others, 1998). Here is what happens
# to the shape of an image: (1, 32, 32) with its frame of zeros, (6, 28, 28), pooled (6, 14, 14), (16, 10, 10), pooled
# (16, 5, 5), 400 numbers, 120, 84, and 10 logits.


# %%
def lenet(p, images):
    x = Array(np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))))
    for layer in ("conv1", "conv2"):
        x = pool(relu(convolve(x, p[f"{layer}.weight"], p[f"{layer}.bias"])))
    x = flatten(x)
    for layer in ("fc1", "fc2"):
        x = relu(linear(x, p[f"{layer}.weight"], p[f"{layer}.bias"]))
    return linear(x, p["fc3.weight"], p["fc3.bias"])


# %% [markdown]
# ## The judge
# The package's LeNet-5 (`nn/lenet.py:LeNet5`) gets the same weights and images, in float64. The loss and all 61,706
# slopes must agree. In both, someone may have made a mistake; that both made the same is unlikely.

# %%
images, labels = digits(10_000)
model = nn.LeNet5(generator=0)
for parameter in model.parameters():
    parameter.data = parameter.numpy().astype(float)
parameters = {name: Array(value) for name, value in model.state_dict().items()}
few = images[:32].astype(float)

loss = cross_entropy(lenet(parameters, few), labels[:32])
loss.backward()
judge = tl.cross_entropy(model(few), labels[:32])
judge.backward()
assert abs(loss.data - judge.item()) < 1e-6
for name, parameter in model.named_parameters():
    assert np.allclose(parameters[name].grad, parameter.grad, rtol=1e-6, atol=1e-9)
print(f"first loss {loss.data:.6f}; the package says {judge.item():.6f}; ln 10 is {np.log(10):.6f} (lesson 9)")

# %% [markdown]
# ## Learning
# Ten thousand digits, 50 at a time, three times. float32 is twice as fast, and exact enough for learning. A step moves
# each weight against its slope, and adds most of the step before, as a ball keeps its speed (momentum, lesson 11).

# %%
parameters = {name: Array(value.data.astype("float32")) for name, value in parameters.items()}
speed, losses = dict.fromkeys(parameters, 0.0), []
order = np.random.default_rng(0)
for epoch, rate in enumerate((0.02, 0.02, 0.005)):
    for batch in order.permutation(10_000).reshape(-1, 50):
        for parameter in parameters.values():
            parameter.grad = 0  # lesson 4
        loss = cross_entropy(lenet(parameters, images[batch]), labels[batch])
        loss.backward()
        losses.append(float(loss.data))
        for name, parameter in parameters.items():
            speed[name] = 0.9 * speed[name] - rate * parameter.grad
            parameter.data = parameter.data + speed[name]
    tests, answers = digits(2000, train=False)
    found = lenet(parameters, tests).data.argmax(1)
    print(f"epoch {epoch + 1}: {(found == answers).mean():.1%} of 2,000 unseen digits are right")
assert (found == answers).mean() > 0.95

figure = plt.figure(figsize=(9, 3.6))
left, right = figure.subfigures(1, 2, width_ratios=[1, 1.15])
right.suptitle("Five digits that it reads, five that it does not", fontsize=11)
axes = left.subplots()
axes.plot(losses, color=BLUE, lw=0.8)
axes.set(xlabel="step", ylabel="loss", yscale="log", title="LeNet-5 on 60 lines of NumPy")
chosen = [*np.flatnonzero(found == answers)[:5], *np.flatnonzero(found != answers)[:5]]
for place, axes in zip(chosen, right.subplots(2, 5).flat, strict=True):
    show(axes, tests[place, 0])
    axes.set_title(f"{found[place]}", color=GREEN if found[place] == answers[place] else RED, fontsize=13)
    axes.set_xlabel("" if found[place] == answers[place] else f"is a {answers[place]}")
save("10_lenet")


# %% Your turn
def tanh(x):
    """10.1: an Array, the tanh of the Array x, with its rule."""
    raise NotImplementedError


def avg_pool(x):
    """10.2: an Array, the means of the 2 x 2 blocks of the Array x (N, C, H, W), with its rule."""
    raise NotImplementedError
