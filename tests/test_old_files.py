"""Files of earlier versions: they load for ever, with the values that they were written with.

``tests/files`` has a folder for each commit that wrote some. ``python tests/test_old_files.py FOLDER``, run with that
commit's package on the path, writes them again: the same bytes, but for the ONNX library's own choices. The files of
9d5ff89 also hold the network of 1998, which was in the package then: see test_lenet_1998.py.
"""

import itertools
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.data import DataLoader
from tinygrad_lenet.training import EarlyStopping, ExponentialMovingAverage

FOLDERS = sorted(path for path in (Path(__file__).parent / "files").iterdir() if path.is_dir())


def filled(shape, dtype=np.float32, start=0):
    """Exact numbers between -1 and 1 that every machine makes alike."""
    count = int(np.prod(shape))
    return (((np.arange(start, start + count) * 7) % 17 - 8) / 8).reshape(shape).astype(dtype)


def set_state(model, start=0):
    """Weights and buffers that need no generator; variances are above zero."""
    state = {}
    for i, (name, array) in enumerate(model.state_dict().items()):
        values = filled(array.shape, array.dtype, start + i)
        state[name] = np.abs(values) + 1 if "var" in name or array.dtype.kind == "i" else values
    model.load_state_dict(state)
    return model


# Every optimiser and every schedule

OPTIMIZERS = {
    "SGD": lambda ps: optim.SGD(ps, lr=0.1),
    "SGD momentum": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "SGD dampening": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.5, dampening=0.25),
    "Adam": lambda ps: optim.Adam(ps, lr=0.1, weight_decay=0.01),
    "Adam amsgrad": lambda ps: optim.Adam(ps, lr=0.1, betas=(0.5, 0.75), amsgrad=True),
    "AdamW": lambda ps: optim.AdamW(ps, lr=0.1),
    "RMSprop": lambda ps: optim.RMSprop(ps, lr=0.1, alpha=0.75),
    "RMSprop centered": lambda ps: optim.RMSprop(ps, lr=0.1, alpha=0.75, momentum=0.5, centered=True),
    "Adagrad": lambda ps: optim.Adagrad(ps, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5),
}
SCHEDULES = {
    "StepLR": lambda o: optim.StepLR(o, 2, 0.5),
    "ExponentialLR": lambda o: optim.ExponentialLR(o, 0.75),
    "MultiStepLR": lambda o: optim.MultiStepLR(o, [1, 4, 4], 0.5),
    "LinearLR": lambda o: optim.LinearLR(o, 0.25, 1.0, 5),
    "CosineAnnealingLR": lambda o: optim.CosineAnnealingLR(o, 5, 0.01),
    "OneCycleLR": lambda o: optim.OneCycleLR(o, 0.5, total_steps=8),
    "SequentialLR": lambda o: optim.SequentialLR(
        o, [optim.LinearLR(o, 0.5, total_iters=2), optim.CosineAnnealingLR(o, 4), optim.StepLR(o, 1)], [2, 5]
    ),
    "ReduceLROnPlateau": lambda o: optim.ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=1),
}
LEARNERS = {name: (make, None) for name, make in OPTIMIZERS.items()}
LEARNERS |= {name: (OPTIMIZERS["SGD momentum"], make) for name, make in SCHEDULES.items()}
LEARNERS["Adam, OneCycleLR"] = (OPTIMIZERS["Adam"], SCHEDULES["OneCycleLR"])


