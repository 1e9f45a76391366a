"""ONNX's operators in words of the package: inputs by position, attributes by keyword.

A function may also ask for ``opset``, the version of the operators, ``outputs``, how many are wanted, and ``exact``.
"""

import math

import numpy as np
from onnx import helper

import tinygrad_lenet as tl
from tinygrad_lenet import nn


class Unsupported(NotImplementedError):
    """An option of an operator that the package has no word for."""


def refuse(condition, why):
    if condition:
        raise Unsupported(why)


def ints(value):
    """What newer versions give as a tensor of integers, older ones as an attribute."""
    return None if value is None else tuple(int(v) for v in np.asarray(value).reshape(-1))


FOREIGN = "strings, complex numbers, and dtypes that NumPy does not have"


def known(kind):
    """Whether a dtype, a number of ONNX's, is one that tensors can have."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return dtype.isbuiltin == 1 and dtype.kind in "biuf"


# Elementwise


def aligned(function):
    """Of two tensors; before opset 7 the axes of the second stand below those from ``axis`` on."""

    def call(x, y, broadcast=0, axis=None):
        if axis is not None:
            y = y.reshape(*y.shape, *[1] * (x.ndim - y.ndim - axis % x.ndim))
        return function(x, y)

    return call


def many(function):
    """Of any number of tensors, by a function of two."""

    def call(first, *others):
        for other in others:
            first = function(first, other)
        return first

    return call


def selu(x, alpha=1.6732632423543772, gamma=1.0507009873554805):
    usual = np.allclose([alpha, gamma], [1.6732632423543772, 1.0507009873554805])
    return tl.selu(x) if usual else gamma * tl.elu(x, alpha)


def prelu(x, slope, opset=0):
    """Slopes of channels, or (from opset 7 on) of any shape that broadcasts."""
    channels = opset < 7 or slope.size == 1 or slope.shape == (x.shape[1], *[1] * (x.ndim - 2))
    return tl.prelu(x, slope.reshape(-1)) if channels else tl.where(x > 0, x, slope * x)


def clip(x, low=None, high=None, min=None, max=None):
    low, high = low if min is None else min, high if max is None else max
    if low is high is None:
        return tl.clone(x)
    return tl.clip(x, *(None if v is None else np.asarray(v, x.dtype).item() for v in (low, high)))


def hard_sigmoid(x, alpha=0.2, beta=0.5):
    return tl.hardsigmoid(x) if abs(alpha - 1 / 6) < 1e-7 else tl.clip(alpha * x + beta, 0, 1)


def mod(x, y, fmod=0):
    refuse(fmod, "a remainder with the sign of the dividend")
    return tl.mod(x, y)


def divide(x, y):
    return (x / y).astype(x.dtype)  # of integers truncated


def cast(x, to, saturate=1, round_mode="up", exact=False):
    """``exact`` leaves floats as they are: float64, in which gradients can be compared."""
    dtype = helper.tensor_dtype_to_np_dtype(to)
    refuse(not known(to), FOREIGN)
    return x.astype(np.float64 if exact and dtype.kind == "f" else dtype)


# Along axes


def reduction(function):
    def call(x, axes=None, keepdims=1, noop_with_empty_axes=0):
        axes = ints(axes) or (() if noop_with_empty_axes else None)
        refuse(not x.size and function in (tl.amax, tl.amin), "the largest of no elements")
        return function(x, axis=axes, keepdims=bool(keepdims))

    return call


def along(function):
    """Before opset 13, all axes from ``axis`` on count as one."""

    def call(x, axis=None, opset=0):
        if opset >= 13:
            return function(x, -1 if axis is None else axis)
        axis = 1 if axis is None else axis
        return function(x.reshape(math.prod(x.shape[:axis]), -1), -1).reshape(x.shape)

    return call


def arg(function):
    def call(x, axis=0, keepdims=1, select_last_index=0):
        refuse(select_last_index, "the last of several that are the largest")
        return function(x, axis=axis, keepdims=bool(keepdims))

    return call


def running(function, neutral):
    def call(x, axis, exclusive=0, reverse=0):
        (at,) = ints(axis)
        x = tl.flip(x, at) if reverse else x
        if exclusive:
            first = [slice(None)] * x.ndim
            first[at] = slice(-1)
            one = tl.full([1 if i == at % x.ndim else n for i, n in enumerate(x.shape)], neutral, dtype=x.dtype)
            x = tl.concatenate([one, x[tuple(first)]], at)
        found = function(x, at).astype(x.dtype)
        return tl.flip(found, at) if reverse else found

    return call


def topk(x, k, axis=-1, largest=1, sorted=1):
    return tl.topk(x, *ints(k), axis, largest=bool(largest))


# Shapes


def reshape(x, shape, allowzero=0):
    shape = ints(shape)
    return x.reshape(shape if allowzero else tuple(x.shape[i] if n == 0 else n for i, n in enumerate(shape)))


def expand(x, shape):
    return tl.broadcast_to(x, np.broadcast_shapes(x.shape, ints(shape)))


def split(x, lengths=None, axis=0, num_outputs=None, outputs=1, split=None):
    lengths = ints(lengths if split is None else split)
    if lengths is None:
        n = x.shape[axis]
        part = -(-n // outputs)
        lengths = [part] * (outputs - 1) + [n - part * (outputs - 1)]
    return tl.split(x, [int(c) for c in np.cumsum(lengths)[:-1]], axis)


def slices(x, starts=None, ends=None, axes=None, steps=None):
    starts, ends = ints(starts), ints(ends)
    axes = ints(axes) or range(len(starts))
    at = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, ints(steps) or [1] * len(starts), strict=True):
        low = -x.shape[axis]
        at[axis] = slice(start, None if step < 0 and end < low else end, step)
    return x[tuple(at)]


def pad(x, pads=None, value=None, axes=None, mode="constant", paddings=None, opset=0):
    widths = ints(pads if paddings is None else paddings)
    axes = ints(axes) or range(x.ndim)
    pairs = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        pairs[axis] = (widths[i], widths[i + len(axes)])
    refuse(min(widths) < 0, "widths below 0, which crop")
    names = {"edge": "replicate", "wrap": "circular"}
    return tl.pad(x, pairs, mode=names.get(mode, mode), value=0.0 if value is None else np.asarray(value).item())


def take(x, index, axis=0):
    return x[(*[slice(None)] * (axis % x.ndim), np.asarray(index))]


def scatter(x, index, updates, axis=0, reduction="none"):
    refuse(reduction not in ("none", "add"), "scattering by another operation than addition")
    index = np.asarray(index)
    index = np.where(index < 0, index + x.shape[axis], index)
    return (tl.scatter_add if reduction == "add" else tl.scatter)(x, axis, index, updates)


def gather_elements(x, index, axis=0):
    index = np.asarray(index)
    return tl.gather(x, axis, np.where(index < 0, index + x.shape[axis], index))


def one_hot(index, depth, values, axis=-1):
    (depth,), index = ints(depth), np.asarray(index).astype(np.int64)
    index = np.where(
        (index >= -depth) & (index < depth), index % depth, depth
    )  # the others in a column that is cut off
    found = tl.one_hot(index, depth + 1)[..., :-1]
    return tl.where(tl.moveaxis(found, -1, axis) == 1, values[1], values[0])


def trilu(x, k=None, upper=1):
    return (tl.triu if upper else tl.tril)(x, 0 if k is None else int(np.asarray(k).item()))


# Windows


def geometry(x, kernel, strides=None, pads=None, dilations=None, auto_pad="NOTSET"):
    """Options for images, of attributes for one spatial axis or two; sequences become images of height 1."""
    dims = len(kernel)
    refuse(dims > 2, "three spatial axes")
    strides, dilations = (v or [1] * dims for v in (strides, dilations))
    pads = [tuple(pads[i::dims]) for i in range(dims)] if pads else [(0, 0)] * dims
    if auto_pad.startswith("SAME"):
        spans = zip(x.shape[-dims:], kernel, strides, dilations, strict=True)
        total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in spans]
        pads = [(t // 2, t - t // 2) if auto_pad == "SAME_UPPER" else (t - t // 2, t // 2) for t in total]
    kernel, strides, dilations = ((1,) * (2 - dims) + tuple(v) for v in (kernel, strides, dilations))
    return kernel, {"stride": strides, "padding": ((0, 0),) * (2 - dims) + tuple(pads), "dilation": dilations}


WINDOWS = ("strides", "pads", "dilations", "auto_pad")


def windowed(function):
    """Of images; of sequences, by images of height 1. What says where the windows lie is gathered."""

    def call(x, *others, kernel_shape=None, outputs=1, **attributes):
        refuse(outputs > 1, "the indices of the largest")
        kernel = kernel_shape or others[0].shape[2:]
        flat = len(kernel) == 1
        where = {name: attributes.pop(name) for name in WINDOWS if name in attributes}
        if flat:
            x, *others = (t.unsqueeze(2) if t is not None and t.ndim == 3 else t for t in (x, *others))
        kernel, at = geometry(x, kernel, **where)
        if not others:
            refuse(
                any(2 * p > k for k, pads in zip(kernel, at["padding"], strict=True) for p in pads),
                "windows that are all padding",
            )
            others = [kernel]
        found = function(x, *others, at=at, **attributes)
        return found.squeeze(2) if flat else found

    return call


@windowed
def conv(x, w, b=None, *, at, group=1):
    return tl.conv2d(x, w, b, groups=group, **at)


@windowed
def max_pool(x, kernel, *, at, ceil_mode=0, storage_order=0):
    return tl.max_pool2d(x, kernel, ceil_mode=bool(ceil_mode), **at)


@windowed
def avg_pool(x, kernel, *, at, ceil_mode=0, count_include_pad=0):
    refuse(at.pop("dilation") != (1, 1), "dilated windows of average pooling")
    return tl.avg_pool2d(x, kernel, ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad), **at)


def conv_transpose(
    x, w, b=None, *, pads=None, auto_pad="NOTSET", output_shape=None, output_padding=None, strides=None,
    dilations=None, group=1, kernel_shape=None,
):  # fmt: skip
    """Where each side has its own padding, cut from the whole."""
    dims, size = x.ndim - 2, x.shape[2:]
    _, at = geometry(x, w.shape[2:], strides, pads, dilations)
    even, first = at.pop("padding"), (0,) * (2 - dims)
    if dims == 1:
        x, w = x.unsqueeze(2), w.unsqueeze(2)
    at |= {"groups": group, "output_padding": first + tuple(output_padding or [0] * dims)}
    if auto_pad.startswith("SAME") and output_shape is None:
        output_shape = [n * s for n, s in zip(size, at["stride"][-dims:], strict=True)]
    if output_shape is None and all(a == b for a, b in even):
        found = tl.conv_transpose2d(x, w, b, padding=tuple(a for a, _ in even), **at)
    else:
        found = tl.conv_transpose2d(x, w, b, **at)
        if output_shape is not None:
            total = [0] * (2 - dims) + [n - m for n, m in zip(found.shape[-dims:], output_shape, strict=True)]
            refuse(min(total) < 0, "an output larger than the windows reach")
            even = [(t // 2, t - t // 2) if auto_pad == "SAME_UPPER" else (t - t // 2, t // 2) for t in total]
        found = found[(..., *(slice(a, n - b) for n, (a, b) in zip(found.shape[2:], even, strict=True)))]
    return found.squeeze(2) if dims == 1 else found


def col2im(x, image_shape, block_shape, **where):
    kernel, at = geometry(x, ints(block_shape), **where)
    return tl.fold(x, ints(image_shape), kernel, **at)


def resize(
    x, roi=None, scales=None, sizes=None, mode="nearest", antialias=0, axes=None, nearest_mode="round_prefer_floor",
    coordinate_transformation_mode="half_pixel", keep_aspect_ratio_policy="stretch", **cubic,
):  # fmt: skip
    coordinates, sizes = coordinate_transformation_mode, ints(sizes)
    refuse(x.ndim != 4 or (axes is not None and list(axes) != [2, 3]), "other axes than height and width")
    refuse(mode not in ("nearest", "linear") or antialias, "cubic interpolation, or one against aliasing")
    refuse(keep_aspect_ratio_policy != "stretch", "a size found from the other")
    scales = np.float64(sizes[-2:]) / x.shape[2:] if sizes else np.asarray(scales, np.float64)[-2:]
    target = {"size": sizes[-2:]} if sizes else {"scale_factor": tuple(scales.tolist())}
    if mode == "nearest":
        # With whole factors all ways of rounding agree.
        whole = coordinates == "half_pixel" and "round" in nearest_mode and (scales % 1 == 0).all()
        refuse(
            not whole and (coordinates, nearest_mode) != ("asymmetric", "floor"),
            "another nearest pixel than floor(i * n / m)",
        )
        return tl.interpolate(x, mode="nearest", **target)
    corners = coordinates == "align_corners"
    fits = (scales * x.shape[2:] % 1 == 0).all() if corners else coordinates == "half_pixel"
    refuse(not fits, "coordinates that PyTorch's bilinear does not have")
    return tl.interpolate(x, mode="bilinear", align_corners=corners, **target)


# Normalisation, losses, recurrent networks


def batch_norm(x, scale, bias, mean, var, epsilon=1e-5, momentum=0.9, training_mode=0, **old):
    """ONNX's running variance is the biased one, and its momentum is of the old value."""
    if not training_mode:
        return tl.batch_norm(x, mean, var, scale, bias, eps=epsilon)
    over = (0, *range(2, x.ndim))
    now = tl.mean(x, axis=over), tl.var(x, axis=over)
    running = (old * momentum + new * (1 - momentum) for old, new in zip((mean, var), now, strict=True))
    return tl.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon), *running


