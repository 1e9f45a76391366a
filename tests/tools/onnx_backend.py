"""An ONNX backend: models whose operators are words of the package, run by the package. ONNX's own test cases judge it.

python tests/tools/onnx_backend.py        prints how many of ONNX's cases pass, by kind, and why the others do not
"""

import collections
import os
import sys
import warnings
from unittest import mock

import numpy as np
import onnx
from onnx import numpy_helper, version_converter
from onnx.backend.base import Backend, BackendRep
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner
from onnx_judge import runtime

import tinygrad_lenet as tl
from tinygrad_lenet.errors import UnsupportedError
from tinygrad_lenet.onnx.model import OnnxModel
from tinygrad_lenet.onnx.operators import SETTINGS
from tinygrad_lenet.onnx.words import OPERATORS
from tinygrad_lenet.testing import gradcheck


class Model(BackendRep):
    """Arrays to arrays."""

    def __init__(self, model):
        self.model = OnnxModel(model)

    def run(self, inputs, **kwargs):
        with tl.no_grad():
            found = self.model(*(tl.as_tensor(np.asarray(a)) for a in inputs))
        return tuple(np.asarray(t.detach()) for t in (found if isinstance(found, tuple) else [found]))


class TinygradLenetBackend(Backend):
    """What ONNX's tests call."""

    @classmethod
    def prepare(cls, model, device="CPU", **kwargs):
        return Model(model)

    @classmethod
    def supports_device(cls, device):
        return device == "CPU"


def exact_model(model):
    """A model that leaves floats in float64, in which gradients can be compared, where the file casts them."""

    def exact(cast):
        return lambda x, *to, **options: x.astype(np.float64) if x.dtype.kind == "f" else cast(x, *to, **options)

    with mock.patch.dict(OPERATORS, {kind: exact(OPERATORS[kind]) for kind in ("Cast", "CastLike")}):
        return OnnxModel(model)


# ONNX's cases


