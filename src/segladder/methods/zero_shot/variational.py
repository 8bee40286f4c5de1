"""Variational mapping: a class is a Gaussian made of its semantic vector, whose samples a decoder finds in an image.

Kato, Yamasaki, Aizawa: Zero-Shot Semantic Segmentation via Variational Mapping, ICCV Workshops 2019. No public code;
written from a description. Published on VOC: 42.2 mIoU, believed to be class against rest on the folds of PASCAL-5i.

mu, log sigma^2 = MLP(class embedding); v = mu + eps sigma, mu at test; v beside the visual feature at every place, a
decoder gives the mask of the class; binary cross entropy + beta KL(N(mu, sigma^2) || N(0, I)).

Differences: an image asks for all seen classes at once, each with its own sample, also for those it does not hold; one
score per class instead of one binary mask per question, the background's being 0: a class wins where its probability
exceeds a half. Masks are compared on the features' grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.mask_values import IGNORE
from segladder.methods.base import Batch
from segladder.methods.zero_shot.base import SemanticVectorMethod
from segladder.nets.dense_features import DenseFeatures
from segladder.ops.gaussian import kl_to_standard_normal, reparametrized_sample
from segladder.ops.regions import labels_at
from segladder.settings import NotNegative, Positive

FIRST_LOG_VARIANCE = -4.0  # where samples start: with unit variance noise drowns the means and classes are ignored


class Variational(SemanticVectorMethod):
    """Class Gaussians, and a decoder of places and samples to mask logits.

    Args:
        features: the visual network, normalised images (B, 3, H, W) to features (B, D, h, w).
        embeddings: a vector per class (K, E), the background, which is never asked for, first.
        seen: which classes have labels, bool (K,).
        num_classes: K.
        latent_channels: V, of the samples.
        hidden_channels: of the mapping and of the decoder.
        beta: factor on the KL.
        common: the arguments of `Method` but mean and std.
    """

    seen_objects: Tensor

    def __init__(
        self,
        features: DenseFeatures,
        embeddings: Tensor,
        seen: Tensor,
        num_classes: int,
        latent_channels: Positive,
        hidden_channels: Positive,
        beta: NotNegative,
        **common: Any,
    ) -> None:
        super().__init__(features, embeddings, seen, **common)
        gaussian = nn.Linear(hidden_channels, 2 * latent_channels)
        nn.init.constant_(gaussian.bias[latent_channels:], FIRST_LOG_VARIANCE)
        self.mapping = nn.Sequential(nn.Linear(embeddings.shape[1], hidden_channels), nn.ReLU(), gaussian)
        self.visual = nn.Conv2d(features.channels, hidden_channels, 1)
        self.semantic = nn.Linear(latent_channels, hidden_channels, bias=False)
        self.decoder = nn.Sequential(
            nn.ReLU(), nn.Conv2d(hidden_channels, hidden_channels, 1), nn.ReLU(), nn.Conv2d(hidden_channels, 1, 1)
        )
        self.register_buffer("seen_objects", self.seen[1:].nonzero()[:, 0] + 1, persistent=False)
        self.beta = beta

    def gaussians(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (C, V), of classes (C,)."""
        mean, log_variance = self.mapping(self.embeddings[classes]).chunk(2, 1)
        return mean, log_variance

    def mask_logits(self, features: Tensor, samples: Tensor) -> Tensor:
        """Logits (B, C, h, w) of the masks of C classes for features (B, D, h, w) and samples (B, C, V).

        The first layer of the decoder sees features and sample side by side: a sum of a product with each.
        """
        places, classes = self.visual(features)[:, None], self.semantic(samples)[..., None, None]
        joined = (places + classes).flatten(0, 1)  # (B C, hidden, h, w)
        logits: Tensor = self.decoder(joined)[:, 0].unflatten(0, samples.shape[:2])
        return logits

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Binary cross entropy of the seen classes' masks where there are labels, and the KL of their Gaussians."""
        features = self.features(batch["image"])
        labels = labels_at(batch["mask"], features.shape[-2:])
        mean, log_variance = self.gaussians(self.seen_objects)
        shape = len(features), *mean.shape
        samples = reparametrized_sample(mean.expand(shape), log_variance.expand(shape))  # (B, C, V)
        logits = self.mask_logits(features, samples).float()
        masks = (labels[:, None] == self.seen_objects[:, None, None]).float()  # (B, C, h, w)
        labelled = (labels != IGNORE)[:, None].expand_as(masks)
        total = F.binary_cross_entropy_with_logits(logits, masks, labelled.float(), reduction="sum")
        entropy = total / labelled.sum().clamp_min(1)
        kl = kl_to_standard_normal(mean, log_variance).mean()
        return {"loss": entropy + self.beta * kl, "entropy": entropy, "kl": kl}

    def feature_scores(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) of raw pixels (B, 3, H, W), made of the classes' means; the background's are 0."""
        features = self.features(self.normalize(images))
        objects = torch.arange(1, len(self.embeddings), device=features.device)
        samples = self.gaussians(objects)[0].expand(len(features), -1, -1)
        logits = self.mask_logits(features, samples).float()
        return F.pad(logits, (0, 0, 0, 0, 1, 0))
