"""Checking gradients against numerical ones; ``testing.strategies`` draws inputs for property tests."""

from .gradcheck import GradientCheckError, gradcheck, numerical_gradient, numerical_jacobian

__all__ = ["GradientCheckError", "gradcheck", "numerical_gradient", "numerical_jacobian"]
