"""LeNet-5, as a forward pass only: the graph computes the gradients.

The network is from Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document
recognition*, Proceedings of the IEEE 86(11), 1998, section II.B, in the form taught today. It differs from the paper in
four ways: images are 28×28 and padded instead of 32×32, the second convolution sees all feature maps of the first
pooling, pooling has no parameters, and the output is logits.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from ..checks import Positive
from ..core.signature import checked
from ..core.tensor import Tensor, tensor_of
from ..errors import ShapeError
from ..ops.creation import Seed, generator_of
from . import init
from .activations import ELU, LeakyReLU, ReLU, Sigmoid, Tanh
from .layers import Conv2d, Flatten, Linear
from .module import Module
from .normalization import BatchNorm2d
from .spatial import AvgPool2d, MaxPool2d

Activation: TypeAlias = Literal["relu", "tanh", "sigmoid", "leaky_relu", "elu"]
ACTIVATIONS = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid, "leaky_relu": LeakyReLU, "elu": ELU}
POOLS = {"max": MaxPool2d, "avg": AvgPool2d}


class LeNet5(Module):
    """A convolutional network that recognises digits: images (N, in_channels, 28, 28) to logits (N, num_classes).

    Args:
        num_classes: the number of logits.
        in_channels: the number of channels of the images; 1 for grey images.
        activation: ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"leaky_relu"`` or ``"elu"``.
        pool: ``"max"`` or ``"avg"``.
        batch_norm: whether to normalise after each convolution.
        generator: a seed or a NumPy generator for the initial weights; fresh entropy if None.

    With the defaults it has 61,706 parameters.

    Raises:
        ArgumentError: an unknown activation or pooling.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.LeNet5(generator=0)
    >>> sum(parameter.size for parameter in model.parameters())
    61706
    >>> model(tl.zeros(2, 1, 28, 28)).shape
    (2, 10)
    """

    @checked
    def __init__(
        self,
        num_classes: Positive = 10,
        in_channels: Positive = 1,
        activation: Activation = "relu",
        pool: Literal["max", "avg"] = "max",
        batch_norm: bool = False,
        generator: Seed = None,
    ) -> None:
        super().__init__()
        generator = generator_of(generator)
        self.in_channels = in_channels
        self.conv1 = Conv2d(in_channels, 6, kernel_size=5, padding="same", generator=generator)
        self.conv2 = Conv2d(6, 16, kernel_size=5, generator=generator)
        self.fc1 = Linear(16 * 5 * 5, 120, generator=generator)
        self.fc2 = Linear(120, 84, generator=generator)
        self.fc3 = Linear(84, num_classes, generator=generator)
        self.norm1 = BatchNorm2d(6) if batch_norm else None
        self.norm2 = BatchNorm2d(16) if batch_norm else None
        self.activation = ACTIVATIONS[activation]()
        self.pool = POOLS[pool](2)
        self.flatten = Flatten()
        self.reset(activation, generator)  # replaces the initial weights of the layers

    def forward(self, x: Any) -> Tensor:
        """Map images (N, in_channels, 28, 28) to logits (N, num_classes)."""
        x = tensor_of("x", x)
        if x.ndim != 4 or x.shape[1:] != (self.in_channels, 28, 28):
            raise ShapeError(f"expected images (N, {self.in_channels}, 28, 28), got {x.shape}; pad or resize them")
        x = self.conv1(x)  # (N, 6, 28, 28)
        x = self.norm1(x) if self.norm1 is not None else x
        x = self.pool(self.activation(x))  # (N, 6, 14, 14)
        x = self.conv2(x)  # (N, 16, 10, 10)
        x = self.norm2(x) if self.norm2 is not None else x
        x = self.pool(self.activation(x))  # (N, 16, 5, 5)
        x = self.flatten(x)  # (N, 400)
        x = self.activation(self.fc1(x))  # (N, 120)
        x = self.activation(self.fc2(x))  # (N, 84)
        logits: Tensor = self.fc3(x)  # (N, num_classes)
        return logits

    @checked
    def reset(self, activation: Activation, generator: np.random.Generator) -> None:
        """Draw new weights and set the biases to 0.

        He's rule is used for layers before a ReLU, leaky ReLU or ELU, and Glorot's rule for all others. The last layer
        gets a tenth of Glorot's weights: all classes are about equally likely at first, and the loss is log(10).
        """
        generator = generator_of(generator)  # one generator for all layers, if a seed is given
        for layer in (self.conv1, self.conv2, self.fc1, self.fc2, self.fc3):
            if layer is self.fc3:
                init.xavier_uniform_(layer.weight, 0.1, generator)
            elif activation in ("relu", "leaky_relu", "elu"):
                init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            else:
                # The slope of a sigmoid at 0 is a quarter of that of tanh, so Glorot & Bengio's rule is scaled by 4.
                init.xavier_uniform_(layer.weight, 4.0 if activation == "sigmoid" else 1.0, generator)
            if layer.bias is not None:
                init.zeros_(layer.bias)
