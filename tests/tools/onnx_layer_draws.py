"""Draws of attributes and inputs for ONNX's operators of layers; see ``onnx_draws.py``."""

import numpy as np
from onnx_draws import draws


def windows(d, dims, padded=True):
    kernel = [d.r.randint(1, 3) for _ in range(dims)]
    d.some(strides=[[d.r.randint(1, 3) for _ in range(dims)]], dilations=[[d.r.randint(1, 2) for _ in range(dims)]])
    if padded:
        choice = d.r.randrange(4)
        if choice == 0:
            d.attributes["auto_pad"] = d.r.choice(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
        elif choice < 3:
            d.attributes["pads"] = [d.r.randint(0, k - 1) for k in kernel * 2]
    return kernel


@draws("Conv")
def _conv(d):
    dims = d.r.choice([1, 2, 2, 3])
    group = d.r.choice([1, 1, 2])
    kernel = windows(d, dims)
    d.some(group=group, kernel_shape=[kernel])
    group = d.attributes.get("group", 1)
    x = d.array("T", (d.r.randint(1, 2), 2 * group, *(d.r.randint(5, 7) for _ in range(dims))))
    m = group * d.r.randint(1, 2)
    return [x, d.array("T", (m, 2, *kernel)), *d.r.choice([[], [d.array("T", (m,))]])]


@draws("ConvTranspose")
def _conv_transpose(d):
    dims = d.r.choice([1, 2, 2, 3])
    group = d.r.choice([1, 1, 2])
    kernel = windows(d, dims)
    d.some(group=group, kernel_shape=[kernel])
    strides, dilations = (d.attributes.get(n, [1] * dims) for n in ("strides", "dilations"))
    if d.r.random() < 0.4:
        d.attributes["output_padding"] = [d.r.randrange(max(s, t)) for s, t in zip(strides, dilations, strict=True)]
    if d.r.random() < 0.15:
        d.attributes["output_shape"] = [8] * dims
        d.attributes.pop("pads", None)
    group = d.attributes.get("group", 1)
    x = d.array("T", (d.r.randint(1, 2), 2 * group, *(d.r.randint(3, 5) for _ in range(dims))))
    m = d.r.randint(1, 2)
    return [x, d.array("T", (2 * group, m, *kernel)), *d.r.choice([[], [d.array("T", (m * group,))]])]


@draws("MaxPool", "AveragePool")
def _pool(d):
    dims = d.r.choice([1, 2, 2, 3])
    d.attributes["kernel_shape"] = windows(d, dims)
    d.some(ceil_mode=[0, 1])
    if d.schema.name == "MaxPool":
        d.some(storage_order=[0, 1])
        d.outputs = d.r.choice([1, 1, 2])
    else:
        d.some(count_include_pad=[0, 1])
        if d.opset < 19:
            d.attributes.pop("dilations", None)
    return [d.array("T", (d.r.randint(1, 2), 2, *(d.r.randint(5, 7) for _ in range(dims))))]


@draws("Resize")
def _resize(d):
    modes = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
    d.some(mode=["nearest", "linear", "cubic"], coordinate_transformation_mode=modes[: 5 if d.opset >= 19 else 4])
    d.some(nearest_mode=["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
    size = d.r.randint(1, 6), d.r.randint(1, 6)
    x = d.array("T1", (d.r.randint(1, 2), 2, *size))
    if d.r.random() < 0.5:
        scales = [1, 1, *(d.r.choice([2, 1, 3, 1.5, 0.5, 0.7, 1.4, 1 / 3]) for _ in size)]
        if d.r.random() < 0.1:
            scales[1] = 2
        new = tuple(int(n * s) for n, s in zip(size, scales[2:], strict=True))
        if min(new) == 0 or new == size:  # onnxruntime copies images whose size stays, whatever the scales are
            scales = [1, 1, 2, 2]
        return [x, None, np.asarray(scales, "f4")]
    return [x, None, None, d.ints([*x.shape[:2], d.r.randint(1, 9), d.r.randint(1, 9)])]


def channels(d):
    return (d.r.randint(1, 3), d.r.choice([2, 4]), *d.shape(1, 3, empty=False))


@draws("InstanceNormalization")
def _instance(d):
    shape = channels(d)
    d.attributes["epsilon"] = d.r.choice([0.1, 1e-2])  # with less, the deviation of equal values is a rounding error
    return [d.array("T", shape), d.array("T", shape[1:2]), d.array("T", shape[1:2])]


@draws("BatchNormalization")
def _batch_norm(d):
    shape = channels(d) if d.r.random() < 0.8 else (4, 2)
    d.some(epsilon=[0.1, 1e-3], momentum=[0.9, 0.5])
    if d.opset >= 14 and d.r.random() < 0.4:
        shape = (shape[0] + 1, *shape[1:])  # of one value there is no variance
        d.attributes["training_mode"] = 1
        d.outputs = d.r.choice([1, 3])
    names = [i.type_str for i in d.schema.inputs]
    d.types = dict.fromkeys(names, d.dtype("T")) if d.r.random() < 0.9 else d.types
    return [
        d.array("T", shape),
        *(d.array(n, shape[1:2], low) for n, low in zip(names[1:], [-1, -1, -1, 0.3], strict=True)),
    ]


@draws("GroupNormalization")
def _group_norm(d):
    shape = channels(d)
    d.attributes["num_groups"] = groups = d.r.choice([1, 2, shape[1]])
    d.attributes["epsilon"] = d.r.choice([0.1, 1e-2])
    n = shape[1] if d.opset >= 21 else groups
    return [d.array("T", shape), d.array("T", (n,)), d.array("T", (n,))]


@draws("LayerNormalization")
def _layer_norm(d):
    x = d.array("T", d.shape(1, empty=False))
    d.attributes["epsilon"] = d.r.choice([0.1, 1e-2])
    d.some(axis=[d.axis(x.ndim)])
    shape = x.shape[d.attributes.get("axis", -1) % x.ndim :]
    d.outputs = d.r.choice([1, 1, 3])
    return [x, d.array("T", shape), *d.r.choice([[], [d.array("T", shape)]])]


@draws("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def _loss(d):
    shape = (d.r.randint(1, 3), d.r.randint(2, 4), *d.shape(0, 2, empty=False))
    d.some(reduction=["mean", "sum", "none"], ignore_index=[-1, 0, 1])
    target = d.rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(d.r.choice(["int64", "int32"]))
    if d.attributes.get("ignore_index") == -1 and target.size > 1:
        target.flat[0] = -1
    if d.schema.name.startswith("Softmax"):
        d.outputs = d.r.choice([1, 2])
    return [d.array("T", shape), target, *d.r.choice([[], [d.array("T", shape[1:2], 0.5)]])]


@draws("LSTM", "GRU", "RNN")
def _recurrent(d):
    kind = d.schema.name
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    size, n, time, batch = (d.r.randint(1, 3) for _ in range(4))
    d.attributes["hidden_size"] = size
    d.some(direction=["forward", "reverse", "bidirectional"])
    both = 2 if d.attributes.get("direction") == "bidirectional" else 1
    layout = d.opset >= 14 and d.r.random() < 0.2
    if layout:
        d.attributes["layout"] = 1
    defaults = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[kind]
    choice = d.r.random()
    if choice < 0.4:
        d.attributes["activations"] = defaults * both
    elif choice < 0.6:
        others = ["Relu", "Sigmoid", "Tanh", "HardSigmoid", "Softsign"]
        d.attributes["activations"] = [d.r.choice(others) for _ in defaults * both]
    if kind == "GRU":
        d.some(linear_before_reset=[0, 1, 1, 1])
    if kind == "LSTM":
        d.some(input_forget=[0, 0, 0, 1])
    if d.r.random() < 0.1:
        d.attributes["clip"] = 0.5
    x = d.array("T", (batch, time, n) if layout else (time, batch, n))
    w, r = d.array("T", (both, gates * size, n)), d.array("T", (both, gates * size, size))
    inputs = [x, w, r, d.r.choice([None, d.array("T", (both, 2 * gates * size))])]
    lengths = d.r.choice([None, None, [time] * batch, [d.r.randint(1, time) for _ in range(batch)]])
    inputs.append(None if lengths is None else d.ints(lengths, "int32"))
    state = (batch, both, size) if layout else (both, batch, size)
    inputs.append(d.r.choice([None, d.array("T", state)]))
    if kind == "LSTM":
        inputs.append(d.r.choice([None, d.array("T", state)]))
        if d.r.random() < 0.1:
            inputs.append(d.array("T", (both, 3 * size)))
    while inputs[-1] is None and d.r.random() < 0.7:
        inputs.pop()
    d.outputs = d.r.randint(1, 3 if kind == "LSTM" else 2)
    return inputs
