"""Heads that tell which neighbouring pixels belong together, on the levels of any backbone.

`AffinityHead` gives the features of AffinityNet (Ahn & Kwak 2018); `EdgeHead` and `DisplacementHead` are the branches
of IRNet (Ahn, Cho, Kwak 2019). Each takes all levels, shallow to deep, and a size to which they are brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.ops.upsampling import bilinear

Size = tuple[int, int]


def map_size(images: Tensor, stride: int) -> Size:
    """Height and width, rounded up, of a map of images (B, 3, H, W) with `stride` pixels a step."""
    height, width = images.shape[-2:]
    return -(-height // stride), -(-width // stride)


class AffinityHead(nn.Module):
    """Features whose distance is the affinity: 1x1 convolutions on the deepest levels, concatenated, mixed by another.

    Args:
        levels: channels of the backbone's levels.
        channels: kept of each of the last levels, the deepest last; the paper's 64, 128, 256.

    Raises:
        ConfigError: more channels than levels.
    """

    def __init__(self, levels: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        if len(channels) > len(levels):
            raise ConfigError(f"method.channels: {len(channels)} levels, but the backbone has {len(levels)}")
        self.depth = len(channels)
        pairs = zip(levels[-self.depth :], channels, strict=True)
        reductions = [nn.Conv2d(before, after, 1, bias=False) for before, after in pairs]
        for reduction in reductions:
            nn.init.kaiming_normal_(reduction.weight)
        self.reductions = nn.ModuleList(reductions)
        self.mixture = nn.Conv2d(sum(channels), sum(channels), 1, bias=False)
        nn.init.xavier_uniform_(self.mixture.weight, gain=4)

    def forward(self, features: Sequence[Tensor], size: Size) -> Tensor:
        """Features (B, sum(channels), *size)."""
        reduced = [
            bilinear(F.elu(reduction(feature)), size)
            for reduction, feature in zip(self.reductions, features[-self.depth :], strict=True)
        ]
        return F.elu(self.mixture(torch.cat(reduced, 1)))


class Lateral(nn.Module):
    """One level made ready for concatenation: 1x1 convolution, GroupNorm, resized, ReLU.

    Args:
        before: channels of the level.
        after: channels kept.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, 1, bias=False)
        groups = gcd(after, min(16, max(1, after // 8)))  # IRNet's 4, 8, 16, 16 for 32, 64, 128, 256 channels
        self.norm = nn.GroupNorm(groups, after)

    def forward(self, feature: Tensor, size: Size) -> Tensor:
        """(B, before, h, w) to (B, after, *size)."""
        return bilinear(self.norm(self.convolution(feature)), size).relu()


class EdgeHead(nn.Module):
    """Logits of class boundaries from every level.

    Args:
        levels: channels of the backbone's levels.
        channels: kept of each; the paper's 32.
    """

    def __init__(self, levels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(Lateral(before, channels) for before in levels)
        self.score = nn.Conv2d(channels * len(levels), 1, 1)

    def forward(self, features: Sequence[Tensor], size: Size) -> Tensor:
        """Logits (B, *size)."""
        sides = [lateral(feature, size) for lateral, feature in zip(self.laterals, features, strict=True)]
        logits: Tensor = self.score(torch.cat(sides, 1))[:, 0]
        return logits


class DisplacementHead(nn.Module):
    """Vectors from each pixel to its object's centre: deep levels first merged with each other, then with shallow ones.

    Args:
        levels: channels of the backbone's levels.
        channels: kept of the third level and deeper, the paper's 256; the second keeps a half, the first a quarter.

    Raises:
        ConfigError: fewer than three levels.
    """

    def __init__(self, levels: Sequence[int], channels: int) -> None:
        super().__init__()
        if len(levels) < 3:
            raise ConfigError(f"backbone: {len(levels)} levels, a displacement field needs 3 or more")
        shallow, deep = [max(1, channels // 4), max(1, channels // 2)], [channels] * (len(levels) - 2)
        self.laterals = nn.ModuleList(Lateral(*pair) for pair in zip(levels, [*shallow, *deep], strict=True))
        self.merge_deep = Lateral(sum(deep), channels)
        self.merge_all = Lateral(sum(shallow) + channels, channels)
        self.field = nn.Conv2d(channels, 2, 1, bias=False)

    def forward(self, features: Sequence[Tensor], size: Size) -> Tensor:
        """Displacements (B, 2, *size), rows first, in pixels of that size."""
        deep_size = features[2].shape[-2], features[2].shape[-1]
        sizes = [size, size, *[deep_size] * (len(features) - 2)]
        sides = [layer(*pair) for layer, pair in zip(self.laterals, zip(features, sizes, strict=True), strict=True)]
        deep = self.merge_deep(torch.cat(sides[2:], 1), size)  # (B, C, *size)
        field: Tensor = self.field(self.merge_all(torch.cat([*sides[:2], deep], 1), size))
        return field
