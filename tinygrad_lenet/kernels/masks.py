"""Selection of elements by a mask, with integer arithmetic on their bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import memory

# Integers of the size of an element: `and` with all ones keeps it exactly, with zeros clears it.
BITS: dict[int, Any] = {1: np.dtype(np.int8), 2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}


def mask_bits(x: NDArray[Any], mask: NDArray[Any], when: bool) -> Any:
    """``x`` where the mask equals ``when``, else 0.

    It takes a tenth of the time of ``np.where`` for a random mask, and unlike ``x * mask`` no NaN arises from
    ``inf * 0``.
    """
    bits = memory.empty_like(mask, BITS[x.dtype.itemsize])
    flags = mask.view(np.int8)
    np.copyto(bits, np.negative(flags) if when else np.subtract(flags, 1))  # -1 is all ones
    # Into the same memory, unless broadcasting needs more.
    return np.bitwise_and(x.view(bits.dtype), bits, out=bits if bits.shape == x.shape else None).view(x.dtype)
