"""An engine for LeNet-5 in plain NumPy: the pieces of lessons 2 to 9, put together for lesson 10."""

import numpy as np


class Array:
    """An array that remembers its parents, and the rule that makes their gradients of its own (lessons 2 and 5)."""

    def __init__(self, data, parents=(), rule=None):
        self.data, self.parents, self.rule, self.grad = data, parents, rule, 0

    def backward(self):
        order = []

        def visit(array):
            if array not in order:
                for parent in array.parents:
                    visit(parent)
                order.append(array)

        visit(self)
        self.grad = np.ones_like(self.data)
        for array in reversed(order):  # newest to oldest (lesson 3)
            if array.rule:
                for parent, g in zip(array.parents, array.rule(array.grad), strict=True):
                    parent.grad = parent.grad + g  # each use adds (lesson 4)


def windows(x, k):  # (N, rows, columns, C, k, k), without a copy (lesson 7)
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3)).transpose(0, 2, 3, 1, 4, 5)


def convolve(x, w, b):
    (n, c, height, width), (outputs, _, k, _) = x.data.shape, w.data.shape
    rows, across = height - k + 1, width - k + 1
    columns, kernels = windows(x.data, k).reshape(-1, c * k * k), w.data.reshape(outputs, -1)
    y = columns @ kernels.T + b.data

    def rule(g):
        g = g.transpose(0, 2, 3, 1).reshape(-1, outputs)
        parts = (g @ kernels).reshape(n, rows, across, c, k, k).transpose(0, 3, 4, 5, 1, 2)
        x_grad = np.zeros_like(x.data)
        for i, j in np.ndindex(k, k):
            x_grad[:, :, i : i + rows, j : j + across] += parts[:, :, i, j]
        return x_grad, (g.T @ columns).reshape(w.data.shape), g.sum(axis=0)

    return Array(y.reshape(n, rows, across, outputs).transpose(0, 3, 1, 2), (x, w, b), rule)


def pool(x):  # 2 x 2; the first of the largest gets the gradient (lesson 8)
    n, c, height, width = x.data.shape
    blocks = (
        x.data.reshape(n, c, height // 2, 2, width // 2, 2).swapaxes(3, 4).reshape(n, c, height // 2, width // 2, 4)
    )
    first = np.eye(4, dtype=x.data.dtype)[blocks.argmax(-1)]
    spread = lambda g: (g[..., None] * first).reshape(*g.shape, 2, 2).swapaxes(3, 4).reshape(x.data.shape)
    return Array(blocks.max(-1), (x,), lambda g: (spread(g),))


def relu(x):
    return Array(np.maximum(x.data, 0), (x,), lambda g: (g * (x.data > 0),))


def flatten(x):
    return Array(x.data.reshape(len(x.data), -1), (x,), lambda g: (g.reshape(x.data.shape),))


def linear(x, w, b):
    return Array(x.data @ w.data.T + b.data, (x, w, b), lambda g: (g @ w.data, g.T @ x.data, g.sum(axis=0)))


def cross_entropy(z, labels):  # the mean (lesson 9)
    shifted = z.data - z.data.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    y = np.eye(z.data.shape[1], dtype=z.data.dtype)[labels]
    return Array(-(y * log_p).sum() / len(y), (z,), lambda g: (g * (np.exp(log_p) - y) / len(y),))
