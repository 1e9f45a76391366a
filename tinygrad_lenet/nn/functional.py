"""``tinygrad_lenet.functional``, where PyTorch has it."""

from ..functional import *
