# %% [markdown]
# # 12. What has the network learned, and how easily is it fooled?
#
# `examples/lenet5.npz` holds the weights of a LeNet-5 that reads 99 of 100 digits. We look at its kernels, and at what
# each makes of an image, its feature map. We ask which pixels matter, fool the network, and use a second derivative.

# %%
import numpy as np
from matplotlib import pyplot as plt
from tour import digits, find, save, show

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn

model = nn.LeNet5()
model.load_state_dict(tl.load(find("lenet5.npz")))
model.eval()
images, labels = digits(500, train=False)


def logits(x):  # of pixels from 0 to 1; it was trained on pixels with mean 0 and standard deviation 1
    return model((x - data.MNIST.mean) / data.MNIST.std)


assert tl.training.accuracy(logits(images), labels) > 0.97

# %% [markdown]
# ## Which pixels matter?
# Ask the judge of lesson 1: make one pixel a little brighter, and see how much the logit of the answer grows. 784
# pixels need 1,568 passes. The gradient says the same in one pass backwards: it is called a saliency map (Simonyan and
# others, 2013). Red pixels speak for the answer, blue ones against it.

# %%
rng = np.random.default_rng(0)
digit, answer = images[:1] + 0.01 * rng.random((1, 1, 28, 28)), labels[0]  # noise: blank paper has ties (lesson 8)
x = tl.tensor(digit, requires_grad=True)
(saliency,) = tl.grad(logits(x)[0, answer], x)
h = 1e-6
for row, column in ((7, 10), (10, 18), (14, 14), (20, 13)):
    step = np.zeros_like(digit)
    step[0, 0, row, column] = h
    up, down = (logits(digit + sign * step)[0, answer].item() for sign in (1, -1))
    assert np.isclose((up - down) / (2 * h), saliency.numpy()[0, 0, row, column], rtol=1e-4, atol=1e-6)

# %% [markdown]
# ## Fooled
# Training moves the weights against the slope of the loss. Move the image along it instead: each pixel by the same
# small amount, up or down as the sign of its slope says (Goodfellow and others, 2014). The loss grows by about the
# amount times the sum of the sizes of all slopes. 784 small steps in the worst direction make a large one.


# %%
def fooled(x, labels, amount):
    x = tl.tensor(x, requires_grad=True)
    (slopes,) = tl.grad(tl.cross_entropy(logits(x), labels), x)
    return np.clip(x.numpy() + amount * np.sign(slopes.numpy()), 0, 1)


amounts = [0, 0.05, 0.1, 0.15, 0.2]
rates = [tl.training.accuracy(logits(fooled(images, labels, amount)), labels) for amount in amounts]
print("accuracy by change of each pixel:", ", ".join(f"{a}: {r:.1%}" for a, r in zip(amounts, rates, strict=True)))
assert rates[-1] < 0.6
assert tl.training.accuracy(logits(images + rng.choice([-0.2, 0.2], images.shape)), labels) > 0.9  # random directions
changed = fooled(images, labels, 0.15)
victims = np.flatnonzero((logits(images).numpy().argmax(1) == labels) & (logits(changed).numpy().argmax(1) != labels))
victim = victims[0]

# %% [markdown]
# ## A second derivative at work
# Where does the network change its mind? Where the loss bends. Its bends in all directions are a matrix H of 784 x 784
# second derivatives. H v is the slope of a slope along the direction v, and costs a few passes (Pearlmutter, 1994;
# `calculus.py:hvp`). Applied again and again, H turns v to the strongest bend. The plain way is the difference of two
# gradients.


# %%
def loss(x):
    return tl.cross_entropy(logits(x), labels[victim : victim + 1])


slope, start = tl.grad(loss), rng.normal(size=(1, 1, 28, 28))
for amount in (0, 0.1):  # the digit, and halfway to the wrong answer
    x, v = fooled(images[victim : victim + 1].astype(float), labels[victim : victim + 1], amount), start
    for _ in range(30):
        bend = v / np.linalg.norm(v)
        v = tl.hvp(loss, tl.tensor(x), tl.tensor(bend)).numpy()
    print(f"change {amount}: loss {loss(x).item():.2g}, its strongest bend {(bend * v).sum():.2g}")
difference = (slope(tl.tensor(x + 1e-6 * bend)).numpy() - slope(tl.tensor(x - 1e-6 * bend)).numpy()) / 2e-6
assert np.allclose(difference, v, rtol=1e-4, atol=1e-3)
before, after, answer = images[victim, 0], changed[victim, 0], labels[victim]
names = logits(np.stack([before, after])[:, None]).numpy().argmax(1)
maps = model.conv1((before[None, None] - data.MNIST.mean) / data.MNIST.std).relu().numpy()[0]
heat = tl.grad(lambda x: logits(x)[0, answer])(tl.tensor(before[None, None])).numpy()[0, 0]
above, below = plt.figure(figsize=(9, 5)).subfigures(2, 1, height_ratios=[2, 1.1])
rows = above.subplots(2, 6)
for top, bottom, kernel, feature in zip(*rows, model.conv1.weight.numpy()[:, 0], maps, strict=True):
    show(top, kernel, signed=True)
    show(bottom, feature)
above.suptitle("The six kernels of the first layer, and their feature maps", fontsize=11)
*pictures, axes = below.subplots(1, 6, width_ratios=[1, 1, 1, 1, 1, 1.5])
show(pictures[0], before, f"it reads {names[0]}")
show(pictures[1], heat, f"what speaks for {answer}", signed=True)
show(pictures[2], after - before, "change of 0.15", signed=True)
show(pictures[3], after, f"it reads {names[1]}")
show(pictures[4], bend[0, 0], "strongest bend", signed=True)
axes.set(xlabel="change of each pixel", title="accuracy", ylim=(0, 1.05), yticks=[0, 0.5, 1])
axes.plot(amounts, rates, "o-")
save("12_inside")


# %% Your turn
def saliency_map(model, image, answer):
    """12.1: how fast the logit of the answer grows with each pixel of the image (1, H, W), as an array (1, H, W)."""
    raise NotImplementedError


def towards(model, image, target, amount):
    """12.2: the image (1, H, W), each pixel moved by `amount` so that the loss for the target class falls; an array."""
    raise NotImplementedError
