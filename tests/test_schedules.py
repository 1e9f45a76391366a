"""Schedules of the learning rate: known points, and step for step against PyTorch."""

import itertools
import math
import pickle
import random

import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import optim
from tinygrad_lenet.errors import ArgumentError, DTypeError


def sgd(*lrs, **options):
    lrs = lrs or (0.5,)
    groups = [{"params": tl.ones(2, requires_grad=True), "lr": lr} for lr in lrs]
    return optim.SGD(groups, lr=9.0, **options)


def course(schedule, steps, key="lr"):
    """An option of the first group, at the start and after each of the steps."""
    found = []
    for t in range(steps + 1):
        if t:
            schedule.step()
        assert schedule.get_last_lr() == [group["lr"] for group in schedule.optimizer.param_groups]
        found.append(schedule.optimizer.param_groups[0][key])
    return found


def close(expected):
    return pytest.approx(expected, rel=1e-12, abs=1e-15)


# Known points


def test_step_lr_falls_at_multiples_of_its_step_size():
    assert course(optim.StepLR(sgd(), 3, gamma=0.5), 7) == [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125, 0.125]
    assert course(optim.StepLR(sgd(), 1), 2) == close([0.5, 0.05, 0.005])


def test_exponential_lr_is_a_power():
    assert course(optim.ExponentialLR(sgd(), 0.5), 3) == [0.5, 0.25, 0.125, 0.0625]


def test_cosine_annealing_starts_ends_and_passes_the_middle():
    found = course(optim.CosineAnnealingLR(sgd(), 4, eta_min=0.1), 8)
    assert [found[t] for t in (0, 2, 4, 6, 8)] == close([0.5, 0.3, 0.1, 0.3, 0.5])  # and up again
    assert found[1] == close(0.1 + 0.4 * (1 + math.cos(math.pi / 4)) / 2)


def test_one_cycle_starts_peaks_and_ends():
    optimizer = sgd(momentum=0.9)
    found = course(optim.OneCycleLR(optimizer, 1.0, total_steps=11, pct_start=5 / 11, div_factor=10), 10)
    assert [found[t] for t in (0, 2, 4, 7, 10)] == close([0.1, 0.55, 1.0, (1 + 1e-5) / 2, 1e-5])
    assert max(found) == found[4]
    momentum = course(optim.OneCycleLR(sgd(momentum=0.9), 1.0, total_steps=11, pct_start=5 / 11), 10, "momentum")
    assert [momentum[t] for t in (0, 2, 4, 7, 10)] == close([0.95, 0.9, 0.85, 0.9, 0.95])


def test_one_cycle_in_straight_lines_and_three_phases():
    options = {"total_steps": 13, "pct_start": 5 / 13, "div_factor": 10, "anneal_strategy": "linear"}
    found = course(optim.OneCycleLR(sgd(), 1.0, **options), 12)
    assert [found[t] for t in (0, 1, 4, 8, 12)] == close([0.1, 0.325, 1.0, (1 + 1e-5) / 2, 1e-5])
    found = course(optim.OneCycleLR(sgd(), 1.0, three_phase=True, **options), 12)
    assert [found[t] for t in (0, 4, 6, 8, 10, 12)] == close([0.1, 1.0, 0.55, 0.1, (0.1 + 1e-5) / 2, 1e-5])


def test_one_cycle_may_count_epochs_and_leave_momentum_alone():
    optimizer = sgd(momentum=0.7)
    schedule = optim.OneCycleLR(optimizer, 1.0, epochs=3, steps_per_epoch=4, cycle_momentum=False)
    assert schedule.total_steps == 12
    assert course(schedule, 11)[-1] == close(1 / 25 / 1e4)
    assert optimizer.param_groups[0]["momentum"] == 0.7
    optim.OneCycleLR(optim.Adagrad([tl.ones(1, requires_grad=True)]), 1.0, total_steps=3, cycle_momentum=False)


def test_groups_keep_their_proportions():
    optimizer = sgd(0.5, 0.1)
    schedule = optim.ExponentialLR(optimizer, 0.5)
    schedule.step()
    assert schedule.get_last_lr() == [0.25, 0.05]


# Against PyTorch


def pair(torch, kind, lr=0.3):
    """An optimiser of each library with the same options, and how to read what schedules change."""
    options = {"lr": lr, "momentum": 0.9} if kind == "SGD" else {"lr": lr, "betas": (0.8, 0.99)}
    ours = getattr(optim, kind)([tl.ones(2, requires_grad=True)], **options)
    theirs = getattr(torch.optim, kind)([torch.ones(2, requires_grad=True)], **options)
    return ours, theirs


def changing(optimizer):
    group = optimizer.param_groups[0]
    return [group["lr"], *group.get("betas", [group.get("momentum")])]


