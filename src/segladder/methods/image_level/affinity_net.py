"""AffinityNet: class maps spread by a random walk between pixels that a network holds to be of one class.

Ahn, Kwak: Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised Semantic
Segmentation, CVPR 2018, https://arxiv.org/abs/1803.10464. Official code: https://github.com/jiwoon-ahn/psa (MIT);
written anew here.
Published, VOC 2012 train, tags known: CAM -> random walk 48.9 -> 59.6 (VGG-16), 47.7 -> 61.0 (ResNet-38) mIoU.

Differences: the labels are a parent run's pseudo-masks, where the paper intersects two CRFs of two backgrounds. Tapped
are the last levels of any backbone, each at its own stride and brought to `stride`; the official networks are dilated
so that all three tapped levels have stride 8 (ResNet-38: conv4, conv5 and conv6 of 512, 1024 and 4096 channels; VGG-16:
conv4, conv5 and fc7, with GroupNorm behind the reductions). timm's ResNets of output stride 16 or 8 dilate their last
stages. Labels and walk take any stride; pairs at the map's border count too. The official code never trains the first
blocks and has its weight decay in the momentum's place. It pads images to multiples of 8 with zero scores before they
are averaged to the walk's map; here the map's last row and column average what there is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from segladder.methods.base import Batch
from segladder.methods.image_level.base import Refinement
from segladder.nets.affinity import AffinityHead, map_size
from segladder.nets.backbone import FeatureExtractor
from segladder.ops.affinity import affinity_from_features, affinity_labels, affinity_loss, propagate
from segladder.ops.cam import background_power
from segladder.settings import Count, NotNegative, OutputStride, Positive, Positives, TwoOrMore


class AffinityNet(Refinement):
    """Features whose distance says whether two pixels share a class, and the random walk along them.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        channels: of the features taken from the last levels, the deepest last.
        output_stride: what the backbone's last level must have; None takes any.
        stride: of the map on which pairs are formed and scores walk, in image pixels.
        radius: within which pairs are formed, in pixels of that map, at least 2.
        alpha: the background's score is (1 - the best class' score)^alpha, where the parent gives none.
        beta: exponent on affinities in the walk.
        steps: of the walk.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a backbone of another stride or with fewer levels than `channels`.
    """

    scores_background = True

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        channels: Positives,
        output_stride: OutputStride | None,
        stride: Positive,
        radius: TwoOrMore,
        alpha: NotNegative,
        beta: NotNegative,
        steps: Count,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, background_score=0.0, mean=backbone.mean, std=backbone.std, **common)
        backbone.check_stride(output_stride)
        self.backbone = backbone
        self.head = AffinityHead(backbone.channels, channels)
        self.stride, self.radius = stride, radius
        self.alpha, self.beta, self.steps = alpha, beta, steps

    def affinities(self, images: Tensor) -> Tensor:
        """Affinities (B, P, h, w) of all pairs, as `ops.affinity` lays them out, for normalised images (B, 3, H, W)."""
        features = self.head(self.backbone(images), map_size(images, self.stride))
        return affinity_from_features(features.float(), self.radius)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of affinities between pixels whose pseudo-labels are sure."""
        affinities = self.affinities(batch["image"])
        labels = interpolate(batch["mask"][:, None].float(), affinities.shape[-2:], mode="nearest-exact")[:, 0]
        return {"loss": affinity_loss(affinities, affinity_labels(labels, self.radius))}

    @torch.no_grad()
    def refine(self, images: Tensor, scores: Tensor, tags: Tensor) -> Tensor:
        """Scores (B, K, h, w) of background and classes after the walk; their greatest is the answer."""
        affinities = self.affinities(self.normalize(images))
        if scores.shape[1] < self.num_classes:
            scores = torch.cat([background_power(scores, self.alpha)[:, None], scores], 1)  # (B, K, h', w')
        scores = interpolate(scores, affinities.shape[-2:], mode="area")
        return torch.stack([self._walk(*pair) for pair in zip(scores, affinities, strict=True)])

    def _walk(self, scores: Tensor, affinities: Tensor) -> Tensor:
        """Scores (K, h, w) of one image after the walk, which those of absent classes need not take."""
        present = scores.flatten(1).any(1)
        walked = torch.zeros_like(scores)
        walked[present] = propagate(scores[present], affinities, self.radius, self.beta, self.steps).clamp(0, 1)
        return walked
