"""Attribute-driven segmentation: first where something is, then what it is like, then which class is most like that.

Written from a description; no paper with code, no published number. A binary branch finds objects of any class; the
features of each object, averaged, are asked for every attribute (sigmoids, binary cross entropy); the class is the row
of the attribute table nearest to the answers; the object is painted with it.

The description has one object per image. Here an object is, in training, what a mask gives to one class in one image,
and in prediction a connected region of the binary mask, for images that hold several; `regions: image` takes the whole
mask as one, as described, `regions: place` every place of the feature map by itself. Objects that touch are one region.
Where the background has no labels, the binary branch only ever sees objects, and each place answers for itself.

Scores: 0 for the best class, less by their distance for the others, minus the binary logit for the background, so that
an object is painted where the binary branch says so. Outside its mask each place answers for itself.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.mask_values import IGNORE
from segladder.methods.base import Batch
from segladder.methods.zero_shot.base import SemanticVectorMethod
from segladder.nets.dense_features import DenseFeatures
from segladder.ops.projection import class_scores
from segladder.ops.prototypes import masked_average_pooling
from segladder.ops.regions import connected_regions
from segladder.ops.upsampling import bilinear
from segladder.settings import AboveZero, NotNegative

Regions = Literal["connected", "image", "place"]
Nearest = Literal["cosine", "probability"]


class AttributeNetwork(SemanticVectorMethod):
    """A binary mask branch and an attribute head on dense features.

    Args:
        features: the visual network.
        num_classes: K, background included; as many as `embeddings` has rows.
        embeddings: the attribute table (K, A), the background first; see `attribute_table`.
        seen: which classes have labels, bool (K,).
        regions: what is given one class: `connected` regions of the mask, all of it (`image`), or each `place`, as
            always where the background is not seen.
        nearest: `cosine` of the attributes' probabilities to the table's row; or `probability`, the log odds of having
            exactly that row's attributes (direct attribute prediction, Lampert et al. 2009, with even priors).
        scale: factor on cosines.
        attribute_weight: of the attributes' loss beside the mask's.
        common: the arguments of `Method`.

    Raises:
        ConfigError: another kind of regions or of nearness.
    """

    takes = ("features", "masks")
    learns_unseen = True

    table: Tensor

    def __init__(
        self,
        features: DenseFeatures,
        num_classes: int,
        embeddings: Tensor,
        seen: Tensor,
        regions: Regions = "connected",
        nearest: Nearest = "cosine",
        scale: AboveZero = 10.0,
        attribute_weight: NotNegative = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(features, embeddings, seen, **common)
        self.mask_branch = nn.Conv2d(features.channels, 1, 1)
        self.attribute_head = nn.Conv2d(features.channels, embeddings.shape[1], 1)
        self.register_buffer("table", attribute_table(self.embeddings), persistent=False)
        self.regions = regions if self.seen[0] else "place"
        self.nearest = nearest
        self.scale = scale
        self.attribute_weight = attribute_weight

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Binary cross entropy of labelled pixels (`foreground`) and of the attributes of labelled objects."""
        features = self.features(batch["image"])
        foreground = self.foreground_loss(self.mask_branch(features), batch["mask"])
        attributes = self.attribute_loss(features, batch["mask"].long())
        total = foreground + self.attribute_weight * attributes
        return {"loss": total, "foreground": foreground, "attributes": attributes}

    def foreground_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Object or not, averaged over labelled pixels; 0 without any.

        Args:
            logits: (B, 1, h, w).
            masks: class indices (B, H, W), 255 ignored.
        """
        labelled = (masks != IGNORE).float()  # (B, H, W)
        logits = bilinear(logits.float(), masks.shape[-2:])[:, 0]
        total = F.binary_cross_entropy_with_logits(logits, (masks > 0).float(), labelled, reduction="sum")
        return total / labelled.sum().clamp_min(1)

    def attribute_loss(self, features: Tensor, masks: Tensor) -> Tensor:
        """Attributes of what each class covers in each image, averaged over attributes and objects; 0 without any.

        Args:
            features: (B, D, h, w).
            masks: class indices int64 (B, H, W), 255 ignored.
        """
        image = torch.arange(len(masks), device=masks.device)[:, None, None].expand_as(masks)
        object_pixels = (masks > 0) & (masks != IGNORE)
        image, label = torch.stack([image[object_pixels], masks[object_pixels]]).unique(dim=1)  # (N,), (N,)
        covered = (masks[image] == label[:, None, None]).float()  # (N, H, W)
        pooled = masked_average_pooling(features[image], covered)  # (N, D)
        logits = self.attribute_head(pooled[:, :, None, None]).flatten(1).float()  # (N, A)
        total = F.binary_cross_entropy_with_logits(logits, self.table[label], reduction="sum")
        mean: Tensor = total / max(1, logits.numel())
        return mean

    def feature_scores(self, images: Tensor) -> Tensor:
        """Scores (B, K, h, w) of raw pixels (B, 3, H, W), the background's first; see the file's head."""
        features = self.features(self.normalize(images)).float()
        foreground = self.mask_branch(features).float()  # (B, 1, h, w)
        regions = self.numbered_regions(foreground[:, 0] > 0)
        scores = self.object_scores(self.attribute_head(region_means(features, regions)).float())
        scores = scores - scores.amax(1, keepdim=True)  # (B, K - 1, h, w)
        return torch.cat([-foreground, scores], 1)

    def object_scores(self, attributes: Tensor) -> Tensor:
        """Scores (B, K - 1, h, w) of the foreground classes for attribute logits (B, A, h, w)."""
        table = self.table[1:]
        if self.nearest == "probability":  # sum_a log p_a if the row has a, log(1 - p_a) if not, less what all share
            return class_scores(attributes, table)
        return self.scale * class_scores(F.normalize(attributes.sigmoid(), dim=1), F.normalize(table, dim=1))

    def numbered_regions(self, mask: Tensor) -> Tensor:
        """A number from 0 on for what is given one class, -1 elsewhere: int64 (B, h, w) of a mask bool (B, h, w)."""
        if self.regions == "connected":
            return connected_regions(mask.long().where(mask, IGNORE))
        ones = torch.arange(len(mask), device=mask.device)[:, None, None]
        return ones.where(mask & (self.regions == "image"), -1)


def attribute_table(embeddings: Tensor) -> Tensor:
    """Semantic vectors (K, A) as attributes in 0..1: each row, and 0, from its least to its greatest value.

    Undoes the normalisation of a table of ones and zeros. A row of zeros stays so.
    """
    least = embeddings.amin(1, keepdim=True).clamp(max=0)
    greatest = embeddings.amax(1, keepdim=True)
    return (embeddings - least) / (greatest - least).clamp_min(torch.finfo(embeddings.dtype).tiny)


def region_means(values: Tensor, regions: Tensor) -> Tensor:
    """Values (B, D, h, w) replaced by their mean over each region; regions int64 (B, h, w), those of -1 keep theirs."""
    inside = regions >= 0
    numbers = regions[inside]  # (P,)
    places = values.movedim(1, -1).clone()  # (B, h, w, D)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    sums = places.new_zeros(count, places.shape[-1]).index_add(0, numbers, places[inside])
    means = sums / numbers.bincount(minlength=count).clamp_min(1)[:, None]
    places[inside] = means[numbers]
    return places.movedim(-1, 1)
