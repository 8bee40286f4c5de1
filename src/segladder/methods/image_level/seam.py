"""SEAM: class maps of an image and of its reduced copy are to agree, and are refined by places that look alike.

Wang, Zhang, Kan, Shan, Chen: Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation, CVPR 2020, https://arxiv.org/abs/2004.04581. Official code: https://github.com/YudeWang/SEAM (MIT);
written anew. Published, ResNet-38, mIoU on VOC 2012: seeds on train 55.4 (unverified), with AffinityNet 63.6,
segmentation on val / test 64.5 / 65.7 (unverified).

    L = L_cls + L_ER + L_ECR,   L_cls the mean over both views of soft margin plus the min-pooling term
    L_ER  = mean |A_1 - A_2|
    L_ECR = hardest_mean |best(A_2) - R_1| + hardest_mean |best(A_1) - R_2|

A are maps between 0 and 1 of the present classes, R those refined by the pixel correlation module (PCM); in L_ECR with
the background, 1 - max A, in front. `best` keeps the strongest class of a place and sends back no gradient. As in the
official code the PCM sees maps and features detached, so that L_ECR trains its layers alone. Seeds are made of the
refined maps, each of which loses its minimum before it is divided. Differences: any backbone of three levels, with the
PCM on the grid of the last but one (ResNet-38 has all three at stride 8); maps of both views are interpolated straight
to the second view's size; seeds are summed and brought to 0..1 on a grid of stride 4, in the code at full size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods.base import Batch
from segladder.methods.image_level.cam import CAM, classification_loss
from segladder.ops.cam import normalize_cam, unit_range
from segladder.ops.correlation import hardest_mean, pixel_correlation
from segladder.ops.upsampling import bilinear
from segladder.settings import Positive, PositiveShare, Share


class PixelCorrelation(nn.Module):
    """The pixel correlation module: maps averaged over places with similar features.

    Args:
        channels: of the last level but two and the last but one.
        widths: channels to which they are reduced.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        reductions = [nn.Conv2d(before, after, 1, bias=False) for before, after in zip(channels, widths, strict=True)]
        for reduction in reductions:
            nn.init.kaiming_normal_(reduction.weight)
        self.reductions = nn.ModuleList(reductions)
        self.embedding = nn.Conv2d(3 + sum(widths), sum(widths), 1, bias=False)
        nn.init.xavier_uniform_(self.embedding.weight, gain=4)

    def forward(self, images: Tensor, features: Sequence[Tensor], maps: Tensor) -> Tensor:
        """Refined maps (B, 1 + C, h, w), background first, on the grid of the last features.

        Args:
            images: normalised (B, 3, H, W).
            features: levels (B, D, h', w'), the coarser last.
            maps: raw class maps (B, C, h'', w'').
        """
        size = features[-1].shape[-2:]
        reduced = [layer(level.detach()).relu() for layer, level in zip(self.reductions, features, strict=True)]
        looks = torch.cat([bilinear(x, size) for x in (images, *reduced)], 1)  # (B, 3 + D, h, w)
        evidence = with_background(normalize_cam(maps.detach().float()))
        return pixel_correlation(self.embedding(looks), bilinear(evidence, size))


class SEAM(CAM):
    """CAM with scale equivariance and pixel correlation.

    Args:
        view_scale: size of the second view relative to the first.
        hardest: share of places and classes that L_ECR counts, those that differ most.
        lowest: share of places that the min-pooling term counts, those of the least evidence.
        correlation_channels: of the two feature levels that the PCM compares.
        dropout: of whole channels before the classifier.
        common: the arguments of `CAM`.

    Raises:
        ConfigError: what `CAM` refuses; a backbone of fewer than three levels; a share or scale outside 0..1.
    """

    def __init__(
        self,
        view_scale: PositiveShare = 0.5,
        hardest: PositiveShare = 0.2,
        lowest: PositiveShare = 0.25,
        correlation_channels: tuple[Positive, Positive] = (64, 128),
        dropout: Share = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        levels = self.backbone.channels[:-1]
        if len(levels) < 2:
            raise ConfigError(f"backbone: method=seam compares three levels, this one has {len(levels) + 1}")
        self.view_scale = view_scale
        self.hardest = hardest
        self.lowest = lowest
        self.dropout = nn.Dropout2d(dropout)
        self.correlation = PixelCorrelation(levels[-2:], correlation_channels)
        nn.init.xavier_uniform_(self.classifier.weight)

    def class_maps(self, images: Tensor) -> Tensor:
        """Raw class maps (B, C, h, w) at the backbone's last stride."""
        maps: Tensor = self.classifier(self.dropout(self.backbone(images)[-1]))
        return maps

    def score_maps(self, images: Tensor) -> Tensor:
        """The refined maps (B, C, h, w) of the classes."""
        return self.raw_and_refined(images)[1][:, 1:]

    def unit_scores(self, maps: Tensor) -> Tensor:
        """Summed maps (B, C, h, w), each with its minimum at 0 and its maximum at 1, as in the official code."""
        return unit_range(maps)

    def raw_and_refined(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw class maps (B, C, h, w), and refined ones with the background (B, 1 + C, h', w')."""
        *features, deepest = self.backbone(images)
        maps = self.classifier(self.dropout(deepest))
        return maps.float(), self.correlation(images, features[-2:], maps)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Classification and min-pooling of both views, equivariance, cross regularisation."""
        images, tags = batch["image"], batch["tags"]
        size = [max(1, round(length * self.view_scale)) for length in images.shape[-2:]]
        reduced = bilinear(images, size).contiguous(memory_format=self.input_format)
        views = [self.raw_and_refined(images), self.raw_and_refined(reduced)]
        present = tags[:, :, None, None]
        first, second = (unit_range(bilinear(maps, size)) * present for maps, _ in views)  # (B, C, *size)
        losses = {
            "classification": torch.stack([classification_loss(maps, tags) for maps, _ in views]).mean(),
            "min_pooling": torch.stack([lowest_mean(r[:, 1:] * present, self.lowest) for _, r in views]).mean(),
            "equivariance": (first - second).abs().mean(),
            "cross": self.cross_regularisation(first, second, [r for _, r in views], present),
        }
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def cross_regularisation(self, first: Tensor, second: Tensor, refined: Sequence[Tensor], present: Tensor) -> Tensor:
        """L_ECR of maps (B, C, h, w) of both views, their refined maps and the present classes (B, C, 1, 1)."""
        kept = torch.cat([torch.ones_like(present[:, :1]), present], 1)  # (B, 1 + C, 1, 1)
        terms = []
        for target, maps in zip((second.detach(), first.detach()), refined, strict=True):
            maps = unit_range(bilinear(maps, target.shape[-2:])) * kept
            terms.append(hardest_mean((with_background(target) - maps).abs(), self.hardest))
        return torch.stack(terms).sum()


def with_background(cams: Tensor) -> Tensor:
    """1 - max over classes, in front of the strongest class of each place: (B, C, h, w) in 0..1 to (B, 1 + C, h, w)."""
    strongest = cams.amax(1, keepdim=True)
    return torch.cat([1 - strongest, cams.where(cams == strongest, 0)], 1)


def lowest_mean(maps: Tensor, share: float) -> Tensor:
    """Mean over images and over the share of places where the best class (of B, C, h, w) has least evidence."""
    best = maps.amax(1).flatten(1).relu()  # (B, h w)
    return best.topk(max(1, int(share * best.shape[1])), dim=1, largest=False).values.mean()
