"""Losses as modules, with PyTorch's names, arguments and defaults."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from .activations import Function


class CrossEntropyLoss(Function):
    """Softmax cross-entropy on logits; see :func:`tinygrad_lenet.cross_entropy`."""

    function = F.cross_entropy

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing)


class NLLLoss(Function):
    """Negative log-likelihood of log-probabilities; see :func:`tinygrad_lenet.nll_loss`."""

    function = F.nll_loss

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)


class MSELoss(Function):
    """Squared error; see :func:`tinygrad_lenet.mse_loss`."""

    function = F.mse_loss

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)


class L1Loss(Function):
    """Absolute error; see :func:`tinygrad_lenet.l1_loss`."""

    function = F.l1_loss

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)


class BCEWithLogitsLoss(Function):
    """Binary cross-entropy on logits; see :func:`tinygrad_lenet.binary_cross_entropy_with_logits`."""

    function = F.binary_cross_entropy_with_logits

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(weight=weight, reduction=reduction, pos_weight=pos_weight)


class SmoothL1Loss(Function):
    """Squared error near 0, absolute error beyond; see :func:`tinygrad_lenet.smooth_l1_loss`."""

    function = F.smooth_l1_loss

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction=reduction, beta=beta)


class HuberLoss(Function):
    """Squared error near 0, absolute error beyond; see :func:`tinygrad_lenet.huber_loss`."""

    function = F.huber_loss

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction, delta=delta)


class KLDivLoss(Function):
    """Kullback and Leibler's divergence; see :func:`tinygrad_lenet.kl_div`."""

    function = F.kl_div

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction=reduction, log_target=log_target)


class MultiMarginLoss(Function):
    """Multi-class hinge loss; see :func:`tinygrad_lenet.multi_margin_loss`."""

    function = F.multi_margin_loss

    def __init__(self, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(p=p, margin=margin, weight=weight, reduction=reduction)
