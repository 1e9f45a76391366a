"""im2col and its transpose: windows of images as columns of a matrix, and back.

:func:`unfold` is im2col: ``weight.reshape(O, -1) @ unfold(x, kernel)`` is a convolution. :func:`fold` adds the columns
to the images again; it is the gradient of ``unfold``. The definitions at the top loop over the windows. They are public
as ``tinygrad_lenet.reference``, and the ops are tested against them. The fast code is in ``kernels/convolution.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import pair
from ..core.primitive import Array, composite, draw, primitive
from ..core.tensor import Tensor, as_tensor
from ..errors import ShapeError
from ..kernels import convolution as fast
from ..kernels.windows import Windows
from .windows import Padding, Pair, as_images, both, window_views, windows

# The definitions


def unfold_definition(x: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1) -> Any:
    """The windows of images (N, C, H, W) as columns (im2col): (N, C * kh * kw, OH * OW).

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.unfold(np.arange(9.0).reshape(1, 1, 3, 3), 2)
    array([[[0., 1., 3., 4.],
            [1., 2., 4., 5.],
            [3., 4., 6., 7.],
            [4., 5., 7., 8.]]])
    """
    images, _, windows = window_views(x.shape, x.dtype, kernel_size, stride, padding, dilation)
    images[...] = x
    rows = windows.shape[1] * windows.shape[4] * windows.shape[5]
    return np.stack([windows[:, :, i, j].reshape(len(x), rows) for i, j in np.ndindex(windows.shape[2:4])], axis=2)


def fold_definition(
    x: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """Add the columns (N, C * kh * kw, OH * OW) to the windows of images of zeros (col2im): (N, C, H, W).

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.fold(np.ones((1, 4, 4)), 3, 2)
    array([[[[1., 2., 1.],
             [2., 4., 2.],
             [1., 2., 1.]]]])
    """
    kh, kw = both(kernel_size)
    shape = (len(x), x.shape[1] // (kh * kw), *both(output_size))
    images, _, windows = window_views(shape, x.dtype, kernel_size, stride, padding, dilation)
    for column, (i, j) in enumerate(np.ndindex(windows.shape[2:4])):
        windows[:, :, i, j] += x[:, :, column].reshape(windows[:, :, i, j].shape)
    return images


# The ops


@primitive
def _unfold(x: Array, at: Windows) -> Array:
    """:func:`unfold` with its options checked."""
    return fast.unfold(x, at)


@primitive
def _fold(x: Array, at: Windows) -> Array:
    """:func:`fold` with its options checked."""
    return fast.fold(x, at)


_unfold.vjp(x=lambda g, at: _fold(g, at))
_unfold.op.name = "unfold"
_unfold.check(draw(2, 3, 5, 4), windows((5, 4), (3, 2), 2, (1, 0), (1, 2)))
_fold.vjp(x=lambda g, at: _unfold(g, at))
_fold.op.name = "fold"
_fold.check(draw(2, 12, 3), windows((5, 4), (3, 2), 2, (1, 0), (1, 2)))


@composite(method=True, torch="nn.functional.unfold")
def unfold(x: Array, kernel_size: Pair, dilation: Pair = 1, padding: Padding = 0, stride: Pair = 1) -> Tensor:
    """Copy each window of images (N, C, H, W) to a column (im2col), PyTorch's ``unfold``: (N, C * kh * kw, OH * OW).
    One image (C, H, W) gives (C * kh * kw, OH * OW).

    Definition: :func:`tinygrad_lenet.reference.unfold`.

    >>> import tinygrad_lenet as tl
    >>> tl.unfold(tl.arange(9.0).reshape(1, 1, 3, 3), 2)
    tensor([[[0., 1., 3., 4.],
             [1., 2., 4., 5.],
             [3., 4., 6., 7.],
             [4., 5., 7., 8.]]])
    """
    x, one = as_images(x)
    out = _unfold(x, windows(x.shape[2:], kernel_size, stride, padding, dilation))
    return out.squeeze(0) if one else out


@composite(method=True, torch="nn.functional.fold")
def fold(
    x: Array, output_size: Pair, kernel_size: Pair, dilation: Pair = 1, padding: Padding = 0, stride: Pair = 1
) -> Tensor:
    """Add each column to the pixels of its window (col2im), PyTorch's ``fold``.

    Columns (N, C * kh * kw, OH * OW) become images (N, C, H, W); those of one image, without N, become (C, H, W).
    Definition: :func:`tinygrad_lenet.reference.fold`.

    Raises:
        ShapeError: there are more or fewer columns than windows, or their length is not a multiple of ``kh * kw``.

    >>> import tinygrad_lenet as tl
    >>> tl.fold(tl.unfold(tl.ones(1, 1, 3, 3), 2), 3, 2)  # how many windows contain each pixel
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    x = as_tensor(x)
    at = windows(pair("output_size", output_size), kernel_size, stride, padding, dilation)
    (kh, kw), (oh, ow) = at.kernel, at.grid
    if x.ndim not in (2, 3) or x.shape[-2] % (kh * kw) or x.shape[-1] != oh * ow:
        raise ShapeError(f"expected columns of shape (N, C * {kh * kw}, {oh * ow}), got {x.shape}")
    return _fold(x, at) if x.ndim == 3 else _fold(x.unsqueeze(0), at).squeeze(0)
