"""Random networks train as their judges say, and the net that says so finds faults: see ``random_networks.py``."""

import collections
import functools
import itertools
import random
import re
import sys

import network_judges
import network_parts
import numpy as np
import pytest
import random_networks
from hypothesis import settings
from network_judges import Difference, Plain, Refused, Torch
from random_networks import Part, draw, everywhere, program, script, search

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim

# As many as hypothesis would try, and then some: with 75 each row of a table has its turn.
BUDGET = 3 * settings().max_examples
SEED = 0 if settings().derandomize else random.SystemRandom().randrange(10**6)
SHARES = 3


@pytest.mark.parametrize("share", range(SHARES))
def test_random_networks_train_like_their_judges(share):
    counts = collections.Counter()
    failure = search(SEED, range(share, BUDGET, SHARES), counts=counts)
    assert failure is None, f"\n{failure}"
    assert counts["passed"] > 0.9 * BUDGET / SHARES, counts  # what the judge refuses says nothing


def test_random_networks_train_like_plain_definitions(monkeypatch):
    """As where there is no PyTorch."""
    monkeypatch.setattr(network_judges, "has_torch", lambda: False)
    failure = search(SEED + 1, range(0, BUDGET, SHARES))
    assert failure is None, f"\n{failure}"


@pytest.mark.parametrize("share", range(2))
def test_plain_definitions_agree_with_torch(torch, share):
    """Two judges that know nothing of the package: what they agree on is right, pairs of schedules included."""
    for i in range(share, BUDGET // 3, 2):
        case = random_networks.exact(draw(SEED + 2, i))
        try:
            random_networks.between(case, Plain, Torch)
        except Refused:
            continue
        except Difference as error:
            pytest.fail(f"network {i} of seed {SEED + 2}: {error}\n\n{script(case)}")


# The tables


def test_every_public_layer_loss_optimiser_and_schedule_has_a_row():
    rows = [network_parts.LAYERS, network_parts.LOSSES, network_parts.OPTIMIZERS, network_parts.SCHEDULES]
    named = {name for table in rows for name in table}
    public = {*nn.__all__, *optim.__all__}
    assert not public - named - network_parts.WITHOUT.keys(), "give these a row in network_parts.py, or a reason"
    assert not network_parts.WITHOUT.keys() - public
    assert named - public == {"Tied"}


@pytest.mark.parametrize("name", network_parts.LAYERS)
def test_what_a_row_draws_is_legal(name):
    row = network_parts.LAYERS[name]
    for i in range(10):
        r = random.Random(i)
        kind = r.choice(row.kinds)
        sample = row.shape or tuple(r.randint(1, 6) for _ in range(1 if kind == network_parts.TOKENS else kind - 1))
        _, axes, shape = random_networks.layer_text(Part(name, i), kind, (2, *sample))
        assert axes == len(shape)
        assert min(shape) > 0


# Faults that are planted: each is found within the default budget


def adam_counts_one_step_more(patch):
    update = optim.Adam.update

    def wrong(self, w, g, state, options):
        state["step"] += 1
        update(self, w, g, state, options)
        state["step"] -= 1

    patch.setattr(optim.Adam, "update", wrong)


def adamw_decays_after_the_step(patch):
    update = optim.AdamW.update

    def wrong(self, w, g, state, options):
        update(self, w, g, state, {**options, "weight_decay": 0.0})
        w *= 1 - options["lr"] * options["weight_decay"]

    patch.setattr(optim.AdamW, "update", wrong)


def momentum_begins_dampened(patch):
    def wrong(self, w, g, state, options):
        g = g + options["weight_decay"] * w
        if options["momentum"]:
            v = state.setdefault("momentum_buffer", np.zeros_like(w))
            v *= options["momentum"]
            v += (1 - options["dampening"]) * g
            g = g + options["momentum"] * v if options["nesterov"] else v
        w -= options["lr"] * g

    patch.setattr(optim.SGD, "update", wrong)


def nesterov_is_plain_momentum(patch):
    update = optim.SGD.update
    patch.setattr(
        optim.SGD, "update", lambda self, w, g, s, options: update(self, w, g, s, {**options, "nesterov": False})
    )


def rmsprop_rounds_to_float32(patch):
    update = optim.RMSprop.update
    patch.setattr(
        optim.RMSprop,
        "update",
        lambda self, w, g, s, options: update(self, w, g.astype(np.float32).astype(g.dtype), s, options),
    )


def running_variances_are_biased(patch):
    function = tl.functional.batch_norm

    def wrong(x, mean, var, weight, bias, training, momentum, eps):
        before = None if var is None else var.numpy().copy()
        out = function(x, mean, var, weight, bias, training, momentum, eps)
        if training and var is not None:
            n = x.size / x.shape[1]
            var.data = before + (var.numpy() - (1 - momentum) * before) * (n - 1) / n - momentum * before
        return out

    patch.setattr(tl.functional, "batch_norm", wrong)


def one_more(layer, name):
    """A schedule whose argument is one more than was asked for."""

    def plant(patch):
        init = layer.__init__

        def wrong(self, optimizer, *args, **options):
            init(self, optimizer, *args, **{**options, name: options[name] + 1})

        patch.setattr(layer, "__init__", wrong)

    return plant


def a_schedule_resumes_one_step_late(patch):
    load = optim.Schedule.load_state_dict
    patch.setattr(
        optim.Schedule, "load_state_dict", lambda self, s: load(self, {**s, "last_epoch": s["last_epoch"] + 1})
    )


def square_weights_are_loaded_transposed(patch):
    load = nn.Module.load_state_dict

    def wrong(self, state, strict=True):
        square = {k: v.T.copy() for k, v in state.items() if v.ndim == 2 and v.shape[0] == v.shape[1]}
        load(self, {**state, **square}, strict)

    patch.setattr(nn.Module, "load_state_dict", wrong)


def loaded_step_counts_begin_anew(patch):
    load = optim.Optimizer.load_state_dict

    def wrong(self, state):
        load(self, {**state, "state": {i: {**values, "step": 0} for i, values in state["state"].items()}})

    patch.setattr(optim.Optimizer, "load_state_dict", wrong)


def padding_begins_at_the_top(patch):
    def wrong(self, x):
        left, right, top, bottom = self.padding
        return tl.pad(x, (top, bottom, left, right))

    patch.setattr(nn.ZeroPad2d, "forward", wrong)


def padding_of_convolutions_is_swapped(patch):
    function = nn.Conv2d.function

    def wrong(x, weight, bias, padding, **rest):
        return function(x, weight, bias, padding=padding[::-1] if isinstance(padding, tuple) else padding, **rest)

    patch.setattr(nn.Conv2d, "function", staticmethod(wrong))


def group_norm_adds_eps_outside_of_the_root(patch):
    def wrong(self, x):
        groups = x.reshape(x.shape[0], self.num_groups, -1)
        d = groups - groups.mean(axis=2, keepdims=True)
        x = (d / ((d * d).mean(axis=2, keepdims=True).sqrt() + self.eps)).reshape(x.shape)
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return x if self.weight is None else x * self.weight.reshape(shape) + self.bias.reshape(shape)

    patch.setattr(nn.GroupNorm, "forward", wrong)


def a_weight_that_is_used_again_loses_a_gradient(patch):
    last = []

    def wrong(self, x):
        again = bool(last) and last.pop() is self.weight
        last.append(self.weight)
        return tl.linear(x, self.weight.detach() if again else self.weight, self.bias)

    patch.setattr(nn.Linear, "forward", wrong)


def last_states_have_no_gradient(patch):
    forward = nn.LSTM.forward

    def wrong(self, x, state=None):
        y, (h, c) = forward(self, x, state)
        return y, (h, c.detach())

    patch.setattr(nn.LSTM, "forward", wrong)


def a_padding_row_learns(patch):
    patch.setattr(nn.Embedding, "forward", lambda self, x: tl.embedding(x, self.weight))


def clipping_has_one_norm(patch):
    clip = optim.clip_grad_norm_
    patch.setattr(optim, "clip_grad_norm_", lambda params, most, norm_type=2.0: clip(params, most, 2.0))


def gradients_are_never_forgotten(patch):
    patch.setattr(optim.Optimizer, "zero_grad", lambda self: None)


def without_option(layer, name):
    """A layer that forgets an option."""

    def plant(patch):
        def wrong(self, *args):
            return type(self).function(*args, **{k: v for k, v in self.options.items() if k != name})

        patch.setattr(layer, "forward", wrong)

    return plant


FAULTS = {  # a pattern of the program without which the fault does not show, and the fault
    "bias correction": (r"Adam\(", adam_counts_one_step_more),
    "order of weight decay": (r"AdamW\(", adamw_decays_after_the_step),
    "first momentum": ("dampening", momentum_begins_dampened),
    "nesterov": ("nesterov", nesterov_is_plain_momentum),
    "rounding": (r"RMSprop\(", rmsprop_rounds_to_float32),
    "running variance": ("nn.BatchNorm", running_variances_are_biased),
    "a schedule one step late": ("StepLR", one_more(optim.StepLR, "step_size")),
    "a longer cosine": ("CosineAnnealingLR", one_more(optim.CosineAnnealingLR, "T_max")),
    "a schedule resumed late": ("lib.resume", a_schedule_resumes_one_step_late),
    "transposed weights": ("lib.resume", square_weights_are_loaded_transposed),
    "step counts": ("lib.resume", loaded_step_counts_begin_anew),
    "order of padding": ("ZeroPad2d", padding_begins_at_the_top),
    "padding of convolutions": (r"Conv2d\(.*padding=\((\d), (?!\1)", padding_of_convolutions_is_swapped),
    "place of eps": ("GroupNorm", group_norm_adds_eps_outside_of_the_root),
    "tied weights": ("Tied", a_weight_that_is_used_again_loses_a_gradient),
    "last states": ("LSTM", last_states_have_no_gradient),
    "padding row": ("padding_idx", a_padding_row_learns),
    "norm of clipping": ("norm_type", clipping_has_one_norm),
    "accumulated gradients": ("zero_grad", gradients_are_never_forgotten),
    "label smoothing": ("label_smoothing", without_option(nn.CrossEntropyLoss, "label_smoothing")),
    "sizes of pooling": ("ceil_mode", without_option(nn.MaxPool2d.__mro__[1], "ceil_mode")),
}
MOST = 3000


def cases_with(words):
    """The first networks of seed 0 whose programs have this pattern, drawn as they are asked for."""
    return itertools.islice((i for i in range(MOST) if re.search(words, program_of(i))), 30)


@functools.cache
def program_of(i):
    return program(draw(0, i))


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(torch, monkeypatch, name):
    words, plant = FAULTS[name]
    numbers = cases_with(words)
    plant(monkeypatch)
    assert search(0, numbers, shrinks=False) is not None


@pytest.mark.parametrize("name", ["bias correction", "accumulated gradients", "a schedule one step late"])
def test_a_planted_fault_is_found_without_torch(monkeypatch, name):
    monkeypatch.setattr(network_judges, "has_torch", lambda: False)
    words, plant = FAULTS[name]
    numbers = [*cases_with(words)]
    plant(monkeypatch)
    assert search(0, [i for i in numbers if i % 3 == 0] or numbers, shrinks=False) is not None


def test_a_failure_is_shrunk_to_a_few_lines(torch, monkeypatch):
    words, plant = FAULTS["place of eps"]
    numbers = cases_with(words)
    with monkeypatch.context() as patch:
        plant(patch)
        failure = search(0, numbers)
        assert [part.name for part in everywhere(failure.case.layers)] == ["GroupNorm"]
        assert failure.case.optimizer.name in ("SGD", "Adam")
        text = str(failure)
        assert len(text.splitlines()) < 30
        with pytest.raises(Difference, match="loss 0"):
            run(text)
    run(text)  # without the fault


def run(text):
    """Run the program of a failure."""
    exec(compile(text[text.index("from network_judges") :], "<failure>", "exec"), {})


def test_a_case_is_the_same_each_time():
    assert [draw(7, i) for i in range(5)] == [draw(7, i) for i in range(5)]
    assert script(draw(7, 3)) == script(draw(7, 3))


def test_the_program_prints_what_differs(torch, monkeypatch, capsys):
    FAULTS["accumulated gradients"][1](monkeypatch)
    monkeypatch.setattr(sys, "argv", ["random_networks.py", "--runs", "1", "--seed", "0", "--no-shrink"])
    assert random_networks.main()
    assert "network 0 of seed 0: step 1" in capsys.readouterr().out
