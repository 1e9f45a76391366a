"""Initial values, written in place. Each takes a ``generator``: a seed, a NumPy generator, or None for fresh entropy.

``fan_in`` is the number of values that one output is made of, ``fan_out`` the number of outputs that one input goes to:
for a weight (O, C, kh, kw) they are ``C * kh * kw`` and ``O * kh * kw``.
"""

from __future__ import annotations

import math

from ..errors import ArgumentError, ShapeError
from ..graph import no_grad
from ..ops.creation import Seed, generator_of
from ..tensor import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "fans",
    "kaiming_normal_",
    "kaiming_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "normal_",
    "ones_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before a nonlinearity should be larger, PyTorch's table.

    Raises:
        ArgumentError: an unknown nonlinearity.

    >>> round(calculate_gain("relu") ** 2, 6)
    2.0
    """
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in _GAINS:
        raise ArgumentError(f"calculate_gain: {nonlinearity!r} is not one of {', '.join(_GAINS)}, leaky_relu")
    return _GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """``fan_in`` and ``fan_out`` of a weight.

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> fans(tl.zeros(6, 1, 5, 5))
    (25, 150)
    """
    if tensor.ndim < 2:
        raise ShapeError(f"fan_in and fan_out need a weight of at least two axes, got shape {tensor.shape}")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


@no_grad()
def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Seed = None) -> Tensor:
    """Uniform between ``a`` and ``b``; returns the tensor, as they all do.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.uniform_(tl.zeros(100), -1, 1, generator=0)
    >>> bool((w >= -1).all() & (w < 1).all())
    True
    """
    tensor.data = generator_of(generator).uniform(a, b, tensor.shape)
    return tensor


@no_grad()
def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Seed = None) -> Tensor:
    """Normal with a mean and a standard deviation.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.normal_(tl.zeros(2, 3), std=0.1, generator=0).shape
    (2, 3)
    """
    tensor.data = generator_of(generator).normal(mean, std, tensor.shape)
    return tensor


@no_grad()
def constant_(tensor: Tensor, value: float) -> Tensor:
    """One value everywhere.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.constant_(tl.zeros(2), 0.5)
    tensor([0.5, 0.5])
    """
    tensor[...] = value
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.zeros_(tl.ones(2))
    tensor([0., 0.])
    """
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones.

    >>> import tinygrad_lenet as tl
    >>> tl.nn.init.ones_(tl.zeros(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


def lecun_uniform_(tensor: Tensor, generator: Seed = None) -> Tensor:
    """Uniform with variance ``1 / fan_in`` (LeCun, Bottou, Orr, Müller, *Efficient BackProp*, 1998, section 4.6).

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.lecun_uniform_(tl.zeros(100, 100), generator=0)
    >>> round(float(w.std()), 2)  # 1 / sqrt(100)
    0.1
    """
    bound = math.sqrt(3 / fans(tensor)[0])
    return uniform_(tensor, -bound, bound, generator)


def lecun_normal_(tensor: Tensor, generator: Seed = None) -> Tensor:
    """Normal with variance ``1 / fan_in`` (LeCun, Bottou, Orr, Müller, *Efficient BackProp*, 1998, section 4.6).

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.lecun_normal_(tl.zeros(100, 100), generator=0)
    >>> round(float(w.std()), 2)  # 1 / sqrt(100)
    0.1
    """
    return normal_(tensor, 0.0, math.sqrt(1 / fans(tensor)[0]), generator)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Seed = None) -> Tensor:
    """Uniform with variance ``gain^2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio, 2010, equation 16).

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.xavier_uniform_(tl.zeros(100, 100), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    bound = gain * math.sqrt(6 / sum(fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Seed = None) -> Tensor:
    """Normal with variance ``gain^2 * 2 / (fan_in + fan_out)`` (Glorot & Bengio, 2010, equation 12).

    Raises:
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.xavier_normal_(tl.zeros(100, 100), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans(tensor))), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return calculate_gain(nonlinearity, a) / math.sqrt(fans(tensor)[mode == "fan_out"])


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Seed = None
) -> Tensor:
    """Uniform with variance ``gain^2 / fan``, ``a`` being the slope of a leaky ReLU (He et al., 2015, equation 15).

    Raises:
        ArgumentError: an unknown mode or nonlinearity.
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.kaiming_uniform_(tl.zeros(100, 200), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", generator: Seed = None
) -> Tensor:
    """Normal with variance ``gain^2 / fan``, ``a`` being the slope of a leaky ReLU (He et al., 2015, equation 15).

    Raises:
        ArgumentError: an unknown mode or nonlinearity.
        ShapeError: fewer than two axes.

    >>> import tinygrad_lenet as tl
    >>> w = tl.nn.init.kaiming_normal_(tl.zeros(100, 200), generator=0)
    >>> round(float(w.std()), 2)  # sqrt(2 / 200)
    0.1
    """
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)
