"""Activations as modules, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..arguments import choice, flag, integer, made, number
from ..tensor import Tensor
from .module import Module, Parameter

# What the options of functions may be, by their names; the functions themselves may admit less.
_NUMBERS = dict.fromkeys(("negative_slope", "alpha", "beta", "delta", "margin"), "(-inf, inf)")
_NUMBERS |= {"label_smoothing": "[0, 1]", **dict.fromkeys(("threshold", "min_val", "max_val"), "[-inf, inf]")}
_WORDS = {"reduction": ("mean", "sum", "none", "batchmean"), "approximate": ("none", "tanh")}


def _option(who: str, name: str, value: Any) -> Any:
    if name in _NUMBERS:
        return number(who, name, value, _NUMBERS[name])
    if name in _WORDS:
        return choice(who, name, value, _WORDS[name])
    if name in ("axis", "p", "ignore_index"):
        return integer(who, "dim" if name == "axis" else name, value)
    return flag(who, name, value) if name == "log_target" else value


class Function(Module):
    """Base: a function of ``functional`` as a module, with its options."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = {name: _option(type(self).__name__, name, value) for name, value in options.items()}

    def forward(self, x: Any) -> Tensor:
        """See the function."""
        return type(self).function(x, **self.options)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items() if value is not None)


class _Plain(Function):
    """One without options."""

    def __init__(self) -> None:
        super().__init__()


class ReLU(_Plain):
    """``max(x, 0)``; see :func:`tinygrad_lenet.relu`."""

    function = F.relu


class ReLU6(_Plain):
    """``min(max(x, 0), 6)``; see :func:`tinygrad_lenet.relu6`."""

    function = F.relu6


class LeakyReLU(Function):
    """ReLU with a slope for negative inputs; see :func:`tinygrad_lenet.leaky_relu`."""

    function = F.leaky_relu

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=negative_slope)


class ELU(Function):
    """Exponential linear unit; see :func:`tinygrad_lenet.elu`."""

    function = F.elu

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class CELU(Function):
    """ELU with a slope of 1 at 0; see :func:`tinygrad_lenet.celu`."""

    function = F.celu

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class SELU(_Plain):
    """ELU that keeps mean 0 and variance 1; see :func:`tinygrad_lenet.selu`."""

    function = F.selu


class GELU(Function):
    """Gaussian error linear unit; see :func:`tinygrad_lenet.gelu`."""

    function = F.gelu

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=approximate)


class SiLU(_Plain):
    """``x * sigmoid(x)``; see :func:`tinygrad_lenet.silu`."""

    function = F.silu


class Mish(_Plain):
    """``x * tanh(softplus(x))``; see :func:`tinygrad_lenet.mish`."""

    function = F.mish


class Softplus(Function):
    """Smooth ReLU; see :func:`tinygrad_lenet.softplus`."""

    function = F.softplus

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(beta=beta, threshold=threshold)


class Softsign(_Plain):
    """``x / (1 + |x|)``; see :func:`tinygrad_lenet.softsign`."""

    function = F.softsign


class Sigmoid(_Plain):
    """``1 / (1 + e^-x)``; see :func:`tinygrad_lenet.sigmoid`."""

    function = F.sigmoid


class LogSigmoid(_Plain):
    """Logarithm of the sigmoid; see :func:`tinygrad_lenet.logsigmoid`."""

    function = F.logsigmoid


class Tanh(_Plain):
    """Hyperbolic tangent; see :func:`tinygrad_lenet.tanh`."""

    function = F.tanh


class Hardtanh(Function):
    """``x`` limited to a range; see :func:`tinygrad_lenet.hardtanh`."""

    function = F.hardtanh

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__(min_val=min_val, max_val=max_val)


class Hardsigmoid(_Plain):
    """The sigmoid in three straight lines; see :func:`tinygrad_lenet.hardsigmoid`."""

    function = F.hardsigmoid


class Hardswish(_Plain):
    """SiLU in three pieces; see :func:`tinygrad_lenet.hardswish`."""

    function = F.hardswish


class Softmax(Function):
    """Probabilities along an axis; see :func:`tinygrad_lenet.softmax`."""

    function = F.softmax

    def __init__(self, dim: int = -1) -> None:
        super().__init__(axis=dim)


class LogSoftmax(Function):
    """Logarithms of probabilities along an axis; see :func:`tinygrad_lenet.log_softmax`."""

    function = F.log_softmax

    def __init__(self, dim: int = -1) -> None:
        super().__init__(axis=dim)


class PReLU(Module):
    """ReLU with a learned slope for negative inputs, one or one for each channel (He et al., 2015)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        shape, init = (integer("PReLU", "num_parameters", num_parameters, 1),), number("PReLU", "init", init)
        self.weight = made("PReLU", shape, lambda shape: Parameter(np.full(shape, init, np.float32)))

    def forward(self, x: Any) -> Tensor:
        """The same shape."""
        return F.prelu(x, self.weight)
