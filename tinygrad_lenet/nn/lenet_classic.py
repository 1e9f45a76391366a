"""LeNet-5 as it was in 1998: 60,000 trainable parameters, and what it was trained with.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*, Proceedings of
the IEEE 86(11), 1998: section II.B (the network), II.C (the loss), appendix A (the squashing function and the initial
weights) and C (the second derivatives).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from ..checks import Real, Reduction, instance, integer, listed, said
from ..core.modes import enable_grad
from ..core.signature import checked
from ..core.tensor import Tensor, tensor, to_array
from ..errors import ArgumentError, DTypeError, ShapeError
from ..ops.creation import Seed, full, generator_of, zeros
from ..ops.losses import _target
from ..ops.rearrange import pad
from ..ops.shape import concatenate
from . import init
from .layers import Conv2d, Flatten, Linear
from .module import Module, Parameter, Sequential, check_input, tensor_of

Channels: TypeAlias = Annotated[int, partial(integer, least=1, most=2**20)]
Side: TypeAlias = Annotated[int, partial(integer, least=1, most=2**10)]

# Table I: the maps of S2 that each of the 16 maps of C3 sees.
C3_TABLE = ["012", "123", "234", "345", "045", "015"]  # every three neighbours
C3_TABLE += ["0123", "1234", "2345", "0345", "0145", "0125"]  # every four
C3_TABLE += ["0134", "1245", "0235", "012345"]  # some that are no neighbours, and all

# Figure 3: what the output layer compares with, the digits as 7 x 12 bitmaps; drawn anew after the figure.
_DIGITS = """
 .#####. ...##.. .#####. #######  #....#. #######  ..####. #######  .#####. .#####.
 ##...## ..###.. ##...## .....##  #....#. ##.....  .##.... ##...##  ##...## ##...##
 #.....# .####.. #.....# ....##.  #....#. ##.....  ##..... .....##  #.....# #.....#
 #.....# ...##.. ......# ...##..  #....#. ##.....  #...... .....#.  #.....# #.....#
 #.....# ...##.. .....## ..####.  #....#. #####..  #.####. ....##.  ##...## ##...##
 #.....# ...##.. ....##. .....##  #....#. ....##.  ##...## ....#..  .#####. .######
 #.....# ...##.. ...##.. ......#  ####### .....##  #.....# ...##..  ##...## ......#
 #.....# ...##.. ..##... ......#  .....#. ......#  #.....# ...#...  #.....# ......#
 #.....# ...##.. .##.... ......#  .....#. ......#  #.....# ..##...  #.....# .....##
 #.....# ...##.. ##..... #.....#  .....#. #....##  #.....# ..#....  #.....# ....##.
 ##...## ...##.. #...... ##...##  .....#. ##..##.  ##...## .##....  ##...## ..###..
 .#####. .#####. ####### .#####.  .....#. .####..  .#####. .#.....  .#####. .##....
