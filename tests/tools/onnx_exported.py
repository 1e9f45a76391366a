"""Layers and losses of PyTorch with drawn options, exported to ONNX by PyTorch, for a comparison with onnxruntime.

python tests/tools/onnx_exported.py 0 200          draws 200 models, and prints those that the package does not compute
python tests/tools/onnx_exported.py 0 200 dynamo   the same by PyTorch's newer exporter, which needs onnxscript
"""

import collections
import contextlib
import io
import logging
import random
import sys
import warnings

import numpy as np
import onnx
import torch
from network_parts import LAYERS, LOSSES, TOKENS, Source
from onnx_judge import compare

OPSETS = {False: (13, 15, 17, 18, 20), True: (18, 20, 21, 23, 24, 25)}  # of the older exporter, and of the newer one
NAMES = sorted((LAYERS.keys() | LOSSES.keys()) - {"LeNet5", "Tied"})  # those that PyTorch has


class States(torch.nn.Module):
    """A recurrent layer with given states, and with all outputs in one tuple."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, *states):
        y, last = self.cell(x, states if len(states) > 1 else states[0] if states else None)
        return (y, *last) if isinstance(last, tuple) else (y, last)


def draw_layer(r, name):
    """A layer with drawn weights, and its inputs."""
    row = LAYERS[name]
    kind = r.choice(row.kinds)
    shape = (r.randint(1, 3), *(r.choice([1, 2, 3, 4, 6]) for _ in range(2 if kind == TOKENS else kind - 1)))
    if kind == 4 and r.random() < 0.8:
        shape = (*shape[:2], r.randint(3, 7), r.randint(3, 7))
    args, options = row.draw(r, shape)
    options.pop("generator", None)
    module = getattr(torch.nn, name)(*args, **options)
    inputs = [torch.randint(0, 7, shape) if kind == TOKENS else torch.randn(shape)]
    if row.block:
        batch = shape[0] if options.get("batch_first") else shape[1]
        state = options.get("num_layers", 1) * (1 + options.get("bidirectional", False)), batch, args[1]
        states = [torch.randn(state) for _ in range(2 if name == "LSTM" else 1)]
        module, inputs = States(module), [*inputs, *(states if r.random() < 0.5 else [])]
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for buffer in module.buffers():
        if buffer.dtype.is_floating_point:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return module, inputs


def draw_loss(r, name):
    """A loss, its input and its target."""
    row = LOSSES[name]
    shape = (r.randint(1, 3), *(r.choice([2, 3, 4]) for _ in range(r.choice(row.ranks) - 1)))
    options = row.draw(r, shape)
    for key, value in options.items():
        if isinstance(value, Source):  # the text of an array
            options[key] = torch.tensor(eval(value.removeprefix("lib.array")))
    kind = r.choice(row.targets)
    if kind == "probabilities":
        options.pop("ignore_index", None)
    target = torch.randn(shape) if kind == "values" else torch.rand(shape)
    if kind == "classes":
        target = torch.randint(0, shape[1], (shape[0], *shape[2:]))
        if options.get("ignore_index") == -1 and target.numel() > 1:
            target.view(-1)[0] = -1
    return getattr(torch.nn, name)(**options), [torch.randn(shape), target]


def draw(seed, dynamo=False):
    """The description of a model, what PyTorch writes for it (or None, if it refuses), and the arrays of its inputs."""
    r = random.Random(seed)
    torch.manual_seed(seed)
    name = NAMES[seed % len(NAMES)]
    module, inputs = (draw_layer if name in LAYERS else draw_loss)(r, name)
    if r.random() < 0.3:
        module, inputs = module.double(), [x.double() if x.is_floating_point() else x for x in inputs]
    opset, dynamic, training = r.choice(OPSETS[dynamo]), r.random() < 0.3, not dynamo and r.random() < 0.15
    module.train(training)
    options = {"opset_version": opset, "dynamo": dynamo, "input_names": [f"x{i}" for i in range(len(inputs))]}
    if not dynamo:
        mode = torch.onnx.TrainingMode
        options["training"] = mode.TRAINING if training else mode.EVAL
        options["do_constant_folding"] = r.random() < 0.8
    if dynamic and not isinstance(module, States):
        axes = [{0: torch.export.Dim.DYNAMIC} if dynamo else {0: "batch"} for _ in inputs]
        options |= (
            {"dynamic_shapes": axes}
            if dynamo
            else {"dynamic_axes": dict(zip(options["input_names"], axes, strict=True))}
        )
    text = f"{module} {[tuple(x.shape) for x in inputs]} {inputs[0].dtype} {options}"
    return text, exported(module, inputs, options), [x.numpy() for x in inputs]


def exported(module, inputs, options):
    """The model that PyTorch exports, or None if it refuses."""
    file = io.BytesIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            torch.onnx.export(module, tuple(inputs), file, **options)
        except Exception:
            return None
        finally:
            logging.disable(logging.NOTSET)
    return onnx.load_from_string(file.getvalue())


if __name__ == "__main__":
    counts = collections.Counter()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        text, model, arrays = draw(seed, sys.argv[3:] == ["dynamo"])
        with np.errstate(all="ignore"):
            outcome = "not exported" if model is None else compare(model, arrays)
        counts[outcome.split(":")[0]] += 1
        if outcome.startswith(("different", "error", "refused")):
            print(
                "seed", seed, " ".join(text.split()), [node.op_type for node in model.graph.node], outcome, sep="\n  "
            )
    print(dict(counts))
