"""Two libraries that run one program, a network and its training, side by side: what differs first, and when.

A program is a generator function ``run(lib)`` that yields its model and its optimiser after each step. ``lib`` one of
those of ``network_libraries.py``.
"""

import importlib.util
import warnings

import numpy as np
from network_libraries import Difference, Library, Plain, Torch

# How large a difference may be at first, in units in the last place of the largest element of its kind, or of 1. A
# dozen layers round a few hundred times, normalisation and optimisers divide by square roots of small numbers.
UNITS = {"float64": 2.0**12, "float32": 2.0**8, "float16": 2.0**5}
GROWTH = 1.5  # from step to step
# What a judge may refuse, in the words of its errors: batch normalisation of one value, too rare to be avoided.
REFUSALS = ("Expected more than 1 value per channel", "in training a channel needs more than one value")
REFUSALS += ("does not require grad", "does not depend on anything that requires a gradient")  # all of it is frozen
CONFIRMED = 3  # data on which a case with kinks must differ: near a kink, rounding decides


class Refused(Exception):
    """The judge does not take the program: the case says nothing."""


def shown(value):
    """An array or a number of any library."""
    value = value.detach() if hasattr(value, "detach") else value
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def snapshot(lib, model, optimizer):
    """Everything that a step has made, in the order in which it is made, by kind and name."""
    found = {("loss", str(i)): shown(value) for i, value in enumerate(lib.figures)}
    lib.figures = []
    named = list(model.named_parameters())
    found |= {("gradient of", name): shown(p.grad) for name, p in named if p.grad is not None}
    found |= {("parameter", name): shown(p) for name, p in named}
    found |= {("buffer", name): shown(b) for name, b in model.named_buffers()}
    weights, groups, state = lib.give(model, optimizer)
    found |= {("names of", "state_dict"): np.array(sorted(weights))}
    # In float16 the squares of gradients have few bits, and an optimiser may keep them in another dtype.
    for i, values in state.items() if lib.rounded != np.float16 else ():
        found |= {(f"state {key} of", str(i)): shown(v) for key, v in values.items() if np.ndim(v)}
    for i, group in enumerate(groups):
        for key in ("lr", "momentum", "betas", "weight_decay"):
            if key in group:
                found["option", f"{key} of group {i}"] = np.float64(group[key])
    return found


def difference(ours, theirs, units, dtype):
    """The first thing that differs by more than so many units in the last place of a dtype; None if nothing does."""
    if ours.keys() != theirs.keys():
        odd = sorted(" ".join(key) for key in ours.keys() ^ theirs.keys())
        return f"{odd[0]}: only one has it"
    largest = {}
    for (kind, _), b in theirs.items():
        if b.dtype.kind == "f" and b.size:
            largest[kind] = max(largest.get(kind, 1.0), float(np.max(np.abs(b), initial=0.0, where=np.isfinite(b))))
    for key, b in theirs.items():
        a, name = ours[key], " ".join(key)
        if a.shape != b.shape:
            return f"{name}: has shape {a.shape}, expected {b.shape}"
        if b.dtype.kind != "f":
            if (a != b).any():
                return f"{name}: is {a}, expected {b}"
            continue
        atol = units * np.finfo(dtype if key[0] != "option" else np.float64).eps * largest.get(key[0], 1.0)
        a, b = a.astype(np.float64), b.astype(np.float64)
        if np.max(np.abs(a - b), initial=0.0) <= atol:
            continue
        if not np.allclose(a, b, rtol=0, atol=atol, equal_nan=True):
            with np.errstate(invalid="ignore"):
                at = np.nanargmax(np.where(np.isnan(a) != np.isnan(b), np.inf, np.where(a == b, 0, np.abs(a - b))))
            place = np.unravel_index(at, a.shape)
            where = f"[{', '.join(map(str, place))}]" if place else ""
            return f"{name}{where}: is {a[place]!s}, expected {b[place]!s}"
    return None


def lockstep(run, ours, theirs, units, exchange=None):
    """Run a program with two libraries; raises Difference at the first."""
    left, right, t = run(ours), run(theirs), 0
    while True:
        try:
            expected = next(right, None)
        except (Difference, AssertionError):
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            if any(words in what for words in REFUSALS):
                raise Refused(what) from error
            if theirs.ours:
                raise Difference(f"step {t}: raises {what}") from error
            raise Difference(f"step {t}: PyTorch refuses {what}") from error
        try:
            found = next(left, None)
        except Exception as error:
            raise Difference(f"step {t}: raises {type(error).__name__}: {error}") from error
        if expected is None:
            return
        a, b = snapshot(ours, *found), snapshot(theirs, *expected)
        what = difference(a, b, units * GROWTH**t, ours.rounded)
        if what:
            raise Difference(f"step {t}: {what}")
        if t == exchange:
            states = ours.give(*found), theirs.give(*expected)
            theirs.take(*expected, states[0])
            try:
                ours.take(*found, states[1])
            except Exception as error:
                raise Difference(f"step {t}, loading: raises {type(error).__name__}: {error}") from error
        t += 1


def has_torch():
    return importlib.util.find_spec("torch") is not None


def judges(dtype, plain):
    """The libraries that a dtype is compared with, as functions of the seed, and whether only the same bits will do."""
    if has_torch() and dtype != "float16":
        yield "PyTorch", lambda seed: Torch(seed, dtype), False
    if dtype != "float64":  # the judge of what rounds more is float64
        yield "float64", lambda seed: Library(seed, "float64", rounded=dtype), False
    if plain and dtype == "float64":
        yield "plain definitions", lambda seed: Plain(seed, dtype), False
    yield "the run that was not interrupted", lambda seed: Library(seed, dtype, resumes=False), True


def confirmed(run, libraries, seed, kinked, units, exchange=None):
    """Run a program with two libraries; with kinks a difference counts if other data show one as well."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for offset in range(CONFIRMED if kinked and units else 1):
            try:
                return lockstep(run, *(make(seed + offset) for make in libraries), units, exchange)
            except Difference as error:
                last = error
    raise last


def compare(run, seed, dtype="float64", exchange=None, kinked=False, slack=0.0, resumes=False, plain=True):
    """Run a program with the package and with all judges; raises Difference, or Refused if the judge refuses it."""
    for name, judge, exact in judges(dtype, plain):
        if exact and not resumes:
            continue
        units = 0.0 if exact else UNITS[dtype] + slack / np.finfo(dtype).eps
        swaps = exchange if name == "PyTorch" else None
        try:
            confirmed(run, (lambda seed: Library(seed, dtype), judge), seed, kinked, units, swaps)
        except Difference as error:
            raise Difference(f"{error} (by {name})") from error.__cause__