"""
_ROWS = [line.split() for line in _DIGITS.strip().splitlines()]
CODES: NDArray[np.float32] = np.array(
    [[1.0 if ink == "#" else -1.0 for row in _ROWS for ink in row[digit]] for digit in range(10)], np.float32
)
CODES.flags.writeable = False


class ScaledTanh(Module):
    """``1.7159 * tanh(2 / 3 * x)``: 1 at 1, and bent the most there (LeCun et al., 1998, appendix A).

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.ScaledTanh()(tl.tensor([-1.0, 0.0, 1.0])).round(3)
    tensor([-1.,  0.,  1.])
    """

    def forward(self, x: Any) -> Tensor:
        """Elementwise."""
        out: Tensor = 1.7159 * (2 / 3 * tensor_of("x", x)).tanh()
        return out


class Subsampling(Module):
    """The sum of each 2×2 pixels, times a coefficient, plus a bias, both learned for each map: (N, C, H, W) to (N, C, H
    / 2, W / 2) (LeCun et al., 1998, section II.B, S2).

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.Subsampling(6, generator=0)(tl.zeros(2, 6, 28, 28)).shape
    (2, 6, 14, 14)
    """

    @checked
    def __init__(self, channels: Channels, generator: Seed = None) -> None:
        super().__init__()
        generator = generator_of(generator)
        self.coefficient = Parameter(zeros(channels, 1, 1))
        self.bias = Parameter(zeros(channels, 1, 1))
        _draw([self.coefficient, self.bias], 4, generator)

    def forward(self, x: Any) -> Tensor:
        """(N, C, H, W) to (N, C, H / 2, W / 2)."""
        channels = len(self.bias)
        check_input(self, x, (4,), channels, f"(N, {channels}, H, W)")
        return self.coefficient * self.pooled(x) + self.bias

    def pooled(self, x: Any) -> Tensor:
        """The sums."""
        return F.avg_pool2d(x, 2, divisor_override=1)


class PartialConv2d(Module):
    """A convolution whose outputs see some of the channels each: ``table[o]`` has the digits of those that output ``o``
    sees (LeCun et al., 1998, section II.B, C3).

    The kernels are (connections, kernel_size, kernel_size), in the order of the table.

    Raises:
        ArgumentError: an argument outside of its range.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> layer = nn.PartialConv2d(["01", "2"], kernel_size=3, generator=0)
    >>> layer(tl.zeros(1, 3, 8, 8)).shape, layer.weight.shape
    ((1, 2, 6, 6), (3, 3, 3))
    """

    @checked
    def __init__(self, table: list[str], kernel_size: Side, generator: Seed = None) -> None:
        super().__init__()
        generator = generator_of(generator)
        self.table = table = listed("table", table, "a list of words of digits")
        if not table or not all(isinstance(r, str) and r.isdecimal() and len({*r}) == len(r) for r in table):
            raise ArgumentError(
                f"each element of table must be some different digits, such as '013', got {said(table)}"
            )
        counts = [len(row) for row in table]
        # Where in the weights the kernel of each output and channel is; after the last there is one of zeros.
        self.places = np.full((len(table), 1 + max(int(c) for row in table for c in row)), sum(counts))
        self.places[np.repeat(np.arange(len(table)), counts), [int(c) for row in table for c in row]] = range(
            sum(counts)
        )
        bound = 2.4 / (np.array(counts) * kernel_size**2)
        weight = generator.uniform(-1, 1, (sum(counts), kernel_size, kernel_size))
        self.weight = Parameter((weight * np.repeat(bound, counts).reshape(-1, 1, 1)).astype(np.float32))
        self.bias = Parameter((generator.uniform(-1, 1, len(table)) * bound).astype(np.float32))

    def forward(self, x: Any) -> Tensor:
        """(N, C, H, W) to (N, O, OH, OW)."""
        return F.conv2d(x, self.kernels(self.weight), self.bias)

    def kernels(self, weight: Any) -> Tensor:
        """The weight as a whole one, (O, C, kh, kw), with zeros where there is no connection."""
        return concatenate([weight, zeros(1, *weight.shape[1:])])[self.places]


class LeNet5Classic(Module):
    """The network of 1998: images (N, 1, 32, 32) to (N, 10), with exactly 60,000 trainable parameters.

    C1 and C3 convolve (C3 with a table of connections), S2 and S4 add up 2×2 pixels with a learned coefficient, C5 and
    F6 see everything, each followed by ``1.7159 tanh(2/3 x)``; the output is the squared distance of F6's 84 values to
    a bitmap of each digit. What is returned is minus that distance, so that the largest wins, as everywhere.

    :meth:`prepare` makes such images of MNIST's; the weights are drawn from U(-2.4 / F, 2.4 / F), F being the number of
    inputs of a unit.

    >>> from tinygrad_lenet import nn
    >>> model = nn.LeNet5Classic(generator=0)
    >>> [sum(p.size for p in layer.parameters()) for layer in model.body if list(layer.parameters())]
    [156, 12, 1516, 32, 48120, 10164]
    >>> import tinygrad_lenet as tl
    >>> model(tl.zeros(2, 1, 32, 32)).shape
    (2, 10)
    """

    @checked
    def __init__(self, generator: Seed = None) -> None:
        super().__init__()
        generator = generator_of(generator)
        self.body = Sequential(
            {
                "c1": Conv2d(1, 6, 5, generator=generator),  # (N, 6, 28, 28)
                "f1": ScaledTanh(),
                "s2": Subsampling(6, generator),  # (N, 6, 14, 14)
                "f2": ScaledTanh(),
                "c3": PartialConv2d(C3_TABLE, 5, generator),  # (N, 16, 10, 10)
                "f3": ScaledTanh(),
                "s4": Subsampling(16, generator),  # (N, 16, 5, 5)
                "f4": ScaledTanh(),
                "c5": Conv2d(16, 120, 5, generator=generator),  # (N, 120, 1, 1)
                "f5": ScaledTanh(),
                "flatten": Flatten(),
                "f6": Linear(120, 84, generator=generator),
                "squash": ScaledTanh(),
            }
        )
        for layer in self.body:
            if isinstance(layer, (Conv2d, Linear)):
                _draw(list(layer.parameters()), math.prod(layer.weight.shape[1:]), generator)

    def forward(self, x: Any) -> Tensor:
        """Images (N, 1, 32, 32) to minus the squared distances to the ten codes, (N, 10)."""
        x = tensor_of("x", x)
        if x.ndim != 4 or x.shape[1:] != (1, 32, 32):
            raise ShapeError(
                f"expected images of shape (N, 1, 32, 32), got {x.shape}; LeNet5Classic.prepare makes them of MNIST's"
            )
        features = self.body(x)
        out: Tensor = -((features.expand_dims(1) - CODES) ** 2).sum(axis=2)
        return out

    @staticmethod
    @checked
    def prepare(pixels: Any) -> Tensor:
        """Pixels between 0 (background) and 1 (ink), (N, 1, 28, 28), as the network wants them: -0.1 and 1.175, with a
        frame of two pixels of background, (N, 1, 32, 32).
        """
        images = tensor_of("pixels", pixels)
        if images.ndim != 4 or images.shape[1:] != (1, 28, 28):
            raise ShapeError(f"pixels must be of shape (N, 1, 28, 28), got {images.shape}")
        if images.dtype.kind != "f":
            raise DTypeError(f"pixels must be floats between 0 and 1, got {images.dtype}; divide them by 255")
        out: Tensor = pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))) * 1.275 - 0.1
        return out


def _draw(parameters: list[Parameter], fan_in: int, generator: np.random.Generator) -> None:
    for parameter in parameters:
        init.uniform_(parameter, -2.4 / fan_in, 2.4 / fan_in, generator)


class MAPLoss(Module):
    """The loss of section II.C, eq. 9: with penalties ``y`` (the squared distances), the mean or sum over samples of
    ``y[label] + log(e^-j + sum over i of e^-y[i])``.

    The second part raises the penalties of the wrong classes, unless they are far above ``j`` already. It is the cross
    entropy of logits ``-y`` with one more class, rubbish, whose logit is always ``-j``.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> nn.MAPLoss(j=1.0)(tl.tensor([[-0.5, -3.0]]), [0])  # 0.5 + log(e^-1 + e^-0.5 + e^-3)
    tensor(0.52390903)
    """

    @checked
    def __init__(self, j: Real = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.j, self.reduction = j, reduction

    def forward(self, logits: Any, labels: Any) -> Tensor:
        """Minus the penalties (N, C) and labels (N,) to the loss."""
        logits = tensor_of("logits", logits)
        tensor_of("labels", labels)  # refuses what is none
        classes = _target(labels).numpy()
        if logits.ndim != 2 or logits.dtype.kind != "f" or classes.shape != logits.shape[:1]:
            raise ShapeError(f"logits must be floats (N, C) and labels (N,), got {said(logits)} and {said(classes)}")
        if classes.size and classes.dtype.kind not in "iu":
            raise DTypeError(f"labels must be integers, got {classes.dtype}")
        wrong = classes[(classes >= logits.shape[1]) | (classes < 0) & (classes != -100)]  # one more is rubbish's
        if wrong.size:  # and -100 is ignored
            raise ArgumentError(f"labels lie in 0 … {logits.shape[1] - 1}, got {wrong[0]}")
        rubbish = full((len(logits), 1), -self.j, dtype=logits.dtype)
        return F.cross_entropy(concatenate([logits, rubbish], axis=1), labels, reduction=self.reduction)

    @checked
    def second_derivative(self, features: NDArray[Any]) -> NDArray[Any]:
        """For each of F6's values (N, 84) the second derivative of a sample's loss with respect to it.

        With ``p`` the posterior of the ten classes and of rubbish, ``2 * p[rubbish] + 4 * variance`` under ``p`` of the
        difference to a class's code (rubbish: 0). It is never negative, and does not depend on the label.
        """
        features = tensor_of("features", features).numpy()
        if features.ndim != 2 or features.shape[1] != CODES.shape[1]:
            raise ShapeError(f"features must be (N, 84), got {features.shape}")
        difference = features[:, None, :] - CODES
        logits = np.concatenate([-(difference**2).sum(axis=2), np.full((len(features), 1), -self.j)], axis=1)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        mean = (p[:, :-1, None] * difference).sum(axis=1)
        variance = (p[:, :-1, None] * (difference - mean[:, None]) ** 2).sum(axis=1) + p[:, -1:] * mean**2
        found: NDArray[Any] = 2 * p[:, -1:] + 4 * variance
        return found


@checked
def gauss_newton_diagonal(body: Sequential, x: Any, second: Any) -> list[NDArray[Any]]:
    """For each parameter of a chain of layers an estimate of the second derivative of the loss, never negative: the
    mean over the samples, as appendix C propagates it.

    Where a layer computes ``a = sum of w * x`` and ``x' = f(a)``, the paper takes ``d2E/dw2 = d2E/da2 * x^2``,
    ``d2E/dx2 = sum of w^2 * d2E/da2`` and ``d2E/da2 = f'(a)^2 * d2E/dx'2``: only the diagonal of each layer's Hessian,
    and without the terms in ``f''`` (Gauss-Newton). These are the rules of *first* derivatives of a network whose
    weights and values are the squares of these; so that is what is differentiated here.

    Args:
        body: :class:`Conv2d`, :class:`PartialConv2d`, :class:`Linear`, :class:`Subsampling`, :class:`ScaledTanh` and
            :class:`Flatten` layers.
        x: its input, (N, ...).
        second: the second derivative of each sample's loss with respect to its output, or a function of the output (N,
            ...) that gives it.

    Float16 is computed and returned as float32, since squares of float16 do not fit into it.

    Raises:
        DTypeError: another kind of layer.

    >>> import numpy as np
    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> body = nn.Sequential(nn.Linear(2, 1, generator=0))
    >>> nn.gauss_newton_diagonal(body, tl.tensor([[1.0, 3.0]]), np.ones((1, 1)))  # 1 at the output: x^2, and 1
    [array([[1., 9.]], dtype=float32), array([1.], dtype=float32)]
    """
    parameters = list(instance("body", body, Sequential).parameters())
    squares = {id(p): tensor(_at_least_float32(p.numpy()) ** 2, requires_grad=True) for p in parameters}
    value = tensor(_at_least_float32(to_array(x)))
    square = value * value

    def like(values: Tensor, source: Tensor, slope: Any = 1.0) -> Tensor:
        """The values, with the gradient of ``slope * source``."""
        out: Tensor = values + slope * (source - source.detach())
        return out

    with enable_grad():
        for layer in body:
            weights = [squares[id(p)] for p in layer.parameters()]
            value, before = layer(value).detach(), value
            slope: Any = 1.0
            if isinstance(layer, Conv2d):
                bias = weights[1] if layer.bias is not None else None
                square = F.conv2d(square, weights[0], bias, layer.stride, layer.padding, layer.dilation, layer.groups)
            elif isinstance(layer, PartialConv2d):
                square = F.conv2d(square, layer.kernels(weights[0]), weights[1])
            elif isinstance(layer, Linear):
                square = F.linear(square, *weights)
            elif isinstance(layer, Subsampling):
                sums = layer.pooled(before).detach()
                square = weights[0] * like(sums * sums, layer.pooled(square)) + weights[1]
            elif isinstance(layer, ScaledTanh):
                slope = (1.7159 * 2 / 3 * (1 - (value / 1.7159) ** 2)) ** 2
            elif isinstance(layer, Flatten):
                square = layer(square)
            else:
                raise DTypeError(f"there is no rule for {type(layer).__name__}")
            square = like(value * value, square, slope)
        square.backward(second(value.numpy()) if callable(second) else second)
    count = len(value)
    return [squares[id(p)].grad.numpy() / count for p in parameters]  # type: ignore[union-attr]


def _at_least_float32(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float32) if values.dtype == np.float16 else values
