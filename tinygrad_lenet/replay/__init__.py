"""Record a function of tensors, and replay it in memory made once: ``tl.compile``."""

from .compiled import Compiled as Compiled
from .compiled import compile as compile
