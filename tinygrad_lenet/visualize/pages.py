"""The page: one HTML file in which a reader draws a digit and sees what each layer of a network makes of it.

Python reads the layers from one run of the model and writes their numbers into the file. The page itself is plain HTML,
CSS and JavaScript, in the folder ``web``: ``network.js`` has the arithmetic, ``digit.js`` prepares a drawing as MNIST's
images were prepared, and ``layers.js``, ``inspector.js`` and ``page.js`` show both.
"""

from __future__ import annotations

import base64
import copy
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import files
from ..checks import File, PositiveReal, Real, instance, listed, pair
from ..core.graph import now
from ..core.modes import listening, no_grad
from ..core.signature import checked
from ..core.tensor import Tensor
from ..data import MNIST
from ..errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, UnsupportedError, foreign
from ..kernels.windows import Windows
from ..nn.inspection import evaluating, record_calls
from ..nn.module import Model
from ..nn.naming import title as title_of
from ..ops.creation import zeros
from .figures import Words

_MOST = 10  # snapshots
_SCRIPTS = ("network.js", "digit.js", "layers.js", "inspector.js", "page.js")
_ACTIVATIONS = {"relu", "leaky_relu", "elu", "celu", "silu", "softplus", "hardtanh", "tanh", "sigmoid"}
_SHOWN = (
    "Conv2d, MaxPool2d, AvgPool2d, Linear, BatchNorm, Dropout, Flatten, ReLU, ReLU6, LeakyReLU, ELU, CELU, SELU, SiLU, "
    "Softplus, Hardtanh, Tanh and Sigmoid, and the functions of these names, each on the output of the one before"
)


Size: TypeAlias = Annotated[tuple[int, int], pair]


