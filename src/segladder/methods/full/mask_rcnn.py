"""Mask R-CNN: boxes of objects, and a mask in each box.

He, Gkioxari, Dollár, Girshick: Mask R-CNN, ICCV 2017, https://arxiv.org/abs/1703.06870.
Official code: https://github.com/facebookresearch/Detectron (Apache-2.0); here torchvision's parts (BSD-3-Clause) on
any backbone, put together anew.
Published, ResNet-50-FPN, COCO trainval35k to minival: mask AP 33.6 (unverified); in the official code's model zoo 33.9
(90k steps) and 34.5 (180k).

Differences: images are not resized inside the network; the protocol's `input_size` does that. The pyramid begins at
stride 4, whichever levels the backbone has from there on. Channels and regions are fewer, made for data=shapes; the
paper's values stand in the yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from segladder.errors import ConfigError
from segladder.methods.base import Batch, Method, Objects
from segladder.nets.backbone import FeatureExtractor
from segladder.nets.regions import PerClassMasks, RegionNetwork
from segladder.settings import AboveZero, Positive, Share

LEAST = 1e-6  # probability, for logarithms


class RegionSettings(TypedDict, total=False):
    """What a method's network is: arguments of `RegionNetwork`."""

    anchor: AboveZero
    proposals: Positive
    sampled: Positive
    least_score: Share
    most: Positive


class MaskRCNN(Method):
    """Tells single objects apart; its answer for classes is what it paints with them.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        width: channels of the pyramid.
        box_width: channels that the box head tells classes by.
        mask_width: channels of the mask head.
        network: further arguments of `RegionNetwork`.
        common: the arguments of `Method`.
    """

    reads_objects: ClassVar[bool] = True
    needs_background: ClassVar[bool] = True
    tells_objects: ClassVar[bool] = True

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        width: Positive,
        box_width: Positive,
        mask_width: Positive,
        network: RegionSettings,
        masks: nn.Module | None = None,
        **common: Any,
    ) -> None:
        masks = PerClassMasks(mask_width, num_classes) if masks is None else masks
        super().__init__(mean=backbone.mean, std=backbone.std, **common)
        self.num_classes = num_classes
        self.network = RegionNetwork(backbone, num_classes, masks, width, box_width, mask_width, **network)

    def backbones(self) -> Iterator[nn.Module]:
        """The backbone inside `network`."""
        yield self.network.backbone

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of the losses of proposals, boxes and masks."""
        if "objects" not in batch:
            raise ConfigError(f"method={self.name} learns from single objects, and this protocol shows none")
        targets = [
            {"boxes": o["boxes"], "labels": o["classes"], "masks": o["masks"], "outlined": o["outlined"]}
            for o in batch["objects"]
        ]
        if batch["image"].dtype != torch.float32:
            raise ConfigError(
                f"strategy.precision: method={self.name} learns boxes, which are float32; choose bf16-mixed or 32-true"
            )
        losses = self.network.losses(batch["image"], targets)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def objects(self, images: Tensor, size: tuple[int, int]) -> list[Objects]:
        """The objects found, their masks where the mask head says more than one half."""
        return [Objects(masks > 0.5, classes, scores) for masks, classes, scores in self.soft_objects(images, size)]

    def soft_objects(self, images: Tensor, size: tuple[int, int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each image masks (N, H, W) in 0..1 at `size`, classes (N,) and scores (N,) of the objects found."""
        height, width = images.shape[2:]
        scale = images.new_tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float32)
        return [
            (paste_masks_in_image(masks.float(), boxes.float() * scale, size)[:, 0], classes, scores.float())
            for boxes, classes, scores, masks in self.network(self.normalize(images))
        ]

    def predict(self, images: Tensor) -> Tensor:
        """Logarithms of class probabilities (B, K, H, W): the surest object of each class at each pixel."""
        size = (int(images.shape[2]), int(images.shape[3]))
        painted = torch.zeros(len(images), self.num_classes, *size, device=self.device)
        for image, (masks, classes, scores) in zip(painted, self.soft_objects(images, size), strict=True):
            for mask, k, score in zip(masks, classes.tolist(), scores, strict=True):
                image[k] = torch.maximum(image[k], mask * score)
            image[0] = 1 - image[1:].amax(0)
        return (painted / painted.sum(1, keepdim=True)).clamp(min=LEAST).log()
