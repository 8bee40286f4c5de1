"""Imprinted weights: a classifier by angles, whose weights for a new class are the mean feature of its few masks.

Qi, Brown, Lowe: Low-Shot Learning with Imprinted Weights, CVPR 2018, https://arxiv.org/abs/1712.07136, for whole
images; no official code. For pixels: Siam, Oreshkin, Jagersand: AMP: Adaptive Masked Proxies for Few-Shot Segmentation,
ICCV 2019, https://arxiv.org/abs/1902.11123. Official code: https://github.com/MSiam/AdaptiveMaskedProxies (no licence
is stated); written anew. No published number fits: theirs are of PASCAL-5i on an FCN-8s.

logits[b, k, h, w] = scale * cosine(features[b, :, h, w], weights[k]). Training fits scale, features and weights to the
classes that it has masks of. Then `start=RUN method.trains=false` imprints: the weight of each class that the run has
never met is the mean over the images that show it of the mean feature of its pixels, all at unit length. What was
learnt is not touched, so that nothing is forgotten. The paper's fine-tuning is to train on from a run that imprinted
(`start=RUN`).

Differences from Qi et al.: pixels for images. From AMP: one map of features (sums of levels) where that imprints at
three resolutions; weights of classes met before stay as they are (its update rate of 0).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import Batch, evaluating
from segladder.methods.full.base import DenseMethod
from segladder.nets.dense_features import DenseFeatures
from segladder.ops.upsampling import bilinear
from segladder.settings import AboveZero


class CosineNetwork(nn.Module):
    """Cosines between the features of pixels and a weight for each class.

    Args:
        features: the visual network.
        num_classes: K.
        scale: factor on the cosines to start from.
    """

    def __init__(self, features: DenseFeatures, num_classes: int, scale: AboveZero) -> None:
        super().__init__()
        self.features = features
        self.weights = nn.Parameter(torch.randn(num_classes, features.channels))
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def described(self, images: Tensor) -> Tensor:
        """Features at unit length, float32 (B, D, h, w), of normalised images (B, 3, H, W)."""
        return F.normalize(self.features(images).float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        cosines = torch.einsum("bdhw,kd->bkhw", self.described(images), F.normalize(self.weights.float(), dim=1))
        return bilinear(self.scale * cosines, images.shape[-2:])


class Imprinted(DenseMethod):
    """A classifier by angles that learns classes by gradients, and new ones by imprinting.

    Args:
        features: the visual network.
        num_classes: K, background included.
        criterion: the loss.
        scale: of the cosines, as of `CosineNetwork`.
        common: the arguments of `Method`.
    """

    studies: ClassVar[str] = "labels"

    learnt: Tensor  # which classes it has met, bool (K,)

    def __init__(
        self, features: DenseFeatures, num_classes: int, criterion: nn.Module, scale: AboveZero, **common: Any
    ) -> None:
        backbone = features.backbone
        network = CosineNetwork(features, num_classes, scale)
        super().__init__(backbone, network, criterion, mean=backbone.mean, std=backbone.std, **common)
        self.register_buffer("learnt", torch.zeros(num_classes, dtype=torch.bool))

    @property
    def cosines(self) -> CosineNetwork:
        """The network."""
        return cast(CosineNetwork, self.network)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion; classes in the masks that training shows, in whichever process, are met."""
        if self.training:
            counts = torch.bincount(batch["mask"].flatten().long(), minlength=256)
            self.learnt |= anywhere(counts[: len(self.learnt)] > 0)
        return super().loss(batch)

    def study(self, images: Iterable[np.ndarray], named: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Imprint the classes that were never met, from images uint8 (H, W, 3) with masks uint8 (H, W).

        Raises:
            ConfigError: no mask shows such a class.
        """
        found = defaultdict(list)
        with evaluating(self), torch.inference_mode():
            for image, mask in named:
                pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)[None]
                features = bilinear(self.cosines.described(self.normalize(pixels)), mask.shape)[0]  # (D, H, W)
                for k in np.setdiff1d(np.unique(mask), np.append(np.flatnonzero(self.learnt.cpu()), IGNORE)).tolist():
                    mean = features[:, torch.from_numpy(mask == k).to(self.device)].mean(1)
                    found[k].append(F.normalize(mean, dim=0))
        if not found:
            raise ConfigError(f"method={self.name}: no labelled image shows a class that start=RUN has not met")
        for k, means in found.items():
            self.cosines.weights.data[k] = F.normalize(torch.stack(means).mean(0), dim=0)
            self.learnt[k] = True


def anywhere(flags: Tensor) -> Tensor:
    """Flags bool (K,), true where any process of a distributed run has set them; all processes call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flags
    votes = flags.int()
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return votes > 0
