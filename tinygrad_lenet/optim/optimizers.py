"""Optimisers with PyTorch's names, defaults and semantics. Each update rule is a few lines of NumPy, in place."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, field
from typing import Any

import numpy as np

from ..checks import Decays, NonNegative, Probability, Real
from ..errors import ArgumentError
from ..kernels.windows import cut
from .base import Array, Optimizer, Options, _buffer, declared

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"]

# By dtype: the square root of the smallest positive number, and a number whose square can be summed 2^16 times.
_LEAST_ROOT = {"f": 2.0**-74.5, "d": 2.0**-537}
_LARGEST = {"f": 2.0**55, "d": 2.0**503}
_PIECE = 1 << 17  # bytes: with gradient, state and intermediate results, a piece takes less than a megabyte of cache


def _in_pieces(update: Any) -> Any:
    """An elementwise update that takes a large parameter in pieces, which stay in the cache from pass to pass."""

    @functools.wraps(update)
    def pieces(self: Any, w: Array, g: Array, state: Options, options: Options) -> None:
        if w.nbytes < 2 * _PIECE:
            update(self, w, g, state, options)
            return
        before = dict(state)
        for rows in cut(len(w), max(1, _PIECE * len(w) // w.nbytes)):
            piece = {name: v[rows] if isinstance(v, np.ndarray) else v for name, v in before.items()}
            piece["scratch"] = before["scratch"][: rows.stop - rows.start]
            update(self, w[rows], g[rows], piece, options)
            for name in [name for name in piece if name not in before]:  # the first step creates the state
                state.setdefault(name, np.zeros_like(w))[rows] = piece[name]

    return pieces


def _decayed(w: Array, g: Array, options: Options) -> Array:
    """The gradient of the loss plus ``weight_decay / 2 * |w|^2``."""
    return g + options["weight_decay"] * w if options["weight_decay"] else g


def _squarable(g: Array) -> Array:
    """The gradient. If its squares overflow, here or elsewhere in the piece, its finite elements are clipped."""
    if np.vdot(g, g) < math.inf:
        return g
    largest = _LARGEST[g.dtype.char]
    return np.where(np.isfinite(g), g.clip(-largest, largest), g)


def _divided(g: Array, squares: Array, factor: float, eps: float, out: Array) -> Array:
    """``g / (sqrt(squares) / factor + eps)``. The denominator stays above 0, so 0 / 0 is 0 also if ``eps`` is 0."""
    np.sqrt(squares, out=out)
    if factor != 1:
        out /= factor
    out += eps
    if eps < (least := _LEAST_ROOT[out.dtype.char]):
        np.maximum(out, least, out=out)
    return np.divide(g, out, out=out)


@declared
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum (Sutskever et al., 2013, in PyTorch's form).

    ``v = momentum * v + (1 - dampening) * g`` (``v = g`` in the first step), ``w = w - lr * v``; with ``nesterov``
    ``w = w - lr * (g + momentum * v)``. ``g`` includes ``weight_decay * w``.

    Raises:
        ArgumentError: ``nesterov`` without momentum or with dampening, and the errors of :class:`Optimizer`.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.SGD([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8], requires_grad=True)
    """

    params: InitVar[Iterable[Any]]
    lr: InitVar[NonNegative] = 1e-3
    momentum: InitVar[NonNegative] = 0.0
    dampening: InitVar[Real] = 0.0
    weight_decay: InitVar[NonNegative] = 0.0
    nesterov: InitVar[bool] = False
    maximize: InitVar[bool] = field(default=False, kw_only=True)

    def _plain(self, options: Mapping[str, Any]) -> Options:
        found = super()._plain(options)
        momentum, dampening = found.get("momentum"), found.get("dampening", 0)
        if found.get("nesterov") and (momentum == 0 or dampening != 0):
            raise ArgumentError(f"nesterov needs momentum above 0 and no dampening, got {momentum=}, {dampening=}")
        return found

    @_in_pieces
    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """Update one parameter."""
        if options["weight_decay"]:
            g = _decayed(w, g, options)
        momentum, scratch = options["momentum"], state["scratch"]
        if momentum:
            v = state.get("momentum_buffer")
            if v is None:
                v = state["momentum_buffer"] = np.array(g, order="C")
            else:
                v *= momentum
                v += g if not options["dampening"] else np.multiply(g, 1 - options["dampening"], scratch)
            g = g + momentum * v if options["nesterov"] else v
        w -= np.multiply(g, options["lr"], scratch)


