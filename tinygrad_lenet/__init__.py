"""tinygrad_lenet: automatic differentiation on NumPy, small enough to read, complete enough to train LeNet-5 on MNIST.

>>> import tinygrad_lenet as tl
>>> x = tl.tensor([1.0, 2.0], requires_grad=True)
>>> y = (x.exp() * x).sum()
>>> y.backward()
>>> x.grad  # e^x (1 + x)
tensor([ 5.4365635, 22.167168 ])
"""

from . import functional, operators  # noqa: F401  # operators hangs the methods on Tensor
from .errors import (
    ArgumentError,
    DataError,
    DownloadError,
    DTypeError,
    GradientError,
    OutOfRangeError,
    ShapeError,
    TinygradLenetError,
)
from .functional import (
    batch_norm,
    binary_cross_entropy_with_logits,
    cross_entropy,
    dropout,
    l1_loss,
    mse_loss,
    nll_loss,
    prelu,
)
from .graph import enable_grad, is_grad_enabled, no_grad
from .ops.convolution import conv2d, conv_transpose2d, fold, unfold
from .ops.creation import arange, eye, full, ones, rand, randn, zeros
from .ops.elementwise import (
    abs,
    add,
    astype,
    clip,
    clone,
    cos,
    div,
    elu,
    eq,
    exp,
    ge,
    gt,
    le,
    leaky_relu,
    log,
    logical_and,
    logical_not,
    logical_or,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    pow,
    relu,
    sigmoid,
    sign,
    sin,
    softplus,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from .ops.indexing import getitem
from .ops.linalg import linear, matmul
from .ops.pooling import avg_pool2d, max_pool2d
from .ops.reduction import argmax, argmin, log_softmax, logsumexp, max, mean, min, softmax, std, sum, var
from .ops.shape import (
    broadcast_to,
    concatenate,
    flatten,
    pad,
    permute,
    reshape,
    squeeze,
    stack,
    transpose,
    unsqueeze,
)
from .primitive import Array, draw, primitive
from .tensor import Tensor, grad, tensor

__version__ = "0.1.0"
