"""ONNX's own backend tests as a judge of values, and of gradients at their inputs."""

import numpy as np
import pytest
from vocabulary import block

onnx = pytest.importorskip("onnx", reason="ONNX, whose backend tests are a judge, is not installed")
from onnx_backend import KINDS, UnsupportedError, report, summary  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # ONNX's cases go to the edges, and beyond


@pytest.fixture(scope="module")
def reports():
    with np.errstate(all="ignore"):
        return {kind: report(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_cases_pass_or_ask_for_what_is_not_there(reports, kind):
    _, outcomes = reports[kind]
    wrong = {name: found[0] for name, found in outcomes.items() if found[0] is not True}
    assert {name: e for name, e in wrong.items() if not isinstance(e, UnsupportedError)} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_of_all_that_pass_are_right(reports, kind):
    _, outcomes = reports[kind]
    wrong = {name: found[1] for name, found in outcomes.items() if len(found) == 2 and found[1] not in (True, False)}
    assert {name: e for name, e in wrong.items() if not isinstance(e, UnsupportedError)} == {}


def test_a_wrong_value_and_a_wrong_gradient_are_seen(monkeypatch):
    """The judge can say no."""
    import onnx_backend

    monkeypatch.setitem(onnx_backend.OPERATORS, "Relu", lambda x: x.clip(0, 1))
    monkeypatch.setitem(onnx_backend.OPERATORS, "Tanh", lambda x: x.detach().tanh() + 1e-9 * x)
    with np.errstate(all="ignore"):
        _, outcomes = report("pytorch-converted")
    assert isinstance(outcomes["ReLU"][0], AssertionError)
    assert outcomes["Tanh"][0] is True
    assert isinstance(outcomes["Tanh"][1], AssertionError)


def test_what_the_readme_says_is_current(reports):
    assert block("onnx")[0] == summary(reports), "run: python tests/tools/onnx_backend.py --write"
