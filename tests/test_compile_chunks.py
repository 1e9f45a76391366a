"""Chunks of the batch: equal to the whole batch but for rounding, whatever the number of threads."""

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.replay.rewrite import Chunks


def lenet():
    return nn.LeNet5(generator=0)


def lenet_of_1998():
    return nn.LeNet5(activation="tanh", pool="avg", generator=0)


def with_dropout():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, generator=0), nn.ReLU(), nn.MaxPool2d(4), nn.Dropout(0.3, generator=1), nn.Flatten(),
        nn.Linear(288, 10, generator=2),
    )  # fmt: skip


def plain(logits, labels):
    return tl.cross_entropy(logits, labels)


def summed(logits, labels):
    return tl.cross_entropy(logits, labels, reduction="sum") * 0.01


def ignoring(logits, labels):
    return tl.cross_entropy(logits, labels, ignore_index=7)


def squares(logits, labels):
    return tl.mse_loss(logits, labels.reshape(-1, 1) * tl.ones(1, 10))


def training(make, loss, dtype, compiled, threads, batch=96):
    """The losses, logits and last gradients of ten steps."""
    model = make()
    for p in model.parameters():
        if p.dtype != dtype:
            p.__class__.__init__(p, p.numpy().astype(dtype))
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def step(images, labels):
        logits = model(images)
        found = loss(logits, labels)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
        return found, logits

    step = tl.compile(step) if compiled else step
    before, results = tl.get_num_threads(), []
    tl.set_num_threads(threads)
    try:
        for k in range(10):
            rng = np.random.default_rng(k)
            images, labels = rng.standard_normal((batch, 1, 28, 28)).astype(dtype), rng.integers(0, 10, batch)
            results += [t.detach().numpy().copy() for t in step(tl.tensor(images), tl.tensor(labels))]
    finally:
        tl.set_num_threads(before)
    if compiled:
        assert any(isinstance(part.op, Chunks) for part in step.guards[0].recording.steps)
    return results + [p.grad.numpy() for p in model.parameters()]


@pytest.mark.parametrize("loss", [plain, summed, ignoring, squares])
@pytest.mark.parametrize("make", [lenet, lenet_of_1998, with_dropout])
def test_ten_steps_agree_in_float64(make, loss):
    eager, chunks = (training(make, loss, np.float64, compiled, 1) for compiled in (False, True))
    for a, b in zip(eager, chunks, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(a).max())


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads):
    one, several = (training(lenet, plain, np.float32, True, n) for n in (1, threads))
    for a, b in zip(one, several, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("loss", [plain, ignoring])
def test_a_label_that_is_no_class_is_refused_as_ever(loss):
    model = lenet()
    step = tl.compile(lambda images, labels: loss(model(images), labels).detach())
    images, labels = tl.rand(64, 1, 28, 28, generator=0), np.arange(64) % 10
    for _ in range(3):
        step(images, tl.tensor(labels))
    labels[50] = 11
    with pytest.raises(tl.ArgumentError, match="but a target is 11"):
        step(images, tl.tensor(labels))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (1, 2, 3, 0)])
def test_chunks_of_batches_in_any_order_of_memory(order):
    scale = tl.tensor(np.float32(1.5))

    def function(x):
        h = tl.relu(x * scale)
        y = h.reshape(128, 3, 16)
        return (y * y).mean(), h

    compiled = tl.compile(function)
    for k in range(4):
        array = np.random.default_rng(k).standard_normal([(128, 3, 4, 4)[axis] for axis in order]).astype(np.float32)
        x = tl.tensor(array.transpose(np.argsort(order)))
        for a, b in zip(function(x), compiled(x), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)
    assert any(isinstance(step.op, Chunks) for step in compiled.guards[0].recording.steps)
