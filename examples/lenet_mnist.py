"""LeNet-5 learns to read handwritten digits, on gradients that tinygrad_lenet derives.

    python examples/lenet_mnist.py [--recipe best] [--resume] [--report FILE.html]

trains on the 60,000 images of MNIST, tests on the other 10,000, and writes a picture of the curves and the learned
weights. The model is written as a forward pass only: see tinygrad_lenet/nn/lenet.py. `--help` lists the options.

`--resume` continues a stopped run from its last checkpoint. The result has the same bits as that of a run that was
never stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_lenet as tl
from tinygrad_lenet import data, files, nn, optim, training, visualize

try:
    from matplotlib.backend_bases import FigureCanvasBase  # visualize needs it too: fail now, not after training
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    sys.exit(f"This example needs {missing.name}, one of its extras. Install them with:  pip install -e '.[examples]'")

DATASETS = {"mnist": data.MNIST, "fashion": data.FashionMNIST}
# For each optimiser, its constructor and its peak learning rate, chosen on a validation split of the training set.
OPTIMIZERS = {
    "sgd": (0.03, lambda ps, lr, decay: optim.SGD(ps, lr=lr, momentum=0.9, nesterov=True, weight_decay=decay)),
    "adam": (2e-3, lambda ps, lr, decay: optim.Adam(ps, lr=lr)),
    "adamw": (2e-3, lambda ps, lr, decay: optim.AdamW(ps, lr=lr)),
    "rmsprop": (1e-3, lambda ps, lr, decay: optim.RMSprop(ps, lr=lr)),
    "adagrad": (2e-2, lambda ps, lr, decay: optim.Adagrad(ps, lr=lr)),
}
# The defaults that --recipe sets; chosen on a validation split, never on the test set.
RECIPES: dict[str, dict[str, Any]] = {
    "quick": {},
    "plain": {"epochs": 20, "lr": 0.02, "weight_decay": 1e-3, "average": 0.999, "label_smoothing": 0.1},
    "best": {"epochs": 30, "lr": 0.03, "weight_decay": 5e-4, "average": 0.999, "augment": True, "label_smoothing": 0.1},
}
AUGMENT = data.RandomAffine(degrees=10, translate=0.07, scale=(0.9, 1.1), shear=10)


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--recipe", choices=RECIPES, default="quick", help="a set of defaults; options given as well take precedence")
    add("--epochs", type=int, default=8, help="passes over the training set")
    add("--batch-size", type=int, default=64, help="images in a step")
    add("--accumulate", type=int, default=1, metavar="N", help="split batches into N parts and add up their gradients")
    add("--lr", type=float, help="peak learning rate; by default, one that suits the optimizer")
    add("--optimizer", choices=OPTIMIZERS, default="sgd")
    add("--weight-decay", type=float, default=1e-4, help="for sgd")
    add("--label-smoothing", type=float, default=0.0, metavar="E", help="share of the target spread over all classes")
    add("--activation", choices=["relu", "tanh", "sigmoid", "leaky_relu", "elu"], default="relu")
    add("--pool", choices=["max", "avg"], default="max")
    add("--batch-norm", action="store_true", help="normalise after each convolution")
    add("--augment", action=argparse.BooleanOptionalAction, default=False, help="distort the training images")
    add("--draw-augmentation", type=Path, metavar="FILE", help="only draw examples of the distortions")
    add("--draw-graph", type=Path, metavar="FILE", help="only draw the graph of the network and its loss (.svg)")
    add("--average", type=float, default=0.0, metavar="D", help="test with a moving average of the weights, decay D")
    add("--seed", type=int, default=0, help="of the initial weights and the order of the images")
    add("--runs", type=int, default=1, metavar="N", help="train N times, with consecutive seeds")
    add("--validation", type=int, default=0, metavar="N", help="hold out N training images to measure on")
    add("--patience", type=int, default=0, metavar="N", help="stop after N epochs without a better validation accuracy")
    add("--dataset", choices=DATASETS, default="mnist")
    add("--data", type=Path, metavar="DIR", help="folder to search for the data first")
    add("--checkpoint", type=Path, metavar="FILE", default=Path("lenet_mnist.ckpt"), help="where to write checkpoints")
    add("--checkpoint-every", type=int, default=0, metavar="STEPS", help="also write one after every STEPS steps")
    add("--resume", action="store_true", help="continue from the checkpoint, if there is one")
    add("--plot", type=Path, metavar="FILE", default=Path("lenet_mnist.png"), help="where to draw the curves")
    add("--report", type=Path, metavar="FILE", help="where to write an HTML page with all results")
    add("--save", type=Path, metavar="FILE", default=Path("lenet_mnist.npz"), help="where to write the weights")
    add("--summary", action="store_true", help="print the table of the network's layers first")
    add("--metrics", type=Path, metavar="FILE", help="where to write one JSON object for each epoch")
    add("--quiet", action="store_true", help="print only the result")
    add("--json", action="store_true", help="print only JSON: an object for each epoch and for the result")
    parser.set_defaults(**RECIPES[parser.parse_known_args(argv)[0].recipe])
    args = parser.parse_args(argv)
    counts = {"epochs": 1, "batch_size": 1, "seed": 0, "runs": 1, "accumulate": 1, "validation": 0, "patience": 0}
    for name, least in {**counts, "checkpoint_every": 0}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(args, name)}")
    if args.lr is not None and not args.lr > 0:
        parser.error(f"--lr must be above 0, got {args.lr}")
    if not 0 <= args.label_smoothing < 1:
        parser.error(f"--label-smoothing must lie in [0, 1), got {args.label_smoothing}")
    if not 0 <= args.average < 1:
        parser.error(f"--average must lie in [0, 1), got {args.average}")
    if args.patience and not args.validation:
        parser.error("--patience needs --validation: the test set must not decide when to stop")
    pictures = {"", *(f".{kind}" for kind in FigureCanvasBase.get_supported_filetypes())}
    endings = {"save": {".npz", ".safetensors"}, "draw_graph": {".svg", ".dot", ".md"}}
    named: dict[str, str] = {}
    for name in ("plot", "save", "metrics", "checkpoint", "report", "draw_augmentation", "draw_graph"):
        file, option = getattr(args, name), f"--{name.replace('_', '-')}"
        if file is None:
            continue
        path = os.path.realpath(file)
        ending, allowed = (file.suffix, endings[name]) if name in endings else (file.suffix.lower(), pictures)
        if not os.path.isdir(os.path.dirname(path)):  # fail now, not after training
            parser.error(f"the folder of {file} does not exist; make it first")
        if (os.path.exists(file) or os.path.islink(path)) and not os.path.isfile(file):
            parser.error(f"{file} is not a regular file, and is not written over; choose another name")
        if name not in ("metrics", "checkpoint", "report") and ending not in allowed:
            parser.error(f"{option} must end in {', '.join(sorted(allowed - {''}))}, got {file}")
        if named.setdefault(path, option) != option:
            parser.error(f"{named[path]} and {option} are one file, {file}; choose two")
    return args


class Run:
    """One training run: the state that a checkpoint holds, and the training loop."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed = args, seed
        here = Path(__file__).parent / "data"
        root = args.data or (here if args.dataset == "mnist" else None)
        kind = DATASETS[args.dataset]
        self.train_set, self.test_set = (kind(root, train=part) for part in (True, False))
        chosen, held = self.train_set, []
        if args.validation:
            chosen, held = data.random_split(
                self.train_set, [len(self.train_set) - args.validation, args.validation], seed=0
            )
        self.loader = data.DataLoader(
            chosen, args.batch_size, shuffle=True, seed=seed, transform=AUGMENT if args.augment else None
        )
        self.test_loader = data.DataLoader(self.test_set, 500)
        self.validation_loader = data.DataLoader(held, 500) if held else None
        self.model = nn.LeNet5(activation=args.activation, pool=args.pool, batch_norm=args.batch_norm, generator=seed)
        self.loss = partial(tl.cross_entropy, label_smoothing=args.label_smoothing)
        suited, make = OPTIMIZERS[args.optimizer]
        rate = args.lr or suited
        self.optimizer: optim.Optimizer = make(self.model.parameters(), rate, args.weight_decay)
        steps = args.epochs * len(self.loader)
        self.schedule = optim.OneCycleLR(self.optimizer, rate, steps, pct_start=0.2, cycle_momentum=False)
        self.average = training.ExponentialMovingAverage(self.model, args.average) if args.average else None
        self.stopping = training.EarlyStopping(args.patience) if args.patience else None
        self.history: list[dict[str, float]] = []
        self.sums = {"seen": 0, "loss": 0.0, "correct": 0, "seconds": 0.0}  # of the current epoch

    # Checkpoints

    @property
    def path(self) -> Path:
        """The checkpoint's file. With --runs, each run has its own."""
        path: Path = self.args.checkpoint
        return path if self.args.runs == 1 else path.with_stem(f"{path.stem}-{self.seed}")

    @property
    def settings(self) -> dict[str, Any]:
        """The options that must not change when a run is resumed."""
        names = "epochs batch_size accumulate lr optimizer weight_decay label_smoothing activation pool batch_norm"
        names += " augment average validation patience dataset"
        return {name: getattr(self.args, name) for name in names.split()}

    def parts(self) -> dict[str, Any]:
        """The objects with a state_dict."""
        parts = {"model": self.model, "optimizer": self.optimizer, "loader": self.loader, "schedule": self.schedule}
        return {k: v for k, v in {**parts, "average": self.average, "stopping": self.stopping}.items() if v is not None}

    def save(self) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self.parts().items()}
        own = {"seed": self.seed, "settings": self.settings, "history": self.history, "sums": self.sums}
        tl.save_checkpoint(self.path, {**state, **own})

    def resume(self) -> None:
        """Restore the state from the checkpoint."""
        state = tl.load_checkpoint(self.path)
        then, now = (
            {"seed": s, **settings} for s, settings in ((state["seed"], state["settings"]), (self.seed, self.settings))
        )
        # Checkpoints of earlier versions have one more option, the model.
        differ = [f"--{k.replace('_', '-')} {then.get(k)}, not {now[k]}" for k in now if then.get(k) != now[k]]
        if differ:
            raise tl.ArgumentError(f"{self.path} is of a run with {'; '.join(differ)}; resume with the same options")
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.history, self.sums = state["history"], state["sums"]

    # Training

    def step(self, images: tl.Tensor, labels: tl.Tensor) -> None:
        """One step: forward, backward, update. With --accumulate, the gradients of the parts add up."""
        self.optimizer.zero_grad()
        size = len(labels)
        per_part = -(-size // self.args.accumulate)
        for start in range(0, size, per_part):
            some, answers = images[start : start + per_part], labels[start : start + per_part]
            logits = self.model(some)
            loss = self.loss(logits, answers)
            scale = len(answers) / size
            (loss * scale if scale != 1 else loss).backward()
            training.check_finite(self.model, loss, some)
            self.sums["loss"] += loss.item() * len(answers)
            self.sums["correct"] += int((logits.numpy().argmax(1) == answers.numpy()).sum())
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update()
        self.sums["seen"] += size

    def train_epoch(self) -> None:
        """One pass over the training set, or the rest of it after a resume."""
        state = self.loader.state_dict()
        epoch, first = state["epoch"], state["batch"]
        self.model.train()
        began = time.perf_counter()
        silent = True if self.args.quiet or self.args.json else None  # None: if there is no terminal
        with tqdm(
            self.loader,
            f"epoch {epoch + 1}/{self.args.epochs}",
            total=len(self.loader),
            initial=first,
            unit="batch",
            leave=False,
            disable=silent,
            file=sys.stderr,
        ) as bar:
            for number, (images, labels) in enumerate(bar, first + 1):
                try:
                    self.step(images, labels)
                except tl.GradientError as error:
                    raise tl.GradientError(
                        f"step {epoch * len(self.loader) + number} (epoch {epoch + 1}, batch {number} of "
                        f"{len(self.loader)}): {error}. Lower --lr; the last checkpoint is as it was"
                    ) from None
                bar.set_postfix_str(
                    f"loss {self.sums['loss'] / self.sums['seen']:.4f}, "
                    f"accuracy {self.sums['correct'] / self.sums['seen']:.2%}",
                    refresh=False,
                )
                if (
                    self.args.checkpoint_every
                    and number % self.args.checkpoint_every == 0
                    and number < len(self.loader)
                ):
                    now = time.perf_counter()
                    self.sums["seconds"] += now - began
                    began = now
                    self.save()
        self.sums["seconds"] += time.perf_counter() - began

    def evaluate(self, loader: data.DataLoader) -> training.Evaluation:
        """Loss and accuracy over a data set, with the averaged weights if there are any."""
        with self.average.applied() if self.average else contextlib.nullcontext():
            return training.evaluate(self.model, loader)

    def train(self, note: Callable[..., None]) -> None:
        """Train the remaining epochs, and call ``note`` with each new row of the history."""
        while len(self.history) < self.args.epochs and not (self.stopping and self.stopping.stop):
            self.train_epoch()
            seen, seconds = self.sums["seen"], self.sums["seconds"]
            row = {
                "epoch": len(self.history) + 1,
                "train_loss": self.sums["loss"] / seen,
                "train_accuracy": self.sums["correct"] / seen,
            }
            for name, loader in (("validation", self.validation_loader), ("test", self.test_loader)):
                if loader is not None:
                    found = self.evaluate(loader)
                    row.update({f"{name}_loss": found.loss, f"{name}_accuracy": found.accuracy})
            row.update({"seconds": round(seconds, 3), "images_per_second": round(seen / seconds, 1)})
            self.history.append(row)
            self.sums = {"seen": 0, "loss": 0.0, "correct": 0, "seconds": 0.0}
            if self.stopping:
                self.stopping.step(row["validation_accuracy"])
            self.save()
            self.say(row)
            note(row)

    def say(self, row: dict[str, float]) -> None:
        """Print the results of an epoch."""
        if self.args.json:
            print(json.dumps({"seed": self.seed, **row}), flush=True)
        elif not self.args.quiet:
            parts = [
                f"{part} loss {row[f'{part}_loss']:.4f}, accuracy {row[f'{part}_accuracy']:.2%};  "
                for part in ("train", "validation", "test")
                if f"{part}_loss" in row
            ]
            print(
                f"epoch {row['epoch']}/{self.args.epochs}:  {''.join(parts)}"
                f"{row['seconds']:.1f} s, {row['images_per_second']:,.0f} images/s",
                flush=True,
            )

    # Results

    def write_report(self, title: str) -> None:
        """Write the HTML page of --report."""
        found = self.evaluate(self.test_loader)
        pixels, first = self.test_set.images[:, None], next(iter(self.test_loader))[0][:1]
        page = visualize.html_report(
            title,
            [
                ("Learning", visualize.curves(self.history)),
                ("Layers", nn.summary(self.model, first.shape)),
                ("Confusion", visualize.confusion(found.confusion, self.test_set.classes)),
                ("Mistakes", visualize.mistakes(pixels, found.labels, found.logits, self.test_set.classes)),
                ("First layer", visualize.kernels(self.model.conv1.weight)),
                ("A digit on its way", visualize.feature_maps(self.model.eval(), first)),
            ],
        )
        files.write(self.args.report, page.encode())


def summarise(accuracies: list[float]) -> dict[str, Any]:
    """The mean of the accuracies and, if there are several, its 95 % confidence interval after Student."""
    result: dict[str, Any] = {"test_accuracy": statistics.mean(accuracies)}
    if len(accuracies) > 1:  # the 97.5 % quantile of the t distribution for 1, 2, ... degrees of freedom
        t = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)[min(len(accuracies), 10) - 2]
        half = t * statistics.stdev(accuracies) / math.sqrt(len(accuracies))
        result.update(confidence_95=half, runs=accuracies)
    return result


