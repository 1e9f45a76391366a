"""Right answers to the exercises of the tour.

The names that are not defined here are those of the lessons: the text of an answer takes the place of the hole.
"""
# ruff: noqa: F821

import math

import numpy as np

import tinygrad_lenet as tl

RIGHT = {}


def right(function):
    """Note an answer by its name."""
    RIGHT[function.__name__] = function
    return function


@right
def second_derivative(f, x, h):
    return (f(x + h) - 2 * f(x) + f(x - h)) / h**2


@right
def jacobian(f, x, h):
    columns = []
    for i in range(len(x)):
        step = np.zeros_like(x)
        step[i] = h
        columns.append((f(x + step) - f(x - step)) / (2 * h))
    return np.stack(columns, axis=1)


@right
def exp(a):
    y = math.exp(a.data)
    return Value(y, (a,), (y,), "exp")


@right
def divide(a, b):
    return Value(a.data / b.data, (a, b), (1 / b.data, -a.data / b.data**2), "/")


@right
def topological(output):
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(output)
    return order[::-1]


@right
def count_paths(output, leaf):
    order, stack, seen = [], [(output, False)], set()
    while stack:
        value, ready = stack.pop()
        if ready:
            order.append(value)
        elif value not in seen:
            seen.add(value)
            stack.append((value, True))
            stack.extend((parent, False) for parent in value.parents)
    counts = dict.fromkeys(order, 0)
    counts[output] = 1
    for value in reversed(order):
        for parent in value.parents:
            counts[parent] += counts[value]
    return counts.get(leaf, 0)


@right
def backward(order):
    order[0].grad = 1.0
    for value in order:
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope


@right
def train_step(w, b, xs, ys, rate):
    w.grad = b.grad = 0.0
    for x, y in zip(xs, ys, strict=True):
        squared_error(w, b, x, y).backward()
    w.data -= rate * w.grad / len(xs)
    b.data -= rate * b.grad / len(xs)


@right
def mean_gradient(x, g):
    return np.ones_like(x) * g / x.shape[1]


@right
def linear_gradients(x, w, g):
    return g @ w, g.T @ x, g.sum(axis=0)


@right
def convolve_stride(x, w, stride):
    rows, across = ((n - k) // stride + 1 for n, k in zip(x.shape, w.shape, strict=True))
    y = np.zeros((rows, across))
    for i, j in np.ndindex(rows, across):
        y[i, j] = (x[i * stride : i * stride + w.shape[0], j * stride : j * stride + w.shape[1]] * w).sum()
    return y


@right
def image_gradient(w, g, stride, shape):
    x = np.zeros(shape)
    for i, j in np.ndindex(g.shape):
        for a, b in np.ndindex(w.shape):
            x[i * stride + a, j * stride + b] += g[i, j] * w[a, b]
    return x


@right
def im2col_stride(x, k, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


@right
def col2im_stride(columns, shape, k, stride):
    x = np.zeros(shape)
    places = np.ndindex(shape[0], (shape[2] - k) // stride + 1, (shape[3] - k) // stride + 1)
    for (image, i, j), row in zip(places, columns, strict=True):
        x[image, :, i * stride : i * stride + k, j * stride : j * stride + k] += row.reshape(-1, k, k)
    return x


@right
def max_pool_gradient(x, g):
    result = np.zeros_like(x)
    for i, j in np.ndindex(g.shape):
        a, b = divmod(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].argmax(), 2)
        result[2 * i + a, 2 * j + b] = g[i, j]
    return result


@right
def avg_pool_gradient(g, k):
    return np.kron(g, np.ones((k, k))) / k**2


@right
def cross_entropy(logits, labels):
    return losses(logits, labels).mean()


@right
def cross_entropy_gradient(logits, labels):
    return (softmax(logits) - np.eye(logits.shape[1])[labels]) / len(labels)


@right
def tanh(x):
    y = np.tanh(x.data)
    return Array(y, (x,), lambda g: (g * (1 - y * y),))


@right
def avg_pool(x):
    n, c, height, width = x.data.shape
    y = x.data.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return Array(y, (x,), lambda g: (np.repeat(np.repeat(g / 4, 2, axis=2), 2, axis=3),))


@right
def momentum_step(w, g, v, rate, beta):
    v = beta * v + g
    return w - rate * v, v


@right
def dropout(x, p, rng):
    return np.where(rng.random(x.shape) < p, 0, x / (1 - p))


@right
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return tl.grad(model(x)[0, answer], x)[0].numpy()[0]


@right
def towards(model, image, target, amount):
    x = tl.tensor(image[None], requires_grad=True)
    (slopes,) = tl.grad(tl.cross_entropy(model(x), [target]), x)
    return image - amount * np.sign(slopes.numpy()[0])
