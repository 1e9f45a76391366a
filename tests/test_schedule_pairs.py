"""Several schedules of one optimiser, rates set by hand, groups added later, states of today and of earlier versions:
step for step as in PyTorch.
"""

import itertools
import math
import random

import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import optim
from tinygrad_lenet.errors import ArgumentError, DTypeError


def sgd(*lrs, **options):
    groups = [{"params": tl.ones(2, requires_grad=True), "lr": lr} for lr in lrs or (1.0,)]
    return optim.SGD(groups, lr=9.0, **options)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def close(expected):
    return pytest.approx(expected, rel=1e-12, abs=1e-300)


def courses(optimizer, *schedules, steps=3):
    found = []
    for _ in range(steps):
        for schedule in schedules:
            schedule.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


# By hand


def test_a_warm_up_and_a_cosine_multiply():
    optimizer = sgd()
    both = optim.LinearLR(optimizer, 0.1, total_iters=4), optim.CosineAnnealingLR(optimizer, 10)
    cosines = [(1 + math.cos(math.pi * t / 10)) / 2 for t in (1, 2, 3)]
    assert courses(optimizer, *both) == close([0.325 * cosines[0], 0.55 * cosines[1], 0.775 * cosines[2]])


def test_a_plateau_reduces_during_and_after_a_warm_up():
    optimizer = sgd()
    warm_up = optim.LinearLR(optimizer, 0.25, total_iters=3)
    plateau = optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    found = []
    for metric in (3.0, 3.0, 2.0, 2.0, 2.0):
        warm_up.step()
        plateau.step(metric)
        found += rates(optimizer)
    assert found == close([0.5, 0.375, 0.5, 0.25, 0.125])


def test_a_rate_set_by_hand_is_the_one_that_changes():
    optimizer = sgd()
    schedule = optim.ExponentialLR(optimizer, 0.5)
    schedule.step()
    optimizer.param_groups[0]["lr"] = 8.0
    assert schedule.get_last_lr() == [0.5]  # of its own last step
    schedule.step()
    assert (rates(optimizer), schedule.get_last_lr()) == ([4.0], [4.0])
    optim.StepLR(optimizer, 5), optim.CosineAnnealingLR(optimizer, 5)
    assert rates(optimizer) == [4.0]  # making one changes nothing
    optim.LinearLR(optimizer, 0.5)
    assert rates(optimizer) == [2.0]  # unless it begins with a factor
    optimizer.param_groups[0]["lr"] = "fast"
    with pytest.raises(DTypeError, match=r"ExponentialLR\.step: lr must be a number"):
        schedule.step()
    assert schedule.last_epoch == 2


class Inverse(optim.Schedule):
    def rate(self, t, base):
        return base / (1 + t)


class Formula:
    rate = Inverse.rate


class Mixed(Formula, optim.StepLR):
    pass


class Floor(optim.CosineAnnealingLR):
    def rate(self, t, base):
        return max(super().rate(t, base), 0.3)


def test_a_schedule_of_the_users_own_is_its_formula_alone_and_a_factor_with_others():
    optimizer = sgd()
    schedule = Inverse(optimizer)
    assert courses(optimizer, schedule) == [1 / 2, 1 / 3, 1 / 4]  # to the bit
    optimizer.param_groups[0]["lr"] = 8.0
    assert courses(optimizer, schedule) == close([8 * 4 / 5, 8 * 4 / 6, 8 * 4 / 7])
    optimizer = sgd()
    pair = Inverse(optimizer), optim.ExponentialLR(optimizer, 0.5)
    assert courses(optimizer, *pair) == close([1 / 2 / 2, 1 / 3 / 4, 1 / 4 / 8])
    optimizer = sgd()
    assert courses(optimizer, Mixed(optimizer, 1)) == [1 / 2, 1 / 3, 1 / 4]
    optimizer = sgd()
    assert courses(optimizer, Floor(optimizer, 4), steps=5) == close([0.5 + math.sqrt(0.5) / 2, 0.5, 0.3, 0.3, 0.3])


@pytest.mark.parametrize("start", [0.1, 1 / 3, 0.7, 1.0])
def test_a_line_down_to_zero_ends_at_zero(start):
    for total in range(1, 60):
        optimizer = sgd(0.3)
        found = courses(optimizer, optim.LinearLR(optimizer, start, 0.0, total), steps=total + 2)
        assert min(found[: total - 1], default=1) > 0
        assert found[total - 1 :] == [0.0] * 3
        optimizer.step()  # refuses a negative rate, even -3e-18


