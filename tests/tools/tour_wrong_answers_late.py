"""Wrong answers to the exercises of lessons 7 to 12, each with words that the verdict of `check.py` must contain."""
# ruff: noqa: F821

import numpy as np
from tour_wrong_answers import WRONG, wrong

import tinygrad_lenet as tl

__all__ = ["WRONG"]


@wrong("the stride is forgotten")
def im2col_stride(x, k, stride, padding):
    return im2col(np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))), k)


@wrong("the padding is forgotten")
def im2col_stride(x, k, stride, padding):
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


@wrong("must skip places of the window")
def im2col_stride(x, k, stride, padding):
    return im2col(np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))), k)[::stride]


@wrong("adds images and channels")
def im2col_stride(x, k, stride, padding):
    x = np.pad(x, padding)
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


@wrong("to the right only")
def im2col_stride(x, k, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (0, padding), (0, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)


@wrong("the axes must be transposed")
def im2col_stride(x, k, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.reshape(-1, x.shape[1] * k * k)


@wrong("a row holds one window")
def im2col_stride(x, k, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k).T


@wrong("the last row and column of windows are missing")
def im2col_stride(x, k, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    places = np.ndindex(len(x), *((n - k) // stride for n in x.shape[2:]))
    return np.array([x[image, :, stride * i :, stride * j :][:, :k, :k].ravel() for image, i, j in places])


@wrong("`=` in place of `+=`")
def col2im_stride(columns, shape, k, stride):
    x = np.zeros(shape)
    places = np.ndindex(shape[0], (shape[2] - k) // stride + 1, (shape[3] - k) // stride + 1)
    for (image, i, j), row in zip(places, columns, strict=True):
        x[image, :, i * stride : i * stride + k, j * stride : j * stride + k] = row.reshape(-1, k, k)
    return x


@wrong("the stride is forgotten")
def col2im_stride(columns, shape, k, stride):
    x = np.zeros(shape)
    places = np.ndindex(shape[0], (shape[2] - k) // stride + 1, (shape[3] - k) // stride + 1)
    for (image, i, j), row in zip(places, columns, strict=True):
        x[image, :, i : i + k, j : j + k] += row.reshape(-1, k, k)
    return x


@wrong("the result is too small")
def col2im_stride(columns, shape, k, stride):
    rows, across = ((n - k) // stride + 1 for n in shape[2:])
    x = np.zeros((*shape[:2], (rows - 1) * stride + k, (across - 1) * stride + k))
    for (image, i, j), row in zip(np.ndindex(shape[0], rows, across), columns, strict=True):
        x[image, :, i * stride : i * stride + k, j * stride : j * stride + k] += row.reshape(-1, k, k)
    return x


@wrong("channels come first, not last")
def col2im_stride(columns, shape, k, stride):
    x = np.zeros(shape)
    places = np.ndindex(shape[0], (shape[2] - k) // stride + 1, (shape[3] - k) // stride + 1)
    for (image, i, j), row in zip(places, columns, strict=True):
        window = row.reshape(k, k, -1).transpose(2, 0, 1)
        x[image, :, i * stride : i * stride + k, j * stride : j * stride + k] += window
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


@wrong("row and column within the block are exchanged")
def max_pool_gradient(x, g):
    result = np.zeros_like(x)
    for i, j in np.ndindex(g.shape):
        b, a = divmod(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].argmax(), 2)
        result[2 * i + a, 2 * j + b] = g[i, j]
    return result


@wrong("it must get g")
def max_pool_gradient(x, g):
    result = np.zeros_like(x)
    for i, j in np.ndindex(g.shape):
        a, b = divmod(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].argmax(), 2)
        result[2 * i + a, 2 * j + b] = 1
    return result


@wrong("the stride is forgotten")
def max_pool_gradient(x, g):
    result = np.zeros_like(x)
    for i, j in np.ndindex(g.shape):
        a, b = divmod(x[i : i + 2, j : j + 2].argmax(), 2)
        result[i + a, j + b] = g[i, j]
    return result


@wrong("1 / k^2 is missing")
def avg_pool_gradient(g, k):
    return np.repeat(np.repeat(g, k, axis=0), k, axis=1)


@wrong("repeated on the spot")
def avg_pool_gradient(g, k):
    return np.tile(g, (k, k)) / k**2


@wrong("k is taken to be 2")
def avg_pool_gradient(g, k):
    return np.kron(g, np.ones((2, 2))) / 4


@wrong("1 / N is missing")
def cross_entropy(logits, labels):
    return losses(logits, labels).sum()


@wrong("overflow")
def cross_entropy(logits, labels):
    with np.errstate(all="ignore"):
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return -np.log(p[np.arange(len(labels)), labels]).mean()


@wrong("the losses of all samples")
def cross_entropy(logits, labels):
    return losses(logits, labels)


@wrong("not added again")
def cross_entropy(logits, labels):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (np.log(powers.sum(axis=1)) - logits[np.arange(len(labels)), labels]).mean()


@wrong("each row needs its own")
def cross_entropy(logits, labels):
    powers = np.exp(logits - logits.max())
    return -np.log(powers[np.arange(len(labels)), labels] / powers.sum(axis=1)).mean()


@wrong("rounded to 0 before the logarithm")
def cross_entropy(logits, labels):
    return -np.log(softmax(logits)[np.arange(len(labels)), labels]).mean()


@wrong("1 / N is missing")
def cross_entropy_gradient(logits, labels):
    return softmax(logits) - np.eye(logits.shape[1])[labels]


@wrong("the sign is wrong")
def cross_entropy_gradient(logits, labels):
    return (np.eye(logits.shape[1])[labels] - softmax(logits)) / len(labels)


@wrong("these columns in each row")
def cross_entropy_gradient(logits, labels):
    p = softmax(logits)
    p[:, labels] -= 1
    return p / len(labels)


@wrong("not 1 - x^2")
def tanh(x):
    return Array(np.tanh(x.data), (x,), lambda g: (g * (1 - x.data**2),))


@wrong("with the comma")
def tanh(x):
    y = np.tanh(x.data)
    return Array(y, (x,), lambda g: g * (1 - y * y))


@wrong("the third argument of Array is the rule")
def tanh(x):
    return Array(np.tanh(x.data), (x,))


@wrong("the parents must be the tuple (x,), with the comma")
def tanh(x):
    y = np.tanh(x.data)
    return Array(y, (x), lambda g: (g * (1 - y * y),))


@wrong("the gradient of x[0, 0] is 0.0995021, expected 0.0990066")
def tanh(x):
    return Array(np.tanh(x.data), (x,), lambda g: (g / np.cosh(x.data),))


@wrong("1 / 4 is missing")
def avg_pool(x):
    n, c, height, width = x.data.shape
    y = x.data.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return Array(y, (x,), lambda g: (np.repeat(np.repeat(g, 2, axis=2), 2, axis=3),))


@wrong("max pooling")
def avg_pool(x):
    return pool(x)


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


@wrong("the new w comes first")
def momentum_step(w, g, v, rate, beta):
    v = beta * v + g
    return v, w - rate * v


@wrong("the old v is returned")
def momentum_step(w, g, v, rate, beta):
    return w - rate * (beta * v + g), v


@wrong("as in lesson 10")
def momentum_step(w, g, v, rate, beta):
    v = beta * v - rate * g
    return w + v, v


@wrong("not enlarged")
def dropout(x, p, rng):
    return np.where(rng.random(x.shape) < p, 0, x)


@wrong("not to keep")
def dropout(x, p, rng):
    return np.where(rng.random(x.shape) < p, x / p, 0)


@wrong("what remains must be x")
def dropout(x, p, rng):
    return (rng.random(x.shape) >= p) / (1 - p)


@wrong("the same numbers for each rng")
def dropout(x, p, rng):
    y = x.ravel() / (1 - p)
    y[: int(p * x.size)] = 0
    return y.reshape(x.shape)


@wrong("for an rng of the same seed")
def dropout(x, p, rng):
    return np.where(np.random.default_rng().random(x.shape) < p, 0, x / (1 - p))


@wrong("drops whole rows")
def dropout(x, p, rng):
    return np.where(rng.random((len(x), 1)) < p, 0, x / (1 - p))


@wrong("changes its arguments")
def dropout(x, p, rng):
    x[rng.random(x.shape) < p] = 0
    return x / (1 - p)


@wrong("for or against")
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return abs(tl.grad(model(x)[0, answer], x)[0].numpy()[0])


@wrong("not of the logit")
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return tl.grad(tl.cross_entropy(model(x), [answer]), x)[0].numpy()[0]


@wrong("take [0]")
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return tl.grad(model(x)[0, answer], x)[0].numpy()


@wrong("the largest logit")
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return tl.grad(model(x).max(), x)[0].numpy()[0]


@wrong("is it one of the arguments?")
def saliency_map(model, image, answer):
    x = tl.tensor(image[None], requires_grad=True)
    return tl.grad(logits(x)[0, answer], x)[0].numpy()[0]


@wrong("moves away")
def towards(model, image, target, amount):
    x = tl.tensor(image[None], requires_grad=True)
    (slopes,) = tl.grad(tl.cross_entropy(model(x), [target]), x)
    return image + amount * np.sign(slopes.numpy()[0])


@wrong("nothing is to be clipped")
def towards(model, image, target, amount):
    x = tl.tensor(image[None], requires_grad=True)
    (slopes,) = tl.grad(tl.cross_entropy(model(x), [target]), x)
    return np.clip(image - amount * np.sign(slopes.numpy()[0]), 0, 1)


@wrong("take its sign")
def towards(model, image, target, amount):
    x = tl.tensor(image[None], requires_grad=True)
    return image - amount * tl.grad(tl.cross_entropy(model(x), [target]), x)[0].numpy()[0]
