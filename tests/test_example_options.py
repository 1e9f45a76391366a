"""The main example's options: what is refused before training, which go together, and what a resumed run may change."""

import argparse
import collections
import importlib.util
import itertools
import os
import re
import sys
import tempfile
from pathlib import Path

import command_line
import exchange
import lenet_1998
import numpy as np
import pytest
from test_example import small

import tinygrad_lenet as tl
from tinygrad_lenet import data, files

for library in ("matplotlib", "tqdm"):
    pytest.importorskip(library, reason=f"{library}, which the example needs, is not installed")
import lenet_mnist  # noqa: E402
import lenet_mnist_options  # noqa: E402

STEPS = 4  # of an epoch


@pytest.fixture(scope="module")
def images(mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnist")
    small(folder)
    return folder


@pytest.fixture
def example(images, tmp_path, monkeypatch):
    """Run the example in this process, in an empty folder, with 256 images; return the rate of each step."""
    monkeypatch.setattr(data.MNIST, "checksums", collections.defaultdict(lambda: None))
    monkeypatch.chdir(tmp_path)
    step = lenet_mnist.Run.step

    def run(*options, stop_at=None):
        rates = []

        def recorded(self, *batch):
            if len(rates) == stop_at:
                raise KeyboardInterrupt
            rates.append(self.optimizer.param_groups[0]["lr"])
            step(self, *batch)

        monkeypatch.setattr(lenet_mnist.Run, "step", recorded)
        lenet_mnist.main(["--data", str(images), *options])
        return rates

    return run


def refused(call, capsys, code=2):
    """The last line of stderr of a program that ends with an error."""
    with pytest.raises(SystemExit) as caught:
        call()
    if code == 2:
        assert caught.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]
    return caught.value.code


# Resuming


