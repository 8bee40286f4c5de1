"""Superpixels: an image is cut where colours change, and each segment is one cluster's.

Achanta, Shaji, Smith, Lucchi, Fua, Suesstrunk: SLIC Superpixels Compared to State-of-the-Art Superpixel Methods, TPAMI
2012, https://doi.org/10.1109/TPAMI.2012.120, by scikit-image (BSD-3). Neighbours of like mean colour are merged, the
likest first. No published number under a protocol of ours. What stands beside the score matters more: with the class
that most of each segment has, how good could any answer be that follows these segments? That is `superpixel_bound`,
which refinements along colour edges, a dense CRF among them, can hardly exceed.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from segladder.methods.none.base import ClusterMethod, Weight, colours_and_places
from segladder.methods.none.kmeans import PLAIN


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
        segments: Annotated[int, Field(ge=1)],
        compactness: Annotated[float, Field(gt=0)],
        merge: Weight,
        place: Weight,
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
    """Segments (H, W) of an image (H, W, 3), neighbours nearer in mean colour than a threshold merged, likest first."""
    if threshold == 0 or segments.max() == 0:
        return segments
    from skimage import graph

    neighbours = graph.rag_mean_color(image.astype(np.float64), segments)
    joined: np.ndarray = graph.merge_hierarchical(
        segments,
        neighbours,
        thresh=threshold,
        rag_copy=False,
        in_place_merge=True,
        merge_func=_join,
        weight_func=_difference,
    )
    return joined.astype(np.int64)


def _join(neighbours: Any, gone: int, kept: int) -> None:
    """What one node of the graph knows of its pixels goes to another."""
    before, after = neighbours.nodes[gone], neighbours.nodes[kept]
    after["total color"] = after["total color"] + before["total color"]
    after["pixel count"] += before["pixel count"]
    after["mean color"] = after["total color"] / after["pixel count"]


def _difference(neighbours: Any, gone: int, kept: int, other: int) -> dict[str, float]:
    """How far two nodes lie apart by mean colour."""
    colours = [neighbours.nodes[node]["mean color"] for node in (kept, other)]
    return {"weight": float(np.linalg.norm(colours[0] - colours[1]))}