@declared
class Adam(Optimizer):
    """Adam (Kingma & Ba, 2015, algorithm 1), or AMSGrad (Reddi et al., 2018, algorithm 2) with ``amsgrad``.

    ``m = beta1 * m + (1 - beta1) * g``, ``v = beta2 * v + (1 - beta2) * g^2``,
    ``w = w - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)``. So the first step changes each weight by
    ``lr``, however steep the loss is. AMSGrad uses the largest ``v`` so far in place of ``v``. Weight decay adds
    ``weight_decay * w`` to ``g``; see :class:`AdamW` for the decoupled form.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0, -100.0], requires_grad=True)
    >>> optimizer = tl.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)
    tensor([  0.9, -99.9])
    """

    decoupled = False  # whether weight decay acts on the weights themselves, not through the gradient

    params: InitVar[Iterable[Any]]
    lr: InitVar[NonNegative] = 1e-3
    betas: InitVar[Decays] = (0.9, 0.999)
    eps: InitVar[NonNegative] = 1e-8
    weight_decay: InitVar[NonNegative] = 0.0
    amsgrad: InitVar[bool] = False
    maximize: InitVar[bool] = field(default=False, kw_only=True)

    @_in_pieces
    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """Update one parameter."""
        (beta1, beta2), step, scratch = options["betas"], state["step"], state["scratch"]
        if self.decoupled:
            w *= 1 - options["lr"] * options["weight_decay"]
        else:
            g = _decayed(w, g, options)
        m, v = _buffer(state, "exp_avg", w), _buffer(state, "exp_avg_sq", w)
        g = _squarable(g)
        m += np.multiply(np.subtract(g, m, out=scratch), 1 - beta1, out=scratch)
        v *= beta2
        v += np.multiply(np.multiply(g, g, out=scratch), 1 - beta2, out=scratch)
        if options["amsgrad"]:
            largest = _buffer(state, "max_exp_avg_sq", w)
            v = np.maximum(largest, v, out=largest)
        _divided(m, v, math.sqrt(1 - beta2**step), options["eps"], scratch)
        w -= np.multiply(scratch, options["lr"] / (1 - beta1**step), out=scratch)


@declared
class AdamW(Adam):
    """Adam with decoupled weight decay: ``w = w - lr * weight_decay * w`` before each step (Loshchilov & Hutter, 2019,
    algorithm 2).

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)  # 1 - 0.1 * 0.5 * 1, and a step of 0.1
    tensor([0.85])
    """

    decoupled = True

    weight_decay: InitVar[NonNegative] = 1e-2


@declared
class RMSprop(Optimizer):
    """RMSprop (Tieleman & Hinton, 2012, lecture 6.5), plain or ``centered`` (Graves, 2013, equations 38 to 41).

    ``v = alpha * v + (1 - alpha) * g^2``, ``w = w - lr * g / (sqrt(v) + eps)``. The centred form has
    ``sqrt(v - mean(g)^2)``; a variance that rounding makes negative counts as 0.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.RMSprop([w], lr=0.01)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)  # v is 0.01 * 2^2, so the step is 0.01 * 2 / 0.2
    tensor([0.9])
    """

    params: InitVar[Iterable[Any]]
    lr: InitVar[NonNegative] = 1e-2
    alpha: InitVar[Probability] = 0.99
    eps: InitVar[NonNegative] = 1e-8
    weight_decay: InitVar[NonNegative] = 0.0
    momentum: InitVar[NonNegative] = 0.0
    centered: InitVar[bool] = False
    maximize: InitVar[bool] = field(default=False, kw_only=True)

    @_in_pieces
    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """Update one parameter."""
        g = _squarable(_decayed(w, g, options))
        alpha, scratch, v = options["alpha"], state["scratch"], _buffer(state, "square_avg", w)
        v *= alpha
        v += np.multiply(np.multiply(g, g, out=scratch), 1 - alpha, out=scratch)
        if options["centered"]:
            mean = _buffer(state, "grad_avg", w)
            mean += np.multiply(np.subtract(g, mean, out=scratch), 1 - alpha, out=scratch)
            np.subtract(v, np.multiply(mean, mean, out=scratch), out=scratch)
            v = np.maximum(scratch, 0, out=scratch)  # rounding can make the variance of equal gradients negative
        change = _divided(g, v, 1.0, options["eps"], scratch)
        if options["momentum"]:
            speed = _buffer(state, "momentum_buffer", w)
            speed *= options["momentum"]
            speed += change
            change = speed
        w -= np.multiply(change, options["lr"], out=scratch)


@declared
class Adagrad(Optimizer):
    """Adagrad (Duchi et al., 2011, figure 1): the larger a weight's past gradients, the shorter its steps.

    ``s = s + g^2``, ``w = w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)``.

    >>> import tinygrad_lenet as tl
    >>> w = tl.tensor([1.0], requires_grad=True)
    >>> optimizer = tl.optim.Adagrad([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach().round(4)
    tensor([0.9])
    """

    params: InitVar[Iterable[Any]]
    lr: InitVar[NonNegative] = 1e-2
    lr_decay: InitVar[NonNegative] = 0.0
    weight_decay: InitVar[NonNegative] = 0.0
    initial_accumulator_value: InitVar[NonNegative] = 0.0
    eps: InitVar[NonNegative] = 1e-10
    maximize: InitVar[bool] = field(default=False, kw_only=True)

    @_in_pieces
    def update(self, w: Array, g: Array, state: Options, options: Options) -> None:
        """Update one parameter."""
        g = _squarable(_decayed(w, g, options))
        total, scratch = _buffer(state, "sum", w, options["initial_accumulator_value"]), state["scratch"]
        total += np.multiply(g, g, out=scratch)
        _divided(g, total, 1.0, options["eps"], scratch)
        w -= np.multiply(scratch, options["lr"] / (1 + (state["step"] - 1) * options["lr_decay"]), out=scratch)
