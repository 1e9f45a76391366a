"""Picking elements, and its mirror image: putting gradients back where the elements came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError
from ..primitive import Array, draw, primitive
from ..tensor import Tensor


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
    index = index if isinstance(index, tuple) else (index,)
    return _pick(x, tuple(_component(i) for i in index))


def _component(i: Any) -> Any:
    if i is None or i is Ellipsis or isinstance(i, (bool, int)):
        return i
    if isinstance(i, slice):
        return slice(*(p if p is None else p.__index__() for p in (i.start, i.stop, i.step)))
    # A copy: the caller may change the array before the backward pass.
    array = np.array([] if isinstance(i, list) and not i else i._data if isinstance(i, Tensor) else i)
    if not array.size and isinstance(i, list):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iub":
        raise DTypeError(
            f"an index is made of integers, booleans, slices, None or ..., got {array.dtype}; for a tensor use "
            "x.astype('int64')"
        )
    return array if array.ndim or array.dtype == np.bool_ else int(array)
