"""Functions of networks, under the names and with the signatures of ``torch.nn.functional``; imported as ``F``.

Here are the composites: losses, normalisation, dropout. The primitives they are made of are reachable here too, so that
``F.conv2d``, ``tinygrad_lenet.conv2d`` and ``x.conv2d`` are one and the same.
"""

from ..ops import activations
from ..ops.activations import *
from ..ops.convolution import conv2d, conv_transpose2d, fold, unfold
from ..ops.indexing import one_hot
from ..ops.pooling import avg_pool2d, max_pool2d
from ..ops.products import linear
from ..ops.rearrange import pad
from ..ops.reduction import log_softmax, softmax
from . import layers, losses, spatial
from .layers import *
from .losses import *
from .spatial import *

__all__ = [
    "avg_pool2d",
    "conv2d",
    "conv_transpose2d",
    "fold",
    "linear",
    "log_softmax",
    "max_pool2d",
    "one_hot",
    "pad",
    "softmax",
    "unfold",
]
__all__ += activations.__all__
__all__ += layers.__all__
__all__ += losses.__all__
__all__ += spatial.__all__
__all__.sort()

del activations
