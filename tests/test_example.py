"""The main example, run as a user runs it: a command line, and what it prints and leaves behind."""

import base64
import gzip
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest

import tinygrad_lenet as tl
from tinygrad_lenet import nn, training

EXAMPLE = Path(__file__).parents[1] / "examples" / "lenet_mnist.py"
MNIST = EXAMPLE.parent / "data" / "mnist"

pytestmark = pytest.mark.usefixtures("mnist")


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
def command(mnist, tmp_path_factory):
    """Runs the example with a small data set, whose checksums a wrapper leaves unchecked."""
    folder = tmp_path_factory.mktemp("mnist")
    small(folder)
    wrapper = folder / "run.py"
    wrapper.write_text(
        "import collections, pathlib, runpy, sys\n"
        "from tinygrad_lenet import data\n"
        "data.MNIST.checksums = collections.defaultdict(lambda: None)\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path[0] = str(pathlib.Path(sys.argv[0]).parent)\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    return [sys.executable, wrapper, EXAMPLE, "--data", folder]


@pytest.fixture(scope="module")
def example(command):
    """Runs the same, and starts it, in processes that have done their imports."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    modules = [f"tinygrad_lenet.{name}" for name in ("data", "nn", "optim", "training", "visualize")]
    server = forked.Server(command, *modules, "matplotlib.figure", "matplotlib.backends.backend_agg", "tqdm")
    yield server
    server.close()


def run(command, cwd, *options):
    return subprocess.run([*command, *options], cwd=cwd, capture_output=True, text=True, timeout=300)


def history(folder, name="lenet_mnist.ckpt"):
    return tl.load_checkpoint(folder / name)["history"]


def test_it_leaves_curves_weights_and_a_history(command, tmp_path):
    done = run(command, tmp_path, "--epochs", "2", "--optimizer", "adam", "--batch-norm")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "epoch 2/2" in done.stdout
    assert "Test accuracy" in done.stdout
    assert (tmp_path / "lenet_mnist.png").read_bytes().startswith(b"\x89PNG")
    rows = history(tmp_path)
    names = "epoch train_loss train_accuracy test_loss test_accuracy seconds images_per_second"
    assert [list(row) for row in rows] == [names.split()] * 2
    about = tl.load_metadata(tmp_path / "lenet_mnist.npz")
    options = {"model": "LeNet5", "activation": "relu", "pool": "max", "batch_norm": "True", "dataset": "MNIST"}
    assert {name: about[name] for name in options} == options
    model = nn.LeNet5(batch_norm=True)
    with np.load(tmp_path / "lenet_mnist.npz") as state:
        model.load_state_dict(state)


def test_two_runs_with_one_seed_give_the_same_digits(command, tmp_path):
    def digits(*options):
        assert run(command, tmp_path, "--epochs", "2", *options).returncode == 0
        with np.load(tmp_path / "lenet_mnist.npz") as state:
            weights = b"".join(state[key].tobytes() for key in state.files)
        return [{k: v for k, v in row.items() if "second" not in k} for row in history(tmp_path)], weights

    first = digits()
    assert digits() == first
    assert digits("--seed", "1") != first


# Runs that one can rely on


LONG = ["--epochs", "6", "--batch-size", "16", "--checkpoint-every", "3", "--average", "0.9", "--augment"]
LONG += ["--validation", "56", "--batch-norm", "--quiet"]


def outcome(folder):
    """Every bit that a run leaves behind, but for the time that it took."""
    state = tl.load_checkpoint(folder / "lenet_mnist.ckpt")
    for row in [*state["history"], state["sums"]]:
        for name in ("seconds", "images_per_second"):
            row.pop(name, None)
    tl.save_checkpoint(folder / "timeless", state)
    return (folder / "timeless").read_bytes(), (folder / "lenet_mnist.npz").read_bytes()


def test_a_run_that_is_killed_twenty_times_ends_with_the_same_bits(command, example, tmp_path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    whole.mkdir()
    torn.mkdir()
    assert run(command, whole, *LONG).returncode == 0
    expected = outcome(whole)
    rng, kills, done = np.random.default_rng(0), 0, False
    while kills < 20 or not done:  # the last run is a whole one, which removes what killed ones left
        process = example.start(torn, *LONG, "--resume")
        if kills >= 20:
            process.wait(timeout=100)
        else:
            before = os.stat(torn / "lenet_mnist.ckpt").st_mtime_ns if (torn / "lenet_mnist.ckpt").exists() else 0
            while process.poll() is None and before == (
                os.stat(torn / "lenet_mnist.ckpt").st_mtime_ns if (torn / "lenet_mnist.ckpt").exists() else 0
            ):
                time.sleep(0.001)  # until it has written one, so that the run comes to an end some day
            time.sleep(rng.uniform(0, 0.15))
            process.kill()
            kills += process.wait() == -signal.SIGKILL
        process.communicate()
        done = process.returncode == 0
        if done:
            assert outcome(torn) == expected
            (torn / "lenet_mnist.ckpt").unlink()
    assert not list(torn.glob("*.tmp"))


def test_ctrl_c_and_resume_end_with_the_same_bits_too(example, tmp_path):
    for folder in ("whole", "torn"):
        (tmp_path / folder).mkdir()
    assert example.run(tmp_path / "whole", *LONG).returncode == 0
    process = example.start(tmp_path / "torn", *LONG)
    while not (tmp_path / "torn" / "lenet_mnist.ckpt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert example.run(tmp_path / "torn", *LONG, "--resume").returncode == 0
    assert outcome(tmp_path / "torn") == outcome(tmp_path / "whole")


def test_a_run_of_an_earlier_version_goes_on(example, tmp_path):
    assert example.run(tmp_path, "--epochs", "2", "--quiet").returncode == 0
    whole = (tmp_path / "lenet_mnist.npz").read_bytes()
    state = tl.load_checkpoint(tmp_path / "lenet_mnist.ckpt")
    state["settings"] |= {"model": "lenet5", "accumulate": 1, "patience": 3}  # there were options for these
    state["stopping"] = training.EarlyStopping(3).state_dict()
    tl.save_checkpoint(tmp_path / "lenet_mnist.ckpt", state)
    done = example.run(tmp_path, "--epochs", "2", "--resume", "--save", "again.npz")
    assert done.returncode == 0, done.stderr
    assert "Going on after epoch 2" in done.stdout
    assert (tmp_path / "again.npz").read_bytes() == whole


@pytest.mark.parametrize(("name", "value"), [("accumulate", 2), ("model", "classic")])
def test_a_run_with_an_option_that_is_gone_is_refused(example, tmp_path, name, value):
    assert example.run(tmp_path, "--epochs", "1", "--quiet").returncode == 0
    state = tl.load_checkpoint(tmp_path / "lenet_mnist.ckpt")
    state["settings"][name] = value
    tl.save_checkpoint(tmp_path / "lenet_mnist.ckpt", state)
    done = example.run(tmp_path, "--epochs", "2", "--resume")
    assert done.returncode == 1
    words = f"is of a run with --{name} {value}, which this program no longer has; begin anew without --resume"
    assert words in done.stderr


def test_to_resume_needs_the_same_options_and_a_whole_file(example, tmp_path):
    assert example.run(tmp_path, "--epochs", "1", "--resume", "--quiet").returncode == 0  # there is nothing yet
    done = example.run(tmp_path, "--batch-size", "8", "--seed", "3", "--resume")
    assert done.returncode == 1
    assert "--seed 0, not 3; --epochs 1, not 8; --batch-size 64, not 8" in done.stderr
    path = tmp_path / "lenet_mnist.ckpt"
    path.write_bytes(path.read_bytes()[:-100])
    done = example.run(tmp_path, "--epochs", "1", "--resume")
    assert done.returncode == 1
    assert "lenet_mnist.ckpt is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_file_that_is_damaged_meanwhile_leaves_the_checkpoint_alone(command, tmp_path):
    small(tmp_path)
    mine = [str(tmp_path) if part == command[-1] else part for part in command]
    assert run(mine, tmp_path, "--epochs", "1").returncode == 0
    kept = (tmp_path / "lenet_mnist.ckpt").read_bytes()
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-1])
    done = run(mine, tmp_path, "--epochs", "1", "--resume")
    assert done.returncode == 1
    assert str(images) in done.stderr
    assert (tmp_path / "lenet_mnist.ckpt").read_bytes() == kept


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_layer(example, tmp_path):
    done = example.run(tmp_path, "--optimizer", "sgd", "--lr", "1e30", "--epochs", "1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert "step " in line
    assert "(epoch 1, batch " in line
    assert "of 4)" in line
    assert "layer" in line or "gradient of" in line
    assert "Lower --lr" in line


def test_a_file_that_cannot_be_written_any_more_ends_the_run_with_a_sentence(example, tmp_path):
    for option in ("--checkpoint", "--save", "--plot", "--report", "--page"):
        name = {"--save": "a.npz", "--plot": "a.png", "--report": "a.html", "--page": "a.html"}.get(option, "a")
        (tmp_path / "gone").mkdir()
        process = example.start(tmp_path, "--epochs", "20", option, f"gone/{name}")
        process.stdout.readline()
        shutil.rmtree(tmp_path / "gone")  # as if a disk were unplugged during the training
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"gone/{name} cannot be written: No such file" in errors
        assert "Traceback" not in errors


def test_what_is_not_a_regular_file_is_refused_before_the_training(example, tmp_path):
    for option in ("--checkpoint", "--save", "--plot", "--report", "--page"):
        name = {"--save": "a.npz", "--report": "a.html", "--page": "a.html"}.get(option, "a.png")
        (tmp_path / name).mkdir()
        done = example.run(tmp_path, option, name)
        assert done.returncode == 2
        assert f"{name} is not a regular file" in done.stderr
        (tmp_path / name).rmdir()
    assert os.listdir(tmp_path) == []


# What a person sees


def test_piped_output_is_plain_lines_and_quiet_is_the_result(example, tmp_path):
    plain = example.run(tmp_path, "--epochs", "2")
    assert plain.stderr == ""
    assert "\r" not in plain.stdout
    assert len([line for line in plain.stdout.splitlines() if line.startswith("epoch ")]) == 2
    quiet = example.run(tmp_path, "--epochs", "2", "--quiet")
    assert len(quiet.stdout.splitlines()) == 1
    assert quiet.stdout.startswith("Test accuracy ")
    assert f"Test accuracy {history(tmp_path)[1]['test_accuracy']:.2%} after" in quiet.stdout


def test_several_runs_give_a_mean_and_a_confidence_interval(example, tmp_path):
    done = example.run(tmp_path, "--epochs", "1", "--runs", "3", "--quiet")
    found = [history(tmp_path, f"lenet_mnist-{seed}.ckpt")[-1]["test_accuracy"] for seed in range(3)]
    half = 100 * 4.303 * np.std(found, ddof=1) / 3**0.5
    each = ", ".join(f"{accuracy:.2%}" for accuracy in found)
    assert f"Test accuracy {np.mean(found):.2%} +- {half:.2f} (95 % confidence; 3 seeds: {each})" in done.stdout


def test_the_report_is_one_page_with_everything_in_it(example, tmp_path):
    done = example.run(tmp_path, "--epochs", "1", "--validation", "50", "--report", "r.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "r.html").read_text()
    for heading in ("Learning", "Layers", "Confusion", "Mistakes", "First layer", "A digit on its way"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/png;base64,") >= 9
    assert "61,706" in page
    assert "http" not in page


def test_the_page_has_the_weights_that_are_saved_and_test_images(example, tmp_path):
    done = example.run(tmp_path, "--epochs", "1", "--average", "0.9", "--page", "p.html")
    assert "Page to draw on: p.html" in done.stdout
    page = (tmp_path / "p.html").read_text("utf-8")
    network = json.loads(re.search(r'id="network">(.*?)</script>', page)[1])
    weights = np.frombuffer(base64.b64decode(network["weights"]), "<f4")
    np.testing.assert_array_equal(
        weights, np.concatenate([a.ravel() for a in tl.load(tmp_path / "lenet_mnist.npz").values()])
    )
    assert len(network["examples"]["labels"]) == 20
    assert len(page) < 450_000


def test_the_live_page_reloads_itself_until_the_end_and_changes_no_bit_of_the_training(example, tmp_path):
    example.run(tmp_path, "--epochs", "2", "--batch-norm", "--save", "without.npz")
    options = ["--epochs", "2", "--batch-norm", "--live", "live.html", "--save", "with.npz"]
    process = example.start(tmp_path, *options)
    for line in process.stdout:
        if line.startswith("epoch 1"):
            break
    early = (tmp_path / "live.html").read_text()
    process.communicate(timeout=60)
    last = (tmp_path / "live.html").read_text()
    assert '<meta http-equiv="refresh" content="3">' in early
    assert "refresh" not in last
    assert re.findall(r"<h2>(.*?)</h2>", last) == ["Step 8, tested on 256 images", "First layer", "Worst mistakes"]
    without, found = (tl.load(tmp_path / name) for name in ("without.npz", "with.npz"))
    assert all(np.array_equal(without[name], found[name]) for name in without)


def test_activations_and_optimizers_are_compared_in_two_pictures(tmp_path, monkeypatch, capsys):
    path = EXAMPLE.with_name("compare.py")
    source = path.read_text()
    assert "STEPS = 400\n" in source
    monkeypatch.chdir(tmp_path)
    exec(source.replace("STEPS = 400\n", "STEPS = 40\n"), {"__file__": str(path)})
    assert sorted(os.listdir(tmp_path)) == ["activations.png", "optimizers.png"]
    assert len(re.findall(r"^.+: \d+\.\d\d% after 40 steps$", capsys.readouterr().out, re.MULTILINE)) == 10


@pytest.mark.parametrize("name", ["augmentation.png", "lenet_graph.svg"])
def test_the_pictures_of_the_readme_are_drawn_by_its_examples(tmp_path, monkeypatch, name):
    blocks = re.findall(r"```py\n(.*?)```", (EXAMPLE.parent / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if f'("{name}"' in block)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("examples/data", str(MNIST.parent)), {})
    assert os.listdir(tmp_path) == [name]
    if name == "lenet_graph.svg":
        names = [name for name, _ in nn.LeNet5().named_parameters()]
        text = (tmp_path / name).read_text()
        assert [name for name in names if f">{name}<" not in text] == []
        assert text.count("|gradient|") > 2 * len(names)


def test_ctrl_c_ends_cleanly_with_what_was_learned_saved(example, tmp_path):
    process = example.start(tmp_path, "--epochs", "100000", "--save", "kept.npz")
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
        (["--average", "1"], "--average must lie in [0, 1)"),
        (["--optimizer", "lbfgs"], "invalid choice"),
        (["--plot", "no/such/folder/x.png"], "does not exist; make it first"),
        (["--save", "no/such/folder/x.npz"], "does not exist; make it first"),
        (["--save", "x.pt"], "--save must end in .npz, .safetensors, got x.pt"),
        (["--plot", "x.xyz"], "--plot must end in "),
        (["--checkpoint", "./lenet_mnist.npz"], "--save and --checkpoint are one file"),
        (["--checkpoint", "x.html", "--report", "x.html"], "--report and --checkpoint are one file"),
        (["--checkpoint", "loop"], "loop is not a regular file"),
    ],
)
def test_options_that_cannot_be_are_refused_before_training(example, tmp_path, options, words):
    (tmp_path / "loop").symlink_to("loop")
    done = example.run(tmp_path, *options)
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
