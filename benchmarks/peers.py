"""The same LeNet-5 in other libraries, each in the way its own documentation writes such a network.

Each function takes the starting weights by PyTorch's names and a batch. It returns a training step (forward, backward,
SGD with momentum 0.9 and learning rate 0.01; it returns the loss), and a function that begins again with these weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

LR, MOMENTUM = 0.01, 0.9
Weights = dict[str, np.ndarray]
Job = tuple[Callable[[], float], Callable[[], None]]
# The shapes of the layers, by their numbers in contenders.lenet
SHAPES = {"0": (6, 1, 5, 5), "3": (16, 6, 5, 5), "7": (120, 400), "9": (84, 120), "11": (10, 84)}


def jax(w: Weights, x: np.ndarray, y: np.ndarray) -> Job:
    import jax
    import jax.numpy as jnp
    from jax import lax

    def pool(h: Any) -> Any:
        return lax.reduce_window(h, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        h = lax.conv(x, p["0.weight"], (1, 1), "SAME") + p["0.bias"].reshape(1, -1, 1, 1)
        h = lax.conv(pool(jax.nn.relu(h)), p["3.weight"], (1, 1), "VALID") + p["3.bias"].reshape(1, -1, 1, 1)
        h = pool(jax.nn.relu(h)).reshape(len(x), -1)
        h = jax.nn.relu(h @ p["7.weight"].T + p["7.bias"])
        h = jax.nn.relu(h @ p["9.weight"].T + p["9.bias"])
        logp = jax.nn.log_softmax(h @ p["11.weight"].T + p["11.bias"])
        return -jnp.take_along_axis(logp, y[:, None], 1).mean()

    @jax.jit
    def update(p: Any, v: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        v = jax.tree.map(lambda v, g: MOMENTUM * v + g, v, g)
        return loss, jax.tree.map(lambda p, v: p - LR * v, p, v), v

    state: Any = []

    def renew() -> None:
        state[:] = {k: jnp.asarray(a) for k, a in w.items()}, {k: jnp.zeros_like(a) for k, a in w.items()}

    renew()
    x, y = jnp.asarray(x), jnp.asarray(y)

    def step() -> float:
        loss, *state[:] = update(*state, x, y)
        return float(loss)

    return step, renew


def tinygrad(w: Weights, x: np.ndarray, y: np.ndarray) -> Job:
    os.environ.setdefault("DEV", "CPU")  # its compiled CPU device: the fastest that it has here
    from tinygrad import Context, Tensor, TinyJit
    from tinygrad.nn.optim import SGD

    p = {k: Tensor(a).is_param_() for k, a in w.items()}
    optimizer = SGD(list(p.values()), lr=LR, momentum=MOMENTUM)
    images, labels = Tensor(x), Tensor(y.astype(np.int32))

    @TinyJit
    def update(x: Any, y: Any) -> Any:
        with Context(TRAINING=1):
            h = x.conv2d(p["0.weight"], p["0.bias"], padding=2).relu().max_pool2d(2)
            h = h.conv2d(p["3.weight"], p["3.bias"]).relu().max_pool2d(2).flatten(1)
            h = (h @ p["7.weight"].T + p["7.bias"]).relu()
            h = (h @ p["9.weight"].T + p["9.bias"]).relu()
            loss = (h @ p["11.weight"].T + p["11.bias"]).sparse_categorical_crossentropy(y)
            optimizer.zero_grad()
            loss.backward()
            return loss.realize(*optimizer.schedule_step())

    def renew() -> None:
        for k, a in w.items():
            p[k].assign(Tensor(a)).realize()
        for buffer in optimizer.b:
            buffer.assign(buffer.zeros_like()).realize()

    return lambda: float(update(images, labels).item()), renew


def dezero(w: Weights, x: np.ndarray, y: np.ndarray) -> Job:
    vars(np)["int"] = int  # DeZero 0.0.13 was written for NumPy 1, which had it
    import dezero.functions as F
    from dezero import Parameter, optimizers

    p = {k: Parameter(a.copy()) for k, a in w.items()}

    class Model:
        def params(self) -> Any:
            return p.values()

        def cleargrads(self) -> None:
            for q in p.values():
                q.cleargrad()

    model = Model()
    optimizer = optimizers.MomentumSGD(lr=LR, momentum=MOMENTUM).setup(model)

    def step() -> float:
        h = F.pooling(F.relu(F.conv2d(x, p["0.weight"], p["0.bias"], 1, 2)), 2, 2)
        h = F.flatten(F.pooling(F.relu(F.conv2d(h, p["3.weight"], p["3.bias"], 1, 0)), 2, 2))
        h = F.relu(F.linear(h, F.transpose(p["7.weight"]), p["7.bias"]))
        h = F.relu(F.linear(h, F.transpose(p["9.weight"]), p["9.bias"]))
        loss = F.softmax_cross_entropy(F.linear(h, F.transpose(p["11.weight"]), p["11.bias"]), y)
        model.cleargrads()
        loss.backward()
        optimizer.update()
        return float(loss.data)

    def renew() -> None:
        optimizer.vs.clear()
        for k, q in p.items():
            q.data = w[k].copy()

    return step, renew


def autograd(w: Weights, x: np.ndarray, y: np.ndarray) -> Job:
    import autograd.numpy as anp
    from autograd import value_and_grad
    from autograd.scipy.signal import convolve

    hot = np.eye(10, dtype=np.float32)[y]
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))

    def convolution(h: Any, weight: Any, bias: Any) -> Any:
        # as in its example convnet.py; its convolve flips the kernel, cross-correlation does not
        out = convolve(h, weight[:, :, ::-1, ::-1], axes=([2, 3], [2, 3]), dot_axes=([1], [1]), mode="valid")
        return out + bias.reshape(1, -1, 1, 1)

    def pool(h: Any) -> Any:
        n, c, rows, columns = h.shape
        return h.reshape(n, c, rows // 2, 2, columns // 2, 2).max(axis=(3, 5))

    def relu(h: Any) -> Any:
        return anp.maximum(h, 0)

    def loss_of(p: Any) -> Any:
        h = pool(relu(convolution(padded, p["0.weight"], p["0.bias"])))
        h = pool(relu(convolution(h, p["3.weight"], p["3.bias"]))).reshape(len(x), -1)
        h = relu(anp.dot(h, p["7.weight"].T) + p["7.bias"])
        h = relu(anp.dot(h, p["9.weight"].T) + p["9.bias"])
        h = anp.dot(h, p["11.weight"].T) + p["11.bias"]
        top = anp.max(h, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(h - top), axis=1)) + top[:, 0] - anp.sum(h * hot, axis=1))

    both = value_and_grad(loss_of)
    p, v = dict(w), {k: np.zeros_like(a) for k, a in w.items()}

    def step() -> float:
        loss, g = both(p)
        for k in p:
            v[k] = MOMENTUM * v[k] + g[k]
            p[k] = (p[k] - LR * v[k]).astype(np.float32)
        return float(loss)

    def renew() -> None:
        p.update(w)
        v.update({k: np.zeros_like(a) for k, a in w.items()})

    return step, renew


def mygrad(w: Weights, x: np.ndarray, y: np.ndarray) -> Job:
    import mygrad as mg
    from mygrad.nnet.activations import relu
    from mygrad.nnet.layers import conv_nd, max_pool
    from mygrad.nnet.losses import softmax_crossentropy

    p, v = {k: mg.tensor(a) for k, a in w.items()}, {k: np.zeros_like(a) for k, a in w.items()}

    def step() -> float:
        h = conv_nd(x, p["0.weight"], stride=1, padding=2) + p["0.bias"].reshape(1, -1, 1, 1)
        h = conv_nd(max_pool(relu(h), (2, 2), 2), p["3.weight"], stride=1) + p["3.bias"].reshape(1, -1, 1, 1)
        h = max_pool(relu(h), (2, 2), 2).reshape(len(x), -1)
        h = relu(mg.matmul(h, p["7.weight"].T) + p["7.bias"])
        h = relu(mg.matmul(h, p["9.weight"].T) + p["9.bias"])
        loss = softmax_crossentropy(mg.matmul(h, p["11.weight"].T) + p["11.bias"], y)
        loss.backward()
        for k, q in p.items():
            v[k] = MOMENTUM * v[k] + q.grad
            q.data -= LR * v[k]
        return float(loss)

    def renew() -> None:
        for k, q in p.items():
            q.data[...] = w[k]
            v[k][...] = 0

    return step, renew


PEERS = {"jax": jax, "tinygrad": tinygrad, "dezero": dezero, "autograd": autograd, "mygrad": mygrad}
