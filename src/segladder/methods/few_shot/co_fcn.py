"""co-FCN: a fully convolutional network conditioned on annotated supports, and its guided variant.

Rakelly, Shelhamer, Darrell, Efros, Levine: Conditional Networks for Few-Shot Semantic Segmentation, ICLR 2018 workshop,
https://openreview.net/forum?id=SkMjFKJwG (`fusion: early`), and Few-Shot Segmentation Propagation with Guided Networks,
2018, https://arxiv.org/abs/1806.07373 (`fusion: late`). Official code: https://github.com/shelhamer/revolver
(BSD-2-Clause); written anew. Published, VGG-16, PASCAL-5i: mean IoU 41.1 (1 shot), 41.4 (5 shots); both unverified.

Early fusion: a second network sees the support's pixels with its positive and negative annotation as fourth and fifth
channel; its features, averaged over space and shots, stand beside the query's at every pixel. Late fusion: one network
encodes both, and the support's features are averaged over the positive and over the negative pixels. Differences: any
backbone; maps keep their size by padding inside fc6, where the official code pads the image by 81 pixels; all supports
weigh the same, whatever their size; the score layer starts random, not at zero; pixels to be ignored count as negative;
late fusion scores both classes in one pass of the head. Early fusion starts deaf to dense annotations: a mask and its
complement meet equal new kernels and add up to a constant; the kernels part with the first step. The convolution that
meets them therefore learns even where `backbone.freeze` freezes its level.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods.few_shot.base import Features, FewShotMethod, State
from segladder.nets.backbone import FeatureExtractor
from segladder.ops.prototypes import masked_average_pooling
from segladder.ops.upsampling import bilinear
from segladder.settings import Positive, Share


class CoFCN(FewShotMethod):
    """A head on the query's features and on what the supports add up to.

    Args:
        backbone: the feature extractor; with early fusion the supports have a copy of their own.
        num_classes: of the data set.
        criterion: the loss.
        fusion: how annotations enter, `early` (as input channels) or `late` (as weights of an average of features).
        channels: of fc6 and fc7; the paper's 256.
        kernel: of fc6, odd; the paper's 7.
        dropout: of whole channels behind fc6 and fc7; the paper's .5.
        common: the arguments of `Method`.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        fusion: Literal["early", "late"],
        channels: Positive,
        kernel: Positive,
        dropout: Share,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, criterion, mean=backbone.mean, std=backbone.std, **common)
        if kernel % 2 == 0:
            raise ConfigError(f"method.kernel={kernel}: expected an odd number")
        backbone.leftover.clear()  # VGG's own fc6 has 4096 channels
        self.early = fusion == "early"
        self.reads_support_images, self.reads_support_features = self.early, not self.early
        self.backbone = backbone
        self.fc6 = _layer(backbone.channels[-1], channels, kernel, dropout)
        if self.early:
            self.support_backbone = copy.deepcopy(backbone)
            widen_input(self.support_backbone, 2)
            self.support_fc6 = _layer(backbone.channels[-1], channels, kernel, dropout)
        fc7 = _layer(channels * (2 if self.early else 3), channels, 1, dropout)
        self.head = nn.Sequential(fc7, nn.Conv2d(channels, 2, 1))

    def backbones(self) -> Iterator[nn.Module]:
        """The query's, and with early fusion the supports'."""
        yield self.backbone
        if self.early:
            yield self.support_backbone

    def encode(self, images: Tensor) -> Features:
        """fc6 (B, channels, h, w) of images (B, 3, H, W)."""
        return (self.fc6(self.backbone(images)[-1]),)

    def condition(self, support_images: Tensor | None, support_features: Features, support_masks: Tensor) -> State:
        """Averages of features: (B, channels) with early fusion, (B, 2 channels), positive first, with late."""
        if support_images is None:
            masks = (support_masks, 1 - support_masks)
            return (torch.cat([masked_average_pooling(support_features[0], mask) for mask in masks], 1),)
        positive = support_masks[:, None].to(support_images.dtype)
        annotated = torch.cat([support_images, positive, 1 - positive], 1)  # (B, 5, H, W)
        return (self.support_fc6(self.support_backbone(annotated)[-1]).mean((2, 3)),)

    def decode(self, query_features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits (B, 2, H, W) of the head on query features and tiled state."""
        features = query_features[0]
        tiled = state[0][..., None, None].expand(-1, -1, *features.shape[-2:])
        return bilinear(self.head(torch.cat([features, tiled], 1)), size)


def widen_input(backbone: nn.Module, extra: int) -> None:
    """Let the first convolution take `extra` more channels, in place; they start at the mean kernel of the colours.

    It learns afterwards, frozen or not before: frozen, it would answer a mask and its complement alike for ever.

    Raises:
        ConfigError: no module of the backbone is a plain convolution of three channels.
    """
    convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3 and m.groups == 1)
    first = next(convolutions, None)
    if first is None:
        raise ConfigError(
            "method.fusion=early: the backbone has no convolution of the image's three channels; use late"
        )
    colours = first.weight.detach()  # (C, 3, k, k)
    widened = torch.cat([colours, colours.mean(1, keepdim=True).expand(-1, extra, -1, -1)], 1)
    first.weight = nn.Parameter(widened)
    first.in_channels += extra


def _layer(before: int, after: int, kernel: Positive, dropout: Share) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.ReLU(), nn.Dropout2d(dropout))
