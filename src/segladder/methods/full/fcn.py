"""Fully convolutional networks: FCN-32s, FCN-16s, FCN-8s.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, https://arxiv.org/abs/1411.4038.
Official code: https://github.com/shelhamer/fcn.berkeleyvision.org (BSD-2-Clause); written anew here.
Published, VGG-16, VOC 2011 val subset (736 images), trained on SBD: mIoU 59.4 (32s), 62.4 (16s), 62.7 (8s).

Any backbone serves: "32s" is the score of its last level, each skip adds that of the next finer stride. With vgg16
these are pool5, pool4 and pool3, as in the paper; with a ResNet they are the outputs of its stages. Strides are the
backbone's own; nothing is dilated but fc6 on a backbone whose last stride is below 32.
Differences: maps keep their size by padding inside the layers and a repeated border where scores are enlarged, where
the paper pads the image by 100 pixels and crops. 16s and 8s are trained in one go, not each from the coarser net, and
without the factors of .01 and .0001 that the official code puts on skips it trains at once. Enlarging between levels
learns, as the paper says; in the official code all deconvolutions stay bilinear (rate 0). Without `fully_connected`
the last level is scored directly. The loss is a mean over pixels and batches hold several images; the official code
sums over the pixels of one image at a rate of 1e-10 (32s) to 1e-14 (8s) with momentum .99.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods.full.base import DenseMethod
from segladder.nets.backbone import FeatureExtractor, deepest_of_each
from segladder.nets.upsampling import Upsampling, UpsamplingKind
from segladder.ops.upsampling import bilinear
from segladder.settings import Count, Share


class FCNNetwork(nn.Module):
    """Scores of the last level, enlarged step by step and summed with the scores of finer levels.

    Args:
        backbone: the feature extractor.
        num_classes: K.
        skips: how many finer levels add their scores.
        upsampling: how scores grow between levels; the last step to the image is fixed bilinear, as in the paper.
        zero_scores: whether score layers start at zero.
        fully_connected: channels of fc6 and fc7 as convolutions (VGG-16's 4096); 0 scores the last level itself.
        dropout: behind fc6 and fc7.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        skips: Count,
        upsampling: UpsamplingKind,
        zero_scores: bool,
        fully_connected: Count,
        dropout: Share,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.levels = _levels(backbone, skips)
        channels = [backbone.channels[level] for level in self.levels]
        strides = [backbone.strides[level] for level in self.levels]
        self.head = nn.Identity() if fully_connected == 0 else _fully_connected(backbone, fully_connected, dropout)
        channels[0] = fully_connected or channels[0]
        self.scores = nn.ModuleList(_score_layer(c, num_classes, zero_scores) for c in channels)
        factors = [deep // fine for deep, fine in pairwise(strides)]
        self.upsamplings = nn.ModuleList(Upsampling(upsampling, num_classes, factor) for factor in factors)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images (B, 3, H, W)."""
        features = self.backbone(images)
        deepest, *finer = [features[level] for level in self.levels]
        logits = self.scores[0](self.head(deepest))  # (B, K, h, w)
        for upsampling, score, feature in zip(self.upsamplings, self.scores[1:], finer, strict=True):
            skip = score(feature)
            logits = upsampling(logits, skip.shape[-2:]) + skip  # (B, K, 2h, 2w)
        return bilinear(logits, images.shape[-2:])


class FCN(DenseMethod):
    """FCN-32s (`skips` 0), FCN-16s (1) or FCN-8s (2) on any backbone.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        criterion: the loss.
        skips: how many finer levels add their scores.
        upsampling: `transposed` (the paper's: starts bilinear, learns), `bilinear`, `nearest` or `bed_of_nails`.
        zero_scores: whether score layers start at zero, as in the paper; random networks then learn slower.
        fully_connected: 4096 turns VGG-16's fc6 and fc7 into convolutions; 0 for backbones without them.
        dropout: behind fc6 and fc7; the paper's .5.
        common: the arguments of `Method`.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        skips: Count,
        upsampling: UpsamplingKind = "transposed",
        zero_scores: bool = False,
        fully_connected: Count = 0,
        dropout: Share = 0.5,
        **common: Any,
    ) -> None:
        network = FCNNetwork(backbone, num_classes, skips, upsampling, zero_scores, fully_connected, dropout)
        super().__init__(backbone, network, criterion, mean=backbone.mean, std=backbone.std, **common)


def _levels(backbone: FeatureExtractor, skips: Count) -> list[int]:
    """The last level, then for each skip the deepest level of the next finer stride (of any stride if too few)."""
    strides = backbone.strides
    distinct = deepest_of_each(strides)
    levels = distinct if len(distinct) > skips else list(range(len(strides)))
    if not 0 <= skips < len(levels):
        raise ConfigError(f"method.skips={skips}: the backbone has {len(levels)} levels, so at most {len(levels) - 1}")
    return levels[::-1][: skips + 1]


def _score_layer(channels: int, num_classes: int, zero: bool) -> nn.Conv2d:
    layer = nn.Conv2d(channels, num_classes, 1)
    if zero:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return layer


def _fully_connected(backbone: FeatureExtractor, width: int, dropout: Share) -> nn.Sequential:
    """VGG's fc6 (7x7) and fc7 (1x1) as convolutions that keep the map's size, with the weights the backbone loaded."""
    dilation = max(1, 32 // backbone.strides[-1])
    fc6 = nn.Conv2d(backbone.channels[-1], width, 7, padding=3 * dilation, dilation=dilation)
    fc7 = nn.Conv2d(width, width, 1)
    for layer, name in ((fc6, "pre_logits.fc1"), (fc7, "pre_logits.fc2")):
        weights = {key: backbone.leftover.get(f"{name}.{key}") for key in ("weight", "bias")}
        if weights["weight"] is None:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        elif weights["weight"].shape == layer.weight.shape:
            layer.load_state_dict(weights)
        else:
            shape = tuple(weights["weight"].shape)
            raise ConfigError(
                f"method.fully_connected={width}: the loaded {name} is {shape}, expected {tuple(layer.weight.shape)}"
            )
    backbone.leftover.clear()  # 400 MB
    return nn.Sequential(
        fc6, nn.ReLU(inplace=True), nn.Dropout(dropout), fc7, nn.ReLU(inplace=True), nn.Dropout(dropout)
    )
