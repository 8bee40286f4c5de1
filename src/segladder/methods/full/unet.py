"""U-Net with any backbone as its contracting path.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, https://arxiv.org/abs/1505.04597; decoder blocks of
segmentation-models-pytorch (MIT, https://github.com/qubvel-org/segmentation_models.pytorch). The paper's own network is
`unet_original`. Differences from it: a pretrained encoder, padded convolutions with BatchNorm, upsampling as a choice.
Published, for the paper's network: IoU 92.0 (PhC-U373), 77.6 (DIC-HeLa) of the ISBI cell tracking challenge 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods.full.base import DenseMethod
from segladder.nets.backbone import FeatureExtractor
from segladder.nets.upsampling import Upsampling, UpsamplingKind
from segladder.settings import Positive


class UNetNetwork(nn.Module):
    """From the deepest level up: enlarge, append the next finer level, two convolutions; at last at image size.

    Args:
        backbone: the feature extractor.
        num_classes: K.
        decoder_channels: channels of the decoder's blocks, deepest first; with more than levels, the last ones.
        upsampling: how maps grow between levels.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        decoder_channels: Sequence[Positive],
        upsampling: UpsamplingKind,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        levels = len(backbone.channels)
        if len(decoder_channels) < levels:
            given = len(decoder_channels)
            raise ConfigError(
                f"method.decoder_channels: {given} values, the backbone has {levels} levels: give one for each"
            )
        widths = list(decoder_channels)[-levels:]
        self.blocks = UnetDecoder([3, *backbone.channels], widths, n_blocks=len(widths)).blocks
        strides = [*backbone.strides[::-1], 1]
        inputs = [backbone.channels[-1], *widths]
        self.upsamplings = nn.ModuleList(
            Upsampling(upsampling, channels, deep // fine)
            for channels, (deep, fine) in zip(inputs, pairwise(strides), strict=False)
        )
        self.score = nn.Conv2d(widths[-1], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images (B, 3, H, W)."""
        deepest, *skips = self.backbone(images)[::-1]
        sizes = [skip.shape[-2:] for skip in skips] + [images.shape[-2:]]
        for block, upsampling, size, skip in zip(self.blocks, self.upsamplings, sizes, [*skips, None], strict=True):
            grown = upsampling(deepest, size)  # (B, widths[i - 1], 2h, 2w)
            joined = grown if skip is None else torch.cat([grown, skip], dim=1)
            deepest = block.conv2(block.conv1(joined))  # (B, widths[i], 2h, 2w)
        scores: Tensor = self.score(deepest)
        return scores


class UNet(DenseMethod):
    """U-Net on any backbone.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        criterion: the loss.
        decoder_channels: channels of the decoder's blocks, deepest first, one for each backbone level; with more, the
            last ones are used.
        upsampling: `nearest`, `bed_of_nails`, `transposed` or `bilinear`.
        common: the arguments of `Method`.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        decoder_channels: Sequence[Positive],
        upsampling: UpsamplingKind = "nearest",
        **common: Any,
    ) -> None:
        network = UNetNetwork(backbone, num_classes, decoder_channels, upsampling)
        super().__init__(backbone, network, criterion, mean=backbone.mean, std=backbone.std, **common)
