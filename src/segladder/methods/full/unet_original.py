"""The U-Net of the paper, unpadded with copy-and-crop, or padded.

Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015,
https://arxiv.org/abs/1505.04597. Official code: Caffe, https://lmb.informatik.uni-freiburg.de/people/ronneber/u-net/
(research only); written anew here. Published: IoU 92.0 (PhC-U373), 77.6 (DIC-HeLa) in the ISBI
cell tracking challenge 2015.

Every image is mirrored outwards to the size its output needs (the paper's overlap-tile strategy with one tile), so
scores cover the whole image. Differences: BatchNorm by default, no elastic deformation, no border weights in the loss.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from segladder.methods.full.base import DenseMethod
from segladder.nets.upsampling import Upsampling, UpsamplingKind
from segladder.settings import RGB, Positive, Share


class UNetOriginalNetwork(nn.Module):
    """Contracting path, expansive path, 1x1 score.

    Args:
        num_classes: K.
        width: channels of the first level; each deeper one has twice as many.
        depth: number of poolings.
        padded: whether 3x3 convolutions keep the size.
        batch_norm: whether a BatchNorm follows each of them.
        dropout: at the end of the contracting path.
        upsampling: how the expansive path doubles maps.
    """

    def __init__(
        self,
        num_classes: int,
        width: Positive,
        depth: Positive,
        padded: bool,
        batch_norm: bool,
        dropout: Share,
        upsampling: UpsamplingKind,
    ) -> None:
        super().__init__()
        self.padded = padded
        self.depth = depth
        channels = [width * 2**level for level in range(depth + 1)]
        self.contracting = nn.ModuleList(
            _two_convolutions(before, after, padded, batch_norm) for before, after in pairwise([3, *channels])
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        steps = list(pairwise(channels[::-1]))
        self.up = nn.ModuleList(_up_convolution(deep, fine, upsampling) for deep, fine in steps)
        self.expansive = nn.ModuleList(_two_convolutions(deep, fine, padded, batch_norm) for deep, fine in steps)
        self.score = nn.Conv2d(width, num_classes, 1)
        self.apply(_he_initialisation)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images (B, 3, H, W)."""
        height, width = images.shape[-2:]
        for dimension, size in ((2, height), (3, width)):
            before, total = self.input_geometry(size)
            images = mirror(images, dimension, before, total - size - before)
        return self.scores(images)[..., :height, :width]

    def input_geometry(self, size: int) -> tuple[int, int]:
        """How many pixels go before the image, and the input size, so that the output covers `size` pixels."""
        grain = 2**self.depth
        if self.padded:
            return 0, -(-size // grain) * grain
        return 6 * grain - 4, -(-(size + 8 * grain - 4) // grain) * grain + 4 * (grain - 1)

    def scores(self, images: Tensor) -> Tensor:
        """Logits for images (B, 3, H, W) of a size that every pooling halves; unpadded, 12 * 2**depth - 8 smaller."""
        features, skips = images, []
        for level, convolutions in enumerate(self.contracting):
            features = convolutions(self.pool(features) if level else features)
            skips.append(features)
        features = self.dropout(features)
        for up, convolutions, skip in zip(self.up, self.expansive, skips[-2::-1], strict=True):
            grown = up(features)  # (B, C, 2h, 2w)
            features = convolutions(torch.cat([_cropped(skip, grown), grown], dim=1))
        scores: Tensor = self.score(features)
        return scores


class UNetOriginal(DenseMethod):
    """The U-Net of the paper.

    Args:
        num_classes: K, background included.
        criterion: the loss.
        width: channels of the first level; the paper's 64.
        depth: number of poolings; the paper's 4.
        padded: whether 3x3 convolutions keep the size; the paper's do not.
        batch_norm: whether a BatchNorm follows each of them; the paper has none.
        dropout: at the end of the contracting path.
        upsampling: `transposed` (the paper's 2x2); or `nearest`, `bed_of_nails`, `bilinear` before a 3x3 convolution.
        mean: input mean per channel, in 0..1.
        std: input standard deviation per channel, in 0..1.
        common: the arguments of `Method`.
    """

    def __init__(
        self,
        num_classes: int,
        criterion: nn.Module,
        width: Positive,
        depth: Positive,
        padded: bool,
        batch_norm: bool,
        dropout: Share,
        upsampling: UpsamplingKind,
        mean: RGB,
        std: RGB,
        **common: Any,
    ) -> None:
        network = UNetOriginalNetwork(num_classes, width, depth, padded, batch_norm, dropout, upsampling)
        super().__init__(None, network, criterion, mean=mean, std=std, **common)


def mirror(images: Tensor, dimension: int, before: int, after: int) -> Tensor:
    """Continue images (B, C, H, W) over both ends of a dimension by reflection at the edges, as often as needed."""
    size = images.shape[dimension]
    period = max(1, 2 * (size - 1))
    places = torch.arange(-before, size + after, device=images.device) % period
    return images.index_select(dimension, places.minimum(period - places) if size > 1 else places * 0)


def _two_convolutions(before: int, after: int, padded: bool, batch_norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers.append(nn.Conv2d(channels, after, 3, padding=int(padded), bias=not batch_norm))
        layers += [nn.BatchNorm2d(after)] * batch_norm + [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _up_convolution(before: int, after: int, kind: UpsamplingKind) -> nn.Module:
    """Double a map and change its channels: the paper's 2x2 transposed convolution, or upsampling and a 3x3 one."""
    if kind == "transposed":
        return nn.ConvTranspose2d(before, after, 2, stride=2)
    return nn.Sequential(Upsampling(kind, before, 2), nn.Conv2d(before, after, 3, padding=1, padding_mode="replicate"))


def _cropped(skip: Tensor, like: Tensor) -> Tensor:
    top, left = ((skip.shape[d] - like.shape[d]) // 2 for d in (2, 3))
    return skip[..., top : top + like.shape[2], left : left + like.shape[3]]


def _he_initialisation(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
