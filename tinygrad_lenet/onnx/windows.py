"""Convolution, pooling and images in other sizes as operators of ONNX; they join the table in ``emitters.py``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedError
from ..kernels.convolution import Geometry
from ..kernels.pooling import Averages
from ..kernels.windows import Windows
from .builder import Graph
from .emitters import emits
from .trace import Batch


def _check_size(at: Windows) -> None:
    """Raise if the file would have to say how large images are that are as large as the batch."""
    if any(isinstance(n, Batch) for n in at.size):
        raise UnsupportedError("images as many pixels wide as the batch; pass dynamic_batch=False")


def _attributes(at: Windows) -> Any:
    """Attributes of ONNX for windows."""
    after = [f - n - b for f, n, b in zip(at.full, at.size, at.before, strict=True)]
    pads = [*at.before, *after]
    return {"kernel_shape": at.kernel, "strides": at.stride, "pads": pads, "dilations": at.dilation}


@emits("conv2d")
def _conv2d(g: Graph, out: str, like: NDArray[Any], x: Any, weight: Any, bias: Any, at: Geometry) -> None:
    added = None if bias is None else g.of(bias, like.dtype)
    options = _attributes(at.windows)
    g.node("Conv", g.of(x, like.dtype), g.of(weight, like.dtype), added, group=at.groups, out=out, **options)


@emits("conv2d_input_grad")
def _conv_transpose(g: Graph, out: str, like: NDArray[Any], x: Any, weight: Any, at: Geometry) -> None:
    of, options = at.windows, _attributes(at.windows)
    _check_size(of)
    reach = [d * (k - 1) + 1 for k, d in zip(of.kernel, of.dilation, strict=True)]
    whole = [(m - 1) * s + r for m, s, r in zip(x.array.shape[2:], of.stride, reach, strict=True)]
    # What the windows do not reach of the image is ONNX's output padding.
    extra = [f - w for f, w in zip(of.full, whole, strict=True)]
    g.node(
        "ConvTranspose", g.of(x, like.dtype), g.of(weight, like.dtype), group=at.groups, out=out, output_padding=extra,
        **options,
    )  # fmt: skip


@emits("unfold")
def _unfold(g: Graph, out: str, like: NDArray[Any], x: Any, at: Windows) -> None:
    options, c = _attributes(at), x.array.shape[1]
    n = at.kernel[0] * at.kernel[1]
    # A convolution whose kernels are each one pixel.
    weight = np.tile(np.eye(n, dtype=like.dtype).reshape(n, 1, *at.kernel), (c, 1, 1, 1))
    found = g.node("Conv", g.of(x), weight, group=c, **options)
    g.node("Reshape", found, g.ints([0, c * n, -1]), out=out)


@emits("fold")
def _fold(g: Graph, out: str, like: NDArray[Any], x: Any, at: Windows) -> None:
    options = _attributes(at)
    _check_size(at)
    g.node("Col2Im", g.of(x), g.ints(at.size), g.ints(options.pop("kernel_shape")), out=out, **options)


@emits("max_pool2d")
def _max_pool2d(g: Graph, out: str, like: NDArray[Any], x: Any, at: Windows) -> None:
    ceil_mode = int(at.padded != at.full)  # a window hangs over the end
    g.node("MaxPool", g.of(x), ceil_mode=ceil_mode, out=out, **_attributes(at))


@emits("avg_pool2d")
def _avg_pool2d(g: Graph, out: str, like: NDArray[Any], x: Any, at: Averages) -> None:
    of, divisor = at.windows, at.divisor_override
    options, ceil_mode = _attributes(of), int(of.padded != of.full)
    if divisor is not None and ceil_mode:
        raise UnsupportedError("divisor_override together with ceil_mode")
    count = int(at.count_include_pad or divisor is not None)
    found = g.node("AveragePool", g.of(x), ceil_mode=ceil_mode, count_include_pad=count, **options)
    area = math.prod(of.kernel)
    g.node("Mul", found, like.dtype.type(area / divisor) if divisor else like.dtype.type(1), out=out)


@emits("resample")
def _resample(g: Graph, out: str, like: NDArray[Any], x: Any, rows: Any, columns: Any) -> None:
    """A product with the matrices of weights."""
    tall = g.node("MatMul", rows.matrix.astype(like.dtype), g.of(x, like.dtype))
    g.node("MatMul", tall, columns.matrix.T.astype(like.dtype), out=out)
