"""IRNet: class maps spread by a random walk that class boundaries hold back.

Ahn, Cho, Kwak: Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations, CVPR 2019,
https://arxiv.org/abs/1904.05044. Official code: https://github.com/jiwoon-ahn/irn (MIT); written anew here.
Published, ResNet-50, VOC 2012 train, tags known: CAM 48.3 -> 66.5 mIoU of pseudo-masks (the latter unverified).

Differences: any backbone, every level of it at its own stride, where the paper pools the first; at output stride 16
timm's ResNets dilate the last stage, the official one has strides 2, 2, 2, 1 without dilation; the backbone may learn
too, the paper's stays as pretrained; pairs at the map's border count. The displacement field serves instances in the
paper; here only its losses do, which reach the edges through a backbone that learns and otherwise change nothing.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segladder.methods.base import Batch
from segladder.methods.image_level.base import Refinement
from segladder.nets.affinity import DisplacementHead, EdgeHead, map_size
from segladder.nets.backbone import FeatureExtractor
from segladder.ops.affinity import affinity_from_edges, affinity_labels, affinity_loss, displacement_losses, random_walk
from segladder.ops.upsampling import bilinear
from segladder.settings import Count, NotNegative, OutputStride, Positive, Share, TwoOrMore

MAXIMUM_OVER = {"image": (0, 1, 2), "class": (1, 2)}  # axes of scores (C, h, w)


class IRN(Refinement):
    """Class boundaries learnt from which pairs of pixels share a pseudo-label, and the random walk between them.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        background_score: the background's score where nobody knows a threshold.
        edge_channels: of each level in the boundary branch.
        displacement_channels: of the deep levels in the displacement branch.
        train_backbone: whether the backbone learns; if not, its BatchNorm keeps its statistics too.
        output_stride: what the backbone's last level must have; None takes any.
        stride: of the map on which pairs are formed and scores walk, in image pixels.
        radius: within which pairs are formed in training, in pixels of that map, at least 2.
        walk_radius: within which a step of the walk leads, at least 2.
        beta: exponent on affinities in the walk.
        steps: of the walk.
        maximum: whose greatest score becomes 1 after the walk: that of the whole `image` or of each `class`.
        common: the arguments of `Method`.

    Raises:
        ConfigError: another `maximum`, a backbone of another stride or of fewer than three levels.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        background_score: Share,
        edge_channels: Positive,
        displacement_channels: Positive,
        train_backbone: bool,
        output_stride: OutputStride | None,
        stride: Positive,
        radius: TwoOrMore,
        walk_radius: TwoOrMore,
        beta: NotNegative,
        steps: Count,
        maximum: Literal["image", "class"],
        **common: Any,
    ) -> None:
        super().__init__(num_classes, background_score, mean=backbone.mean, std=backbone.std, **common)
        backbone.check_stride(output_stride)
        self.backbone = backbone
        self.edge = EdgeHead(backbone.channels, edge_channels)
        self.displacement = DisplacementHead(backbone.channels, displacement_channels)
        self.train_backbone = train_backbone
        self.stride, self.radius, self.walk_radius = stride, radius, walk_radius
        self.beta, self.steps, self.maximum = beta, steps, maximum
        if not train_backbone:
            backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> IRN:
        """Like any module's, but a backbone that does not learn stays in evaluation mode."""
        super().train(mode)
        if not self.train_backbone:
            self.backbone.eval()
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of affinities and half the sum of the displacement losses."""
        features, size = self.backbone(batch["image"]), map_size(batch["image"], self.stride)
        labels = interpolate(batch["mask"][:, None].float(), size, mode="nearest-exact")[:, 0]  # (B, h, w)
        affinities = affinity_from_edges(self.edge(features, size).float().sigmoid(), self.radius)
        affinity = affinity_loss(affinities, affinity_labels(labels, self.radius))
        field = self.displacement(features, size).float()  # (B, 2, h, w)
        foreground, background = displacement_losses(field, labels, self.radius)
        displacement = (foreground + background) / 2
        return {"loss": affinity + displacement, "affinity": affinity, "displacement": displacement}

    @torch.no_grad()
    def edges(self, images: Tensor) -> Tensor:
        """Probability of a class boundary (B, h, w), from images (B, 3, H, W) of raw pixels and their mirror images."""
        pixels = self.normalize(torch.cat([images, images.flip(-1)]))
        upright, mirrored = self.edge(self.backbone(pixels), map_size(images, self.stride)).float().chunk(2)
        edges: Tensor = ((upright + mirrored.flip(-1)) / 2).sigmoid()
        return edges

    def refine(self, images: Tensor, scores: Tensor, tags: Tensor) -> Tensor:
        """Scores (B, C, h, w) of the classes after the walk; a background that the parent scores is left out."""
        edges = self.edges(images)
        scores = bilinear(scores[:, 1 - self.num_classes :], edges.shape[-2:])
        return torch.stack([self._walk(*pair) for pair in zip(scores, edges, strict=True)])

    def _walk(self, scores: Tensor, edge: Tensor) -> Tensor:
        """Scores (C, h, w) of one image after the walk, which those of absent classes need not take."""
        present = scores.flatten(1).any(1)
        walked = torch.zeros_like(scores)
        walked[present] = random_walk(scores[present], edge, self.walk_radius, self.beta, self.steps).clamp_min(0)
        greatest = walked.amax(MAXIMUM_OVER[self.maximum], keepdim=True)
        return walked / greatest.clamp_min(torch.finfo(walked.dtype).tiny)