def same_course(ours, theirs, a, b, steps):
    for t in range(steps + 1):
        if t:
            theirs.step()  # PyTorch wants it first
            try:
                b.step()
            except ZeroDivisionError:  # only after the last step, where it has a phase of length 0
                assert t == steps
                return
            a.step()
        assert changing(ours) == pytest.approx(changing(theirs), rel=1e-12, abs=1e-15), t


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("StepLR", {"step_size": 1}),
        ("StepLR", {"step_size": 7, "gamma": 0.3}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("ExponentialLR", {"gamma": 1.1}),
        ("CosineAnnealingLR", {"T_max": 1}),
        ("CosineAnnealingLR", {"T_max": 10}),
        ("CosineAnnealingLR", {"T_max": 40, "eta_min": 0.01}),
        ("MultiStepLR", {"milestones": [3, 10, 10, 50]}),
        ("MultiStepLR", {"milestones": [80, 20], "gamma": 0.7}),
        ("LinearLR", {}),
        ("LinearLR", {"start_factor": 0.01, "end_factor": 0.8, "total_iters": 60}),
        ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 1}),
    ],
)
def test_schedules_agree_with_torch(torch, name, options):
    ours, theirs = pair(torch, "SGD")
    a, b = getattr(optim, name)(ours, **options), getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    same_course(ours, theirs, a, b, 100)


@pytest.mark.parametrize("milestones", [[5, 30], [1, 2], [50, 99]])
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")
def test_a_sequence_of_schedules_agrees_with_torch(torch, milestones):
    ours, theirs = pair(torch, "SGD")

    def build(there, optimizer):
        first, second = there.LinearLR(optimizer, 0.1, total_iters=5), there.CosineAnnealingLR(optimizer, 25)
        return there.SequentialLR(optimizer, [first, second, there.ExponentialLR(optimizer, 0.9)], milestones)

    same_course(ours, theirs, build(optim, ours), build(torch.optim.lr_scheduler, theirs), 100)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
@pytest.mark.parametrize(
    "options", [{}, {"patience": 2, "cooldown": 3}, {"factor": 0.5, "patience": 0, "min_lr": 0.01}]
)
def test_a_plateau_agrees_with_torch(torch, mode, threshold_mode, options):
    ours, theirs = pair(torch, "SGD")
    options = {"mode": mode, "threshold_mode": threshold_mode, "threshold": 0.02, **options}
    a, b = optim.ReduceLROnPlateau(ours, **options), torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    figures, rates = random.Random(0), set()
    for t in range(100):
        figure = 1 / (1 + t / 10) + figures.gauss(0, 0.05)  # falls, and scatters
        figure = math.nan if t == 60 else figure  # no number is no progress
        a.step(tl.tensor(figure))
        b.step(figure)
        assert changing(ours) == pytest.approx(changing(theirs), rel=1e-12), t
        assert (a.num_bad_epochs, a.cooldown_counter) == (b.num_bad_epochs, b.cooldown_counter)
        rates.add(a.get_last_lr()[0])
        if t == 50:  # a resumed one goes on alike
            saved, a = a.state_dict(), optim.ReduceLROnPlateau(ours, **options)
            a.load_state_dict(saved)
    assert len(rates) > 1


def test_warm_up_and_then_steps_as_one_writes_them():
    optimizer = sgd(1.0)
    warm_up = optim.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    schedule = optim.SequentialLR(optimizer, [warm_up, optim.MultiStepLR(optimizer, [2], gamma=0.5)], milestones=[3])
    assert course(schedule, 6) == close([0.25, 0.5, 0.75, 1, 1, 0.5, 0.5])


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("three_phase", [False, True])
@pytest.mark.parametrize("cycle", [False, True])
def test_one_cycle_agrees_with_torch_at_every_step(torch, kind, anneal, three_phase, cycle):
    for total, start in itertools.product((1, 2, 3, 4, 5, 7, 10, 33), (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)):
        ours, theirs = pair(torch, kind)
        if start * total == 1:
            continue  # PyTorch divides by zero: a test of its own
        options = {"max_lr": 0.7, "total_steps": total, "pct_start": start, "anneal_strategy": anneal}
        options |= {"three_phase": three_phase, "cycle_momentum": cycle, "div_factor": 7.0, "final_div_factor": 100.0}
        options |= {"base_momentum": 0.6, "max_momentum": 0.97}
        a, b = optim.OneCycleLR(ours, **options), torch.optim.lr_scheduler.OneCycleLR(theirs, **options)
        same_course(ours, theirs, a, b, total)


def test_a_first_phase_of_no_steps_begins_at_the_peak():
    found = course(optim.OneCycleLR(sgd(), 1.0, total_steps=10, pct_start=0.1), 9)
    assert (found[0], found[-1]) == (1.0, close(1 / 25 / 1e4))
    assert found == sorted(found, reverse=True)


# State and mistakes