def test_a_rate_of_zero_stays_or_follows_the_formula():
    optimizer = sgd()
    assert courses(optimizer, optim.LinearLR(optimizer, 1.0, 0.0, total_iters=2), steps=4) == [0.5, 0.0, 0.0, 0.0]
    optimizer = sgd()
    assert courses(optimizer, optim.CosineAnnealingLR(optimizer, 2), steps=4) == close([0.5, 0.0, 0.5, 1.0])
    optimizer = sgd(0.0)
    assert courses(optimizer, optim.StepLR(optimizer, 1), Inverse(optimizer)) == [0.0, 0.0, 0.0]


def test_groups_that_are_added_later_have_their_own_rates():
    optimizer = sgd(1.0, momentum=0.9)
    schedules = [optim.StepLR(optimizer, 1, 0.5), optim.CosineAnnealingLR(optimizer, 4), Inverse(optimizer)]
    plateau = optim.ReduceLROnPlateau(optimizer, patience=0, factor=0.1)
    optimizer.add_param_group({"params": tl.ones(1, requires_grad=True), "lr": 0.5})
    for schedule in schedules:
        schedule.step()
    assert rates(optimizer) == close([0.25 * (1 + math.sqrt(0.5)) / 2, 0.125 * (1 + math.sqrt(0.5)) / 2])
    before = rates(optimizer)
    plateau.step(1.0), plateau.step(1.0)
    assert rates(optimizer) == close([0.1 * rate for rate in before])
    other = sgd(1.0)
    strict = optim.ReduceLROnPlateau(other, min_lr=[0.1])
    other.add_param_group({"params": tl.ones(1, requires_grad=True)})
    with pytest.raises(ArgumentError, match="one for each of the 2, got 1"):
        strict.step(1.0)
    step = optim.StepLR(other, 1)
    del other.param_groups[1]
    with pytest.raises(ArgumentError, match=r"StepLR\.step: the optimizer has 1 groups, the schedule is for 2"):
        step.step()


@pytest.mark.parametrize("between", [0, 1, 3])
@pytest.mark.parametrize("optimizer_first", [True, False])
def test_a_run_with_a_group_added_later_resumes(between, optimizer_first):
    def make(*lrs):
        optimizer = sgd(*lrs)
        parts = [optim.LinearLR(optimizer, 0.5, total_iters=2), Inverse(optimizer)]
        return optimizer, optim.SequentialLR(optimizer, parts, [3]), optim.ExponentialLR(optimizer, 0.9)

    first = optimizer, *schedules = make(1.0)
    courses(optimizer, *schedules, steps=1)
    optimizer.add_param_group({"params": tl.ones(1, requires_grad=True), "lr": 0.5})
    courses(optimizer, *schedules, steps=between)
    second = make(1.0, 0.5)
    pairs = list(zip(first, second, strict=True))
    for one, other in pairs if optimizer_first else pairs[::-1]:
        other.load_state_dict(one.state_dict())
    for _ in range(5):
        courses(*first, steps=1), courses(*second, steps=1)
        assert rates(first[0]) == rates(second[0])
        assert first[1].get_last_lr() == second[1].get_last_lr()


def test_the_first_figure_is_better_than_none_at_any_threshold():
    plateau = optim.ReduceLROnPlateau(sgd(), threshold=1.0, patience=0)
    plateau.step(5.0)
    assert (plateau.best, plateau.num_bad_epochs) == (5.0, 0)


# Against PyTorch

KINDS = {
    "step": ("StepLR", {"step_size": 3, "gamma": 0.3}),
    "step to 0": ("StepLR", {"step_size": 6, "gamma": 0.0}),
    "exponential": ("ExponentialLR", {"gamma": 0.9}),
    "growing": ("ExponentialLR", {"gamma": 1.1}),
    "milestones": ("MultiStepLR", {"milestones": [2, 5, 5, 20], "gamma": 0.5}),
    "milestone 0": ("MultiStepLR", {"milestones": [0, 4], "gamma": 0.5}),
    "warm-up": ("LinearLR", {"start_factor": 0.01, "total_iters": 12}),
    "linear to 0": ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 7}),
    "cosine": ("CosineAnnealingLR", {"T_max": 10}),
    "cosine of 1": ("CosineAnnealingLR", {"T_max": 1}),
    "cosine to a least": ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),
    "cycle": ("OneCycleLR", {"max_lr": 0.7, "total_steps": 60}),
    "plateau": ("ReduceLROnPlateau", {"patience": 1, "factor": 0.5}),
    "sequence": None,
    "short sequence": None,
}


