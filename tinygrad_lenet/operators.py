"""The one table that hangs operators and methods on Tensor. Their types are spelled in ``_methods.py``; a test compares
the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .core.tensor import Tensor
from .ops import (
    activations,
    contractions,
    convolution,
    elementwise,
    indexing,
    logic,
    logits,
    maths,
    pooling,
    products,
    rearrange,
    reduction,
    shape,
    sorting,
)


def _reflected(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``2 - x``: Python calls ``x.__rsub__(2)``."""
    return lambda self, other: op(other, self)


def _in_place(name: str) -> Callable[..., Tensor]:
    """``x += 2``: Python calls ``x.__iadd__(2)``."""
    return lambda self, other: self._in_place(name, other)


OPERATORS: dict[str, Any] = {
    "T": property(shape.transpose, doc="All axes reversed; a view."),
    "__add__": elementwise.add,
    "__sub__": elementwise.sub,
    "__mul__": elementwise.mul,
    "__truediv__": elementwise.div,
    "__pow__": maths.pow,
    "__mod__": elementwise.mod,
    "__matmul__": products.matmul,
    "__radd__": _reflected(elementwise.add),
    "__rsub__": _reflected(elementwise.sub),
    "__rmul__": _reflected(elementwise.mul),
    "__rtruediv__": _reflected(elementwise.div),
    "__rpow__": _reflected(maths.pow),
    "__rmod__": _reflected(elementwise.mod),
    "__rmatmul__": _reflected(products.matmul),
    "__neg__": elementwise.neg,
    "__pos__": elementwise.clone,
    "__abs__": elementwise.abs,
    "__eq__": elementwise.eq,
    "__ne__": elementwise.ne,
    "__lt__": elementwise.lt,
    "__le__": elementwise.le,
    "__gt__": elementwise.gt,
    "__ge__": elementwise.ge,
    "__and__": logic.bitwise_and,
    "__or__": logic.bitwise_or,
    "__xor__": logic.bitwise_xor,
    "__rand__": _reflected(logic.bitwise_and),
    "__ror__": _reflected(logic.bitwise_or),
    "__rxor__": _reflected(logic.bitwise_xor),
    "__invert__": logic.bitwise_not,
    "__getitem__": indexing.getitem,
    **{f"__i{name}__": _in_place(name) for name in ["add", "sub", "mul", "truediv", "and", "or", "xor"]},
}

METHODS: dict[str, Callable[..., Any]] = {
    name: getattr(module, name)
    for module, names in {
        elementwise: "abs sign floor ceil round reciprocal mod maximum minimum clip clone astype",
        maths: "square sqrt pow exp expm1 log log1p log2 log10 sin cos tan arcsin arccos arctan sinh cosh erf hypot",
        activations: "tanh sigmoid relu",
        reduction: "sum mean var std max min amax amin prod cumsum cumprod norm any all count_nonzero argmax argmin",
        logits: "logsumexp softmax log_softmax",
        sorting: "sort argsort topk median",
        shape: "reshape permute transpose moveaxis swapaxes broadcast_to flatten squeeze unsqueeze expand_dims",
        rearrange: "flip roll tile repeat split chunk unbind tril triu diagonal",
        indexing: "gather scatter scatter_add take_along_axis",
        products: "matmul",
        contractions: "dot inner outer trace",
        pooling: "max_pool2d avg_pool2d",
        convolution: "conv2d unfold fold",
    }.items()
    for name in names.split()
}

for _name, _function in {**OPERATORS, **METHODS}.items():
    setattr(Tensor, _name, _function)
