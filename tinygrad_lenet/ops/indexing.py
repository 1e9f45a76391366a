"""Picking elements, and its mirror image: putting gradients back where the elements came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..primitive import Array, draw, primitive
from ..tensor import Tensor, as_index

__all__ = ["getitem"]


@primitive
def _pick(x: Array, index: Any) -> Array:
    return x[index]


@primitive
def _put(x: Array, index: Any, shape: tuple[int, ...]) -> Array:
    out = np.zeros(shape, x.dtype)
    if any(isinstance(i, np.ndarray) and i.dtype != np.bool_ for i in index):
        np.add.at(out, index, x)  # an element picked twice gets both gradients
    else:
        out[index] = x
    return out


_pick.vjp(x=lambda g, x_shape, index: _put(g, index, x_shape))
_pick.check(draw(3, 4), (slice(None, None, -2), 1))
_pick.check(draw(3, 4), (np.array([0, 2, 0]), slice(1, 3)))
_pick.check(draw(3, 4), (np.array([[0, 2], [1, 1]]), np.array([3, 0])))
_pick.check(draw(3, 4), (np.array([True, False, True]),))
_pick.check(draw(3, 4), (Ellipsis, None, 2))
_put.vjp(x=lambda g, index: g[index])
_put.check(draw(3, 2), (np.array([0, 2, 0]), slice(1, 3)), (3, 4))
_put.check(draw(2), (1, slice(0, 2)), (3, 4))


def getitem(x: Array, index: Any) -> Tensor:
    """``x[index]``, as NumPy defines it: slices, integers, ``None``, ``...``, integer and boolean arrays, mixed.

    Slices give a view of the same memory, arrays a copy. An element picked several times sums its gradients.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1, 2, 3], [4, 5, 6]])
    >>> x[:, -1], x[0, [0, 0, 2]], x[x > 4]
    (tensor([3., 6.]), tensor([1., 1., 3.]), tensor([5., 6.]))
    """
    return _pick(x, as_index(index))
