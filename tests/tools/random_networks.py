"""Random networks, trained for ten steps beside PyTorch or plain definitions: what differs first is shrunk and printed.

    python tests/tools/random_networks.py [--runs N] [--seed S] [--only I] [--no-shrink]

A network is a stack of layers and blocks, a loss, an optimiser with groups, up to two schedules, clipping, frozen and
unused parameters, several batches a step, and something that happens in the middle: the states change places with
PyTorch's, the training goes on from a file, a parameter comes or goes. Network I of seed S is always the same. Each
layer, loss, optimiser and schedule takes its turn. The tables are in ``network_parts.py``, what they become in
``network_programs.py``, and the judges in ``network_judges.py``.
"""

import argparse
import collections
import random
import re
import sys
import time
import warnings
from dataclasses import dataclass, replace

import network_judges
import numpy as np
from network_judges import UNITS, Difference, Refused, compare, confirmed
from network_parts import INNER, LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, TOKENS
from network_programs import EVENTS, FILES, MIDDLE, Case, Part, layer_text, program, stack_texts, trained

ROOM = 400  # elements of a sample


def everywhere(layers):
    """All parts, with those inside of blocks."""
    for part in layers:
        yield part
        yield from everywhere(part.body)


def settings(case):
    """The arguments of ``compare``."""
    rows = [LAYERS[p.name] for p in everywhere(case.layers) if p.name in LAYERS]
    return {
        "seed": case.seed,
        "dtype": case.dtype,
        "exchange": MIDDLE if case.event == "exchange" else None,
        "kinked": any(row.kinked for row in rows) or LOSSES[case.loss.name].kinked,
        "slack": max([0.0, *(row.slack for row in rows)]) if case.dtype == "float64" else 0.0,
        "resumes": case.event in FILES,
    }


def script(case):
    """A program that shows a failure, to be run from the folder of the tests."""
    given = ", ".join(f"{k}={v!r}" for k, v in settings(case).items() if k == "seed" or v not in (None, False, 0.0))
    return f"from network_judges import compare\n\n\n{program(case)}\n\ncompare(run, {given})\n"


def compiled(case):
    space = {}
    exec(compile(program(case), "<network>", "exec"), space)
    return space["run"]


def check(case, plain=True):
    """Raises Difference, Refused, or Unfit."""
    compare(compiled(case), plain=plain, **settings(case))


def exact(case):
    """The same case in float64, without what only the package does."""
    return replace(case, dtype="float64", event="" if case.event in ("exchange", *FILES) else case.event)


def between(case, one, other):
    """The same with two judges, of which none need be the package."""
    chosen = settings(case)
    units = UNITS[case.dtype] + chosen["slack"] / np.finfo(case.dtype).eps
    libraries = (lambda seed: one(seed, case.dtype), lambda seed: other(seed, case.dtype))
    confirmed(compiled(case), libraries, case.seed, chosen["kinked"], units)


# Cases


def turn(names, seed, i, what):
    """Each name in its turn, in another order each round."""
    order = sorted(names)
    random.Random(f"{seed}/{what}/{i // len(order)}").shuffle(order)
    return order[i % len(order)]


def part(r, name, body=()):
    return Part(name, r.randrange(10**6), body=body)


COMMON = [name for name in LAYERS if name != "LeNet5"]


def grown(r, kind, shape, count, deep=1):
    """Layers that fit one another."""
    layers = []
    while len(layers) < count:
        if deep and kind != TOKENS and r.random() < 0.25:
            body, *_ = grown(r, kind, shape, r.randint(1, 2), deep - 1)
            new = part(r, r.choice(["Sequential", "Residual", "Twice", "Chain", "Spare"]), tuple(body))
        else:
            fitting = [n for n in COMMON if kind in LAYERS[n].kinds]
            new = part(r, r.choices(fitting, [1 if LAYERS[n].kinds == (2, 3, 4) else 3 for n in fitting])[0])
        _, then, out = layer_text(new, kind, shape)
        if np.prod(out[1:]) <= ROOM:
            layers.append(new)
            kind, shape = then, out
    return layers, kind, shape


def unbounded(schedule):
    return replace(schedule, without=frozenset({"eta_min"}), body=tuple(map(unbounded, schedule.body)))


