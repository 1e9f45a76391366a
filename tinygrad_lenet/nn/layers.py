"""Linear, convolution, embedding, dropout and reshaping layers.

Names, arguments, defaults and initial values are PyTorch's. The functions check the options of windows at the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..checks import Count, Positive, Probability, lengths, made, pair
from ..core.signature import checked
from ..core.tensor import Tensor, tensor_of
from ..errors import ArgumentError, ShapeError
from ..ops.creation import Seed, generator_of
from ..ops.shape import axis_of, flatten, reshape
from .module import Module, Parameter, check_input, described


def uniform_parameter(shape: tuple[int, ...], fan_in: int, generator: np.random.Generator) -> Parameter:
    """A parameter drawn from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for weights and biases."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return made(shape, lambda shape: Parameter(generator.uniform(-bound, bound, shape).astype(np.float32)))


class Linear(Module):
    """Affine map ``x @ weight.T + bias``, from (..., in_features) to (..., out_features); see
    :func:`tinygrad_lenet.linear`.

    ``weight``, (out_features, in_features), and ``bias``, (out_features,), are initialised as in PyTorch, from
    U(-1/sqrt(in_features), 1/sqrt(in_features)).

    Raises:
        ArgumentError: a number of features is negative.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Linear(3, 2, generator=0)(tl.ones(5, 3)).shape
    (5, 2)
    """

    @checked
    def __init__(self, in_features: Count, out_features: Count, bias: bool = True, generator: Seed = None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        generator = generator_of(generator)
        self.weight = uniform_parameter((out_features, in_features), in_features, generator)
        self.bias = uniform_parameter((out_features,), in_features, generator) if bias else None

    def forward(self, x: Any) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The numbers of features."""
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class _Conv(Module):
    """Base of convolutions: a weight, a bias, and the geometry of the windows."""

    function: ClassVar[Callable[..., Tensor]]
    dims: ClassVar[int] = 2
    transposed: ClassVar[bool] = False

    @checked
    def __init__(
        self,
        in_channels: Count,
        out_channels: Count,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: Positive = 1,
        bias: bool = True,
        generator: Seed = None,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ArgumentError(f"groups={groups} must divide {in_channels=} and {out_channels=}")
        generator = generator_of(generator)
        self.in_channels, self.out_channels = in_channels, out_channels
        several = self.dims == 1 and isinstance(kernel_size, (tuple, list))
        self.kernel_size = pair("kernel_size", kernel_size * 2 if several else kernel_size)[: self.dims]
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = uniform_parameter(shape, math.prod(shape[1:]), generator)
        self.bias = uniform_parameter((out_channels,), math.prod(shape[1:]), generator) if bias else None

    def _options(self) -> dict[str, Any]:
        """The options of the function."""
        attributes, names = vars(self), ("stride", "padding", "output_padding", "dilation", "groups")
        return {name: attributes[name] for name in names if name in attributes}

    def forward(self, x: Any) -> Tensor:
        """Map (N, in_channels, ...) to (N, out_channels, ...), or one image or sequence, without N."""
        layout = "(N, {}, L) or ({}, L)" if self.dims == 1 else "(N, {}, H, W) or ({}, H, W)"
        check_input(self, x, (self.dims + 1, self.dims + 2), self.in_channels, layout, -1 - self.dims)
        return type(self).function(x, self.weight, self.bias, **self._options())

    def extra_repr(self) -> str:
        """The channels, the kernel size, and the options that differ from their defaults."""
        channels = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        defaults = {name: 0 if name.endswith("padding") else 1 for name in self._options()}
        return described(self, channels, defaults, bias=self.bias)


class Conv2d(_Conv):
    """Convolution of images, (N, in_channels, H, W) to (N, out_channels, OH, OW), with learned kernels.

    :func:`tinygrad_lenet.conv2d` has the formula, the options and the output size. ``weight``,
    (out_channels, in_channels / groups, kh, kw), and ``bias``, (out_channels,), are initialised as in PyTorch, from
    U(-1/sqrt(n), 1/sqrt(n)), where n is the number of weights of one output channel.

    Raises:
        ArgumentError: ``groups`` does not divide the channels.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Conv2d(1, 6, 5, padding="same", generator=0)(tl.zeros(2, 1, 28, 28)).shape
    (2, 6, 28, 28)
    """

    function = F.conv2d


class Conv1d(_Conv):
    """Convolution of sequences, (N, in_channels, L) to (N, out_channels, OL), with learned kernels; see :class:`Conv2d`
    and :func:`tinygrad_lenet.conv1d`.

    Raises:
        ArgumentError: ``groups`` does not divide the channels.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Conv1d(3, 6, 5, padding="same", generator=0)(tl.zeros(2, 3, 28)).shape
    (2, 6, 28)
    """

    dims = 1
    function = F.conv1d


class _ConvTranspose(_Conv):
    """Base of transposed convolutions, with PyTorch's order of arguments."""

    transposed = True

    @checked
    def __init__(
        self,
        in_channels: Count,
        out_channels: Count,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: Positive = 1,
        bias: bool = True,
        dilation: Any = 1,
        generator: Seed = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, generator)
        self.output_padding = output_padding


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of images, (N, in_channels, H, W) to (N, out_channels, OH, OW); see
    :func:`tinygrad_lenet.conv_transpose2d`.

    Raises:
        ArgumentError: ``groups`` does not divide the channels.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1, generator=0)(tl.zeros(2, 6, 7, 7)).shape
    (2, 3, 14, 14)
    """

    function = F.conv_transpose2d


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of sequences, (N, in_channels, L) to (N, out_channels, OL); see
    :func:`tinygrad_lenet.conv_transpose1d`.

    Raises:
        ArgumentError: ``groups`` does not divide the channels.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.ConvTranspose1d(6, 3, 4, stride=2, padding=1, generator=0)(tl.zeros(2, 6, 7)).shape
    (2, 3, 14)
    """

    dims = 1
    function = F.conv_transpose1d


