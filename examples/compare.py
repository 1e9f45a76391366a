"""Activations and optimisers compared, each in one picture. Run: python examples/compare.py (about a minute)."""

from functools import partial
from pathlib import Path

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim, training, visualize

STEPS = 400
train, test = (data.MNIST(Path(__file__).parent / "data", train=part) for part in (True, False))
batches = data.DataLoader(train[: 64 * STEPS], 64)
check = data.DataLoader(test[:2000], 500)


def history(model, optimizer):
    """Train a model on the batches; return a row for each step."""
    rows = []
    for step, (images, labels) in enumerate(batches, 1):
        loss = tl.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append({"step": step, "train_loss": loss.item()})
        if step % 40 == 0:
            rows[-1]["test_accuracy"] = training.evaluate(model, check).accuracy
    return rows


def compare(title, file, runs):
    """Train each model with its optimiser, and draw all of them in one picture."""
    histories = {}
    for name, (model, optimizer) in runs.items():
        histories[name] = history(model, optimizer(model.parameters()))
        print(f"{name}: {histories[name][-1]['test_accuracy']:.2%} after {STEPS} steps", flush=True)
    visualize.curves(histories, title).savefig(file, dpi=120)
    print(f"picture: {file}")


model = partial(nn.LeNet5, generator=0)
sgd = partial(optim.SGD, lr=0.01, momentum=0.9)
activations = ("relu", "leaky_relu", "elu", "tanh", "sigmoid")
optimizers = {
    "SGD": partial(optim.SGD, lr=0.02),
    "SGD with momentum": sgd,
    "RMSprop": partial(optim.RMSprop, lr=1e-3),
    "Adagrad": partial(optim.Adagrad, lr=2e-2),
    "Adam": partial(optim.Adam, lr=2e-3),
}
compare(
    "LeNet-5 on MNIST, by activation", "activations.png", {name: (model(activation=name), sgd) for name in activations}
)
compare(
    "LeNet-5 on MNIST, by optimiser", "optimizers.png", {name: (model(), make) for name, make in optimizers.items()}
)