def draw(seed, i):
    """Network ``i`` of a seed."""
    r = random.Random(f"{seed}/{i}")
    featured = part(r, turn(LAYERS, seed, i, "layer"))
    row = LAYERS[featured.name]
    kind = r.choice(row.kinds)
    n = r.choice([1, 2, 3, 4, 5]) if r.random() < 0.95 else 0
    sample = row.shape or {
        TOKENS: (r.randint(1, 5),),
        2: (r.randint(1, 6),),
        3: (r.randint(1, 4), r.randint(2, 8)),
        4: (r.randint(1, 4), r.randint(2, 7), r.randint(2, 7)),
    }.get(kind)
    shape = (2, *sample)
    before, then, out = ([], kind, shape) if kind == TOKENS or row.shape else grown(r, kind, shape, r.randint(0, 2))
    if then not in row.kinds:
        before, then, out = [], kind, shape
    if r.random() < 0.2 and kind != TOKENS and not row.shape:
        featured = part(r, r.choice(["Residual", "Twice", "Chain", "Spare"]), (featured,))
    _, then, out = layer_text(featured, then, out)
    after, then, out = grown(r, then, out, 0 if row.shape else r.randint(0, 2))
    layers = [*before, featured, *after]
    loss = part(r, turn(LOSSES, seed, i, "loss"))
    if len(out) not in LOSSES[loss.name].ranks:
        layers.append(Part("Flatten", without=frozenset({"end_dim"})))
        _, then, out = layer_text(layers[-1], then, out)
    if r.random() < 0.7 or trained(stack_texts(layers, kind, shape)[0]) < 2:
        layers.append(part(r, "Linear"))
        _, then, out = layer_text(layers[-1], then, out)
    names = {p.name for p in everywhere(layers)}
    # PyTorch refuses no examples there, and its multi_margin_loss of none is what stood in memory.
    if names & {"RNN", "GRU", "LSTM", "BatchNorm1d", "BatchNorm2d"} or loss.name == "MultiMarginLoss":
        n = n or 1
    count = r.choice([0, 1, 1, 2, 2])
    schedules = []
    for k in range(count):
        name = turn(SCHEDULES, seed, 2 * i + k, "schedule")
        body = tuple(part(r, r.choice(INNER)) for _ in range(r.randint(1, 3))) if name == "SequentialLR" else ()
        schedules.append(part(r, name, body))
    dtype = r.choice(["float64"] * 6 + ["float32"] * 3 + ["float16"])
    event = r.choice(["", "", turn(EVENTS, seed, i, "event")])
    if count > 1 or event == "by hand":  # a cosine that finds a rate below its least one makes it negative
        schedules = [unbounded(schedule) for schedule in schedules]
    if event == "add" and trained(stack_texts(layers, kind, shape)[0]) < 3:
        event = ""
    return Case(
        seed=r.randrange(10**6),
        shape=(n, *sample),
        layers=tuple(layers),
        loss=loss,
        optimizer=part(r, turn(OPTIMIZERS, seed, i, "optimizer")),
        targets=r.randrange(2),
        tokens=kind == TOKENS,
        dtype=dtype,
        schedules=tuple(schedules) if event != "add" else (),
        groups=r.choice([1, 1, 2, 3]),
        frozen=r.choice(["", "", "", "before", "after"]),
        clip=r.choice(["", "", "", "value", "", ", norm_type=1.0", ', norm_type=float("inf")', ", norm_type=2.0"]),
        batches=r.choice([1, 1, 2]),
        evaluates=r.random() < 0.3,
        event=event,
    )


# Shrinking


