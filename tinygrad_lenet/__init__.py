"""tinygrad_lenet: automatic differentiation on NumPy, small enough to read, complete enough to train LeNet-5 on MNIST.

>>> import tinygrad_lenet as tl
>>> x = tl.tensor([1.0, 2.0], requires_grad=True)
>>> y = (x.exp() * x).sum()
>>> y.backward()
>>> x.grad  # e^x (1 + x)
tensor([ 5.436564, 22.167168])
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from . import functional, operators
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
from .threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Array",
    "DTypeError",
    "DataError",
    "DownloadError",
    "GradientError",
    "OutOfRangeError",
    "ShapeError",
    "Tensor",
    "TinygradLenetError",
    "__version__",
    "abs",
    "add",
    "arange",
    "argmax",
    "argmin",
    "astype",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "clip",
    "clone",
    "concatenate",
    "conv2d",
    "conv_transpose2d",
    "cos",
    "cross_entropy",
    "data",
    "div",
    "draw",
    "dropout",
    "elu",
    "enable_grad",
    "eq",
    "exp",
    "eye",
    "flatten",
    "fold",
    "full",
    "functional",
    "ge",
    "get_num_threads",
    "getitem",
    "grad",
    "gt",
    "is_grad_enabled",
    "l1_loss",
    "le",
    "leaky_relu",
    "linear",
    "log",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "lt",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mse_loss",
    "mul",
    "ne",
    "neg",
    "nll_loss",
    "nn",
    "no_grad",
    "ones",
    "optim",
    "pad",
    "permute",
    "pow",
    "prelu",
    "primitive",
    "rand",
    "randn",
    "relu",
    "reshape",
    "set_num_threads",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "tanh",
    "tensor",
    "testing",
    "transpose",
    "unfold",
    "unsqueeze",
    "var",
    "where",
    "zeros",
]

del operators  # imported for what it hangs on Tensor

if TYPE_CHECKING:
    from . import data, nn, optim, testing


def __getattr__(name: str) -> ModuleType:
    """Import what stands on top of Tensors when it is first used: nearly a third of what importing all takes."""
    if name in ("data", "nn", "optim", "testing"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
