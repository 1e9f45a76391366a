"""tinygrad_lenet: automatic differentiation on NumPy, small enough to read, complete enough to train LeNet-5 on MNIST.

>>> import tinygrad_lenet as tl
>>> x = tl.tensor([1.0, 2.0], requires_grad=True)
>>> y = (x.exp() * x).sum()
>>> y.backward()
>>> x.grad  # e^x (1 + x)
tensor([ 5.436564, 22.167168])

What holds for all: where a signature says :class:`Array`, give a Tensor, an array, a number or a list. Shapes broadcast
and dtypes are promoted as in NumPy 2; a gradient has the shape and dtype of its tensor. ``dim`` for ``axis``,
``keepdim`` for ``keepdims``, ``input`` for ``x`` and ``other`` for ``y`` are understood as well. Shapes that do not fit
raise :class:`ShapeError` (a ValueError), dtypes :class:`DTypeError` (a TypeError), an axis that there is not
:class:`AxisError` (an IndexError), options :class:`ArgumentError` (a ValueError).
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import functional, operators, protocols
from .core.modes import enable_grad, is_grad_enabled, no_grad
from .core.primitive import Array, draw, primitive
from .core.tensor import Tensor, as_tensor, tensor
from .errors import (
    AnomalyError,
    ArgumentError,
    AxisError,
    DataError,
    DownloadError,
    DTypeError,
    GradientError,
    OutOfMemoryError,
    OutOfRangeError,
    ShapeError,
    TinygradLenetError,
    TooLargeError,
    UnsupportedError,
)
from .functional.layers import *
from .functional.losses import *
from .functional.spatial import *
from .kernels.threads import get_num_threads, set_num_threads
from .ops import (
    contractions,
    creation,
    elementwise,
    indexing,
    linalg,
    logic,
    logits,
    maths,
    products,
    rearrange,
    reduction,
    shape,
    sorting,
)
from .ops.activations import *
from .ops.contractions import *
from .ops.convolution import *
from .ops.creation import *
from .ops.elementwise import *
from .ops.indexing import *
from .ops.logic import *
from .ops.logits import *
from .ops.maths import *
from .ops.pooling import *
from .ops.products import *
from .ops.rearrange import *
from .ops.reduction import *
from .ops.shape import *
from .ops.sorting import *
from .protocols import from_dlpack

__version__ = "0.1.0"
sys.modules[f"{__name__}.tensor"] = sys.modules[Tensor.__module__]  # where older pickles look for Tensor

__all__ = [
    "AnomalyError",
    "ArgumentError",
    "Array",
    "AxisError",
    "DTypeError",
    "DataError",
    "DownloadError",
    "GradientError",
    "OutOfMemoryError",
    "OutOfRangeError",
    "ShapeError",
    "Tensor",
    "TinygradLenetError",
    "TooLargeError",
    "UnsupportedError",
    "__version__",
    "as_tensor",
    "checkpoint",
    "data",
    "detect_anomaly",
    "draw",
    "enable_grad",
    "from_dlpack",
    "functional",
    "get_num_threads",
    "grad",
    "hessian",
    "hvp",
    "is_grad_enabled",
    "jacobian",
    "jvp",
    "linalg",
    "load",
    "load_checkpoint",
    "nn",
    "no_grad",
    "onnx",
    "optim",
    "primitive",
    "reference",
    "save",
    "save_checkpoint",
    "set_num_threads",
    "tensor",
    "testing",
    "training",
    "value_and_grad",
    "visualize",
    "vjp",
]
__all__ += functional.__all__
for _module in (
    contractions,
    creation,
    elementwise,
    indexing,
    logic,
    logits,
    maths,
    products,
    rearrange,
    reduction,
    shape,
    sorting,
):
    __all__ += _module.__all__
__all__[:] = sorted({*__all__})

del sys
del operators  # imported for what it hangs on Tensor
del _module, contractions, creation, elementwise, indexing, logic, logits, maths
del products, protocols, rearrange, reduction, shape, sorting

if TYPE_CHECKING:
    from . import data, nn, onnx, optim, reference, testing, training, visualize
    from .anomaly import detect_anomaly
    from .calculus import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
    from .checkpointing import checkpoint
    from .serialization import load, load_checkpoint, save, save_checkpoint
else:  # type checkers would take any name then
    _HOMES = {"checkpoint": "checkpointing", "detect_anomaly": "anomaly"}
    _HOMES |= dict.fromkeys(("load", "load_checkpoint", "save", "save_checkpoint"), "serialization")
    _HOMES |= dict.fromkeys(("grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"), "calculus")

    def __getattr__(name: str) -> Any:
        """Import what stands on top of Tensors when it is first used: nearly a third of what importing all takes."""
        if name in ("data", "nn", "onnx", "optim", "reference", "testing", "training", "visualize"):
            return import_module(f".{name}", __name__)
        if name in _HOMES:
            found = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """For completion, also what is not imported yet."""
        return sorted({*globals(), *__all__})
