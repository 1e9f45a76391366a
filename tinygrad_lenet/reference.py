"""The definitions of the ops, in plain loops and plain NumPy.

    >>> import numpy as np
    >>> from tinygrad_lenet import reference
    >>> reference.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    array([[[[4., 4.],
             [4., 4.]]]])

Each function takes and returns arrays. Options are numbers, pairs and words; nothing is checked. The definitions are
slow and meant to be read. The ops of the same names compute the same results fast, and are tested against them.
"""

from .ops.activations import gelu_definition as gelu
from .ops.activations import relu_definition as relu
from .ops.activations import sigmoid_definition as sigmoid
from .ops.activations import softplus_definition as softplus
from .ops.activations import tanh_definition as tanh
from .ops.convolution import conv2d_definition as conv2d
from .ops.convolution import conv2d_input_grad_definition as conv2d_input_grad
from .ops.convolution import conv2d_weight_grad_definition as conv2d_weight_grad
from .ops.losses import cross_entropy_definition as cross_entropy
from .ops.normalization import batch_norm_definition as batch_norm
from .ops.normalization import layer_norm_definition as layer_norm
from .ops.pooling import avg_pool2d_definition as avg_pool2d
from .ops.pooling import max_pool2d_definition as max_pool2d
from .ops.unfold import fold_definition as fold
from .ops.unfold import unfold_definition as unfold

__all__ = ["avg_pool2d", "batch_norm", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "cross_entropy", "fold"]
__all__ += ["gelu", "layer_norm", "max_pool2d", "relu", "sigmoid", "softplus", "tanh", "unfold"]
