"""SegNet: the decoder puts values back where the encoder's max-pooling found them.

Badrinarayanan, Kendall, Cipolla: SegNet, TPAMI 2017, https://arxiv.org/abs/1511.00561. Official code: Caffe,
https://github.com/alexgkendall/caffe-segnet (BSD-2-Clause form); written anew here. Published: mIoU 60.1 (CamVid, 11
classes, trained on 3,433 images). Differences: pooling rounds sizes up, so that images of any size pass; class weights
(the paper's median frequency balancing) are the loss's to give.

`BackboneSegNet` has that decoder on any backbone. Backbones shrink maps by strides, so a level's maxima are looked
up in it, as pooling would have done, and the next level's values are put there; the last step, from the finest level to
the image, is bilinear.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.full.base import DenseMethod
from segladder.nets.backbone import FeatureExtractor, pretrained_weights
from segladder.nets.upsampling import Upsampling, UpsamplingKind
from segladder.ops.upsampling import bilinear, max_unpool
from segladder.settings import RGB, Positive, Positives


class Mirror(nn.Module):
    """What the two networks share: decoder stages, each after putting values back where maxima were."""

    decoder: nn.ModuleList
    upsamplings: nn.ModuleList
    upsampling: UpsamplingKind | Literal["max_unpooling"]

    def decoded(self, features: Tensor, pooled: Sequence[tuple[Tensor, Sequence[int]]]) -> Tensor:
        """(B, C, h, w) at the finest level's size; of each level, finest first: the maxima's places, its size."""
        for level in reversed(range(len(pooled))):
            features = self.decoder[level](self._grown(features, level, *pooled[level]))
        return features

    def _grown(self, features: Tensor, level: int, indices: Tensor, size: Sequence[int]) -> Tensor:
        if self.upsampling == "max_unpooling":
            return max_unpool(features, indices, size)
        grown: Tensor = self.upsamplings[level](features, size)
        return grown


class SegNetNetwork(Mirror):
    """Encoder stages that remember where their maxima were, decoder stages that mirror them.

    Args:
        num_classes: K.
        channels: of each encoder stage.
        convolutions: 3x3 convolutions in each stage.
        upsampling: `max_unpooling`, or a kind of `Upsampling`.

    Raises:
        ConfigError: numbers of convolutions that are not one for each of the channels.
    """

    def __init__(
        self,
        num_classes: int,
        channels: Positives,
        convolutions: Positives,
        upsampling: UpsamplingKind | Literal["max_unpooling"],
    ) -> None:
        super().__init__()
        if len(convolutions) != len(channels):
            raise ConfigError(
                f"method.convolutions: {len(convolutions)} values, method.channels has {len(channels)}: give one each"
            )
        widths = [3, *channels]
        self.encoder = nn.ModuleList(
            _stage([before] + [after] * n) for (before, after), n in zip(pairwise(widths), convolutions, strict=True)
        )
        self.decoder = _stages(channels, convolutions)
        self.score = nn.Conv2d(channels[0], num_classes, 3, padding=1)
        self.upsamplings = nn.ModuleList(
            nn.Identity() if upsampling == "max_unpooling" else Upsampling(upsampling, c, 2) for c in channels
        )
        self.upsampling = upsampling

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images (B, 3, H, W)."""
        features, pooled = images, []
        for stage in self.encoder:
            features = stage(features)
            size = features.shape[-2:]
            features, indices = F.max_pool2d(features, 2, ceil_mode=True, return_indices=True)
            pooled.append((indices, size))
        scores: Tensor = self.score(self.decoded(features, pooled))
        return scores


class BackboneSegNetNetwork(Mirror):
    """A backbone's levels and decoder stages that mirror them; at last at image size.

    Args:
        backbone: the feature extractor.
        num_classes: K.
        width: channels of a decoder stage where its level has fewer.
        convolutions: 3x3 convolutions in each decoder stage.
        upsampling: `max_unpooling`, or a kind of `Upsampling`.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        width: Positive,
        convolutions: Positive,
        upsampling: UpsamplingKind | Literal["max_unpooling"],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        *levels, deepest = backbone.channels
        if not levels:
            raise ConfigError("method: SegNet mirrors a backbone of several levels, this one has one")
        self.channels = channels = [max(level, width) for level in levels]
        self.factors = [deep // fine for fine, deep in pairwise(backbone.strides)]
        self.deepest = _stage([deepest] * convolutions + [channels[-1]])
        self.decoder = _stages(channels, [convolutions] * len(channels))
        self.score = nn.Conv2d(channels[0], num_classes, 3, padding=1)
        self.upsamplings = nn.ModuleList(
            nn.Identity() if upsampling == "max_unpooling" else Upsampling(upsampling, c, factor)
            for c, factor in zip(channels, self.factors, strict=True)
        )
        self.upsampling = upsampling

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images (B, 3, H, W)."""
        levels = self.backbone(images)
        pooled = [
            (_places(level, factor, deeper.shape[-2:], channels), level.shape[-2:])
            for (level, deeper), factor, channels in zip(pairwise(levels), self.factors, self.channels, strict=True)
        ]
        scores = self.score(self.decoded(self.deepest(levels[-1]), pooled))
        return bilinear(scores, images.shape[-2:])


