"""Checking gradients against numerical ones."""

from .gradcheck import GradientCheckError, gradcheck, numerical_gradient

__all__ = ["GradientCheckError", "gradcheck", "numerical_gradient"]
