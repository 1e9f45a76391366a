"""LeNet-5 learns to read handwritten digits, on gradients that tinygrad_lenet derives.

    python examples/lenet_mnist.py [--recipe best] [--resume] [--report FILE.html] [--live FILE.html] [--page FILE.html]

trains on the 60,000 images of MNIST, tests on the other 10,000, and writes a picture of the curves and the learned
weights. It reads from top to bottom: data, model, optimiser; a step, an epoch, evaluation, the training; the report;
checkpoints; the program. The model is in tinygrad_lenet/nn/lenet.py, as a forward pass only, and the options, which
`--help` lists, in lenet_mnist_options.py. first.py is the shortest program that learns the same, in 40 lines.

`--resume` continues a stopped run from its last checkpoint. With the same options, the result has the same bits as that
of a run that was never stopped. `--epochs` and `--lr` may be given anew: `--resume --epochs 12` trains a run of 8
epochs for four more; from there on, the learning rate follows the schedule of a run of 12.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import command_line
from command_line import option, picture_format

import tinygrad_lenet as tl
from tinygrad_lenet import data, files, nn, optim, training, visualize

try:
    import matplotlib  # noqa: F401  (draws the pictures)
    from tqdm import tqdm
except ModuleNotFoundError as missing:
    sys.exit(f"This example needs {missing.name}, one of its extras. Install them with:  pip install -e '.[examples]'")
from lenet_mnist_options import DATASETS, OPTIMIZERS, arguments, checkpoints

AUGMENT = data.RandomAffine(degrees=10, translate=0.07, scale=(0.9, 1.1), shear=10)
NOTHING = {"seen": 0, "loss": 0.0, "correct": 0, "seconds": 0.0}


class Run:
    """One training run: the objects whose state a checkpoint holds, and what is done with them."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed = args, seed

        # The data: images (N, 1, 28, 28), normalised, and labels (N,). Some of the training images may be held out.
        kind = DATASETS[args.dataset]
        root = args.data or (Path(__file__).parent / "data" if args.dataset == "mnist" else None)
        self.train_set, self.test_set = kind(root, train=True), kind(root, train=False)
        size, held = len(self.train_set), args.validation
        if held >= size:
            raise tl.ArgumentError(f"--validation must leave some of the {size} training images, got {held}")
        chosen, self.test_loaders = self.train_set, {"test": data.DataLoader(self.test_set, 500)}
        if held:
            chosen, others = data.random_split(self.train_set, [size - held, held], seed=0)
            self.test_loaders = {"validation": data.DataLoader(others, 500), **self.test_loaders}
        distort = AUGMENT if args.augment else None
        self.loader = data.DataLoader(chosen, args.batch_size, shuffle=True, seed=seed, transform=distort)

        # The model and its loss
        self.model = nn.LeNet5(activation=args.activation, pool=args.pool, batch_norm=args.batch_norm, generator=seed)
        self.loss = partial(tl.cross_entropy, label_smoothing=args.label_smoothing)

        # The optimiser. Its learning rate rises over a fifth of the steps, then falls to nearly 0.
        suited, make = OPTIMIZERS[args.optimizer]
        rate = args.lr or suited
        self.optimizer: optim.Optimizer = make(self.model.parameters(), rate, args.weight_decay)
        steps = args.epochs * len(self.loader)
        self.schedule = optim.OneCycleLR(self.optimizer, rate, steps, pct_start=0.2, cycle_momentum=False)
        self.average = training.ExponentialMovingAverage(self.model, args.average) if args.average else None

        self.forward_and_backward = tl.compile(self.gradients) if args.compile else self.gradients
        self.history: list[dict[str, float]] = []  # a row for each epoch
        self.sums = dict(NOTHING)  # of the current epoch
        self.rows: list[dict[str, float]] = []  # a row for each step of this program, for --live
        self.next_page = 0.0  # when --live rewrites its page

    def gradients(self, images: tl.Tensor, labels: tl.Tensor) -> tuple[tl.Tensor, tl.Tensor]:
        """Forward and backward: the logits, the loss, and the ``.grad`` of each parameter. ``--compile`` replays it."""
        logits = self.model(images)
        loss = self.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        return logits.detach(), loss.detach()

    def step(self, images: tl.Tensor, labels: tl.Tensor) -> None:
        """One step: forward, backward, update."""
        logits, loss = self.forward_and_backward(images, labels)
        training.check_finite(self.model, loss, images)
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update()
        correct = int((logits.numpy().argmax(1) == labels.numpy()).sum())
        self.last = {"train_loss": loss.item(), "train_accuracy": correct / len(labels)}
        self.sums["seen"] += len(labels)
        self.sums["loss"] += loss.item() * len(labels)
        self.sums["correct"] += correct

    def train_epoch(self) -> None:
        """One pass over the training set, or the rest of it after a resume."""
        state, every = self.loader.state_dict(), self.args.checkpoint_every
        epoch, first = state["epoch"], state["batch"]
        self.model.train()
        began = time.perf_counter()
        silent = True if self.args.quiet else None  # None: if there is no terminal
        name = f"epoch {epoch + 1}/{self.args.epochs}"
        with tqdm(self.loader, name, initial=first, unit="batch", leave=False, disable=silent) as batches:
            for number, (images, labels) in enumerate(batches, first + 1):
                try:
                    self.step(images, labels)
                except tl.GradientError as error:
                    raise tl.GradientError(
                        f"step {epoch * len(self.loader) + number} (epoch {epoch + 1}, batch {number} of "
                        f"{len(self.loader)}): {error}. Lower --lr; the last checkpoint is as it was"
                    ) from None
                loss, accuracy = (self.sums[name] / self.sums["seen"] for name in ("loss", "correct"))
                batches.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}", refresh=False)
                if self.args.live:
                    began += self.follow(epoch * len(self.loader) + number)
                if every and number % every == 0 and number < len(self.loader):
                    self.sums["seconds"] += time.perf_counter() - began
                    began = time.perf_counter()
                    self.save()
        self.sums["seconds"] += time.perf_counter() - began

    def evaluate(self, loader: data.DataLoader) -> training.Evaluation:
        """Loss and accuracy over a data set, with the averaged weights if there are any."""
        with self.average.applied() if self.average else contextlib.nullcontext():
            return training.evaluate(self.model, loader)

    def train(self) -> None:
        """Train the remaining epochs. After each, evaluate, note the results and write a checkpoint."""
        while len(self.history) < self.args.epochs:
            self.train_epoch()
            seen, seconds = self.sums["seen"], self.sums["seconds"]
            row = {"epoch": len(self.history) + 1}
            row |= {"train_loss": self.sums["loss"] / seen, "train_accuracy": self.sums["correct"] / seen}
            for part, loader in self.test_loaders.items():
                found = self.evaluate(loader)
                row |= {f"{part}_loss": found.loss, f"{part}_accuracy": found.accuracy}
            row |= {"seconds": round(seconds, 3), "images_per_second": round(seen / seconds, 1)}
            self.history.append(row)
            self.sums = dict(NOTHING)
            self.save()
            if self.args.live:
                self.write_live(refresh=3 if len(self.history) < self.args.epochs else None)
            text = f"epoch {row['epoch']}/{self.args.epochs}:  "
            for part in ("train", *self.test_loaders):
                text += f"{part} loss {row[f'{part}_loss']:.4f}, accuracy {row[f'{part}_accuracy']:.2%};  "
            self.say(f"{text}{row['seconds']:.1f} s, {row['images_per_second']:,.0f} images/s")

    def say(self, text: str) -> None:
        """Print a text, but not with --quiet."""
        if not self.args.quiet:
            print(text, flush=True)

    def follow(self, step: int) -> float:
        """Note a step, and rewrite the page of --live, for at most a fifth of the time. Return the seconds it took."""
        self.rows.append({"step": step, **self.last})
        began = time.perf_counter()
        if began < self.next_page:
            return 0.0
        self.write_live(refresh=3)
        took = time.perf_counter() - began
        self.next_page = began + 5 * took
        return took

    def write_live(self, refresh: int | None = None) -> None:
        """Write the HTML page of --live: the curves so far, the first kernels, and the worst of 500 test images."""
        classes, part = self.test_set.classes, range(min(500, len(self.test_set)))
        found = self.evaluate(data.DataLoader(data.Subset(self.test_set, part), 500))
        self.rows[-1] |= {"test_loss": found.loss, "test_accuracy": found.accuracy}
        pixels = self.test_set.images[: len(part), None]
        sections = [
            (f"Step {self.rows[-1]['step']:,}, tested on {len(part)} images", visualize.curves(self.rows)),
            ("First layer", visualize.kernels(self.model.conv1.weight)),
            ("Worst mistakes", visualize.mistakes(pixels, found.labels, found.logits, classes, 10)),
        ]
        files.write(self.args.live, visualize.html_report("LeNet5 is learning", sections, refresh).encode())

    def write_report(self, title: str) -> None:
        """Write the HTML page of --report."""
        found = self.evaluate(self.test_loaders["test"])
        pixels, first = self.test_set.images[:, None], next(iter(self.test_loaders["test"]))[0][:1]
        sections = [
            ("Learning", visualize.curves(self.history)),
            ("Layers", nn.summary(self.model, first.shape)),
            ("Confusion", visualize.confusion(found.confusion, self.test_set.classes)),
            ("Mistakes", visualize.mistakes(pixels, found.labels, found.logits, self.test_set.classes)),
            ("First layer", visualize.kernels(self.model.conv1.weight)),
            ("A digit on its way", visualize.feature_maps(self.model.eval(), first)),
        ]
        files.write(self.args.report, visualize.html_report(title, sections).encode())

    def write_page(self, title: str) -> None:
        """Write the HTML page of --page, with the first test images."""
        test = self.test_set
        examples = test.images[:20], test.labels[:20]
        with self.average.applied() if self.average else contextlib.nullcontext():
            visualize.page(self.model, self.args.page, title, test.classes, examples, mean=test.mean, std=test.std)

    def parts(self) -> dict[str, Any]:
        """The objects with a state_dict."""
        parts = {"model": self.model, "optimizer": self.optimizer, "loader": self.loader, "schedule": self.schedule}
        return {**parts, "average": self.average} if self.average else parts

    def save(self) -> None:
        """Write a checkpoint."""
        state = {name: part.state_dict() for name, part in self.parts().items()}
        own = {"seed": self.seed, "settings": settings(self.args), "history": self.history, "sums": self.sums}
        tl.save_checkpoint(checkpoints(self.args)[self.seed], {**state, **own})

    def resume(self, state: dict[str, Any]) -> str:
        """Restore the state of a checkpoint, and return a text about the options that changed."""
        base = self.schedule.state_dict()["base_lrs"]
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.history, self.sums = state["history"], state["sums"]
        then, now = state["settings"], settings(self.args)
        changed = [name for name in sorted(GIVEN_ANEW) if then[name] != now[name]]
        if not changed:
            return ""
        # The new schedule at the same step. Without "lrs", the rates follow from its formula.
        self.schedule.load_state_dict({"last_epoch": state["schedule"]["last_epoch"], "base_lrs": base})
        texts = [f"{option(name)} is {shown(now[name])}, was {shown(then[name])}" for name in changed]
        return f" From here on, {'; '.join(texts)}; the learning rate follows the new schedule."


