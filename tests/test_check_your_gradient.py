"""The example project of a user's own op, and what pytest prints when a gradient of theirs is wrong."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tinygrad_lenet as tl

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "examples" / "check_your_gradient"
PACKAGE = Path(tl.__file__).parent


def run_pytest(folder, *options):
    """Run pytest as a user does: in the folder, without our settings."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "120"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def project(tmp_path):
    """A copy of the project, outside of the repository."""
    return shutil.copytree(PROJECT, tmp_path / "my_op", ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))


def change(project, before, after):
    path = project / "squared_distances.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def ours(screen):
    """The lines that show a file of the package, or code from it. Hypothesis may list lines under "Explanation:"."""
    return [line for line in screen.splitlines() if f"{PACKAGE}{os.sep}" in line and not line.startswith("E   ")]


def test_the_project_passes_when_it_is_copied(project):
    run = run_pytest(project, "-W", "error")
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
    assert {path.name for path in PROJECT.iterdir()} >= {"README.md", "squared_distances.py"}


WRONG = {
    "a factor": ("* 2 * differences(x, y), axis=1", "* differences(x, y), axis=1", "it is 0.5 times the numerical one"),
    "a sign": ("* -2 *", "* 2 *", "it is -1 times the numerical one"),
    "no g": ("g[:, :, None] * 2", "2", "a rule must be linear in g"),
    "a method": ("tl.sum(g[:, :, None] * 2", "(lambda a, axis: a.sum(dim=axis))(g[:, :, None] * 2", "such as tl.exp"),
    "a write": ("    return np.sum", "    x -= 1\n    return np.sum", "copy first, x = np.copy(x)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_gets_a_verdict_and_the_users_own_lines(project, name):
    before, after, verdict = WRONG[name]
    change(project, before, after)
    run = run_pytest(project, "-k", "numerical_one")
    assert run.returncode == 1, run.stdout
    assert verdict in run.stdout
    assert "assert gradcheck(squared_distances, points, order=2)" in run.stdout
    assert not ours(run.stdout)
    assert len(run.stdout.splitlines()) < 70


OWN = """
import numpy as np
import tinygrad_lenet as tl
from hypothesis import given, settings
from tinygrad_lenet.testing import gradcheck, numerical_jacobian, strategies

@tl.primitive
def square(x: tl.Array) -> tl.Array:
    return x * x

square.vjp(x=lambda g, x: g * x)

@tl.primitive
def swish(x: tl.Array) -> tl.Array:
    return x / (1 + np.exp(-x))

swish.vjp(x=lambda g, x: g * x.sigmoid())

def test_wrong():
    assert gradcheck(square, [[3.0, -5.0]])

def test_rule_fails():
    swish(tl.ones(2, requires_grad=True)).sum().backward()

def test_misused():
    gradcheck(square, [1.0], order=3)

def test_jacobian():
    numerical_jacobian(lambda x: x.tolist(), [[1.0]])

@given(strategies.tensors((2,), low=3, high=1))
def test_strategy(x):
    pass

@settings(deadline=None)
@given(strategies.tensors(strategies.shapes(max_dims=2)))
def test_two_failures(x):
    if x.ndim == 2:
        assert gradcheck(lambda x: square(x) * 1j if x.size == 99 else square(x), [x])
    assert gradcheck(swish, [x])
"""


@pytest.mark.parametrize("style", [[], ["--tb=short"]], ids=["default", "short"])
def test_pytest_shows_the_users_lines_and_the_message(tmp_path, style):
    (tmp_path / "test_own.py").write_text(OWN)
    run = run_pytest(tmp_path, *style)
    assert "6 failed" in run.stdout
    assert not ours(run.stdout)
    assert "self.compare(" not in run.stdout
    for text in (
        "GradientCheckError: argument 0, index (1,): the recorded gradient is",
        "swish.vjp(x=lambda g, x: g * x.sigmoid())",
        "AttributeError: 'numpy.ndarray' object has no attribute 'sigmoid'",
        "DTypeError: swish: the rule of 'x': 'numpy.ndarray' object has no attribute 'sigmoid'",
        "gradcheck: order must be 1 or 2",
        "numerical_jacobian: the function fn must return a Tensor",
        "tensors: dtype must be floating-point and low at most high",
        "Hypothesis found 2 distinct failures",
    ):
        assert text in run.stdout, text


def test_the_whole_traceback_can_be_had(tmp_path):
    (tmp_path / "test_own.py").write_text(OWN)
    assert ours(run_pytest(tmp_path, "--full-trace", "-k", "rule_fails").stdout)


def test_a_verdict_has_no_lines_of_the_check():
    """Also where pytest is not used."""
    with pytest.raises(tl.testing.GradientCheckError) as caught:
        tl.testing.gradcheck(tl.relu, [[0.0]])
    assert [entry.name for entry in caught.traceback][1:] == ["call", "call", "gradcheck"]


def test_the_extra_of_the_project_has_no_more_than_pytest_and_hypothesis():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [entry.partition(">")[0] for entry in extras["check"]] == ["pytest", "hypothesis"]
    assert "tinygrad_lenet[check,examples]" in extras["test"]
    readme = (ROOT / "README.md").read_text()
    assert "examples/check_your_gradient" in readme
    assert ".[check]" in readme
    assert ".[check]" in (PROJECT / "README.md").read_text()
