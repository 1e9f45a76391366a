"""How each op is written in ONNX's operators.

An emitter receives the graph, the op's output as an array, and the op's arguments. It adds nodes, and returns the name
of the result. Most ops declare theirs by ``known_as``; here are those that need more than a line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from ..errors import UnsupportedError
from .builder import Graph
from .trace import Batch, Constant, Value

Emit = Callable[..., str]
Output = NDArray[Any]
EMIT: dict[str, Emit] = {}  # by name of the op
_END = 2**62  # a bound of a slice beyond any axis


def emits(*names: str) -> Callable[[Emit], Emit]:
    """Register the emitter of some ops."""

    def register(function: Emit) -> Emit:
        EMIT.update(dict.fromkeys(names, function))
        return function

    return register


def declared(op: Any) -> Emit:
    """The emitter of an op that declares an operator of ONNX, or a function that adds its nodes, by ``known_as``."""
    kind, operands, names = op.onnx, op.signature.operands, op.signature.names
    floats = {name for name, annotation in op.forward.__annotations__.items() if annotation in ("float", float)}

    def emit(g: Graph, like: Output, *args: Any) -> str:
        if isinstance(kind, str) and kind.startswith("Reduce"):
            return _reduction(g, kind, g.of(args[0], like.dtype), *args[1:])
        if isinstance(kind, str) and kind.startswith("Arg"):
            return _arg(g, kind, like, *args)
        dtype: Any = like.dtype
        if dtype == np.bool_ and kind not in ("And", "Or", "Not"):  # a comparison
            dtype = np.result_type(*(a.array if isinstance(a, (Value, Constant)) else a for a in args))
        tensors = [*operands, *operands[-1:] * len(args)]  # the last parameter may be *args
        given = [g.of(a, dtype) if tensor and a is not None else a for a, tensor in zip(args, tensors, strict=False)]
        if not isinstance(kind, str):
            return str(kind(g, dtype.type, *given))
        inputs = [a for a, tensor in zip(given, tensors, strict=False) if tensor]
        pairs = [(name, a) for name, a, tensor in zip(names, given, tensors, strict=False) if not tensor]
        # The inputs have been converted to the result's dtype.
        options: dict[str, Any] = {name: float(a) if name in floats else a for name, a in pairs if name != "dtype"}
        return g.node(kind, *inputs, **options)

    return emit


def _reduction(g: Graph, kind: str, x: str, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> str:
    if axis == ():
        return x
    return g.node(kind, x, None if axis is None else g.ints(axis), keepdims=int(keepdims))


def _arg(g: Graph, kind: str, like: Output, x: Any, axis: Any, keepdims: bool) -> str:
    if axis is not None:
        return g.cast(g.node(kind, x, axis=int(axis), keepdims=int(keepdims)), like.dtype)
    found = g.node(kind, g.node("Reshape", x, g.ints(-1)), axis=0, keepdims=0)
    return g.cast(g.node("Reshape", found, g.ints(like.shape)), like.dtype)


# Elementwise


def _bits(kind: str, g: Graph, like: Output, *xs: Any) -> str:
    """Booleans have operators of their own: ``And`` beside ``BitwiseAnd``."""
    return g.node(kind if like.dtype == np.bool_ else f"Bitwise{kind}", *(g.of(x, like.dtype) for x in xs))


def _within(kind: str, g: Graph, like: Output, x: Any, scale: float, *_: Any) -> str:
    """``scale * f(x / scale)``, or ``f(scale * x) / scale`` for Softplus."""
    inner, outer = ("Mul", "Div") if kind == "Softplus" else ("Div", "Mul")
    return g.node(outer, g.node(kind, g.node(inner, x, like.dtype.type(scale))), like.dtype.type(scale))


@emits("clip", "hardtanh")
def _clip(g: Graph, like: Output, x: Any, *limits: Any) -> str:
    name, bounds = g.of(x, like.dtype), [None if v is None else g.of(v, like.dtype) for v in limits]
    if not any(np.ndim(getattr(v, "array", v)) for v in limits):
        return g.node("Clip", name, *bounds)
    for kind, bound in zip(("Max", "Min"), bounds, strict=True):
        name = name if bound is None else g.node(kind, name, bound)
    return name


@emits("_pad")
def _pad(g: Graph, like: Output, x: Any, widths: Any, value: float) -> str:
    return g.node("Pad", x, g.ints([w[0] for w in widths] + [w[1] for w in widths]), like.dtype.type(value))


@emits("floor_divide")
def _floor_divide(g: Graph, like: Output, x: Any, y: Any) -> str:
    x, y = g.of(x, like.dtype), g.of(y, like.dtype)
    if like.dtype.kind == "f":
        return g.node("Floor", g.node("Div", x, y))
    return g.node("Div", g.node("Sub", x, g.node("Mod", x, y)), y)  # Mod has the sign of y


EMIT |= {f"bitwise_{kind.lower()}": partial(_bits, kind) for kind in ("And", "Or", "Xor", "Not")}
EMIT |= {"celu": partial(_within, "Elu"), "softplus": partial(_within, "Softplus")}
EMIT |= {
    "_cumsum": lambda g, like, x, axis: g.node("CumSum", g.of(x, like.dtype), np.int64(axis)),
    "_join": lambda g, like, axis, ends, *xs: g.node("Concat", *(g.of(x, like.dtype) for x in xs), axis=int(axis)),
    "broadcast_to": lambda g, like, x, shape: g.node("Expand", x, g.ints(shape)),
    "cast": lambda g, like, x, *_: g.cast(x, like.dtype),
    "where": lambda g, like, c, *xs: g.node("Where", g.of(c, bool), *(g.of(x, like.dtype) for x in xs)),
}


@emits("select")
def _select(g: Graph, like: Output, x: Any, mask: Any, when: bool) -> str:
    branches = (g.of(x, like.dtype), like.dtype.type(0))
    return g.node("Where", g.of(mask, bool), *(branches if when else branches[::-1]))


@emits("round")
def _round(g: Graph, like: Output, x: Any, decimals: int) -> str:
    if not decimals:
        return g.node("Round", g.of(x, like.dtype))
    scale = like.dtype.type(10.0**decimals)
    return g.node("Div", g.node("Round", g.node("Mul", g.of(x, like.dtype), scale)), scale)


# Shapes


@emits("reshape")
def _reshape(g: Graph, like: Output, x: Any, *shape: Any) -> str:
    target = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
    if -1 not in target and sum(isinstance(n, Batch) for n in target) == 1:
        target = tuple(-1 if isinstance(n, Batch) else n for n in target)
    return g.node("Reshape", x, g.ints(target), allowzero=int(0 in target))


@emits("permute")
def _permute(g: Graph, like: Output, x: Any, *axes: Any) -> str:
    order = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple) else axes
    return g.node("Transpose", x, perm=[int(a) % like.ndim for a in order])


@emits("_pick")
def _pick(g: Graph, like: Output, x: Any, index: Any) -> str:
    """Slices, numbers and new axes; or arrays of integers beside slices."""
    parts: list[Any] = []
    for i in index:
        if isinstance(i, Constant) and i.array.dtype == np.bool_:  # a mask that is always the same
            parts += [Constant(places, places.shape) for places in i.array.nonzero()]
        elif isinstance(i, bool) or (isinstance(i, Value) and i.array.dtype == np.bool_):
            raise UnsupportedError("an index that is a mask; use where")
        else:
            parts.append(i)
    rest = [slice(None)] * (x.array.ndim - sum(i is not None and i is not Ellipsis for i in parts))
    at = next((k for k, i in enumerate(parts) if i is Ellipsis), len(parts))
    parts[at : at + 1] = rest
    arrays = [i for i in parts if isinstance(i, (Value, Constant))]
    if not arrays:
        return _sliced(g, g.of(x), parts)
    if any(i is None or isinstance(i, int) for i in parts):
        raise UnsupportedError("an index of arrays beside numbers or None")
    axes = [axis for axis, i in enumerate(parts) if not isinstance(i, slice)]
    name = _sliced(g, g.of(x), [i if isinstance(i, slice) else slice(None) for i in parts])
    if len(arrays) == 1:
        return g.node("Gather", name, g.of(arrays[0], np.int64), axis=axes[0])
    if axes != [*range(len(axes))] or any(isinstance(n, Batch) for i in arrays for n in getattr(i, "shape", ())):
        raise UnsupportedError("an index of several arrays that are not on the first axes")
    lengths = g.ints(np.broadcast_shapes(*(i.array.shape for i in arrays)))
    columns = [g.node("Unsqueeze", g.node("Expand", g.of(i, np.int64), lengths), g.ints(-1)) for i in arrays]
    return g.node("GatherND", name, g.node("Concat", *columns, axis=-1))


def _sliced(g: Graph, name: str, parts: list[Any]) -> str:
    """Nodes for the slices and numbers of an index, one for each axis, and for its new axes."""
    real = [i for i in parts if i is not None]
    bounds = [(*_bounds(i), axis) for axis, i in enumerate(real) if i != slice(None)]
    gone = [axis for axis, i in enumerate(real) if not isinstance(i, slice)]
    new = [axis for axis, i in enumerate(i for i in parts if i is None or isinstance(i, slice)) if i is None]
    if bounds:
        starts, ends, steps, axes = map(g.ints, zip(*bounds, strict=True))
        name = g.node("Slice", name, starts, ends, axes, steps)
    if gone:
        name = g.node("Squeeze", name, g.ints(gone))
    return g.node("Unsqueeze", name, g.ints(new)) if new else name


def _bounds(i: Any) -> tuple[int, int, int]:
    """Start, end and step of a slice or a number."""
    if not isinstance(i, slice):
        return i, i + 1 or _END, 1  # after -1 comes the end
    step = 1 if i.step is None else i.step
    start, stop = (0, _END) if step > 0 else (_END, -_END)
    return start if i.start is None else i.start, stop if i.stop is None else i.stop, step


@emits("_diagonal")
def _diagonal(g: Graph, like: Output, x: Any, offset: int, count: int) -> str:
    """Move the last two axes to the front, pick there, and move the rest back."""
    ndim, places = x.array.ndim, np.arange(count)[:, None] + [max(-offset, 0), max(offset, 0)]
    first = g.node("Transpose", x, perm=[ndim - 2, ndim - 1, *range(ndim - 2)])
    return g.node("Transpose", g.node("GatherND", first, places), perm=[*range(1, ndim - 1), 0])


# Along axes


def _truths(kind: str, g: Graph, like: Output, x: Any, axis: Any, keepdims: bool) -> str:
    """A reduction of booleans, computed in integers."""
    return g.cast(_reduction(g, kind, g.cast(g.of(x, bool), np.int64), axis, keepdims), like.dtype)


_TRUTHS = {"count_nonzero": "ReduceSum", "any": "ReduceMax", "all": "ReduceMin"}
EMIT |= {name: partial(_truths, kind) for name, kind in _TRUTHS.items()}


@emits("softmax_nll")
def _softmax_nll(g: Graph, like: Output, x: Any, index: Any, count: Any) -> str:
    kind = "none" if count is None else "mean"
    return g.node("SoftmaxCrossEntropyLoss", x, g.of(index, np.int64), reduction=kind, ignore_index=-1)


@emits("checked_index")
def _checked_index(g: Graph, like: Output, index: Any, *options: Any) -> str:
    """A file does not check indices; -1 replaces those to ignore."""
    name, ignored = g.of(index, np.int64), options[-1]
    return name if ignored is None else g.node("Where", g.node("Equal", name, np.int64(ignored)), np.int64(-1), name)


@emits("count_classes")
def _count_classes(g: Graph, like: Output, index: Any, dtype: Any) -> str:
    used = g.node("Greater", g.of(index, np.int64), np.int64(-1))
    return g.cast(_reduction(g, "ReduceSum", g.cast(used, np.int64)), like.dtype)


@emits("argsort")
def _argsort(g: Graph, like: Output, x: Any, axis: int, descending: bool, stable: bool) -> str:
    size = g.node("Shape", x, start=axis % like.ndim, end=axis % like.ndim + 1)
    outputs = [g.fresh("values"), g.fresh("argsort")]
    g.nodes.append(helper.make_node("TopK", [g.of(x), size], outputs, axis=int(axis), largest=int(descending)))
    return outputs[1]


# Layers


@emits("normalize")
def _normalize(g: Graph, like: Output, x: Any, weight: Any, bias: Any, eps: float, stats: Any) -> str:
    """Normalise channels, the second axis, by the moments of the batch."""
    axes, shape = g.ints([0, *range(2, like.ndim)]), g.ints([-1, *[1] * (like.ndim - 2)])
    centred = g.node("Sub", x, g.node("ReduceMean", x, axes))
    var = g.node("ReduceMean", g.node("Mul", centred, centred), axes)
    standard = g.node("Div", centred, g.node("Sqrt", g.node("Add", var, like.dtype.type(eps))))
    scaled = g.node("Mul", standard, g.node("Reshape", g.of(weight, like.dtype), shape))
    return g.node("Add", scaled, g.node("Reshape", g.of(bias, like.dtype), shape))


@emits("linear")
def _linear(g: Graph, like: Output, x: Any, weight: Any, bias: Any) -> str:
    x, weight = g.of(x, like.dtype), g.of(weight, like.dtype)
    added = None if bias is None else g.of(bias, like.dtype)
    if like.ndim == 2:
        return g.node("Gemm", x, weight, added, transB=1)
    product = g.node("MatMul", x, g.node("Transpose", weight, perm=[1, 0]))
    return product if added is None else g.node("Add", product, added)
