"""Models from and to ONNX, the format that other frameworks and runtimes read.

Needs the ``onnx`` library: ``pip install 'tinygrad_lenet[onnx]'``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .. import arguments
from ..errors import ArgumentError

if TYPE_CHECKING:
    from .model import OnnxModel

__all__ = ["export", "load"]


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401  # whether it is there
    except ModuleNotFoundError:
        raise ArgumentError("tinygrad_lenet.onnx needs the onnx library; pip install 'tinygrad_lenet[onnx]'") from None


def export(model: Any, example: Any, path: str | os.PathLike[str] | None, dynamic_batch: bool = True) -> Any:
    """Write a model to an ONNX file, as it computes in evaluation.

    The model is run, and the ops of that run are written down: so a ``for`` is unrolled, and an ``if`` has the branch
    that the example takes. It is run a second time with other values and another batch size, to see what follows these
    without being an op.

    Args:
        model: a module, or any function of Tensors; parameters keep their names.
        example: an input, or a tuple of them; its values do not matter, its shape and dtype do.
        path: the file; None writes none.
        dynamic_batch: whether the first axis of the inputs may have any length.

    Returns:
        The ``onnx.ModelProto``. Its inputs are called ``input`` (or ``input0``, ``input1``, ...), its outputs
        ``output``; ``onnx.checker`` has passed it.

    Raises:
        UnsupportedError: ONNX has no operator for an op, which is named with its line in the model; or the model
            computes with values outside of Tensors.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = tl.onnx.export(nn.LeNet5(generator=0), tl.zeros(1, 1, 28, 28), None)
    >>> [node.op_type for node in model.graph.node][:4]
    ['Conv', 'Relu', 'MaxPool', 'Conv']
    """
    _need_onnx()
    from . import writer

    arguments.function("onnx.export", "model", model)
    path = None if path is None else arguments.path("onnx.export", "path", path)
    return writer.export(model, example, path, arguments.flag("onnx.export", "dynamic_batch", dynamic_batch))


def load(path: str | os.PathLike[str] | Any) -> OnnxModel:
    """A model from an ONNX file (or an ``onnx.ModelProto``) as a module, to run and to train further.

    Its floats are parameters under the names that they have in the file, those that only say how to compute (the
    statistics of batch normalisation, bounds) are buffers. Batch normalisation and dropout do what the file says, which
    after an export is evaluation.

    Raises:
        DataError: there is no such file, it is damaged, or no valid model.
        UnsupportedError: an operator, or an option of one, that the package has no word for.

    >>> import tinygrad_lenet as tl
    >>> from tinygrad_lenet import nn
    >>> model = nn.Sequential(nn.Linear(4, 3, generator=0), nn.Tanh())
    >>> twin = tl.onnx.load(tl.onnx.export(model, tl.zeros(1, 4), None))
    >>> x = tl.rand(5, 4, generator=1)
    >>> bool((twin(x) == model(x)).all()), [name for name, _ in twin.named_parameters()]
    (True, ['0.weight', '0.bias'])
    """
    _need_onnx()
    from . import model

    if not hasattr(path, "SerializeToString"):
        path = arguments.path("onnx.load", "path", path)
    return model.load(path)
