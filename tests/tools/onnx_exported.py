"""Layers and losses of PyTorch with drawn options, exported to ONNX by PyTorch, for a comparison with onnxruntime.

python tests/tools/onnx_exported.py 200        draws 200 models, and prints those on which the two differ
"""

import collections
import contextlib
import importlib.util
import inspect
import io
import logging
import random
import sys
import warnings

import numpy as np
import onnx
import torch
from network_libraries import blocks
from network_parts import LAYERS, LOSSES, TOKENS, Source
from onnx_judge import compare

OPSETS = (13, 15, 17, 18, 20, 21)
DYNAMO = importlib.util.find_spec("onnxscript") is not None
# The export of these is refused, or is not what the layer computes.
SKIPPED = {"LeNet5": "the package's own", "Tied": "a block"}


class All(torch.nn.Module):
    """A recurrent layer, with given states, and with all outputs in one tuple."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x, *states):
        y, last = self.cell(x, states if len(states) > 1 else states[0] if states else None)
        return (y, *last) if isinstance(last, tuple) else (y, last)


def draw_layer(r, name):
    """A layer of PyTorch in a drawn mode, and its input."""
    row = LAYERS[name]
    kind = r.choice(row.kinds)
    n = 3 if kind == TOKENS else kind
    shape = (r.randint(1, 3), *(r.choice([1, 2, 3, 4, 6]) for _ in range(n - 1)))
    if kind == 4 and r.random() < 0.8:
        shape = (*shape[:2], r.randint(3, 7), r.randint(3, 7))
    args, options = row.draw(r, shape)
    options.pop("generator", None)
    if options.pop("init", None):
        options["init"] = 0.4
    module = getattr(torch.nn, name)(*args, **options)
    arrays = [torch.randn(shape)] if kind != TOKENS else [torch.randint(0, 7, shape)]
    if row.block:
        states = ()
        if r.random() < 0.5:
            batch = shape[0] if options.get("batch_first") else shape[1]
            one = (options.get("num_layers", 1) * (1 + options.get("bidirectional", False)), batch, args[1])
            states = [torch.randn(one) for _ in range(2 if name == "LSTM" else 1)]
        module, arrays = All(module), [*arrays, *states]
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for key, buffer in module.named_buffers():
        if buffer.dtype.is_floating_point:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return module, arrays


def draw_loss(r, name):
    row = LOSSES[name]
    n = r.choice(row.ranks)
    shape = (r.randint(1, 3), *(r.choice([2, 3, 4]) for _ in range(n - 1)))
    options = row.draw(r, shape)
    options = {
        k: eval(v.replace("lib.array", "torch.tensor")) if isinstance(v, Source) else v for k, v in options.items()
    }
    target = r.choice(row.targets)
    if target == "probabilities":
        options.pop("ignore_index", None)
    x = torch.randn(shape)
    if target == "classes":
        y = torch.randint(0, shape[1], (shape[0], *shape[2:]))
        if options.get("ignore_index") == -1:
            y[0] = -1 if y.numel() > 1 and r.random() < 0.5 else y[0]
    else:
        y = torch.randn(shape) if target == "values" else torch.rand(shape)
    return getattr(torch.nn, name)(**options), [x, y]


def exported(module, arrays, opset, dynamo, training):
    """What PyTorch writes, or None if it can not."""
    module.train(training)
    file = io.BytesIO()
    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with warnings.catch_warnings(), quiet[0], quiet[1]:
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            options = (
                {"training": torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL}
                if not dynamo
                else {}
            )
            torch.onnx.export(
                module, tuple(arrays), file, opset_version=opset, dynamo=dynamo, external_data=False, **options
            ) if dynamo else torch.onnx.export(
                module, tuple(arrays), file, opset_version=opset, dynamo=False, **options
            )
        except Exception as e:
            return str(e)[:100].split("\n")[0]
        finally:
            logging.disable(logging.NOTSET)
    return onnx.load_from_string(file.getvalue())


def draw(seed, dynamo):
    r = random.Random(seed)
    torch.manual_seed(seed)
    names = sorted((LAYERS.keys() | LOSSES.keys()) - SKIPPED.keys())
    name = names[seed % len(names)]
    module, arrays = (draw_layer if name in LAYERS else draw_loss)(r, name)
    double = r.random() < 0.3
    if double:
        module, arrays = module.double(), [a.double() if a.is_floating_point() else a for a in arrays]
    opset = r.choice(OPSETS)
    model = exported(module, arrays, opset, dynamo, training=r.random() < 0.15 and not dynamo)
    return module, opset, model, [a.numpy() for a in arrays]


if __name__ == "__main__":
    first, last, dynamo = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["dynamo"]
    counts = collections.Counter()
    ops = collections.Counter()
    for seed in range(first, last):
        module, opset, model, arrays = draw(seed, dynamo)
        if isinstance(model, str):
            counts["no export"] += 1
            counts["export: " + model] += 1
            continue
        with np.errstate(all="ignore"):
            outcome = compare(model, arrays)
        kinds = " ".join(n.op_type for n in model.graph.node)
        ops.update({(n.domain, n.op_type) for n in model.graph.node})
        counts[outcome.split(":")[0]] += 1
        if outcome not in ("equal",) and not outcome.startswith("runtime"):
            print(
                f"seed {seed} {module} opset {opset} {[a.shape for a in arrays]} {[a.dtype.name for a in arrays]} ({kinds[:300]}): {outcome[:600]}"
            )
    print(counts)
    print(ops)
