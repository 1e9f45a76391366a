"""Dropout: in training, set random elements or whole channels to 0."""

from __future__ import annotations

from ..checks import Probability
from ..core.primitive import Array, composite
from ..core.tensor import Tensor, as_tensor
from ..errors import DTypeError, ShapeError
from .creation import Seed, drawn


@composite(torch="nn.functional.dropout")
def dropout(input: Array, p: Probability = 0.5, training: bool = True, generator: Seed = None) -> Tensor:
    """Set each element to 0 with probability ``p``, and scale the others by ``1 / (1 - p)``, which keeps the mean
    (Srivastava et al., 2014). Without ``training`` the result is a copy.

    ``generator`` is a NumPy generator, or a seed, which gives the same mask at each call.

    Raises:
        ArgumentError: ``p`` is not a probability.
        DTypeError: the input is not floats.

    >>> import tinygrad_lenet as tl
    >>> tl.functional.dropout(tl.ones(6), p=0.5, generator=0)
    tensor([2., 2., 2., 0., 0., 0.])
    """
    x = as_tensor(input)
    return _drop(x, p, training, generator, x.shape)


@composite(torch="nn.functional.dropout2d")
def dropout2d(input: Array, p: Probability = 0.5, training: bool = True, generator: Seed = None) -> Tensor:
    """:func:`dropout` of whole channels of images (N, C, H, W): neighbouring pixels are correlated, so that dropping
    single ones has little effect (Tompson et al., 2015).

    Raises:
        ArgumentError: ``p`` is not a probability.
        DTypeError: the input is not floats.
        ShapeError: the input does not have four axes.

    >>> import tinygrad_lenet as tl
    >>> tl.dropout2d(tl.ones(1, 6, 1, 1), p=0.5, generator=0).reshape(6)
    tensor([2., 2., 2., 0., 0., 0.])
    """
    x = as_tensor(input)
    if x.ndim != 4:
        raise ShapeError(f"expected images of shape (N, C, H, W), got {x.shape}; add axes with x.unsqueeze(0)")
    return _drop(x, p, training, generator, (*x.shape[:2], 1, 1))


def _drop(x: Tensor, p: float, training: bool, generator: Seed, shape: tuple[int, ...]) -> Tensor:
    """Drop elements by a mask of this shape, which broadcasts against ``x``."""
    if not training or p == 0:
        return x
    if x.dtype.kind != "f":
        raise DTypeError(f"input must be floats, got {x.dtype}; convert: input.astype('float32')")
    if p == 1:
        return x * 0
    return x * drawn("mask", shape, generator, x.dtype, p)
