"""Draws of attributes and inputs for ONNX's operators on arrays; those of layers are in ``onnx_layer_draws.py``."""

import random

import numpy as np
import onnx
from onnx import helper

DTYPES = ["float32"] * 4 + ["float64", "int32", "int64", "bool", "float16", "uint8", "int8"]


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
    "IsInf",
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
    "Size": lambda d: [d.array("T", d.shape())],
    "Shape": lambda d: (
        d.some(**({"start": [*range(-5, 6)], "end": [*range(-5, 6)]} if d.opset >= 15 else {}))
        or [d.array("T", d.shape())]
    ),
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


@draws("Max", "Min")
def _variadic(d):
    shape = d.shape()
    return [d.array("T", d.r.choice([shape, d.smaller(shape)])) for _ in range(d.r.randint(1, 4))]


REDUCED = ["L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum"]


@draws(*(f"Reduce{kind}" for kind in REDUCED))
def _reduce(d):
    d.some(keepdims=[0, 1])
    x = d.array("T", d.shape())
    axes = d.r.choice([None, d.axes(x.ndim)])
    if "axes" in d.schema.attributes:
        if axes:
            d.attributes["axes"] = axes
        return [x]
    d.some(noop_with_empty_axes=[0, 1])
    return [x, None if axes is None else d.ints(axes)]


@draws("ArgMax", "ArgMin")
def _arg(d):
    x = d.array("T", d.shape(1, empty=False))
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


@draws("GlobalAveragePool")
def _global(d):
    return [d.array("T", (2, 3, *d.shape(1, 3, empty=False)))]


@draws("MatMul")
def _matmul(d):
    batch, other = d.pair()
    m, k, n = (d.r.randint(0 if d.r.random() < 0.1 else 1, 4) for _ in range(3))
    a, b = (*batch[-2:], m, k), (*other[-2:], k, n)
    a, b = d.r.choice([(a, b), (a, b), ((k,), b), (a, (k,)), ((k,), (k,))])
    return [d.array("T", a), d.array("T", b)]


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


@draws("Where")
def _where(d):
    shape = d.shape()
    return [d.array("bool", d.smaller(shape)), d.array("T", d.smaller(shape)), d.array("T", d.smaller(shape))]
