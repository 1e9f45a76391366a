"""Activations as modules, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from .module import Module, Parameter


class Function(Module):
    """Base: a function of ``functional`` as a module, with its options."""

    function: ClassVar[Callable[..., Tensor]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, *inputs: Any) -> Tensor:
        """See the function."""
        return type(self).function(*inputs, **self.options)

    def extra_repr(self) -> str:
        """The options."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items() if value is not None)


class ReLU(Function):
    """``max(x, 0)``; see :func:`tinygrad_lenet.relu`."""

    function = F.relu

    def __init__(self) -> None:
        super().__init__()


class Sigmoid(Function):
    """``1 / (1 + e^-x)``; see :func:`tinygrad_lenet.sigmoid`."""

    function = F.sigmoid

    def __init__(self) -> None:
        super().__init__()


class Tanh(Function):
    """Hyperbolic tangent; see :func:`tinygrad_lenet.tanh`."""

    function = F.tanh

    def __init__(self) -> None:
        super().__init__()


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


class Softplus(Function):
    """Smooth ReLU; see :func:`tinygrad_lenet.softplus`."""

    function = F.softplus

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(beta=beta, threshold=threshold)


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
        self.weight = Parameter(np.full(num_parameters, init, np.float32))

    def forward(self, x: Any) -> Tensor:
        """The same shape."""
        return F.prelu(x, self.weight)
