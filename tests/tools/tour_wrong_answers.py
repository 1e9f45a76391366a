"""Wrong answers to the exercises of lessons 5 and 6, each with words that the verdict of `check.py` must contain."""
# ruff: noqa: F821

import numpy as np
from tour_wrong_graphs import WRONG, wrong

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
