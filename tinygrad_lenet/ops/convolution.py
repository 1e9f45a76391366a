"""Convolution: the definitions, the ops and their gradients. The fast code is in ``kernels/convolution.py`` (``fast``).

The definitions at the top are loops over the pixels of the output. Each pixel is the inner product of a kernel with a
window of the images. ``window_views`` makes an array for the images, and returns its windows as a view. The definitions
are public as ``tinygrad_lenet.reference``, and the ops are tested against them.

The gradients of :func:`conv2d` are :func:`conv2d_input_grad` (transposed convolution) and :func:`conv2d_weight_grad`.
The gradients of each of these three are the other two, so there are gradients of any order. :func:`conv2d` checks its
options once and turns them into ``at``: a :class:`Geometry`, which says where the windows are. The graph saves it for
the gradients.

Where sums are long, ``single`` converts float16 to float32, which does not overflow. ``ops/windows.py`` has the options
that convolution and pooling share: ``windows(size, kernel, stride, padding, dilation)`` makes a :class:`Windows` of
them.

Sources: Chellapilla, Puri, Simard, *High performance convolutional neural networks for document processing*, 2006
(im2col); Dumoulin and Visin, *A guide to convolution arithmetic for deep learning*, 2016 (sizes and transposition).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..checks import Positive, pair
from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..errors import ArgumentError, ShapeError
from ..kernels import convolution as fast
from ..kernels.convolution import Geometry
from ..kernels.steps import but_for_half
from ..kernels.sums import single
from .rearrange import pad
from .reduction import sum
from .windows import Padding, Pair, as_images, both, cached, row_images, window_views, windows

# The definitions


def _groups(groups: int, channels: int, outs: int) -> Iterator[tuple[slice, slice]]:
    """For each group, the slice of its input channels and the slice of its output channels."""
    c, o = channels // groups, outs // groups
    for group in range(groups):
        yield slice(group * c, (group + 1) * c), slice(group * o, (group + 1) * o)


def conv2d_definition(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """Convolution of images (N, C, H, W) with kernels (O, C / groups, kh, kw), plus a bias (O,): (N, O, OH, OW).

    ``out[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] * x[n, c, i * sh + a * dh, j * sw + b * dw]``:
    each pixel of the output is the inner product of a kernel with a window of the padded images.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.conv2d(np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    images, _, windows = window_views(x.shape, x.dtype, weight.shape[2:], stride, padding, dilation)
    images[...] = x
    grid = windows.shape[2:4]
    out = np.zeros((len(x), len(weight), *grid), np.result_type(x, weight))
    for i, j in np.ndindex(grid):
        for c, o in _groups(groups, x.shape[1], len(weight)):
            out[:, o, i, j] = np.einsum("ncab,ocab->no", windows[:, c, i, j], weight[o])
    return out if bias is None else out + bias.reshape(-1, 1, 1)


def conv2d_input_grad_definition(
    g: Any, weight: Any, size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The gradient of ``sum(g * conv2d(x, weight))`` with respect to ``x``, images of size (H, W): (N, C, H, W).

    Each window adds its gradient times the kernel to its pixels.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.conv2d_input_grad(np.ones((1, 1, 2, 2)), np.ones((1, 1, 2, 2)), (3, 3))
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    shape = (len(g), weight.shape[1] * groups, *both(size))
    images, _, windows = window_views(shape, np.result_type(g, weight), weight.shape[2:], stride, padding, dilation)
    for i, j in np.ndindex(g.shape[2:]):
        for c, o in _groups(groups, shape[1], len(weight)):
            windows[:, c, i, j] += np.einsum("no,ocab->ncab", g[:, o, i, j], weight[o])
    return images


def conv2d_weight_grad_definition(
    x: Any, g: Any, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    """The gradient of ``sum(g * conv2d(x, weight))`` with respect to ``weight``, (O, C / groups, kh, kw).

    Each window adds its gradient times its pixels to the kernel.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.conv2d_weight_grad(np.arange(9.0).reshape(1, 1, 3, 3), np.ones((1, 1, 2, 2)), (2, 2))
    array([[[[ 8., 12.],
             [20., 24.]]]])
    """
    images, _, windows = window_views(x.shape, x.dtype, kernel_size, stride, padding, dilation)
    images[...] = x
    weight = np.zeros((g.shape[1], x.shape[1] // groups, *both(kernel_size)), np.result_type(x, g))
    for i, j in np.ndindex(g.shape[2:]):
        for c, o in _groups(groups, x.shape[1], g.shape[1]):
            weight[o] += np.einsum("no,ncab->ocab", g[:, o, i, j], windows[:, c, i, j])
    return weight


# The ops


@primitive
def _conv2d(x: Array, weight: Array, bias: Array | None, at: Geometry) -> Array:
    """:func:`conv2d` with its options checked."""
    return fast.conv2d(x, weight, bias, at)


@primitive
def conv2d_input_grad(g: Array, weight: Array, at: Geometry) -> Array:
    """The gradient of :func:`conv2d` with respect to its images, (N, C, H, W): transposed convolution of ``g``, the
    gradient of the output.

    Definition: :func:`tinygrad_lenet.reference.conv2d_input_grad`.
    """
    return fast.input_grad(g, weight, at)


@primitive
def conv2d_weight_grad(x: Array, g: Array, at: Geometry) -> Array:
    """The gradient of :func:`conv2d` with respect to its weight, (O, C / groups, kh, kw); ``g`` is the gradient of the
    output.

    Definition: :func:`tinygrad_lenet.reference.conv2d_weight_grad`.
    """
    return fast.weight_grad(x, g, at)


_conv2d.vjp(
    x=lambda g, weight, at: conv2d_input_grad(g, weight, at),
    weight=lambda g, x, at: conv2d_weight_grad(x, g, at),
    bias=lambda g: sum(single(g), (0, 2, 3)),
)
# The next two ops have an argument named ``g``, so in their rules the gradient of the output is ``g_``.
conv2d_input_grad.vjp(
    g=lambda g_, weight, at: _conv2d(g_, weight, None, at), weight=lambda g_, g, at: conv2d_weight_grad(g_, g, at)
)
conv2d_weight_grad.vjp(x=lambda g_, g, at: conv2d_input_grad(g, g_, at), g=lambda g_, x, at: _conv2d(x, g_, None, at))
_conv2d.planned(but_for_half(fast.output_steps), rows=(0,))
conv2d_input_grad.planned(but_for_half(fast.input_grad_steps), rows=(0,))
conv2d_weight_grad.planned(but_for_half(fast.weight_grad_steps), added=(0, 1))
_conv2d.op.name = "conv2d"  # the name for messages, drawings and graphs
# The test cases: windows(size, kernel, stride, padding, dilation), then groups.
_MIXED = Geometry(windows((5, 6), (2, 3), (2, 1), (1, 2), (2, 1)), 2)
_conv2d.check(draw(2, 3, 5, 4), draw(2, 3, 3, 2), draw(2), Geometry(windows((5, 4), (3, 2), 1, 0, 1), 1))
_conv2d.check(draw(2, 4, 5, 6), draw(6, 2, 2, 3), draw(6), _MIXED)
_conv2d.check(draw(1, 2, 4, 5), draw(2, 1, 2, 4), None, Geometry(windows((4, 5), (2, 4), 2, "same", 1), 2))
_UNEVEN = Geometry(windows((6, 4), (2, 3), 2, ((0, 1), (1, 0)), 1), 1)
conv2d_input_grad.check(draw(2, 2, 3, 2), draw(2, 3, 2, 3), _UNEVEN)
conv2d_weight_grad.check(draw(2, 2, 5, 4), draw(2, 4, 2, 2), Geometry(windows((5, 4), (2, 3), 2, (0, 1), 1), 2))


@cached
def _geometry(shapes: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry:
    """The geometry of a convolution of images (C, H, W). Raise if the shape of the weight does not fit them."""
    (channels, *size), weight = shapes
    if len(weight) != 4 or 0 in weight[2:]:
        raise ShapeError(f"weight must have shape (O, C / groups, kh, kw), kh and kw not 0, got {weight}")
    o, c = weight[:2]
    if channels != c * groups:
        raise ShapeError(f"images have {channels} channels, weight {weight} with groups={groups} expects {c * groups}")
    if o % groups:
        raise ShapeError(f"the {o} outputs of weight {weight} must divide into {groups} groups")
    return Geometry(windows(size, weight[2:], stride, padding, dilation), groups)


def _check_bias(bias: Tensor | None, weight: tuple[int, ...], outputs: int) -> None:
    """Raise if the shape of the bias does not fit the weight."""
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"weight of shape {weight} needs a bias of shape {(outputs,)}, got {bias.shape}")


@composite(method=True, torch="nn.functional.conv2d")
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Padding = 0,
    dilation: Pair = 1,
    groups: Positive = 1,
) -> Tensor:
    """Two-dimensional convolution (as everywhere in this field, cross-correlation), PyTorch's ``conv2d``.

    ``out[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] * x[n, c, i * sh + a * dh, j * sw + b * dw]``,
    where ``(sh, sw)`` is the stride and ``(dh, dw)`` the dilation. Definition: :func:`tinygrad_lenet.reference.conv2d`.

    Args:
        x: images, (N, C, H, W), or one, (C, H, W).
        weight: kernels, (O, C / groups, kh, kw).
        bias: (O,), or None.
        stride: pixels from one window to the next, a number or (height, width).
        padding: zeros around the image: a number, (height, width), ``((top, bottom), (left, right))``, ``"valid"``
            (none), or ``"same"`` (the output has ``ceil(H / stride)`` rows; an odd pixel goes to the end). A zero times
            an infinite weight is NaN.
        dilation: pixels from one element of the kernel to the next.
        groups: the number of groups that channels and outputs are split into. An output sees the channels of its
            own group.

    Returns:
        (N, O, OH, OW), or (O, OH, OW) of one image, with
        ``OH = floor((H + 2 * padding - dilation * (kh - 1) - 1) / stride) + 1``. In memory the
        batch is the last axis.

    Raises:
        ShapeError: channels and weight do not fit together, or the kernel is larger than the padded image.
        ArgumentError: an option is out of its range.

    >>> import tinygrad_lenet as tl
    >>> image = tl.arange(9.0).reshape(1, 1, 3, 3)
    >>> tl.conv2d(image, tl.ones(1, 1, 2, 2))
    tensor([[[[ 8., 12.],
              [20., 24.]]]])
    """
    (x, one), weight, bias = as_images(x), as_tensor(weight), None if bias is None else as_tensor(bias)
    at = _geometry((x.shape[1:], weight.shape), stride, padding, dilation, groups)
    _check_bias(bias, weight.shape, weight.shape[0])
    out = _conv2d(x, weight, bias, at)
    return out.squeeze(0) if one else out


@composite(torch="nn.functional.conv_transpose2d")
def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: Positive = 1,
    dilation: Pair = 1,
) -> Tensor:
    """Transposed convolution, PyTorch's ``conv_transpose2d``: the input gradient of :func:`conv2d`, used as a layer.

    Args:
        x: images, (N, C, H, W), or one, (C, H, W).
        weight: kernels, (C, O / groups, kh, kw).
        bias: (O,), or None.
        stride: pixels of the output from one pixel of the input to the next.
        padding: rows and columns to cut from each side of the output.
        output_padding: rows and columns to add at the end of the output, fewer than the stride.
        groups: see :func:`conv2d`.
        dilation: see :func:`conv2d`.

    Returns:
        (N, O, OH, OW), or (O, OH, OW) of one image, with
        ``OH = (H - 1) * stride - 2 * padding + dilation * (kh - 1) + output_padding + 1``.

    Raises:
        ShapeError: channels, weight and bias do not fit together.
        ArgumentError: an option is out of its range.

    >>> import tinygrad_lenet as tl
    >>> tl.conv_transpose2d(tl.ones(1, 1, 1, 2), tl.tensor([[[[1, 2]]]]), stride=2)
    tensor([[[[1., 2., 1., 2.]]]])
    """
    strides, dilations = pair("stride", stride), pair("dilation", dilation)
    pads, extra = pair("padding", padding, 0), pair("output_padding", output_padding, 0)
    (x, one), weight, bias = as_images(x), as_tensor(weight), None if bias is None else as_tensor(bias)
    if weight.ndim != 4 or weight.shape[0] != x.shape[1]:
        raise ShapeError(f"{x.shape[1]} channels need a weight ({x.shape[1]}, O / groups, kh, kw), got {weight.shape}")
    outputs = weight.shape[1] * groups
    _check_bias(bias, weight.shape, outputs)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise ArgumentError(f"output_padding {output_padding} must be less than stride {stride} or dilation {dilation}")
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, s, p, d, k, e in zip(x.shape[2:], strides, pads, dilations, weight.shape[2:], extra, strict=True)
    )
    if min(size) < 1:
        raise ShapeError(f"images of {x.shape[2:]} with padding {padding} leave an output of {size}; use less padding")
    # Where the output padding is a stride or more, the output has more windows than x has pixels: these are zeros.
    missing = [(0, e // s) for e, s in zip(extra, strides, strict=True)]
    if missing != [(0, 0), (0, 0)]:
        x = pad(x, [(0, 0), (0, 0), *missing])
    half = bias is not None and x.dtype == weight.dtype == bias.dtype == np.float16
    x = single(x) if half else x  # rounded once, after the bias
    at = _geometry(((outputs, *size), weight.shape), strides, pads, dilations, groups)
    out = conv2d_input_grad(x, weight, at)
    out = out if bias is None else out + bias.reshape(1, -1, 1, 1)
    out = out.squeeze(0) if one else out
    return out.astype(np.float16) if half else out


# Sequences, as images of height 1


def _row_kernels(weight: Array, channels: int, groups: int, axis: int) -> Tensor:
    """Kernels for sequences as kernels of height 1; ``axis`` is that of the input channels."""
    w = as_tensor(weight)
    if w.ndim != 3 or w.shape[axis] * (groups if axis else 1) != channels:
        shape = f"(O, {channels} / groups, k)" if axis else f"({channels}, O / groups, k)"
        raise ShapeError(f"{channels} channels and groups={groups} need a weight {shape}, got {w.shape}")
    return w.unsqueeze(2)


@composite(torch="nn.functional.conv1d")
def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int | str = 0,
    dilation: int = 1,
    groups: Positive = 1,
) -> Tensor:
    """Cross-correlation of sequences, PyTorch's ``conv1d``: :func:`conv2d` of images of height 1.

    Args:
        input: sequences, (N, C, L), or one, (C, L).
        weight: kernels, (O, C / groups, k).
        bias: (O,), or None.
        stride: steps from one window to the next.
        padding: the number of zeros on each side, ``"valid"`` or ``"same"``.
        dilation: steps from one element of the window to the next.
        groups: see :func:`conv2d`.

    Returns:
        (N, O, OL), or (O, OL) of one sequence, with
        ``OL = floor((L + 2 * padding - dilation * (k - 1) - 1) / stride) + 1``.

    Raises:
        ArgumentError: an option is out of its range.
        ShapeError: input, weight and bias do not fit together.

    >>> import tinygrad_lenet as tl
    >>> tl.conv1d(tl.tensor([[[1, 2, 3]]]), tl.tensor([[[1, 10]]]))
    tensor([[[21., 32.]]])
    """
    x = row_images(input)
    kernels = _row_kernels(weight, x.shape[-3], groups, 1)
    pads = padding if isinstance(padding, str) else (0, padding)
    return conv2d(x, kernels, bias, (1, stride), pads, (1, dilation), groups).squeeze(-2)


@composite(torch="nn.functional.conv_transpose1d")
def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    groups: Positive = 1,
    dilation: int = 1,
) -> Tensor:
    """Transposed convolution of sequences (N, C, L), or of one, (C, L), with kernels (C, O / groups, k), PyTorch's
    ``conv_transpose1d``.

    :func:`conv_transpose2d` of images of height 1, with the same options.

    Raises:
        ArgumentError: an option is out of its range.
        ShapeError: input, weight and bias do not fit together.

    >>> import tinygrad_lenet as tl
    >>> tl.conv_transpose1d(tl.ones(1, 1, 2), tl.tensor([[[1, 2]]]), stride=2)
    tensor([[[1., 2., 1., 2.]]])
    """
    x = row_images(input)
    kernels = _row_kernels(weight, x.shape[-3], groups, 0)
    out = conv_transpose2d(x, kernels, bias, (1, stride), (0, padding), (0, output_padding), groups, (1, dilation))
    return out.squeeze(-2)
