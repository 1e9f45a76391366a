"""The words of the package beside PyTorch's: two tables in examples/README.md, and what the tests compare by them.

python tests/tools/vocabulary.py            prints the tables
python tests/tools/vocabulary.py --write    puts them into examples/README.md
"""

import sys
from pathlib import Path

import tinygrad_lenet as tl
from tinygrad_lenet import nn, optim
from tinygrad_lenet.core.names import NAMES, import_all

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", *(ROOT / folder / "README.md" for folder in ("tests", "benchmarks", "examples"))]


def words(text, **renamed):
    """Names, and for those that PyTorch spells differently its own."""
    return {name: renamed.get(name, name) for name in text.split()}


import_all()
# By kind: PyTorch's place, and names here -> names there. The ops declare theirs by ``known_as``.
FUNCTIONS = {}
for key, declared in NAMES.items():
    if key.startswith("tinygrad_lenet.ops."):
        subject = key.split(".")[2]
        networks = declared.torch.startswith("nn.functional.")
        kind = f"{subject}, of networks" if networks else subject
        home = "torch.nn.functional" if networks else "torch.linalg" if subject == "linalg" else "torch"
        if declared.torch == f"Tensor.{declared.name}":
            kind, home = "methods", "torch.Tensor"
        FUNCTIONS.setdefault(kind, (home, {}))[1][declared.name] = f"torch.{declared.torch}".removeprefix(f"{home}.")
FUNCTIONS = dict(sorted(FUNCTIONS.items()))
FUNCTIONS["methods"][1].update(words("add_ copy_ dim fill_ mul_ numel requires_grad_ retain_grad size tolist zero_"))
FUNCTIONS["creation"][1].update(words("as_tensor from_dlpack tensor"))
FUNCTIONS["derivatives"] = (
    "torch.func",
    words(
        "grad value_and_grad vjp jvp jacobian hessian hvp checkpoint compile no_grad enable_grad inference_mode "
        "set_grad_enabled is_grad_enabled detect_anomaly",
        value_and_grad="grad_and_value",
        jacobian="jacrev",
        hvp="autograd.functional.hvp",
        checkpoint="utils.checkpoint.checkpoint",
        compile="torch.compile",
        no_grad="torch.no_grad",
        enable_grad="torch.enable_grad",
        inference_mode="torch.inference_mode",
        set_grad_enabled="torch.set_grad_enabled",
        is_grad_enabled="torch.is_grad_enabled",
        detect_anomaly="torch.autograd.detect_anomaly",
    ),
)
FUNCTIONS["dtypes, of NumPy"] = (
    "torch",
    words("bool double float float16 float32 float64 half int int16 int32 int64 int8 long short")
    | words("uint16 uint32 uint64 uint8"),
)
CLASSES = {
    "layers": (nn, "torch.nn", words(
            "AdaptiveAvgPool2d AdaptiveMaxPool2d AvgPool1d AvgPool2d BatchNorm1d BatchNorm2d ConstantPad2d Conv1d "
            "Conv2d ConvTranspose1d ConvTranspose2d Dropout Dropout2d Embedding Flatten GRU GroupNorm Identity "
            "LSTM LayerNorm Linear MaxPool1d MaxPool2d Module ModuleDict ModuleList Parameter RNN ReflectionPad2d "
            "ReplicationPad2d Sequential Unflatten Upsample ZeroPad2d")),
    "activations as layers": (nn, "torch.nn", words(
            "CELU ELU GELU Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid LogSoftmax Mish PReLU ReLU ReLU6 "
            "SELU SiLU Sigmoid Softmax Softplus Softsign Tanh")),
    "losses as layers": (nn, "torch.nn", words(
            "BCELoss BCEWithLogitsLoss CrossEntropyLoss HuberLoss KLDivLoss L1Loss MSELoss MultiMarginLoss NLLLoss "
            "SmoothL1Loss")),
    "optimisers": (optim, "torch.optim", words(
            "Adagrad Adam AdamW RMSprop SGD")),
    "schedules": (optim, "torch.optim.lr_scheduler", words(
            "CosineAnnealingLR ExponentialLR LambdaLR LinearLR MultiStepLR OneCycleLR ReduceLROnPlateau SequentialLR "
            "StepLR")),
}  # fmt: skip
# The same call, another result, and no error: what it gives here, and in PyTorch, and how to get PyTorch's result here.
# x has two axes of float32, y three, v and w one, s none; h is float16, i int64, u uint8, b boolean, and n holds NaN.
DIFFERENT = [
    ("tl.std(x)", "divides by n, also `var`", "by n - 1", "tl.std(x, ddof=1)"),
    ("tl.std(x, 0, True)", "`True` is `keepdims`", "`unbiased`", "tl.std(x, 0, ddof=1)"),
    ("tl.max(x, 0)", "the values, also `min`", "and their indices", "(tl.max(x, 0), tl.argmax(x, 0))"),
    ("tl.sort(x)", "the values", "and their indices", "(tl.sort(x), tl.argsort(x))"),
    ("tl.median(v)", "of an even number the mean of two", "the lower", "tl.sort(v)[(len(v) - 1) // 2]"),
    ("tl.median(x, 0)", "the values", "and their indices", "(tl.median(x, 0), tl.argsort(x, 0)[(len(x) - 1) // 2])"),
    ("tl.split(v, 3)", "3 parts", "parts of length 3", "tl.split(v, range(3, len(v), 3))"),
    ("v.repeat(2)", "each element twice", "the whole twice", "v.tile(2)"),
    ("tl.meshgrid(v, w)", '`indexing="xy"`', '`"ij"`, with a warning', 'tl.meshgrid(v, w, indexing="ij")'),
    ("y.T", "all axes reversed", "the same, with a warning", "y.permute(2, 1, 0)"),
    ("tl.sum(x, ())", "nothing is summed, also `mean`, `amax` ...", "everything", "tl.sum(x)"),
    ("y.count_nonzero(0, 1)", "`1` is `keepdims`", "another axis", "y.count_nonzero((0, 1))"),
    ("F.softmax(y)", "along axis -1, also `log_softmax`", "here axis 0, with a warning", "F.softmax(y, 0)"),
    ("F.interpolate(y, size=2)", "y is (C, H, W)", "y is (N, C, L)", "F.interpolate(y[:, :, None], (1, 2))[:, :, 0]"),
    ("tl.tensor([1, 2])", "float32", "int64", 'tl.tensor([1, 2], dtype="int64")'),
    ("tl.full((2,), 7)", "float32", "int64", 'tl.full((2,), 7, dtype="int64")'),
    ("i + x", "promotion: int64 and float32 give float64", "float32", "i.astype(x.dtype) + x"),
    ("tl.sqrt(i)", "float64, also `exp`, `sin` ...", "float32", "tl.sqrt(i.astype(tl.float32))"),
    ("h * s", "a tensor without axes counts: float32", "float16", "h * s.item()"),
    ("u.sum()", "uint64, also `prod`, `cumsum` ...", "int64", "u.sum().astype(tl.int64)"),
    ("tl.any(u)", "booleans, also `all`", "uint8", "tl.any(u).astype(u.dtype)"),
    ("b**2", "int8", "int64", "b.astype(tl.int64) ** 2"),
    ("u > -1", "True", "-1 is 255 for uint8", "u > 255"),
    ("F.relu6(i)", "float64, also `hardtanh`, `clip`", "int64", "F.relu6(i).astype(i.dtype)"),
    ("tl.sign(n)", "NaN", "0", "tl.where(n == n, tl.sign(n), 0.0)"),
    ("x.data", "an array of NumPy", "a tensor", "x.detach()"),
]  # fmt: skip
# What has no counterpart, and why.
OWN = {
    **dict.fromkeys(["primitive", "draw", "Array"], "how ops are made"),
    **dict.fromkeys(["set_num_threads", "get_num_threads"], "PyTorch's names, of its own pool"),
    **dict.fromkeys(
        ["data", "functional", "linalg", "nn", "onnx", "optim", "testing", "training", "visualize"], "modules"
    ),
    "reference": "the definitions of the ops",
    **dict.fromkeys(["load", "load_metadata", "save"], "weights of .npz and .safetensors files"),
    **dict.fromkeys(["load_checkpoint", "save_checkpoint"], "whole or not at all, and nothing that is executed"),
}


