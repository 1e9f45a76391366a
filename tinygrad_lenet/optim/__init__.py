"""Optimisers, schedules of the learning rate, and clipping of gradients."""

from .optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, StochasticDiagonalLM, clip_grad_norm_
from .schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
)

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "StochasticDiagonalLM",
    "clip_grad_norm_",
]
