"""Losses of dense prediction: logits (B, K, H, W) and targets int64 (B, H, W), 255 ignored, to a scalar.

A batch whose pixels are all ignored costs 0 and sends back zero gradients, never NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.settings import NotNegative, Share

IGNORE = 255


class CrossEntropy(nn.Module):
    """Cross entropy, averaged over labelled pixels by the weight of their class.

    Args:
        class_weights: one factor per class, background first; None weighs all alike.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).

    Raises:
        ConfigError: on the first batch, if the number of weights is not the number of classes.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[NotNegative] | None = None, label_smoothing: Share = 0.0) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss."""
        weights = self.class_weights
        if weights is not None and len(weights) != logits.shape[1]:
            raise ConfigError(f"loss.class_weights: {len(weights)} values, expected {logits.shape[1]}, one per class")
        total = F.cross_entropy(
            logits, target, weights, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )
        labelled = target != IGNORE  # (B, H, W)
        share = labelled.sum() if weights is None else (weights[target.where(labelled, 0)] * labelled).sum()
        return total / share.clamp_min(torch.finfo(torch.float32).tiny)


class Focal(nn.Module):
    """Focal loss (Lin et al. 2017) of segmentation-models-pytorch: one-versus-rest sigmoids, averaged over classes.

    Args:
        gamma: how strongly easy pixels are played down; the paper's 2.
        alpha: weight of the positive side, 1 - alpha that of the negative; the paper's .25; None weighs both alike.
    """

    def __init__(self, gamma: NotNegative = 2.0, alpha: Share | None = None) -> None:
        super().__init__()
        self.loss = smp.losses.FocalLoss("multiclass", alpha=alpha, gamma=gamma, ignore_index=IGNORE)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss."""
        return self.loss(logits, target) if (target != IGNORE).any() else _nothing(logits)


class Dice(nn.Module):
    """Soft Dice loss (Milletari et al. 2016) of segmentation-models-pytorch over the batch, averaged over all classes.

    Args:
        smooth: added to numerator and denominator.
    """

    def __init__(self, smooth: NotNegative = 0.0) -> None:
        super().__init__()
        self.loss = smp.losses.DiceLoss("multiclass", smooth=smooth, ignore_index=IGNORE)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss; classes absent from the batch add nothing."""
        loss: Tensor = self.loss(logits, target)
        return loss


class Lovasz(nn.Module):
    """Lovasz-Softmax (Berman et al. 2018) of segmentation-models-pytorch over the classes present.

    Args:
        per_image: average over images instead of over the batch as one.
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image
        self.loss = smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss."""
        logits = logits.float()  # the library's Jaccard weights are float32
        parts = zip(logits.split(1), target.split(1), strict=True) if self.per_image else [(logits, target)]
        losses = [self.loss(x, y) for x, y in parts if (y != IGNORE).any()]
        return torch.stack(losses).mean() if losses else _nothing(logits)


class WeightedSum(nn.Module):
    """A sum of losses.

    Args:
        terms: the losses.
        weights: a factor for each.
    """

    def __init__(self, terms: Sequence[nn.Module], weights: Sequence[NotNegative]) -> None:
        super().__init__()
        if len(terms) != len(weights):
            raise ConfigError(f"loss.weights: {len(weights)} values, expected {len(terms)}, one per term")
        self.terms = nn.ModuleList(terms)
        self.weights = list(weights)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss."""
        return sum(
            (w * term(logits, target) for w, term in zip(self.weights, self.terms, strict=True)), logits.new_zeros(())
        )


def _nothing(logits: Tensor) -> Tensor:
    return logits[:0].sum()  # 0, with zero gradients
