"""Scores of seen and unseen classes under every handicap gamma of the seen ones, from one pass over images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from segladder.mask_values import IGNORE
from segladder.metrics.counts import Counts
from segladder.metrics.formulas import harmonic, mean_iou


class GammaSweep:
    """How each image would be labelled under every gamma of a grid.

    A pixel counts twice: as its best seen and as its best unseen class, in the bin of its lead. Of the two, gamma
    keeps one: the seen class where the lead is at least gamma, else the unseen one.

    Args:
        num_classes: K.
        unseen: which classes are unseen, bool (K,).
        gammas: ascending.

    Attributes:
        ids: image ids in the order they were added.
    """

    def __init__(self, num_classes: int, unseen: np.ndarray, gammas: Sequence[float]) -> None:
        self.num_classes, self.unseen, self.gammas = num_classes, np.asarray(unseen, bool), tuple(gammas)
        self.ids: list[str] = []
        self._cells: list[np.ndarray] = []  # per image: (bin * K + truth) * K + class, of what was counted
        self._pixels: list[np.ndarray] = []  # per image: how often

    def add(self, image_id: str, truth: Tensor, best_seen: Tensor, best_unseen: Tensor, lead: Tensor) -> None:
        """Count an image: true classes (255 does not count), `contest`'s two classes and lead, all (H, W)."""
        counted = truth != IGNORE
        bins = torch.bucketize(lead[counted], lead.new_tensor(self.gammas), right=True)  # gammas up to the lead
        rows = (bins * self.num_classes + truth[counted].long()) * self.num_classes
        joint = torch.cat([rows + best_seen[counted], rows + best_unseen[counted]])
        counts = torch.bincount(joint, minlength=self._size()).cpu().numpy()
        self.ids.append(image_id)
        self._cells.append(np.flatnonzero(counts))
        self._pixels.append(counts[self._cells[-1]])

    @classmethod
    def merged(cls, parts: Iterable[GammaSweep]) -> GammaSweep:
        """The sweeps of several processes in one, images by id: their order says nothing of who counted them."""
        parts = list(parts)
        whole = cls(parts[0].num_classes, parts[0].unseen, parts[0].gammas)
        images = [item for part in parts for item in zip(part.ids, part._cells, part._pixels, strict=True)]
        for image_id, cells, pixels in sorted(images, key=lambda image: image[0]):
            whole.ids.append(image_id)
            whole._cells.append(cells)
            whole._pixels.append(pixels)
        return whole

    def confusions(self) -> np.ndarray:
        """Confusion matrices of all images, int64 (G + 2, K, K), of gamma = -inf, the G gammas, and +inf."""
        flat = np.zeros(self._size(), np.int64)
        for cells, pixels in zip(self._cells, self._pixels, strict=True):
            flat[cells] += pixels
        binned = flat.reshape(-1, self.num_classes, self.num_classes)  # (G + 1, K, K)
        below = np.concatenate([np.zeros_like(binned[:1]), binned.cumsum(0)])  # leads below each gamma
        return np.where(self.unseen, below, below[-1] - below)

    def unseen_only(self) -> np.ndarray:
        """Confusion matrix int64 (K, K) of the unseen classes' pixels where unseen classes alone compete."""
        confusion: np.ndarray = self.confusions()[-1] * self.unseen[:, None]
        return confusion

    def at(self, index: int) -> Counts:
        """Each image's counts under one gamma of the grid."""
        counts = Counts(self.num_classes)
        for image_id, cells, pixels in zip(self.ids, self._cells, self._pixels, strict=True):
            bins, cell = np.divmod(cells, self.num_classes**2)
            kept = (bins <= index) == self.unseen[cell % self.num_classes]
            matrix = np.bincount(cell[kept], weights=pixels[kept], minlength=self.num_classes**2)
            counts.add(image_id, matrix.astype(np.int64))
        return counts

    def _size(self) -> int:
        return (len(self.gammas) + 1) * self.num_classes**2


def split_scores(
    outcomes: np.ndarray, seen: Sequence[int], unseen: Sequence[int], absent: str = "skip"
) -> dict[str, np.ndarray]:
    """Seen, unseen and harmonic mean IoU, and that over all foreground classes, each (...), of outcomes (..., K, 3)."""
    of_seen, of_unseen = mean_iou(outcomes, seen, absent), mean_iou(outcomes, unseen, absent)
    return {
        "harmonic_mIoU": harmonic(of_seen, of_unseen),
        "seen_mIoU": of_seen,
        "unseen_mIoU": of_unseen,
        "mIoU": mean_iou(outcomes, [*seen, *unseen], absent),
    }


def area_under_frontier(unseen: np.ndarray, seen: np.ndarray) -> float:
    """Area under the best seen score at which the unseen score is at least x, over x, of points (N,) each.

    In IoU the curve over gamma turns back (seen pixels painted unseen cost both), so the area is that of its frontier:
    0..1, and never smaller for a finer grid.
    """
    order = np.argsort(unseen)
    x, y = unseen[order], np.maximum.accumulate(seen[order][::-1])[::-1]
    return float((np.diff(x, prepend=0) * y).sum())
