"""The exercises of lessons 9 to 12: the loss, the engine, training, and looking inside."""

import numpy as np
from hypothesis import strategies as st

import tinygrad_lenet as tl
from tinygrad_lenet import optim

from .exercise import Exercise, Wrong, check_rule, drawn, floats, kind, named, show, small, vjp

# Lesson 9: cross-entropy


def loss(logits, labels):
    return tl.cross_entropy(tl.tensor(logits), labels).item()


def loss_gradient(logits, labels):
    return vjp(lambda z: tl.cross_entropy(z, labels), logits, np.array(1.0))


def losses(logits, labels):
    return tl.cross_entropy(tl.tensor(logits), labels, reduction="none").numpy()


def softmax(logits):
    return tl.softmax(tl.tensor(logits), axis=1).numpy()


def rounded(logits, labels):
    with np.errstate(all="ignore"):
        return -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()


def unstable(logits, labels):
    with np.errstate(all="ignore"):
        powers = np.exp(logits)
        return -np.log(powers[np.arange(len(labels)), labels] / powers.sum(axis=1)).mean()


def unstable_gradient(logits, labels):
    with np.errstate(all="ignore"):
        powers = np.exp(logits)
        return (powers / powers.sum(axis=1, keepdims=True) - np.eye(logits.shape[1])[labels]) / len(labels)


def minus_columns(logits, labels):
    p = softmax(logits).copy()
    p[:, labels] -= 1
    return p / len(labels)


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
            "these are the losses of all samples; take their mean": losses,
            "the mean is over all classes too; divide by N only": lambda z, y: loss(z, y) / z.shape[1],
            "m is subtracted, and not added again to the logarithm": lambda z, y: loss(z, y) - z.max(axis=1).mean(),
            "p is rounded to 0 before the logarithm; take the logarithm of the sum, as losses does": rounded,
            "m is the largest of all samples; each row needs its own": lambda z, y: unstable(z - z.max(), y),
            "z[:, labels] is a matrix; z[np.arange(N), labels] is one logit of each row": lambda z, y: (
                loss(z, y) + z[np.arange(len(y)), y].mean() - z[:, y].mean()
            ),
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
            "y is not subtracted: this is p / N": lambda z, y: softmax(z) / len(y),
            "the mean is over the samples only; do not divide by the number of classes": lambda z, y: (
                loss_gradient(z, y) / z.shape[1]
            ),
            "only y is divided by N; p must be too": lambda z, y: loss_gradient(z, y) + softmax(z) * (1 - 1 / len(y)),
            "large logits overflow: subtract the largest first": unstable_gradient,
            "p[:, labels] means these columns in each row; p[np.arange(N), labels] is one number of each": (
                minus_columns
            ),
            "the slopes are averaged over the samples; each sample has its own": lambda z, y: loss_gradient(z, y).sum(
                axis=0
            ),
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
    if not isinstance(result, names["Array"]):
        raise Wrong(f"it must return an Array, got {type(result).__name__}")
    if not isinstance(result.parents, (tuple, list)) or list(result.parents) != [array]:
        raise Wrong("the parents must be the tuple (x,), with the comma")
    if not callable(result.rule):
        raise Wrong(f"the third argument of Array is the rule, a function of g, got {type(result.rule).__name__}")
    back = result.rule(g)
    if not isinstance(back, (tuple, list)) or len(back) != 1:
        raise Wrong("the rule must return a tuple with a gradient for each parent: (gradient,), with the comma")
    return result.data, back[0]


IN_ENGINE = ("the data", "the gradient of x")


def tanh_with(rule):
    return lambda x, g: (np.tanh(x), rule(x, np.tanh(x), g))


def pooled(x, g, factor=1.0):
    y = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean(axis=(3, 5))
    return y, factor * vjp(lambda x: tl.avg_pool2d(x, 2), x, g)


def max_pooled(x, g):
    return tl.max_pool2d(tl.tensor(x), 2).numpy(), vjp(lambda x: tl.max_pool2d(x, 2), x, g)


