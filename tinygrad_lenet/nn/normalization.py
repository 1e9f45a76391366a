"""Normalisation layers, with PyTorch's names, arguments, defaults and initial values."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..arguments import flag, integer, lengths, made, number
from ..errors import ArgumentError
from ..tensor import Tensor
from .module import Module, Parameter, check_input


def _scales(who: str, shape: tuple[int, ...], weight: bool, bias: bool) -> tuple[Parameter | None, Parameter | None]:
    """The factors, 1 at first, and the shifts, 0 at first."""
    return (
        made(who, shape, lambda shape: Parameter(np.ones(shape, np.float32))) if weight else None,
        made(who, shape, lambda shape: Parameter(np.zeros(shape, np.float32))) if bias else None,
    )


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
        name = type(self).__name__
        num_features, affine = integer(name, "num_features", num_features, 0), flag(name, "affine", affine)
        self.num_features, self.eps = num_features, number(name, "eps", eps, "[0, inf)")
        self.momentum = None if momentum is None else number(name, "momentum", momentum, "[0, 1]")
        self.weight, self.bias = _scales(name, (num_features,), affine, affine)
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if flag(name, "track_running_stats", track_running_stats):
            self.running_mean = made(name, (num_features,), lambda shape: Tensor(np.zeros(shape, np.float32)))
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
    """Batch normalisation of features, (N, C), or of sequences, (N, C, L); see :func:`tinygrad_lenet.batch_norm`.

    In training with the batch's statistics, in evaluation with the running ones, which are buffers and so part of the
    state dict (Ioffe & Szegedy, 2015). ``momentum=None`` makes these plain means over all batches.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.BatchNorm1d(1)(tl.tensor([[1.0], [3.0]])).detach().round(3)
    tensor([[-1.],
            [ 1.]])
    """

    layouts: ClassVar[dict[int, str]] = {2: "(N, C)", 3: "(N, C, L)"}


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images, (N, C, H, W); see :class:`BatchNorm1d`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> norm = nn.BatchNorm2d(3)
    >>> norm(tl.rand(4, 3, 5, 5, generator=0)).shape, norm.num_batches_tracked.item()
    ((4, 3, 5, 5), 1)
    """

    layouts: ClassVar[dict[int, str]] = {4: "(N, C, H, W)"}


class LayerNorm(Module):
    """Normalise the last axes, whose lengths are ``normalized_shape``; see :func:`tinygrad_lenet.layer_norm`.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.LayerNorm(4)(tl.zeros(2, 3, 4)).shape
    (2, 3, 4)
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.normalized_shape = lengths("LayerNorm", "normalized_shape", normalized_shape)
        if not self.normalized_shape:
            raise ArgumentError("LayerNorm: normalized_shape must be the lengths of one or more axes, got none")
        self.eps = number("LayerNorm", "eps", eps, "[0, inf)")
        affine, bias = flag("LayerNorm", "elementwise_affine", elementwise_affine), flag("LayerNorm", "bias", bias)
        self.weight, self.bias = _scales("LayerNorm", self.normalized_shape, affine, affine and bias)

    def forward(self, x: Any) -> Tensor:
        """The same shape, (..., *normalized_shape)."""
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The lengths."""
        return str(self.normalized_shape)


class GroupNorm(Module):
    """Normalise groups of channels of (N, num_channels, ...); see :func:`tinygrad_lenet.group_norm`.

    Raises:
        ArgumentError: the groups do not divide the channels.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.GroupNorm(2, 6)(tl.zeros(2, 6, 5, 4)).shape
    (2, 6, 5, 4)
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        num_groups = integer("GroupNorm", "num_groups", num_groups, 1)
        num_channels = integer("GroupNorm", "num_channels", num_channels, 0)
        if num_channels % num_groups:
            raise ArgumentError(f"GroupNorm: num_groups={num_groups} must divide num_channels={num_channels}")
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, affine = number("GroupNorm", "eps", eps, "[0, inf)"), flag("GroupNorm", "affine", affine)
        self.weight, self.bias = _scales("GroupNorm", (num_channels,), affine, affine)

    def forward(self, x: Any) -> Tensor:
        """The same shape."""
        check_input(self, x, tuple(range(2, 65)), self.num_channels, f"(N, {self.num_channels}, ...)")
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Groups and channels."""
        return f"{self.num_groups}, {self.num_channels}"