class Embedding(Module):
    """Table of learned vectors: look up (...,) integers to get (..., embedding_dim).

    ``weight``, (num_embeddings, embedding_dim), is drawn from the standard normal distribution, as in PyTorch. The row
    ``padding_idx`` is initialised to 0 and receives no gradient.

    Raises:
        ArgumentError: ``padding_idx`` is not a row of the table.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Embedding(10, 3, generator=0)(tl.tensor([[1, 2], [9, 0]], dtype="int64")).shape
    (2, 2, 3)
    """

    @checked
    def __init__(
        self, num_embeddings: Count, embedding_dim: Count, padding_idx: int | None = None, generator: Seed = None
    ) -> None:
        super().__init__()
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ArgumentError(f"padding_idx must be one of {num_embeddings} rows, got {padding_idx}")
        self.num_embeddings, self.embedding_dim, self.padding_idx = num_embeddings, embedding_dim, padding_idx
        normal = generator_of(generator).standard_normal
        table = made((num_embeddings, embedding_dim), lambda shape: normal(shape).astype(np.float32))
        if padding_idx is not None:
            table[padding_idx] = 0
        self.weight = Parameter(table)

    def forward(self, x: Any) -> Tensor:
        """Look up (...,) integers to get (..., embedding_dim)."""
        return F.embedding(x, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The numbers of rows and columns."""
        return described(self, f"{self.num_embeddings}, {self.embedding_dim}", {"padding_idx": None})


class Dropout(Module):
    """In training, set elements to 0 with probability ``p`` and multiply the others by ``1 / (1 - p)``. In evaluation,
    return the input itself, not a copy.

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Dropout(0.5, generator=0)(tl.ones(6))
    tensor([2., 2., 2., 0., 0., 0.])
    """

    function: ClassVar[Callable[..., Tensor]] = F.dropout

    @checked
    def __init__(self, p: Probability = 0.5, generator: Seed = None) -> None:
        super().__init__()
        self.p = p
        self.generator = generator_of(generator)

    def forward(self, x: Any) -> Tensor:
        """Drop in training; return ``x`` in evaluation."""
        return type(self).function(x, self.p, True, self.generator) if self.training else tensor_of("input", x)

    def extra_repr(self) -> str:
        """The probability of a zero."""
        return f"{self.p}"


class Dropout2d(Dropout):
    """:class:`Dropout` of whole channels of images, (N, C, H, W).

    Raises:
        ArgumentError: ``p`` is not between 0 and 1.
        ShapeError: the input does not have four axes, in evaluation too.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Dropout2d(0.5, generator=0)(tl.ones(1, 6, 1, 1)).reshape(6)
    tensor([2., 2., 2., 0., 0., 0.])
    """

    function = F.dropout2d

    def forward(self, x: Any) -> Tensor:
        """Drop channels in training; return ``x`` in evaluation."""
        check_input(self, x, (4,), None, "(N, C, H, W)")
        return super().forward(x)


class Flatten(Module):
    """Flatten the axes from ``start_dim`` to ``end_dim``: images (N, C, H, W) become features (N, C * H * W).

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Flatten()(tl.zeros(8, 16, 5, 5)).shape
    (8, 400)
    """

    @checked
    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        """Flatten (N, ...) to (N, features)."""
        return flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The axes that differ from the defaults."""
        return described(self, "", {"start_dim": 1, "end_dim": -1})


class Unflatten(Module):
    """Split an axis into several: ``Unflatten(1, (C, H, W))`` makes features (N, C * H * W) images (N, C, H, W).

    One length may be -1; it is computed from the others.

    Raises:
        ArgumentError: more than one length is -1.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Unflatten(1, (2, -1))(tl.zeros(5, 6)).shape
    (5, 2, 3)
    """

    @checked
    def __init__(self, dim: int, unflattened_size: int | tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, lengths("unflattened_size", unflattened_size, -1)
        if self.unflattened_size.count(-1) > 1:
            raise ArgumentError(f"only one length of unflattened_size can be -1, got {self.unflattened_size}")

    def forward(self, x: Any) -> Tensor:
        """Reshape (..., n, ...) to (..., *unflattened_size, ...)."""
        x = tensor_of("x", x)
        axis = axis_of(self.dim, x.ndim)
        known = math.prod(n for n in self.unflattened_size if n >= 0)
        sizes = [x.shape[axis] // max(known, 1) if n < 0 else n for n in self.unflattened_size]
        if math.prod(sizes) != x.shape[axis]:
            raise ShapeError(f"axis {self.dim} of the input {x.shape} cannot be cut into {self.unflattened_size}")
        return reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))

    def extra_repr(self) -> str:
        """The axis and the lengths."""
        return f"{self.dim}, {self.unflattened_size}"


class Identity(Module):
    """Return the input itself, not a copy: a placeholder for a layer that is left out. Arguments are ignored.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Identity()(tl.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        """Return ``x``."""
        return x
