"""Mask R-CNN's network from torchvision's parts, on any backbone: proposals, their boxes and classes, their masks.

There are two mask heads. `PerClassMasks` is the head of He et al. 2017. In `TransferredMasks`, the head of Hu et al.
2018, the last layer of each class is predicted from the weights by which the box head tells the class.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from segladder.errors import ConfigError
from segladder.nets.backbone import FeatureExtractor, deepest_of_each

BOX_PIXELS, MASK_PIXELS = 7, 14  # sides of what is cut out for each head (He et al. 2017)
LAYERS = 4  # of the mask head


class Regions(RoIHeads):  # type: ignore[misc]
    """torchvision's box head, which also says which proposals it was trained on."""

    sampled: tuple[list[Tensor], list[Tensor], list[Tensor]]

    def select_training_samples(self, proposals: list[Tensor], targets: Any) -> Any:
        """Proposals, the objects they match, their classes and their offsets."""
        chosen = super().select_training_samples(proposals, targets)
        self.sampled = chosen[:3]
        return chosen


class PerClassMasks(nn.Module):
    """A mask of its own for each class.

    Args:
        width: channels of the features.
        num_classes: K, background included.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.predictor = MaskRCNNPredictor(width, width, num_classes)

    def forward(self, features: Tensor, detector: FastRCNNPredictor) -> Tensor:
        """Logits (R, K, 2h, 2w) of features (R, C, h, w)."""
        logits: Tensor = self.predictor(features)
        return logits


class TransferredMasks(nn.Module):
    """Masks of classes whose last layer follows from the box head, or one mask for whatever class.

    w_seg = T(w_det), where w_det holds a class' weights of the box head (its score and its four offsets) and T is two
    layers with a leaky ReLU between (Hu et al. 2018, section 3.2). No gradient of the masks reaches w_det.

    Args:
        width: channels of the features.
        box_width: channels that the box head tells classes by.
        transfer: whether the last layer is predicted; otherwise all classes share one, the class-agnostic baseline.
        fusion: whether a perceptron that sees all of a region adds one mask to that of each class (section 3.4).
        fusion_width: channels of that perceptron.
    """

    def __init__(self, width: int, box_width: int, transfer: bool, fusion: bool, fusion_width: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(width, width, 2, 2)
        nn.init.kaiming_normal_(self.enlarge.weight, mode="fan_out", nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(()))
        self.transfer = self.shared = None
        if transfer:
            self.transfer = nn.Sequential(nn.Linear(5 * box_width, width), nn.LeakyReLU(), nn.Linear(width, width))
        else:
            self.shared = nn.Parameter(torch.randn(1, width) * (2 / width) ** 0.5)
        self.perceptron = None
        if fusion:
            self.perceptron = nn.Sequential(
                nn.Flatten(),
                nn.Linear(width * MASK_PIXELS**2, fusion_width),
                nn.ReLU(),
                nn.Linear(fusion_width, (2 * MASK_PIXELS) ** 2),
            )

    def forward(self, features: Tensor, detector: FastRCNNPredictor) -> Tensor:
        """Logits (R, K, 2h, 2w) of features (R, C, h, w)."""
        scores, offsets = detector.cls_score.weight, detector.bbox_pred.weight  # (K, D), (4 K, D)
        if self.transfer is None:
            assert self.shared is not None
            weights = self.shared.expand(len(scores), -1)  # (K, C)
        else:
            weights = self.transfer(torch.cat([scores, offsets.view(len(scores), -1)], 1).detach())
        logits = torch.einsum("rchw,kc->rkhw", self.enlarge(features).relu(), weights) + self.bias
        if self.perceptron is not None:
            logits = logits + self.perceptron(features).view(-1, 1, *logits.shape[2:])
        return logits


class RegionNetwork(nn.Module):
    """A feature pyramid (Lin et al. 2017), a proposal network, a box head and a mask head.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        masks: the last part of the mask head, from features of `mask_width` channels.
        width: channels of the pyramid.
        box_width: channels that the box head tells classes by.
        mask_width: channels of the mask head.
        anchor: side of a square anchor in steps of its level.
        proposals: regions that the box head sees of an image, the best ones.
        sampled: regions of an image that the box head learns from.
        least_score: found objects below are left out.
        most: found objects of an image.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        masks: nn.Module,
        width: int,
        box_width: int,
        mask_width: int,
        anchor: float,
        proposals: int,
        sampled: int,
        least_score: float,
        most: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.levels = pyramid_levels(backbone.strides)
        names = [str(place) for place in range(len(self.levels))]
        self.pyramid = FeaturePyramidNetwork([backbone.channels[k] for k in self.levels], width, LastLevelMaxPool())
        strides = [backbone.strides[k] for k in self.levels]
        sides = tuple((int(anchor * stride),) for stride in [*strides, 2 * strides[-1]])
        anchors = AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * len(sides))
        counts = {"training": proposals, "testing": proposals}
        self.proposals = RegionProposalNetwork(
            anchors, RPNHead(width, anchors.num_anchors_per_location()[0]), 0.7, 0.3, 256, 0.5, counts, counts, 0.7
        )
        self.regions = Regions(
            MultiScaleRoIAlign(names, BOX_PIXELS, sampling_ratio=2),
            TwoMLPHead(width * BOX_PIXELS**2, box_width),
            FastRCNNPredictor(box_width, num_classes),
            *(0.5, 0.5, sampled, 0.25, None, least_score, 0.5, most),
        )
        self.mask_pool = MultiScaleRoIAlign(names, MASK_PIXELS, sampling_ratio=2)
        self.mask_head = MaskRCNNHeads(width, (mask_width,) * LAYERS, 1)
        self.masks = masks

    def features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The levels of the pyramid, of normalised images (B, 3, H, W)."""
        found = self.backbone(images)
        levels: OrderedDict[str, Tensor] = self.pyramid(
            OrderedDict((str(place), found[k]) for place, k in enumerate(self.levels))
        )
        return levels

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """What training minimises, part by part.

        Args:
            images: normalised (B, 3, H, W).
            targets: of each image `boxes` (N, 4), `labels` (N,), `masks` (N, H, W) and `outlined` (N,): which masks
                are known.
        """
        sizes = _sizes(images)
        levels = self.features(images)
        proposals, of_proposals = self.proposals(ImageList(images, sizes), levels, targets)
        _, of_boxes = self.regions(levels, proposals, sizes, targets)
        chosen, matched, labels = self.regions.sampled
        known = [
            (label > 0) & target["outlined"][match] if len(target["outlined"]) else label > 0
            for label, match, target in zip(labels, matched, targets, strict=True)
        ]
        regions = [region[keep] for region, keep in zip(chosen, known, strict=True)]
        logits = self.mask_logits(levels, regions, sizes)
        matches = [match[keep] for match, keep in zip(matched, known, strict=True)]
        masks, classes = [t["masks"] for t in targets], [t["labels"] for t in targets]
        found = {**of_proposals, **of_boxes, "loss_mask": maskrcnn_loss(logits, regions, masks, classes, matches)}
        return {name.removeprefix("loss_"): value for name, value in found.items()}

    def mask_logits(
        self, levels: OrderedDict[str, Tensor], regions: list[Tensor], sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Logits (R, K, m, m) of all regions."""
        features = self.mask_head(self.mask_pool(levels, regions, sizes))
        logits: Tensor = self.masks(features, self.regions.box_predictor)
        return logits

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Boxes (N, 4), classes (N,), scores (N,) and masks (N, 1, m, m) in 0..1 of each image (B, 3, H, W)."""
        sizes = _sizes(images)
        levels = self.features(images)
        proposals, _ = self.proposals(ImageList(images, sizes), levels)
        found, _ = self.regions(levels, proposals, sizes)
        boxes, classes = [each["boxes"] for each in found], [each["labels"] for each in found]
        probabilities = self.mask_logits(levels, boxes, sizes).sigmoid()
        picked = probabilities[torch.arange(len(probabilities)), torch.cat(classes)][:, None]
        masks = picked.split([len(each) for each in boxes])
        return [
            (box, kind, each["scores"], mask)
            for box, kind, each, mask in zip(boxes, classes, found, masks, strict=True)
        ]


def pyramid_levels(strides: Sequence[int]) -> list[int]:
    """The deepest level of each stride from 4 on. Raises ConfigError where there are fewer than two."""
    levels = [level for level in deepest_of_each(strides) if strides[level] >= 4]
    if len(levels) < 2:
        raise ConfigError(f"backbone: strides {list(strides)}, expected two or more from 4 on for a feature pyramid")
    return levels


def _sizes(images: Tensor) -> list[tuple[int, int]]:
    return [(images.shape[2], images.shape[3])] * len(images)
