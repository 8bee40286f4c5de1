"""What the classifiers of frozen features share: pixels of the supports, labelled, stand for the class.

Nothing is trained: the backbone comes with its weights, and an episode's classifier is made of its supports alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.methods.few_shot.base import Features, FewShotMethod, State
from segladder.nets.backbone import FeatureExtractor
from segladder.ops.upsampling import bilinear
from segladder.settings import TwoOrMore


class PixelClassifier(FewShotMethod):
    """Scores each query pixel by a classifier of unit-length features.

    A support's state is `features` (B, P, C) and `labels` (B, P) of some of its pixels; P is the same for all supports
    of one size. A subclass may turn them into a classifier in `combine`, and scores pixels in `score`.

    Args:
        backbone: the feature extractor; it is frozen.
        num_classes: of the data set.
        criterion: the loss, which is measured and never minimised.
        level: which of the backbone's maps; negative ones count from the last.
        pixels: how many a support contributes, the class at most half of them where there is enough background.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a level that the backbone does not have, or fewer than 2 pixels.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        level: int,
        pixels: TwoOrMore,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, criterion, mean=backbone.mean, std=backbone.std, **common)
        backbone.check_level(level)
        backbone.leftover.clear()
        self.backbone = backbone.requires_grad_(False)
        self.level = level
        self.pixels = pixels

    @abstractmethod
    def score(self, pixels: Tensor, state: State) -> Tensor:
        """How much more the class than the background, (B, M), for unit-length pixels (B, M, C); finite."""

    def encode(self, images: Tensor) -> Features:
        """The chosen map (B, C, h, w), of unit length at every pixel."""
        return (F.normalize(self.backbone(images)[self.level].float(), dim=1),)

    def condition(self, support_images: Tensor | None, support_features: Features, support_masks: Tensor) -> State:
        """Features (B, P, C) and labels (B, P) of the chosen pixels."""
        labels = cell_labels(support_masks, support_features[0].shape[-2:]).flatten(1)  # (B, h w)
        places = torch.stack([chosen_pixels(row, self.pixels) for row in labels])  # (B, P)
        features = support_features[0].flatten(2).transpose(1, 2)  # (B, h w, C)
        chosen = features.gather(1, places[..., None].expand(-1, -1, features.shape[-1]))
        return chosen, labels.gather(1, places).to(features.dtype)

    def combine(self, states: Sequence[State], weights: Tensor) -> State:
        """The pixels of all supports (B, P, C), and how much each weighs for background and class (B, 2, P).

        The weights of a side sum to 1, or are all 0 where no support has a pixel of it.
        """
        features, labels = (torch.cat(parts, 1) for parts in zip(*states, strict=True))
        shares = torch.cat([weights[:, k, None].expand_as(support[1]) for k, support in enumerate(states)], 1)
        memberships = torch.stack([1 - labels, labels], 1) * shares[:, None].to(labels.dtype)  # (B, 2, P)
        totals = memberships.sum(2, keepdim=True)
        return features, memberships / torch.where(totals > 0, totals, 1)

    def decode(self, query_features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits (B, 2, H, W): 0 and the score."""
        maps = query_features[0]
        scores = self.score(maps.flatten(2).transpose(1, 2), state).unflatten(1, maps.shape[-2:])  # (B, h, w)
        return bilinear(torch.stack([torch.zeros_like(scores), scores], 1), size)


def cell_labels(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Which cells of a (h, w) grid belong to the class, bool (B, h, w), for masks (B, H, W) of 0 and 1.

    A cell belongs if the class covers half of it; where it covers half of none, the fullest cells do.
    """
    height, width = size
    shares = F.adaptive_avg_pool2d(masks[:, None], (height, width))[:, 0]  # (B, h, w)
    fullest = shares.amax((1, 2), keepdim=True)
    return (shares >= fullest.clamp(max=0.5)) & (shares > 0)


def chosen_pixels(labels: Tensor, pixels: TwoOrMore) -> Tensor:
    """Places of at most `pixels` of the labels, bool (M,): class pixels up to half, background for the rest.

    Where one side has too few, the other fills up; either is thinned out evenly. int64 (min(pixels, M),).
    """
    foreground, background = labels.nonzero()[:, 0], (~labels).nonzero()[:, 0]
    pixels = min(pixels, len(labels))
    kept = min(len(foreground), max(pixels // 2, pixels - len(background)))
    return torch.cat([_evenly(foreground, kept), _evenly(background, pixels - kept)])


def _evenly(places: Tensor, count: int) -> Tensor:
    return places[torch.arange(count, device=places.device) * len(places) // max(1, count)]
