"""Initial values. Each function fills a tensor in place and returns it.

``generator`` is a seed, a NumPy generator, or None for fresh entropy. ``fan_in`` is the number of inputs of one output,
``fan_out`` the number of outputs of one input: for a weight (O, C, kh, kw) they are ``C * kh * kw`` and
``O * kh * kw``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from ..checks import NonNegative, Real, instance
from ..core.signature import checked
from ..core.tensor import Tensor
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.creation import Seed, generator_of

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
Activation: TypeAlias = Literal["linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu"]
Fan: TypeAlias = Literal["fan_in", "fan_out"]


def _floats(name: str, value: Any) -> Tensor:
    found = instance(name, value, Tensor)
    if found.dtype.kind != "f":  # random numbers, as integers, would all be 0
        raise DTypeError(f"{name} must be of floats, got {found.dtype}")
    return found


Floats: TypeAlias = Annotated[Tensor, _floats]


@checked
def calculate_gain(nonlinearity: Activation, param: Real | None = None) -> float:
    """Return the factor for weights before a nonlinearity that preserves the variance of activations, as in PyTorch.

    Raises:
        ArgumentError: an unknown nonlinearity.

    >>> round(calculate_gain("relu") ** 2, 6)
    2.0
    """
    slope = 0.01 if param is None else param
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + slope * slope))
    return _GAINS[nonlinearity]


@checked
def fans(tensor: Tensor) -> tuple[int, int]:
    """Return ``fan_in`` and ``fan_out`` of a weight.

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> fans(tl.zeros(6, 1, 5, 5))
    (25, 150)
    """
    if instance("tensor", tensor, Tensor).ndim < 2:
        raise ShapeError(f"fan_in and fan_out need a tensor of at least two axes, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(tensor: Tensor, mode: str = "fan_in") -> int:
    """``fan_in``, ``fan_out`` or ``both``, their sum; 1 if there is none."""
    fan_in, fan_out = fans(tensor)
    return max(1, {"fan_in": fan_in, "fan_out": fan_out, "both": fan_in + fan_out}[mode])


@checked
def uniform_(tensor: Floats, a: Real = 0.0, b: Real = 1.0, generator: Seed = None) -> Tensor:
    """Draw from the uniform distribution between ``a`` and ``b``.

    Raises:
        ArgumentError: an argument outside its range.
        DTypeError: an argument of another type.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.uniform_(tl.zeros(100), -1, 1, generator=0)
    >>> bool((w >= -1).all() & (w < 1).all())
    True
    """
    if not 0 <= b - a < math.inf:
        raise ArgumentError(f"a must be the lower end and b the upper one, got a={a}, b={b}")
    tensor.data = generator_of(generator).uniform(a, b, tensor.shape)
    return tensor


@checked
def normal_(tensor: Floats, mean: Real = 0.0, std: NonNegative = 1.0, generator: Seed = None) -> Tensor:
    """Draw from the normal distribution with a mean and a standard deviation.

    Raises:
        DTypeError: an argument of another type.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.normal_(tl.zeros(2, 3), std=0.1, generator=0).shape
    (2, 3)
    """
    tensor.data = generator_of(generator).normal(mean, std, tensor.shape)
    return tensor


@checked
def constant_(tensor: Tensor, value: Real) -> Tensor:
    """Fill with one value.

    Raises:
        DTypeError: an argument of another type, or a value that the dtype cannot hold.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.constant_(tl.zeros(2), 0.5)
    tensor([0.5, 0.5])
    """
    instance("tensor", tensor, Tensor)
    tensor.data = np.full(tensor.shape, value)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.zeros_(tl.ones(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.ones_(tl.zeros(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


# The functions below call generator_of themselves, so that its errors name them and not uniform_ or normal_.


@checked
def xavier_uniform_(tensor: Floats, gain: NonNegative = 1.0, generator: Seed = None) -> Tensor:
    """Draw uniformly, with variance ``gain^2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio, 2010, equation 16).

    Raises:
        DTypeError: an argument of another type.
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.xavier_uniform_(tl.zeros(100, 100), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    bound = gain * math.sqrt(6 / _fan(tensor, "both"))
    return uniform_(tensor, -bound, bound, generator_of(generator))


@checked
def xavier_normal_(tensor: Floats, gain: NonNegative = 1.0, generator: Seed = None) -> Tensor:
    """Draw normally, with variance ``gain^2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio, 2010, equation 12).

    Raises:
        DTypeError: an argument of another type.
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.xavier_normal_(tl.zeros(100, 100), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / _fan(tensor, "both")), generator_of(generator))


def _kaiming_std(tensor: Tensor, a: float, mode: Fan, nonlinearity: Activation) -> float:
    return calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))


@checked
def kaiming_uniform_(
    tensor: Floats, a: Real = 0.0, mode: Fan = "fan_in", nonlinearity: Activation = "leaky_relu", generator: Seed = None
) -> Tensor:
    """Draw uniformly with variance ``gain^2 / fan`` (He et al., 2015, equation 15). ``a`` is the slope of a leaky ReLU.

    Raises:
        DTypeError: an argument of another type.
        ArgumentError: an unknown mode or nonlinearity.
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.kaiming_uniform_(tl.zeros(100, 200), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator_of(generator))


@checked
def kaiming_normal_(
    tensor: Floats, a: Real = 0.0, mode: Fan = "fan_in", nonlinearity: Activation = "leaky_relu", generator: Seed = None
) -> Tensor:
    """Draw normally, with variance ``gain^2 / fan`` (He et al., 2015, equation 15). ``a`` is the slope of a leaky ReLU.

    Raises:
        DTypeError: an argument of another type.
        ArgumentError: an unknown mode or nonlinearity.
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.kaiming_normal_(tl.zeros(100, 200), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator_of(generator))


__all__ = sorted(n for n, made in vars().items() if getattr(made, "__module__", "") == __name__ and n[0] != "_")
