"""Each op of the registry as operators of ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from ..errors import UnsupportedError
from .builder import Graph
from .trace import Batch, Constant, Value

# The operators. Each function gets the graph, the name of the output, the output's array, and the op's arguments.

Emit = Callable[..., Any]
EMIT: dict[str, Emit] = {}


def emits(*names: str) -> Callable[[Emit], Emit]:
    """Declare who writes down an op."""

    def declare(function: Emit) -> Emit:
        EMIT.update(dict.fromkeys(names, function))
        return function

    return declare


def declared(onnx: Any) -> Emit:
    """The emitter of an op that declares its operator, or a function that builds its nodes, by ``known_as``."""

    def emit(g: Graph, out: str, like: NDArray[Any], *xs: Any) -> None:
        inputs = [g.of(x, like.dtype) for x in xs]
        if isinstance(onnx, str):
            g.node(onnx, *inputs, out=out)
        else:
            g.node("Identity", onnx(g, like.dtype.type, *inputs), out=out)

    return emit


def _of_bits(kind: str) -> Emit:
    """Booleans have operators of their own."""
    return lambda g, out, like, *xs: declared("Bitwise" * (like.dtype != np.bool_) + kind)(g, out, like, *xs)


EMIT |= {f"bitwise_{kind.lower()}": _of_bits(kind) for kind in ("And", "Or", "Xor", "Not")}


def _comparison(kind: str) -> Emit:
    def emit(g: Graph, out: str, like: NDArray[Any], x: Any, y: Any) -> None:
        dtype = np.result_type(*(v.array if isinstance(v, (Value, Constant)) else v for v in (x, y)))
        if kind == "NotEqual":
            g.node("Not", g.node("Equal", g.of(x, dtype), g.of(y, dtype)), out=out)
        else:
            g.node(kind, g.of(x, dtype), g.of(y, dtype), out=out)

    return emit


for _name, _kind in zip(
    ["eq", "ne", "lt", "le", "gt", "ge"],
    ["Equal", "NotEqual", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"],
    strict=True,
):
    EMIT[_name] = _comparison(_kind)


@emits("select")
def _select(g: Graph, out: str, like: NDArray[Any], x: Any, mask: Any, when: bool = True) -> None:
    branches = (g.of(x, like.dtype), g.constant(like.dtype.type(0)))
    g.node("Where", g.of(mask, bool), *(branches if when else branches[::-1]), out=out)


@emits("where")
def _where(g: Graph, out: str, like: NDArray[Any], condition: Any, x: Any, y: Any) -> None:
    g.node("Where", g.of(condition, bool), g.of(x, like.dtype), g.of(y, like.dtype), out=out)


@emits("cast")
def _cast(g: Graph, out: str, like: NDArray[Any], x: Any, dtype: Any) -> None:
    g.node("Cast", g.of(x), to=helper.np_dtype_to_tensor_dtype(like.dtype), out=out)


@emits("round")
def _round(g: Graph, out: str, like: NDArray[Any], x: Any, decimals: int = 0) -> None:
    scale = like.dtype.type(10.0**decimals)
    x = g.node("Mul", g.of(x, like.dtype), scale) if decimals else g.of(x, like.dtype)
    g.node("Div", g.node("Round", x), scale, out=out) if decimals else g.node("Round", x, out=out)


@emits("clip")
def _clip(g: Graph, out: str, like: NDArray[Any], x: Any, min: Any = None, max: Any = None) -> None:
    low, high = (None if v is None else g.of(v, like.dtype) for v in (min, max))
    g.node("Clip", g.of(x, like.dtype), low, high, out=out)


@emits("hardtanh")
def _hardtanh(g: Graph, out: str, like: NDArray[Any], x: Any, min_val: float, max_val: float) -> None:
    _clip(g, out, like, x, min_val, max_val)


@emits("leaky_relu")
def _leaky_relu(g: Graph, out: str, like: NDArray[Any], x: Any, negative_slope: float) -> None:
    g.node("LeakyRelu", g.of(x), alpha=float(negative_slope), out=out)


@emits("elu")
def _elu(g: Graph, out: str, like: NDArray[Any], x: Any, alpha: float) -> None:
    g.node("Elu", g.of(x), alpha=float(alpha), out=out)


@emits("celu")  # alpha * elu(x / alpha)
def _celu(g: Graph, out: str, like: NDArray[Any], x: Any, alpha: float) -> None:
    scale = like.dtype.type(alpha)
    g.node("Mul", g.node("Elu", g.node("Div", g.of(x), scale)), scale, out=out)


@emits("softplus")
def _softplus(g: Graph, out: str, like: NDArray[Any], x: Any, beta: float, threshold: float) -> None:
    scale = like.dtype.type(beta)
    g.node("Div", g.node("Softplus", g.node("Mul", g.of(x), scale)), scale, out=out)


# Shapes


@emits("reshape")
def _reshape(g: Graph, out: str, like: NDArray[Any], x: Any, *shape: Any) -> None:
    target = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
    if -1 not in target and sum(isinstance(n, Batch) for n in target) == 1:
        target = tuple(-1 if isinstance(n, Batch) else n for n in target)
    g.node("Reshape", g.of(x), g.ints(target), out=out, allowzero=int(0 in target))


@emits("permute")
def _permute(g: Graph, out: str, like: NDArray[Any], x: Any, *axes: Any) -> None:
    order = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple) else axes
    g.node("Transpose", g.of(x), perm=[int(a) % like.ndim for a in order], out=out)


@emits("broadcast_to")
def _broadcast_to(g: Graph, out: str, like: NDArray[Any], x: Any, shape: Any) -> None:
    g.node("Expand", g.of(x), g.ints(shape), out=out)


@emits("_join")
def _concat(g: Graph, out: str, like: NDArray[Any], axis: int, ends: Any, *tensors: Any) -> None:
    g.node("Concat", *(g.of(t, like.dtype) for t in tensors), axis=int(axis), out=out)


@emits("_pad")
def _pad(g: Graph, out: str, like: NDArray[Any], x: Any, widths: Any, value: float) -> None:
    pads = [w[0] for w in widths] + [w[1] for w in widths]
    g.node("Pad", g.of(x), g.ints(pads), like.dtype.type(value), out=out)


@emits("_pick")
def _pick(g: Graph, out: str, like: NDArray[Any], x: Any, index: Any) -> None:
    """Slices and numbers, then new axes; or one array of integers, with whole axes beside it."""
    ndim, name = x.array.ndim, g.of(x)
    # A mask that is always the same picks what its nonzero elements say.
    masks = [isinstance(i, Constant) and i.array.dtype == np.bool_ for i in index]
    index = tuple(
        part
        for i, mask in zip(index, masks, strict=True)
        for part in ([Constant(a, a.shape) for a in i.array.nonzero()] if mask else [i])
    )
    real = [i for i in index if i is not None and i is not Ellipsis]
    if any(isinstance(i, bool) or (isinstance(i, Value) and i.array.dtype == np.bool_) for i in real):
        raise UnsupportedError("an index that is a mask; use where")
    rest = [slice(None)] * (ndim - len(real))
    at = next((k for k, i in enumerate(index) if i is Ellipsis), len(index))
    full = [*index[:at], *rest, *index[at + 1 :]]
    arrays = [i for i in full if isinstance(i, (Value, Constant))]
    if not arrays:
        g.node("Identity", _sliced(g, x, name, full), out=out)
        return
    if any(i is None or isinstance(i, int) for i in full):
        raise UnsupportedError("an index of arrays beside numbers or None")
    places = [axis for axis, i in enumerate(full) if not isinstance(i, slice)]
    name = _sliced(g, x, name, [i if isinstance(i, slice) else slice(None) for i in full])
    if len(arrays) == 1:
        g.node("Gather", name, g.of(arrays[0], np.int64), axis=places[0], out=out)
        return
    lengths = np.broadcast_shapes(*(i.array.shape for i in arrays))
    if places != [*range(len(places))] or any(isinstance(n, Batch) for i in arrays for n in getattr(i, "shape", ())):
        raise UnsupportedError("an index of several arrays that are not on the first axes")
    parts = [g.node("Unsqueeze", g.node("Expand", g.of(i, np.int64), g.ints(lengths)), g.ints(-1)) for i in arrays]
    g.node("GatherND", name, g.node("Concat", *parts, axis=-1), out=out)


@emits("_diagonal")
def _diagonal(g: Graph, out: str, like: NDArray[Any], x: Any, offset: int, count: int) -> None:
    """Picked from the last two axes, which come first for that."""
    ndim, along = x.array.ndim, np.arange(count)[:, None] + [max(-offset, 0), max(offset, 0)]
    first = g.node("Transpose", g.of(x), perm=[ndim - 2, ndim - 1, *range(ndim - 2)])
    g.node("Transpose", g.node("GatherND", first, along), perm=[*range(1, ndim - 1), 0], out=out)


def _sliced(g: Graph, x: Any, name: str, full: list[Any]) -> str:
    """The part that slices and numbers pick, with new axes for None; the index has an entry for every axis."""
    starts, ends, axes, steps = [], [], [], []
    gone: list[int] = []
    new: list[int] = []
    axis = 0
    for i in full:
        if i is None:
            new.append(len(new) + axis - len(gone))
            continue
        n = x.array.shape[axis]
        if isinstance(i, slice):
            if i != slice(None):
                step = 1 if i.step is None else i.step
                start, stop = i.start, i.stop
                starts.append((0 if step > 0 else n - 1) if start is None else start)
                ends.append((2**62 if step > 0 else -(2**62)) if stop is None else stop)
                axes.append(axis)
                steps.append(step)
        else:
            starts.append(i)
            ends.append(i + 1 if i != -1 else 2**62)
            axes.append(axis)
            steps.append(1)
            gone.append(axis)
        axis += 1
    if starts:
        name = g.node("Slice", name, g.ints(starts), g.ints(ends), g.ints(axes), g.ints(steps))
    if gone:
        name = g.node("Squeeze", name, g.ints(gone))
    if new:
        name = g.node("Unsqueeze", name, g.ints(new))
    return name


# Along axes


def _reduction(kind: str) -> Emit:
    def emit(g: Graph, out: str, like: NDArray[Any], x: Any, axis: Any = None, keepdims: bool = False) -> None:
        axes = None if axis is None else g.ints(axis)
        if axis == ():
            g.node("Identity", g.of(x, like.dtype), out=out)
            return
        g.node(kind, g.of(x, like.dtype), axes, keepdims=int(keepdims), out=out)

    return emit


for _name, _kind in {
    "sum": "ReduceSum", "max": "ReduceMax", "min": "ReduceMin", "mean": "ReduceMean", "prod": "ReduceProd",
    "logsumexp": "ReduceLogSumExp",
}.items():  # fmt: skip
    EMIT[_name] = _reduction(_kind)


def _of_truths(kind: str, finish: Callable[[Graph, str, NDArray[Any], str], str]) -> Emit:
    def emit(g: Graph, out: str, like: NDArray[Any], x: Any, axis: Any = None, keepdims: bool = False) -> None:
        truths = g.node("Cast", g.of(x, bool), to=TensorProto.INT64)
        finish(g, out, like, g.node(kind, truths, None if axis is None else g.ints(axis), keepdims=int(keepdims)))

    return emit


EMIT["count_nonzero"] = _of_truths("ReduceSum", lambda g, out, like, n: g.node("Identity", n, out=out))
EMIT["any"] = _of_truths("ReduceMax", lambda g, out, like, n: g.node("Cast", n, to=TensorProto.BOOL, out=out))
EMIT["all"] = _of_truths("ReduceMin", lambda g, out, like, n: g.node("Cast", n, to=TensorProto.BOOL, out=out))


def _arg(kind: str) -> Emit:
    def emit(g: Graph, out: str, like: NDArray[Any], x: Any, axis: Any = None, keepdims: bool = False) -> None:
        name, at, ndim = g.of(x), axis, x.array.ndim
        if axis is None:
            name, at = g.node("Reshape", name, g.ints([-1])), 0
        found = g.node(kind, name, axis=int(at), keepdims=int(keepdims and axis is not None))
        if axis is None and keepdims:
            found = g.node("Reshape", found, g.ints([1] * ndim))
        g.node("Cast", found, to=helper.np_dtype_to_tensor_dtype(like.dtype), out=out)

    return emit


EMIT |= {"argmax": _arg("ArgMax"), "argmin": _arg("ArgMin")}


@emits("softmax")
def _softmax(g: Graph, out: str, like: NDArray[Any], x: Any, axis: int = -1) -> None:
    g.node("Softmax", g.of(x), axis=int(axis), out=out)


EMIT["log_softmax"] = lambda g, out, like, x, axis=-1: g.node("LogSoftmax", g.of(x), axis=int(axis), out=out)
EMIT["_cumsum"] = lambda g, out, like, x, axis: g.node("CumSum", g.of(x, like.dtype), np.int64(axis), out=out)


@emits("softmax_nll")
def _softmax_nll(g: Graph, out: str, like: NDArray[Any], x: Any, index: Any, average: bool = False) -> None:
    reduction = "mean" if average else "none"
    g.node("SoftmaxCrossEntropyLoss", g.of(x), g.of(index, np.int64), reduction=reduction, out=out)


@emits("_softmax")
def _softmax_of_axes(g: Graph, out: str, like: NDArray[Any], x: Any, axis: Any) -> None:
    """The softmax over several axes."""
    axes = None if axis is None else g.ints(axis)
    powers = g.node("Exp", g.node("Sub", g.of(x), g.node("ReduceMax", g.of(x), axes)))
    g.node("Div", powers, g.node("ReduceSum", powers, axes), out=out)


@emits("_softmax_nll_grad")
def _softmax_nll_grad(g: Graph, out: str, like: NDArray[Any], d: Any, x: Any, index: Any, average: bool) -> None:
    classes, values = np.int64(like.shape[1]), np.array([0, 1], like.dtype)
    hits = g.node("OneHot", g.of(index, np.int64), classes, values, axis=1)
    column = g.node("Reshape", g.of(d, like.dtype), g.ints([-1, 1]))
    if average:
        count = g.node("Shape", g.of(x), start=0, end=1)
        kind = helper.np_dtype_to_tensor_dtype(like.dtype)
        column = g.node("Div", column, g.node("Cast", count, to=kind))
    g.node("Mul", column, g.node("Sub", g.node("Softmax", g.of(x), axis=1), hits), out=out)


@emits("argsort")
def _argsort(g: Graph, out: str, like: NDArray[Any], x: Any, axis: int = -1, descending: bool = False) -> None:
    size = g.node("Shape", g.of(x), start=axis % like.ndim, end=axis % like.ndim + 1)
    places = [g.fresh("values"), out]
    g.nodes.append(helper.make_node("TopK", [g.of(x), size], places, axis=int(axis), largest=int(descending)))


# Normalisation of channels by the batch's own moments; tensors are (N, C, ...)


def _channels(like: NDArray[Any]) -> tuple[list[int], list[int]]:
    """All axes except that of the channels, and the shape of numbers for the channels."""
    return [0, *range(2, like.ndim)], [-1, *[1] * (like.ndim - 2)]


def _standard(g: Graph, x: Any, eps: float) -> tuple[str, str]:
    """``x`` with mean 0 and variance 1, and the standard deviation that it was divided by."""
    axes = g.ints(_channels(x.array)[0])
    centred = g.node("Sub", g.of(x), g.node("ReduceMean", g.of(x), axes))
    var = g.node("ReduceMean", g.node("Mul", centred, centred), axes)
    spread = g.node("Sqrt", g.node("Add", var, x.array.dtype.type(eps)))
    return g.node("Div", centred, spread), spread


@emits("normalize")
def _normalize(g: Graph, out: str, like: NDArray[Any], x: Any, weight: Any, bias: Any, eps: float, stats: Any) -> None:
    shape, (standard, _) = g.ints(_channels(like)[1]), _standard(g, x, eps)
    scaled = g.node("Mul", standard, g.node("Reshape", g.of(weight, like.dtype), shape))
    g.node("Add", scaled, g.node("Reshape", g.of(bias, like.dtype), shape), out=out)


@emits("_normalize_x")
def _normalize_x(g: Graph, out: str, like: NDArray[Any], d: Any, x: Any, weight: Any, eps: float, stats: Any) -> None:
    axes, shape = map(g.ints, _channels(like))
    grad, (standard, spread) = g.of(d, like.dtype), _standard(g, x, eps)
    along = g.node("Mul", standard, g.node("ReduceMean", g.node("Mul", grad, standard), axes))
    rest = g.node("Sub", g.node("Sub", grad, g.node("ReduceMean", grad, axes)), along)
    g.node("Mul", rest, g.node("Div", g.node("Reshape", g.of(weight, like.dtype), shape), spread), out=out)


@emits("_normalize_weight")
def _normalize_weight(g: Graph, out: str, like: NDArray[Any], d: Any, x: Any, eps: float, stats: Any) -> None:
    product = g.node("Mul", g.of(d, like.dtype), _standard(g, x, eps)[0])
    g.node("ReduceSum", product, g.ints(_channels(x.array)[0]), keepdims=0, out=out)


# Products


@emits("linear")
def _linear(g: Graph, out: str, like: NDArray[Any], x: Any, weight: Any, bias: Any = None) -> None:
    if x.array.ndim == 2:
        added = None if bias is None else g.of(bias, like.dtype)
        g.node("Gemm", g.of(x, like.dtype), g.of(weight, like.dtype), added, transB=1, out=out)
        return
    turned = g.node("Transpose", g.of(weight, like.dtype), perm=[1, 0])
    product = g.node("MatMul", g.of(x, like.dtype), turned)
    g.node("Identity", product, out=out) if bias is None else g.node("Add", product, g.of(bias, like.dtype), out=out)
