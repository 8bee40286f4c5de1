"""k-means: pixels of similar colour, place or features are one cluster.

Lloyd: Least Squares Quantization in PCM, IEEE Trans. Information Theory 1982, https://doi.org/10.1109/TIT.1982.1056489,
by scikit-learn (BSD-3). What anyone would try first without a label. No published number under a protocol of ours:
clusters are found in all training images together and named once, on images that do not score them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segladder.methods.none.base import ClusterMethod, colours_and_places, places_of
from segladder.nets.backbone import FeatureExtractor
from segladder.settings import NotNegative

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # no network is there to normalise for


class KMeans(ClusterMethod):
    """Clusters of colours or of a backbone's features, with places.

    Args:
        backbone: the feature extractor, which is frozen; None: colours.
        level: which of its maps, of unit length at every pixel; negative ones count from the last.
        place: weight of row and column, in 0..1.
        options: the arguments of `ClusterMethod`.

    Raises:
        ConfigError: a level that the backbone does not have.
    """

    def __init__(
        self, backbone: FeatureExtractor | None, level: int | None, place: NotNegative, **options: Any
    ) -> None:
        channels = 3 if backbone is None else _channels(backbone, level)
        looks = PLAIN if backbone is None else {"mean": backbone.mean, "std": backbone.std}
        super().__init__(dimensions=channels + 2, **looks, **options)
        if backbone is not None:
            backbone.leftover.clear()
            backbone.requires_grad_(False)
        self.backbone = backbone
        self.level, self.place = level, place

    def described(self, images: Tensor) -> Tensor:
        """Colours (B, 5, H, W) or features (B, C + 2, h, w), their places behind them."""
        if self.backbone is None or self.level is None:
            return colours_and_places(images, self.place)
        features = F.normalize(self.backbone(self.normalize(images))[self.level].float(), dim=1)
        return torch.cat([features, places_of(images, features.shape[2:], self.place)], 1)


def _channels(backbone: FeatureExtractor, level: int | None) -> int:
    backbone.check_level(level)
    assert level is not None
    return backbone.channels[level]
