"""Models of other libraries, loaded from ONNX: the package computes what onnxruntime does, or says what it lacks."""

import collections
import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import settings

import tinygrad_lenet as tl

onnx = pytest.importorskip("onnx", reason="ONNX is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime, the judge of what is imported, is not installed")
from onnx import TensorProto, helper, numpy_helper, version_converter  # noqa: E402
from onnx_judge import compare, runtime  # noqa: E402
from onnx_nodes import DRAWS, model_of, text  # noqa: E402

from tinygrad_lenet.onnx.model import OPERATORS  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # drawn values overflow and have no logarithm
EACH = max(6, settings().max_examples // 3)
SEED = 0 if settings().derandomize else random.SystemRandom().randrange(10**6)
node = helper.make_node


def floats(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def model(nodes, inputs, outputs=("y",), opset=17, domain=None):
    """A model whose outputs say neither type nor shape."""
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    graph = helper.make_graph(
        nodes if isinstance(nodes, list) else [nodes],
        "g",
        [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def agree(nodes, inputs, outputs=("y",), **options):
    assert compare(model(nodes, inputs, outputs, **options), list(inputs.values())) == "equal"


# Drawn models


def test_every_operator_is_drawn():
    assert DRAWS.keys() == OPERATORS.keys()


@pytest.mark.parametrize("kind", sorted(DRAWS))
def test_drawn_models_of_one_operator_give_what_onnxruntime_gives(kind):
    outcomes = collections.Counter()
    for seed in range(SEED, SEED + 9 * EACH):
        made, arrays = model_of(kind, seed)
        outcome = compare(made, arrays)
        known = outcome == "equal" or outcome.startswith(("refused", "runtime"))
        assert known, f"seed {seed}: {text(made, arrays)}\n{outcome}"
        outcomes[outcome.split(":")[0]] += 1
        if outcomes["equal"] == EACH:
            return
    assert outcomes["equal"] > EACH / 2, outcomes


@pytest.mark.parametrize("share", range(3))
def test_what_pytorch_exports_gives_what_onnxruntime_gives(torch, share):
    import onnx_exported

    outcomes = collections.Counter()
    count = len(onnx_exported.NAMES) * max(1, EACH // 8)
    for seed in range(SEED + share, SEED + count, 3):
        described, made, arrays = onnx_exported.draw(seed)
        outcome = "not exported" if made is None else compare(made, arrays)
        random_numbers = outcome.startswith("refused") and "random numbers" in outcome  # dropout in training
        expected = outcome.startswith(("equal", "runtime", "not exported")) or random_numbers
        assert expected, f"seed {seed}: {described}\n{outcome}"
        outcomes[outcome.split(":")[0]] += 1
    assert outcomes["equal"] > outcomes.total() / 2, outcomes


def test_what_the_newer_exporter_of_pytorch_writes_gives_what_onnxruntime_gives(torch):
    pytest.importorskip("onnxscript", reason="the newer exporter of PyTorch needs onnxscript")
    import onnx_exported

    for seed in range(SEED, SEED + len(onnx_exported.NAMES)):
        described, made, arrays = onnx_exported.draw(seed, dynamo=True)
        outcome = "not exported" if made is None else compare(made, arrays)
        assert outcome.startswith(("equal", "runtime", "not exported")), f"seed {seed}: {described}\n{outcome}"


# Absent outputs and inputs


def test_an_output_without_a_name_is_not_an_input_that_is_left_out():
    x, w, r = floats(2, 1, 3), floats(1, 8, 3), floats(1, 8, 2)
    first = node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=2)
    for second in (
        node("Clip", ["h", "", "h0"], ["y"]),
        node("LSTM", ["x", "w", "r", "", "", "h", ""], ["y"], hidden_size=2),
    ):
        agree([first, node("ReduceMax", ["h"], ["h0"], keepdims=0), second], {"x": x, "w": w, "r": r})
    a = np.eye(2, dtype=np.float32)
    seven = np.full((2, 2), 7, np.float32)
    nodes = [node("LayerNormalization", ["c", "s"], ["n", "", "d"]), node("Gemm", ["a", "a", ""], ["y"])]
    agree(nodes, {"a": a, "c": seven, "s": a[0]}, ("y", "n"))


def test_outputs_that_nobody_uses_need_not_be_computed():
    x = floats(1, 1, 4, 4)
    pool = node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])
    agree(pool, {"x": x})
    with pytest.raises(tl.UnsupportedError, match=r"output 1 of MaxPool\n"):
        tl.onnx.load(model(pool, {"x": x}, ("y", "i")))(x)


@pytest.mark.parametrize("described", ["nothing", "a type", "a shape"])
def test_inputs_and_outputs_may_have_no_shape_and_outputs_no_type(described, tmp_path):
    made = model(node("Relu", ["x"], ["y"]), {"x": floats(2, 3)})
    made.graph.input[0].type.tensor_type.ClearField("shape")
    if described != "nothing":
        made.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    if described == "a shape":
        made.graph.output[0].type.tensor_type.shape.dim.add()
        made.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "n"
    before = made.SerializeToString()
    assert compare(made, [floats(2, 3)]) == "equal"
    assert made.SerializeToString() == before
    (tmp_path / "m.onnx").write_bytes(before)
    assert tl.onnx.load(tmp_path / "m.onnx")(floats(2, 3)).shape == (2, 3)


# Slices


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_slices_are_clamped_as_onnx_says(dtype):
    far = np.iinfo(dtype)
    bounds, steps = [far.min, -9, -4, -3, -2, -1, 0, 1, 2, 3, 9, far.max - 1, far.max], [-9, -2, -1, 1, 2, 9]
    names = ["starts", "ends", "axes", "steps"]
    made = model(
        node("Slice", ["x", *names], ["y"]), {"x": np.arange(3)} | {name: np.zeros(1, dtype) for name in names}
    )
    made.graph.input[0].type.tensor_type.ClearField("shape")
    twin, session = tl.onnx.load(made), ort.InferenceSession(made.SerializeToString())
    for n, start, end, axis, step in itertools.product([3, 0], bounds, bounds, [0, -1], steps):
        ints = zip(names, np.array([[start], [end], [axis], [step]], dtype), strict=True)
        given = {"x": np.arange(n), **dict(ints)}
        if step < 0 and end == far.max:
            with pytest.raises(tl.UnsupportedError, match="Slice backwards with an end of INT_MAX"):
                twin(*given.values())
            continue
        (expected,) = session.run(None, given)
        np.testing.assert_array_equal(twin(*given.values()).numpy(), expected, f"{n, start, end, axis, step}")


# Recurrent layers

USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def recurrent(kind, both=False, **attributes):
    """A layer of 3 steps, 2 sequences, 4 features, 3 units."""
    gates, d = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 1 + both
    arrays = {
        "x": floats(3, 2, 4),
        "w": floats(d, 3 * gates, 4),
        "r": floats(d, 3 * gates, 3),
        "b": floats(d, 6 * gates),
    }
    attributes |= {"linear_before_reset": 1} if kind == "GRU" and "linear_before_reset" not in attributes else {}
    return node(kind, list(arrays), ["y", "h", *["c"] * (kind == "LSTM")], hidden_size=3, **attributes), arrays


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("kind", USUAL)
def test_activations_may_be_written_out(kind, direction):
    both = direction == "bidirectional"
    made, arrays = recurrent(kind, both, direction=direction, activations=USUAL[kind] * (1 + both))
    agree(made, arrays, ("y", "h"))
    if kind == "RNN":
        made, arrays = recurrent(kind, both, direction=direction, activations=["Relu"] * (1 + both))
        agree(made, arrays, ("y", "h"))


@pytest.mark.parametrize(
    ("kind", "attributes", "named"),
    [
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Relu"]}, r"LSTM with activations=\['Sigmoid', 'Tanh', 'Relu'\]"),
        ("GRU", {"activations": ["HardSigmoid", "Tanh"]}, r"GRU with activations=\['HardSigmoid', 'Tanh'\]"),
        ("RNN", {"activations": ["Softsign"]}, r"RNN with activations=\['Softsign'\]"),
        ("RNN", {"activations": ["Affine"], "activation_alpha": [2.0]}, r"RNN with activation_alpha=\[2.0\]"),
        ("LSTM", {"clip": 0.5}, "LSTM with clip=0.5"),
        ("LSTM", {"input_forget": 1}, "LSTM with input_forget=1"),
        ("GRU", {"linear_before_reset": 0}, "GRU with linear_before_reset=0"),
        ("GRU", {"layout": 1}, "GRU with layout=1"),
    ],
)
def test_what_a_recurrent_layer_does_not_have_is_named(kind, attributes, named):
    made, arrays = recurrent(kind, **attributes)
    with pytest.raises(tl.UnsupportedError, match=named):
        tl.onnx.load(model(made, arrays))(*arrays.values())


@pytest.mark.parametrize("kind", USUAL)
def test_attributes_with_their_defaults_change_nothing(kind):
    made, arrays = recurrent(kind, layout=0, **({"input_forget": 0} if kind == "LSTM" else {}))
    agree(made, arrays, ("y", "h"))


@pytest.mark.parametrize("given", [("h",), ("c",), ("h", "c"), ()])
def test_one_state_may_be_left_out(given):
    made, arrays = recurrent("LSTM")
    made.input.extend(["", *(name if name in given else "" for name in ("h", "c"))])
    made.output[:] = ["y"]
    agree(made, arrays | {name: floats(1, 2, 3) for name in given})


def test_sequences_of_different_lengths_are_named():
    made, arrays = recurrent("LSTM")
    made.input.append("lengths")
    for lengths, named in ([3, 3], None), ([3, 2], "LSTM of sequences of different lengths"):
        given = arrays | {"lengths": np.array(lengths, np.int32)}
        outcome = compare(model(made, given), list(given.values()))
        assert outcome == "equal" if named is None else re.search(f"refused: .*{named}", outcome)


# The scope


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 1000])
def test_opsets_beyond_the_scope_are_named(opset):
    made = model(node("Relu", ["x"], ["y"]), {"x": floats(1, 1, 2, 2)}, opset=opset)
    newest = onnx.defs.onnx_opset_version()
    with pytest.raises(
        tl.UnsupportedError, match=f"operators of opset {opset}, not one of 13 to {newest}; export"
    ) as caught:
        tl.onnx.load(made)
    assert "opset_version=17" in str(caught.value)
    assert "onnx.version_converter.convert_version(onnx.load(path), 17)" in str(caught.value)
    assert "valid model" not in str(caught.value)
    if opset < 13:
        assert compare(version_converter.convert_version(with_types(made), 17), [floats(1, 1, 2, 2)]) == "equal"


