"""One contender in a process of its own: reads jobs as JSON lines, answers each with what it measured.

``python benchmarks/contenders.py NAME`` is started by run.py. The models are written once, for any library whose ``nn``
has PyTorch's names: tinygrad_lenet and PyTorch run the same lines.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, SHAPES, Job


def lenet(nn: Any, activation: str = "relu", pool: str = "max") -> Any:
    act = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
    down = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[pool]
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), act(), down(2), nn.Conv2d(6, 16, 5), act(), down(2), nn.Flatten()),
        *(nn.Linear(400, 120), act(), nn.Linear(120, 84), act(), nn.Linear(84, 10)),
    )


def vgg(nn: Any) -> Any:
    layers, before = [], 3
    for channels in (32, 64, 128):
        for _ in range(2):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))


def mlp(nn: Any) -> Any:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def sequences(nn: Any, kind: str) -> Any:
    """Classifies a sequence by the mean state of an LSTM or a GRU.

    From the last state alone, gradients would fade to denormal numbers on their way to the first step.
    """

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent = getattr(nn, kind)(32, 64, batch_first=True)
            self.last = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            return self.last(self.recurrent(x)[0].mean(1))

    return Network()


def scaled(nn: Any, image: int, channels: int, depth: int) -> Any:
    """Convolutions of 3×3 in a row, for how the cost grows with each of these numbers."""
    layers, before = [], 1
    for _ in range(depth):
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
        before = channels
    return nn.Sequential(*layers, nn.AvgPool2d(image), nn.Flatten(), nn.Linear(channels, 10))


def model_of(name: str) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """How to build a model, and the shape of an image or a sequence.

    "scaled 28 16 2" says image, channels and depth; "LSTM 128" says the length of a sequence.
    """
    if name.startswith("scaled "):
        image, channels, depth = map(int, name.split()[1:])
        return lambda nn: scaled(nn, image, channels, depth), (1, image, image)
    if name.startswith(("LSTM ", "GRU ")):
        kind, length = name.split()
        return lambda nn: sequences(nn, kind), (int(length), 32)
    return MODELS[name]


MODELS: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "lenet": (lenet, (1, 28, 28)),
    "lenet tanh/avg": (lambda nn: lenet(nn, "tanh", "avg"), (1, 28, 28)),
    "vgg": (vgg, (3, 32, 32)),
    "mlp": (mlp, (1, 28, 28)),
}


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The same starting weights for everybody, by name and shape."""
    rng = np.random.default_rng(0)
    state = {}
    for name, shape in shapes.items():
        if "running_var" in name:
            state[name] = np.ones(shape, np.float32)
        elif "num_batches" in name:
            state[name] = np.zeros(shape, np.int64)
        else:
            scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1
            state[name] = (scale * rng.standard_normal(shape)).astype(np.float32)
    return state


def batch(shape: tuple[int, ...], size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.standard_normal((size, *shape)).astype(np.float32), rng.integers(0, 10, size)


class Library:
    """A library with PyTorch's names, as it is without a compiler."""

    def model(self, model: Any) -> Any:
        """The model, perhaps compiled."""
        return model

    def function(self, function: Any) -> Any:
        """A whole step, perhaps compiled."""
        return function


class Ours(Library):
    """tinygrad_lenet through its public API, eager."""

    def __init__(self) -> None:
        import tinygrad_lenet as tl

        self.lib, self.version = tl, tl.__version__
        self.nn, self.optim, self.cross_entropy = tl.nn, tl.optim, tl.cross_entropy
        self.tensor, self.no_grad = tl.tensor, tl.no_grad

    def load(self, model: Any) -> None:
        model.load_state_dict(weights({name: value.shape for name, value in model.state_dict().items()}))

    def full(self, size: int, value: float, **options: Any) -> Any:
        return self.lib.full((size,), value, **options)

    def wrapped(self, tensor: Any) -> Any:
        """Of a loader's batch, what this library computes with."""
        return tensor


class OursCompiled(Ours):
    """tinygrad_lenet, each step compiled."""

    def function(self, function: Any) -> Any:
        return self.lib.compile(function)


class Torch(Library):
    """PyTorch, eager."""

    def __init__(self) -> None:
        import torch

        self.lib, self.version = torch, torch.__version__
        self.nn, self.optim, self.cross_entropy = torch.nn, torch.optim, torch.nn.functional.cross_entropy
        self.tensor, self.no_grad = torch.tensor, torch.no_grad

    def load(self, model: Any) -> None:
        state = weights({name: tuple(value.shape) for name, value in model.state_dict().items()})
        model.load_state_dict({name: self.lib.from_numpy(np.asarray(value)) for name, value in state.items()})

    def full(self, size: int, value: float, **options: Any) -> Any:
        return self.lib.full((size,), value, **options)

    def wrapped(self, tensor: Any) -> Any:
        """Of a loader's batch, what this library computes with."""
        return self.lib.tensor(tensor.numpy())


class TorchCompiled(Torch):
    """PyTorch, the model compiled."""

    def model(self, model: Any) -> Any:
        return self.lib.compile(model)


class Other:
    """A library of peers.py, which has LeNet-5's training step only."""

    def __init__(self, name: str) -> None:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}")
        self.name = name
        self.version = importlib.metadata.version(name)

    def job(self, size: int) -> Job:
        shapes = {
            f"{i}.{kind}": shape[:end] for i, shape in SHAPES.items() for kind, end in (("weight", 4), ("bias", 1))
        }
        return PEERS[self.name](weights(shapes), *batch((1, 28, 28), size))