def build(library, optimizer, kind):
    if kind == "sequence":
        parts = library.LinearLR(optimizer, 0.1, total_iters=5), library.CosineAnnealingLR(optimizer, 25)
        return library.SequentialLR(optimizer, [*parts, library.ExponentialLR(optimizer, 0.9)], [5, 20])
    if kind == "short sequence":
        parts = library.LinearLR(optimizer, 0.1, total_iters=3), library.MultiStepLR(optimizer, [0, 2], 0.5)
        return library.SequentialLR(optimizer, [*parts], [3])
    name, options = KINDS[kind]
    return getattr(library, name)(optimizer, **options)


def options_of(optimizer):
    return [(group["lr"], group["momentum"]) for group in optimizer.param_groups]


class Twins:
    """An optimiser and its schedules, in both libraries."""

    def __init__(self, torch, lrs=(0.3, 0.02)):
        self.libraries = optim, torch.optim.lr_scheduler
        theirs = [{"params": [torch.ones(2, requires_grad=True)], "lr": lr} for lr in lrs]
        self.optimizers = sgd(*lrs, momentum=0.9), torch.optim.SGD(theirs, momentum=0.9)
        self.pairs = []

    def add(self, kind):
        self.pairs.append([build(*there, kind) for there in zip(self.libraries, self.optimizers, strict=True)])

    def step(self, metric):
        for pair in self.pairs:
            for schedule in pair:
                schedule.step(metric) if "Plateau" in type(schedule).__name__ else schedule.step()

    def by_hand(self, lr):
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr

    def compare(self, what):
        ours, theirs = (list(itertools.chain(*options_of(optimizer))) for optimizer in self.optimizers)
        assert ours == close(theirs), what
        for a, b in self.pairs:
            assert a.get_last_lr() == close(b.get_last_lr()), what

    def resumed(self, torch, kinds, order):
        """Other twins, in the states of these; in PyTorch the optimiser's must come after the schedules are made."""
        others, states = Twins(torch, (5.0, 6.0)), [optimizer.state_dict() for optimizer in self.optimizers]
        if order == "optimizer first":
            others.optimizers[0].load_state_dict(states[0])
        for kind in kinds:
            others.add(kind)
        if order == "optimizer then":
            others.optimizers[0].load_state_dict(states[0])
        others.optimizers[1].load_state_dict(states[1])
        for new, old in zip(others.pairs, self.pairs, strict=True):
            for a, b in zip(new, old, strict=True):
                a.load_state_dict(b.state_dict())
        if order == "optimizer last":
            others.optimizers[0].load_state_dict(states[0])
        return others


def follow(torch, kinds, seed, steps=24):
    """Steps in both libraries, with a rate set by hand, the last schedule made late, and states in new objects."""
    chance, twins = random.Random(seed), Twins(torch)
    hand, late, stop = (chance.randrange(1, steps) for _ in range(3))
    late = 0 if chance.random() < 0.5 else min(late, stop)
    for t in range(steps):
        for i, kind in enumerate(kinds):
            if t == (late if i == len(kinds) - 1 else 0):
                twins.add(kind)
        twins.compare((kinds, seed, t, "before"))
        if t == hand:
            twins.by_hand(0.123)
        twins.step(chance.random())
        twins.compare((kinds, seed, t))
        if t == stop and min(rates(twins.optimizers[1])) >= 0:  # PyTorch's may be negative, which ours refuses to load
            order = chance.choice(["optimizer first", "optimizer then", "optimizer last"])
            twins = twins.resumed(torch, kinds, order)
            twins.compare((kinds, seed, t, order))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_each_schedule_alone_and_before_each_other_agrees_with_torch(torch, kind):
    for seed in range(4):
        follow(torch, [kind], seed)
    for number, other in enumerate(KINDS):
        follow(torch, [kind, other], number)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_three_schedules_agree_with_torch(torch):
    chance = random.Random(0)
    for seed in range(60):
        follow(torch, chance.choices([*KINDS], k=3), seed)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_group_added_later_agrees_with_torch(torch):
    for kind in ("step", "milestones", "warm-up", "exponential", "cosine", "plateau"):
        twins = Twins(torch)
        twins.add(kind)
        twins.step(1.0)
        for library, optimizer in zip((tl, torch), twins.optimizers, strict=True):
            optimizer.add_param_group({"params": library.ones(3, requires_grad=True), "lr": 0.05})
        for _ in range(9):
            twins.step(1.0)
            twins.compare(kind)


# States


