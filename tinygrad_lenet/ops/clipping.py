"""Clipping of gradients by their norm."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, TypeAlias

import numpy as np

from ..checks import instance, listed, number
from ..core.modes import no_grad
from ..core.primitive import Array, primitive
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, GradientError

__all__ = ["clip_grad_norm_"]


def _norm(values: Array, order: float) -> float:
    """The norm of all values as one vector. They are scaled to at most 1, so that no power overflows."""
    magnitudes = np.abs(values.reshape(-1), dtype=np.float64)
    largest = float(magnitudes.max(initial=0.0))
    if not 0 < largest < math.inf or order == math.inf:
        return largest
    return largest * float(np.linalg.norm(magnitudes / largest, order))


@primitive(effect=True)
def _joint_norm(order: float, finite: bool, *gradients: Any) -> Array:
    """The norm of all gradients as one vector, in float64. Raise if it must be ``finite`` and is not."""
    total = _norm(np.array([_norm(g, order) for g in gradients]), order)
    if finite and not math.isfinite(total):
        raise GradientError(f"the norm of the gradients is {total}; detect_anomaly() names the op that made it so")
    return np.float64(total)


@primitive
def _limited(g: Any, total: Any, max_norm: float) -> Array:
    """``g`` times ``max_norm / total``, if that is less than 1."""
    factor = max_norm / (total + 1e-6)
    # In float64: the dtype of the gradient may not represent the factor accurately.
    return np.array(g) if factor >= 1 else (g * factor).astype(g.dtype)


@primitive
def _narrow(total: Any, dtype: Any) -> Array:
    """A norm in this dtype, or in float64 if it would overflow."""
    fits = not np.isfinite(total) or total <= np.finfo(dtype).max
    return total.astype(dtype if fits else np.float64)


_joint_norm.check(2.0, True, np.ones(3), np.ones((2, 2)))
_limited.check(np.ones(3), np.array(2.0), 0.5)
_narrow.check(np.array(2.0), np.float32)

Limit: TypeAlias = Annotated[float, partial(number, interval="[0, inf]")]
Order: TypeAlias = Annotated[float, partial(number, interval="(0, inf]")]


@checked
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: Limit,
    norm_type: Order = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor so that their joint norm is at most ``max_norm``; return the norm before.

    The joint norm is that of one vector of all gradients; ``norm_type`` may be ``inf``. It is returned in the dtype of
    the gradients, but at least float32, and in float64 if float32 overflows. Parameters without a gradient are
    skipped. As in PyTorch, a norm of NaN makes all gradients NaN, and an infinite norm makes finite gradients 0.

    Raises:
        ArgumentError: an argument outside its range.
        GradientError: the norm is NaN or infinite, and ``error_if_nonfinite`` is set.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> tl.optim.clip_grad_norm_(w, 1.0)
    tensor(10.)
    >>> print(w.grad.numpy().round(3))
    [0.6 0.8]
    """
    params = [parameters] if isinstance(parameters, Tensor) else listed("parameters", parameters, "Tensors")
    for p in params:
        instance("each of parameters", p, Tensor, "pass model.parameters()")
    if len({id(p) for p in params}) < len(params):
        raise ArgumentError("one of parameters was given twice, and would be scaled twice")
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        return Tensor(0.0)
    with no_grad():
        total = _joint_norm(norm_type, error_if_nonfinite, *grads)
        if max_norm < math.inf:
            for g in {id(g): g for g in grads}.values():  # parameters may share one
                g._write(..., _limited(g, total, max_norm)._data)
        return _narrow(total, np.result_type(np.float32, *[g.dtype for g in grads]))
