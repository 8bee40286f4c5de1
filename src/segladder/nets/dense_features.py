"""A visual network for semantic vectors: levels of any backbone as one map of features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.nets.backbone import FeatureExtractor, deepest_of_each
from segladder.ops.upsampling import bilinear
from segladder.settings import Positive


class DenseFeatures(nn.Module):
    """Levels of a backbone, each through its own convolution, enlarged to the finest, summed, normalised, rectified.

    With `rates` and a backbone of output stride 8 as both strides it is DeepLabv2's pyramid (Chen et al. 2018), the
    visual network of SPNet and CaGNet, before their classifier.

    Args:
        backbone: the feature extractor.
        channels: D, of the features.
        finest_stride: levels of smaller stride are not used; of those left, the finest sets the features' size.
        coarsest_stride: levels of larger stride are not used, and what only they need does not learn; None uses all.
        rates: dilations of the 3x3 convolutions that are summed on each level; none: one 1x1 convolution.

    Raises:
        ConfigError: strides between which the backbone has no level.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        channels: Positive,
        finest_stride: Positive,
        coarsest_stride: Positive | None,
        rates: Sequence[Positive] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels
        self.levels = _levels(backbone.strides, finest_stride, coarsest_stride or backbone.strides[-1])
        self.laterals = nn.ModuleList(
            AtrousSum(backbone.channels[level], channels, rates)
            if rates
            else nn.Conv2d(backbone.channels[level], channels, 1, bias=False)
            for level in self.levels
        )
        self.norm = nn.BatchNorm2d(channels)
        if self.levels[-1] + 1 < len(backbone.strides):
            self._freeze_deeper_levels()

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, D, h, w), none negative, of normalised images (B, 3, H, W)."""
        maps = self.backbone(images)
        finest, *deeper = [lateral(maps[i]) for lateral, i in zip(self.laterals, self.levels, strict=True)]
        for feature in deeper:
            finest = finest + bilinear(feature, finest.shape[-2:])  # (B, D, h, w)
        features: Tensor = self.norm(finest).relu()
        return features

    def _freeze_deeper_levels(self) -> None:
        """Distributed training refuses parameters that learn and get no gradient."""
        learning = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        if learning:
            self.eval()  # running statistics stay as they are
            total = self(torch.zeros(1, 3, 64, 64)).sum()
            gradients = torch.autograd.grad(total, learning, allow_unused=True)
            for parameter, gradient in zip(learning, gradients, strict=True):
                parameter.requires_grad_(gradient is not None)
            self.train()


class AtrousSum(nn.Module):
    """The sum of 3x3 convolutions of several dilations: (B, C, h, w) to (B, D, h, w)."""

    def __init__(self, before: int, after: int, rates: Sequence[Positive]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=rate, dilation=rate, bias=False) for rate in rates
        )

    def forward(self, features: Tensor) -> Tensor:
        """The summed maps."""
        first, *others = [convolution(features) for convolution in self.convolutions]
        total: Tensor = sum(others, start=first)
        return total


def _levels(strides: Sequence[int], finest: int, coarsest: int) -> list[int]:
    """The deepest level of each stride within the bounds; of a backbone with one stride all levels."""
    used = [level for level, stride in enumerate(strides) if finest <= stride <= coarsest]
    if not used:
        raise ConfigError(
            f"method.features: no level between finest_stride={finest} and coarsest_stride={coarsest}; "
            f"the backbone's strides are {', '.join(map(str, strides))}"
        )
    if len(set(strides)) == 1:
        return used
    return [level for level in deepest_of_each(strides) if level in used]
