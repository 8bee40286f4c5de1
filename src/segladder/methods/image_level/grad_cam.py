"""Grad-CAM: feature maps weighted by how much the score of a class grows with each of them.

Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization, ICCV 2017, https://arxiv.org/abs/1610.02391. Official code: https://github.com/ramprs/grad-cam (Lua, BSD);
written anew from the formulas. Published, VGG-16, VOC 2012 val: as the seed of SEC 49.6 mIoU, where CAM's modified
network gives 44.6 (unverified).

    w_k = mean over places of d y / d A_k                                        (1)
    map = relu(sum over k of w_k A_k)                                            (2)

A are the backbone's last maps, y the logit of a class. CAM needs a network in which one linear layer follows the
averaged maps. Grad-CAM takes any: here `hidden_channels` stand between, as fc6 and fc7 do in the paper's VGG-16. With
`hidden_channels=0` the weights are those of the linear layer, divided by the number of places: the maps are CAM's.
Differences: any backbone; fully connected layers see the averaged maps, VGG-16's see every place by itself; trained
with several tags an image. The sum over views, the grid and the division by the maximum are those of `cam`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from segladder.methods.base import differentiating
from segladder.methods.image_level.base import ClassMapMethod
from segladder.nets.backbone import FeatureExtractor
from segladder.settings import Count, OutputStride, Share


class GradCAM(ClassMapMethod):
    """Gradient-weighted class activation maps of any backbone under any number of hidden channels.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included; there are K - 1 maps.
        background_score: the background's score in `predict`.
        hidden_channels: of the layer between the averaged features and the logits; 0: none.
        output_stride: what the backbone's last level must have; None takes any.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a backbone of another stride.
    """

    backbone: FeatureExtractor

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        background_score: Share,
        hidden_channels: Count,
        output_stride: OutputStride | None,
        **common: Any,
    ) -> None:
        super().__init__(backbone, background_score, **common)
        backbone.check_stride(output_stride)
        channels = backbone.channels[-1]
        hidden = [nn.Linear(channels, hidden_channels), nn.ReLU()] if hidden_channels else []
        self.classifier = nn.Sequential(*hidden, nn.Linear(hidden_channels or channels, num_classes - 1))

    def tag_logits(self, images: Tensor) -> Tensor:
        """Logits (B, C) of the tags for normalised images."""
        return self._logits(self.backbone(images)[-1])

    def class_maps(self, images: Tensor) -> Tensor:
        """Signed maps (B, C, h, w) before the ReLU of (2)."""
        return self.maps_and_logits(images)[0]

    def maps_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B, C, h, w) and logits (B, C); both can be differentiated if the features can."""
        features = self.backbone(images)[-1]  # (B, D, h, w)
        followed = features.requires_grad
        with differentiating():
            if not followed:
                features = features.detach().clone().requires_grad_()
            logits = self._logits(features)
            maps = [self._weighted(features, of_class, followed) for of_class in logits.unbind(1)]
            found = torch.stack(maps, 1)
        return (found, logits) if followed else (found.detach(), logits.detach())

    def _weighted(self, features: Tensor, logits: Tensor, followed: bool) -> Tensor:
        """Equations (1) and (2) without the ReLU: (B, h, w), from the logits (B,) of one class."""
        (slopes,) = torch.autograd.grad(logits.sum(), features, retain_graph=True, create_graph=followed)
        return torch.einsum("bd,bdhw->bhw", slopes.float().mean((2, 3)), features.float())

    def _logits(self, features: Tensor) -> Tensor:
        """Logits (B, C) of feature maps (B, D, h, w)."""
        logits: Tensor = self.classifier(features.mean((2, 3))).float()
        return logits
