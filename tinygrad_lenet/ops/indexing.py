"""Ops that pick elements, and their gradients, which put elements back where others were picked."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..core.accumulation import Part
from ..core.primitive import Array, composite, draw, primitive
from ..core.signature import beside
from ..core.tensor import Tensor, as_tensor
from ..core.values import as_index, is_sealed, sealed
from ..errors import DTypeError, OutOfRangeError, ShapeError
from ..kernels.steps import Room, Steps
from ..kernels.sums import single
from .elementwise import add, clone, maximum, where
from .reduction import _max, _min, amax
from .shape import axis_of, broadcast_to, permute, reshape


@primitive(view=True)
def _pick(x: Array, index: Any) -> Array:
    """Return ``x[index]``, as a view even if it is a single element."""
    found = x[index]
    return x[(*index, Ellipsis)] if isinstance(found, np.generic) else found


def _add(out: Array, index: Any, x: Array) -> None:
    """``out[index] += x`` in place; an element that is picked twice gets both values."""
    if not _repeats(index):
        out[index] += x
    elif x.ndim > 30:  # NumPy's add.at crashes if an index has more than 32 axes
        places, total = np.arange(out.size).reshape(out.shape)[index], np.zeros(out.size, out.dtype)
        np.add.at(total, places.reshape(-1), x.reshape(-1))
        out += total.reshape(out.shape)
    else:
        np.add.at(out, index, x)


def _repeats(index: Any) -> bool:
    """Return True if an index may pick an element twice."""
    return any(isinstance(i, np.ndarray) and i.dtype != np.bool_ for i in index)


class _Method(NamedTuple):
    """A step of a path that calls a method which returns a view: ``transpose`` or ``reshape``, with its argument."""

    name: str
    argument: tuple[int, ...]


def _views(index: Any) -> bool:
    """Return True if indexing returns a view."""
    return not any(isinstance(i, (np.ndarray, np.bool_, bool)) for i in index)


def _at(x: Any, path: Any) -> Any:
    """Apply all steps of a path: ``x[path[0]][path[1]]`` and so on; a :class:`_Method` is called."""
    for step in path:
        x = getattr(x, step.name)(step.argument) if isinstance(step, _Method) else x[step]
    return x


@primitive
def _put(shape: tuple[int, ...], paths: Any, *values: Array) -> Array:
    """Add each value to zeros of the given shape, at its path. All steps of a path but the last return views."""
    dtype = np.result_type(*values)
    out = np.zeros(shape, np.float32 if dtype == np.float16 else dtype)  # float16 is added in float32
    for i, ((*views, index), x) in enumerate(zip(paths, values, strict=True)):
        if i or _repeats(index):
            _add(_at(out, views), index, x)
        else:
            _at(out, views)[index] = x
    return out.astype(dtype, copy=False)


def _put_steps(out: Array, _: Room, shape: Any, paths: Any, *values: Array) -> Steps | None:
    if out.dtype == np.float16 or not all(isinstance(step, _Method) or _views(step) for path in paths for step in path):
        return None
    targets = [_pick.op.forward(_at(out, views), index) for *views, index in paths]
    adds = [partial(np.add, target, x, target) for target, x in zip(targets[1:], values[1:], strict=True)]
    return [partial(out.fill, 0), partial(np.copyto, targets[0], values[0]), *adds]


_put.planned(_put_steps)


class _Picked(Part):
    """The gradient of a tensor from which elements were picked. A pass that records itself joins several picks."""

    __slots__ = ("paths", "regrouped", "values")

    def __init__(self, value: Any, path: tuple[Any, ...], shape: tuple[int, ...], regrouped: bool = False) -> None:
        self.paths, self.values = [path], [value]
        self.shape, self.dtype = shape, value.dtype
        self.regrouped = regrouped  # by a reshape that returns a view only of a contiguous array

    def after(self, earlier: Any) -> Any:
        if isinstance(self.values[0], np.ndarray):
            total = single(earlier.whole() if isinstance(earlier, _Picked) else np.array(earlier, order="C"))
            self.add_to(total)
            return total
        before = earlier if isinstance(earlier, _Picked) else _Picked(earlier, ((Ellipsis,),), self.shape)
        before.paths += self.paths
        before.values += self.values
        return before

    def add_to(self, total: Any) -> None:
        out = np.ascontiguousarray(total) if self.regrouped else total
        for (*views, index), value in zip(self.paths, self.values, strict=True):
            _add(_at(out, views), index, value)
        if out is not total:
            total[...] = out

    def whole(self) -> Any:
        recorded = isinstance(self.values[0], Tensor)
        return (_put if recorded else _put.op.forward)(self.shape, tuple(self.paths), *self.values)

    def seed(self, op: Any) -> Any:
        movable = op is reshape.op or (op in (_pick.op, permute.op) and not self.regrouped)
        one = len(self.values) == 1 and self.shape  # without axes, NumPy would return a number instead of a view
        return self if movable and one else self.whole()

    def within(self, step: Any, shape: tuple[int, ...], regrouped: bool = False) -> _Picked:
        """The same gradient for the tensor whose view was picked from; ``step`` makes the view."""
        return _Picked(self.values[0], (step, *self.paths[0]), shape, regrouped or self.regrouped)

    def transpose(self, order: tuple[int, ...]) -> _Picked:
        """For the rule of :func:`permute`."""
        back = tuple(map(int, np.argsort(order)))
        return self.within(_Method("transpose", back), tuple([self.shape[i] for i in order]))

    def reshape(self, shape: tuple[int, ...]) -> _Picked:
        """For the rule of :func:`reshape`."""
        long, others = ([n for n in lengths if n != 1] for lengths in (self.shape, shape))
        return self.within(_Method("reshape", self.shape), shape, long != others)


def _unpick(g: Any, x_shape: tuple[int, ...], index: Any) -> _Picked:
    """The rule of :func:`_pick`."""
    if isinstance(g, _Picked):
        if _views(index):
            return g.within(index, x_shape)
        g = g.whole()
    return _Picked(g, (index,), x_shape)


_pick.vjp(x=_unpick)
_pick.check(draw(3, 4), (slice(None, None, -2), 1))
_pick.check(draw(3, 4), (np.array([0, 2, 0]), slice(1, 3)))
_pick.check(draw(3, 4), (np.array([[0, 2], [1, 1]]), np.array([3, 0])))
_pick.check(draw(3, 4), (np.array([True, False, True]),))
_pick.check(draw(3, 4), (Ellipsis, None, 2))
_put.vjp(values=lambda g, paths, position: _at(g, paths[position]))
_put.check((3, 4), (((np.array([0, 2, 0]), slice(1, 3)),),), draw(3, 2))
_put.check((3, 4), (((1, slice(0, 2)),), ((Ellipsis,),)), draw(2), draw(3, 4))
_put.check((3, 4), (((1, slice(1)),), ((slice(1, 3),), _Method("transpose", (1, 0)), (1,))), draw(1), draw(2))


def _own_index(i: Any) -> Any:
    """Return a sealed copy of an array in an index. Integers are copied by an op; the values of a mask say how many
    elements there are, and those of a single number where a view begins, so that no op can do it.
    """
    if not isinstance(i, Tensor) or not i.ndim or i.dtype.kind not in "iu":
        return np.array(i)
    return i._data if is_sealed(i._data) else sealed(clone(i)._data)


@composite(view=True, operator="getitem", torch="Tensor.__getitem__")
def getitem(x: Array, index: Any) -> Tensor:
    """``x[index]`` as in NumPy, with any mix of slices, integers, ``None``, ``...``, and integer and boolean arrays.

    Slices and integers return a view of the same memory, arrays a copy. The gradients of an element that is picked
    several times are summed.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1, 2, 3], [4, 5, 6]])
    >>> x[:, -1], x[0, [0, 0, 2]], x[x > 4]
    (tensor([3., 6.]), tensor([1., 1., 3.]), tensor([5., 6.]))
    """
    return _pick(x, as_index(index, _own_index))


def _index_array(name: str, values: Array, kinds: str = "iu") -> Any:
    """Return a Tensor or an array of indices. With kind f, :func:`checked_index` checks that floats are integers."""
    found = values if isinstance(values, Tensor) else np.asarray(values)
    if found.dtype.kind not in kinds:
        raise DTypeError(f"{name} must hold integers, got {found.dtype}; convert: {name}.astype('int64')")
    return found


@primitive
def checked_index(index: Any, low: int, high: int, error: Any, message: str, ignored: int | None = None) -> Array:
    """Return a sealed copy of indices, with -1 in place of those to ignore. Raise an error unless the others lie in
    ``low ... high - 1``; in its message, {0} is the first that does not, and {1} all indices. Floats must be integers.
    """
    if index.dtype.kind == "f":
        broken = index[(index != np.rint(index)) | ~(np.abs(index) < np.float64(2**63))]
        if broken.size:
            raise DTypeError(f"indices must be whole numbers, got {broken[0]}")
        index = index.astype(np.intp)
    found = index.astype(np.intp)
    inside = ignored is not None and low <= ignored < high
    if inside or not (index.size and low <= _min(index, None) and _max(index, None) < high):
        gone = index == ignored
        bad = index[~(gone | ((index >= low) & (index < high)))]
        if bad.size:
            raise error(message.format(bad[0], index))
        found[gone] = -1
    return sealed(found)


checked_index.vjp(index=None)
checked_index.check(np.array([2, 0]), 0, 3, OutOfRangeError, "", 0)
checked_index.check(np.array([2.0, 0.0]), 0, 3, OutOfRangeError, "", 0)


def _indices_along(x: Tensor, indices: Array, axis: int, name: str) -> tuple[Any, int]:
    """Indices along one axis as an array with as many axes as ``x``, and the axis."""
    found, at = _index_array(name, indices), axis_of(axis, x.ndim)
    if found.ndim != x.ndim:
        raise ShapeError(f"{name} must have {x.ndim} axes as the tensor {x.shape}, got shape {found.shape}")
    n = x.shape[at]
    message = f"{name} must lie in {-n} ... {n - 1} on axis {axis} of {x.shape}, got {{1}}"
    return checked_index(found, -n, n, OutOfRangeError, message)._data, at


def grid(shape: tuple[int, ...], at: int, indices: Any) -> tuple[Any, ...]:
    """The index arrays of all axes, which broadcast: ``indices`` for one axis, and all places for the others."""
    found: list[Any] = list(np.ogrid[tuple(map(slice, shape))])
    found[at] = indices
    return tuple(found)


def _positions(x: Tensor, index: Array, axis: int) -> tuple[Any, ...]:
    """The index arrays of gather and scatter: ``index`` may be shorter than ``x`` on the other axes."""
    found, at = _indices_along(x, index, axis, "index")
    if any(i != at and n > m for i, (n, m) in enumerate(zip(found.shape, x.shape, strict=True))):
        raise ShapeError(f"away from axis {axis}, index {found.shape} must not be longer than the tensor {x.shape}")
    return grid(found.shape, at, found)


@composite(method=True, numpy=np.take_along_axis, torch="take_along_dim")
def take_along_axis(x: Array, indices: Array, axis: int = -1) -> Tensor:
    """Pick along one axis, by indices for each position on the other axes: for the last axis of a matrix,
    ``out[i, j] = x[i, indices[i, j]]``. The result of :func:`argsort` fits; lengths of 1 broadcast.

    Raises:
        DTypeError: the indices are not integers.
        OutOfRangeError: an index is beyond the end of the axis.
        ShapeError: the shapes do not fit.

    >>> import tinygrad_lenet as tl
    >>> tl.take_along_axis(tl.tensor([[1, 2], [3, 4]]), [[1], [0]], axis=1)
    tensor([[2.],
            [3.]])
    """
    x = as_tensor(x)
    found, at = _indices_along(x, indices, axis, "indices")
    if any(i != at and n != m and 1 not in (n, m) for i, (n, m) in enumerate(zip(found.shape, x.shape, strict=True))):
        raise ShapeError(f"away from axis {axis}, the lengths of indices {found.shape} must be 1 or those of {x.shape}")
    return getitem(x, grid(x.shape, at, found))


@composite(method=True, torch="gather")
def gather(x: Array, axis: int, index: Array) -> Tensor:
    """Pick along one axis, PyTorch's ``gather``: for axis 0 of a matrix, ``out[i, j] = x[index[i, j], j]``.

    ``index`` may be shorter than ``x`` on the other axes.

    Raises:
        DTypeError: the indices are not integers.
        OutOfRangeError: an index is beyond the end of the axis.
        ShapeError: ``index`` and ``x`` differ in their number of axes, or ``index`` is longer on another axis.

    >>> import tinygrad_lenet as tl
    >>> tl.gather(tl.tensor([[1, 2], [3, 4]]), 0, tl.tensor([[1, 0]], dtype="int64"))
    tensor([[3., 2.]])
    """
    x = as_tensor(x)
    return getitem(x, _positions(x, index, axis))


@primitive
def _origin(shape: tuple[int, ...], positions: Any) -> Array:
    """For each element of a tensor the number of the last position that is its own, or -1 if there is none."""
    origin = np.full(shape, -1)
    origin[positions] = np.arange(np.broadcast(*positions).size).reshape(np.broadcast(*positions).shape)
    return origin


_origin.check((3, 2), (np.array([[2, 0], [2, 1]]), np.array([[0, 1]])))


def _source(src: Array, index: Any, x: Tensor) -> Tensor:
    """The part of ``src`` that is scattered."""
    shape = np.shape(index)
    if not np.ndim(src):
        src = broadcast_to(beside(src, x)[0], shape)
    if np.ndim(src) != len(shape) or any(n > m for n, m in zip(shape, np.shape(src), strict=True)):
        raise ShapeError(f"src {np.shape(src)} must be a number, or at least as long as index {shape} on each axis")
    return as_tensor(src)[tuple(slice(n) for n in shape)].astype(x.dtype)


@composite(method=True, torch="scatter")
def scatter(x: Array, axis: int, index: Array, src: Array) -> Tensor:
    """Set elements along one axis in a copy of ``x``, PyTorch's ``scatter``: for axis 0 of a matrix,
    ``out[index[i, j], j] = src[i, j]``.

    ``src`` is a tensor or a number. Where an element is set several times, the last value counts and gets the gradient.

    Raises:
        DTypeError: the indices are not integers.
        OutOfRangeError: an index is beyond the end of the axis.
        ShapeError: ``index`` and ``x`` differ in their number of axes, ``index`` is longer on another axis, or ``src``
            is shorter than ``index``.

    >>> import tinygrad_lenet as tl
    >>> tl.scatter(tl.zeros(2, 2), 1, tl.tensor([[1], [0]], dtype="int64"), 5.0)
    tensor([[0., 5.],
            [5., 0.]])
    """
    x = as_tensor(x)
    origin = _origin(x.shape, _positions(x, index, axis))
    values = _source(src, index, x).reshape(-1)
    return where(origin >= 0, values[maximum(origin, 0)], x) if values.size else x.clone()


@composite(method=True, torch="scatter_add")
def scatter_add(x: Array, axis: int, index: Array, src: Array) -> Tensor:
    """Add to elements along one axis in a copy of ``x``, PyTorch's ``scatter_add``: for axis 0 of a matrix,
    ``out[index[i, j], j] += src[i, j]``. All values for one element are added.

    Raises:
        DTypeError: the indices are not integers.
        OutOfRangeError: an index is beyond the end of the axis.
        ShapeError: as for :func:`scatter`.

    >>> import tinygrad_lenet as tl
    >>> tl.scatter_add(tl.zeros(3), 0, tl.tensor([0, 2, 2], dtype="int64"), tl.tensor([1, 10, 100]))
    tensor([  1.,   0., 110.])
    """
    x = as_tensor(x)
    positions = _positions(x, index, axis)
    return add(x, _put(x.shape, ((positions,),), _source(src, index, x)))


@composite(torch="nn.functional.one_hot")
def one_hot(tensor: Array, num_classes: int = -1) -> Tensor:
    """Class indices (...,) as integers (..., num_classes) that are 1 at the index and else 0; PyTorch's ``one_hot``.

    With -1, ``num_classes`` is one more than the largest index. Indices may be floats that are whole numbers.

    Raises:
        DTypeError: the indices are not whole numbers.
        OutOfRangeError: an index is negative, or ``num_classes`` or more.

    >>> import tinygrad_lenet as tl
    >>> tl.one_hot([0, 2])
    tensor([[1, 0, 0],
            [0, 0, 1]], dtype=int64)
    """
    high = np.iinfo(np.intp).max if num_classes == -1 else num_classes
    message = "a class index must be 0 or more, and less than num_classes if that is given; got {0}"
    index = checked_index(_index_array("tensor", tensor, "iuf"), 0, high, OutOfRangeError, message)
    count = num_classes if num_classes != -1 else int(amax(index)) + 1 if index.size else 0
    return (index[..., None] == np.arange(count)).astype(np.int64)


@composite(torch="nn.functional.embedding")
def embedding(input: Array, weight: Array, padding_idx: int | None = None) -> Tensor:
    """The rows of a table at the given indices, PyTorch's ``embedding``: (...,) to (..., D).

    Args:
        input: integers of any shape, 0 ... V - 1, or floats that are whole numbers.
        weight: the table, (V, D).
        padding_idx: the row that gets no gradient.

    Raises:
        DTypeError: the indices are not whole numbers.
        OutOfRangeError: an index is beyond the end of the table.
        ShapeError: the table does not have two axes.

    >>> import tinygrad_lenet as tl
    >>> tl.embedding([2, 0], tl.tensor([[0, 1], [2, 3], [4, 5]]))
    tensor([[4., 5.],
            [0., 1.]])
    """
    table, index = as_tensor(weight), _index_array("input", input, "iuf")
    if table.ndim != 2:
        raise ShapeError(f"weight must be a table (V, D), got {table.shape}")
    message = f"indices must lie in 0 ... {len(table) - 1}, got {{0}} in input"
    index = checked_index(index, 0, len(table), OutOfRangeError, message)
    rows = getitem(table, index) if index.ndim else getitem(table, index.reshape(1)).reshape(-1)  # not a view
    if padding_idx is None:
        return rows
    if not -len(table) <= padding_idx < len(table):
        raise OutOfRangeError(f"padding_idx must lie in 0 ... {len(table) - 1}, got {padding_idx}")
    return where((index == padding_idx % len(table))[..., None], rows.detach(), rows)