CONTENDERS: dict[str, Callable[[], Any]] = {
    "tinygrad_lenet": Ours,
    "tl.compile": OursCompiled,
    "torch": Torch,
    "torch.compile": TorchCompiled,
    **{name: partial(Other, name) for name in PEERS},
}


def training(peer: Any, model: str, size: int) -> Job:
    """A step: forward, backward, SGD with momentum. Returns the loss."""
    if isinstance(peer, Other):
        return peer.job(size)
    build, shape = model_of(model)
    net = build(peer.nn)
    optimizer = peer.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    compiled = peer.model(net)
    images, labels = batch(shape, size)
    x, y = peer.tensor(images), peer.tensor(labels)

    @peer.function
    def update(x: Any, y: Any) -> Any:
        loss = peer.cross_entropy(compiled(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    def step() -> float:
        return float(update(x, y).item())

    def renew() -> None:
        peer.load(net)
        for state in optimizer.state.values():
            state["momentum_buffer"][...] = 0

    return step, renew


def inference(peer: Any, model: str, size: int) -> Job:
    build, shape = model_of(model)
    net = build(peer.nn)
    peer.load(net)
    net.eval()
    compiled = peer.function(peer.model(net))
    x = peer.tensor(batch(shape, size)[0])

    def step() -> float:
        with peer.no_grad():
            return float(compiled(x)[0, 0].item())

    return step, lambda: None


def recording(peer: Any, model: str, size: int) -> Job:
    """64 adds and multiplies of 4 elements in a chain, forward and backward."""
    a, b = peer.full(4, 1.01), peer.full(4, 0.01)
    x, g = peer.full(4, 1.0, requires_grad=True), peer.full(4, 1.0)

    @peer.function
    def chain() -> Any:
        y = x
        for _ in range(32):
            y = y * a + b
        y.backward(g)
        return y.detach()

    def step() -> float:
        return float(chain()[0].item())

    return step, lambda: None


def sequence(peer: Any, model: str, size: int) -> Job:
    """Forward and backward pass over 16 sequences of this length: an LSTM ("lstm"), or a loop over steps ("slices")."""
    net = peer.nn.LSTM(32, 64, batch_first=True)
    peer.load(net)
    data = np.random.default_rng(1).standard_normal((16, size, 32)).astype(np.float32)

    def step() -> float:
        x = peer.tensor(data)
        x.requires_grad = True
        loss = net(x)[0].sum() if model == "lstm" else sum((x[:, t] * x[:, t]).sum() for t in range(size))
        loss.backward()
        return float(loss.item())

    return step, lambda: None


def learning(peer: Any, _: str, size: int) -> Callable[[], dict[str, float]]:
    """An epoch of LeNet-5 on MNIST: seconds of training, and the accuracy on the test set after it.

    The batches, the starting weights, the optimiser and the learning rate at each step are equal for all.
    """
    from tinygrad_lenet import data, nn, optim

    root = Path(__file__).parents[1] / "examples" / "data"
    loader = data.DataLoader(data.MNIST(root), size, shuffle=True, seed=0)
    images, labels = data.MNIST(root, train=False)[:]
    net = lenet(peer.nn)
    start = lenet(nn)
    rng = np.random.default_rng(0)
    for parameter in start.parameters():
        nn.init.kaiming_normal_(parameter, generator=rng) if parameter.ndim > 1 else nn.init.zeros_(parameter)
    net.load_state_dict({name: peer.tensor(value) for name, value in start.state_dict().items()})
    optimizer = peer.optim.SGD(net.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=1e-4)
    shadow = optim.SGD(start.parameters(), lr=0.03)  # which only says the rates
    schedule = optim.OneCycleLR(shadow, 0.03, total_steps=8 * len(loader), pct_start=0.2, cycle_momentum=False)

    @peer.function
    def update(x: Any, y: Any) -> None:
        loss = peer.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def epoch() -> dict[str, float]:
        began = time.perf_counter()
        for x, y in loader:
            optimizer.param_groups[0]["lr"] = shadow.param_groups[0]["lr"]
            update(peer.wrapped(x), peer.wrapped(y))
            schedule.step()
        seconds = time.perf_counter() - began
        with peer.no_grad():
            right = [
                (np.asarray(net(peer.tensor(images[i : i + 500])).numpy()).argmax(1) == labels[i : i + 500]).sum()
                for i in range(0, len(labels), 500)
            ]
        return {"seconds": seconds, "accuracy": float(sum(right)) / len(labels)}

    return epoch


JOBS = {"train": training, "infer": inference, "record": recording, "sequence": sequence}


def busy_seconds() -> float:
    """CPU seconds of all processes since the system started, and those that other virtual machines took from this."""
    try:
        user, nice, system, _, _, *others = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:  # only Linux has it
        return math.nan
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def measure(job: Job, seconds: float, clock: str) -> dict[str, float]:
    """The median time of a step on a clock of ``time``, over about this many seconds.

    Training begins again with fresh weights every 20 steps: a network that has learned its one batch by heart computes
    with denormal numbers, which take many times as long.
    """
    (step, renew), now = job, getattr(time, clock)
    times: list[float] = []
    start, own, all_before = time.perf_counter(), time.process_time(), busy_seconds()
    while len(times) < 3 or time.perf_counter() - start < seconds:
        if len(times) % 20 == 0:
            renew()
            step()  # which finds the weights in no cache
        before = now()
        step()
        times.append(now() - before)
    others = busy_seconds() - all_before - (time.process_time() - own)
    cores = max(0.0, others / (time.perf_counter() - start))
    return {"seconds": statistics.median(times), "steps": len(times), "others": cores}


def beginning(step: Callable[[], float]) -> tuple[list[float], list[float]]:
    """The results of the first three steps, and the time of each: a compiler makes its program there."""
    values, times = [], []
    for _ in range(3):
        before = time.perf_counter()
        values.append(step())
        times.append(time.perf_counter() - before)
    return values, times


def resident() -> float:
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(step: Callable[[], float], steps: int) -> dict[str, float]:
    """Peak resident memory early in a loop and at its end, MB."""
    peaks = []
    for count in (min(50, steps), steps):
        for _ in range(count):
            step()
        peaks.append(resident())
    return {"early": peaks[0], "late": peaks[1]}


def main() -> None:
    name = sys.argv[1]
    try:
        peer = CONTENDERS[name]()
    except ImportError as error:
        print(json.dumps({"absent": str(error)}), flush=True)
        return
    warnings.filterwarnings("error", message="tl.compile")  # a step that is not replayed fails its row
    print(json.dumps({"ready": peer.version}), flush=True)
    jobs: dict[str, Job] = {}
    epochs: Callable[[], dict[str, float]] | None = None
    for line in sys.stdin:
        job = json.loads(line)
        key = json.dumps([job["kind"], job["model"], job["size"]])
        try:
            answer: dict[str, Any] = {"base": resident()}
            if job["kind"] == "learn":
                epochs = epochs or learning(peer, job["model"], job["size"])
            elif key not in jobs:
                jobs.clear()
                step, renew = jobs[key] = JOBS[job["kind"]](peer, job["model"], job["size"])
                renew()
                answer["values"], answer["first"] = beginning(step)
            if job["kind"] == "learn":
                answer = epochs()
            elif "memory_steps" in job:
                answer |= memory(jobs[key][0], job["memory_steps"])
            else:
                answer |= measure(jobs[key], job["seconds"], job.get("clock", "perf_counter"))
        except Exception as error:  # a contender that cannot do a row is reported, not hidden
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
