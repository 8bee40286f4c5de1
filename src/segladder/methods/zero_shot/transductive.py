"""Transductive zero-shot segmentation: pixels without a label should be of some unseen class, whichever.

Liu, Wang, Zhao, Yang, Lv: Learning Unbiased Zero-Shot Semantic Segmentation Networks via Transductive Transfer, IEEE
Signal Processing Letters 2020, https://arxiv.org/abs/2007.00515. The network is SPNet's. Besides the cross entropy of
labelled pixels it minimises, over pixels without labels, the mean of

    -log sum over unseen c of softmax(logits)_c = logsumexp over all classes - logsumexp over unseen classes.

Differences: the official code picks target pixels by their true masks, which leaks the layout of unseen classes. Here
all pixels of an image that training sees as 255 are targets: of unseen classes, of the background where it has no
label, and the borders of objects. Padding of augmentation is 255 too, but no pixel of an image, and is left out. Where
the background is labelled, what is left over still tells where unseen objects lie; `source_weight` equal to
`target_weight` weighs all pixels equally. The second stage, pseudo-labels of the most confident 60 %, is a
further run (`parent=RUN`) whose masks they are, with `softmax_over: all`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import Batch
from segladder.methods.zero_shot.spnet import SPNet
from segladder.ops.upsampling import bilinear
from segladder.settings import NotNegative


class Transductive(SPNet):
    """SPNet with a loss on pixels that have no label.

    Args:
        target_weight: factor on the loss of pixels without a label; the paper's .04.
        source_weight: factor on the same loss of labelled pixels; the paper's 0, the official code's .16.
        common: the arguments of `SPNet`.

    Raises:
        ConfigError: no class is unseen.
    """

    unseen: Tensor

    def __init__(self, target_weight: NotNegative = 0.04, source_weight: NotNegative = 0.0, **common: Any) -> None:
        super().__init__(**common)
        self.target_weight = target_weight
        self.source_weight = source_weight
        self.register_buffer("unseen", self.candidates & ~self.seen, persistent=False)
        if not self.unseen.any():
            raise ConfigError(f"method={self.name}: every class is seen, expected a protocol with unseen classes")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy (`source`) plus what pixels without (`target`) and with a label give to seen classes."""
        masks, inside = batch["mask"], batch.get("inside")
        unlabelled = masks == IGNORE if inside is None else (masks == IGNORE) & inside
        logits = bilinear(self(batch["image"]), masks.shape[-2:])  # (B, K, H, W)
        source = self.cross_entropy_among(self.trained, logits, masks)
        target = self.seen_bias(logits, unlabelled)
        total = source + self.target_weight * target
        if self.source_weight:
            total = total + self.source_weight * self.seen_bias(logits, masks != IGNORE)
        return {"loss": total, "source": source, "target": target}

    def seen_bias(self, logits: Tensor, pixels: Tensor) -> Tensor:
        """Minus the log probability of all unseen classes together, averaged over some pixels.

        Args:
            logits: (B, K, H, W).
            pixels: bool (B, H, W).

        Returns:
            A scalar, 0 without pixels.
        """
        bias = logits[:, self.candidates].logsumexp(1) - logits[:, self.unseen].logsumexp(1)  # (B, H, W)
        return (bias * pixels).sum() / pixels.sum().clamp_min(1)
