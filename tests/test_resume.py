"""A run that draws random numbers, stopped and continued from a file, equals the undisturbed run, to the bit."""

import copy

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, optim, training
from tinygrad_lenet.errors import ArgumentError, DTypeError
from tinygrad_lenet.functional import dropout

BITS = [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64]


class Noisy(nn.Module):
    """Every layer that draws, and generators of the model itself, in a list and shared by two layers."""

    def __init__(self, seed):
        super().__init__()
        shared = np.random.default_rng(seed)
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, 3, generator=0), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.4, generator=seed + 1)
        )
        self.rnn = nn.GRU(12, 5, num_layers=3, dropout=0.3, bidirectional=True, batch_first=True, generator=1)
        self.rnn.generator.random(seed)
        self.head = nn.Sequential(
            nn.Dropout(0.5, generator=shared), nn.Linear(10, 8, generator=2), nn.Dropout(0.2, generator=shared)
        )
        self.extra = [{"noise": np.random.Generator(bits(seed))} for bits in BITS]
        self.out = nn.Linear(8, 3, generator=3)

    def forward(self, x):
        x = self.conv(x).transpose(1, 2).reshape(x.shape[0], 4, -1)  # (N, 4 rows, 16 features)
        x = self.head(self.rnn(x[:, :, :12])[0].mean(axis=1))
        for part in self.extra:
            x = x + part["noise"].standard_normal(x.shape, np.float32) * self.training / 100
        return self.out(dropout(x, 0.1, self.training, self.extra[0]["noise"]))


class Run:
    """A training loop with all that holds a state."""

    def __init__(self, seed=5):
        self.model = Noisy(seed)
        rng = np.random.default_rng(0)
        images, labels = rng.standard_normal((22, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, 22)
        distort = data.Compose([data.RandomAffine(15, 0.1), data.ElasticDistortion(2, 1)])
        self.loader = data.DataLoader((images, labels), batch_size=4, shuffle=True, seed=seed, transform=distort)
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.schedule = optim.StepLR(self.optimizer, 4, 0.5)
        self.plateau = optim.ReduceLROnPlateau(self.optimizer, patience=1)
        self.average = training.ExponentialMovingAverage(self.model, 0.9)
        self.stopping = training.EarlyStopping(3, mode="min")
        self.steps = 0

    def parts(self):
        return {name: part for name, part in vars(self).items() if hasattr(part, "state_dict")}

    def train(self, steps):
        """Train for some steps, from the middle of an epoch to the middle of another."""
        end = self.steps + steps
        while self.steps < end:
            for x, y in self.loader:
                self.optimizer.zero_grad()
                loss = tl.cross_entropy(self.model(x), y)
                loss.backward()
                self.optimizer.step()
                self.schedule.step()
                self.average.update()
                self.stopping.step(loss.item())
                self.plateau.step(loss.item())
                self.steps += 1
                if self.steps == end:
                    break

    def save(self, path):
        state = {name: part.state_dict() for name, part in self.parts().items()}
        tl.save_checkpoint(path, {**state, "random": self.model.random_state(), "steps": self.steps})

    def load(self, path):
        state = tl.load_checkpoint(path)
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.model.load_random_state(state["random"])
        self.steps = state["steps"]


@pytest.mark.parametrize("stop", [1, 7, 12])  # in the first epoch, in the second, and between two
def test_a_run_that_was_stopped_is_the_run_that_was_not(tmp_path, stop):
    whole, first, second = Run(), Run(), Run(seed=6)
    whole.train(17)
    first.train(stop)
    first.save(tmp_path / "a.ckpt")
    second.load(tmp_path / "a.ckpt")
    second.train(17 - stop)
    whole.save(tmp_path / "whole.ckpt")
    second.save(tmp_path / "second.ckpt")
    assert (tmp_path / "whole.ckpt").read_bytes() == (tmp_path / "second.ckpt").read_bytes()


def test_the_state_of_a_generator_is_found_under_the_name_of_its_attribute():
    model = Noisy(0)
    names = ["conv.3.generator", "rnn.generator", "head.0.generator"]  # head.2 shares that of head.0
    assert sorted(model.random_state()) == sorted([*names, *(f"extra.{i}.noise" for i in range(len(BITS)))])
    assert model.random_state()["extra.2.noise"]["bit_generator"] == "MT19937"
    assert not nn.LeNet5().random_state()
    assert not any("generator" in name for name in model.state_dict())
    layer = nn.Dropout(generator=0)
    before = layer.random_state()
    layer(tl.ones(3))
    assert layer.random_state() != before  # it is a copy
    generator = layer.generator
    layer.load_random_state(before)
    assert layer.generator is generator  # set in place, for others that hold it
    assert layer.random_state() == before


def odd(state, /, **changes):
    return {**state, "generator": {**state["generator"], **changes}}


UNFIT = [
    (lambda state: {}, ArgumentError, r"^Dropout\.load_random_state: the state lacks generator"),
    (lambda state: {"other": 1}, ArgumentError, "lacks generator, it has \\['other'\\]"),
    (lambda state: {**state, "other": 1}, ArgumentError, r"generators \['generator', 'other'\], this module has"),
    (lambda state: {"generator": 5}, ArgumentError, "generator must be the state of a PCG64"),
    (lambda state: odd(state, bit_generator="MT19937"), ArgumentError, "generator must be the state of a PCG64"),
    (lambda state: odd(state, state=None), ArgumentError, "generator must be the state of a PCG64"),
    (lambda state: odd(state, state={"state": 1}), ArgumentError, "generator must be the state of a PCG64"),
    (lambda state: odd(state, state={"state": "x", "inc": 2}), ArgumentError, "generator must be the state of a PCG64"),
    (lambda state: odd(state, uinteger=-1), ArgumentError, "generator must be the state of a PCG64"),
    (lambda state: [], DTypeError, "a state is a dict, got list"),
    (lambda state: None, DTypeError, "a state is a dict, got NoneType"),
]


@pytest.mark.parametrize(("change", "error", "words"), UNFIT)
def test_a_random_state_that_does_not_fit_changes_nothing(change, error, words):
    layer = nn.Dropout(generator=0)
    before = layer.random_state()
    with pytest.raises(error, match=words):
        layer.load_random_state(change(copy.deepcopy(before)))
    assert layer.random_state() == before


def test_an_error_in_the_last_state_changes_none():
    model = nn.Sequential(nn.Dropout(generator=0), nn.Dropout(generator=1))
    before = model.random_state()
    with pytest.raises(ArgumentError, match=r"1\.generator must be the state of a PCG64"):
        model.load_random_state({"0.generator": nn.Dropout(generator=7).random_state()["generator"], "1.generator": {}})
    assert model.random_state() == before


def test_a_checkpoint_finds_the_generators_of_a_module_also_in_lists():
    model = Noisy(0)
    x = tl.randn(4, 1, 6, 6, generator=0)
    tl.checkpoint(model, x).sum().backward()  # which draws the same numbers again, or would raise
    assert model.out.weight.grad is not None
