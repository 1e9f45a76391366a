"""Checking gradients against numerical ones; ``testing.strategies`` draws inputs for property tests."""

from importlib import import_module
from types import ModuleType

from .gradcheck import GradientCheckError, gradcheck, numerical_gradient, numerical_jacobian

__all__ = ["GradientCheckError", "gradcheck", "numerical_gradient", "numerical_jacobian"]


def __getattr__(name: str) -> ModuleType:
    """Import the strategies, and with them hypothesis, when they are asked for."""
    if name == "strategies":
        return import_module(".strategies", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