def cases(*kinds):
    """All cases of these kinds whose operators are in the table, by name; and how many there are besides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = [case for kind in kinds for case in load_model_tests(kind=kind)]
    found = {}
    for case in every:
        model = case.model if case.model is not None else onnx.load(os.path.join(case.model_dir, "model.onnx"))
        if {node.op_type for node in model.graph.node} <= OPERATORS.keys() and not model.functions:
            found[case.name.removeprefix("test_")] = case, converted(model)
    return found, len(every) - len(found)


def converted(model):
    """A model in operators of opset 13 or later."""
    version = next(entry.version for entry in model.opset_import if not entry.domain)
    if version >= 13:
        return model
    model = version_converter.convert_version(model, 13)
    arrays = {array.name: array for array in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "PRelu" and version < 7:  # slopes of channels, which the converter leaves as they are
            arrays[node.input[1]].dims.extend([1] * (len(model.graph.input[0].type.tensor_type.shape.dim) - 2))
    return model


def arrays_of(case, model):
    """Inputs and outputs of each data set."""
    if case.data_sets is not None:
        for arrays in case.data_sets:
            yield [
                [numpy_helper.to_array(a) if isinstance(a, onnx.TensorProto) else a for a in some] for some in arrays
            ]
        return
    for folder in sorted(os.scandir(case.model_dir), key=lambda entry: entry.name):
        if folder.is_dir():
            there = sorted(os.listdir(folder.path), key=lambda name: int(name.split("_")[1].split(".")[0]))
            yield [
                [
                    numpy_helper.to_array(onnx.load_tensor(os.path.join(folder.path, name)))
                    for name in there
                    if name.startswith(kind)
                ]
                for kind in ("input", "output")
            ]


# Cases of which PyTorch and onnxruntime compute something else than ONNX says: we agree with these two.
OUTVOTED = ("test_resize_downsample_scales_linear_align_corners",)


def check(case, model):
    """Run a case, and compare as ONNX does."""
    backend = TinygradLenetBackend.prepare(model)
    for inputs, outputs in arrays_of(case, model):
        outputs = runtime(model, inputs) if case.name in OUTVOTED else outputs
        found = backend.run(inputs)
        try:
            Runner.assert_similar_outputs(outputs, found, case.rtol, case.atol)
        except AssertionError:
            if not nearer(found, outputs, model, inputs):
                raise


def nearer(found, outputs, model, inputs):
    """True if our result is nearer to the exact values than the expected one, rounded to float16 at each step."""
    if any(a.dtype != np.float16 for a in outputs):
        return False
    exact = exact_model(model)(*[a.astype(np.float64) if a.dtype.kind == "f" else a for a in inputs])
    exact = [y.numpy() for y in (exact if isinstance(exact, tuple) else (exact,))]
    return all(np.abs(a - y).max() <= np.abs(b - y).max() for a, b, y in zip(found, outputs, exact, strict=True))


def check_gradients(case, model):
    """The gradients of all floats in a case that are no settings, in float64; whether there are any.

    Values are moved off ties and kinks, and to where the function has values at all.
    """
    backend = exact_model(model)
    for parameter in backend.parameters():
        parameter.requires_grad = False  # the inputs are what counts here
    nodes = [node for node in model.graph.node if node.op_type in SETTINGS]
    settings = {name for node in nodes for i, name in enumerate(node.input) if i in SETTINGS[node.op_type]}
    inputs, _ = next(iter(arrays_of(case, model)))
    inputs = [np.asarray(a, np.float64 if np.asarray(a).dtype.kind == "f" else None) for a in inputs]
    free = [i for i, name in enumerate(backend._inputs) if inputs[i].dtype == np.float64 and name not in settings]
    rng = np.random.default_rng(0)
    moved = [inputs[i] + rng.uniform(0.001, 0.01, inputs[i].shape) for i in free]
    drawn = [np.where(np.isfinite(a), a, rng.uniform(-1, 1, a.shape)) for a in moved]

    values = {}

    def forward(*xs):
        given = [tl.as_tensor(a) for a in inputs]
        for i, x in zip(free, xs, strict=True):
            given[i] = x
        values.clear()
        values.update(backend.values(*given))
        return tuple(values[name] for name in backend._outputs)

    for point in (moved, drawn, [np.abs(a) + 0.5 for a in drawn]):
        with np.errstate(all="ignore"):
            found = forward(*(tl.tensor(a, requires_grad=True) for a in point))
        outputs = [i for i, y in enumerate(found) if y.requires_grad and np.isfinite(y.numpy()).all()]
        nan = any(np.isnan(v.numpy()).any() for v in values.values() if v is not None and v.dtype.kind == "f")
        if not nan and (outputs or not any(y.requires_grad for y in found)):
            break
    else:
        raise UnsupportedError("(values pass) gradients of attention with a row that is masked as a whole: NaN")
    if not outputs:
        return False
    large = sum(a.size for a in point) > 30
    return gradcheck(lambda *xs: tuple(forward(*xs)[i] for i in outputs), point, fast=large)


def report(kind):
    """Of the cases of a kind: how many there are, and names with the outcome of values and of gradients.

    An outcome is True, False (no gradients), or the error.
    """
    found, others = cases(kind)
    outcomes = {}
    for name, case in found.items():
        outcomes[name] = []
        for checked in (check, check_gradients):
            try:
                outcomes[name].append(checked(*case) is not False)
            except Exception as error:
                outcomes[name].append(error)
                break
    return len(found) + others, outcomes


KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")


def summary(reports):
    """What the README says."""
    lines = [
        "| ONNX's cases | all | of our operators | pass | gradients checked |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    why = collections.Counter()
    for kind, (count, outcomes) in reports.items():
        passed = [o for o in outcomes.values() if o[0] is True]
        lines.append(f"| {kind} | {count} | {len(outcomes)} | {len(passed)} | {sum(o[1] is True for o in passed)} |")
        refused = [error for o in outcomes.values() for error in o if isinstance(error, UnsupportedError)]
        why.update(str(error).removeprefix(f"{error.caller}: ").partition("=")[0] for error in refused)
    reasons = "; ".join(f"{reason} ({count})" for reason, count in why.most_common())
    return [*lines, "", f"Those that do not pass ask for: {reasons}."]


if __name__ == "__main__":
    from vocabulary import write

    with np.errstate(all="ignore"):
        reports = {kind: report(kind) for kind in KINDS}
    print(*summary(reports), sep="\n")
    for _, outcomes in reports.values():
        for name, found in outcomes.items():
            if any(isinstance(error, Exception) and not isinstance(error, UnsupportedError) for error in found):
                print(f"{name}: {found[-1]!r}")
    if "--write" in sys.argv:
        write("onnx", summary(reports))