def sequence(optimizer):
    return optim.SequentialLR(optimizer, [optim.LinearLR(optimizer, 0.1), optim.ExponentialLR(optimizer, 0.5)], [3])


# What commit 9d5ff89 wrote after four steps with base rates of 0.5 and 0.1, and the rates of the first group there.
STATE = {"last_epoch": 4, "base_lrs": [0.5, 0.1]}
PARTS = [{"last_epoch": 2, "base_lrs": [0.5, 0.1]}, {"last_epoch": 1, "base_lrs": [0.5, 0.1]}]
OLD = {
    "step": (lambda o: optim.StepLR(o, 2), STATE, [0.005, 0.005, 0.0005, 0.0005]),
    "power": (lambda o: optim.ExponentialLR(o, 0.9), STATE, [0.5 * 0.9**t for t in (4, 5, 6, 7)]),
    "milestones": (lambda o: optim.MultiStepLR(o, [2, 5]), STATE, [0.05, 0.005, 0.005, 0.005]),
    "linear": (lambda o: optim.LinearLR(o, 0.1, total_iters=6), STATE, [0.35, 0.425, 0.5, 0.5]),
    "cosine": (
        lambda o: optim.CosineAnnealingLR(o, 9),
        STATE,
        [0.25 * (1 + math.cos(math.pi * t / 9)) for t in (4, 5, 6, 7)],
    ),
    "sequence": (sequence, {**STATE, "schedulers": PARTS}, [0.25, 0.125, 0.0625, 0.03125]),
    "inverse": (Inverse, STATE, [0.5 / 5, 0.5 / 6, 0.5 / 7, 0.5 / 8]),
}


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("order", ["optimizer first", "optimizer then", "optimizer last", "schedule only"])
def test_states_of_earlier_versions_go_on(name, order):
    make, state, expected = OLD[name]
    written = sgd(0.5, 0.1).state_dict()
    for group, lr in zip(written["param_groups"], (expected[0], expected[0] / 5), strict=True):
        group.update(lr=lr, initial_lr=group["lr"])
    optimizer = sgd(0.5, 0.1)
    if order == "optimizer first":
        optimizer.load_state_dict(written)
    schedule = make(optimizer)
    if order == "optimizer then":
        optimizer.load_state_dict(written)
    schedule.load_state_dict(state)
    if order == "optimizer last":
        optimizer.load_state_dict(written)
    found = rates(optimizer)[:1] + courses(optimizer, schedule)
    assert found == close(expected)


def test_the_state_of_a_plateau_of_an_earlier_version_goes_on():
    optimizer = sgd(0.5)
    plateau = optim.ReduceLROnPlateau(optimizer, patience=1)
    plateau.load_state_dict({"best": 2.0, "num_bad_epochs": 1, "cooldown_counter": 0, "last_epoch": 3})
    assert plateau.get_last_lr() == [0.5]
    plateau.step(2.0)
    assert rates(optimizer) == close([0.05])


def test_loading_brings_back_the_rates_of_that_time():
    optimizer = sgd()
    schedule = optim.ExponentialLR(optimizer, 0.5)
    schedule.step()
    state = schedule.state_dict()
    assert state == {"last_epoch": 1, "base_lrs": [1.0], "_last_lr": [0.5], "lrs": [0.5]}
    optimizer.param_groups[0]["lr"] = 8.0
    schedule.load_state_dict(state)
    assert rates(optimizer) == [0.5]
    fresh = sgd(3.0)
    schedule = optim.ExponentialLR(fresh, 0.5)
    schedule.load_state_dict(state)  # without the optimiser's
    assert (rates(fresh), schedule.get_last_lr()) == ([0.5], [0.5])


def test_a_cycle_resumes_its_momentum_though_another_schedule_is_made_after_it():
    def make(optimizer):
        return optim.OneCycleLR(optimizer, 1.0, total_steps=9), optim.LinearLR(optimizer, 0.5)

    optimizer = sgd(momentum=0.9)
    both = make(optimizer)
    courses(optimizer, *both)
    other = sgd(momentum=0.5)
    other.load_state_dict(optimizer.state_dict())
    resumed = make(other)
    for old, new in zip(both, resumed, strict=True):
        new.load_state_dict(old.state_dict())
    assert options_of(other) == options_of(optimizer)
    assert courses(other, *resumed) == courses(optimizer, *both)
    with pytest.raises(ArgumentError, match="step 10 of total_steps=9"):
        resumed[0].load_state_dict({**both[0].state_dict(), "last_epoch": 10})
