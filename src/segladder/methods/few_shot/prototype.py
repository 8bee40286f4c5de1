"""Training-free prototypes: each place of the query goes to the more similar of two mean features of the support.

The inference of PANet (Wang et al., ICCV 2019, https://arxiv.org/abs/1908.06391) on features as they were pretrained:
the baseline that episodic training has to beat, and with a frozen vision transformer a strong one. No official code, no
published number.

Differences from PANet: nothing learns; any backbone, at the deepest level of at most 16 pixels a step; the background's
prototype can be replaced by a threshold on the cosine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segladder.methods.few_shot.base import Features, FewShotMethod, State
from segladder.nets.backbone import FeatureExtractor
from segladder.ops.prototypes import cosine_similarity_map, masked_average_pooling
from segladder.ops.upsampling import bilinear
from segladder.settings import AboveZero

COARSEST_STRIDE = 16


class Prototype(FewShotMethod):
    """Cosine to the prototypes of class and background, times a temperature, as logits.

    Args:
        backbone: the feature extractor; frozen unless the method trains.
        num_classes: of the data set.
        criterion: the loss, where the method trains.
        level: index of the backbone's level; None takes the deepest of at most 16 pixels a step.
        temperature: factor on cosines.
        background_prototype: whether the background has a prototype too.
        threshold: the cosine that stands in for the background's without one.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a level the backbone does not have.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        level: int | None = None,
        temperature: AboveZero = 20.0,
        background_prototype: bool = True,
        threshold: float = 0.5,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, criterion, mean=backbone.mean, std=backbone.std, **common)
        self.backbone = backbone
        self.level = _deepest_fine_level(backbone.strides) if level is None else level
        backbone.check_level(self.level)
        self.temperature = temperature
        self.background_prototype = background_prototype
        self.threshold = threshold
        if not self.trains:
            backbone.requires_grad_(False)

    def encode(self, images: Tensor) -> Features:
        """The chosen level (B, C, h, w)."""
        return (self.backbone(images)[self.level],)

    def condition(self, support_images: Tensor | None, support_features: Features, support_masks: Tensor) -> State:
        """Prototypes (B, C) of the class and, unless a threshold replaces it, of everything else."""
        (features,) = support_features
        masks = [support_masks, 1 - support_masks] if self.background_prototype else [support_masks]
        return tuple(masked_average_pooling(features, mask) for mask in masks)

    def decode(self, query_features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits of background and class (B, 2, H, W)."""
        return bilinear(self.similarities(query_features, state), size)

    def similarities(self, features: Features, state: State) -> Tensor:
        """Logits of background and class (B, 2, h, w) at the features' places."""
        cosines = [cosine_similarity_map(features[0], prototypes) for prototypes in state]
        background = cosines[1] if self.background_prototype else torch.full_like(cosines[0], self.threshold)
        return torch.stack([background, cosines[0]], 1) * self.temperature


def _deepest_fine_level(strides: list[int]) -> int:
    return max((level for level, stride in enumerate(strides) if stride <= COARSEST_STRIDE), default=0)
