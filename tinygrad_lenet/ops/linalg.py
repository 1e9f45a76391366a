"""Linear algebra of square matrices, and norms: ``tinygrad_lenet.linalg``, under NumPy's and PyTorch's common names."""

from __future__ import annotations

__all__: list[str] = []
