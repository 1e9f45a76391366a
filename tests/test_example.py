"""The main example, run as a user runs it: a command line, and what it prints and leaves behind."""

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tinygrad_lenet import nn

EXAMPLE = Path(__file__).parents[1] / "examples" / "lenet_mnist.py"
MNIST = EXAMPLE.parent / "data" / "mnist"


def small(folder, count=256, name="t10k"):
    """A folder with the first images of a part of MNIST, both as training and as test set."""
    for kind, axes in (("images-idx3", 3), ("labels-idx1", 1)):
        raw = gzip.decompress((MNIST / f"{name}-{kind}-ubyte.gz").read_bytes())
        header = 4 + 4 * axes
        size = 784 if axes == 3 else 1
        content = raw[:4] + struct.pack(">I", count) + raw[8 : header + count * size]
        for prefix in ("train", "t10k"):
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(content)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Runs the example with a small data set, whose checksums a wrapper leaves unchecked."""
    folder = tmp_path_factory.mktemp("mnist")
    small(folder)
    wrapper = folder / "run.py"
    wrapper.write_text(
        "import collections, runpy, sys\n"
        "from tinygrad_lenet import data\n"
        "data.MNIST.checksums = collections.defaultdict(lambda: None)\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return [sys.executable, wrapper, EXAMPLE, "--data", folder]


def run(command, cwd, *options):
    return subprocess.run([*command, *options], cwd=cwd, capture_output=True, text=True, timeout=300)


def test_it_leaves_curves_weights_and_metrics(command, tmp_path):
    done = run(command, tmp_path, "--epochs", "2", "--metrics", "m.jsonl", "--optimizer", "adam", "--batch-norm")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "epoch 2/2" in done.stdout
    assert "Test accuracy" in done.stdout
    assert (tmp_path / "lenet_mnist.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    names = "epoch train_loss train_accuracy test_loss test_accuracy seconds images_per_second"
    assert [list(row) for row in rows] == [names.split()] * 2
    model = nn.LeNet5(batch_norm=True)
    with np.load(tmp_path / "lenet_mnist.npz") as state:
        model.load_state_dict(state)


def test_two_runs_with_one_seed_give_the_same_digits(command, tmp_path):
    def digits(name, *options):
        assert run(command, tmp_path, "--epochs", "2", "--metrics", name, *options).returncode == 0
        rows = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        with np.load(tmp_path / "lenet_mnist.npz") as state:
            weights = b"".join(state[key].tobytes() for key in state.files)
        return [{k: v for k, v in row.items() if "second" not in k} for row in rows], weights

    first = digits("a")
    assert digits("b") == first
    assert digits("c", "--seed", "1") != first


def test_ctrl_c_ends_cleanly_with_what_was_learned_saved(command, tmp_path):
    process = subprocess.Popen(
        [*command, "--epochs", "100000", "--save", "kept.npz"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts jobs in the background has them ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while "epoch 1/" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "Stopped in epoch" in out
    with np.load(tmp_path / "kept.npz") as state:
        nn.LeNet5().load_state_dict(state)
    assert (tmp_path / "lenet_mnist.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--batch-size", "-3"], "--batch-size must be at least 1"),
        (["--lr", "-1"], "--lr must be above 0"),
        (["--optimizer", "lbfgs"], "invalid choice"),
        (["--plot", "no/such/folder/x.png"], "does not exist; make it first"),
        (["--save", "no/such/folder/x.npz"], "does not exist; make it first"),
    ],
)
def test_options_that_cannot_be_are_refused_before_training(command, tmp_path, options, words):
    done = run(command, tmp_path, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_file_is_named(tmp_path):
    small(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    done = run([sys.executable, EXAMPLE], tmp_path, "--data", tmp_path)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_extra_is_named(tmp_path):
    (tmp_path / "tqdm.py").write_text("raise ModuleNotFoundError(\"No module named 'tqdm'\", name='tqdm')")
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs tqdm" in done.stderr
    assert "pip install" in done.stderr
