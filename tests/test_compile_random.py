"""Random networks and programs, eager and compiled: the same bits, whether replayed or refused."""

import collections
import random
import warnings
from dataclasses import replace
from functools import partial

import network_judges
import numpy as np
import pytest
import random_networks
from hypothesis import settings
from network_libraries import Library
from network_programs import Unfit
from programs import Maker
from random_networks import draw, script
from random_programs import Ours

import tinygrad_lenet as tl

BUDGET = settings().max_examples
SEED = 0 if settings().derandomize else random.SystemRandom().randrange(10**6)


class Compiled(Library):
    """The package, with the training step, or only the model, compiled."""

    def __init__(self, seed, dtype, counts):
        super().__init__(seed, dtype)
        self.steps, self.shapes, self.counts_of_calls = {}, {}, counts

    def learn(self, model, x, loss, kind):
        def step(x, y):
            value = loss(model(x), y)
            (value.mean() if value.ndim else value).backward()
            return value.detach()

        whole = self.seed % 2 == 0
        key = id(model), id(loss), model.training
        if key not in self.steps:
            self.steps[key] = tl.compile(step if whole else model), model, loss
        step = self.steps[key][0]
        if not whole:
            super().learn(step, x, loss, kind)
        elif x.shape not in self.shapes:  # the target needs the shape of the output
            super().learn(model, x, loss, kind)
            with tl.no_grad():
                model.eval()
                self.shapes[x.shape] = tuple(model(x).shape)
                model.train()
        else:
            self.figures.append(step(x, self.target(kind, self.shapes[x.shape], self.ignored(loss))))
        self.counts_of_calls["replayed"] += step.replayed > 0


@pytest.mark.parametrize("share", range(2))
def test_random_networks_train_to_the_same_bits(share):
    counts = collections.Counter()
    for i in range(share, BUDGET, 2):
        case = draw(SEED, i)
        try:
            run = random_networks.compiled(case)
        except Unfit:
            continue
        libraries = [partial(Compiled, dtype=case.dtype, counts=counts), partial(Library, dtype=case.dtype)]
        # The gradient of a model's output is copied, and may lie otherwise in memory: then sums are rounded otherwise.
        units = 0 if case.seed % 2 == 0 else network_judges.UNITS[case.dtype]
        try:
            network_judges.confirmed(run, libraries, case.seed, False, units)
        except network_judges.Refused:
            continue
        except network_judges.Difference as error:
            pytest.fail(f"network {i} of seed {SEED}: {error}\n\n{script(case)}")
        counts["networks"] += 1
    assert counts["networks"] > 0.8 * BUDGET / 2
    assert counts["replayed"] > counts["networks"], counts  # steps, of up to ten in each network


def values_and_gradients(program):
    """A function of the leaves of a random program."""

    def function(*leaves):
        given = {leaf.name: x.clone() for leaf, x in zip(program.leaves, leaves, strict=True)}
        for leaf in program.leaves:
            given[leaf.name].requires_grad = leaf.grad
        ours = Ours(program, given)
        found = [y.detach() for y in ours.outs]
        if ours.pairs():
            ys, seeds = zip(*ours.pairs(), strict=True)
            found += tl.grad(ys, [*ours.inputs.values()], seeds, allow_unused=True)
        return [None if t is None else t.detach() for t in found]

    return function


def moved(leaf, k):
    """The leaf with other floats, also of other signs."""
    values = leaf.values
    if values.dtype.kind == "f":
        values = (values * np.where(np.arange(values.size).reshape(values.shape) % 5 == k, -0.7, 1 + 0.1 * k)).astype(
            values.dtype
        )
    return replace(leaf, values=values).tensor().detach()


@pytest.mark.parametrize("share", range(2))
def test_random_programs_give_the_same_bits(share):
    counts = collections.Counter()
    for seed in range(SEED + share, SEED + 2 * BUDGET, 2):
        with np.errstate(all="ignore"), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            program = Maker(seed).program()
            function = values_and_gradients(program)
            compiled = tl.compile(function)
            for k in range(5):
                leaves = [moved(leaf, k) for leaf in program.leaves]
                expected, error = attempt(function, leaves)
                found, other = attempt(compiled, [moved(leaf, k) for leaf in program.leaves])
                assert type(error) is type(other), (seed, k, error, other, str(program))
                for a, b in zip(expected, found, strict=True):
                    assert bits(a) == bits(b), (seed, k, str(program))
        refused = any("tl.compile" in str(w.message) for w in warned)
        assert refused or error or compiled.replayed == 3, (seed, str(program))
        counts["replayed"] += compiled.replayed > 0
    assert counts["replayed"] > BUDGET / 8, counts  # others are refused because of hooks, or raise an error


def bits(t):
    return None if t is None else (t.dtype, t.shape, t.numpy().tobytes())


def attempt(function, leaves):
    try:
        return function(*leaves), None
    except tl.TinygradLenetError as error:
        return [], error
