"""LeNet-5 learns to read handwritten digits, on gradients that tinygrad_lenet derives.

    python examples/lenet_mnist.py

trains on the 60,000 images of MNIST, tests on the other 10,000, and leaves a picture of the curves and the learned
weights. The model is written as a forward pass only: see tinygrad_lenet/nn/lenet.py. `--help` lists the options.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim

try:
    from matplotlib.figure import Figure  # a figure without a window: works where there is no display
    from matplotlib.ticker import MaxNLocator
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    sys.exit(f"This example needs {missing.name}, one of its extras. Install them with:  pip install -e '.[examples]'")

DATASETS = {"mnist": data.MNIST, "fashion": data.FashionMNIST}
# For each optimiser its peak learning rate, found on a validation split of the training set, and how to make it.
OPTIMIZERS = {
    "sgd": (0.03, lambda parameters, lr: optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)),
    "adam": (2e-3, lambda parameters, lr: optim.Adam(parameters, lr=lr)),
    "adamw": (2e-3, lambda parameters, lr: optim.AdamW(parameters, lr=lr)),
    "rmsprop": (1e-3, lambda parameters, lr: optim.RMSprop(parameters, lr=lr)),
    "adagrad": (2e-2, lambda parameters, lr: optim.Adagrad(parameters, lr=lr)),
}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training set")
    parser.add_argument("--batch-size", type=int, default=64, help="images in a step")
    parser.add_argument("--lr", type=float, help="peak learning rate; if not given, one that suits the optimizer")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    parser.add_argument("--activation", choices=["relu", "tanh", "sigmoid", "leaky_relu", "elu"], default="relu")
    parser.add_argument("--pool", choices=["max", "avg"], default="max")
    parser.add_argument("--batch-norm", action="store_true", help="normalise after each convolution")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the order of the images")
    parser.add_argument("--dataset", choices=DATASETS, default="mnist")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder to look for the data in first")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", default=Path("lenet_mnist.png"), help="where to draw the curves"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", default=Path("lenet_mnist.npz"), help="where to keep the weights"
    )
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="where to write one JSON object for each epoch")
    args = parser.parse_args(argv)
    for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}")
    if args.lr is not None and not args.lr > 0:
        parser.error(f"--lr must be above 0, got {args.lr}")
    for file in (args.plot, args.save, args.metrics):  # better now than after a minute of training
        if file is not None and not file.resolve().parent.is_dir():
            parser.error(f"the folder of {file} does not exist; make it first")
    return args


def load(args: argparse.Namespace) -> tuple[data.MNIST, data.MNIST]:
    """The training and the test set: MNIST comes with the repository."""
    here = Path(__file__).parent / "data"
    root = args.data or (here if args.dataset == "mnist" else None)
    return DATASETS[args.dataset](root, train=True), DATASETS[args.dataset](root, train=False)


def train_epoch(
    model: nn.Module, loader: data.DataLoader, optimizer: optim.Optimizer, schedule, title: str
) -> tuple[float, float]:
    """One pass over the training set; mean loss and accuracy on the way, each image as the model then was."""
    model.train()
    seen, loss_sum, correct = 0, 0.0, 0
    with tqdm(
        loader, title, unit="image", unit_scale=loader.batch_size, leave=False, disable=None, file=sys.stderr
    ) as bar:
        for images, labels in bar:
            logits = model(images)
            loss = tl.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            seen += len(labels)
            loss_sum += loss.item() * len(labels)
            correct += int((logits.numpy().argmax(1) == labels.numpy()).sum())
            bar.set_postfix_str(f"loss {loss_sum / seen:.4f}, accuracy {correct / seen:.2%}", refresh=False)
    return loss_sum / seen, correct / seen


@tl.no_grad()
def evaluate(model: nn.Module, dataset: data.MNIST) -> tuple[float, float]:
    """Mean loss and accuracy over a data set."""
    model.eval()
    loss_sum, correct = 0.0, 0
    for images, labels in data.DataLoader(dataset, batch_size=500):
        logits = model(images)
        loss_sum += tl.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.numpy().argmax(1) == labels.numpy()).sum())
    return loss_sum / len(dataset), correct / len(dataset)


def draw_curves(history: list[dict[str, float]], title: str, path: Path) -> None:
    """Loss and accuracy over the epochs, training and test."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    epochs = [row["epoch"] for row in history]
    for axes, quantity, factor in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        for part, style in (("train", "o--"), ("test", "o-")):
            values = [factor * row[f"{part}_{quantity}"] for row in history]
            axes.plot(
                epochs,
                values,
                style,
                label=f"{part}, last {values[-1]:.2f} %" if factor > 1 else f"{part}, last {values[-1]:.4f}",
            )
        axes.set(xlabel="epoch", ylabel="accuracy (%)" if factor > 1 else "cross-entropy")
        if factor == 1:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3, which="both")
        axes.legend(loc="upper right" if factor == 1 else "lower right")
    figure.savefig(path, dpi=120)


