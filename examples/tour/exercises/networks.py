"""The exercises of lessons 9 to 12: the loss, the engine, training, and looking inside."""

import numpy as np
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import optim

from .exercise import Exercise, Wrong, check_rule, drawn, floats, show, small, vjp

# Lesson 9: cross-entropy


def loss(logits, labels):
    return tl.cross_entropy(tl.tensor(logits), labels).item()


def loss_gradient(logits, labels):
    return vjp(lambda z: tl.cross_entropy(z, labels), logits, np.array(1.0))


def unstable(logits, labels):
    with np.errstate(all="ignore"):
        powers = np.exp(logits)
        return -np.log(powers[np.arange(len(labels)), labels] / powers.sum(axis=1)).mean()


def classified(scale):
    return drawn(small(1, 3), small(2, 4))(
        lambda n, c: (
            floats(n, c).map(lambda logits: scale * logits),
            st.lists(small(0, c - 1), min_size=n, max_size=n).map(np.array),
        )
    )


NINE = [
    Exercise(
        "cross_entropy",
        classified(1.0) | classified(10_000.0),
        right=loss,
        mistakes={
            "1 / N is missing: this is the sum of the losses, not their mean": lambda z, y: loss(z, y) * len(y),
            "large logits overflow: subtract the largest first": unstable,
            "the sign is wrong": lambda z, y: -loss(z, y),
        },
        hints=(
            "losses of the lesson gives one loss for each sample.",
            "If it is not finite for large logits: subtract the largest of each row first.",
            "The mean is the sum divided by N, the number of rows.",
        ),
    ),
    Exercise(
        "cross_entropy_gradient",
        classified(1.0) | classified(10_000.0),
        right=loss_gradient,
        rule=lambda answer: check_rule(
            lambda z: tl.cross_entropy(z, [1, 0, 2]), lambda z, g: g * answer(z, np.array([1, 0, 2])), np.eye(3) + 0.5
        ),
        mistakes={
            "1 / N is missing": lambda z, y: loss_gradient(z, y) * len(y),
            "the sign is wrong: p - y, not y - p": lambda z, y: -loss_gradient(z, y),
            "y is not subtracted: this is p / N": lambda z, y: tl.softmax(tl.tensor(z), axis=1).numpy() / len(y),
        },
        hints=(
            "For one sample it is p - y.",
            "softmax of the lesson gives p. y is 1 at the label and 0 elsewhere: np.eye(C)[labels].",
            "The mean divides each sample's loss by N, and so its gradient.",
        ),
    ),
]

# Lesson 10: the engine


def in_engine(names, answer, x, g):
    """The data of the answer, and what its rule makes of g."""
    array = names["Array"](x)
    result = answer(array)
    if not isinstance(result, names["Array"]) or list(result.parents) != [array]:
        raise Wrong("it must return an Array whose parents are (x,)")
    back = result.rule(g)
    if not isinstance(back, tuple):
        raise Wrong("the rule must return a tuple with a gradient for each parent: (gradient,), with the comma")
    return result.data, back[0]


def tanh_with(rule):
    return lambda x, g: (np.tanh(x), rule(x, np.tanh(x), g))


def pooled(x, g, factor=1.0):
    y = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean(axis=(3, 5))
    return y, factor * vjp(lambda x: tl.avg_pool2d(x, 2), x, g)


TEN = [
    Exercise(
        "tanh",
        drawn(small(1, 3), small(1, 3))(lambda n, m: (floats(n, m), floats(n, m))),
        right=tanh_with(lambda x, y, g: vjp(tl.tanh, x, g)),
        call=in_engine,
        show=lambda arguments: show(arguments, "xg"),
        mistakes={
            "the slope is 1 - y^2 with y = tanh(x), not 1 - x^2": tanh_with(lambda x, y, g: g * (1 - x**2)),
            "the slope is 1 - y^2, not 1 - y": tanh_with(lambda x, y, g: g * (1 - y)),
            "the rule forgets g": tanh_with(lambda x, y, g: 1 - y**2),
        },
        hints=(
            "Look at relu in engine.py.",
            "The slope of tanh was in lesson 2: 1 - y^2.",
            "The rule is lambda g: (g times the slope,), with the comma that makes it a tuple.",
        ),
    ),
    Exercise(
        "avg_pool",
        drawn(small(1, 2), small(1, 2), small(1, 2), small(1, 2))(
            lambda n, c, rows, across: (floats(n, c, 2 * rows, 2 * across), floats(n, c, rows, across))
        ),
        right=pooled,
        call=in_engine,
        show=lambda arguments: show(arguments, "xg"),
        mistakes={
            "1 / 4 is missing in the rule": lambda x, g: pooled(x, g, 4.0),
            "the rule divides by 2, not by 4": lambda x, g: pooled(x, g, 2.0),
            "these are the sums of the blocks, not the means": lambda x, g: (4 * pooled(x, g)[0], pooled(x, g, 4.0)[1]),
        },
        hints=(
            "Split the axes: x.data.reshape(n, c, rows, 2, columns, 2), and take the mean over the axes of length 2.",
            "Exercise 8.2 is the rule, for one image with k = 2.",
            "np.repeat(..., 2, axis=2) and again along axis 3.",
        ),
    ),
]

# Lesson 11: training


def momentum(w, g, v, rate, beta):
    """Two steps of the package's SGD, the first with g = v from a place ahead, so that v is its speed."""
    weight = tl.tensor(w + rate * v, requires_grad=True)
    sgd = optim.SGD([weight], lr=rate, momentum=beta)
    for slope in (v, g):
        weight.grad = tl.tensor(slope)
        sgd.step()
    return weight.numpy()


