"""Guidance and segmentation branches of SG-One (Zhang et al. 2020): images to features to compare and to segment.

`VGGBranches` is the paper's network, named as in the official checkpoints; `PyramidBranches` is its scheme on any
backbone. New convolutions start as in the official code: Xavier uniform, biases at zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.nets.backbone import FeatureExtractor, deepest_of_each
from segladder.ops.upsampling import bilinear

BLOCKS = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))  # of VGG-16
POOL_STRIDES = (2, 2, 2, 1, 1)


class VGGBranches(nn.Module):
    """VGG-16's convolutions at stride 8 with the guidance branch `cls` and the segmentation branch `side*`.

    Args:
        guidance_channels: of the guidance features; 0 leaves that branch out. The paper's 512.
        side_channels: of the segmentation features; the paper's 128.
    """

    def __init__(self, guidance_channels: int = 512, side_channels: int = 128) -> None:
        super().__init__()
        self.guidance_channels, self.side_channels = guidance_channels, side_channels
        for number, (channels, stride) in enumerate(zip(BLOCKS, POOL_STRIDES, strict=True), start=1):
            self.add_module(f"features_{number}", _block(channels, stride))
        if guidance_channels:
            self.cls = nn.Sequential(_convolution(512, guidance_channels))
        self.side3_1 = nn.Sequential(_convolution(256, side_channels), nn.ReLU(inplace=True))
        self.side4_1 = nn.Sequential(_convolution(side_channels + 512, side_channels), nn.ReLU(inplace=True))
        self.side5_1 = nn.Sequential(_convolution(side_channels + 512, side_channels))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Guidance features (B, G, h, w), unless left out, and segmentation features (B, S, h, w); h = H / 8."""
        *_, third, fourth, fifth = self._maps(images)
        side = self.side4_1(torch.cat([self.side3_1(third), fourth], 1))
        side = self.side5_1(torch.cat([side, fifth], 1))  # (B, S, h, w)
        return (self.cls(fifth), side) if self.guidance_channels else (side,)

    def compared_features(self, images: Tensor) -> Tensor:
        """The guidance features (B, G, h, w) alone."""
        guidance: Tensor = self.cls(self._maps(images)[-1])
        return guidance

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for block in self.pretrained():
            maps.append(block(maps[-1]))
        return maps

    def pretrained(self) -> Iterator[nn.Module]:
        """The five blocks of VGG-16."""
        yield from (self.get_submodule(f"features_{number}") for number in range(1, 6))

    def take_weights(self, backbone: FeatureExtractor) -> None:
        """Copy a VGG-16's 26 convolution weights and biases, and which of them learn."""
        sources = (m for m in backbone.modules() if isinstance(m, nn.Conv2d))
        targets = (m for block in self.pretrained() for m in block.modules() if isinstance(m, nn.Conv2d))
        for source, target in zip(sources, targets, strict=True):
            target.load_state_dict(source.state_dict())
            for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
                ours.requires_grad_(theirs.requires_grad)
        backbone.leftover.clear()  # fc6 and fc7: 400 MB


class PyramidBranches(nn.Module):
    """SG-One's two branches on any backbone: guidance from its deep levels, segmentation from all levels.

    Args:
        backbone: the feature extractor.
        guidance_channels: of the guidance features; 0 leaves that branch out.
        side_channels: of the segmentation features.
        finest_stride: levels of smaller stride are not used; the segmentation features have this stride.
        guidance_stride: of the guidance features, made of the levels of this stride or more; None: of the last level.
        centre_guidance: whether guidance features are normalised over the batch. Otherwise they share a large mean,
            all cosines are near 1, and a network from few steps segments whatever is salient.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        guidance_channels: int,
        side_channels: int,
        finest_stride: int,
        guidance_stride: int | None = None,
        centre_guidance: bool = False,
    ) -> None:
        super().__init__()
        self.guidance_channels, self.side_channels = guidance_channels, side_channels
        self.backbone = backbone
        self.levels = _pyramid_levels(backbone.strides, finest_stride)
        channels = [backbone.channels[level] for level in self.levels]
        self.compared = _pyramid_levels(backbone.strides, guidance_stride or backbone.strides[-1], "guidance_stride")
        self.compared = self.compared if guidance_stride else self.compared[-1:]
        if guidance_channels:
            deep_channels = sum(backbone.channels[level] for level in self.compared)
            self.cls = nn.Sequential(_convolution(deep_channels, guidance_channels))
            if centre_guidance:
                self.cls.append(nn.BatchNorm2d(guidance_channels, affine=False))
        self.laterals = nn.ModuleList(_convolution(c, side_channels) for c in channels)
        self.carries = nn.ModuleList(_convolution(side_channels, side_channels, bias=False) for _ in channels[1:])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Guidance features (B, G, h, w), unless left out, and segmentation features (B, S, h', w')."""
        maps = list(self.backbone(images))
        finest, *deeper = [maps[level] for level in self.levels]
        side = self.laterals[0](finest)  # (B, S, h', w')
        for carry, lateral, feature in zip(self.carries, self.laterals[1:], deeper, strict=True):
            side = carry(side.relu()) + bilinear(lateral(feature), side.shape[-2:])
        return (self._compared_features(maps), side) if self.guidance_channels else (side,)

    def compared_features(self, images: Tensor) -> Tensor:
        """The guidance features (B, G, h, w) alone."""
        return self._compared_features(self.backbone(images))

    def _compared_features(self, maps: Sequence[Tensor]) -> Tensor:
        size = maps[self.compared[0]].shape[-2:]
        deep = [bilinear(maps[level], size) for level in self.compared]
        guidance: Tensor = self.cls(torch.cat(deep, 1))
        return guidance

    def pretrained(self) -> Iterator[nn.Module]:
        """The backbone."""
        yield self.backbone


def _convolution(before: int, after: int, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(before, after, 3, padding=1, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _block(channels: tuple[int, ...], stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [_convolution(before, after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(3, stride, padding=1))


def _pyramid_levels(strides: list[int], finest_stride: int, knob: str = "finest_stride") -> list[int]:
    """The deepest level of each stride from `finest_stride` on; of a backbone with one stride all levels."""
    used = [level for level, stride in enumerate(strides) if stride >= finest_stride]
    if not used:
        raise ConfigError(f"method.{knob}={finest_stride}: the backbone's last level has {strides[-1]}")
    if len(set(strides)) == 1:
        return used
    return [level for level in deepest_of_each(strides) if level in used]
