"""Functions of networks, with the names and signatures of ``torch.nn.functional``; usually imported as ``F``.

They are the functions of ``tinygrad_lenet``: ``F.conv2d``, ``tinygrad_lenet.conv2d`` and ``x.conv2d`` are the same.
"""

from typing import TYPE_CHECKING

from . import hints as _hints
from .ops import public

if TYPE_CHECKING:
    from .ops.activations import *
    from .ops.convolution import *
    from .ops.dropout import *
    from .ops.indexing import embedding as embedding
    from .ops.indexing import one_hot as one_hot
    from .ops.losses import *
    from .ops.normalization import *
    from .ops.pooling import *
    from .ops.products import linear as linear
    from .ops.rearrange import pad as pad
    from .ops.resize import *
    from .ops.softmax import log_softmax as log_softmax
    from .ops.softmax import softmax as softmax
    from .ops.unfold import *
else:
    globals().update(public("nn.functional"))
    __all__ = sorted(public("nn.functional"))
    _hints.answer_in("tl", __name__)
