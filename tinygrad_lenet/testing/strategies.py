"""Strategies for property tests with hypothesis: tensors, shapes that broadcast, indices, geometries of windows.

>>> from hypothesis import given
>>> import tinygrad_lenet as tl
>>> from tinygrad_lenet.testing import gradcheck, strategies
>>> @given(strategies.tensors(strategies.shapes(max_dims=2)))
... def test_the_gradient_of_tanh(x):
...     assert gradcheck(tl.tanh, [x])
>>> test_the_gradient_of_tanh()
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..errors import ArgumentError
from ..tensor import Tensor

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError('testing.strategies needs hypothesis: pip install "tinygrad_lenet[test]"') from error

__all__ = [
    "ConvGeometry",
    "PoolGeometry",
    "axes",
    "broadcastable_shapes",
    "conv_geometries",
    "indices",
    "pool_geometries",
    "shapes",
    "tensors",
]

Shape = tuple[int, ...]


def shapes(
    min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4
) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes; with ``min_side=0`` also those of empty tensors."""
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side)


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtype: DTypeLike = np.float64,
    low: float = -1.0,
    high: float = 1.0,
    distinct: bool = True,
    requires_grad: bool = False,
) -> Tensor:
    """Tensors of floats between ``low`` and ``high``.

    Args:
        draw: given by hypothesis.
        shape: of all, or a strategy of shapes; :func:`shapes` if None.
        dtype: of floats.
        low: the least value.
        high: the largest value.
        distinct: whether all values differ, by equal steps in random order, and none is the middle: so numerical
            gradients meet no ties, and no kink at 0 if ``low = -high``. Else they are drawn from nine values, with many
            ties, and both ends and the middle among them.
        requires_grad: whether the tensors require a gradient.

    >>> from hypothesis import given
    >>> from tinygrad_lenet.testing.strategies import tensors
    >>> @given(tensors((2, 3), low=0, high=5))
    ... def test(x):
    ...     assert len({*x.numpy().flat}) == 6
    >>> test()
    """
    if np.dtype(dtype).kind != "f" or not -np.inf < low <= high < np.inf:
        raise ArgumentError(f"tensors: dtype must be one of floats and low at most high, got {dtype}, {low}, {high}")
    lengths = draw(shapes()) if shape is None else shape if isinstance(shape, tuple) else draw(shape)
    size = int(np.prod(lengths))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps = (rng.permutation(size) + 0.3) / max(size, 1) if distinct else rng.integers(0, 9, size) / 8
    values = (low + (high - low) * steps).reshape(lengths).astype(dtype)
    return Tensor(values, requires_grad=requires_grad)


def broadcastable_shapes(
    number: int = 2, min_dims: int = 0, max_dims: int = 3, min_side: int = 1, max_side: int = 4
) -> st.SearchStrategy[tuple[Shape, ...]]:
    """So many shapes that broadcast with each other, as a tuple: a pair for an op of two arguments."""
    together = hnp.mutually_broadcastable_shapes(
        num_shapes=number, min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )
    return together.map(lambda found: tuple(found.input_shapes))


@st.composite
def axes(draw: st.DrawFn, ndim: int) -> Any:
    """What reductions take as ``axis`` for tensors with ``ndim`` axes: None, one axis, or several, from either end."""
    several = st.lists(st.integers(0, ndim - 1), unique=True).map(tuple) if ndim else st.just(())
    one = st.integers(-ndim, ndim - 1) if ndim else st.none()
    chosen = draw(st.none() | one | several)
    if isinstance(chosen, tuple):
        return tuple(a - ndim if draw(st.booleans()) else a for a in chosen)
    return chosen


def indices(shape: Shape) -> st.SearchStrategy[Any]:
    """What may stand in ``x[...]`` for a tensor of this shape: slices, integers, ``...``, ``None``, arrays of integers
    or of booleans.
    """
    found = hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)
    masks = hnp.arrays(np.bool_, shape)
    if shape and all(shape):
        return found | masks | hnp.integer_array_indices(shape, result_shape=shapes(1, 2))
    return found | masks