def group_norm(x, scale, bias, num_groups, epsilon=1e-5, stash_type=1, opset=0):
    if opset < 21:  # one for each group
        scale, bias = (tl.repeat(v, x.shape[1] // num_groups) for v in (scale, bias))
    return tl.group_norm(x, num_groups, scale, bias, epsilon)


def layer_norm(x, scale, bias=None, axis=-1, epsilon=1e-5, stash_type=1, outputs=1):
    last = x.shape[axis % x.ndim :]
    over = tuple(range(axis % x.ndim, x.ndim))
    found = tl.layer_norm(x, last, scale, bias, epsilon)
    spread = 1 / tl.sqrt(tl.var(x, axis=over, keepdims=True) + epsilon)
    return (found, tl.mean(x, axis=over, keepdims=True), spread)[:outputs]


def nll_loss(x, target, weight=None, ignore_index=-100, reduction="mean"):
    return tl.nll_loss(x, np.asarray(target).astype(np.int64), weight, ignore_index, reduction)


def cross_entropy(x, target, weight=None, ignore_index=-100, reduction="mean", outputs=1):
    found = tl.cross_entropy(x, np.asarray(target).astype(np.int64), weight, ignore_index, reduction)
    return (found, tl.log_softmax(x, 1)) if outputs > 1 else found


# ONNX's order of the gates, in PyTorch's.
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


def recurrent(kind):
    def call(x, w, r, b=None, lengths=None, h=None, c=None, peepholes=None, *, hidden_size, **attributes):
        options = {"direction": "forward", "layout": 0, "linear_before_reset": 0, **attributes}
        direction, layout = options["direction"], options["layout"]
        refuse(peepholes is not None, "peepholes")
        refuse(lengths is not None and set(ints(lengths)) != {x.shape[0]}, "sequences of different lengths")
        refuse(kind == "GRU" and not options["linear_before_reset"], "the reset gate before the product")
        refuse(len(options) > 3, "other activations")
        both, backwards = direction == "bidirectional", direction == "reverse"
        x = x.transpose(0, 1) if layout else x
        x = tl.flip(x, 0) if backwards else x
        cell = getattr(nn, kind)(x.shape[-1], hidden_size, bidirectional=both)
        order = [g * hidden_size + i for g in GATES[kind] for i in range(hidden_size)]
        n = len(order)
        b = tl.zeros(1 + both, 2 * n, dtype=x.dtype) if b is None else b
        for d, suffix in enumerate(("_l0", "_l0_reverse")[: 1 + both]):
            parts = {"weight_ih": w[d], "weight_hh": r[d], "bias_ih": b[d, :n], "bias_hh": b[d, n:]}
            for name, part in parts.items():
                vars(cell)[name + suffix] = part[order]
        state = None if h is None else (h, c) if kind == "LSTM" else h
        out, last = cell(x, state)
        out = tl.flip(out, 0) if backwards else out
        out = out.reshape(*out.shape[:2], 1 + both, hidden_size).transpose(1, 2)
        last = [*(last if kind == "LSTM" else [last])]
        out, last = (out.permute(2, 0, 1, 3), [s.transpose(0, 1) for s in last]) if layout else (out, last)
        return out, *last

    return call


def gemm(a, b, c=None, alpha=1.0, beta=1.0, transA=0, transB=0, broadcast=0):
    found = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return found if c is None else found + beta * c


def constant(value=None, **others):
    if value is None:
        ((kind, value),) = others.items()
        value = np.asarray(value, {"f": np.float32, "i": np.int64}[kind.removeprefix("value_")[0]])
    return tl.as_tensor(value)


def constant_of_shape(shape, value=None):
    value = np.float32([0]) if value is None else value
    return tl.full(ints(shape), value.item(), dtype=value.dtype)


def dropout(x, ratio=None, training_mode=None, seed=None, is_test=None, outputs=1, **old):
    refuse(
        training_mode is not None
        and bool(np.asarray(training_mode))
        and float(np.asarray(0.5 if ratio is None else ratio)),
        "the random numbers of another library",
    )
    return (tl.dropout(x, training=False), tl.ones(x.shape, dtype=bool))[:outputs]


def shape_of(x, start=0, end=None):
    return tl.as_tensor(np.array(x.shape[slice(start, end)], np.int64))


SAME = [  # as ours, but for the capital
    "Abs", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh",
]  # fmt: skip
OPERATORS = {
    **{name: getattr(tl, name.lower()) for name in SAME},
    "Acos": tl.arccos, "Asin": tl.arcsin, "Atan": tl.arctan, "Not": tl.logical_not, "HardSwish": tl.hardswish,
    "Identity": tl.clone, "Where": tl.where, "MatMul": tl.matmul, "Det": tl.linalg.det,
    **{name: aligned(f) for name, f in {
        "Add": tl.add, "Sub": tl.sub, "Mul": tl.mul, "Div": divide, "Pow": lambda x, y: tl.pow(x, y).astype(x.dtype),
        "And": tl.logical_and, "Or": tl.logical_or, "Xor": tl.ne, "Equal": tl.eq, "Greater": tl.gt,
        "GreaterOrEqual": tl.ge, "Less": tl.lt, "LessOrEqual": tl.le}.items()},
    "Max": many(tl.maximum), "Min": many(tl.minimum), "Sum": many(tl.add),
    "Mean": lambda *xs: many(tl.add)(*xs) / len(xs),
    "Mod": mod, "Clip": clip, "Cast": cast,
    "CastLike": lambda x, like, exact=False, **options: cast(
        x, helper.np_dtype_to_tensor_dtype(like.dtype), exact=exact),
    "Celu": lambda x, alpha=1.0: tl.celu(x, alpha), "Elu": lambda x, alpha=1.0: tl.elu(x, alpha), "Selu": selu,
    "Gelu": lambda x, approximate="none": tl.gelu(x, approximate), "HardSigmoid": hard_sigmoid,
    "LeakyRelu": lambda x, alpha=0.01: tl.leaky_relu(x, alpha), "PRelu": prelu,
    "Swish": lambda x, alpha=1.0: tl.silu(x) if alpha == 1 else x * tl.sigmoid(alpha * x),
    **{name: reduction(f) for name, f in {
        "ReduceL1": lambda x, **o: tl.norm(x, 1, **o), "ReduceL2": lambda x, **o: tl.norm(x, 2, **o),
        "ReduceLogSum": lambda x, **o: tl.log(tl.sum(x, **o)), "ReduceLogSumExp": tl.logsumexp,
        "ReduceMax": tl.amax, "ReduceMin": tl.amin, "ReduceMean": tl.mean, "ReduceProd": tl.prod, "ReduceSum": tl.sum,
        "ReduceSumSquare": lambda x, **o: tl.sum(tl.square(x), **o)}.items()},
    "Softmax": along(tl.softmax), "LogSoftmax": along(tl.log_softmax), "ArgMax": arg(tl.argmax),
    "ArgMin": arg(tl.argmin), "CumSum": running(tl.cumsum, 0), "CumProd": running(tl.cumprod, 1), "TopK": topk,
    "Reshape": reshape, "Expand": expand, "Split": split, "Slice": slices, "Pad": pad, "Trilu": trilu,
    "Flatten": lambda x, axis=1: x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])),
    "Transpose": lambda x, perm=None: tl.permute(x, tuple(perm or range(x.ndim)[::-1])),
    "Squeeze": lambda x, axes=None: tl.squeeze(x, ints(axes)),
    "Unsqueeze": lambda x, axes: tl.expand_dims(x, ints(axes)),
    "Concat": lambda *xs, axis=1: tl.concatenate(xs, axis), "Tile": lambda x, repeats: tl.tile(x, ints(repeats)),
    "Gather": take, "GatherElements": gather_elements, "ScatterElements": scatter, "Scatter": scatter,
    "OneHot": one_hot,
    "Shape": shape_of, "Size": lambda x: tl.as_tensor(np.int64(x.size)), "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Range": lambda a, b, step: tl.arange(a.item(), b.item(), step.item(), dtype=a.dtype),
    "Gemm": gemm, "Einsum": lambda *xs, equation: tl.einsum(equation, *xs),
    "Conv": conv, "ConvTranspose": conv_transpose, "MaxPool": max_pool, "AveragePool": avg_pool, "Col2Im": col2im,
    "GlobalAveragePool": lambda x: tl.mean(x, axis=tuple(range(2, x.ndim)), keepdims=True),
    "GlobalMaxPool": lambda x: tl.amax(x, axis=tuple(range(2, x.ndim)), keepdims=True),
    "Resize": resize, "Upsample": lambda x, scales, mode="nearest": resize(x, None, scales, mode=mode),
    "BatchNormalization": batch_norm, "LayerNormalization": layer_norm, "GroupNormalization": group_norm,
    "InstanceNormalization": lambda x, scale, bias, epsilon=1e-5: tl.group_norm(x, x.shape[1], scale, bias, epsilon),
    "Dropout": dropout, "NegativeLogLikelihoodLoss": nll_loss, "SoftmaxCrossEntropyLoss": cross_entropy,
    "LSTM": recurrent("LSTM"), "GRU": recurrent("GRU"), "RNN": recurrent("RNN"),
}  # fmt: skip
# Inputs that say how to compute: no gradient goes to them.
SETTINGS = {
    "Clip": (1, 2),
    "Resize": (1, 2),
    "Upsample": (1,),
    "Dropout": (1,),
    "Pad": (2,),
    "OneHot": (1, 2),
    "Range": (0, 1, 2),
    "CastLike": (1,),
    "BatchNormalization": (3, 4),
    "NegativeLogLikelihoodLoss": (2,),
    "SoftmaxCrossEntropyLoss": (2,),
}
