"""The command line of lenet_mnist.py: its options, and what is refused before a run begins."""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any

import command_line
from command_line import option

from tinygrad_lenet import data, optim

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


def arguments(argv: list[str] | None, description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--recipe", choices=RECIPES, default="quick", help="a set of defaults; options given as well take precedence")
    add("--epochs", type=int, default=8, help="passes over the training set")
    add("--batch-size", type=int, default=64, help="images in a step")
    add("--lr", type=float, help="peak learning rate; by default, one that suits the optimizer")
    add("--optimizer", choices=OPTIMIZERS, default="sgd")
    add("--weight-decay", type=float, default=1e-4, help="for sgd alone")
    add("--label-smoothing", type=float, default=0.0, metavar="E", help="share of the target spread over all classes")
    add("--activation", choices=["relu", "tanh", "sigmoid", "leaky_relu", "elu"], default="relu")
    add("--pool", choices=["max", "avg"], default="max")
    add("--batch-norm", action="store_true", help="normalise after each convolution")
    add("--augment", action=argparse.BooleanOptionalAction, default=False, help="distort the training images")
    add("--compile", action="store_true", help="record the forward and backward pass, and replay it: faster")
    add("--average", type=float, default=0.0, metavar="D", help="test with a moving average of the weights, decay D")
    add("--seed", type=int, default=0, help="of the initial weights and the order of the images")
    add("--runs", type=int, default=1, metavar="N", help="train with N consecutive seeds; the weights are of the last")
    add("--validation", type=int, default=0, metavar="N", help="hold out N training images to measure on")
    add("--dataset", choices=DATASETS, default="mnist")
    add("--data", type=command_line.path, metavar="DIR", help="folder to search for the data first")
    file = partial(add, type=command_line.path, metavar="FILE")
    file("--checkpoint", default=Path("lenet_mnist.ckpt"), help="where to write checkpoints")
    add("--checkpoint-every", type=int, default=0, metavar="STEPS", help="also write one after every STEPS steps")
    add("--resume", action="store_true", help="go on from the checkpoint, if any; --epochs and --lr may be given anew")
    file("--plot", default=Path("lenet_mnist.png"), help="where to draw the curves")
    file("--report", help="where to write an HTML page with all results (.html)")
    file("--live", help="where to write an HTML page that shows the training as it goes on (.html)")
    file("--page", help="where to write an HTML page on which to draw digits for the network (.html)")
    file("--save", default=Path("lenet_mnist.npz"), help="where to write the weights (.npz, .safetensors)")
    add("--quiet", action="store_true", help="print only the result")
    parser.set_defaults(**RECIPES[parser.parse_known_args(argv)[0].recipe])
    args = parser.parse_args(argv)
    args.given = command_line.given(parser, argv)
    check(parser, args)
    check_files(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse options that fail later, contradict each other, or would be ignored."""
    for name in ("epochs", "batch_size", "runs", "seed", "validation", "checkpoint_every"):
        least = int(name in ("epochs", "batch_size", "runs"))
        if getattr(args, name) < least:
            parser.error(f"{option(name)} must be at least {least}, got {getattr(args, name)}")
    for name, most in (("epochs", 10**9), ("runs", 1000)):
        if getattr(args, name) > most:
            parser.error(f"{option(name)} must be at most {most}, got {getattr(args, name)}")
    if args.lr is not None and not 0 < args.lr < math.inf:
        parser.error(f"--lr must be above 0 and finite, got {args.lr}")
    if not 0 <= args.weight_decay < math.inf:
        parser.error(f"--weight-decay must be at least 0 and finite, got {args.weight_decay}")
    for name in ("label_smoothing", "average"):
        if not 0 <= getattr(args, name) < 1:
            parser.error(f"{option(name)} must lie in [0, 1), got {getattr(args, name)}")
    if args.data and not args.data.is_dir():
        parser.error(f"--data: there is no folder {args.data}")
    if args.optimizer != "sgd" and "weight_decay" in args.given:
        parser.error(f"--weight-decay is for sgd; --optimizer {args.optimizer} would ignore it")
    if args.optimizer != "sgd" and "lr" in RECIPES[args.recipe] and "lr" not in args.given:
        parser.error(f"--recipe {args.recipe} has the learning rate of sgd; give --lr for {args.optimizer}")


def check_files(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse files that could not be written after training."""
    for name in ("report", "live", "page"):
        path = getattr(args, name)
        if path and path.suffix.lower() not in (".htm", ".html"):
            parser.error(f"--{name} must end in .htm, .html, got {path}")
    command_line.check_picture(parser, "--plot", args.plot)
    command_line.check_weights(parser, args.save)
    named = [
        (option(name), getattr(args, name))
        for name in ("plot", "save", "report", "live", "page")
        if getattr(args, name)
    ]
    command_line.check_outputs(parser, [*named, *(("--checkpoint", path) for path in checkpoints(args).values())])


def checkpoints(args: argparse.Namespace) -> dict[int, Path]:
    """The file of the checkpoint of each seed."""
    path, seeds = args.checkpoint, range(args.seed, args.seed + args.runs)
    return {n: path if args.runs == 1 else path.parent / f"{path.stem}-{n}{path.suffix}" for n in seeds}