def save_picture(path: Path, figure: Any, dpi: int) -> None:
    """Write a figure in the format of the path's ending."""
    files.write(path, lambda file: figure.savefig(file, format=path.suffix[1:] or "png", dpi=dpi))


def draw_augmentation(train_set: data.MNIST, path: Path) -> None:
    """Draw ten digits and the result of each transform."""
    images = train_set[:10][0]
    rows: dict[str, Any] = {
        "as they are": lambda x, _: x,
        "affine": AUGMENT,
        "elastic": data.ElasticDistortion(),
        "erasing": data.RandomErasing(p=1),
        "noise": data.GaussianNoise(0.5),
        "all of these": data.Compose(
            [AUGMENT, data.ElasticDistortion(20), data.RandomErasing(), data.GaussianNoise(0.2)]
        ),
    }
    pictures = [transform(images, np.random.default_rng(0))[:, 0] for transform in rows.values()]
    names = [name if i == 0 else "" for name in rows for i in range(10)]
    save_picture(path, visualize.tiles(np.concatenate(pictures), columns=10, names=names), 80)


def draw_graph(this: Run, path: Path) -> None:
    """Draw the graph of a training step on eight images, with the norms of the gradients."""
    images, labels = (part[:8] for part in next(iter(this.loader)))
    loss = this.loss(this.model(images), labels)
    view = visualize.graph(loss, this.model)
    loss.backward()
    view.save(path)


