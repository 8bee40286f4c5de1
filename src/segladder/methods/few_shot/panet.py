"""PANet: prototypes of class and background, and the loss that prototypes of the prediction must segment the supports.

Wang, Liew, Zou, Zhou, Feng: PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment, ICCV 2019,
https://arxiv.org/abs/1908.06391. Official code: https://github.com/kaixin96/PANet (no licence file); written anew here.
Published, VGG-16, PASCAL-5i, test images from train_aug at 417 px: mean IoU 48.1 (1-shot), 55.7 (5-shot).

Differences: any backbone. VGG-16 loses its last ReLU, as in the paper, and with stride 8 or 16 its last pool, but keeps
2x2 pools where the paper's overlap (3x3); other backbones keep their last activation, so that their cosines may all be
positive. Supports are segmented without their ignored pixels. Episodes with unequal supports are averaged by pixels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from segladder.mask_values import IGNORE
from segladder.methods.base import Batch
from segladder.methods.few_shot.base import Features
from segladder.methods.few_shot.prototype import Prototype
from segladder.nets.backbone import Backbone, FeatureExtractor
from segladder.nets.losses import Pictures
from segladder.ops.prototypes import masked_average_pooling
from segladder.ops.upsampling import bilinear
from segladder.settings import AboveZero, NotNegative, OutputStride


class PANet(Prototype):
    """Prototypes on the backbone's last level, trained with the alignment loss.

    Args:
        backbone: the feature extractor.
        num_classes: of the data set.
        criterion: the loss of queries and supports.
        temperature: factor on cosines; the paper's 20.
        alignment: weight of the alignment loss; the paper's 1, 0 leaves it out.
        output_stride: what the backbone's last level must have; None takes any. The paper's 8.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a backbone of another stride.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        temperature: AboveZero = 20.0,
        alignment: NotNegative = 1.0,
        output_stride: OutputStride | None = 16,
        **common: Any,
    ) -> None:
        backbone.check_stride(output_stride)
        super().__init__(backbone, num_classes, criterion, level=-1, temperature=temperature, **common)
        self.alignment = alignment
        if isinstance(backbone, Backbone) and backbone.name.startswith("vgg"):
            _end_without_activation(backbone)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion on queries (`segmentation`) plus that on supports (`alignment`)."""
        images, support_masks = batch["support_image"], batch["support_mask"]  # (B, K, 3, H, W), (B, K, H, W)
        shots = images.shape[1]
        supports = self.encode(images.flatten(0, 1))  # (B K, C, h, w)
        states = self.condition(None, supports, (support_masks == 1).float().flatten(0, 1))  # (B K, C) each
        state = tuple(prototypes.unflatten(0, (-1, shots)).mean(1) for prototypes in states)
        queries = self.encode(batch["image"])
        similarities = self.similarities(queries, state)  # (B, 2, h, w)
        logits = bilinear(similarities, batch["mask"].shape[-2:])
        segmentation = self.criterion(logits.float(), batch["mask"].long(), self.pictures(batch))
        if not self.alignment:
            return {"loss": segmentation}
        inside = batch.get("support_inside")
        pictures = self.pictured(images.flatten(0, 1), None if inside is None else inside.flatten(0, 1))
        alignment = self.alignment_loss(queries, similarities.argmax(1), supports, support_masks, pictures)
        return {"loss": segmentation + self.alignment * alignment, "segmentation": segmentation, "alignment": alignment}

    def alignment_loss(
        self,
        queries: Features,
        predictions: Tensor,
        supports: Features,
        support_masks: Tensor,
        pictures: Pictures | None = None,
    ) -> Tensor:
        """How badly the predicted query segments the supports, a scalar.

        Args:
            queries: features (B, C, h, w).
            predictions: 1 = the class, 0 = background, (B, h, w).
            supports: features (B K, C, h, w).
            support_masks: of 0, 1 and 255 = ignored, (B, K, H, W).
            pictures: of the supports.

        Returns:
            The criterion over the episodes where the class was predicted anywhere, times their share.
        """
        shots = support_masks.shape[1]
        foreground = (predictions == 1).to(queries[0].dtype)
        masks = [foreground, 1 - foreground]
        state = tuple(masked_average_pooling(queries[0], m).repeat_interleave(shots, 0) for m in masks)  # (B K, C)
        logits = bilinear(self.similarities(supports, state), support_masks.shape[-2:])  # (B K, 2, H, W)
        predicted = foreground.flatten(1).any(1)  # (B,)
        targets = support_masks.long().where(predicted[:, None, None, None], IGNORE)
        loss: Tensor = self.criterion(logits.float(), targets.flatten(0, 1), pictures)
        return loss * predicted.float().mean()


def _end_without_activation(vgg: Backbone) -> None:
    """Take the last ReLU, and a last pool that only smooths, out of VGG."""
    layers = vgg.model
    names = list(layers)
    last = max(place for place, name in enumerate(names) if isinstance(layers[name], nn.ReLU))
    for name in names[last:]:
        if isinstance(layers[name], nn.ReLU) or layers[name].stride == 1:
            layers[name] = nn.Identity()
