# %% [markdown]
# # 9. How does a network say how sure it is, and how wrong?
#
# The last layer gives ten numbers, one per digit: the logits. The largest is the answer. To learn, the network needs
# one number that says how wrong it is, and its slope with respect to each logit.

# %%
import numpy as np
from matplotlib import pyplot as plt
from tour import BLUE, GREY, ORANGE, save

import tinygrad_lenet as tl

# %% [markdown]
# ## Softmax and cross-entropy
# Softmax makes probabilities of logits z: p[k] = e^z[k] / sum of all e^z[j]. Cross-entropy is the surprise about the
# right answer: -log p[answer], with the natural logarithm. It is 0 if the network is sure and right, and grows without
# limit if it is sure and wrong.


# %%
def loss_in_loops(z, answer):
    total = 0.0
    for k in range(len(z)):
        total += np.exp(z[k])
    return -np.log(np.exp(z[answer]) / total)


print("loss for the answer 0, 1, 2:", *(f"{loss_in_loops([1.0, 2.0, 4.0], k):.3f}" for k in range(3)))

# %% [markdown]
# ## The same for large logits
# e^710 is too large for float64, e^89 for float32: infinity / infinity is NaN. But softmax does not change if the same
# number is subtracted from all logits. Subtract the largest: then the largest power is e^0 = 1. With logarithms,
#
#     -log p[answer] = log(sum of e^(z[j] - m)) + m - z[answer],    m the largest of z.
#
# This is called log-sum-exp. All samples at once, as rows:


# %%
def losses(z, answers):
    m = z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(z - m).sum(axis=1)) + m[:, 0]
    return log_sum - z[np.arange(len(z)), answers]


rng = np.random.default_rng(0)
logits, answers = 3 * rng.normal(size=(5, 10)), rng.integers(10, size=5)
assert np.allclose(losses(logits, answers), [loss_in_loops(row, k) for row, k in zip(logits, answers, strict=True)])
large = np.array([[0.0, 1000], [0.0, 1000]])
with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
    print("logits 0 and 1000, answers 0 and 1: in loops", *(loss_in_loops(z, k) for k, z in enumerate(large)), end="")
print("; with log-sum-exp", *losses(large, [0, 1]))

# %% [markdown]
# ## The gradient is p - y
# The slope of log(sum e^z) along z[k] is e^z[k] / sum = p[k]. That of -z[answer] is -1 at the answer and 0 elsewhere.
# With y = 1 at the answer and 0 elsewhere, the gradient is p - y. A step against it raises the logit of the answer and
# lowers the others, each by what its probability is too large. The parts add up to 0. Once the network is right and
# sure, nothing is left to learn.


# %%
def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


g = softmax(logits) - np.eye(10)[answers]
h = 1e-6
for i, k in np.ndindex(logits.shape):  # lesson 1
    step = h * (np.arange(10) == k)
    up, down = (losses(logits + sign * step, answers)[i] for sign in (1, -1))
    assert np.isclose((up - down) / (2 * h), g[i, k], atol=1e-8)

x = tl.tensor(logits, requires_grad=True)
loss = tl.cross_entropy(x, answers)  # the mean over the batch, so its gradient has a factor 1 / N
loss.backward()
assert np.isclose(loss.item(), losses(logits, answers).mean()) and np.allclose(x.grad, g / 5)

# %% [markdown]
# The package: `ops/losses.py:cross_entropy`, with the definition in `reference.py:cross_entropy`.
#
# ## The first loss
# Before it has learned anything, a network should give each of ten digits 1/10. Then the loss is -log(1/10) = ln 10 =
# 2.303. Look at it first: a first loss of 8 says that the initial weights are too large, and 0.1 that the answers got
# into the images.

# %%
assert np.isclose(losses(np.zeros((1, 10)), [3])[0], np.log(10))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
place, p = np.arange(10), softmax(logits)[0]
left.bar(place - 0.2, p, 0.4, color=BLUE, label="p, the softmax")
left.bar(place + 0.2, g[0], 0.4, color=ORANGE, label="p - y, the gradient")
left.axhline(0, color="black", lw=0.8)
left.set(xticks=place, xlabel="class", title=f"The answer is {answers[0]}: only its slope is negative")
left.legend()
gap = np.linspace(-6, 6, 200)
right.plot(gap, losses(np.stack([gap, 0 * gap], 1), [0] * 200), color=BLUE, label="cross-entropy")
right.plot(gap, softmax(np.stack([gap, 0 * gap], 1))[:, 0] - 1, color=ORANGE, label="its slope p - 1")
right.axhline(np.log(2), color=GREY, ls=":", lw=1)
right.text(2.5, np.log(2) + 0.1, "ln 2: undecided", color=GREY)
right.set(xlabel="logit of the answer minus the other logit", title="Two classes: sure and wrong costs most")
right.legend()
save("09_cross_entropy")


# %% Your turn
def cross_entropy(logits, labels):
    """9.1: the mean loss of logits (N, C) and labels (N,). It must be finite for logits of 10,000."""
    raise NotImplementedError


def cross_entropy_gradient(logits, labels):
    """9.2: the gradient of 9.1 with respect to the logits, (N, C)."""
    raise NotImplementedError