# The options that must not change when a run is resumed, but for those that may be given anew.
SETTINGS = ["epochs", "batch_size", "lr", "optimizer", "weight_decay", "label_smoothing", "activation", "pool"]
SETTINGS += ["batch_norm", "augment", "average", "validation", "dataset", "compile"]
GIVEN_ANEW = {"epochs", "lr"}
GONE = {"model": "lenet5", "accumulate": 1}  # options of earlier versions, and the values that can be continued


def settings(args: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(args, name) for name in SETTINGS}


def shown(value: Any) -> str:
    """The value of an option, for a message."""
    return "the default" if value is None else str(value)


def resumable(args: argparse.Namespace, seed: int) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, or None if it begins anew.

    Raises:
        ArgumentError: the run cannot go on with these options.
        DataError: the file is damaged, or a checkpoint of another program.
    """
    path = checkpoints(args)[seed]
    if not args.resume or not path.exists():
        return None
    state: dict[str, Any] = tl.load_checkpoint(path)
    parts = {"model", "optimizer", "loader", "schedule", "seed", "settings", "history", "sums"}
    if not isinstance(state, dict) or not parts <= state.keys():
        raise tl.DataError(f"{path} is a checkpoint of another program; give the one that this program wrote")
    then = {"compile": False, **GONE, **state["settings"], "seed": state["seed"]}
    if gone := [f"{option(k)} {then[k]}" for k in GONE if then[k] != GONE[k]]:
        which = "which this program no longer has"
        raise tl.ArgumentError(f"{path} is of a run with {', '.join(gone)}, {which}; begin anew without --resume")
    now = {"seed": seed, **settings(args)}
    if differ := [k for k in now if then.get(k) != now[k] and k not in GIVEN_ANEW & args.given]:
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


def description(args: argparse.Namespace) -> dict[str, str]:
    """The description saved with the weights: the network, its options and the data set."""
    dataset, options = DATASETS[args.dataset], {n: str(getattr(args, n)) for n in ("activation", "pool", "batch_norm")}
    images = {"dataset": dataset.__name__, "mean": str(dataset.mean), "std": str(dataset.std)}
    return {"model": "LeNet5", **options, **images, "classes": ", ".join(dataset.classes)}


def summary(accuracies: list[float]) -> str:
    """The mean of the accuracies and, if there are several, its 95 % confidence interval after Student."""
    mean = f"{statistics.mean(accuracies):.2%}"
    if len(accuracies) == 1:
        return mean
    # the 97.5 % quantile of the t distribution for 1, 2, ... degrees of freedom
    t = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)[min(len(accuracies), 10) - 2]
    half = 100 * t * statistics.stdev(accuracies) / len(accuracies) ** 0.5
    each = ", ".join(f"{accuracy:.2%}" for accuracy in accuracies)
    return f"{mean} +- {half:.2f} (95 % confidence; {len(accuracies)} seeds: {each})"


def main(argv: list[str] | None = None) -> None:
    with command_line.program("lenet_mnist.py"):
        args = arguments(argv, __doc__.split("\n")[0])
        start, kind = time.perf_counter(), f"{args.activation} and {args.pool} pooling"
        histories: dict[str, list[dict[str, float]]] = {}
        states = [(seed, path, resumable(args, seed)) for seed, path in checkpoints(args).items()]
        for seed, path, state in states:  # each was checked before the first run trains
            run = Run(args, seed)
            count = sum(parameter.size for parameter in run.model.parameters())
            run.say(f"LeNet5 with {count:,} parameters, {kind}, seed {seed}; {run.train_set}, {run.test_set}")
            if state:
                changed, batch = run.resume(state), state["loader"]["batch"]
                run.say(f"Going on after epoch {len(run.history)}, batch {batch}, of {path}.{changed}")
            elif args.resume:
                run.say(f"There is no checkpoint {path} yet: beginning anew.")
            try:
                run.train()
            except KeyboardInterrupt:
                run.say(f"\nStopped in epoch {len(run.history) + 1}; what was learned so far is kept.")
                break
            finally:
                histories |= {f"seed {seed}": run.history} if run.history else {}

        averaged = run.average is not None and run.history
        tl.save(args.save, run.average.averages if averaged else run.model, description(args))
        if histories:
            accuracies = summary([history[-1]["test_accuracy"] for history in histories.values()])
            title = f"LeNet5 on {type(run.train_set).__name__}: {kind}, {args.optimizer}, batches of {args.batch_size}"
            figure = visualize.curves(histories if args.runs > 1 else run.history, title)
            files.write(args.plot, lambda file: figure.savefig(file, format=picture_format(args.plot), dpi=120))
            if args.report:
                run.write_report(title)
            if args.page:
                run.write_page(title)
            print(f"Test accuracy {accuracies} after {time.perf_counter() - start:.0f} seconds.")
            run.say(f"Curves: {args.plot}" + (f"\nReport: {args.report}" if args.report else ""))
            if args.page:
                run.say(f"Page to draw on: {args.page}")
        run.say(f"Weights: {args.save}")


if __name__ == "__main__":
    main()