def with_types(made):
    made.graph.output[0].CopyFrom(made.graph.input[0])
    made.graph.output[0].name = "y"
    return made


@pytest.mark.parametrize(("kind", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10), ("Resize", 11)])
def test_old_operators_of_resizing_are_named_and_not_to_be_converted(kind, opset):
    """ONNX's converter would change the coordinates of linear interpolation."""
    x, scales = floats(1, 1, 2, 2), np.array([1, 1, 2, 2], np.float32)
    attributes = {"scales": scales.tolist()} if opset == 7 else {}
    inputs = {"x": x, **({} if attributes else {"s": scales})}
    made = model(node(kind, list(inputs), ["y"], mode="linear", **attributes), inputs, opset=opset)
    with pytest.raises(tl.UnsupportedError, match=f"{kind} of opset {opset}, not one of 13 to") as caught:
        tl.onnx.load(made)
    assert "version_converter" not in str(caught.value)


def test_operators_beyond_the_scope_are_named():
    x = floats(2, 2)
    cases = {
        "no operator Hardmax, LpNormalization of opset 17": [
            node("LpNormalization", ["x"], ["a"]),
            node("Hardmax", ["a"], ["y"]),
        ],
        "no operator Upsample of opset 17": node("Upsample", ["x", "x"], ["y"]),
        "no operator NoSuch of opset 17": node("NoSuch", ["x"], ["y"]),
        "no operator mine.Relu of opset 17": node("Relu", ["x"], ["y"], domain="mine"),
        "ArgMax with select_last_index=1": node("ArgMax", ["x"], ["y"], select_last_index=1),
        "CumSum with reverse=1": node("CumSum", ["x", "i"], ["y"], reverse=1),
        "no operator Mean, OneHot, Sum": [
            node("Mean", ["x", "x"], ["a"]),
            node("OneHot", ["a", "i", "x"], ["b"]),
            node("Sum", ["a", "b"], ["y"]),
        ],
    }
    for named, nodes in cases.items():
        made = model(nodes, {"x": x, "i": np.array(0)}, domain="mine")
        with pytest.raises(tl.UnsupportedError, match=named) as caught:
            tl.onnx.load(made)
        assert "valid model" not in str(caught.value)
    made = model(node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=2), {"x": x, "s": x[0]}, opset=18)
    with pytest.raises(tl.UnsupportedError, match="no operator GroupNormalization of opset 18"):
        tl.onnx.load(made)