TEN = [
    Exercise(
        "tanh",
        drawn(small(1, 3), small(1, 3))(lambda n, m: (floats(n, m), floats(n, m))),
        right=named(IN_ENGINE, tanh_with(lambda x, y, g: vjp(tl.tanh, x, g))),
        call=in_engine,
        show=lambda arguments: show(arguments, "xg"),
        mistakes={
            "the slope is 1 - y^2 with y = tanh(x), not 1 - x^2": tanh_with(lambda x, y, g: g * (1 - x**2)),
            "the slope is 1 - y^2, not 1 - y": tanh_with(lambda x, y, g: g * (1 - y)),
            "the rule forgets g": tanh_with(lambda x, y, g: 1 - y**2),
            "the slope is 1 / cosh(x)^2, not 1 / cosh(x)": tanh_with(lambda x, y, g: g / np.cosh(x)),
            "the slope is 1 - y^2, not 1 + y^2": tanh_with(lambda x, y, g: g * (1 + y**2)),
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
        right=named(IN_ENGINE, pooled),
        call=in_engine,
        show=lambda arguments: show(arguments, "xg"),
        mistakes={
            "1 / 4 is missing in the rule": lambda x, g: pooled(x, g, 4.0),
            "the rule divides by 2, not by 4": lambda x, g: pooled(x, g, 2.0),
            "this is max pooling": max_pooled,
            "the rule forgets g": lambda x, g: pooled(x, np.ones_like(g)),
            "np.tile repeats the whole of g; each number must be repeated on the spot": lambda x, g: (
                pooled(x, g)[0],
                np.tile(g, (1, 1, 2, 2)) / 4,
            ),
            "the gradient has the shape of g; it needs that of x": lambda x, g: (
                pooled(x, g)[0],
                g / 4,
            ),
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
    """The share that remains, and the factor of what remains; and whether each number has a chance of its own."""
    same, other = (answer(x.copy(), p, np.random.default_rng(seed)) for seed in (0, 1))
    before = x.copy()
    y = answer(x, p, np.random.default_rng(0))
    if y is None:
        raise Wrong(f"the result must be numbers, got {kind(y)}")
    if np.shape(y) != x.shape:
        raise Wrong(f"the result has the shape {np.shape(y)}, expected {x.shape}")
    kept = np.asarray(y) != 0
    if kept.any() and not kept.all():
        if np.array_equal(y, other):
            raise Wrong("it drops the same numbers for each rng; draw them from the argument rng")
        if not np.array_equal(y, same):
            raise Wrong("it drops other numbers for an rng of the same seed; draw them from the argument rng")
        for axis, line in enumerate(("columns", "rows")):
            if np.ptp(kept.mean(axis=axis)) == 1:
                raise Wrong(f"it drops whole {line}; each number has a chance of its own: rng.random(x.shape)")
    factors = np.asarray(y)[kept] / before[kept]
    if len(factors) and np.ptp(factors) > 1e-6:
        raise Wrong("what remains must be x, all enlarged by the same factor")
    return round(kept.mean(), 1), factors.mean() if len(factors) else 0.0


SQUARE = 1 + np.arange(10_000.0).reshape(100, 100) / 10_000
ELEVEN = [
    Exercise(
        "momentum_step",
        drawn(small(1, 3))(
            lambda n: (floats(n), floats(n), floats(n), st.sampled_from([0.1, 0.5]), st.sampled_from([0.0, 0.5, 0.9]))
        ),
        right=named(("the new w", "the new v"), lambda *a: (momentum(*a), speed(*a))),
        mistakes={
            "the step uses the old v": lambda w, g, v, rate, beta: (w - rate * v, speed(w, g, v, rate, beta)),
            "the two are in the other order: the new w comes first": lambda *a: (speed(*a), momentum(*a)),
            "the old v is returned": lambda w, g, v, *a: (momentum(w, g, v, *a), v),
            "v is not used; this is a step without momentum": lambda w, g, v, rate, beta: (w - rate * g, v),
            "beta is the argument, not always 0.9": lambda w, g, v, rate, beta: (
                momentum(w, g, v, rate, 0.9),
                speed(w, g, v, rate, 0.9),
            ),
            "v holds the rate and the minus, as in lesson 10; here v = beta v + g": lambda w, g, v, rate, beta: (
                w + beta * v - rate * g,
                beta * v - rate * g,
            ),
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
        st.tuples(st.just(SQUARE), st.sampled_from([0.2, 0.5, 0.8])),
        right=named(
            ("the share that remains", "the factor of what remains"), lambda x, p: (round(1 - p, 1), 1 / (1 - p))
        ),
        call=dropped,
        mistakes={
            "what remains is not enlarged": lambda x, p: (round(1 - p, 1), 1.0),
            "p is the probability to drop, not to keep": lambda x, p: (round(p, 1), 1 / p),
            "what remains is divided by p, not by 1 - p": lambda x, p: (round(1 - p, 1), 1 / p),
            "what remains is multiplied by 1 - p, not divided": lambda x, p: (round(1 - p, 1), 1 - p),
            "the wrong numbers are dropped: rng.random(x.shape) is below p with probability p": lambda x, p: (
                round(p, 1),
                1 / (1 - p),
            ),
            "nothing is dropped": lambda x, p: (1.0, 1.0),
        },
        hints=(
            "rng.random(x.shape) is uniform in [0, 1). It is below p with probability p.",
            "If a share of 1 - p remains, the expected value is (1 - p) x. What factor makes it x again?",
            "Divide by 1 - p. Then nothing need change when the trained network is used.",
        ),
        show=lambda arguments: f"an x of 100 x 100 numbers, and p = {arguments[1]}",
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


def target_loss(seed, target):
    return lambda image: loss(a_model(seed)(image[None]).numpy(), [target])


def towards(seed, image, target, amount):
    return image - amount * np.sign(differences(target_loss(seed, target), image))


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
                target_loss(seed, answer), image
            ),
            "this is the slope of the probability, not of the logit": lambda seed, image, answer: differences(
                lambda x: softmax(a_model(seed)(x[None]).numpy())[0, answer], image
            ),
            "this is the largest logit, not that of the answer": lambda seed, image, answer: vjp(
                lambda x: a_model(seed)(x).max(), image, np.array(1.0)
            ),
            "the axis of the batch is still there: take [0]": lambda seed, image, answer: differences(
                logit(seed, answer), image
            )[None],
            "the slope is multiplied by the image": lambda seed, image, answer: (
                image * differences(logit(seed, answer), image)
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
            "nothing is to be clipped here": lambda *a: np.clip(towards(*a), 0, 1),
            "each slope counts with its size; take its sign": lambda seed, image, target, amount: (
                image - amount * differences(target_loss(seed, target), image)
            ),
            "this follows the logit of the target; follow its loss": lambda seed, image, target, amount: (
                image + amount * np.sign(differences(logit(seed, target), image))
            ),
            "this is the change alone; add it to the image": lambda seed, image, *a: towards(seed, image, *a) - image,
            "the axis of the batch is still there: take [0]": lambda *a: towards(*a)[None],
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
