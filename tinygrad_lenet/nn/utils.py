"""Clipping of gradients, where PyTorch has it."""

from ..ops.clipping import *
