"""Sums of products over named or numbered axes: Einstein's notation, and NumPy's special cases of it. All are made of
``matmul`` and of ops that move elements, so gradients of any order come from these.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, AxisError, ShapeError
from ..primitive import Array, composite
from ..tensor import Tensor, as_tensor
from .elementwise import mul
from .products import matmul
from .rearrange import diagonal
from .reduction import sum
from .shape import axis_of, broadcast_to, listed, permute, reshape

__all__ = ["dot", "einsum", "inner", "kron", "outer", "tensordot", "trace"]


def _contract(x: Tensor, xs: Sequence[Hashable], y: Tensor, ys: Sequence[Hashable], out: Sequence[Hashable]) -> Tensor:
    """The product of two tensors with named axes, summed over all names that ``out`` lacks; lengths of 1 broadcast."""
    x, xs = _keep(x, xs, [*ys, *out])
    y, ys = _keep(y, ys, [*xs, *out])
    length = dict(zip(xs, x.shape, strict=True))
    length.update({name: n for name, n in zip(ys, y.shape, strict=True) if n != 1 or name not in length})
    both = [name for name in xs if name in ys]
    stack, summed = [n for n in both if n in out], [n for n in both if n not in out]
    left, right = [n for n in xs if n not in ys], [n for n in ys if n not in xs]
    if not summed:  # no sum: a product that broadcasts
        product = mul(_spread(x, xs, [*stack, *left, *right], {}), _spread(y, ys, [*stack, *left, *right], {}))
        return _order(product, [*stack, *left, *right], out)
    rows, deep, columns = (math.prod(length[n] for n in names) for names in (left, summed, right))
    lengths = tuple(length[n] for n in stack)
    a = _spread(x, xs, [*stack, *left, *summed], length).reshape((*lengths, rows, deep))
    b = _spread(y, ys, [*stack, *summed, *right], length).reshape((*lengths, deep, columns))
    product = matmul(a, b).reshape((*lengths, *(length[n] for n in (*left, *right))))
    return _order(product, [*stack, *left, *right], out)


def _keep(x: Tensor, xs: Sequence[Hashable], needed: Sequence[Hashable]) -> tuple[Tensor, list[Hashable]]:
    """Without the axes that nobody else names: summed up."""
    gone = tuple(i for i, name in enumerate(xs) if name not in needed)
    return (sum(x, gone) if gone else x), [name for name in xs if name in needed]


def _order(x: Tensor, xs: Sequence[Hashable], out: Sequence[Hashable]) -> Tensor:
    order = tuple(xs.index(name) for name in out)
    return x if order == tuple(range(x.ndim)) else permute(x, order)


def _spread(x: Tensor, xs: Sequence[Hashable], names: Sequence[Hashable], length: dict[Hashable, int]) -> Tensor:
    """The axes in the order of ``names``; new ones of length 1, and those of length 1 as long as ``length`` says."""
    x = _order(x, xs, [name for name in names if name in xs])
    if len(xs) < len(names):
        lengths = iter(x.shape)
        x = reshape(x, tuple(next(lengths) if name in xs else 1 for name in names))
    shape = tuple(length.get(name, n) for name, n in zip(names, x.shape, strict=True))
    return x if shape == x.shape else broadcast_to(x, shape)


@composite
def einsum(subscripts: str, *operands: Array) -> Tensor:
    """Einstein's summation: each operand's axes are named by letters; what the result does not name is summed over.

    NumPy's and PyTorch's ``einsum``: without ``->`` the result has, in alphabetical order, the letters that occur once;
    ``...`` stands for axes that broadcast; a letter twice in one operand means its diagonal. Three operands and more
    are multiplied in the order that takes least work; two by way of matrix products.

    Raises:
        ArgumentError: the pattern cannot be read, or there are more or fewer operands than it names.
        ShapeError: an operand has other axes than the pattern says, or a letter stands for two lengths.

    >>> import tinygrad_lenet as tl
    >>> x, y = tl.arange(6.0).reshape(2, 3), tl.ones(3, 4)
    >>> tl.einsum("ij,jk->ik", x, y).shape, tl.einsum("ij->j", x)
    ((2, 4), tensor([3., 5., 7.]))
    """
    tensors = [as_tensor(x) for x in operands]
    terms, out = _parse(subscripts, tensors)
    for i, (term, x) in enumerate(zip(terms, tensors, strict=True)):
        while len({*term}) < len(term):  # the diagonal of the first letter that comes twice
            first = next(k for k, letter in enumerate(term) if letter in term[k + 1 :])
            second = term.index(term[first], first + 1)
            x, term = (
                diagonal(x, 0, first, second),
                [*term[:first], *term[first + 1 : second], *term[second + 1 :], term[first]],
            )
        tensors[i], terms[i] = x, term
    path: list[Any] = [(0, 1)]
    if len(tensors) > 2:
        spelled = ",".join("".join(term) for term in terms) + "->" + "".join(out)
        path = np.einsum_path(spelled, *(x._data for x in tensors), optimize="greedy")[0][1:]
    for group in path if len(tensors) > 1 else ():
        taken = [(tensors.pop(i), terms.pop(i)) for i in sorted(group, reverse=True)]
        x, term = taken.pop()
        while taken:
            y, other = taken.pop()
            needed = [*out, *(letter for rest in (*terms, *(t for _, t in taken)) for letter in rest)]
            both = list(dict.fromkeys(letter for letter in (*term, *other) if letter in needed))
            x, term = _contract(x, term, y, other, both), both
        tensors.append(x)
        terms.append(term)
    x, names = _keep(tensors[0], terms[0], out)
    return _order(x, names, out)


def _parse(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[list[str]], list[str]]:
    """The letters of each operand and of the result, with letters of their own in place of each ``...``."""
    given = f"einsum({subscripts!r}) of {', '.join(str(x.shape) for x in tensors) or 'nothing'}"
    pattern, arrow, result = subscripts.replace(" ", "").partition("->")
    parts = pattern.split(",")
    if len(parts) != len(tensors) or not tensors:
        raise ArgumentError(f"{given}: the pattern names {len(parts)} operands, {len(tensors)} were given")
    letters = [part.replace("...", "") for part in (*parts, result)]
    bad = [c for c in "".join(letters) if not (c.isascii() and c.isalpha())]
    if bad or any(part.count("...") > 1 for part in (*parts, result)):
        raise ArgumentError(
            f"{given}: axes are named by letters, '...' stands once in a part; got {bad or '... twice'}"
        )
    free = [x.ndim - len(part) for x, part in zip(tensors, letters, strict=False)]
    for i, (part, left) in enumerate(zip(parts, free, strict=True)):
        if left < 0 or (left and "..." not in part):
            raise ShapeError(f"{given}: operand {i} has {tensors[i].ndim} axes, {part!r} names {len(letters[i])}")
    used = {*"".join(letters)}
    spare = [c for c in map(chr, (*range(65, 91), *range(97, 123))) if c not in used][: max(free, default=0)]
    terms = [
        [*part.split("...")[0], *spare[len(spare) - left :], *part.split("...")[1]] if "..." in part else [*part]
        for part, left in zip(parts, free, strict=True)
    ]
    length: dict[str, int] = {}
    for term, x in zip(terms, tensors, strict=True):
        own: dict[str, int] = {}  # lengths of 1 broadcast, but not within one operand
        for letter, n in zip(term, x.shape, strict=True):
            if length.setdefault(letter, n) == 1 and own.setdefault(letter, n) == n:
                length[letter] = n
            elif n not in (1, length[letter]) or own.setdefault(letter, n) != n:
                raise ShapeError(f"{given}: index {letter!r} stands for the lengths {length[letter]} and {n}")
    if not arrow:
        flat = "".join(letters)
        return terms, [*spare, *sorted(c for c in used if flat.count(c) == 1)]
    before, dots, after = result.partition("...")
    out = [*before, *(spare if dots else ()), *after]
    unknown = [c for c in out if c not in length]
    if unknown or len({*out}) < len(out):
        raise ArgumentError(f"{given}: the result may name each index of the operands once, got {result!r}")
    return terms, out


@composite
def tensordot(x: Array, y: Array, axes: Any = 2) -> Tensor:
    """The sum of products over pairs of axes: the last ``axes`` of ``x`` with the first of ``y``, or those that two
    lists name. NumPy's and PyTorch's ``tensordot``.

    >>> import tinygrad_lenet as tl
    >>> tl.tensordot(tl.ones(2, 3, 4), tl.ones(4, 3, 5), axes=([1, 2], [1, 0])).shape
    (2, 5)
    """
    x, y = as_tensor(x), as_tensor(y)
    if isinstance(axes, (int, np.integer)):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise AxisError(f"tensordot: axes={axes} of tensors with {x.ndim} and {y.ndim} axes; name at most as many")
        axes = list(range(x.ndim - axes, x.ndim)), list(range(axes))
    ours, theirs = (
        [axis_of(a, t.ndim, "tensordot") for a in listed(some, "tensordot", "axes")]
        for some, t in zip(axes, (x, y), strict=True)
    )
    if len(ours) != len(theirs) or any(x.shape[a] != y.shape[b] for a, b in zip(ours, theirs, strict=True)):
        raise ShapeError(
            f"tensordot: axes {ours} of {x.shape} and {theirs} of {y.shape} must be as many and of equal lengths"
        )
    # Axes of x are numbered from 0 on, those of y from x.ndim on, but for the pairs.
    names = [ours[theirs.index(i)] if i in theirs else x.ndim + i for i in range(y.ndim)]
    out = [*(i for i in range(x.ndim) if i not in ours), *(n for n in names if n >= x.ndim)]
    return _contract(x, range(x.ndim), y, names, out)


@composite
def dot(x: Array, y: Array) -> Tensor:
    """The sum of products over the last axis of ``x`` and the last but one of ``y`` (the only one of a vector), NumPy's
    ``dot``; the product if one is a number.

    >>> import tinygrad_lenet as tl
    >>> tl.dot(tl.tensor([1, 2]), tl.tensor([3, 4]))
    tensor(11.)
    """
    if not np.ndim(x) or not np.ndim(y):
        return mul(x, y)
    return tensordot(x, y, ([-1], [-1 if np.ndim(y) == 1 else -2]))


@composite
def inner(x: Array, y: Array) -> Tensor:
    """The sum of products over the last axes of both; the product if one is a number."""
    return tensordot(x, y, ([-1], [-1])) if np.ndim(x) and np.ndim(y) else mul(x, y)


@composite
def outer(x: Array, y: Array) -> Tensor:
    """All products of an element of ``x`` and one of ``y``, both flattened: (x.size, y.size)."""
    return mul(reshape(x, -1, 1), reshape(y, 1, -1))


@composite
def kron(x: Array, y: Array) -> Tensor:
    """Kronecker's product: ``x`` with each element replaced by its product with all of ``y``.

    >>> import tinygrad_lenet as tl
    >>> tl.kron(tl.tensor([1, 10]), tl.tensor([1, 2]))
    tensor([ 1.,  2., 10., 20.])
    """
    ndim = max(np.ndim(x), np.ndim(y))
    a, b = ((1,) * (ndim - np.ndim(t)) + np.shape(t) for t in (x, y))
    product = mul(reshape(x, tuple(m for n in a for m in (n, 1))), reshape(y, tuple(m for n in b for m in (1, n))))
    return reshape(product, tuple(n * m for n, m in zip(a, b, strict=True)))


@composite
def trace(x: Array, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The sum of :func:`diagonal`, of the matrices that two axes span."""
    return sum(diagonal(x, offset, axis1, axis2), -1)