def smaller(case):
    """Simpler cases, the boldest first."""
    layers = case.layers
    for k in range(len(layers)):
        yield replace(case, layers=layers[:k] + layers[k + 1 :])
        for inner in [layers[k].body] if layers[k].body else []:
            yield replace(case, layers=layers[:k] + inner + layers[k + 1 :])
            for j in range(len(inner)):
                fewer = replace(layers[k], body=inner[:j] + inner[j + 1 :])
                yield replace(case, layers=(*layers[:k], fewer, *layers[k + 1 :]))
    for name in ("event", "clip", "frozen"):
        if getattr(case, name):
            yield replace(case, **{name: ""})
    for name, simple in (("groups", 1), ("batches", 1), ("evaluates", False), ("targets", 0), ("dtype", "float64")):
        if getattr(case, name) != simple:
            yield replace(case, **{name: simple})
    for k in range(len(case.schedules)):
        yield replace(case, schedules=case.schedules[:k] + case.schedules[k + 1 :])
    for simple in (Part("SGD"), Part("Adam")):
        if case.optimizer.name not in ("SGD", "Adam"):
            yield replace(case, optimizer=simple)
    if case.loss.name != "MSELoss":
        yield replace(case, loss=Part("MSELoss", without=frozenset({"reduction"})))
    for steps in (1, 2, 3, 5, MIDDLE + 2, case.steps - 1):
        if 0 < steps < case.steps:
            yield replace(case, steps=steps)
    for axis, n in enumerate(case.shape):
        for fewer in (1, 2, n - 1):
            if 0 < fewer < n:
                yield replace(case, shape=(*case.shape[:axis], fewer, *case.shape[axis + 1 :]))
    yield from plainer(case)


def plainer(case):
    """Cases with one option fewer."""
    kind = TOKENS if case.tokens else len(case.shape)
    shape = (2, *case.shape[1:])
    for k, layer in enumerate(case.layers):
        if layer.name in LAYERS and not layer.body:
            for name in sorted(layer.options(LAYERS[layer.name].draw, shape) - {"eps"}):
                fewer = replace(layer, without=layer.without | {name})
                yield replace(case, layers=(*case.layers[:k], fewer, *case.layers[k + 1 :]))
        _, kind, shape = layer_text(layer, kind, shape)
    for name in sorted(case.loss.options(LOSSES[case.loss.name].draw, shape)):
        yield replace(case, loss=replace(case.loss, without=case.loss.without | {name}))
    row = OPTIMIZERS[case.optimizer.name]
    for name in sorted(case.optimizer.options(row, case.dtype) - {"eps"}):
        yield replace(case, optimizer=replace(case.optimizer, without=case.optimizer.without | {name}))
    for k, schedule in enumerate(case.schedules):
        if SCHEDULES[schedule.name]:
            for name in sorted(schedule.options(SCHEDULES[schedule.name]) - {"gamma", "milestones", "step_size"}):
                fewer = replace(schedule, without=schedule.without | {name})
                yield replace(case, schedules=(*case.schedules[:k], fewer, *case.schedules[k + 1 :]))


def kind_of(error):
    """What of a difference stays the same while it shrinks."""
    found = re.search(r"(raises|refuses) \w+", str(error))
    return found[0] if found else ""


def shrink(case, error, seconds=20.0):
    """The smallest case found that fails alike, and its difference."""
    end, going = time.monotonic() + seconds, True
    while going and time.monotonic() < end:
        going = False
        for other in smaller(case):
            if time.monotonic() > end:
                break
            try:
                check(other)
            except Difference as found:
                if kind_of(found) == kind_of(error):
                    case, error, going = other, found, True
                    break
            except Exception:  # not a network
                continue
    return case, error


@dataclass
class Failure:
    """A network on which the libraries differ."""

    case: Case
    error: Difference
    where: str

    def __str__(self):
        return f"{self.where}: {self.error}\n\n{script(self.case)}"


def search(seed, numbers, shrinks=True, counts=None):
    """The first network that fails; None if none does."""
    counts = collections.Counter() if counts is None else counts
    for i in numbers:
        case = draw(seed, i)
        try:
            check(case, plain=i % 3 == 0 or not network_judges.has_torch())
            counts["passed"] += 1
        except Refused as refusal:
            counts[f"refused: {refusal}"[:90]] += 1
        except Difference as error:
            if shrinks:
                case, error = shrink(case, error)
            return Failure(case, error, f"network {i} of seed {seed}")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--no-shrink", action="store_true")
    given = parser.parse_args()
    counts, start, failures, i = collections.Counter(), time.perf_counter(), 0, 0
    end = given.runs
    if given.only is not None:
        i, end = given.only, given.only + 1
        print(script(draw(given.seed, i)))
    while i < end and failures < 10:
        failure = search(given.seed, range(i, end), not given.no_shrink, counts)
        if failure is None:
            break
        failures += 1
        print(failure, flush=True)
        i = int(failure.where.split()[1]) + 1
    for what, count in counts.most_common():
        print(f"{count:6} {what}")
    print(f"{failures} failures in {time.perf_counter() - start:.0f} s")
    return bool(failures)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
