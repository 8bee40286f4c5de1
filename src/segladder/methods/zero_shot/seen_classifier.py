"""A network that knows the seen classes only: the floor of zero-shot methods and the first stage of generative ones.

What ZS3Net (Bucher et al. 2019) and CaGNet (Gu et al. 2020) call their first step: a classifier on top of dense
features, trained on the pixels of seen classes. No paper of its own, no published number.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from segladder.methods.base import Batch
from segladder.methods.zero_shot.base import SemanticVectorMethod
from segladder.nets.dense_features import DenseFeatures

UNSEEN_LOGIT = -1e4  # finite in half precision too


class SeenClassifier(SemanticVectorMethod):
    """A 1x1 classifier of dense features, whose rows of unseen classes never learn and never win.

    Args:
        features: the visual network.
        num_classes: K, background included.
        embeddings: a vector per class (K, E); not used.
        seen: which classes have labels, bool (K,).
        common: the arguments of `Method`.
    """

    takes = ("features",)

    def __init__(
        self, features: DenseFeatures, num_classes: int, embeddings: Tensor, seen: Tensor, **common: Any
    ) -> None:
        super().__init__(features, embeddings, seen, **common)
        self.classifier = nn.Conv2d(features.channels, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) of normalised images; those of unseen classes are as random as their weights."""
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy among the seen classes."""
        return {"loss": self.cross_entropy_among(self.seen, self(batch["image"]), batch["mask"])}

    def feature_scores(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) of raw pixels (B, 3, H, W), those of unseen classes -10,000."""
        logits: Tensor = self(self.normalize(images))
        return logits.masked_fill(~self.seen[:, None, None], UNSEEN_LOGIT)
