"""DeepLabv3+: atrous spatial pyramid pooling and a light decoder, on any backbone.

Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous Separable Convolution, ECCV 2018,
https://arxiv.org/abs/1802.02611. Official code: https://github.com/tensorflow/models, research/deeplab (Apache-2.0);
here the decoder of segmentation-models-pytorch (MIT). Published: mIoU 78.85 on VOC 2012 val (ResNet-101, trained on
train_aug, output stride 16, one scale).

Tapped are the last level and the deepest level of stride 4, with a ResNet its first stage, as in the paper.
Differences: trained in one phase at one output stride. The decoder's two 3x3 convolutions stand apart: one follows
ASPP before it is enlarged, one follows the concatenation, and both are depthwise separable; in the paper both follow
the concatenation. Stages beyond the output stride are dilated as timm does it: 2 in the last stage at output stride 16
but in its first block, where DeepLabv3's ResNet has multi-grid rates of 2, 4 and 8. timm's ResNets start with one 7x7
convolution, the official one with three of 3x3. Enlarging aligns pixel centres, the official code corners. In a batch
of one the image's average, which ASPP reads, is one value a channel and has no statistics: there the layer that
normalises it takes its running ones, in training too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.full.base import DenseMethod
from segladder.nets.backbone import FeatureExtractor
from segladder.nets.upsampling import Upsampling, UpsamplingKind
from segladder.ops.upsampling import bilinear
from segladder.settings import Positive, Share


class AverageNorm(nn.BatchNorm2d):
    """Batch normalisation of averages (B, C, 1, 1); of a single one by the running statistics, as in evaluation."""

    def forward(self, averages: Tensor) -> Tensor:
        """Normalised averages (B, C, 1, 1)."""
        if len(averages) > 1:
            return super().forward(averages)
        return F.batch_norm(averages, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class DeepLabV3PlusNetwork(nn.Module):
    """The last level through ASPP, enlarged, next to the reduced level of stride 4, fused, scored, enlarged.

    Args:
        backbone: the feature extractor.
        num_classes: K.
        output_stride: 16 or 8, that of the backbone.
        channels: of ASPP and the decoder.
        rates: dilations of ASPP at output stride 16, doubled at 8.
        separable: whether ASPP's 3x3 convolutions are depthwise separable.
        dropout: behind ASPP.
        upsampling: how ASPP's map grows to stride 4; the last step to the image is bilinear.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        output_stride: Literal[8, 16],
        channels: Positive,
        rates: Sequence[Positive],
        separable: bool,
        dropout: Share,
        upsampling: UpsamplingKind,
    ) -> None:
        super().__init__()
        stride = backbone.strides[-1]
        if stride != output_stride or stride not in (8, 16):
            raise ConfigError(
                f"method.output_stride={output_stride}: expected 16 or 8, and the backbone's, which is {stride};"
                " leave backbone.output_stride to the method"
            )
        self.backbone = backbone
        self.low = max((i for i, s in enumerate(backbone.strides) if s <= 4), default=0)
        low, deep = backbone.channels[self.low], backbone.channels[-1]
        dilations = [rate * 16 // stride for rate in rates]
        decoder = DeepLabV3PlusDecoder([3, 0, low, deep], 3, channels, dilations, 16, separable, dropout)
        decoder.aspp[0].convs[-1][2] = AverageNorm(channels)  # of the pooled branch
        self.aspp, self.reduce, self.fuse = decoder.aspp, decoder.block1, decoder.block2
        self.upsampling = Upsampling(upsampling, channels, stride // backbone.strides[self.low])
        self.score = nn.Conv2d(channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images (B, 3, H, W)."""
        features = self.backbone(images)
        low = self.reduce(features[self.low])  # (B, 48, H/4, W/4)
        deep = self.upsampling(self.aspp(features[-1]), low.shape[-2:])  # (B, C, H/4, W/4)
        logits = self.score(self.fuse(torch.cat([deep, low], dim=1)))
        return bilinear(logits, images.shape[-2:])


class DeepLabV3Plus(DenseMethod):
    """DeepLabv3+ on any backbone of output stride 16 or 8.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        criterion: the loss.
        output_stride: 16 or 8, that of the backbone; the paper's 16, or 8 for a little more at four times the cost.
        channels: of ASPP and the decoder; the paper's 256.
        rates: dilations of ASPP at output stride 16, doubled at 8; the paper's 6, 12, 18.
        separable: whether ASPP's 3x3 convolutions are depthwise separable.
        dropout: behind ASPP.
        upsampling: `bilinear` (the paper's), `nearest`, `bed_of_nails` or `transposed`.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a backbone of another output stride.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        output_stride: Literal[8, 16],
        channels: Positive,
        rates: tuple[Positive, Positive, Positive],
        separable: bool,
        dropout: Share,
        upsampling: UpsamplingKind,
        **common: Any,
    ) -> None:
        network = DeepLabV3PlusNetwork(
            backbone, num_classes, output_stride, channels, rates, separable, dropout, upsampling
        )
        super().__init__(backbone, network, criterion, mean=backbone.mean, std=backbone.std, **common)
