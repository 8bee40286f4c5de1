"""The floor of every few-shot table: the whole query is the class.

Not a published method. Its IoU is the share of pixels that the class takes in the queries; a method has earned only
what it scores above it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segladder.methods.few_shot.base import Features, FewShotMethod, State


class AllForeground(FewShotMethod):
    """Says "class" at every pixel, whatever the support.

    Args:
        num_classes: of the data set.
        criterion: unused, nothing learns.
        common: the arguments of `Method`.
    """

    reads_support_features = False

    def __init__(self, num_classes: int, criterion: nn.Module, **common: Any) -> None:
        super().__init__(num_classes, criterion, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), **common)

    def encode(self, images: Tensor) -> Features:
        """One number an image, so that there is a batch."""
        return (images[:, :1, :1, :1],)

    def condition(self, support_images: Tensor | None, support_features: Features, support_masks: Tensor) -> State:
        """Nothing."""
        return ()

    def decode(self, query_features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits -1 and 1 everywhere, (B, 2, H, W)."""
        logits = torch.tensor([-1.0, 1.0], device=query_features[0].device)
        return logits.view(1, 2, 1, 1).expand(len(query_features[0]), 2, *size)
