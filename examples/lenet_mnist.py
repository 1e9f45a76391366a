"""LeNet-5 learns to read handwritten digits, on gradients that tinygrad_lenet derives.

    python examples/lenet_mnist.py [--recipe best] [--resume] [--report FILE.html]

trains on the 60,000 images of MNIST, tests on the other 10,000, and writes a picture of the curves and the learned
weights. The model is written as a forward pass only: see tinygrad_lenet/nn/lenet.py. `--help` lists the options.

`--resume` continues a stopped run from its last checkpoint. With the same options, the result has the same bits as that
of a run that was never stopped. `--epochs`, `--lr` and `--patience` may be given anew: `--resume --epochs 12` trains a
run of 8 epochs for four more. From its present step on, the learning rate then follows the schedule of the new options.
This is not one run of 12 epochs, whose first 8 would have followed that schedule too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import numpy as np
from command_line import option

import tinygrad_lenet as tl
from tinygrad_lenet import data, files, nn, optim, training, visualize

try:
    from lenet_mnist_options import DATASETS, OPTIMIZERS, arguments, checkpoint_path, picture_format
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    sys.exit(f"This example needs {missing.name}, one of its extras. Install them with:  pip install -e '.[examples]'")

AUGMENT = data.RandomAffine(degrees=10, translate=0.07, scale=(0.9, 1.1), shear=10)
# The options that must not change when a run is resumed, but for those that may be given anew.
SETTINGS = ["epochs", "batch_size", "accumulate", "lr", "optimizer", "weight_decay", "label_smoothing", "activation"]
SETTINGS += ["pool", "batch_norm", "augment", "average", "validation", "patience", "dataset"]
GIVEN_ANEW = {"epochs", "lr", "patience"}


def shown(value: Any) -> str:
    """The value of an option, for a message."""
    return "the default" if value is None else str(value)


def resumable(args: argparse.Namespace, seed: int) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, or None if it begins anew.

    Raises:
        ArgumentError: the run cannot go on with these options.
        DataError: the file is damaged, or a checkpoint of another program.
    """
    path = checkpoint_path(args, seed)
    if not args.resume or not path.exists():
        return None
    state: dict[str, Any] = tl.load_checkpoint(path)
    parts = {"model", "optimizer", "loader", "schedule", "seed", "settings", "history", "sums"}
    if not isinstance(state, dict) or not parts <= state.keys():
        raise tl.DataError(f"{path} is a checkpoint of another program; give the one that this program wrote")
    then = {**state["settings"], "seed": state["seed"]}
    now = {"seed": seed, **{name: getattr(args, name) for name in SETTINGS}}
    # Checkpoints of earlier versions have one more option, the model.
    differ = [k for k in now if then.get(k) != now[k] and k not in GIVEN_ANEW & args.given]
    if differ:
        text = "; ".join(f"{option(k)} {shown(then.get(k))}, not {shown(now[k])}" for k in differ)
        may = ", ".join(map(option, sorted(GIVEN_ANEW)))
        raise tl.ArgumentError(
            f"{path} is of a run with {text}; resume with the same options ({may} may be given anew)"
        )
    done, batch = len(state["history"]), state["loader"]["batch"]
    if args.epochs < done + bool(batch):
        raise tl.ArgumentError(
            f"{path} is past epoch {done}, batch {batch}, so --epochs {args.epochs} is too few; give at least "
            f"{done + bool(batch)}, or begin anew without --resume"
        )
    return state


