"""GAIN: where the network looks becomes a part of training, so that it looks at whole objects.

Li, Wu, Peng, Ernst, Fu: Tell Me Where to Look: Guided Attention Inference Network, CVPR 2018,
https://arxiv.org/abs/1802.10171. No official code; written from the formulas. Published, VGG-16, mIoU on VOC 2012 val /
test of SEC with seeds of GAIN: 55.3 / 56.8, of SEC alone 50.7 / 51.7 (unverified).

    I*_c = I - T(A_c) I,   T(A) = sigmoid(omega (A - sigma))                   (3), (4)
    L_am = mean over the classes c of an image of s_c(I*_c)                    (5)
    L    = L_cl + alpha L_am                                                   (6)

A_c is the attention map of a class, s_c the class's score. What the attention misses of an object is left in I*_c. A
low score there asks for attention that covers all of it. The paper's attention is Grad-CAM. Under the one linear layer
of `cam` it is CAM itself up to a factor (see `grad_cam`), which goes away where A is divided by its maximum.
Differences: scores are sigmoids of logits, since logits have no lower bound; A is enlarged bilinearly; erased pixels
become the mean colour. Sigma and omega are those of reimplementations (https://github.com/ngxbac/GAIN and others).
The author of one found that these losses alone gave bad maps (issue 5 of alokwhitewolf/Guided-Attention-Inference-
Network). Not here: GAIN_ext, which also learns from masks. Image and erased images are two passes: with
BatchNorm in training mode both move its statistics; `backbone.batch_norm=frozen` keeps the pretrained ones.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from segladder.methods.base import Batch
from segladder.methods.image_level.cam import CAM, classification_loss
from segladder.ops.cam import normalize_cam
from segladder.ops.upsampling import bilinear
from segladder.settings import AboveZero, NotNegative, Share


class GAIN(CAM):
    """CAM that is not to recognise a class where its own map was erased from the image.

    Args:
        alpha: weight of attention mining.
        sigma: attention above which a pixel is erased.
        omega: how sharply.
        common: the arguments of `CAM`.
    """

    def __init__(
        self,
        alpha: NotNegative = 1.0,
        sigma: Share = 0.5,
        omega: AboveZero = 10.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.alpha = alpha
        self.sigma = sigma
        self.omega = omega

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Classification and attention mining."""
        images, tags = batch["image"], batch["tags"]
        maps = self.class_maps(images).float()
        classification, mining = classification_loss(maps, tags), self.attention_mining(images, maps, tags)
        total = classification + self.alpha * mining
        return {"loss": total, "classification": classification, "attention_mining": mining}

    def attention_mining(self, images: Tensor, maps: Tensor, tags: Tensor) -> Tensor:
        """Mean over images of (5), 0 for an image without classes.

        Args:
            images: normalised (B, 3, H, W).
            maps: raw class maps (B, C, h, w).
            tags: (B, C) of 0 and 1.
        """
        image, k = tags.nonzero(as_tuple=True)  # P pairs of an image and a class that it holds
        if len(image) == 0:
            return maps.sum() * 0
        attention = bilinear(normalize_cam(maps)[image, k][:, None], images.shape[-2:])  # (P, 1, H, W)
        erased = images[image] * (1 - torch.sigmoid(self.omega * (attention - self.sigma)))
        views = erased.to(images.dtype, memory_format=self.input_format)
        logits = self.class_maps(views).float().mean((2, 3))  # (P, C)
        scores = logits.gather(1, k[:, None])[:, 0].sigmoid()
        return (scores / tags.sum(1)[image]).sum() / len(images)
