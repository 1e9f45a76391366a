"""Models to ONNX, as onnxruntime runs them, and back."""

import os
import re

import numpy as np
import pytest
from test_registry import CASES, as_function

import tinygrad_lenet as tl
from tinygrad_lenet import nn
from tinygrad_lenet.core.primitive import REGISTRY

onnx = pytest.importorskip("onnx", reason="ONNX is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge of what is exported, is not installed")
from tinygrad_lenet.onnx.writer import EMIT  # noqa: E402
from tinygrad_lenet.onnx.writer import MISSING as NAMED  # noqa: E402

GRADIENTS = ["conv2d_weight_grad", "_linear_weight_grad", "_normalize_x", "_normalize_weight", "_softmax_nll_grad"]
GRADIENTS += ["_tanh_grad", "_sigmoid_grad", "_where_positive", "_normal_cdf", "bell", "_avg_unpool"]
GRADIENTS += ["_unpool", "_repool", "_give", "_softmax"]
MISSING = NAMED | dict.fromkeys(GRADIENTS, "a gradient")


def runtime(model, *arrays):
    """What onnxruntime makes of it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {i.name: np.asarray(a) for i, a in zip(session.get_inputs(), arrays, strict=True)})


def near(found, expected, dtype=np.float32):
    expected = expected if isinstance(expected, (tuple, list)) else [expected]
    for a, b in zip(found, expected, strict=True):
        b = b.detach().numpy()
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def agree(model, *arrays, others=(), **options):
    """The exported model gives what the model gives; so does what is imported again."""
    example = tuple(tl.tensor(a) for a in arrays)
    made = tl.onnx.export(model, example, None, **options)
    again = tl.onnx.load(made)
    for given in (arrays, *others):
        with tl.no_grad():
            expected = model(*map(tl.tensor, given))
            near(runtime(made, *given), expected)
            found = again(*map(tl.tensor, given))
        near([t.numpy() for t in (found if isinstance(found, tuple) else [found])], expected)
    return made


def test_every_op_is_exported_or_says_why_not():
    ops = [op for name, op in REGISTRY.items() if name.startswith("tinygrad_lenet.")]
    declared = {op.name for op in ops if op.onnx is not None}
    outside = {"drawn", "channel_moments", "_moved"}  # constants, and what an exported model does not need
    outside |= {"_joint_norm", "_limited", "_narrow"}
    assert EMIT.keys() | MISSING.keys() | declared | outside >= {op.name for op in ops}
    assert not EMIT.keys() & MISSING.keys()
    assert not declared & (EMIT.keys() | MISSING.keys())


@pytest.mark.parametrize(("op", "case"), CASES)
def test_ops_give_the_same_in_onnxruntime(op, case):
    function, arrays = as_function(op, case, np.float32)
    if op.name in MISSING and arrays:
        with pytest.raises(
            tl.UnsupportedError, match=rf"nothing for .*{MISSING[op.name]}.*called at .*test_registry.py, line"
        ):
            tl.onnx.export(function, tuple(map(tl.tensor, arrays)), None, dynamic_batch=False)
        return
    agree(function, *arrays, dynamic_batch=False)


def test_bits_of_integers_give_the_same_in_onnxruntime():
    x, y = np.array([[6, -1, 12]]), np.array([[3], [0]])
    agree(lambda x, y: ~((x & y) ^ (x | 5)), x, y, dynamic_batch=False)


def test_an_operator_declared_by_name_gets_all_tensors_and_the_options_as_attributes():
    @tl.primitive
    def largest(*tensors: tl.Array) -> tl.Array:
        return np.maximum.reduce(tensors)

    largest.known_as(onnx="Max")
    x = np.array([[-3.0, 0.5, 3.0]], np.float32)
    agree(lambda x: largest(x, -x, x + 1), x)
    agree(lambda x: tl.elu(x, 2), x)  # an integer for a float
    agree(lambda x: tl.softmax(x, axis=0).sum(axis=1, keepdims=True), x, dynamic_batch=False)


IMAGES = np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)
ROWS, SEQUENCES = IMAGES[:, 0, 0], IMAGES[:, :, 0]
ACTIVATIONS = ["CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "Mish", "ReLU"]
ACTIVATIONS += ["ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Identity"]
LAYERS = {
    "Conv1d": (nn.Conv1d(4, 3, 3, padding=1, generator=0), SEQUENCES),
    "Conv2d": (nn.Conv2d(4, 6, 3, stride=2, padding="same", groups=2, generator=0), IMAGES),
    "ConvTranspose1d": (nn.ConvTranspose1d(4, 3, 3, stride=2, output_padding=1, generator=0), SEQUENCES),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1, generator=0), IMAGES),
    "MaxPool1d": (nn.MaxPool1d(2), SEQUENCES),
    "MaxPool2d": (nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGES),
    "AvgPool1d": (nn.AvgPool1d(2), SEQUENCES),
    "AvgPool2d": (nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False), IMAGES),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d((4, 3)), IMAGES),
    "AdaptiveMaxPool2d": (nn.AdaptiveMaxPool2d((4, 3)), IMAGES),
    "ReplicationPad2d": (nn.ReplicationPad2d((1, 2, 2, 1)), IMAGES),
    "ConstantPad2d": (nn.ConstantPad2d((1, 2, 0, 1), 0.5), IMAGES),
    "Upsample": (nn.Upsample(scale_factor=2), IMAGES),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), IMAGES),
    "ZeroPad2d": (nn.ZeroPad2d((1, 2, 0, 1)), IMAGES),
    "ReflectionPad2d": (nn.ReflectionPad2d(2), IMAGES),
    "BatchNorm1d": (nn.BatchNorm1d(6), ROWS),
    "BatchNorm2d": (nn.BatchNorm2d(4), IMAGES),
    "LayerNorm": (nn.LayerNorm(6), IMAGES),
    "GroupNorm": (nn.GroupNorm(2, 4), IMAGES),
    "Linear": (nn.Linear(6, 3, generator=0), ROWS),
    "Linear of images": (nn.Linear(6, 3, generator=0), IMAGES),
    "Flatten": (nn.Flatten(), IMAGES),
    "Unflatten": (nn.Unflatten(1, (2, 2)), IMAGES),
    "Dropout": (nn.Dropout(0.5), IMAGES),
    "PReLU": (nn.PReLU(4), IMAGES),
    "GELU tanh": (nn.GELU("tanh"), IMAGES),
    "RNN": (nn.RNN(6, 5, batch_first=True), SEQUENCES),
    "LSTM": (nn.LSTM(6, 5, batch_first=True), SEQUENCES),
    "GRU": (nn.GRU(6, 5, batch_first=True, bidirectional=True), SEQUENCES),
    **{name: (getattr(nn, name)(), IMAGES) for name in ACTIVATIONS},
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_the_same_for_any_batch_size(name):
    layer, array = LAYERS[name]
    layer.eval()
    model = layer
    if name in ("RNN", "LSTM", "GRU"):
        model = lambda x: layer(x)[0]  # noqa: E731
    others = [np.concatenate([array, array])[:n] for n in (1, 3)]
    agree(model, array, others=[(a,) for a in others])


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "pool": "avg"}, {"batch_norm": True}])
def test_lenet_keeps_the_names_of_its_weights(options):
    model = nn.LeNet5(generator=0, **options).eval()
    x = np.random.default_rng(0).standard_normal((5, 1, 28, 28)).astype(np.float32)
    made = agree(model, x[:1], others=[(x,)])
    names = {i.name for i in made.graph.initializer}
    assert {name for name, _ in model.named_parameters()} <= names
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_parameters_may_be_called_as_values_are():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in {"input": 1, "output": 2, "relu_0": 3, "mul": 4, "constant": 5}.items():
                setattr(self, name, nn.Parameter(np.full(2, value, np.float32)))

        def forward(self, x):
            return x.relu() * self.input * self.output * self.relu_0 * self.mul * self.constant + 7

    agree(Model(), np.ones((1, 2), np.float32))


def test_an_imported_model_learns_as_the_first():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, generator=0), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3, generator=1))
    x, target = tl.randn(6, 1, 4, 4, generator=2), [0, 1, 2, 0, 1, 2]
    twin = tl.onnx.load(tl.onnx.export(model, x, None))
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in model.named_parameters()]
    for net in (model, twin):
        optimizer = tl.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(5):
            loss = tl.cross_entropy(net(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for (name, a), (other, b) in zip(model.state_dict().items(), twin.state_dict().items(), strict=True):
        assert name == other
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_files_are_written_read_and_equal(tmp_path):
    model = nn.Linear(3, 2, generator=0)
    tl.onnx.export(model, tl.zeros(1, 3), tmp_path / "a.onnx")
    tl.onnx.export(model, tl.ones(1, 3), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    x = tl.randn(4, 3, generator=1)
    np.testing.assert_allclose(tl.onnx.load(tmp_path / "a.onnx")(x).detach().numpy(), model(x).detach().numpy(), 1e-6)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.sum(axis=0) / len(x),
        lambda x: x.reshape(-1),
        lambda x: x.reshape(len(x) * 2, 3),
        lambda x: tl.broadcast_to(x[:1], x.shape),
        lambda x: x + tl.zeros(len(x), 6),
        lambda x: x[:, [0, 2, 2]],
        lambda x: x[:, None, 1:4:2, None],
        lambda x: (x > 0) & ~(x < 1) | (x == 2),
        lambda x: tl.concatenate([x, x.flip(1)], 1),
        lambda x: x.argsort(1),
        lambda x: x.var(axis=1) + x.std(axis=1, ddof=1) + x.logsumexp(1),
        lambda x: tl.einsum("ij,kj->ik", x, x[:, :6]),
        lambda x: x.flip(0),
    ],
)
def test_what_follows_the_batch_size_is_computed_from_it(model):
    arrays = [np.random.default_rng(n).standard_normal((n, 6)).astype(np.float32) for n in (2, 1, 5)]
    agree(model, arrays[0], others=[(a,) for a in arrays[1:]])


def test_what_is_no_graph_is_refused():
    def a_branch(x):
        return x.exp() if len(x) > 1 else x

    @tl.primitive
    def mine(x: tl.Array) -> tl.Array:
        return x + 1

    x = tl.ones(1, 2)
    rng = np.random.default_rng(0)
    with pytest.raises(tl.UnsupportedError, match=r"test_export.py, line \d+, mul gets .* no op recorded why"):
        tl.onnx.export(lambda x: x * rng.random(), x, None)
    with pytest.raises(tl.UnsupportedError, match="takes another way for other values or another batch size"):
        tl.onnx.export(a_branch, x, None)
    with pytest.raises(
        tl.UnsupportedError, match=r"nothing for mine \(an op of your own\), called at .*test_export.py"
    ):
        tl.onnx.export(lambda x: mine(x), x, None)
    with pytest.raises(tl.UnsupportedError, match=r"nothing for round .*the batch size; pass dynamic_batch=False"):
        tl.onnx.export(lambda x: x.round(len(x)), x, None)
    with pytest.raises(tl.UnsupportedError, match=r"an output is a tensor .* no op recorded why"):
        tl.onnx.export(lambda x: tl.tensor(rng.random(2)), x, None)
    with pytest.raises(tl.ArgumentError, match="first axis of length 1 or more"):
        tl.onnx.export(nn.Identity(), tl.tensor(1.0), None)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: tl.conv1d(x.T[None], np.ones((1, 2, 3), np.float32), padding="same"),
        lambda x: tl.conv1d(x.T[None], np.ones((1, 2, 1), np.float32)),
        lambda x: tl.conv_transpose1d(x.T[None], np.ones((2, 1, 2), np.float32), stride=2),
        lambda x: tl.max_pool1d(x.T[None], len(x)),
        lambda x: tl.avg_pool1d(x.T[None], 1),
        lambda x: tl.interpolate(x.T[None, None], scale_factor=2, mode="bilinear"),
    ],
)
def test_images_as_wide_as_the_batch_are_refused(model):
    with pytest.raises(tl.UnsupportedError, match=r"test_export.py, line \d+") as caught:
        tl.onnx.export(model, tl.ones(4, 2), None)
    assert "dynamic_batch=False" in str(caught.value)
    agree(model, np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32), dynamic_batch=False)


def test_files_that_are_no_models_are_refused(tmp_path):
    path = tmp_path / "x.onnx"
    with pytest.raises(tl.DataError, match="there is no file"):
        tl.onnx.load(path)
    path.write_bytes(b"no model at all")
    with pytest.raises(tl.DataError, match="damaged, or not an ONNX file"):
        tl.onnx.load(path)
    path.write_bytes(b"")
    with pytest.raises(tl.DataError, match="not a valid model"):
        tl.onnx.load(path)
    made = tl.onnx.export(nn.Identity(), tl.zeros(1, 2), None)
    made.graph.node[0].op_type = "Gemm"
    with pytest.raises(tl.DataError, match="not a valid model"):
        tl.onnx.load(made)
    with pytest.raises(tl.ShapeError, match=r"expected 1 inputs \(input\), got 2"):
        tl.onnx.load(tl.onnx.export(nn.Identity(), tl.zeros(1, 2), None))(tl.zeros(1, 2), tl.zeros(1, 2))


def test_models_of_old_operators_are_refused_until_they_are_converted():
    from onnx import version_converter

    made = tl.onnx.export(nn.Sequential(nn.Conv2d(1, 2, 3, generator=0), nn.ReLU()), tl.zeros(1, 1, 5, 5), None)
    made.opset_import[0].version, made.ir_version = 9, 4
    with pytest.raises(
        tl.UnsupportedError, match=r"opset 9, not one of 13 to .*, or call onnx.version_converter.convert_"
    ):
        tl.onnx.load(made)
    x = tl.rand(2, 1, 5, 5, generator=1)
    assert tl.onnx.load(version_converter.convert_version(made, 13))(x).shape == (2, 2, 3, 3)


def linear():
    return tl.onnx.export(nn.Linear(3, 2, generator=0), tl.zeros(1, 3), None)


def changed(change):
    model = linear()
    change(model, model.graph, model.graph.initializer[0])
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m, g, t: setattr(t, "raw_data", t.raw_data[:-1]), "not a valid model.*23 bytes"),
        (lambda m, g, t: t.dims.append(2), "not a valid model.*24 bytes"),
        (lambda m, g, t: t.dims.__setitem__(0, -1), "not a valid model"),
        (lambda m, g, t: setattr(t, "data_type", 127), "not a valid model"),
        (lambda m, g, t: setattr(t, "data_type", onnx.TensorProto.BFLOAT16), "does not have.*dtypes"),
        (lambda m, g, t: setattr(g.input[0].type.tensor_type, "elem_type", onnx.TensorProto.STRING), "strings"),
        (lambda m, g, t: setattr(m.opset_import[0], "domain", "ai.onnx.ml"), "not a valid model"),
        (lambda m, g, t: setattr(g.node[0], "domain", "mine"), "not a valid model|no operator"),
        (lambda m, g, t: setattr(g.node[0].attribute[0], "ref_attr_name", "x"), "not a valid model"),
        (lambda m, g, t: g.node.add().CopyFrom(g.node[0]), "not a valid model"),  # a name is given twice
        (lambda m, g, t: g.node[0].input.__setitem__(0, "nowhere"), "not a valid model"),
        (lambda m, g, t: g.node[0].input.__setitem__(0, g.node[0].output[0]), "not a valid model"),  # a cycle
        (lambda m, g, t: setattr(t, "data_location", onnx.TensorProto.EXTERNAL), "not a valid model|another file"),
        (lambda m, g, t: sparse(g), "sparse tensors"),
    ],
)
def test_models_that_are_wrong_are_refused_and_the_file_is_named(tmp_path, change, words):
    path = tmp_path / "wrong.onnx"
    path.write_bytes(changed(change).SerializeToString())
    for given, name in ((path, r"wrong\.onnx"), (changed(change), "the model")):
        with pytest.raises((tl.DataError, tl.UnsupportedError), match=rf"(?s)load: .*{name} .*") as caught:
            tl.onnx.load(given)
        if given is not path or "another file" not in words:
            assert re.search(words, str(caught.value), re.S), caught.value


def sparse(graph):
    found = graph.sparse_initializer.add()
    found.dims.append(4)
    found.values.CopyFrom(onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [1], [1.0]))
    found.indices.CopyFrom(onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0]))


@pytest.mark.parametrize("name", ["forward", "values", "training", "__class__", "_nodes", "state_dict", "weight_"])
def test_names_of_a_file_replace_nothing(name):
    model = linear()
    old = model.graph.initializer[0].name
    model.graph.initializer[0].name = name
    for node in model.graph.node:
        node.input[:] = [name if given == old else given for given in node.input]
    found, x = tl.onnx.load(model), tl.rand(4, 3, generator=0)
    np.testing.assert_array_equal(found(x).detach().numpy(), tl.onnx.load(linear())(x).detach().numpy())
    assert next(found.named_parameters())[0].rstrip("_") == name.rstrip("_")


@pytest.mark.parametrize("location", ["weights", "folder/weights", "../secret", "{}/secret", "link", "", ".", "no"])
def test_data_in_other_files_lie_in_the_folder_of_the_model(tmp_path, monkeypatch, location):
    inside = tmp_path / "models"
    (inside / "folder").mkdir(parents=True)
    for path in (inside / "weights", inside / "folder" / "weights", tmp_path / "secret"):
        path.write_bytes(np.arange(6, dtype="f4").tobytes())
    if hasattr(os, "symlink"):
        os.symlink(tmp_path / "secret", inside / "link")
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location.format(tmp_path))
    (inside / "a.onnx").write_bytes(model.SerializeToString())
    if location.endswith("weights"):
        (weight, *_) = tl.onnx.load(inside / "a.onnx").parameters()
        np.testing.assert_array_equal(weight.numpy().ravel(), np.arange(6))
    else:
        with pytest.raises(tl.DataError, match=r"load: .*a\.onnx"):
            tl.onnx.load(inside / "a.onnx")
    monkeypatch.chdir(inside)
    with pytest.raises((tl.UnsupportedError, tl.DataError), match=r"another file|Location|Data of"):
        tl.onnx.load(model)  # whose folder nobody knows: it need not be the present one


def test_an_operator_that_cannot_be_computed_is_named():
    node, floats = onnx.helper.make_node, onnx.TensorProto.FLOAT
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [-1, 1])
    graph = onnx.helper.make_graph(
        [node("ConstantOfShape", ["shape"], ["wide"]), node("Relu", ["x"], ["z"]), node("Add", ["z", "wide"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", floats, ["n"])],
        [onnx.helper.make_tensor_value_info("y", floats, ["n", "m"])],
        [shape],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(tl.errors.TinygradLenetError) as caught:
        tl.onnx.load(made)(tl.ones(3))
    assert "ConstantOfShape" in str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    made.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [2**40, 2**10]))
    with pytest.raises(tl.OutOfMemoryError, match="shape=") as caught:
        tl.onnx.load(made)(tl.ones(3))
    assert caught.value.__notes__ == ["in ConstantOfShape of the model, which gives wide"]
    made.graph.initializer[0].CopyFrom(onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [2], [2, 2]))
    with pytest.raises(tl.ShapeError) as caught:
        tl.onnx.load(made)(tl.ones(3))
    assert caught.value.__notes__ == ["in Add of the model, which gives y"]