def test_options_and_outputs_beyond_the_scope_are_named():
    x, widths, axes, ones = floats(1, 2, 4, 4), np.array([1, 1]), np.array([3]), np.ones(2, np.float32)
    cases = {
        "windows with auto_pad": (node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER"), {}),
        "Pad with axes": (node("Pad", ["x", "widths", "", "axes"], ["y"]), {"widths": widths, "axes": axes}),
        "output 1 of LayerNormalization": (
            node("LayerNormalization", ["x", "s"], ["a", "y"]),
            {"s": ones[:1].repeat(4)},
        ),
        "output 1 of BatchNormalization": (
            node("BatchNormalization", ["x", *"abcd"], ["o", "y", "z"], training_mode=1),
            dict.fromkeys("abcd", ones),
        ),
    }
    for named, (made, more) in cases.items():
        with pytest.raises(tl.UnsupportedError, match=named):
            tl.onnx.load(model(made, {"x": x} | more, opset=18))(x, *more.values())


# Dtypes and values


def test_quotients_of_integers_are_exact_and_rounded_towards_0():
    a = np.array([7, -7, 7, -7, 2**62 + 1, -(2**62) - 1, 0])
    b = np.array([2, 2, -2, -2, 1, 1, 5])
    agree(node("Div", ["a", "b"], ["y"]), {"a": a, "b": b})


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8", "float16"])
@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceProd", "ReduceL1", "CumSum", "Pow"])
def test_an_operator_gives_the_dtype_of_its_schema(kind, dtype):
    """NumPy adds int32 in int64, and divides integers in float64."""
    x, second = np.ones((2, 2), dtype), {"i": np.array([0])} if kind.startswith("Reduce") else {"i": np.array(0)}
    opset = 20 if kind.startswith("Reduce") else 17
    inputs = {"x": x, "z": x} if kind == "Pow" else {"x": x, **second}
    made = model(node(kind, list(inputs), ["y"]), inputs, opset=opset)
    expected = runtime(made, list(inputs.values()))
    found = tl.onnx.load(made)(*inputs.values())
    assert found.dtype == dtype
    assert isinstance(expected, Exception) or expected[0].dtype == dtype


@pytest.mark.parametrize("opset", [13, 15])
def test_batch_normalisation_without_running_statistics(torch, opset):
    """PyTorch exports it as one in training, even from a layer in evaluation."""
    import onnx_exported

    layer = torch.nn.BatchNorm2d(3, track_running_stats=False).eval()
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    made = onnx_exported.exported(layer, [x], {"opset_version": opset, "dynamo": False})
    assert compare(made, [x.numpy()]) == "equal"
    np.testing.assert_allclose(tl.onnx.load(made)(x.numpy()).detach().numpy(), layer(x).detach().numpy(), 1e-5, 1e-5)


def test_what_is_resized_has_gradients():
    x = tl.tensor(floats(1, 2, 3, 4).astype(float), requires_grad=True)
    scales = numpy_helper.from_array(np.array([1, 1, 1.7, 0.6], np.float32), "s")
    for mode in ("nearest", "linear"):
        made = model(node("Resize", ["x", "", "s"], ["y"], mode=mode), {"x": floats(1, 2, 3, 4)})
        made.graph.initializer.append(scales)
        assert compare(made, [floats(1, 2, 3, 4)]) == "equal"
        assert tl.testing.gradcheck(tl.onnx.load(made), [x])


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_convolutions_with_padding_same_are_read(dims, stride, kernel):  # onnxruntime refuses dilations with it
    options = {"strides": [stride] * dims, "auto_pad": "SAME_UPPER"}
    inputs = {"x": floats(2, 3, *[8, 7][:dims]), "w": floats(4, 3, *[kernel] * dims)}
    agree(node("Conv", ["x", "w"], ["y"], **options), inputs)
