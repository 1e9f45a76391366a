"""User code under ``mypy --strict``: this file is it. What it asserts of types, mypy checks; pytest runs it as well.

Lines that end in ``# error`` are mistakes that mypy must find, and the only ones.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import numpy as np
import numpy.typing as npt
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import Tensor, data, nn, optim


class Net(nn.Module):
    """A user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * 26 * 26, 10)

    def forward(self, images: Tensor, scale: float = 1.0) -> Tensor:
        features = assert_type(self.conv(images), Tensor).relu().flatten(1)
        return assert_type(self.head(features), Tensor) * scale


def test_tensors() -> None:
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    assert_type((x * 2).relu().sum(axis=0), Tensor)
    assert_type(2 - x, Tensor)
    assert_type(-x @ x.T, Tensor)
    assert_type(x == 1, Tensor)
    assert_type(~(x[0] > 0), Tensor)
    assert_type(x.shape, tuple[int, ...])
    assert_type(x.sum().item(), float)
    assert_type(float(x[0]), float)
    assert_type(x.numpy(), npt.NDArray[Any])
    assert_type(x.grad, Tensor | None)
    assert_type(list(x), list[Tensor])
    assert_type(x.topk(1), tuple[Tensor, Tensor])
    assert_type(x.view(-1, 2).t().float().to("cpu", tl.zeros(1).dtype).clamp(0, max=1.5), Tensor)
    assert_type(x.detach().add_([1, 2], alpha=0.5).zero_().fill_(1), Tensor)
    assert_type((x.numel(), x.dim(), x.size * 2), tuple[int, int, int])
    assert_type(tl.masked_fill(x, [True, False], 0), Tensor)
    assert x.size(0) == x.size == 2
    assert_type(x.split(2), tuple[Tensor, ...])
    with tl.no_grad():
        assert_type(tl.is_grad_enabled(), bool)
        x += 1
    assert_type(x, Tensor)
    if TYPE_CHECKING:
        x.rleu()  # error
        x.sum(axes=0)  # error
        x.long(1)  # error
        x.grad.sum()  # error


def test_functions() -> None:
    @tl.primitive
    def cube(x: tl.Array, scale: float = 1.0) -> tl.Array:
        return scale * x**3

    cube.vjp(x=lambda g, x, scale: 3 * scale * g * x * x)
    x = tl.tensor([1.0, 2.0], requires_grad=True)
    assert_type(cube(x, scale=2.0), Tensor)
    assert_type(tl.tanh([1, 2]), Tensor)
    assert_type(tl.gelu(x), Tensor)
    assert_type(tl.functional.gelu(x), Tensor)
    assert_type(tl.conv2d(tl.ones(1, 1, 5, 5), tl.ones(1, 1, 3, 3), padding="same"), Tensor)
    assert_type(tl.grad(cube(x).sum(), x), tuple[Tensor | None, ...])
    assert_type(tl.linalg.norm(tl.eye(2)), Tensor)
    assert_type(nn.functional.gelu(x), Tensor)
    assert_type(tl.cat([x, tl.zeros_like(x)]), Tensor)
    assert_type(tl.mm(tl.eye(2), tl.eye(2)), Tensor)
    assert_type(tl.allclose(x, 1.0), bool)
    assert_type(x.allclose(1.0), bool)
    assert_type(tl.randint(3, (2,), dtype=tl.int32), Tensor)
    assert_type(tl.manual_seed(0), np.random.Generator)
    assert_type(tl.float32, np.dtype[Any])

    @tl.set_grad_enabled(False)
    def double(x: Tensor) -> Tensor:
        return x * 2

    assert_type(double(x), Tensor)
    with tl.inference_mode(), tl.set_grad_enabled(True):
        assert_type(tl.arctan2(x, x), Tensor)
    if TYPE_CHECKING:
        cube(x, scal=2.0)  # error
        tl.cta([x])  # error
        double(1)  # error
        tl.zeros(1, dtype=tl.float31)  # error
        tl.rleu(x)  # error
        tl.testing.gradchek()  # error
        tl.conv2d(x)  # error


def test_training(tmp_path: Path) -> None:
    model = Net()
    images = tl.zeros(2, 1, 28, 28)
    assert_type(model(images), Tensor)
    assert_type(model(images, scale=2.0), Tensor)
    assert_type(nn.LeNet5()(images), Tensor)
    assert_type(nn.CrossEntropyLoss()(model(images), [1, 2]), Tensor)
    assert_type(nn.MaxPool2d(2)(images), Tensor)
    assert_type(model.eval(), Net)
    assert_type(model.head.weight, nn.Parameter)
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    schedule = optim.StepLR(optimizer, step_size=1)
    loader = data.DataLoader((np.zeros((4, 1, 28, 28), np.float32), np.arange(4)), batch_size=2)
    for batch, labels in loader:
        loss = tl.cross_entropy(model(batch), labels)
        assert_type(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert_type(tl.training.evaluate(model, loader).accuracy, float)
    tl.save(tmp_path / "weights.npz", model)
    assert_type(tl.load(tmp_path / "weights.npz"), dict[str, npt.NDArray[Any]])
    if TYPE_CHECKING:
        model()  # error
        model(images, factor=2.0)  # error
        model.haed()  # error
        nn.Conv3d()  # error
        optim.Adam(model.parameters(), learning_rate=1e-3)  # error
        optim.SGD(model.parameters(), lr="fast")  # error
        optim.SGD(model.parameters()).lr = 0.1  # error


def test_mypy_agrees() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed; pip install 'tinygrad_lenet[dev]'")
    root = Path(tl.__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", __file__],
        cwd=root,
        env={**os.environ, "MYPYPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = Path(__file__).read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    errors = [line for line in run.stdout.splitlines() if ": error: " in line]
    assert len(marked) > 10
    assert {int(line.split(":")[1]) for line in errors} == marked, run.stdout + run.stderr
