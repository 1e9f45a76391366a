"""Linear algebra of square matrices (..., n, n), and norms: ``tinygrad_lenet.linalg``, NumPy's and PyTorch's names.

The rules are those of Giles, *Collected matrix derivative results for forward and reverse mode algorithmic
differentiation*, 2008.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..primitive import Array, composite, draw, primitive
from ..tensor import Tensor, as_tensor, to_array
from .elementwise import abs
from .products import swapped
from .rearrange import tril
from .reduction import Axis, amax, amin, sum
from .reduction import norm as _norm
from .shape import axes_of, listed

__all__ = ["cholesky", "det", "inv", "norm", "slogdet", "solve"]


def _square(x: Array, op: str) -> None:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{op}: expected square matrices (..., n, n), got shape {x.shape}")


def _floats(x: Array) -> Array:
    """LAPACK knows float32 and float64."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _failed(op: str, x: Array, what: str) -> ArgumentError:
    return ArgumentError(f"{op}: {what} (shape {x.shape})")


@primitive
def inv(x: Array) -> Array:
    """The inverse matrix.

    Raises:
        ArgumentError: a matrix is singular.

    >>> import tinygrad_lenet as tl
    >>> tl.linalg.inv(tl.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5 , 0.  ],
            [0.  , 0.25]])
    """
    _square(x, "inv")
    try:
        return np.linalg.inv(_floats(x)).astype(x.dtype if x.dtype.kind == "f" else None, copy=False)
    except np.linalg.LinAlgError:
        raise _failed("inv", x, "a matrix is singular, it has no inverse; add a multiple of eye") from None


inv.vjp(x=lambda g, out: -(swapped(out) @ g @ swapped(out)))
inv.check(draw(2, 2, low=1, high=3))
inv.check(draw(2, 3, 3, low=-2, high=3))


@primitive
def _solve(a: Array, b: Array) -> Array:
    _square(a, "solve")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"solve: matrices {a.shape} need right sides (..., {a.shape[-1]}, k), got {b.shape}")
    try:
        return np.linalg.solve(_floats(a), _floats(b))
    except np.linalg.LinAlgError:
        raise _failed("solve", a, "a matrix is singular, the equations have no or many solutions") from None


_solve.vjp(
    a=lambda g, out, a: -(_solve(swapped(a), g) @ swapped(out)),
    b=lambda g, a: _solve(swapped(a), g),
)
_solve.check(draw(2, 2, low=1, high=3), draw(2, 3))
_solve.check(draw(2, 3, 3, low=-2, high=3), draw(3, 1))


@composite
def solve(a: Array, b: Array) -> Tensor:
    """The ``x`` for which ``a @ x = b``.

    Args:
        a: matrices, (..., n, n).
        b: one vector, (n,), or matrices of columns, (..., n, k).

    Raises:
        ArgumentError: a matrix is singular.

    >>> import tinygrad_lenet as tl
    >>> tl.linalg.solve(tl.tensor([[2.0, 0.0], [0.0, 4.0]]), tl.tensor([2.0, 2.0]))
    tensor([1. , 0.5])
    """
    a, b = as_tensor(a), as_tensor(b)
    if not b.ndim:
        raise ShapeError(f"solve: the right side must be a vector or matrices, got a number beside {a.shape}")
    return _solve(a, b.unsqueeze(-1)).squeeze(-1) if b.ndim == 1 else _solve(a, b)


@primitive
def det(x: Array) -> Array:
    """The determinant; its gradient is the matrix of cofactors, also where the determinant is 0.

    >>> import tinygrad_lenet as tl
    >>> tl.linalg.det(tl.tensor([[2.0, 1.0], [0.0, 4.0]]))
    tensor(8.)
    """
    _square(x, "det")
    found = np.asarray(np.linalg.det(_floats(x)))
    return found.astype(x.dtype, copy=False) if x.dtype.kind == "f" else found


def _det_x(g: Any, out: Any, x: Any) -> Any:
    n, values = x.shape[-1], to_array(x)
    g = g.reshape((*g.shape, 1, 1))
    # Hadamard's bound for the determinant: far below it, the inverse would have no digits left.
    bound = np.prod(np.sqrt(np.sum(values * values, axis=-1)), axis=-1)
    if (np.abs(to_array(out)) > 1e3 * np.finfo(values.dtype).eps * bound).all():
        return g * (out.reshape((*out.shape, 1, 1)) * swapped(inv(x)))
    others = np.array([[j for j in range(n) if j != i] for i in range(n)], int).reshape(n, n - 1)
    minors = x[..., others[:, None, :, None], others[None, :, None, :]]
    return g * (det(minors) * (-1.0) ** np.add.outer(np.arange(n), np.arange(n)).astype(values.dtype))


det.vjp(x=_det_x)
det.check(draw(3, 3, low=-2, high=3))
det.check(draw(2, 1, 2, 2, low=1, high=3))
det.check(draw(values=[[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]]))  # singular


