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
from onnx import helper
from onnx_judge import compare

from tinygrad_lenet.onnx import layers, operators  # noqa: F401  # their operators join the table
from tinygrad_lenet.onnx.words import OPERATORS

OPSETS = (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
DTYPES = ["float32"] * 4 + ["float64", "int32", "int64", "bool", "float16", "uint8", "int8"]
END = 2**63 - 1


class Draw:
    """Draws of a model: ``dtype`` by the type variables of the operator's schema."""

    def __init__(self, kind, seed, opset):
        self.r, self.opset = random.Random(f"{kind} {seed}"), opset
        self.rng = np.random.default_rng(self.r.randrange(2**32))
        self.schema = onnx.defs.get_schema(kind, opset)
        self.types, self.attributes, self.outputs = {}, {}, 1

    def dtype(self, variable):
        """The dtype of a type variable, one for all its inputs."""
        if variable not in self.types:
            rules = [c.allowed_type_strs for c in self.schema.type_constraints if c.type_param_str == variable]
            names = {"float": "float32", "double": "float64"}
            allowed = [t[7:-1] for t in (rules[0] if rules else [variable]) if t.startswith("tensor(")]
            allowed = [names.get(t, t) for t in allowed]
            self.types[variable] = self.r.choice([d for d in DTYPES if d in allowed] or ["float32"])
        return self.types[variable]

    def some(self, **values):
        """Each attribute with probability 1/2; a list is a choice."""
        for name, value in values.items():
            if self.r.random() < 0.5:
                self.attributes[name] = self.r.choice(value) if isinstance(value, list) else value

    def shape(self, low=0, high=4, empty=True):
        shape = tuple(self.r.choice([1, 2, 3, 4]) for _ in range(self.r.randint(low, high)))
        return tuple(0 if empty and self.r.random() < 0.04 else n for n in shape)

    def array(self, variable, shape, low=-3.0, high=3.0):
        dtype = np.dtype(self.dtype(variable) if variable[0] in "TVS" else variable)
        if dtype.kind in "iub":
            low, high = int(low), int(high) + 1
            return np.asarray(
                self.rng.integers(max(low, 0) if dtype.kind in "ub" else low, max(high, 2), shape)
            ).astype(dtype)
        drawn = self.rng.uniform(low, high, shape)
        whole = self.r.random() < 0.2
        return np.asarray(np.round(drawn) if whole else drawn).astype(dtype)

    def ints(self, values, dtype="int64"):
        return np.asarray(values, dtype)

    def axis(self, ndim, positive=False):
        return self.r.randrange(0 if positive else -ndim, ndim) if ndim else 0

    def axes(self, ndim, least=0):
        some = self.r.sample(range(ndim), self.r.randint(min(least, ndim), ndim))
        return [a - ndim if self.r.random() < 0.4 else a for a in some]

    def smaller(self, shape):
        """A shape that broadcasts with this one."""
        shape = tuple(1 if self.r.random() < 0.25 else n for n in shape)
        return shape[self.r.randint(0, len(shape)) if self.r.random() < 0.3 else 0 :]

    def pair(self):
        shape = self.shape()
        pair = [shape, self.smaller(shape)]
        self.r.shuffle(pair)
        return pair


DRAWS = {}


def draws(*kinds):
    def register(function):
        DRAWS.update(dict.fromkeys(kinds, function))
        return function

    return register


def unary(low=-3.0, high=3.0, **attributes):
    def draw(d):
        d.some(**attributes)
        return [d.array("T", d.shape(), low, high)]

    return draw


for kind in (
    "Abs",
    "Atan",
    "BitwiseNot",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Floor",
    "HardSwish",
    "Identity",
    "IsNaN",
    "Mish",
):
    DRAWS[kind] = unary()
for kind in ("Neg", "Not", "Relu", "Round"):
    DRAWS[kind] = unary()
DRAWS |= dict.fromkeys(["Sigmoid", "Sign", "Sin", "Cosh", "Sinh", "Softplus", "Softsign", "Tan", "Tanh"], unary())
DRAWS |= dict.fromkeys(["Acos", "Asin"], unary(-1, 1)) | dict.fromkeys(["Log", "Sqrt", "Reciprocal"], unary(0.1))
DRAWS |= {
    "Celu": unary(alpha=[0.5, 2.0]),
    "Elu": unary(alpha=[0.5, 2.0, 0.0]),
    "Gelu": unary(approximate=["none", "tanh"]),
    "HardSigmoid": unary(alpha=[0.5, 0.1], beta=[0.0, 0.3]),
    "LeakyRelu": unary(alpha=[0.5, 0.0, -0.3, 1.5]),
    "Selu": unary(alpha=[0.5, 2.0], gamma=[0.5, 2.0]),
    "Swish": unary(alpha=[0.5, 2.0]),
    "Size": lambda d: [d.array("T", d.shape())],
    "Shape": lambda d: (
        d.some(**({"start": [*range(-5, 6)], "end": [*range(-5, 6)]} if d.opset >= 15 else {}))
        or [d.array("T", d.shape())]
    ),
    "Det": lambda d: [d.array("T", (*d.shape(0, 2), *(d.r.randint(1, 3),) * 2))],
}


def binary(d):
    a, b = d.pair()
    return [d.array(d.schema.inputs[0].type_str, a), d.array(d.schema.inputs[1].type_str, b)]


BINARY = ["Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Greater", "GreaterOrEqual", "Less"]
BINARY += ["LessOrEqual", "Mul", "Or", "Sub", "Xor"]
DRAWS |= dict.fromkeys(BINARY, binary)


@draws("Div", "Mod")
def _div(d):
    inputs = binary(d)
    if d.schema.name == "Mod":
        d.some(fmod=[0, 1])
        if inputs[0].dtype.kind == "f":
            d.attributes["fmod"] = 1
    inputs[1] = np.where(inputs[1] == 0, inputs[1].dtype.type(2), inputs[1])
    return inputs


@draws("Pow")
def _pow(d):
    a, b = d.pair()
    return [d.array("T", a, 0.5), d.array("T1", b, 0 if "int" in d.dtype("T") + d.dtype("T1") else -2)]


@draws("PRelu")
def _prelu(d):
    shape = d.shape()
    return [d.array("T", shape), d.array("T", d.smaller(shape))]


@draws("Max", "Min", "Mean", "Sum")
def _variadic(d):
    shape = d.shape()
    return [d.array("T", d.r.choice([shape, d.smaller(shape)])) for _ in range(d.r.randint(1, 4))]


REDUCED = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


@draws(*(f"Reduce{kind}" for kind in REDUCED))
def _reduce(d):
    d.some(keepdims=[0, 1])
    x = d.array("T", d.shape(), 0.2 if d.schema.name == "ReduceLogSum" else -3)
    axes = d.r.choice([None, d.axes(x.ndim)])
    if "axes" in d.schema.attributes:
        if axes:
            d.attributes["axes"] = axes
        return [x]
    d.some(noop_with_empty_axes=[0, 1])
    return [x, None if axes is None else d.ints(axes)]


@draws("ArgMax", "ArgMin")
def _arg(d):
    x = d.array("T", d.shape(1))
    d.some(keepdims=[0, 1], select_last_index=[0, 1], axis=[d.axis(x.ndim)])
    return [x]


@draws("Softmax", "LogSoftmax")
def _softmax(d):
    x = d.array("T", d.shape(1))
    d.some(axis=[d.axis(x.ndim)])
    return [x]


@draws("Flatten")
def _flatten(d):
    x = d.array("T", d.shape(1))
    d.some(axis=[*range(-x.ndim, x.ndim + 1)])
    return [x]


@draws("Cast")
def _cast(d):
    d.attributes["to"] = int(helper.np_dtype_to_tensor_dtype(np.dtype(d.r.choice(DTYPES))))
    return [d.array("T1", d.shape(), -3, 3)]


@draws("CastLike")
def _cast_like(d):
    return [d.array("T1", d.shape(), -3, 3), d.array("T2", d.shape())]


@draws("Clip")
def _clip(d):
    low, high = (d.r.choice([None, d.array("T", (), a, b)]) for a, b in ((-2, 1), (-1, 2)))
    return [d.array("T", d.shape()), low, high]


@draws("Concat")
def _concat(d):
    shape = d.shape(1)
    axis = d.attributes["axis"] = d.axis(len(shape))
    at = axis % len(shape)
    return [d.array("T", (*shape[:at], d.r.randint(0, 3), *shape[at + 1 :])) for _ in range(d.r.randint(1, 3))]


@draws("Constant")
def _constant(d):
    kind = d.r.choice(["value", "value_float", "value_floats", "value_int", "value_ints"])
    array = d.array("T", d.shape())
    values = {"value": onnx.numpy_helper.from_array(array), "value_float": 1.5, "value_int": 3}
    d.attributes[kind] = values.get(kind, [1.5, 2.0] if kind == "value_floats" else [1, 2])
    return []


@draws("ConstantOfShape")
def _constant_of_shape(d):
    if d.r.random() < 0.7:
        d.attributes["value"] = onnx.numpy_helper.from_array(d.array("T2", (1,)))
    return [d.ints(d.shape())]


@draws("CumSum")
def _cumsum(d):
    x = d.array("T", d.shape(1))
    d.some(exclusive=[0, 1], reverse=[0, 1])
    return [x, d.ints(d.axis(x.ndim), d.r.choice(["int32", "int64"]))]


@draws("Dropout")
def _dropout(d):
    d.outputs = d.r.choice([1, 2])
    d.some(seed=3)
    return [d.array("T", d.shape()), *d.r.choice([[], [np.float32(0.5)], [None, np.array(False)]])]


@draws("Einsum")
def _einsum(d):
    a, b = d.array("T", (2, 3)), d.array("T", (3, 4))
    choices = [("ij,jk->ik", [a, b]), ("ij->ji", [a]), ("ij", [a]), ("ij,jk", [a, b]), ("ij->", [a])]
    choices += [("ii->i", [d.array("T", (3, 3))]), ("...j,jk->...k", [a, b]), (" i j , j k -> i k", [a, b])]
    d.attributes["equation"], inputs = d.r.choice(choices)
    return inputs


@draws("Expand")
def _expand(d):
    shape = d.shape()
    return [d.array("T", d.smaller(shape)), d.ints(d.r.choice([shape, d.smaller(shape)]))]


@draws("Gather")
def _gather(d):
    x = d.array("T", d.shape(1, empty=False))
    axis = d.axis(x.ndim)
    if d.r.random() < 0.7:
        d.attributes["axis"] = axis
    n = x.shape[d.attributes.get("axis", 0)]
    return [x, d.rng.integers(-n, n, d.shape(0, 2)).astype(d.dtype("Tind"))]


@draws("GatherElements")
def _gather_elements(d):
    x = d.array("T", d.shape(1, empty=False))
    axis = d.axis(x.ndim)
    if d.r.random() < 0.7:
        d.attributes["axis"] = axis
    at = d.attributes.get("axis", 0) % x.ndim
    shape = [d.r.randint(1, n) if i != at else d.r.randint(0, 4) for i, n in enumerate(x.shape)]
    return [x, d.rng.integers(-x.shape[at], x.shape[at], shape).astype(d.dtype("Tind"))]


@draws("GatherND")
def _gather_nd(d):
    x = d.array("T", d.shape(1, empty=False))
    batch = d.r.choice([0, 0, *range(x.ndim)])
    if batch:
        d.attributes["batch_dims"] = batch
    k = d.r.randint(1, x.ndim - batch)
    shape = (*x.shape[:batch], *d.shape(0 if batch else 1, 2))
    columns = [d.rng.integers(-n, n, shape) for n in x.shape[batch : batch + k]]
    return [x, np.stack(columns, -1)]


@draws("Gemm")
def _gemm(d):
    m, k, n = (d.r.randint(1, 4) for _ in range(3))
    d.some(alpha=[0.5, 2.0], beta=[0.5, 0.0], transA=[0, 1], transB=[0, 1])
    a, b = ((k, m) if d.attributes.get("transA") else (m, k)), ((n, k) if d.attributes.get("transB") else (k, n))
    c = d.r.choice([None, (m, n), (n,), (1, n), (m, 1), ()])
    return [d.array("T", a), d.array("T", b), *([] if c is None else [d.array("T", c)])]


@draws("GlobalAveragePool", "GlobalMaxPool")
def _global(d):
    return [d.array("T", (2, 3, *d.shape(1, 3, empty=False)))]


@draws("MatMul")
def _matmul(d):
    batch, other = d.pair()
    m, k, n = (d.r.randint(0 if d.r.random() < 0.1 else 1, 4) for _ in range(3))
    a, b = (*batch[-2:], m, k), (*other[-2:], k, n)
    a, b = d.r.choice([(a, b), (a, b), ((k,), b), (a, (k,)), ((k,), (k,))])
    return [d.array("T", a), d.array("T", b)]


# What onnxruntime has: dtypes of the indices, the values and the depth.
ONE_HOT = ["int64 int64 int64", "float32 int64 int64", "int64 float32 int64", "int32 float32 int32"]


@draws("OneHot")
def _one_hot(d):
    depth = d.r.randint(1, 4)
    d.types["T1"], d.types["T3"], d.types["T2"] = d.r.choice(ONE_HOT).split()
    indices = d.array("T1", d.shape(0, 3), -6, 6)
    d.some(axis=[*range(-indices.ndim - 1, indices.ndim + 1)])
    depth = np.asarray(depth if d.r.random() < 0.5 else [depth], d.dtype("T2"))
    return [np.round(indices), depth, d.array("T3", (2,))]


@draws("Pad")
def _pad(d):
    x = d.array("T", d.shape(1, empty=False))
    d.some(mode=["constant", "reflect", "edge", *(["wrap"] if d.opset >= 19 else [])])
    axes = d.axes(x.ndim, 1) if d.opset >= 18 and d.r.random() < 0.5 else None
    along = range(x.ndim) if axes is None else axes
    beyond = {"reflect": 1, "wrap": 0}.get(d.attributes.get("mode"), -2)  # what the image must have beside the widths
    most = [min(2, x.shape[a] - beyond) for a in along]
    least = -1 if d.r.random() < 0.2 else 0
    widths = [d.r.randint(max(least, 1 - x.shape[a]), m) for _ in range(2) for a, m in zip(along, most, strict=True)]
    value = d.array("T", ()) if d.r.random() < 0.5 else None
    return [x, d.ints(widths), value, *([] if axes is None else [d.ints(axes, d.dtype("Tind"))])]


@draws("Range")
def _range(d):
    dtype = d.r.choice(["float32", "float64", "int32", "int64"])
    step = d.r.choice([1, 2, -1, 3] if "int" in dtype else [0.3, 0.1, -0.25, 1.0])
    return [np.asarray(v, dtype) for v in (d.r.randint(-3, 3), d.r.randint(-9, 9), step)]


@draws("Reshape")
def _reshape(d):
    x = d.array("T", d.shape(1))
    if d.opset >= 14:
        d.some(allowzero=[0, 1])
    shape = list(x.shape)
    if d.r.random() < 0.5:
        d.r.shuffle(shape)
    if shape and (x.size or not d.attributes.get("allowzero")) and d.r.random() < 0.5:
        shape[d.r.randrange(len(shape))] = -1
    elif d.r.random() < 0.5:
        shape = [n if d.r.random() < 0.5 or n != m else 0 for n, m in zip(shape, x.shape, strict=True)]
    return [x, d.ints(shape)]


@draws("Slice")
def _slice(d):
    x = d.array("T", d.shape(1))
    axes = d.axes(x.ndim, 1)
    positive = [a % x.ndim for a in axes]
    if d.r.random() < 0.3:
        axes, positive = None, range(d.r.randint(1, x.ndim))
    dtype = d.dtype("Tind")
    far = np.iinfo(dtype)
    ends = [far.min, far.min + 1, far.max, far.max - 1, -100, 100, *range(-6, 7)]
    starts, stops = ([d.r.choice(ends) for _ in positive] for _ in range(2))
    steps = [d.r.choice([1, 2, 3, -1, -2, -3, 100, -100]) for _ in positive]
    inputs = [x, d.ints(starts, dtype), d.ints(stops, dtype), None if axes is None else d.ints(axes, dtype)]
    return [*inputs, *([d.ints(steps, dtype)] if d.r.random() < 0.7 else [])]


@draws("Split")
def _split(d):
    x = d.array("T", d.shape(1))
    d.some(axis=[d.axis(x.ndim)])
    n = x.shape[d.attributes.get("axis", 0)]
    d.outputs = d.r.randint(1, 3)
    if d.r.random() < 0.5 and n:
        cuts = sorted(d.r.randint(0, n) for _ in range(d.outputs - 1))
        return [x, d.ints(np.diff([0, *cuts, n]))]
    if d.opset >= 18:
        d.attributes["num_outputs"] = d.outputs
    return [x]


@draws("Squeeze")
def _squeeze(d):
    x = d.array("T", d.shape())
    ones = [a - x.ndim if d.r.random() < 0.5 else a for a, n in enumerate(x.shape) if n == 1 and d.r.random() < 0.7]
    return [x, *([d.ints(ones)] if d.r.random() < 0.7 else [])]


@draws("Unsqueeze")
def _unsqueeze(d):
    x = d.array("T", d.shape(0, 3))
    new = d.r.randint(1, 2)
    axes = [a - x.ndim - new if d.r.random() < 0.5 else a for a in d.r.sample(range(x.ndim + new), new)]
    return [x, d.ints(axes)]


@draws("Tile")
def _tile(d):
    x = d.array("T", d.shape(1))
    return [x, d.ints([d.r.randint(0, 3) for _ in x.shape])]


@draws("TopK")
def _top_k(d):
    x = d.array("T", d.shape(1, empty=False))
    d.some(axis=[d.axis(x.ndim)], largest=[0, 1], sorted=1)
    d.outputs = 2
    return [x, d.ints([d.r.randint(0, x.shape[d.attributes.get("axis", -1)])])]


@draws("Transpose")
def _transpose(d):
    x = d.array("T", d.shape())
    if x.ndim:
        d.some(perm=[d.r.sample(range(x.ndim), x.ndim)])
    return [x]


@draws("Trilu")
def _trilu(d):
    d.some(upper=[0, 1])
    return [d.array("T", (*d.shape(0, 2), *d.shape(2, 2))), *d.r.choice([[], [d.ints(d.r.randint(-5, 5))]])]


@draws("Where")
def _where(d):
    shape = d.shape()
    return [d.array("bool", d.smaller(shape)), d.array("T", d.smaller(shape)), d.array("T", d.smaller(shape))]


# Layers


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


@draws("Col2Im")
def _col2im(d):
    kernel = [d.r.randint(1, 3) for _ in range(2)]
    d.some(strides=[[d.r.randint(1, 2) for _ in range(2)]], dilations=[[d.r.randint(1, 2) for _ in range(2)]])
    d.some(pads=[[d.r.randint(0, k - 1) for k in kernel * 2]])
    size = [d.r.randint(5, 7) for _ in range(2)]
    strides, dilations = (d.attributes.get(n, [1, 1]) for n in ("strides", "dilations"))
    pads = d.attributes.get("pads", [0] * 4)
    rows = [
        (n + pads[i] + pads[i + 2] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1 for i, n in enumerate(size)
    ]
    return [d.array("T", (2, 3 * kernel[0] * kernel[1], rows[0] * rows[1])), d.ints(size), d.ints(kernel)]


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
        if min(int(n * s) for n, s in zip(size, scales[2:], strict=True)) == 0:
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
    """What a model is, in a line."""
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