class _Numbers:
    """The arrays of a network in one: where each begins and ends, and all their elements."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []
        self.size = 0

    def add(self, array: Any) -> tuple[int, int]:
        """Append an array, and return its place."""
        self.arrays.append(np.ravel(array.numpy() if isinstance(array, Tensor) else array).astype(np.float64))
        self.size += self.arrays[-1].size
        return self.size - self.arrays[-1].size, self.size

    def base64(self, dtype: Any) -> str:
        """All elements in a dtype; those beyond its range become its largest."""
        numbers, most = np.concatenate([np.zeros(0), *self.arrays]), float(np.finfo(dtype).max)
        if not np.isfinite(numbers).all():
            raise ArgumentError("the weights hold NaN or infinity, which the page cannot show; train again")
        return _base64(numbers.clip(-most, most).astype(dtype))


def _base64(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _window(at: Windows) -> dict[str, Any]:
    names = ("kernel", "stride", "dilation", "before", "full")
    return {name: getattr(at, name) for name in names}


def _weights(numbers: _Numbers, weight: Any, bias: Any) -> dict[str, Any]:
    return {"weight": numbers.add(weight), "bias": None if bias is None else numbers.add(bias)}


def _per_channel(constant: Any, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """A constant for each channel of an array (1, C, ...), as (C,); None if it differs within a channel."""
    values = constant.numpy() if isinstance(constant, Tensor) else np.asarray(constant)
    if values.dtype.kind not in "fiu" or np.broadcast_shapes(values.shape, shape) != shape:
        return None
    rows = np.broadcast_to(values, shape).reshape(shape[1], -1).astype(np.float64)
    return rows[:, 0] if (rows == rows[:, :1]).all() else None


def _affine(op: str, first: bool, constant: Any, shape: tuple[int, ...]) -> tuple[Any, Any] | None:
    """The scale and the shift of ``x + c``, ``c - x`` and their like; None if it is another function."""
    c = _per_channel(constant, shape)
    if c is None or (op == "div" and not first):
        return None
    one = np.ones_like(c)
    if op in ("add", "sub"):
        return (one, -c if op == "sub" else c) if first else (-one if op == "sub" else one, c)
    return (c if op == "mul" else 1 / c), 0 * c


def _layer(op: str, args: tuple[Any, ...], x: Tensor, numbers: _Numbers) -> dict[str, Any] | None:
    """An op that is applied to ``x``, as the page describes it; None if the page does not know it."""
    rest = args[1:]
    if op == "conv2d" and args[0] is x:
        *weights, at = rest
        return {"op": "conv", **_weights(numbers, *weights), **_window(at.windows), "groups": at.groups}
    if op == "linear" and args[0] is x and x.ndim == 2:
        return {"op": "linear", **_weights(numbers, *rest)}
    if op == "max_pool2d":
        return {"op": "max", **_window(rest[0])}
    if op == "avg_pool2d":
        at = rest[0]
        return {"op": "mean", **_window(at.windows), "padded": at.count_include_pad, "divisor": at.divisor_override}
    if op in _ACTIVATIONS and all(isinstance(a, (int, float)) for a in rest):
        return {"op": "activation", "function": op, "options": [float(np.clip(a, -1e38, 1e38)) for a in rest]}
    if op == "reshape":
        return {"op": "reshape"}
    if op in ("add", "sub", "mul", "div") and (found := _affine(op, args[0] is x, args[args[0] is x], x.shape)):
        return {"op": "affine", "scale": found[0], "shift": found[1]}
    return None


def _read(model: Any, size: tuple[int, int]) -> tuple[list[dict[str, Any]], _Numbers]:
    """The layers of a model, and their numbers, from the ops of one run on a blank image."""
    image, numbers = zeros(1, 1, *size), _Numbers()
    events: list[tuple[Any, ...]] = []  # of each op: what it is, and when it ran
    hear = listening(lambda op, args, out: events.append((op.name, args, out, now(), len(calls))))
    with evaluating(model), no_grad(), record_calls(model) as calls, hear, foreign:
        output = model(image)
    live, layers = [image], list[dict[str, Any]]()
    for op, args, out, time, ended in events:
        taken = [x for x in live if any(x is arg for arg in args)]
        if not taken:
            continue  # an op on numbers of the model
        call = next(call for call in calls[ended:] if call._start < time)  # the innermost
        leaf = next(call.module.children(), None) is None  # else its forward calls a function
        layer = _layer(op, args, live[-1], numbers) if taken == live[-1:] else None
        if layer is None or out.shape[:1] != (1,) or out.ndim not in (2, 4):
            where = f"layer {call.name}, {title_of(call.module)}" if call.name else title_of(call.module)
            raise UnsupportedError(f"the page cannot show {op.lstrip('_')} in {where}. It shows {_SHOWN}")
        layer |= {"name": call.name if leaf else "", "kind": title_of(call.module) if leaf else op}
        layer["shape"] = out.shape[1:]
        last = layers[-1] if layers else {}
        if layer["op"] == "affine" == last.get("op") and layer["name"] == last["name"]:
            layer["shift"] = last["shift"] * layer["scale"] + layer["shift"]
            layer["scale"] = last["scale"] * layer["scale"]
            layers.pop()
        layers.append(layer)
        live.append(out)
    if output is not live[-1] or output.ndim != 2:
        raise UnsupportedError(f"the output must be logits (N, classes) of the last layer. The page shows {_SHOWN}")
    for layer in layers:
        if layer["op"] == "affine":
            layer |= {name: numbers.add(layer[name]) for name in ("scale", "shift")}
    return layers, numbers


def _examples(given: Any, size: tuple[int, int], classes: int) -> dict[str, Any]:
    """The example images as bytes, and their labels."""
    pairs = listed("examples", given, "a pair of images and labels")
    if len(pairs) != 2:
        raise DTypeError(f"examples must be a pair of images (N, H, W) and labels (N,), got {len(pairs)} elements")
    images, labels = (np.asarray(part) for part in pairs)
    if images.shape[1:] != size or labels.shape != images.shape[:1]:
        expected = f"images (N, {size[0]}, {size[1]}) and labels (N,)"
        raise ShapeError(f"examples must be {expected}, got {images.shape} and {labels.shape}")
    if labels.dtype.kind not in "iu" or ((labels < 0) | (labels >= classes)).any():
        raise OutOfRangeError(f"the labels of examples must be integers, 0 ... {classes - 1}")
    if images.dtype != np.uint8:
        if images.dtype.kind != "f" or not ((images >= 0) & (images <= 1)).all():
            raise DTypeError("the images of examples must be uint8, or floats from 0 (paper) to 1 (ink)")
        images = np.rint(255 * images).astype(np.uint8)
    return {"images": _base64(images), "labels": labels.tolist()}


@checked
def page(
    model: Model,
    path: File,
    title: str = "",
    classes: Words | None = None,
    examples: Any = None,
    history: Any = (),
    mean: Real = MNIST.mean,
    std: PositiveReal = MNIST.std,
    size: Size = (28, 28),
) -> None:
    """Write one HTML file in which a reader draws a digit and sees what each layer of ``model`` makes of it.

    The file contains the weights and works offline in any browser, without a server. The drawing is centred and scaled
    as MNIST's images are. All layers follow each stroke. The reader sees how each unit is computed, which pixels speak
    for a class, and what the network does without a kernel, without its activations, or with noise on its weights.

    Args:
        model: a network from grey images (N, 1, H, W) to logits (N, classes), whose layers follow one another. It is
            shown in evaluation mode, in float32.
        path: the file to write.
        title: the heading; the name of the model's class if empty.
        classes: a name for each class; the numbers from 0 if None.
        examples: a pair of images, (N, H, W), uint8 or floats from 0 to 1, and their labels, (N,), which the reader can
            step through.
        history: up to ten state dicts of the model during its training, in a list, or in a dict by their names. The
            reader moves through them with a slider. They are stored in float16.
        mean: the mean that was subtracted from the pixels (0 to 1) in training; by default, that of MNIST.
        std: the standard deviation by which the pixels were divided.
        size: height and width of the images.

    Raises:
        ArgumentError: ``history`` has more than ten snapshots, or the number of classes is not that of the model.
        DTypeError: an argument has the wrong type.
        ShapeError: the examples do not have the shape of the images.
        OutOfRangeError: a label is not the number of a class.
        UnsupportedError: a layer that the page cannot show; the message names it.
        DataError: the file cannot be written.

    >>> import os, tempfile
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tl.visualize.page(nn.LeNet5(generator=0), os.path.join(folder, "lenet.html"), title="My LeNet-5")
    ...     os.listdir(folder), os.path.getsize(os.path.join(folder, "lenet.html")) < 450_000
    (['lenet.html'], True)
    """
    layers, numbers = _read(model, size)
    count = layers[-1]["shape"][0]
    names = [str(i) for i in range(count)] if classes is None else list(classes)
    if len(names) != count:
        raise ArgumentError(f"the model has {count} outputs, but there are {len(names)} classes; name each output")
    named = history.items() if isinstance(history, Mapping) else enumerate(listed("history", history, "state dicts"), 1)
    states = [(str(name), instance("each of history", state, dict, "a state dict")) for name, state in named]
    if len(states) > _MOST:
        raise ArgumentError(f"history has {len(states)} snapshots, at most {_MOST} can be shown; choose some of them")
    other, snapshots = copy.deepcopy(model), []
    for name, state in states:
        other.load_state_dict(state)
        snapshots.append({"name": name, "weights": _read(other, size)[1].base64("<f2")})
    network = {
        "classes": names,
        "size": size,
        "mean": mean,
        "std": std,
        "layers": layers,
        "parameters": sum(parameter.size for parameter in model.parameters()),
        "weights": numbers.base64("<f4"),
        "history": snapshots,
        "examples": None if examples is None else _examples(examples, size, count),
    }
    web = resources.files(__package__).joinpath("web")
    scripts = [web.joinpath(name).read_text("utf-8") for name in _SCRIPTS]
    parts = {
        "title": html.escape(title or type(model).__name__),
        "style": web.joinpath("page.css").read_text("utf-8"),
        # In a script element, "<" could end it.
        "network": json.dumps(network, allow_nan=False).replace("<", "\\u003c"),
        "scripts": "\n".join(f"<script>\n{script}</script>" for script in scripts),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], web.joinpath("page.html").read_text("utf-8"))
    files.write(path, text.encode("utf-8"))
