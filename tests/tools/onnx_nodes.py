"""Models of one operator of ONNX, with drawn attributes, inputs and dtypes, for a comparison with onnxruntime.

python tests/tools/onnx_nodes.py 0 50            draws 50 models of each operator, and prints where the two differ
python tests/tools/onnx_nodes.py 0 50 Slice      draws those of one
"""

import collections
import random
import sys
import warnings

import numpy as np
import onnx
import onnx_layer_draws  # noqa: F401  # its draws join the table
from onnx import helper
from onnx_draws import DRAWS, Draw
from onnx_judge import compare

from tinygrad_lenet.onnx import layers, operators  # noqa: F401  # their operators join the table
from tinygrad_lenet.onnx.words import OPERATORS

OPSETS = (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)


def model_of(kind, seed):
    """A model of one node and the arrays of its inputs; some inputs are arrays in the file."""
    r = random.Random(seed)
    least = onnx.defs.get_schema(kind).since_version
    first = min(s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == kind and not s.domain)
    opset = r.choice([v for v in OPSETS if v >= first] or [least])
    d = Draw(kind, seed, opset)
    inputs = DRAWS[kind](d)
    names = [f"x{i}" if a is not None else "" for i, a in enumerate(inputs)]
    outputs = [f"y{i}" for i in range(d.outputs)]
    if d.outputs > 1 and d.r.random() < 0.3 and kind not in ("Split", "BatchNormalization"):
        outputs[d.r.randrange(d.outputs)] = ""
    arrays = {n: np.asarray(a) for n, a in zip(names, inputs, strict=True) if n}
    stored = {n for n in arrays if d.r.random() < 0.3}
    values = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in arrays.items()
        if n not in stored
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, names, outputs, **d.attributes)],
        "drawn",
        values,
        [onnx.ValueInfoProto(name=n) for n in outputs if n],
        [onnx.numpy_helper.from_array(arrays[n], n) for n in arrays if n in stored],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    if all(o.type.tensor_type.elem_type for o in inferred.graph.output) and d.r.random() < 0.8:
        for o in inferred.graph.output:
            o.type.tensor_type.shape.SetInParent()
            if len(o.type.tensor_type.shape.dim) == 0:
                o.type.tensor_type.ClearField("shape")
        model = inferred
    return model, [a for n, a in arrays.items() if n not in stored]


def text(model, arrays):
    """A description of a model in one line."""
    node = model.graph.node[0]
    given = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    shapes = [f"{a.dtype}{a.shape}" + (f"={a.tolist()}" if a.size < 9 else "") for a in arrays]
    stored = [f"{n}: {a.dtype}{a.shape}" + (f"={a.tolist()}" if a.size < 9 else "") for n, a in given.items()]
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name != "value"}
    call = f"{node.op_type}({', '.join(node.input)}) of opset {model.opset_import[0].version}"
    return f"{call} gives {list(node.output)} {options} {shapes} {stored}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    first, last = int(sys.argv[1]), int(sys.argv[2])
    for kind in sys.argv[3:] or sorted(OPERATORS):
        counts = collections.Counter()
        for seed in range(first, last):
            model, arrays = model_of(kind, seed)
            with np.errstate(all="ignore"):
                outcome = compare(model, arrays)
            key = outcome.split(":")[0]
            if key == "refused":
                key = outcome[:150]
            counts[key] += 1
            if key in ("different", "error"):
                print(f"seed {seed} {text(model, arrays)[:500]}\n      {outcome[:300]}")
        print(kind, dict(counts), flush=True)