def table():
    """The lines of the table."""
    lines = [
        "| kind | here, and in brackets PyTorch's name where it is another | PyTorch's place |",
        "| --- | --- | --- |",
    ]
    rows = [(kind, place, names) for kind, (place, names) in FUNCTIONS.items()]
    rows += [(kind, place, names) for kind, (_, place, names) in CLASSES.items()]
    for kind, place, names in rows:
        both = [f"`{ours}`" + ("" if ours == theirs else f" (`{theirs}`)") for ours, theirs in sorted(names.items())]
        lines.append(f"| {kind} | {' '.join(both)} | `{place}` |")
    return lines


def differences():
    """The lines of the table of the same words with other results."""
    lines = ["| call | here | in PyTorch | for PyTorch's result |", "| --- | --- | --- | --- |"]
    return lines + [f"| `{call}` | {here} | {there} | `{instead}` |" for call, here, there, instead in DIFFERENT]


def find(torch, place, name):
    """PyTorch's thing of that name; None if there is none."""
    for path in (name.removeprefix("torch."), f"{place}.{name}".removeprefix("torch."), f"nn.functional.{name}"):
        there = torch
        for part in path.split("."):
            there = getattr(there, part, None)
        if there is not None and (path != name.removeprefix("torch.") or "." in name or place == "torch"):
            return there
    return None


def block(name):
    """The lines between ``<!-- name ... -->`` and ``<!-- end of name -->``, their README, and where they are in it."""
    readme = next(readme for readme in READMES if f"<!-- {name}: " in readme.read_text())
    text = readme.read_text()
    start = text.index("-->", text.index(f"<!-- {name}: ")) + 3
    end = text.index(f"<!-- end of {name} -->")
    return text[start:end].strip().splitlines(), readme, slice(start, end)


def write(name, lines):
    """Put lines there."""
    _, readme, at = block(name)
    text = readme.read_text()
    readme.write_text("\n".join([text[: at.start], "", *lines, "", text[at.stop :]]))


if __name__ == "__main__":
    if "--write" in sys.argv:
        write("vocabulary", table())
        write("differences", differences())
    else:
        print(*table(), *differences(), sep="\n")
    counted = sum(len(names) for *_, names in [*FUNCTIONS.values(), *CLASSES.values()])
    print(f"{counted} words, {len(tl.__all__)} names in the package", file=sys.stderr)
