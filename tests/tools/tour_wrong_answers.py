"""Wrong answers to the exercises of the tour, each with words that the verdict of `check.py` must contain."""
# ruff: noqa: F821

import numpy as np
from tour_wrong_graphs import WRONG, wrong

import tinygrad_lenet as tl

__all__ = ["WRONG"]


@wrong("1 / m is missing")
def mean_gradient(x, g):
    return np.ones_like(x) * g


@wrong("shape of g")
def mean_gradient(x, g):
    return g / x.shape[1]


@wrong("number of all elements")
def mean_gradient(x, g):
    return g / x.size * np.ones_like(x)


@wrong("a mean, not a sum")
def linear_gradients(x, w, g):
    return g @ w, g.T @ x, g.mean(axis=0)


@wrong("transposed")
def linear_gradients(x, w, g):
    return g @ w, x.T @ g, g.sum(axis=0)


@wrong("must be a tuple of 3, got a tuple of 2")
def linear_gradients(x, w, g):
    return g @ w, g.T @ x


@wrong("nothing here is a mean")
def linear_gradients(x, w, g):
    return g @ w / len(x), g.T @ x / len(x), g.mean(axis=0)


@wrong("for b: each row adds")
def linear_gradients(x, w, g):
    b_grad = np.zeros(len(w))
    for row in g:
        b_grad[:] = row
    return g @ w, g.T @ x, b_grad


@wrong("the gradient of b has the shape (1,), expected (2,)")
def linear_gradients(x, w, g):
    return g @ w, g.T @ x, g.sum(axis=1)


@wrong("the stride is forgotten")
def convolve_stride(x, w, stride):
    return convolve(x, w)


@wrong("the kernel is flipped")
def convolve_stride(x, w, stride):
    return convolve(x, w[::-1, ::-1])[::stride, ::stride]


@wrong("begins at (i, j), not at")
def convolve_stride(x, w, stride):
    y = np.zeros([(n - k) // stride + 1 for n, k in zip(x.shape, w.shape, strict=True)])
    for i, j in np.ndindex(y.shape):
        y[i, j] = (x[i : i + w.shape[0], j : j + w.shape[1]] * w).sum()
    return y


@wrong("only the last product of each window")
def convolve_stride(x, w, stride):
    y = np.zeros([(n - k) // stride + 1 for n, k in zip(x.shape, w.shape, strict=True)])
    for i, j in np.ndindex(y.shape):
        for a, b in np.ndindex(w.shape):
            y[i, j] = x[i * stride + a, j * stride + b] * w[a, b]
    return y


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


@wrong("put stride - 1 zeros")
def image_gradient(w, g, stride, shape):
    return convolve(np.pad(g, [(n - 1, n - 1) for n in w.shape]), w[::-1, ::-1])


@wrong("the stride is forgotten")
def im2col_stride(x, k, stride, padding):
    return im2col(np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))), k)


@wrong("the padding is forgotten")
def im2col_stride(x, k, stride, padding):
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


@wrong("`=` in place of `+=`")
def col2im_stride(columns, shape, k, stride):
    x = np.zeros(shape)
    places = np.ndindex(shape[0], (shape[2] - k) // stride + 1, (shape[3] - k) // stride + 1)
    for (image, i, j), row in zip(places, columns, strict=True):
        x[image, :, i * stride : i * stride + k, j * stride : j * stride + k] = row.reshape(-1, k, k)
    return x


@wrong("each of the largest gets all")
def max_pool_gradient(x, g):
    result = np.zeros_like(x)
    for i, j in np.ndindex(g.shape):
        block = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        result[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = g[i, j] * (block == block.max())
    return result


@wrong("the largest share")
def max_pool_gradient(x, g):
    result = np.zeros_like(x)
    for i, j in np.ndindex(g.shape):
        block = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        largest = block == block.max()
        result[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = g[i, j] * largest / largest.sum()
    return result


@wrong("1 / k^2 is missing")
def avg_pool_gradient(g, k):
    return np.repeat(np.repeat(g, k, axis=0), k, axis=1)


@wrong("1 / N is missing")
def cross_entropy(logits, labels):
    return losses(logits, labels).sum()


@wrong("overflow")
def cross_entropy(logits, labels):
    with np.errstate(all="ignore"):
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return -np.log(p[np.arange(len(labels)), labels]).mean()


@wrong("1 / N is missing")
def cross_entropy_gradient(logits, labels):
    return softmax(logits) - np.eye(logits.shape[1])[labels]


@wrong("the sign is wrong")
def cross_entropy_gradient(logits, labels):
    return (np.eye(logits.shape[1])[labels] - softmax(logits)) / len(labels)


@wrong("not 1 - x^2")
def tanh(x):
    return Array(np.tanh(x.data), (x,), lambda g: (g * (1 - x.data**2),))


@wrong("with the comma")
def tanh(x):
    y = np.tanh(x.data)
    return Array(y, (x,), lambda g: g * (1 - y * y))


@wrong("1 / 4 is missing")
def avg_pool(x):
    n, c, height, width = x.data.shape
    y = x.data.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return Array(y, (x,), lambda g: (np.repeat(np.repeat(g, 2, axis=2), 2, axis=3),))


@wrong("the old v")
def momentum_step(w, g, v, rate, beta):
    return w - rate * v, beta * v + g


@wrong("changes its arguments")
def momentum_step(w, g, v, rate, beta):
    v *= beta
    v += g
    w -= rate * v
    return w, v


@wrong("the rate is already in v")
def momentum_step(w, g, v, rate, beta):
    v = beta * v + rate * g
    return w - v, v


@wrong("not enlarged")
def dropout(x, p, rng):
    return np.where(rng.random(x.shape) < p, 0, x)


@wrong("not to keep")
def dropout(x, p, rng):
    return np.where(rng.random(x.shape) < p, x / p, 0)


@wrong("for or against")
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return abs(tl.grad(model(x)[0, answer], x)[0].numpy()[0])


@wrong("not of the logit")
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return tl.grad(tl.cross_entropy(model(x), [answer]), x)[0].numpy()[0]


@wrong("moves away")
def towards(model, image, target, amount):
    x = tl.tensor(image[None], requires_grad=True)
    (slopes,) = tl.grad(tl.cross_entropy(model(x), [target]), x)
    return image + amount * np.sign(slopes.numpy()[0])
