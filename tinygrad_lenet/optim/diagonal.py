"""The method with which LeNet-5 was trained in 1998."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import InitVar
from typing import Any

import numpy as np

from ..checks import NonNegative, PositiveReal, listed
from ..core.signature import checked
from ..errors import ArgumentError
from .base import Array, Optimizer, Options, _buffer, _fresh, _like, declared

__all__ = ["StochasticDiagonalLM"]


@declared
class StochasticDiagonalLM(Optimizer):
    """The stochastic diagonal Levenberg-Marquardt method, with which LeNet-5 was trained in 1998 (LeCun et al.,
    *Gradient-based learning applied to document recognition*, appendix C).

    ``w = w - lr / (mu + h) * g``, where ``h`` estimates the second derivative with respect to each weight; give it to
    :meth:`set_curvature`, as the paper does before each pass. It is 0 until then.

    Raises:
        ArgumentError: ``mu`` is not above 0; or as :class:`Optimizer`.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0, 1.0], requires_grad=True)
    >>> optimizer = tl.optim.StochasticDiagonalLM([w], lr=0.1, mu=0.5)
    >>> optimizer.set_curvature([[0.0, 0.5]])
    >>> w.sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8, 0.9], requires_grad=True)
    """

    params: InitVar[Iterable[Any]]
    lr: InitVar[NonNegative] = 5e-4
    mu: InitVar[PositiveReal] = 0.02

    @checked
    def set_curvature(self, curvature: Iterable[Any]) -> None:
        """For each parameter, in order, an array of its shape: 0 or more in each element."""
        params = self._listed_members()
        given = listed("curvature", curvature, "a list of arrays")
        if len(given) != len(params):
            raise ArgumentError(f"curvature must be {len(params)} arrays, one for each parameter, got {len(given)}")
        pairs = zip(given, params, strict=True)
        arrays = [_like(f"curvature of parameter {i}", h, p) for i, (h, p) in enumerate(pairs)]
        for i, h in enumerate(arrays):
            if not ((h >= 0) & np.isfinite(h)).all():
                raise ArgumentError(
                    f"curvature of parameter {i}, of shape {h.shape}, must be 0 or more and finite; least element "
                    f"{h.min()}"
                )
        for h, p in zip(arrays, params, strict=True):
            self.state.setdefault(p, _fresh(p))["curvature"] = h

    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """One step for one parameter."""
        h, scratch = _buffer(state, "curvature", w), state["scratch"]
        mu = max(options["mu"], float(np.finfo(w.dtype).smallest_subnormal))  # above 0 in this dtype too
        np.divide(g, np.add(h, mu, out=scratch), out=scratch)
        w -= np.multiply(scratch, options["lr"], out=scratch)