class Run:
    """One training run: the state that a checkpoint holds, and the training loop."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed = args, seed
        here = Path(__file__).parent / "data"
        root = args.data or (here if args.dataset == "mnist" else None)
        kind = DATASETS[args.dataset]
        self.train_set, self.test_set = (kind(root, train=part) for part in (True, False))
        chosen, held = self.train_set, []
        if args.validation >= len(self.train_set):
            raise tl.ArgumentError(
                f"--validation must leave some of the {len(self.train_set)} training images, got {args.validation}"
            )
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
    def settings(self) -> dict[str, Any]:
        """The options that a checkpoint holds."""
        return {name: getattr(self.args, name) for name in SETTINGS}

    def parts(self) -> dict[str, Any]:
        """The objects with a state_dict."""
        parts = {"model": self.model, "optimizer": self.optimizer, "loader": self.loader, "schedule": self.schedule}
        return {k: v for k, v in {**parts, "average": self.average, "stopping": self.stopping}.items() if v is not None}

    def save(self) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self.parts().items()}
        own = {"seed": self.seed, "settings": self.settings, "history": self.history, "sums": self.sums}
        tl.save_checkpoint(checkpoint_path(self.args, self.seed), {**state, **own})

    def resume(self, state: dict[str, Any]) -> str:
        """Restore the state of a checkpoint, and return a text about the options that changed."""
        schedule = self.schedule.state_dict()
        for name, part in self.parts().items():
            if name != "stopping":
                part.load_state_dict(state[name])
        self.history, self.sums = state["history"], state["sums"]
        changed = [name for name in SETTINGS if state["settings"].get(name) != self.settings[name]]
        if {"epochs", "lr"} & set(changed):  # the new schedule at the same step; without "lrs", by its formula
            step = state["schedule"]["last_epoch"]
            self.schedule.load_state_dict({"last_epoch": step, "base_lrs": schedule["base_lrs"]})
        if self.stopping:  # the patience may be another
            for row in self.history:
                self.stopping.step(row["validation_accuracy"])
        then, now = state["settings"], self.settings
        texts = [f"{option(name)} is {shown(now[name])}, was {shown(then.get(name))}" for name in changed]
        if {"epochs", "lr"} & set(changed):
            texts.append("the learning rate follows the new schedule")
        return f" From here on, {'; '.join(texts)}." if changed else ""

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
    files.write(path, lambda file: figure.savefig(file, format=picture_format(path), dpi=dpi))


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
    """The description saved with the weights: the network, its options and the data set."""
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

    seeds = range(args.seed, args.seed + args.runs)
    for seed, state in [(seed, resumable(args, seed)) for seed in seeds]:  # each is checked before the first one trains
        this = Run(args, seed)
        count = sum(parameter.size for parameter in this.model.parameters())
        kind = f"{args.activation} and {args.pool} pooling"
        say(f"LeNet5 with {count:,} parameters, {kind}, seed {seed}; {this.train_set}, {this.test_set}")
        if args.summary:
            print(nn.summary(this.model, next(iter(this.test_loader))[0][:1].shape))
        if state:
            changed = this.resume(state)
            batch = this.loader.state_dict()["batch"]
            say(f"Going on after epoch {len(this.history)}, batch {batch}, of {checkpoint_path(args, seed)}.{changed}")
            note(*this.history)
        elif args.resume:
            say(f"There is no checkpoint {checkpoint_path(args, seed)} yet: beginning anew.")
        try:
            this.train(note)
        except KeyboardInterrupt:
            stopped = True
            say(f"\nStopped in epoch {len(this.history) + 1}; what was learned so far is kept.")
        if this.stopping and this.stopping.stop and len(this.history) < args.epochs:
            say(
                f"Stopped after epoch {len(this.history)} of {args.epochs}: no better validation accuracy since epoch "
                f"{this.stopping.best_epoch}. To go on, resume with a larger --patience."
            )
        if this.history:
            accuracies.append(this.history[-1]["test_accuracy"])
        if stopped:
            break

    averaged = this.average is not None and this.history
    tl.save(args.save, this.average.averages if averaged else this.model, description(args))
    if accuracies:
        result = {**summarise(accuracies), "seconds": round(time.perf_counter() - start, 1)}
        how = f"{args.activation}, {args.pool} pooling, {args.optimizer}, batches of {args.batch_size}"
        title = f"LeNet5 on {type(this.train_set).__name__}: {how}"
        save_picture(args.plot, visualize.curves(this.history, title), 120)
        if args.report:
            this.write_report(title)
        if args.json:
            print(json.dumps(result))
        else:
            spread = ""
            if len(accuracies) > 1:
                each = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
                spread = f" +- {100 * result['confidence_95']:.2f} (95 % confidence; {len(accuracies)} seeds: {each})"
            print(f"Test accuracy {result['test_accuracy']:.2%}{spread} after {result['seconds']:.0f} seconds.")
        say(f"Curves: {args.plot}")
        if args.report:
            say(f"Report: {args.report}")
    say(f"Weights: {args.save}")


def main(argv: list[str] | None = None) -> None:
    with command_line.program("lenet_mnist.py"):
        args = arguments(argv, __doc__.split("\n")[0])
        if args.draw_augmentation:
            draw_augmentation(Run(args, args.seed).train_set, args.draw_augmentation)
        elif args.draw_graph:
            draw_graph(Run(args, args.seed), args.draw_graph)
        else:
            run(args)
        if (drawing := args.draw_augmentation or args.draw_graph) and not args.quiet:
            print(f"Drawing: {drawing}")


if __name__ == "__main__":
    main()
