"""Names are declared once: a method, an operator, a function of NumPy and nodes of ONNX follow from ``known_as``."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import test_registry

import tinygrad_lenet as tl
from tinygrad_lenet.core import names
from tinygrad_lenet.testing import gradcheck

PATH = Path(__file__).parents[1] / "examples" / "log_cosh.py"
X = np.array([-1000.0, -2.0, 0.0, 0.5, 30.0])


@pytest.fixture
def example():
    before = [dict(table) for table in (names.NAMES, names.NUMPY, names.METHODS)]
    spec = importlib.util.spec_from_file_location("log_cosh", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for table, old in zip((names.NAMES, names.NUMPY, names.METHODS), before, strict=True):  # nothing is left behind
        table.clear()
        table.update(old)
    del tl.Tensor.log_cosh


def test_an_op_is_declared_in_ten_lines():
    text = PATH.read_text()
    declaration = text[text.index("@tl.primitive") : text.index("def main")]
    lines = [line for line in declaration.splitlines() if line.strip() and '"""' not in line]
    assert len(lines) == 10


def test_it_is_used_in_five_ways(example, capsys):
    pytest.importorskip("onnx")
    example.main()
    assert "True" in capsys.readouterr().out


def test_the_five_ways_agree(example, tmp_path):
    expected = np.logaddexp(X, -X) - np.log(2)
    x = tl.tensor(X, requires_grad=True)
    for found in (example.log_cosh(x), x.log_cosh(), example.np_log_cosh(x)):
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-15)
    np.testing.assert_allclose(example.np_log_cosh(X[1:]).astype(float), expected[1:], rtol=1e-12)
    np.testing.assert_allclose(tl.grad(x.log_cosh().sum(), x)[0].numpy(), np.tanh(X), rtol=1e-15)
    for case in example.log_cosh.op.cases:
        arguments, _, drawn = test_registry.materialise(case)
        assert gradcheck(example.log_cosh, [arguments[i] for i in drawn], order=2)


def test_its_nodes_of_onnx_compute_the_same(example, tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    x = X.astype(np.float32)
    tl.onnx.export(example.log_cosh, (tl.tensor(x),), tmp_path / "a.onnx")
    session = runtime.InferenceSession(str(tmp_path / "a.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, np.logaddexp(x, -x) - np.log(2), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tl.onnx.load(tmp_path / "a.onnx")(tl.tensor(x)).numpy(), found, rtol=2e-6)


def declare(name, **given):
    @tl.primitive
    def op(x: tl.Array) -> tl.Array:
        return x

    op.known_as(name=name, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "shape", "method": True}, "Tensor has an attribute 'shape' already"),
        ({"name": "backward", "method": True}, "Tensor has an attribute 'backward' already"),
        ({"name": "exp", "method": True}, "the method 'exp' is tinygrad_lenet.ops.maths.exp already"),
        ({"operator": "add"}, "the method '__add__' is tinygrad_lenet.ops.elementwise.add already"),
        ({"numpy": np.exp}, "np.exp is tinygrad_lenet.ops.maths.exp already"),
    ],
)
def test_a_name_that_is_taken_is_refused(given, message):
    with pytest.raises(tl.ArgumentError, match=message):
        declare(given.pop("name", "op"), **given)


def test_a_declaration_that_is_refused_leaves_nothing_behind():
    before = [dict(table) for table in (names.NAMES, names.NUMPY, names.METHODS)]
    with pytest.raises(tl.ArgumentError, match=r"np\.exp is"):
        declare("unheard_of", method=True, numpy=(np.spacing, np.exp), torch="unheard_of")
    assert before == [names.NAMES, names.NUMPY, names.METHODS]
    assert not hasattr(tl.Tensor, "unheard_of")


def test_a_declaration_may_run_again_as_in_a_notebook(example):
    again = importlib.util.spec_from_file_location("log_cosh", PATH)
    module = importlib.util.module_from_spec(again)
    again.loader.exec_module(module)
    assert tl.Tensor.log_cosh is module.log_cosh


def test_every_public_function_is_listed_where_it_belongs():
    public = names.public()
    assert public.keys() <= {*tl.__all__}
    assert all(getattr(tl, name) is function for name, function in public.items())
    assert all(getattr(tl.functional, name) is function for name, function in names.public("nn.functional").items())
    assert names.public("linalg").keys() == {*tl.linalg.__all__}
