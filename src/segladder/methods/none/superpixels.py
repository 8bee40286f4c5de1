"""Superpixels: an image is cut where colours change, and each segment belongs to one cluster.

Achanta, Shaji, Smith, Lucchi, Fua, Suesstrunk: SLIC Superpixels Compared to State-of-the-Art Superpixel Methods, TPAMI
2012, https://doi.org/10.1109/TPAMI.2012.120, by scikit-image (BSD-3). Our own code merges neighbours of similar
mean colour, the most similar first. No published number under a protocol of ours. A second score matters more:
`superpixel_bound` gives each segment its most frequent true class. An answer that follows the segments, or a refinement
along colour edges such as a dense CRF, can hardly exceed it.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from segladder.methods.none.base import ClusterMethod, colours_and_places
from segladder.methods.none.kmeans import PLAIN
from segladder.settings import AboveZero, NotNegative, Positive


class Superpixels(ClusterMethod):
    """Clusters of segments by their mean colour and place.

    Args:
        segments: of an image, before they are merged.
        compactness: weight of place against colour in SLIC.
        merge: neighbours whose mean colours (0..255) differ by less are merged.
        place: weight of row and column, in 0..1.
        options: the arguments of `ClusterMethod`.
    """

    cuts: ClassVar[bool] = True

    def __init__(
        self,
        segments: Positive,
        compactness: AboveZero,
        merge: NotNegative,
        place: NotNegative,
        **options: Any,
    ) -> None:
        super().__init__(dimensions=5, **PLAIN, **options)
        self.most, self.compactness, self.merge, self.place = segments, compactness, merge, place

    def segments(self, images: Tensor) -> Tensor:
        """The segment of each pixel, int64 (B, H, W) from 0 in each image, of raw pixels (B, 3, H, W)."""
        pixels = images.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        cut = [merged(image, superpixels(image, self.most, self.compactness), self.merge) for image in pixels]
        return torch.from_numpy(np.stack(cut)).to(images.device)

    def described(self, images: Tensor) -> Tensor:
        """Mean colour and place of each pixel's segment, (B, 5, H, W)."""
        features = colours_and_places(images, self.place).flatten(2)  # (B, 5, H W)
        segments = self.segments(images).flatten(1)  # (B, H W)
        means = [_segment_means(each, places) for each, places in zip(features, segments, strict=True)]
        described: Tensor = torch.stack(means).unflatten(2, images.shape[2:])
        return described


def _segment_means(features: Tensor, segments: Tensor) -> Tensor:
    """At each of N places the mean over its segment, (D, N), of features (D, N)."""
    count = int(segments.max()) + 1
    sums = features.new_zeros(len(features), count).index_add_(1, segments, features)
    means: Tensor = (sums / torch.bincount(segments, minlength=count))[:, segments]
    return means


def superpixels(image: np.ndarray, segments: int, compactness: float) -> np.ndarray:
    """SLIC of an image uint8 (H, W, 3), int64 (H, W) from 0."""
    from skimage.segmentation import slic  # a second, and only where something is cut

    found: np.ndarray = slic(image, n_segments=segments, compactness=compactness, start_label=0)
    return found.astype(np.int64)


def merged(image: np.ndarray, segments: np.ndarray, threshold: float) -> np.ndarray:
    """Segments (H, W) of an image (H, W, 3), neighbours nearer in mean colour than a threshold merged, likest first.

    Two segments are neighbours where their pixels share a side. Whatever neighbours are left differ by the threshold
    or more; int64 (H, W) from 0.
    """
    pixels = np.bincount(segments.ravel()).astype(np.float64)
    sums = np.stack([np.bincount(segments.ravel(), channel.ravel()) for channel in np.moveaxis(image, 2, 0)], 1)
    around = _neighbours(segments)
    age, joined_to = [0] * len(pixels), list(range(len(pixels)))

    def pair(first: int, second: int) -> tuple[float, int, int, int]:
        difference = sums[first] / pixels[first] - sums[second] / pixels[second]
        return float(np.sqrt(difference @ difference)), first, second, age[first] + age[second]

    heap = [pair(first, second) for first, others in enumerate(around) for second in sorted(others) if first < second]
    heapify(heap)
    while heap and heap[0][0] < threshold:
        _, kept, gone, made = heappop(heap)
        if joined_to[kept] != kept or joined_to[gone] != gone or age[kept] + age[gone] != made:
            continue  # one of the two has changed since
        sums[kept], pixels[kept] = sums[kept] + sums[gone], pixels[kept] + pixels[gone]
        joined_to[gone], age[kept] = kept, age[kept] + 1
        around[kept] = (around[kept] | around[gone]) - {kept, gone}
        for other in sorted(around[kept]):
            around[other] = (around[other] - {gone}) | {kept}
            heappush(heap, pair(*sorted((kept, other))))
    for segment, kept in enumerate(joined_to):  # always an earlier one, which is settled
        joined_to[segment] = joined_to[kept]
    found: np.ndarray = np.unique(np.array(joined_to), return_inverse=True)[1].astype(np.int64)[segments]
    return found


def _neighbours(segments: np.ndarray) -> list[set[int]]:
    """For each segment of (H, W) those that share the side of a pixel with it."""
    beside = [(segments[:, :-1], segments[:, 1:]), (segments[:-1], segments[1:])]
    count = int(segments.max()) + 1
    pairs = np.unique(np.concatenate([(a * count + b)[a != b] for a, b in beside]))
    around: list[set[int]] = [set() for _ in range(count)]
    for first, second in (divmod(each, count) for each in pairs.tolist()):
        around[first].add(second)
        around[second].add(first)
    return around