@primitive
def _logabsdet(x: Array) -> Array:
    found = np.asarray(np.linalg.slogdet(_floats(x))[1])
    return found.astype(x.dtype, copy=False) if x.dtype.kind == "f" else found


_logabsdet.vjp(x=lambda g, x: g.reshape((*g.shape, 1, 1)) * swapped(inv(x)))
_logabsdet.check(draw(2, 3, 3, low=-2, high=3))


@primitive
def _signdet(x: Array) -> Array:
    found = np.asarray(np.linalg.slogdet(_floats(x))[0])
    return found.astype(x.dtype, copy=False) if x.dtype.kind == "f" else found


_signdet.vjp(x=None)
_signdet.check(draw(2, 2))


@composite
def slogdet(x: Array) -> tuple[Tensor, Tensor]:
    """The sign of the determinant, and the logarithm of its magnitude, which neither overflows nor vanishes; (0, -inf)
    for a singular matrix, where the gradient does not exist.

    >>> import tinygrad_lenet as tl
    >>> tl.linalg.slogdet(tl.eye(2) * -1)
    (tensor(1.), tensor(0.))
    """
    given = as_tensor(x)
    _square(given, "slogdet")
    return _signdet(given), _logabsdet(given)


@primitive
def _cholesky(x: Array) -> Array:
    """Of the lower triangle; the upper one is not read."""
    try:
        return np.linalg.cholesky(_floats(x)).astype(x.dtype if x.dtype.kind == "f" else None, copy=False)
    except np.linalg.LinAlgError:
        raise _failed("cholesky", x, "a matrix is not positive definite; add a multiple of eye") from None


def _half(x: Any) -> Any:
    """The lower triangle, with half of the diagonal."""
    return (tril(x) + tril(x, -1)) * 0.5


def _cholesky_x(g: Any, out: Any) -> Any:
    """Murray, *Differentiation of the Cholesky decomposition*, 2016, equation 10."""
    middle = _half(swapped(out) @ g)
    s = _solve(swapped(out), swapped(_solve(swapped(out), swapped(middle))))
    return _half(s + swapped(s))


_cholesky.vjp(x=_cholesky_x)
_cholesky.check(draw(values=[[4.0, 1.0, -0.5], [1.0, 3.0, 0.7], [-0.5, 0.7, 2.0]]))


@composite
def cholesky(x: Array, upper: bool = False) -> Tensor:
    """The lower triangular ``L`` with ``L @ L.T`` equal to ``x``, a symmetric positive definite matrix; or its
    transpose.

    Of a matrix that is not symmetric, its symmetric part is taken; so the gradient is symmetric, as PyTorch's.

    Raises:
        ArgumentError: a matrix is not positive definite.

    >>> import tinygrad_lenet as tl
    >>> tl.linalg.cholesky(tl.tensor([[4.0, 2.0], [2.0, 5.0]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    given = as_tensor(x)
    _square(given, "cholesky")
    lower = _cholesky((given + swapped(given)) * 0.5)
    return swapped(lower) if upper else lower


@composite
def norm(x: Array, ord: float | str | None = None, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Norms of vectors (one axis) and of matrices (two), NumPy's ``linalg.norm``.

    Args:
        x: any shape; without ``axis`` one vector or one matrix, if ``ord`` is given.
        ord: for vectors any p, see :func:`tinygrad_lenet.norm`; for matrices ``"fro"``, 1, -1, inf or -inf; None is
            the root of the sum of squares.
        axis: one for vectors, two for matrices.
        keepdims: whether the axes stay, with length 1.

    >>> import tinygrad_lenet as tl
    >>> x = tl.tensor([[1.0, -2.0], [2.0, 4.0]])
    >>> tl.linalg.norm(x), tl.linalg.norm(x, 1), tl.linalg.norm(x, float("inf"))
    (tensor(5.), tensor(6.), tensor(6.))
    """
    given = as_tensor(x)
    if ord is None:
        return _norm(given, 2, axis, keepdims)
    axes = tuple(range(given.ndim)) if axis is None else tuple(listed(axis, "norm", "axis"))
    if len(axes) == 1 and not isinstance(ord, str):
        return _norm(given, ord, axes, keepdims)
    if len(axes) == 2 and ord == "fro":
        return _norm(given, 2, axes, keepdims)
    if len(axes) != 2 or ord not in (1, -1, np.inf, -np.inf):
        raise ArgumentError(
            f"norm: ord={ord!r} over {len(axes)} axes of {given.shape}; vectors have any number, matrices 'fro', 1, "
            "-1, inf and -inf (2 and 'nuc' would need singular values)"
        )
    axes_of(axes, given.ndim, "norm")
    rows, columns = (a % given.ndim for a in axes)
    along, over = (rows, columns) if ord in (1, -1) else (columns, rows)
    found = (amax if ord > 0 else amin)(sum(abs(given), along, keepdims=True), over, keepdims=True)
    return found if keepdims else found.squeeze((rows, columns))