class Learner:
    """Two groups of parameters, their optimiser and its schedule, and a loss that no machine computes otherwise."""

    def __init__(self, name):
        make, schedule = LEARNERS[name]
        self.params = [tl.tensor(filled((3,), np.float32), requires_grad=True)]
        self.params.append(tl.tensor(filled((2, 1), np.float64, 5), requires_grad=True))
        groups = [{"params": self.params[:1]}, {"params": self.params[1:], "lr": 0.05}]
        self.optimizer = make(groups)
        self.schedule = schedule and schedule(self.optimizer)
        self.time = 0

    def train(self, steps):
        for _ in range(steps):
            self.time += 1
            for i, p in enumerate(self.params):
                p.grad = tl.tensor(filled(p.shape, p.dtype, self.time + i))
            self.optimizer.step()
            if isinstance(self.schedule, optim.ReduceLROnPlateau):
                self.schedule.step(1.0)
            elif self.schedule:
                self.schedule.step()

    def parts(self):
        return {"optimizer": self.optimizer, **({"schedule": self.schedule} if self.schedule else {})}

    def standing(self):
        """All that a step changes, as Python's numbers."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        options = [[group["lr"], group.get("momentum"), group.get("betas")] for group in groups]
        return {"weights": [p.numpy().ravel().tolist() for p in self.params], "options": options}


def learner_state(name):
    """A state after three steps, and where three more lead."""
    learner = Learner(name)
    learner.train(3)
    state = {key: part.state_dict() for key, part in learner.parts().items()}
    weights = [p.numpy().tolist() for p in learner.params]
    learner.train(3)
    return {"weights": weights, **state, "after": learner.standing()}


def approximately(expected, tolerance):
    if isinstance(expected, dict):
        return {key: approximately(value, tolerance) for key, value in expected.items()}
    if isinstance(expected, (list, tuple)):
        return type(expected)(approximately(value, tolerance) for value in expected)
    return pytest.approx(expected, rel=tolerance, abs=tolerance) if isinstance(expected, float) else expected


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", LEARNERS)
def test_an_optimizer_and_its_schedule_go_on(folder, name, order):
    state = tl.load_checkpoint(folder / "learners.ckpt")[name]
    learner = Learner(name)
    learner.time = 3
    for p, array in zip(learner.params, state["weights"], strict=True):
        p.data = np.array(array, p.dtype)
    for key, part in list(learner.parts().items())[::order]:
        part.load_state_dict(state[key])
    learner.train(3)
    assert learner.standing() == approximately(state["after"], 1e-6)


# A whole run


def network():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )


class Run:
    """What examples/lenet_mnist.py keeps, in small."""

    def __init__(self):
        self.model = set_state(network())
        self.optimizer = optim.AdamW(self.model.parameters(), lr=0.05)
        images = filled((10, 1, 6, 6))
        self.loader = DataLoader((images, np.arange(10) % 3), batch_size=4, shuffle=True, seed=7)
        self.schedule = optim.OneCycleLR(self.optimizer, 0.05, total_steps=9)
        self.average = ExponentialMovingAverage(self.model, 0.75)
        self.stopping = EarlyStopping(2)
        self.parts = {
            name: getattr(self, name) for name in ("model", "optimizer", "loader", "schedule", "average", "stopping")
        }
        self.generator = np.random.default_rng(3)
        self.batches = itertools.chain.from_iterable(iter(lambda: self.loader, None))  # of one epoch after the other

    def train(self, steps):
        for images, labels in itertools.islice(self.batches, steps):
            self.optimizer.zero_grad()
            tl.cross_entropy(self.model(images), labels).backward()
            self.optimizer.step()
            self.schedule.step()
            self.average.update()
        self.stopping.step(0.5)

    def save(self):
        state = {name: part.state_dict() for name, part in self.parts.items()}
        return {**state, "random": self.generator.bit_generator.state}

    def load(self, state):
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.generator.bit_generator.state = state["random"]

    def standing(self):
        weights = {name: array.ravel().tolist() for name, array in self.model.state_dict().items()}
        averages = {name: array.ravel().tolist() for name, array in self.average.averages.items()}
        drawn = self.generator.integers(1000, size=3).tolist()
        stopping, loader = self.stopping.state_dict(), self.loader.state_dict()
        return {"weights": weights, "averages": averages, "stopping": stopping, "loader": loader, "drawn": drawn}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_run_goes_on(folder):
    file = tl.load_checkpoint(folder / "run.ckpt")
    run = Run()
    run.load(file["state"])
    run.train(3)
    found, expected = run.standing(), file["after"]
    for values in (found["weights"], found["averages"], expected["weights"], expected["averages"]):
        # The normalisation removes the bias: its gradient is a rounding error, and AdamW's steps have its sign.
        del values["0.bias"], values["1.running_mean"]
    assert found == approximately(expected, 1e-4)


# Every layer with weights, and the names that they have in LeNet-5

LAYERS = {
    "Linear": (lambda: nn.Linear(3, 2), (2, 3)),
    "Conv1d": (lambda: nn.Conv1d(2, 2, 2, padding=1), (1, 2, 4)),
    "Conv2d": (lambda: nn.Conv2d(2, 4, (1, 2), groups=2, bias=False), (1, 2, 3, 3)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 2), (1, 2, 3)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(1, 2, 2, stride=2), (1, 1, 2, 2)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (2, 3)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(2), (1, 2, 2, 2)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (2, 4)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (1, 4, 2)),
    "PReLU": (lambda: nn.PReLU(3), (2, 3)),
    "RNN": (lambda: nn.RNN(2, 2), (3, 1, 2)),
    "LSTM": (lambda: nn.LSTM(2, 2, num_layers=2, bidirectional=True), (3, 1, 2)),
    "GRU": (lambda: nn.GRU(2, 2), (3, 1, 2)),
}


def layer_output(name, model):
    output = model.eval()(filled(LAYERS[name][1]))
    return (output[0] if isinstance(output, tuple) else output).numpy()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same_with_its_old_weights(folder, name):
    state = {
        key.partition("/")[2]: array
        for key, array in tl.load(folder / "layers.npz").items()
        if key.startswith(f"{name}/")
    }
    expected = state.pop("output")
    model = LAYERS[name][0]()
    model.load_state_dict(state)
    assert same(model.state_dict(), set_state(LAYERS[name][0]()).state_dict())
    np.testing.assert_allclose(layer_output(name, model), expected, rtol=1e-5, atol=1e-6)


NETWORKS = {
    "LeNet5": lambda: nn.LeNet5(batch_norm=True),
    "Sequential": lambda: nn.Sequential({"a": nn.Linear(1, 1), "b": nn.ModuleList([nn.Linear(1, 1)])}),
}


def names_of(model):
    return [(name, array.dtype.name, array.shape) for name, array in model.state_dict().items()]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_names_of_old(folder, name):
    assert names_of(NETWORKS[name]()) == tl.load_checkpoint(folder / "values.ckpt")["names"][name]


# Values of every kind

NESTED = {
    "none": None,
    "numbers": [0, -1, 2**63, -(2**127), True, False, 0.1, -0.0, 1e-300],
    "limits": (float("inf"), float("-inf"), 5e-324),
    "words": ["", "é", "\u4e16\u754c", "\x00\n", "\U0001f600"],
    "deep": [[], (), {}, [((1,), [2, (3,)])], {"a": {"b": {}}}],
    1: {-5: "integer keys", 2**70: (None,)},
}
DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
ARRAYS = {f"{dtype} {len(shape)}": filled(shape, dtype) for dtype in DTYPES for shape in ((), (2, 3))}
ARRAYS |= {"empty": filled((0, 3)), "many axes": filled((1, 2, 1, 2)), "transposed": filled((2, 3)).T}
ARRAYS |= {"nan": np.float64([np.nan, np.inf, -np.inf, -0.0]), "é": filled((1,))}


def same(a, b):
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return type(a) is type(b) and same(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_a_checkpoint_has_every_value_with_its_type(folder):
    state = tl.load_checkpoint(folder / "values.ckpt")
    assert same(state["nested"], NESTED)
    assert same(state["arrays"], {**ARRAYS, "big-endian": filled((2,), ">f4")})
    assert same(state["tensor"], filled((2, 2)))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_weights_have_every_dtype(folder, kind):
    if kind == "safetensors":
        pytest.importorskip("safetensors")
    state = tl.load(folder / f"arrays.{kind}")
    assert set(state) == set(ARRAYS)
    assert all(same(state[name], array) for name, array in ARRAYS.items())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_an_onnx_model_gives_the_same(folder):
    pytest.importorskip("onnx")
    model = tl.onnx.load(folder / "network.onnx")
    expected = tl.load_checkpoint(folder / "values.ckpt")["onnx"]
    own = set_state(network())
    assert all(same(array, model.state_dict()[name]) for name, array in own.state_dict().items() if array.dtype == "f4")
    found = model(filled((2, 1, 6, 6), start=3)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(own.eval()(filled((2, 1, 6, 6), start=3)).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_pickled_tensors_and_modules_load(folder):
    found = pickle.loads((folder / "objects.pickle").read_bytes())
    assert type(found["tensor"]) is tl.Tensor
    assert found["tensor"].requires_grad
    np.testing.assert_array_equal(found["tensor"].numpy(), filled((2, 2)))
    output = found["network"](filled((2, 1, 6, 6), start=3)).numpy()
    np.testing.assert_allclose(output, found["output"], rtol=1e-6)


def write(folder):
    """Write the files of a folder, with the package of its commit."""
    tl.save_checkpoint(folder / "learners.ckpt", {name: learner_state(name) for name in LEARNERS})
    run = Run()
    run.train(5)
    state = run.save()
    run.train(3)
    tl.save_checkpoint(folder / "run.ckpt", {"state": state, "after": run.standing()})
    model = set_state(network()).eval()
    output = model(filled((2, 1, 6, 6), start=3)).numpy()
    arrays = {**ARRAYS, "big-endian": filled((2,), ">f4")}
    tensor = tl.tensor(filled((2, 2)), requires_grad=True)
    names = {name: names_of(make()) for name, make in NETWORKS.items()}
    values = {"nested": NESTED, "arrays": arrays, "tensor": tensor, "onnx": output, "names": names}
    tl.save_checkpoint(folder / "values.ckpt", values)
    layers = {}
    for name, (make, _) in LAYERS.items():
        state = set_state(make()).state_dict()
        layers |= {f"{name}/{key}": array for key, array in state.items()}
        layers[f"{name}/output"] = layer_output(name, set_state(make()))
    tl.save(folder / "layers.npz", layers)
    (folder / "objects.pickle").write_bytes(pickle.dumps({"tensor": tensor, "network": model, "output": output}))
    for kind in ("npz", "safetensors"):
        tl.save(folder / f"arrays.{kind}", ARRAYS)
    tl.onnx.export(model, filled((1, 1, 6, 6)), folder / "network.onnx")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
