"""ONNX models for ``fuzz.py``, and what can be changed in one, field by field."""

import numpy as np
from fuzz import NUMBERS
from onnx import TensorProto, helper, numpy_helper

import tinygrad_lenet as tl
from tinygrad_lenet import nn


def models():
    """Small ones: of the package's own, and of operators that make large outputs, with data in many kinds of field."""
    layers = [
        (nn.Sequential(nn.Linear(3, 2), nn.Tanh()), (1, 3)),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 2)),
            (1, 1, 4, 4),
        ),
        (nn.Sequential(nn.LayerNorm(4), nn.GELU(), nn.Dropout(0.5), nn.Softmax(1)), (2, 4)),
    ]
    for model, _ in layers:
        model.eval()
    return [*(tl.onnx.export(model, tl.zeros(*shape), None) for model, shape in layers), by_hand()]


def by_hand():
    node, floats = helper.make_node, TensorProto.FLOAT
    nodes = [
        node("Constant", [], ["size"], value=numpy_helper.from_array(np.array([1, 1, 4, 4]), "v")),
        node("ConstantOfShape", ["size"], ["filled"], value=numpy_helper.from_array(np.ones(1, "f4"), "v")),
        node("Expand", ["x", "size"], ["wide"]),
        node("Tile", ["wide", "size"], ["tiled"]),
        node("Range", ["zero", "end", "step"], ["range"]),
        node("Reshape", ["range", "shape"], ["square"]),
        node("Resize", ["tiled", "", "scales"], ["resized"], mode="nearest"),
        node("Clip", ["square", "low"], ["clipped"]),
        node("Add", ["filled", "clipped"], ["y"]),
        node("Concat", ["resized", "forward"], ["z"], axis=0),
    ]
    initial = [
        helper.make_tensor("zero", floats, [], [0.0]),
        helper.make_tensor("end", floats, [], [4.0]),
        helper.make_tensor("step", floats, [], [1.0]),
        helper.make_tensor("low", floats, [], [0.5]),
        helper.make_tensor("scales", floats, [4], [1, 1, 2, 2]),
        helper.make_tensor("shape", TensorProto.INT64, [2], [2, 2]),
        helper.make_tensor("forward", floats, [1, 1, 2, 2], range(4)),
        helper.make_tensor("half", TensorProto.FLOAT16, [3], [1, 2, 3]),
        helper.make_tensor("double", TensorProto.DOUBLE, [2], [1, 2]),
        numpy_helper.from_array(np.array([True, False]), "flags"),
    ]
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("x", floats, [1, 1, 1, 1])],
        [helper.make_tensor_value_info(name, floats, list("abcd")) for name in "yz"],
        initial,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


WORDS = ["", "a" * 300, "\0", str(2**60), "\x1b[2J\r\n\u202e", "w" * 15_000]
WORDS += """x y forward values training __class__ __dict__ _nodes 0.weight é ai.onnx ai.onnx.ml ../secret
/etc/passwd case.onnx . location offset length -1 a/../../secret""".split()
OPERATORS = """Conv Gemm Reshape If Loop Scan LSTM Einsum Split Pad Resize TopK Constant SequenceEmpty Identity
Where Cast NoSuch Gather GatherElements Dropout BatchNormalization Slice Squeeze ReduceSum""".split()


def value(rng, field):
    """Any value for a scalar field."""
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return rng.choice([0.0, -1.0, float("nan"), float("inf"), 1e30])
    if field.type == field.TYPE_STRING:
        return rng.choice(OPERATORS if field.name == "op_type" else WORDS)
    if field.type == field.TYPE_BYTES:
        return rng.choice([b"", b"\xff\xfe", b"nearest", b"linear", rng.randbytes(rng.choice([1, 4, 16, 64]))])
    if field.type == field.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    bits = 31 if field.type in (field.TYPE_INT32, field.TYPE_SINT32) else 63
    number = rng.choice([*range(-2, 26), *NUMBERS, -(2**31), -(2**63)])
    low = 0 if field.type in (field.TYPE_UINT32, field.TYPE_UINT64) else -(2**bits)
    return number if low <= number < 2**bits else rng.randrange(30)


def poke(rng, message, model):
    """Change one thing somewhere below."""
    given = [field for field, _ in message.ListFields()]
    below = [field for field in given if field.message_type is not None]
    if below and rng.random() < 0.85:
        field = rng.choice(below)
        found = getattr(message, field.name)
        if not _many(field):
            poke(rng, found, model)
            return
        kind = rng.randrange(12)
        if kind == 0:
            del found[rng.randrange(len(found))]
        elif kind == 1:
            found.add().CopyFrom(rng.choice(found))
        elif kind == 2 and len(found) > 1:
            i, j = rng.sample(range(len(found)), 2)
            twin = type(found[i])()
            twin.CopyFrom(found[i])
            found[i].CopyFrom(found[j])
            found[j].CopyFrom(twin)
        else:
            poke(rng, rng.choice(found), model)
        return
    field = rng.choice(given) if given and rng.random() < 0.6 else rng.choice(message.DESCRIPTOR.fields)
    if field.message_type is not None:
        if field.message_type.name == "GraphProto":
            found = getattr(message, field.name)
            (found.add() if _many(field) else found).CopyFrom(model.graph)
        elif _many(field):
            poke(rng, getattr(message, field.name).add(), model)
        elif field.message_type.full_name != message.DESCRIPTOR.full_name:
            getattr(message, field.name).SetInParent()
    elif _many(field):
        found = getattr(message, field.name)
        if found and rng.random() < 0.6:
            found[rng.randrange(len(found))] = value(rng, field)
        else:
            found.extend([value(rng, field)] * rng.choice([1, 1, 3, 100]))
    elif rng.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, value(rng, field))


def _many(field):
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
