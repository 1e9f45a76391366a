"""Printed and raised text is ASCII, and the example runs with any output: of another encoding, closed, or a pipe."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_example import EXAMPLE, command, run  # noqa: F401 - a fixture

import tinygrad_lenet as tl

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("tinygrad_lenet", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
ENCODINGS = ["ascii", "cp437", "cp1251", "cp866"]  # of terminals; none has all of the others' characters

# Literals that may hold other characters, with the reason.
ALLOWED: dict[str, str] = {}


def strings(tree):
    """The string literals of a module, without docstrings; of a formatted one, its parts."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    holders = [node for node in ast.walk(tree) if isinstance(node, kinds) and ast.get_docstring(node) is not None]
    docstrings = {id(node.body[0].value) for node in holders}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node


def test_string_literals_are_ascii():
    found = {
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.value!r}"
        for path in SOURCES
        for node in strings(ast.parse(path.read_text(encoding="utf-8")))
        if not node.value.isascii() and node.value not in ALLOWED
    }
    assert found == set()


def test_the_search_finds_parts_of_formatted_strings_escapes_and_no_docstrings():
    source = '"""\u00d7"""\ndef f(x):\n    "\u00d7"\n    return f"{x} \u2026", "\\u2016", "a"'
    assert [node.value for node in strings(ast.parse(source))] == ["\u2016", "a", " \u2026"]


def test_descriptions_of_the_programs_are_ascii():
    for path in SOURCES:
        if path.parent.name != "tinygrad_lenet":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            uses = any(isinstance(node, ast.Name) and node.id == "__doc__" for node in ast.walk(tree))
            assert not uses or ast.get_docstring(tree).split("\n")[0].isascii(), path


ERRORS = """
import numpy as np
import tinygrad_lenet as tl
from tinygrad_lenet import data, nn, training, visualize
x = tl.ones(2, 3)
calls = [lambda: x.sum(axis=5), lambda: x[4], lambda: tl.gather(x, 1, [[7]]), lambda: tl.one_hot([5], 3)]
calls += [lambda: tl.cross_entropy(x, [0, 9]), lambda: tl.linalg.norm(x, "x")]
calls += [lambda: nn.Embedding(3, 2, padding_idx=9), lambda: nn.Embedding(3, 2)([8]), lambda: tl.load("none.npz")]
calls += [lambda: training.confusion_matrix([9], [0], 2)]
calls += [lambda: x.reshape(7), lambda: x @ x, lambda: nn.Linear(2, 2)(x), lambda: tl.tensor(["\\u00fc"])]
for call in calls:
    try:
        call()
    except tl.TinygradLenetError as error:
        print(error)
    else:
        raise SystemExit("no error")
model = nn.LeNet5()
print(model, x, nn.summary(model, (1, 1, 28, 28)))
loss = model(tl.zeros(1, 1, 28, 28)).sum()
view = visualize.graph(loss, model)
loss.backward()
print(view, view.svg())
help(tl.arcsin)
"""


@pytest.mark.parametrize("encoding", [*ENCODINGS, "ascii:strict"])
def test_errors_reprs_and_help_are_printed_in_any_encoding(encoding):
    done = subprocess.run(
        [sys.executable, "-c", ERRORS],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") > 40


def in_encoding(command, cwd, encoding, *options):  # noqa: F811
    """A run of the example in another encoding of its output."""
    return subprocess.run(
        [*command, *options],
        cwd=cwd,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_example_prints_in_any_encoding(command, tmp_path, encoding):  # noqa: F811
    name = "\u0448\u00fc\u2713.npz"
    done = in_encoding(command, tmp_path, encoding, "--epochs", "1", "--runs", "2", "--save", name)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    *lines, last = done.stdout.splitlines()
    assert all(line.isascii() for line in lines)
    assert b" +- " in done.stdout
    assert last == f"Weights: {name}".encode(encoding, "backslashreplace")
    assert (tmp_path / name).exists()
    done = in_encoding(command, tmp_path, encoding, "--data", name[:-4])
    assert done.returncode == 2
    assert b"there is no folder" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_name_that_is_not_unicode_is_printed_too(command, tmp_path):  # noqa: F811
    if sys.platform in ("darwin", "win32"):
        pytest.skip("file names are Unicode on this system")
    done = in_encoding(command, tmp_path, "utf-8", "--epochs", "1", "--save", b"\xff.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"Weights: \\udcff.npz\n")


def test_the_progress_bar_is_ascii_if_the_terminal_is(command, tmp_path):  # noqa: F811
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen(
        [*command, "--epochs", "1", "--batch-size", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 1 << 16):
            text += piece
    except OSError:  # Linux's end of a terminal
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert b"%|#" in text
    assert text.isascii()


# Outputs that are closed, full, or read by nobody

FILES = ["lenet_mnist.ckpt", "lenet_mnist.npz", "lenet_mnist.png"]
SHELL = pytest.mark.skipif(not os.path.exists("/bin/sh"), reason="this system has no shell")


@SHELL
@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&- <&-"])
def test_a_closed_output_does_not_stop_the_example(command, tmp_path, closed):  # noqa: F811
    done = run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command], tmp_path, "--epochs", "1")
    assert done.returncode == 0
    assert ("Test accuracy" in done.stdout) == (closed == "2>&-")
    assert done.stderr == ""
    assert sorted(os.listdir(tmp_path)) == FILES
    done = run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command], tmp_path, "--lr", "1e30")
    assert done.returncode == 1
    done = run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *command], tmp_path, "--epochs", "0")
    assert done.returncode == 2


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_ends_the_example_with_a_sentence(command, tmp_path, unbuffered):  # noqa: F811
    process = subprocess.Popen(
        [*command, "--epochs", "12"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b"LeNet5 with")
    process.stdout.close()  # as `| head -1` does
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert errors == b"lenet_mnist.py: stopped, since its output cannot be written: Broken pipe\n"
    assert os.listdir(tmp_path) == ["lenet_mnist.ckpt"]
    done = run(command, tmp_path, "--epochs", "12", "--resume", "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
@pytest.mark.parametrize("options", [["--epochs", "1"], ["--epochs", "1", "--quiet"]])
def test_a_full_disk_for_the_output_is_an_error(command, tmp_path, options):  # noqa: F811
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"lenet_mnist.py: stopped, since its output cannot be written: No space left on device\n"


def test_a_program_without_a_console_works(monkeypatch, tmp_path, mnist):
    lenet_1998 = pytest.importorskip("lenet_1998")
    monkeypatch.setattr(sys, "stdout", None)  # as in pythonw.exe
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.chdir(tmp_path)
    lenet_1998.main(["--epochs", "1", "--examples", "100"])
    assert tl.load(tmp_path / "lenet_1998.npz")
    for stream in (sys.stdout, sys.stderr):
        stream.close()
