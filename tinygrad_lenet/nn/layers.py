"""Layers with parameters, pooling, normalisation, dropout: PyTorch's names, arguments, defaults and initial values."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..errors import ArgumentError
from ..ops.creation import Seed, generator_of
from ..ops.shape import flatten
from ..ops.windows import Padding, Pair, pair
from ..tensor import Tensor
from .module import Module, Parameter, check_input


def _uniform(shape: tuple[int, ...], fan_in: int, generator: np.random.Generator) -> Parameter:
    """PyTorch's default: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), for weights and biases."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return Parameter(generator.uniform(-bound, bound, shape).astype(np.float32))


class Linear(Module):
    """``x @ weight.T + bias``: (..., in_features) to (..., out_features).

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Linear(3, 2, generator=0)(tl.ones(5, 3)).shape
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, generator: Seed = None) -> None:
        super().__init__()
        if min(in_features, out_features) < 0:
            raise ArgumentError(
                f"Linear: in_features and out_features must be 0 or more, got {in_features}, {out_features}"
            )
        generator = generator_of(generator)
        self.in_features, self.out_features = in_features, out_features
        self.weight = _uniform((out_features, in_features), in_features, generator)
        self.bias = _uniform((out_features,), in_features, generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        """(..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """In and out."""
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Conv2d(Module):
    """Convolution of images, (N, in_channels, H, W) to (N, out_channels, OH, OW); see :func:`tinygrad_lenet.conv2d`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Conv2d(1, 6, 5, padding="same", generator=0)(tl.zeros(2, 1, 28, 28)).shape
    (2, 6, 28, 28)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        generator: Seed = None,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ArgumentError(
                f"Conv2d: groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        generator = generator_of(generator)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair(kernel_size, "Conv2d", "kernel_size")
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = _uniform(shape, math.prod(shape[1:]), generator)
        self.bias = _uniform((out_channels,), math.prod(shape[1:]), generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        """(N, in_channels, H, W) to (N, out_channels, OH, OW)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """Channels, kernel, and what is not the default."""
        options = [("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)]
        said = [f"{name}={getattr(self, name)!r}" for name, default in options if getattr(self, name) != default]
        said += ["bias=False"] if self.bias is None else []
        return ", ".join([f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}", *said])


class MaxPool2d(Module):
    """The largest value in each window; see :func:`tinygrad_lenet.max_pool2d`."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Any) -> Tensor:
        """(N, C, H, W) to (N, C, OH, OW)."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def extra_repr(self) -> str:
        """The kernel."""
        return f"{self.kernel_size}" + (f", stride={self.stride}" if self.stride is not None else "")


class AvgPool2d(Module):
    """The mean of each window; see :func:`tinygrad_lenet.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Padding = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.options = ceil_mode, count_include_pad, divisor_override

    def forward(self, x: Any) -> Tensor:
        """(N, C, H, W) to (N, C, OH, OW)."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, *self.options)

    extra_repr = MaxPool2d.extra_repr  # it reads only what both have


class _BatchNorm(Module):
    """Batch normalisation; see :func:`tinygrad_lenet.functional.batch_norm`."""

    layouts: ClassVar[dict[int, str]]  # by number of axes

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean = Tensor(np.zeros(num_features, np.float32))
            self.running_var = Tensor(np.ones(num_features, np.float32))
            self.num_batches_tracked = Tensor(np.array(0))

    def forward(self, x: Any) -> Tensor:
        """The same shape."""
        check_input(self, x, tuple(self.layouts), self.num_features, " or ".join(self.layouts.values()))
        count = self.num_batches_tracked if self.training else None
        momentum = self.momentum or 0.0
        if self.momentum is None and count is not None:  # the plain mean over all batches
            momentum = 1 / (int(count) + 1)
        out = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )
        if count is not None:
            count += 1
        return out

    def extra_repr(self) -> str:
        """The number of features."""
        return str(self.num_features)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of features, (N, C), or of sequences, (N, C, L).

    In training with the batch's statistics, in evaluation with the running ones, which are buffers and so part of the
    state dict (Ioffe & Szegedy, 2015).
    """

    layouts: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images, (N, C, H, W).

    In training with the batch's statistics, in evaluation with the running ones, which are buffers and so part of the
    state dict (Ioffe & Szegedy, 2015).
    """

    layouts: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}


class Dropout(Module):
    """Set elements to 0 with probability ``p`` in training and scale the others by ``1 / (1 - p)``; nothing in
    evaluation.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Dropout(0.5, generator=0)(tl.ones(6))
    tensor([2., 2., 2., 0., 0., 0.])
    """

    def __init__(self, p: float = 0.5, generator: Seed = None) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ArgumentError(f"Dropout: p is a probability between 0 and 1, got {p}")
        self.p = p
        self.generator = generator_of(generator)

    def forward(self, x: Any) -> Tensor:
        """The same shape."""
        return F.dropout(x, self.p, self.training, self.generator)

    def extra_repr(self) -> str:
        """The probability."""
        return f"{self.p}"


class Flatten(Module):
    """Join the axes from ``start_dim`` to ``end_dim``: images (N, C, H, W) to features (N, C * H * W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        """(N, ...) to (N, features)."""
        return flatten(x, self.start_dim, self.end_dim)
