"""Wrong answers to the exercises of lessons 1 to 6, each with words that the verdict of `check.py` must contain."""
# ruff: noqa: F821

import math

import numpy as np

WRONG = {}  # by name: pairs of an answer and words


def wrong(words):
    """Note an answer by its name."""

    def note(function):
        WRONG.setdefault(function.__name__, []).append((function, words))
        return function

    return note


@wrong("not by h^2")
def second_derivative(f, x, h):
    return (f(x + h) - 2 * f(x) + f(x - h)) / h


@wrong("subtracted once")
def second_derivative(f, x, h):
    return (f(x + h) - f(x) + f(x - h)) / h**2


@wrong("rows and columns are exchanged")
def jacobian(f, x, h):
    return np.array([(f(x + h * row) - f(x - h * row)) / (2 * h) for row in np.eye(len(x))])


@wrong("forward difference")
def jacobian(f, x, h):
    return np.stack([(f(x + h * row) - f(x)) / h for row in np.eye(len(x))], axis=1)


@wrong("changes its arguments")
def jacobian(f, x, h):
    columns = []
    for i in range(len(x)):
        x[i] += h
        up = f(x)
        x[i] -= 2 * h
        columns.append((up - f(x)) / (2 * h))
    return np.stack(columns, axis=1)


@wrong("rule for powers")
def exp(a):
    return Value(math.exp(a.data), (a,), (a.data * math.exp(a.data - 1),))


@wrong("needs a minus")
def divide(a, b):
    return Value(a.data / b.data, (a, b), (1 / b.data, a.data / b.data**2), "/")


@wrong("the wrong way round")
def topological(output):
    order = []

    def visit(value):
        if value not in order:
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(output)
    return order


@wrong("expected once")
def topological(output):
    return [output] + [value for parent in output.parents for value in topological(parent)]


@wrong("waits for no other use")
def topological(output):
    order = [output]
    for value in order:
        for parent in value.parents:
            if parent not in order:
                order.append(parent)
    return order


@wrong("follows every path")
def count_paths(output, leaf):
    return 1 if output is leaf else sum(count_paths(parent, leaf) for parent in output.parents)


@wrong("`=` in place of `+=`")
def backward(order):
    order[0].grad = 1.0
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad = value.grad * slope


@wrong("earlier passes are lost")
def backward(order):
    for value in order:
        value.grad = 0.0
    order[0].grad = 1.0
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope


@wrong("not set to 1")
def backward(order):
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope


@wrong("1 / N is missing")
def train_step(w, b, xs, ys, rate):
    w.grad = b.grad = 0.0
    for x, y in zip(xs, ys, strict=True):
        squared_error(w, b, x, y).backward()
    w.data -= rate * w.grad
    b.data -= rate * b.grad


@wrong("uphill")
def train_step(w, b, xs, ys, rate):
    w.grad = b.grad = 0.0
    for x, y in zip(xs, ys, strict=True):
        squared_error(w, b, x, y).backward()
    w.data += rate * w.grad / len(xs)
    b.data += rate * b.grad / len(xs)


@wrong("as before")
def train_step(w, b, xs, ys, rate):
    w.grad = b.grad = 0.0
    for x, y in zip(xs, ys, strict=True):
        squared_error(w, b, x, y).backward()


@wrong("1 / m is missing")
def mean_gradient(x, g):
    return np.ones_like(x) * g


@wrong("shape of g")
def mean_gradient(x, g):
    return g / x.shape[1]


@wrong("a mean, not a sum")
def linear_gradients(x, w, g):
    return g @ w, g.T @ x, g.mean(axis=0)


@wrong("transposed")
def linear_gradients(x, w, g):
    return g @ w, x.T @ g, g.sum(axis=0)


@wrong("the stride is forgotten")
def convolve_stride(x, w, stride):
    return convolve(x, w)


@wrong("the kernel is flipped")
def convolve_stride(x, w, stride):
    return convolve(x, w[::-1, ::-1])[::stride, ::stride]


@wrong("`=` in place of `+=`")
def image_gradient(w, g, stride, shape):
    x = np.zeros(shape)
    for i, j in np.ndindex(g.shape):
        for a, b in np.ndindex(w.shape):
            x[i * stride + a, j * stride + b] = g[i, j] * w[a, b]
    return x


@wrong("the stride is forgotten")
def image_gradient(w, g, stride, shape):
    x = np.zeros(shape)
    for i, j in np.ndindex(g.shape):
        for a, b in np.ndindex(w.shape):
            x[i + a, j + b] += g[i, j] * w[a, b]
    return x


@wrong("the kernel is flipped")
def image_gradient(w, g, stride, shape):
    x = np.zeros(shape)
    for i, j in np.ndindex(g.shape):
        for a, b in np.ndindex(w.shape):
            x[i * stride + a, j * stride + b] += g[i, j] * w[::-1, ::-1][a, b]
    return x
