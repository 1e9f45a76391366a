"""The words of the package under one name, and what the operators of ONNX share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import helper

from .. import functional
from ..errors import UnsupportedError
from ..ops import (
    contractions,
    creation,
    elementwise,
    indexing,
    linalg,
    maths,
    products,
    rearrange,
    reduction,
    shape,
    sorting,
)
from ..tensor import as_tensor

_MODULES = (contractions, creation, elementwise, indexing, maths, products, rearrange, reduction, shape, sorting)
# The words as a user has them.
tl = SimpleNamespace(as_tensor=as_tensor, linalg=linalg)
for _module in (*_MODULES, functional):
    vars(tl).update({name: getattr(_module, name) for name in _module.__all__})


def refuse(condition: Any, why: str) -> None:
    """Say that an option of an operator has no counterpart in the package."""
    if condition:
        raise UnsupportedError(why)


def ints(value: Any) -> Any:
    """What newer versions give as a tensor of integers, older ones as an attribute."""
    return None if value is None else tuple(int(v) for v in np.asarray(value).reshape(-1))


FOREIGN = "strings, complex numbers, and dtypes that NumPy does not have"


def known(kind: Any) -> Any:
    """Whether a dtype, a number of ONNX's, is one that tensors can have."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    return dtype.isbuiltin == 1 and dtype.kind in "biuf"
