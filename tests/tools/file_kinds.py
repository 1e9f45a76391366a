"""Everything in the package that writes or reads files, by the ending of the name: for tests that try them all."""

import importlib.util

import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import files, nn
from tinygrad_lenet.data import read_idx


def graph():
    return tl.visualize.graph(tl.ones(2, requires_grad=True).sum())


# Each function receives a path and a number to write.
WRITERS = {
    ".ckpt": lambda path, n: tl.save_checkpoint(path, {"n": n, "array": np.full(3000, n)}),
    ".npz": lambda path, n: tl.save(path, {"n": np.array(n), "array": np.full(3000, n)}),
    ".txt": lambda path, n: files.write(path, lambda file: file.write(b"%d" % n * 3000)),
    ".svg": lambda path, n: graph().save(path),
}
if importlib.util.find_spec("safetensors"):
    WRITERS[".safetensors"] = lambda path, n: tl.save(path, {"array": np.full(3000, n)})
if importlib.util.find_spec("onnx"):
    WRITERS[".onnx"] = lambda path, n: tl.onnx.export(nn.Linear(2, 300, generator=n), tl.zeros(1, 2), path)
READERS = {
    ".ckpt": tl.load_checkpoint,
    ".npz": tl.load,
    ".safetensors": tl.load,
    ".onnx": lambda path: tl.onnx.load(path),
    ".idx": read_idx,
    ".gz": read_idx,
}
READERS = {ending: read for ending, read in READERS.items() if ending in WRITERS or read is read_idx}
every_writer = pytest.mark.parametrize(("ending", "save"), WRITERS.items(), ids=WRITERS)
every_reader = pytest.mark.parametrize(("ending", "load"), READERS.items(), ids=READERS)
