"""onnxruntime as the judge of what the package computes for a model in a file."""

import numpy as np
import onnx
import onnxruntime

import tinygrad_lenet as tl

TOLERANCE = {"float16": 2e-3, "float32": 2e-5, "float64": 1e-9}
# onnxruntime computes these in float32, or their attributes are.
SINGLE = (
    "BatchNormalization",
    "Cast",
    "Elu",
    "Gelu",
    "GroupNormalization",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Resize",
    "Selu",
)


def runtime(model, arrays):
    """The outputs of onnxruntime, or its error."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})
    except Exception as error:
        return error


def compare(model, arrays):
    """One line: "equal"; or how the package's outputs differ from onnxruntime's, or why one of them has none."""
    expected = runtime(model, arrays)
    if isinstance(expected, Exception):
        return f"runtime: {expected}"
    try:
        with tl.no_grad():
            found = tl.onnx.load(model)(*map(tl.as_tensor, arrays))
    except tl.UnsupportedError as error:
        return f"refused: {error}"
    except Exception as error:
        return f"error: {type(error).__name__}: {error}"
    found = [t.numpy() for t in (found if isinstance(found, tuple) else [found])]
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        b = np.asarray(b)
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            return f"different: output {i} has {a.dtype}{a.shape}, not {b.dtype}{b.shape}"
        given = (*arrays, *map(onnx.numpy_helper.to_array, model.graph.initializer), b)
        coarse = [TOLERANCE[x.dtype.name] for x in given if x.dtype.name in TOLERANCE]
        single = b.dtype == np.float64 and any(node.op_type in SINGLE for node in model.graph.node)
        tolerance = max([*coarse, TOLERANCE["float32"]] if single else coarse, default=0) if b.dtype.kind == "f" else 0
        if not np.allclose(a.astype(float), b.astype(float), rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"different: output {i} is {a.ravel()[:8]}, not {b.ravel()[:8]}"
    return "equal"
