"""tinygrad_lenet: automatic differentiation on NumPy, small enough to read, complete enough to train LeNet-5 on MNIST.

>>> import tinygrad_lenet as tl
>>> x = tl.tensor([1.0, 2.0], requires_grad=True)
>>> y = (x.exp() * x).sum()
>>> y.backward()
>>> x.grad  # e^x (1 + x)
tensor([ 5.436564, 22.167168])

An argument annotated :class:`Array` may be a Tensor, an array, a number or a list. Shapes broadcast and dtypes are
promoted as in NumPy 2. A gradient has the shape and dtype of its tensor. Both spellings of a name work: ``dim`` and
``axis``, ``keepdim`` and ``keepdims``, ``input`` and ``x``, ``other`` and ``y``.

Incompatible shapes raise :class:`ShapeError` (a ValueError), wrong dtypes :class:`DTypeError` (a TypeError), an axis
out of range :class:`AxisError` (an IndexError), and invalid options :class:`ArgumentError` (a ValueError).
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import hints as _hints
from .core.dtypes import *
from .core.modes import *
from .core.primitive import Array as Array
from .core.primitive import draw as draw
from .core.primitive import primitive as primitive
from .core.tensor import Tensor as Tensor
from .core.tensor import as_tensor as as_tensor
from .core.tensor import tensor as tensor
from .errors import *
from .kernels.threads import get_num_threads as get_num_threads
from .kernels.threads import set_num_threads as set_num_threads
from .numpy_api import from_dlpack as from_dlpack
from .ops import SUBJECT as _SUBJECT
from .ops import function as _function

__version__ = "0.1.0"
sys.modules[f"{__name__}.tensor"] = sys.modules[Tensor.__module__]  # where older pickles look for Tensor

if TYPE_CHECKING:
    from . import data as data
    from . import functional as functional
    from . import nn as nn
    from . import onnx as onnx
    from . import optim as optim
    from . import reference as reference
    from . import testing as testing
    from . import training as training
    from . import visualize as visualize
    from .anomaly import detect_anomaly as detect_anomaly
    from .calculus import *
    from .checkpointing import checkpoint as checkpoint
    from .ops import linalg as linalg
    from .ops.activations import *
    from .ops.contractions import *
    from .ops.convolution import *
    from .ops.creation import *
    from .ops.dropout import *
    from .ops.elementwise import *
    from .ops.indexing import *
    from .ops.logic import *
    from .ops.losses import *
    from .ops.maths import *
    from .ops.normalization import *
    from .ops.pooling import *
    from .ops.products import *
    from .ops.rearrange import *
    from .ops.reduction import *
    from .ops.resize import *
    from .ops.shape import *
    from .ops.softmax import *
    from .ops.sorting import *
    from .ops.unfold import *
    from .replay import compile as compile
    from .serialization import *
else:  # hidden from type checkers, which would accept any name
    # The module of each name that is imported at its first use; _SUBJECT has those of ops.
    _MODULES = "data functional nn onnx ops.linalg optim reference testing training visualize"
    _LAZY = {module.rpartition(".")[2]: module for module in _MODULES.split()}
    _LAZY |= {"checkpoint": "checkpointing", "detect_anomaly": "anomaly", "compile": "replay"}
    _LAZY |= dict.fromkeys(("load", "load_checkpoint", "load_metadata", "save", "save_checkpoint"), "serialization")
    _LAZY |= dict.fromkeys(("grad", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"), "calculus")

    def __getattr__(name: str) -> Any:
        if name in _SUBJECT:
            found = _function(name)
        elif name not in _LAZY:
            return _hints.missing("tl", __name__, name)
        else:
            module = import_module(f".{_LAZY[name]}", __name__)
            found = module if _LAZY[name].endswith(name) else getattr(module, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

    _HERE = (__name__, "numpy.dtypes")  # the dtypes by name
    __all__ = [name for name, t in globals().items() if getattr(t, "__module__", type(t).__module__).startswith(_HERE)]
    __all__ = sorted({"__version__", *_LAZY, *_SUBJECT, *__all__} - {"_function", "__dir__", "__getattr__"})