def run(args: argparse.Namespace) -> None:
    train, test = load(args)
    model = nn.LeNet5(activation=args.activation, pool=args.pool, batch_norm=args.batch_norm, generator=args.seed)
    loader = data.DataLoader(train, args.batch_size, shuffle=True, seed=args.seed)
    suited, make = OPTIMIZERS[args.optimizer]
    optimizer = make(model.parameters(), args.lr or suited)
    schedule = optim.OneCycleLR(
        optimizer, args.lr or suited, total_steps=args.epochs * len(loader), pct_start=0.2, cycle_momentum=False
    )
    count = sum(parameter.size for parameter in model.parameters())
    print(f"LeNet-5 with {count:,} parameters, {args.activation} and {args.pool} pooling; {train}, {test}", flush=True)

    history: list[dict[str, float]] = []
    metrics = args.metrics.open("w") if args.metrics else None
    start = time.perf_counter()
    try:
        for epoch in range(1, args.epochs + 1):
            began = time.perf_counter()
            train_loss, train_accuracy = train_epoch(model, loader, optimizer, schedule, f"epoch {epoch}/{args.epochs}")
            seconds = time.perf_counter() - began
            test_loss, test_accuracy = evaluate(model, test)
            history.append(
                {
                    "epoch": epoch,
                    "train_loss": train_loss,
                    "train_accuracy": train_accuracy,
                    "test_loss": test_loss,
                    "test_accuracy": test_accuracy,
                    "seconds": round(seconds, 3),
                    "images_per_second": round(len(train) / seconds, 1),
                }
            )
            print(
                f"epoch {epoch}/{args.epochs}:  train loss {train_loss:.4f}, accuracy {train_accuracy:.2%};  "
                f"test loss {test_loss:.4f}, accuracy {test_accuracy:.2%};  "
                f"{seconds:.1f} s, {len(train) / seconds:,.0f} images/s",
                flush=True,
            )
            if metrics:
                print(json.dumps(history[-1]), file=metrics, flush=True)
    except KeyboardInterrupt:
        print(f"\nStopped in epoch {len(history) + 1}; what was learned so far is kept.")
    finally:
        if metrics:
            metrics.close()

    np.savez(args.save, **model.state_dict())
    if history:
        print(f"Test accuracy {history[-1]['test_accuracy']:.2%} after {time.perf_counter() - start:.0f} seconds.")
        kind = f"{args.activation}, {args.pool} pooling, {args.optimizer}, batches of {args.batch_size}"
        draw_curves(history, f"LeNet-5 on {type(train).__name__}: {kind}", args.plot)
        print(f"Curves: {args.plot}")
    print(f"Weights: {args.save}")


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    try:
        run(args)
    except (tl.TinygradLenetError, OSError) as error:
        sys.exit(f"lenet_mnist.py: {error}")


if __name__ == "__main__":
    main()
