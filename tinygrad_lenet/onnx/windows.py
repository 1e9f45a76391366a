"""Emitters of convolution, pooling and resizing; they join the table in ``emitters.py``."""

from __future__ import annotations

import math
from typing import Any

from ..errors import UnsupportedError
from ..kernels.convolution import Geometry
from ..kernels.pooling import Averages
from ..kernels.windows import Windows
from .builder import Graph
from .emitters import Output, emits


def attributes(at: Windows) -> dict[str, Any]:
    """ONNX's attributes of windows; the size of the images is not among them."""
    after = [f - n - b for f, n, b in zip(at.full, at.size, at.before, strict=True)]
    return {"kernel_shape": at.kernel, "strides": at.stride, "pads": [*at.before, *after], "dilations": at.dilation}


@emits("conv2d")
def _conv2d(g: Graph, like: Output, x: Any, weight: Any, bias: Any, at: Geometry) -> str:
    inputs = [None if a is None else g.of(a, like.dtype) for a in (x, weight, bias)]
    return g.node("Conv", *inputs, group=at.groups, **attributes(at.windows))


@emits("conv2d_input_grad")
def _conv_transpose(g: Graph, like: Output, x: Any, weight: Any, at: Geometry) -> str:
    of = at.windows
    reach = [d * (k - 1) + 1 for k, d in zip(of.kernel, of.dilation, strict=True)]
    covered = [(m - 1) * s + r for m, s, r in zip(x.array.shape[2:], of.stride, reach, strict=True)]
    extra = [f - c for f, c in zip(of.full, covered, strict=True)]  # pixels of the image beyond the last window
    inputs = g.of(x, like.dtype), g.of(weight, like.dtype)
    return g.node("ConvTranspose", *inputs, group=at.groups, output_padding=extra, **attributes(of))


@emits("max_pool2d")
def _max_pool2d(g: Graph, like: Output, x: Any, at: Windows) -> str:
    # With ceil_mode, a window may reach beyond the padding.
    return g.node("MaxPool", x, ceil_mode=int(at.padded != at.full), **attributes(at))


@emits("avg_pool2d")
def _avg_pool2d(g: Graph, like: Output, x: Any, at: Averages) -> str:
    of, divisor = at.windows, at.divisor_override
    ceil_mode = int(of.padded != of.full)
    if divisor is not None and ceil_mode:
        raise UnsupportedError("divisor_override together with ceil_mode")
    count = int(at.count_include_pad or divisor is not None)
    found = g.node("AveragePool", x, ceil_mode=ceil_mode, count_include_pad=count, **attributes(of))
    return g.node("Mul", found, like.dtype.type(math.prod(of.kernel) / divisor)) if divisor else found
