"""Train LeNet-5 here, take it to onnxruntime and to PyTorch, and bring it back; print how far the logits differ.

    python examples/exchange.py [--epochs N] [--folder DIR]

Needs onnx and safetensors; onnxruntime and PyTorch where they are installed: what is missing is skipped, and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import command_line
import numpy as np

import tinygrad_lenet as tl
from tinygrad_lenet import data, files, nn, optim, training

HERE = Path(__file__).parent / "data"
FILES = ("lenet.onnx", "lenet.safetensors", "torch.safetensors")


def train(model: nn.Module, epochs: int) -> None:
    """A few lines of the training that lenet_mnist.py does in full."""
    loader = data.DataLoader(data.MNIST(HERE, train=True), 64, shuffle=True, seed=0)
    optimizer = optim.SGD(model.parameters(), lr=0.03, momentum=0.9, nesterov=True)
    schedule = optim.OneCycleLR(optimizer, 0.03, total_steps=max(1, epochs) * len(loader), cycle_momentum=False)
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            tl.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()


def torch_lenet(torch: Any) -> Any:
    """The same network in PyTorch, with the same names."""

    class LeNet5(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = torch.nn.Conv2d(1, 6, 5, padding=2)
            self.conv2 = torch.nn.Conv2d(6, 16, 5)
            self.fc1 = torch.nn.Linear(400, 120)
            self.fc2 = torch.nn.Linear(120, 84)
            self.fc3 = torch.nn.Linear(84, 10)

        def forward(self, x: Any) -> Any:
            f = torch.nn.functional
            x = f.max_pool2d(self.conv1(x).relu(), 2)
            x = f.max_pool2d(self.conv2(x).relu(), 2).flatten(1)
            return self.fc3(self.fc2(self.fc1(x).relu()).relu())

    return LeNet5().eval()


def exchange(folder: Path, epochs: int) -> None:
    model = nn.LeNet5(generator=0)
    train(model, epochs)
    model.eval()
    pixels, labels = data.MNIST(HERE, train=False)[np.arange(1000)]
    images = tl.tensor(pixels)
    with tl.no_grad():
        logits = model(images).numpy()
    largest, accuracy = np.abs(logits).max(), training.accuracy(logits, labels)
    print(f"trained here: {accuracy:.2%} of 1,000 test images; logits up to {largest:.1f}")

    def report(step: str, found: Any) -> None:
        difference = float(np.abs(np.asarray(found) - logits).max() / largest)
        print(f"{step:<52} largest difference {difference:.1e} of the largest logit")
        if difference > 1e-5:
            raise SystemExit(f"{step}: the logits differ")

    def ours(other: nn.Module) -> np.ndarray:
        with tl.no_grad():
            return np.asarray(other(images).detach())

    tl.onnx.export(model, images[:1], folder / "lenet.onnx")
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "lenet.onnx")
        report("ONNX, run by onnxruntime", session.run(None, {"input": pixels})[0])
    else:
        print("onnxruntime is not installed: skipped")
    report("ONNX, and back", ours(tl.onnx.load(folder / "lenet.onnx")))

    about = {"model": "LeNet5", "activation": "relu", "pool": "max", "dataset": "MNIST"}  # predict.py asks for it
    tl.save(folder / "lenet.safetensors", model, about)
    if importlib.util.find_spec("torch"):
        import torch
        from safetensors.torch import load_file, save

        twin = torch_lenet(torch)
        twin.load_state_dict(load_file(folder / "lenet.safetensors"))
        x = torch.from_dlpack(images)  # the same memory
        with torch.no_grad():
            report("safetensors, run by PyTorch", twin(x).numpy())
        files.write(folder / "torch.safetensors", save(twin.state_dict()))
        back = nn.LeNet5()
        back.load_state_dict(tl.load(folder / "torch.safetensors"))
        report("PyTorch, and back", ours(back.eval()))
    else:
        print("PyTorch is not installed: skipped")


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=1, help="passes over the training set")
    parser.add_argument(
        "--folder", type=command_line.path, help="where to leave the files; a temporary folder if not given"
    )
    args = parser.parse_args(argv)
    if args.epochs < 0:
        parser.error(f"--epochs must be at least 0, got {args.epochs}")
    if args.folder and not args.folder.is_dir():  # better now than after training
        parser.error(f"--folder: there is no folder {args.folder}; make it first")
    if args.folder:
        command_line.check_outputs(parser, [("--folder", args.folder / name) for name in FILES])
    missing = [name for name in ("onnx", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(missing)
        parser.error(f"this example needs {' and '.join(missing)}; pip install 'tinygrad_lenet[{extras}]'")
    return args


def main(argv: list[str] | None = None) -> None:
    with command_line.program("exchange.py"), tempfile.TemporaryDirectory() as temporary:
        args = arguments(argv)
        exchange(args.folder or Path(temporary), args.epochs)


if __name__ == "__main__":
    main()