class ConvGeometry(NamedTuple):
    """What a convolution needs besides the values: shapes, and the options of ``conv2d``."""

    x: Shape  # (N, C, H, W)
    weight: Shape  # (O, C / groups, kh, kw)
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def options(self) -> dict[str, Any]:
        """For ``conv2d(x, weight, bias, **options)``."""
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}


class PoolGeometry(NamedTuple):
    """What a pooling needs besides the values: the shape of the images, and the options of ``max_pool2d``."""

    x: Shape  # (N, C, H, W)
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    @property
    def options(self) -> dict[str, Any]:
        """For ``max_pool2d(x, **options)``; ``avg_pool2d`` has no dilation."""
        return {name: value for name, value in self._asdict().items() if name != "x"}


@st.composite
def conv_geometries(
    draw: st.DrawFn,
    max_batch: int = 2,
    max_channels: int = 2,
    max_kernel: int = 3,
    max_side: int = 6,
    max_groups: int = 2,
) -> ConvGeometry:
    """Geometries of convolutions, all valid; heights and widths are drawn apart, so that few are squares.

    >>> from hypothesis import given
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet.testing.strategies import conv_geometries
    >>> @given(conv_geometries())
    ... def test(at):
    ...     assert tl.conv2d(tl.ones(at.x), tl.ones(at.weight), **at.options).shape[:2] == (at.x[0], at.weight[0])
    >>> test()
    """
    if max_side < max_kernel:
        raise ArgumentError(f"conv_geometries: max_side={max_side} must be at least max_kernel={max_kernel}")
    groups = draw(st.integers(1, max_groups))
    channels, outputs = (draw(st.integers(1, max_channels)) for _ in range(2))
    kernel, stride, padding, dilation, size = zip(*(draw(_axis(max_kernel, max_side)) for _ in range(2)), strict=True)
    batch = draw(st.integers(1, max_batch))
    return ConvGeometry(
        (batch, channels * groups, *size), (outputs * groups, channels, *kernel), stride, padding, dilation, groups
    )


@st.composite
def pool_geometries(
    draw: st.DrawFn,
    max_batch: int = 2,
    max_channels: int = 2,
    max_kernel: int = 3,
    max_side: int = 6,
    dilated: bool = True,
) -> PoolGeometry:
    """Geometries of poolings, all valid: padding is at most half of the kernel; without dilation if not ``dilated``."""
    if max_side < max_kernel:
        raise ArgumentError(f"pool_geometries: max_side={max_side} must be at least max_kernel={max_kernel}")
    both = [draw(_axis(max_kernel, max_side, pool=True, dilated=dilated)) for _ in range(2)]
    kernel, stride, padding, dilation, size = zip(*both, strict=True)
    batch, channels = draw(st.integers(1, max_batch)), draw(st.integers(1, max_channels))
    return PoolGeometry((batch, channels, *size), kernel, stride, padding, dilation, draw(st.booleans()))


@st.composite
def _axis(
    draw: st.DrawFn, max_kernel: int, max_side: int, pool: bool = False, dilated: bool = True
) -> tuple[int, int, int, int, int]:
    """Kernel, stride, padding, dilation and length of one axis, so that at least one window fits."""
    kernel = draw(st.integers(1, max_kernel))
    stride = draw(st.integers(1, 3))
    padding = draw(st.integers(0, kernel // 2 if pool else 2))
    widest = (max_side + 2 * padding - 1) // (kernel - 1) if kernel > 1 else 3
    dilation = draw(st.integers(1, min(3, max(widest, 1)))) if dilated else 1
    least = max(1, dilation * (kernel - 1) + 1 - 2 * padding)
    return kernel, stride, padding, dilation, draw(st.integers(least, max(least, max_side)))