BUILDS = [
    lambda optimizer: optim.StepLR(optimizer, 2),
    lambda optimizer: optim.ExponentialLR(optimizer, 0.9),
    lambda optimizer: optim.CosineAnnealingLR(optimizer, 9),
    lambda optimizer: optim.OneCycleLR(optimizer, 1.0, total_steps=9),
    lambda optimizer: optim.MultiStepLR(optimizer, [2, 5]),
    lambda optimizer: optim.LinearLR(optimizer, 0.1, total_iters=6),
    lambda optimizer: optim.SequentialLR(
        optimizer, [optim.LinearLR(optimizer, 0.1), optim.ExponentialLR(optimizer, 0.5)], [3]
    ),
    lambda optimizer: optim.SequentialLR(
        optimizer, [optim.LinearLR(optimizer, 0.1), optim.ExponentialLR(optimizer, 0.5)], [6]
    ),
]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("schedule_first", [False, True])
def test_a_resumed_run_goes_on_alike(build, schedule_first):
    optimizer = sgd(0.5, 0.1, momentum=0.9)
    schedule = build(optimizer)
    course(schedule, 4)
    states = schedule.state_dict(), optimizer.state_dict()
    expected = course(schedule, 4), changing(optimizer), schedule.get_last_lr()
    other = sgd(7.0, 8.0, momentum=0.5)
    if schedule_first:
        resumed = build(other)
        other.load_state_dict(states[1])
    else:
        other.load_state_dict(states[1])
        resumed = build(other)
    resumed.load_state_dict(states[0])
    assert (course(resumed, 4), changing(other), resumed.get_last_lr()) == expected
    assert states[0]["last_epoch"] == 4  # a copy


def test_a_pickle_finds_a_plateau_in_its_old_place():
    optimizer = sgd(0.5)
    schedule = optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    schedule.step(1.0)
    old = pickle.dumps(schedule, 0).replace(b"optim.schedules", b"optim.plateau")
    assert b"optim.plateau" in old
    found = pickle.loads(old)
    found.step(1.0)
    assert found.get_last_lr() == [0.25]


def test_a_schedule_drives_the_steps():
    p = tl.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)
    schedule = optim.ExponentialLR(optimizer, 0.5)
    values = []
    for _ in range(3):
        p.grad = tl.tensor([1.0])
        optimizer.step()
        schedule.step()
        values.append(p.item())
    assert values == [0.0, -0.5, -0.75]


def steps(schedule, count):
    for _ in range(count):
        schedule.step()


def one_cycle(**options):
    return optim.OneCycleLR(sgd(momentum=0.9), 1.0, **options)


MISTAKES = [
    (lambda: optim.LinearLR(sgd(), start_factor=0.0), r"start_factor must lie in \(0, 1\], got 0"),
    (lambda: optim.LinearLR(sgd(), total_iters=0), "total_iters.*at least 1, got 0"),
    (lambda: optim.SequentialLR(sgd(), [], []), "one schedule more than milestones"),
    (lambda: optim.SequentialLR(o := sgd(), [optim.StepLR(o, 1)] * 2, []), "one schedule more than milestones"),
    (lambda: optim.SequentialLR(o := sgd(), [optim.StepLR(o, 1)] * 3, [5, 2]), "must grow.*5, 2"),
    (lambda: optim.SequentialLR(sgd(), [optim.StepLR(sgd(), 1)], []), "same optimizer"),
    (lambda: optim.ReduceLROnPlateau(sgd(), "up"), "'min' or 'max'.*'up'"),
    (lambda: optim.ReduceLROnPlateau(sgd(), factor=1.0), r"factor must lie in \[0, 1\), got 1.0"),
    (
        lambda: optim.ReduceLROnPlateau(sgd(), min_lr=[1, 2]),
        "min_lr must be one for all groups, or one for each of the 1, got 2",
    ),
    (lambda: optim.StepLR(sgd(), 0), "StepLR: step_size must be at least 1, got 0"),
    (lambda: optim.CosineAnnealingLR(sgd(), 0), "CosineAnnealingLR: T_max must be at least 1, got 0"),
    (lambda: one_cycle(), "give total_steps, or epochs and steps_per_epoch"),
    (lambda: one_cycle(epochs=3), "give total_steps, or epochs and steps_per_epoch"),
    (lambda: one_cycle(total_steps=0), "at least 1"),
    (lambda: one_cycle(total_steps=5, pct_start=1.2), r"pct_start must lie in \[0, 1\], got 1.2"),
    (lambda: one_cycle(total_steps=5, anneal_strategy="exp"), "'cos' or 'linear', got 'exp'"),
    (lambda: one_cycle(total_steps=5, div_factor=0), "div_factor .*0"),
    (lambda: one_cycle(total_steps=5, final_div_factor=0), "final_div_factor .*0"),
    (lambda: steps(one_cycle(total_steps=3), 4), "step 4 of total_steps=3; make the schedule longer"),
    (
        lambda: optim.OneCycleLR(optim.Adagrad([tl.ones(1, requires_grad=True)]), 1.0, total_steps=5),
        "Adagrad has no momentum to cycle; pass cycle_momentum=False",
    ),
]


@pytest.mark.parametrize(("call", "words"), MISTAKES)
def test_mistakes_are_named(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()


class Rateless(optim.Optimizer):
    def update(self, w, g, state, options):
        w -= g


@pytest.mark.parametrize("make", [lambda o: optim.StepLR(o, 1), optim.LinearLR, optim.ReduceLROnPlateau])
def test_a_schedule_needs_a_rate(make):
    with pytest.raises(DTypeError, match="lr must be a number, got None"):
        make(Rateless([tl.ones(1, requires_grad=True)], {}))