def scheduled(torch, lr, epochs):
    """PyTorch's rates of all steps of a run."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    steps = epochs * STEPS
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.2, cycle_momentum=False)
    rates = []
    for _ in range(steps):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize(
    ("first", "stop_at", "then", "lrs", "epochs"),
    [
        (["--epochs", "2"], None, ["--epochs", "4"], (0.03, 0.03), (2, 4)),
        (["--epochs", "2", "--checkpoint-every", "1"], 6, ["--epochs", "5"], (0.03, 0.03), (2, 5)),
        (["--epochs", "5", "--checkpoint-every", "1"], 6, ["--epochs", "2"], (0.03, 0.03), (5, 2)),
        (["--epochs", "2", "--lr", "0.1"], None, ["--epochs", "3", "--lr", "0.01"], (0.1, 0.01), (2, 3)),
        (["--epochs", "3"], 9, ["--epochs", "3", "--lr", "0.01"], (0.03, 0.01), (3, 3)),
        (["--recipe", "plain", "--epochs", "1"], None, ["--recipe", "plain", "--epochs", "3"], (0.02, 0.02), (1, 3)),
    ],
    ids=["finished", "interrupted in an epoch", "shorter", "another rate", "another rate only", "recipe"],
)
def test_a_resumed_run_follows_the_schedule_of_its_new_options_from_its_present_step_on(
    example, torch, capsys, first, stop_at, then, lrs, epochs
):
    found = [example(*first, stop_at=stop_at), example(*then, "--resume")]
    done = len(found[0]) // STEPS * STEPS if stop_at and "--checkpoint-every" not in first else len(found[0])
    np.testing.assert_allclose(found[0], scheduled(torch, lrs[0], epochs[0])[: len(found[0])], rtol=1e-12)
    np.testing.assert_allclose(found[1], scheduled(torch, lrs[1], epochs[1])[done:], rtol=1e-12)
    assert "the learning rate follows the new schedule" in capsys.readouterr().out
    assert [row["epoch"] for row in tl.load_checkpoint("lenet_mnist.ckpt")["history"]] == list(range(1, epochs[1] + 1))


def weights_and_history(folder):
    state = tl.load_checkpoint(folder / "lenet_mnist.ckpt")
    history = [{k: v for k, v in row.items() if "second" not in k} for row in state["history"]]
    return (folder / "lenet_mnist.npz").read_bytes(), history, state["schedule"]


def test_a_longer_run_that_is_interrupted_ends_with_the_same_bits(example, tmp_path, monkeypatch):
    found = []
    for name, stops in (("whole", []), ("torn", [3, 2, 6])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        example("--epochs", "2", "--average", "0.9")
        for stop in [*stops, None]:
            example("--epochs", "5", "--average", "0.9", "--resume", "--checkpoint-every", "1", stop_at=stop)
        found.append(weights_and_history(tmp_path / name))
    assert found[0] == found[1]


def test_each_of_several_runs_goes_on_for_more_epochs(example, capsys):
    example("--epochs", "1", "--runs", "2")
    assert len(example("--epochs", "2", "--runs", "3", "--resume")) == (1 + 1 + 2) * STEPS
    assert "There is no checkpoint lenet_mnist-2.ckpt yet: beginning anew." in capsys.readouterr().out


def test_too_few_epochs_are_refused_and_options_that_are_not_given_do_not_change(example, capsys):
    example("--epochs", "3", "--checkpoint-every", "1", stop_at=2 * STEPS + 1)
    message = refused(lambda: example("--epochs", "2", "--resume"), capsys, 1)
    assert "lenet_mnist.ckpt is past epoch 2, batch 1, so --epochs 2 is too few; give at least 3" in message
    assert "--epochs 3, not 8; resume with the same" in refused(lambda: example("--resume"), capsys, 1)
    message = refused(lambda: example("--resume", "--recipe", "plain"), capsys, 1)
    assert "--epochs 3, not 20; --lr the default, not 0.02; --weight-decay 0.0001, not 0.001" in message
    assert "--seed 0, not 1" in refused(lambda: example("--resume", "--epochs", "5", "--seed", "1"), capsys, 1)
    assert len(example("--resume", "--epochs", "3")) == STEPS - 1
    assert example("--resume", "--epochs", "3") == []


def test_every_run_is_checked_before_the_first_one_trains(example, capsys):
    example("--epochs", "2", "--runs", "2")
    os.unlink("lenet_mnist-0.ckpt")
    message = refused(lambda: example("--epochs", "1", "--runs", "2", "--resume"), capsys, 1)
    assert "lenet_mnist-1.ckpt is past epoch 2" in message
    assert not os.path.exists("lenet_mnist-0.ckpt")
    tl.save_checkpoint("lenet_mnist-1.ckpt", {"model": {}})
    message = refused(lambda: example("--epochs", "1", "--runs", "2", "--resume"), capsys, 1)
    assert "lenet_mnist-1.ckpt is a checkpoint of another program" in message


# Files and options that are refused


def arguments(*options):
    return lenet_mnist_options.arguments(list(options), "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--save w.bin", "--save must end in .npz, .safetensors, got w.bin"),
        ("--plot p.xyz", "--plot must end in .*, got p.xyz"),
        ("--report r.pdf", "--report must end in .htm, .html, got r.pdf"),
        ("--page p.txt", "--page must end in .htm, .html, got p.txt"),
        ("--page r.html --report r.html", "--report and --page are one file"),
        ("--save /proc/w.npz", "--save: /proc/w.npz cannot be written: "),
        ("--checkpoint " + 300 * "n", "--checkpoint: n* cannot be written: File name too long"),
        ("--runs 2 --checkpoint " + 254 * "n", "--checkpoint: n*-0 cannot be written: File name too long"),
        ("--data nowhere", "--data: there is no folder nowhere"),
        ("--checkpoint w.npz --save w.npz", "--save and --checkpoint are one file, w.npz"),
        ("--checkpoint link --save w.npz", "--save and --checkpoint are one file, link"),
        ("--checkpoint sub/w.npz --save here/w.npz", "--save and --checkpoint are one file"),
        ("--checkpoint w.npz --save W.npz", "--save and --checkpoint are one file where case is ignored"),
        ("--checkpoint \u00e9 --report e\u0301", "--report must end"),
        ("--checkpoint \u00e9.html --report e\u0301.html", "--report and --checkpoint are one file"),
        ("--runs 3 --save run-2.npz --checkpoint run.npz", "--save and --checkpoint are one file, run-2.npz"),
        ("--lr nan", "--lr must be above 0"),
        ("--lr inf", "--lr must be above 0 and finite"),
        ("--weight-decay nan", "--weight-decay must be at least 0"),
        ("--weight-decay -1", "--weight-decay must be at least 0"),
        ("--weight-decay inf", "--weight-decay must be at least 0 and finite"),
        ("--label-smoothing nan", r"--label-smoothing must lie in \[0, 1\)"),
        ("--average nan", r"--average must lie in \[0, 1\)"),
        ("--runs 1001", "--runs must be at most 1000"),
        ("--epochs 1" + 30 * "0", "--epochs must be at most 1000000000"),
        ("--optimizer adamw --weight-decay 0.1", "--weight-decay is for sgd; --optimizer adamw would ignore it"),
        ("--optimizer adam --recipe best", "--recipe best has the learning rate of sgd; give --lr for adam"),
    ],
)
def test_what_would_fail_later_or_be_ignored_is_refused_before_training(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("w.npz")
    Path("sub").mkdir()
    Path("here").symlink_to("sub")
    before = sorted(os.listdir())
    if "/proc" in options and not os.path.isdir("/proc"):
        pytest.skip("this system has no folder that not even root can write to")
    message = refused(lambda: arguments(*options.split()), capsys)
    assert re.search(words, message), message
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize("name", ["save", "plot", "report", "live", "page", "checkpoint", "data"])
def test_an_empty_name_is_refused(capsys, name):
    assert f"--{name}: the name is empty" in refused(lambda: arguments(f"--{name}", ""), capsys)


def test_files_that_may_not_be_written_are_refused(capsys, monkeypatch):
    arguments()  # which imports what it needs
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        Path(folder, "locked").mkdir()
        os.chmod(Path(folder, "locked"), 0o555)
        Path(folder, "open").mkdir()
        os.chmod(Path(folder, "open"), 0o777)
        Path(folder, "open", "old.npz").write_text("old")
        os.chmod(Path(folder, "open", "old.npz"), 0o444)
        monkeypatch.chdir(folder)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write everywhere
        try:
            files = ["--plot", "open/p.png", "--checkpoint", "open/c", "--save"]
            locked = refused(lambda: arguments(*files, "locked/w.npz"), capsys)
            old = refused(lambda: arguments(*files, "open/old.npz"), capsys)
            arguments(*files, "open/new.npz")
        finally:
            os.seteuid(user)
        assert "--save: locked/w.npz cannot be written: Permission denied" in locked
        assert "--save: open/old.npz cannot be written: Permission denied" in old
        assert os.listdir("open") == ["old.npz"]
        assert Path("open", "old.npz").read_text() == "old"


def test_the_check_leaves_files_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["lenet_mnist.npz", "lenet_mnist.ckpt", "lenet_mnist.png"]
    for name in names:
        Path(name).write_bytes(b"old")
    before = [os.stat(name) for name in names]
    arguments("--report", "r.html")
    assert [(s.st_ino, s.st_mtime_ns) for s in before] == [
        (s.st_ino, s.st_mtime_ns) for s in (os.stat(name) for name in names)
    ]
    assert sorted(os.listdir()) == sorted(names)


def test_a_missing_library_for_a_format_is_named(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "--plot p.pgf cannot be drawn" in refused(lambda: arguments("--plot", "p.pgf"), capsys)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for parse in (arguments, lambda *options: lenet_1998.arguments([*options])):
        message = refused(lambda parse=parse: parse("--save", "w.safetensors"), capsys)
        assert "--save w.safetensors needs the safetensors library; pip install" in message


def test_a_validation_set_leaves_some_training_images(example, capsys):
    message = refused(lambda: example("--validation", "256"), capsys, 1)
    assert "--validation must leave some of the 256 training images, got 256" in message
    assert os.listdir() == []


VALUES = {"recipe": "plain", "epochs": "2", "batch_size": "16", "lr": "0.01", "optimizer": "adam"}
VALUES |= {"weight_decay": "0.01", "label_smoothing": "0.1", "activation": "tanh", "pool": "avg", "average": "0.9"}
VALUES |= {"seed": "3", "runs": "2", "validation": "16", "dataset": "fashion", "data": "."}
VALUES |= {
    "checkpoint": "c",
    "checkpoint_every": "1",
    "plot": "p.pdf",
    "report": "r.html",
    "page": "d.html",
    "live": "l.html",
    "save": "w.npz",
}
VALUES |= dict.fromkeys(["batch_norm", "augment", "compile", "resume", "quiet"], "")  # these take none
CONTRADICTIONS = [{"optimizer", "weight_decay"}, {"optimizer", "recipe"}]


def test_each_pair_of_options_goes_together_or_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert set(VALUES) == set(vars(arguments())) - {"given"}
    monkeypatch.setattr(lenet_mnist_options, "check_files", lambda *_: None)  # which takes its time
    for pair in itertools.combinations(VALUES, 2):
        options = [part for name in pair for part in (f"--{name.replace('_', '-')}", VALUES[name]) if part]
        if {*pair} not in CONTRADICTIONS:
            assert arguments(*options).given == {*pair}
        else:
            refused(lambda options=options: arguments(*options), capsys)


# The other examples


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "-1"], "--epochs must be at least 0"),
        (["--folder", ""], "--folder: the name is empty"),
        (["--folder", "nowhere"], "--folder: there is no folder nowhere"),
        (["--folder", "."], "lenet.onnx is not a regular file"),
    ],
)
def test_the_exchange_checks_its_options_before_training(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    Path("lenet.onnx").mkdir()
    assert words in refused(lambda: exchange.main(options), capsys)


def test_the_exchange_names_what_is_not_installed_before_training(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("onnx",) else find(name))
    assert "needs onnx; pip install 'tinygrad_lenet[onnx]'" in refused(lambda: exchange.main([]), capsys)


def test_a_run_that_begins_leaves_the_file_that_another_run_writes_meanwhile(monkeypatch, tmp_path):
    target = tmp_path / "lenet_mnist.png"

    def slowly(*arguments):
        try:
            return open(*arguments)
        finally:
            files.write(target, b"of the other run")

    monkeypatch.setattr(command_line, "open", slowly, raising=False)
    command_line.check_outputs(argparse.ArgumentParser(), [("--plot", target)])
    assert target.read_bytes() == b"of the other run"