def description(args: argparse.Namespace) -> dict[str, str]:
    """What one has to know to use the weights: the network and its options, and what it was trained on."""
    dataset, options = DATASETS[args.dataset], {n: str(getattr(args, n)) for n in ("activation", "pool", "batch_norm")}
    images = {"dataset": dataset.__name__, "mean": str(dataset.mean), "std": str(dataset.std)}
    return {"model": "LeNet5", **options, **images, "classes": ", ".join(dataset.classes)}


def run(args: argparse.Namespace) -> None:
    say = (lambda *_: None) if args.quiet or args.json else lambda text: print(text, flush=True)
    start, accuracies, stopped = time.perf_counter(), [], False
    rows: list[str] = []

    def note(*history: dict[str, float]) -> None:
        """Add rows to the metrics, and write the file again."""
        rows.extend(f"{json.dumps(row)}\n" for row in history)
        if args.metrics:
            files.write(args.metrics, "".join(rows).encode())

    for seed in range(args.seed, args.seed + args.runs):
        this = Run(args, seed)
        count = sum(parameter.size for parameter in this.model.parameters())
        kind = f"{args.activation} and {args.pool} pooling"
        say(f"LeNet5 with {count:,} parameters, {kind}, seed {seed}; {this.train_set}, {this.test_set}")
        if args.summary:
            print(nn.summary(this.model, next(iter(this.test_loader))[0][:1].shape))
        if args.resume and this.path.exists():
            this.resume()
            batch = this.loader.state_dict()["batch"]
            say(f"Going on after epoch {len(this.history)}, batch {batch}, of {this.path}.")
            note(*this.history)
        try:
            this.train(note)
        except KeyboardInterrupt:
            stopped = True
            say(f"\nStopped in epoch {len(this.history) + 1}; what was learned so far is kept.")
        if this.history:
            accuracies.append(this.history[-1]["test_accuracy"])
        if stopped:
            break

    averaged = this.average is not None and this.history
    tl.save(args.save, this.average.averages if averaged else this.model, description(args))
    if accuracies:
        result = {**summarise(accuracies), "seconds": round(time.perf_counter() - start, 1)}
        if args.json:
            print(json.dumps(result))
        else:
            spread = ""
            if len(accuracies) > 1:
                each = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
                spread = f" ± {100 * result['confidence_95']:.2f} (95 % confidence; {len(accuracies)} seeds: {each})"
            print(f"Test accuracy {result['test_accuracy']:.2%}{spread} after {result['seconds']:.0f} seconds.")
        how = f"{args.activation}, {args.pool} pooling, {args.optimizer}, batches of {args.batch_size}"
        title = f"LeNet5 on {type(this.train_set).__name__}: {how}"
        save_picture(args.plot, visualize.curves(this.history, title), 120)
        say(f"Curves: {args.plot}")
        if args.report:
            this.write_report(title)
            say(f"Report: {args.report}")
    say(f"Weights: {args.save}")


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    try:
        if args.draw_augmentation:
            draw_augmentation(Run(args, args.seed).train_set, args.draw_augmentation)
        elif args.draw_graph:
            draw_graph(Run(args, args.seed), args.draw_graph)
        else:
            run(args)
    except (tl.TinygradLenetError, OSError) as error:
        sys.exit(f"lenet_mnist.py: {error}")


if __name__ == "__main__":
    main()