def speed(w, g, v, rate, beta):
    return (w - momentum(w, g, v, rate, beta)) / rate


def dropped(names, answer, x, p):
    y = answer(x, p, np.random.default_rng(0))
    if np.shape(y) != x.shape:
        raise Wrong(f"the result has the shape {np.shape(y)}, expected {x.shape}")
    kept = y[y != 0]
    share = len(kept) / x.size
    return round(share, 1), float(kept.mean()) if len(kept) else 0.0


ELEVEN = [
    Exercise(
        "momentum_step",
        drawn(small(1, 3))(
            lambda n: (floats(n), floats(n), floats(n), st.sampled_from([0.1, 0.5]), st.sampled_from([0.0, 0.5, 0.9]))
        ),
        right=lambda *a: (momentum(*a), speed(*a)),
        mistakes={
            "the step uses the old v": lambda w, g, v, rate, beta: (w - rate * v, speed(w, g, v, rate, beta)),
            "the step goes uphill": lambda w, *a: (2 * w - momentum(w, *a), speed(w, *a)),
            "g has the factor 1 - beta; here it has none": lambda w, g, v, rate, beta: (
                momentum(w, (1 - beta) * g, v, rate, beta),
                speed(w, (1 - beta) * g, v, rate, beta),
            ),
            "the rate is already in v": lambda w, g, v, rate, beta: (
                w - beta * v - rate * g,
                beta * v + rate * g,
            ),
        },
        hints=(
            "First the new v, then the new w.",
            "w moves by the rate times the new v, downhill.",
            "Write w = w - ..., not w -= ..., which would change the caller's array.",
        ),
    ),
    Exercise(
        "dropout",
        st.tuples(st.just(np.ones((100, 100))), st.sampled_from([0.2, 0.5, 0.8])),
        right=lambda x, p: (round(1 - p, 1), 1 / (1 - p)),
        call=dropped,
        mistakes={
            "what remains is not enlarged": lambda x, p: (round(1 - p, 1), 1.0),
            "p is the probability to drop, not to keep": lambda x, p: (round(p, 1), 1 / p),
            "what remains is divided by p, not by 1 - p": lambda x, p: (round(1 - p, 1), 1 / p),
            "nothing is dropped": lambda x, p: (1.0, 1.0),
        },
        hints=(
            "rng.random(x.shape) is uniform in [0, 1). It is below p with probability p.",
            "If a share of 1 - p remains, the expected value is (1 - p) x. What factor makes it x again?",
            "Divide by 1 - p. Then nothing need change when the trained network is used.",
        ),
        show=lambda arguments: (
            f"x of ones, 100 x 100, and p = {arguments[1]}: (share that remains, mean of what remains)"
        ),
    ),
]

# Lesson 12: looking inside


def a_model(seed):
    """A small model of float64 for images (N, 1, 3, 3)."""
    w = np.random.default_rng(seed).normal(size=(9, 4))
    return lambda x: (x if isinstance(x, tl.Tensor) else tl.tensor(x)).reshape(-1, 9).tanh() @ tl.tensor(w)


def differences(f, x, h=1e-6):
    result = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = h
        result[place] = (f(x + step) - f(x - step)) / (2 * h)
    return result


def logit(seed, answer):
    return lambda image: a_model(seed)(image[None]).numpy()[0, answer]


def towards(seed, image, target, amount):
    return image - amount * np.sign(differences(lambda x: loss(a_model(seed)(x[None]).numpy(), [target]), image))


def on_model(names, answer, seed, *arguments):
    return answer(a_model(seed), *arguments)


IMAGE = floats(1, 3, 3, low=0.0, high=1.0)
TWELVE = [
    Exercise(
        "saliency_map",
        st.tuples(small(0, 9), IMAGE, small(0, 3)),
        right=lambda seed, image, answer: differences(logit(seed, answer), image),
        call=on_model,
        mistakes={
            "these are sizes; the sign says whether a pixel speaks for or against": lambda *a: abs(
                differences(logit(a[0], a[2]), a[1])
            ),
            "this is the slope of the loss, not of the logit": lambda seed, image, answer: differences(
                lambda x: loss(a_model(seed)(x[None]).numpy(), [answer]), image
            ),
            "this is the slope of the sum of all logits": lambda seed, image, answer: differences(
                lambda x: a_model(seed)(x[None]).numpy().sum(), image
            ),
        },
        hints=(
            "Make a tensor of the image that requires a gradient. The model wants a batch: image[None].",
            "tl.grad(model(x)[0, answer], x) returns a tuple with one tensor.",
            "x has an axis for the batch; the result has none: [0]. .numpy() gives the array.",
        ),
        show=lambda arguments: f"a small model, and an image {arguments[1].shape}, answer {arguments[2]}",
    ),
    Exercise(
        "towards",
        st.tuples(small(0, 9), IMAGE, small(0, 3), st.sampled_from([0.1, 0.25])),
        right=towards,
        call=on_model,
        mistakes={
            "it moves away from the target: the loss must fall": lambda seed, image, *a: (
                2 * image - towards(seed, image, *a)
            ),
        },
        hints=(
            "fooled of the lesson goes uphill. Here the loss for the target must fall.",
            "Only the sign of each slope counts, times the amount.",
            "Nothing is clipped here.",
        ),
        show=lambda arguments: (
            f"a small model, an image {arguments[1].shape}, target {arguments[2]}, amount {arguments[3]}"
        ),
    ),
]
