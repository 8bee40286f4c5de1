"""What methods without labels share: clusters of described pixels, and names of classes that an oracle gives them.

How clusters become classes decides the score as much as the clusters do. Two ways are usual: one cluster for each class
so that the most pixels are right (Kuhn's Hungarian method, 1955; Ji, Henriques, Vedaldi: Invariant Information
Clustering, ICCV 2019, https://arxiv.org/abs/1807.06653), and the commonest class of each cluster. Here it is done once
for a data set, on training images in which no cluster was sought; it is an oracle all the same, and records say so.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import Batch, Method, evaluating
from segladder.nets.answering import in_float32
from segladder.ops.upsampling import bilinear
from segladder.settings import Positive

Matching = Literal["hungarian", "majority"]

PIXELS = 500  # of an image that clusters are found in, evenly spread
STARTS = 4  # of k-means, the best counts
FAR = -1e4  # score of a class that no cluster is named after


class ClusterMethod(Method):
    """Pixels belong to the nearest of some centres, each of which has the name of a class.

    Before `study` centres are random and names are in turn.

    Args:
        num_classes: K, background included.
        dimensions: D, numbers that describe a pixel.
        clusters: how many; None: K.
        matching: how clusters are named, `hungarian` or `majority`.
        study_images: how many images clusters are found in.
        naming_images: how many masks name them.
        common: the arguments of `Method`.
    """

    learns_from: ClassVar[str] = "images"
    studies: ClassVar[str] = "images"

    centres: Tensor
    names: Tensor

    def __init__(
        self,
        num_classes: int,
        dimensions: int,
        clusters: Positive | None,
        matching: Matching,
        study_images: Positive,
        naming_images: Positive,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.num_classes = num_classes
        self.matching = matching
        self.study_images, self.naming_images = study_images, naming_images
        count = clusters or num_classes
        self.register_buffer("centres", torch.rand(count, dimensions))
        self.register_buffer("names", torch.arange(count) % num_classes)

    @abstractmethod
    def described(self, images: Tensor) -> Tensor:
        """What pixels are clustered by, (B, D, h, w) of raw pixels (B, 3, H, W) in 0..255."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Raise ConfigError: nothing learns."""
        raise ConfigError(f"method.trains=true: method={self.name} has nothing to learn, expected false")

    def cluster_scores(self, images: Tensor) -> Tensor:
        """Minus the squared distance to each centre, (B, M, h, w) for raw pixels (B, 3, H, W)."""
        features = self.described(images).float()
        flat = features.flatten(2).transpose(1, 2)  # (B, h w, D)
        with in_float32(flat.device):
            products = 2 * flat @ self.centres.T
        distances = (flat.pow(2).sum(2, keepdim=True) - products + self.centres.pow(2).sum(1)).clamp_min(0)
        scores: Tensor = -distances.transpose(1, 2).unflatten(2, features.shape[2:])
        return scores

    def predict(self, images: Tensor) -> Tensor:
        """For each class the score of its nearest cluster, (B, K, H, W)."""
        found = self.cluster_scores(images)
        batch, _, height, width = found.shape
        scores = found.new_full((batch, self.num_classes, height, width), FAR)
        places = self.names.view(1, -1, 1, 1).expand_as(found)
        scores = scores.scatter_reduce(1, places, found, "amax")
        with in_float32(scores.device):
            return bilinear(scores, (images.shape[2], images.shape[3]))

    @torch.no_grad()
    def study(self, images: Iterable[np.ndarray], named: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Find the centres by k-means and name them; see `Method.study`.

        Raises:
            ConfigError: more clusters than pixels that were looked at.
        """
        with evaluating(self):
            samples = np.concatenate([self._sampled(image) for image in images])
            if len(samples) < len(self.centres):
                raise ConfigError(f"method.clusters={len(self.centres)}: more than the {len(samples)} pixels looked at")
            self.centres.copy_(torch.from_numpy(centres_of(samples, len(self.centres))))
            overlap = np.zeros((len(self.centres), self.num_classes), np.int64)
            for image, mask in named:
                overlap += self._overlap(image, mask)
        self.names.copy_(torch.from_numpy(names_of(overlap, self.matching)))

    def _sampled(self, image: np.ndarray) -> np.ndarray:
        """What describes some pixels of an image uint8 (H, W, 3), (P, D)."""
        flat = self.described(self._batch(image))[0].flatten(1).T  # (h w, D)
        count = min(PIXELS, len(flat))
        return flat[torch.arange(count) * len(flat) // count].cpu().numpy()

    def _overlap(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Pixels of each cluster and class, int64 (M, K), of an image and its mask (H, W)."""
        scores = bilinear(self.cluster_scores(self._batch(image)), (mask.shape[0], mask.shape[1]))
        clusters = scores[0].argmax(0).cpu().numpy()
        labelled = mask != IGNORE
        joint = clusters[labelled].astype(np.int64) * self.num_classes + mask[labelled]
        counts: np.ndarray = np.bincount(joint, minlength=scores.shape[1] * self.num_classes)
        return counts.reshape(-1, self.num_classes)

    def _batch(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(image).to(self.centres.device).permute(2, 0, 1)[None]  # (1, 3, H, W)


def centres_of(samples: np.ndarray, count: int) -> np.ndarray:
    """Centres float32 (M, D) of samples (N, D) by k-means, always from the same random start."""
    from sklearn.cluster import KMeans  # a second, and only where clusters are sought

    found: np.ndarray = KMeans(count, n_init=STARTS, random_state=0).fit(samples.astype(np.float32)).cluster_centers_
    return found.astype(np.float32)


def names_of(overlap: np.ndarray, matching: str) -> np.ndarray:
    """The class of each cluster, int64 (M,), from the pixels that they share (M, K).

    With `hungarian` each class has at most one cluster so that the most pixels are right; clusters that are left over
    take their commonest class, as all do with `majority`.
    """
    from scipy.optimize import linear_sum_assignment

    names: np.ndarray = overlap.argmax(1)
    if matching == "hungarian":
        clusters, classes = linear_sum_assignment(overlap, maximize=True)
        names[clusters] = classes
    return names


def colours_and_places(images: Tensor, place: float) -> Tensor:
    """Colours in 0..1 with weighted row and column in 0..1, float32 (B, 5, H, W), of raw pixels (B, 3, H, W)."""
    return torch.cat([images.float() / 255, places_of(images, (images.shape[2], images.shape[3]), place)], 1)


def places_of(images: Tensor, size: Sequence[int], weight: float) -> Tensor:
    """Row and column of the middle of each cell of a grid (h, w), in 0..1 times a weight, float32 (B, 2, h, w)."""
    rows, columns = ((torch.arange(side, device=images.device) + 0.5) / side for side in size)
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return weight * grid.expand(len(images), -1, -1, -1)