class SegNet(DenseMethod):
    """SegNet with an encoder of VGG's form.

    Args:
        num_classes: K, background included.
        criterion: the loss.
        channels: of each encoder stage; VGG-16's 64, 128, 256, 512, 512.
        convolutions: in each stage; VGG-16's 2, 2, 3, 3, 3.
        upsampling: `max_unpooling` (the paper's), `nearest`, `bed_of_nails`, `transposed` or `bilinear`.
        weights: of the encoder, if it has VGG-16's form: `none`, `timm` or a `.safetensors` file of timm's vgg16_bn.
        mean: input mean per channel, in 0..1.
        std: input standard deviation per channel, in 0..1.
        common: the arguments of `Method`.

    Raises:
        ConfigError: weights that do not fit the encoder, or numbers of convolutions that do not fit the channels.
    """

    def __init__(
        self,
        num_classes: int,
        criterion: nn.Module,
        channels: Positives,
        convolutions: Positives,
        upsampling: UpsamplingKind | Literal["max_unpooling"],
        weights: str,
        mean: RGB,
        std: RGB,
        **common: Any,
    ) -> None:
        network = SegNetNetwork(num_classes, channels, convolutions, upsampling)
        if weights != "none":
            _load_encoder(network.encoder, weights)
        super().__init__(network.encoder, network, criterion, mean=mean, std=std, **common)


class BackboneSegNet(DenseMethod):
    """SegNet's decoder on any backbone.

    Args:
        backbone: the feature extractor, of two levels or more.
        num_classes: K, background included.
        criterion: the loss.
        width: channels of a decoder stage where its level has fewer; several channels then share their places.
        convolutions: 3x3 convolutions in each decoder stage.
        upsampling: `max_unpooling` (the paper's), `nearest`, `bed_of_nails`, `transposed` or `bilinear`.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a backbone of one level.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        width: Positive,
        convolutions: Positive,
        upsampling: UpsamplingKind | Literal["max_unpooling"],
        **common: Any,
    ) -> None:
        network = BackboneSegNetNetwork(backbone, num_classes, width, convolutions, upsampling)
        super().__init__(backbone, network, criterion, mean=backbone.mean, std=backbone.std, **common)


def _stages(channels: Sequence[Positive], convolutions: Sequence[Positive]) -> nn.ModuleList:
    """Of a decoder, finest first; each ends in the channels of the next finer one, the finest one in the score."""
    outputs = [[], *([width] for width in channels[:-1])]
    return nn.ModuleList(
        _stage([deep] * n + fine) for fine, deep, n in zip(outputs, channels, convolutions, strict=True)
    )


def _stage(channels: Sequence[Positive]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        convolution = nn.Conv2d(before, after, 3, padding=1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _places(level: Tensor, factor: int, size: Sequence[int], channels: int) -> Tensor:
    """Of the maxima (B, channels, *size) that pooling would find, again from the first where the level has fewer.

    Some backbones drop the odd row that pooling keeps.
    """
    places = F.max_pool2d(level, factor, ceil_mode=True, return_indices=True)[1]
    return places[:, torch.arange(channels, device=level.device) % places.shape[1], : size[0], : size[1]]


def _load_encoder(encoder: nn.ModuleList, weights: str) -> None:
    """Layer by layer, in order: timm's vgg16_bn numbers its layers through, the encoder by stage."""
    state = pretrained_weights("vgg16_bn", {}, weights)
    numbers = sorted({int(key.split(".")[1]) for key in state if key.startswith("features.")})
    layers = [m for m in encoder.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    prefixes = [f"features.{number}." for number in numbers]
    try:
        for layer, prefix in zip(layers, prefixes, strict=True):
            layer.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"method.weights={weights}: not of this encoder's form ({error}); give timm's vgg16_bn or none"
        ) from error
