"""SPNet: pixels are projected into the space of semantic vectors, where each class, seen or not, is a fixed direction.

Xian, Choudhury, He, Schiele, Akata: Semantic Projection Network for Zero- and Few-Label Semantic Segmentation, CVPR
2019, https://doi.org/10.1109/CVPR.2019.00845. Official code: https://github.com/subhc/SPNet (MIT); written anew here.
Published, DeepLabv2 on ResNet-101, VOC with 15 seen and 5 unseen classes, no background, mIoU seen / unseen / harmonic:
75.8 / 0.0 / 0.0, with calibrated stacking 78.0 / 15.6 / 26.1; 49.5 among unseen classes alone (a user reproduced 48.8).

logits[b, k, h, w] = sum over d of projection(features)[b, d, h, w] embeddings[k, d].

Differences: a rectified layer lies between the summed maps and the projection, where the paper's ASPP projects by
itself; any backbone; one scale, where the official network takes the greatest logits of the image at 1, .75 and .5 of
its size. The calibration is the protocol's. Few-label training (the paper's n = 1, 2, 5, 10, 20) is a
further run (`parent=RUN pool=N`) in which all classes compete; an image that was labelled for one unseen class shows no
other, so that there are exactly N masks of each.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.base import Batch, Method
from segladder.methods.zero_shot.base import SemanticVectorMethod
from segladder.nets.dense_features import DenseFeatures
from segladder.ops.projection import class_scores
from segladder.settings import AboveZero


class SPNet(SemanticVectorMethod):
    """A projection of dense features, compared with the semantic vectors of all classes.

    Args:
        features: the visual network.
        num_classes: K, background included; as many as `embeddings` has rows.
        embeddings: a vector per class (K, E).
        seen: which classes have labels, bool (K,).
        cosine: whether projected pixels are brought to unit length; the paper's are not.
        scale: factor on the inner products; the paper's 1.
        softmax_over: the classes that compete in training: `seen`, or `all` (with the background only if it is seen),
            for masks that name unseen classes too; with few labels always all.
        common: the other arguments of `SemanticVectorMethod`.

    Raises:
        ConfigError: another `softmax_over`.
    """

    takes = ("features", "masks")
    learns_unseen = True  # with few labels, or where all classes compete

    trained: Tensor
    candidates: Tensor

    def __init__(
        self,
        features: DenseFeatures,
        num_classes: int,
        embeddings: Tensor,
        seen: Tensor,
        cosine: bool = True,
        scale: AboveZero = 10.0,
        softmax_over: Literal["seen", "all"] = "seen",
        few_labels: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(features, embeddings, seen, few_labels, **common)
        self.projection = nn.Conv2d(features.channels, embeddings.shape[1], 1)
        self.cosine = cosine
        self.scale = scale
        candidates = self.seen | (torch.arange(num_classes) > 0)  # (K,) all classes a pixel may be of
        self.register_buffer("candidates", candidates, persistent=False)
        trained = candidates if few_labels or softmax_over == "all" else self.seen  # (K,)
        self.register_buffer("trained", trained, persistent=False)
        self.learns_unseen = torch.equal(trained, candidates)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) float32 of normalised images."""
        places = self.projection(self.features(images))  # (B, E, h, w)
        if self.cosine:
            places = F.normalize(places.float(), dim=1)
        return self.scale * class_scores(places, self.embeddings)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross entropy among the classes of `softmax_over`."""
        return {"loss": self.cross_entropy_among(self.trained, self(batch["image"]), batch["mask"])}

    def feature_scores(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) of raw pixels (B, 3, H, W)."""
        logits: Tensor = self(self.normalize(images))
        return logits

    def inherit(self, parent: Method) -> None:
        """Start from the visual network of a parent run, and from its projection if it has one of this shape."""
        super().inherit(parent)
        if isinstance(parent, SPNet):
            if parent.projection.weight.shape != self.projection.weight.shape:
                theirs, ours = len(parent.projection.weight), len(self.projection.weight)
                raise ConfigError(f"parent: its semantic vectors have {theirs} dimensions, those of this run {ours}")
            self.projection.load_state_dict(parent.projection.state_dict())
