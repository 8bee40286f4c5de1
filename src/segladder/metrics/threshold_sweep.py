"""Confusion matrices at every threshold of a score, from one look at each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segladder.mask_values import IGNORE


class ThresholdSweep:
    """Counts pixels by truth, best class and how many thresholds that class' score exceeds.

    At a threshold a pixel is its best foreground class where the score is above it, and background elsewhere.

    Args:
        num_classes: K, background included.
        thresholds: ascending.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float]) -> None:
        self.num_classes = num_classes
        self.thresholds = np.asarray(thresholds, np.float32)
        self.counts = np.zeros((len(thresholds) + 1, num_classes, num_classes), np.int64)  # exceeded, truth, best class

    def add(self, best: np.ndarray, height: np.ndarray, truth: np.ndarray) -> None:
        """Count an image.

        Args:
            best: the foreground class of the highest score at each pixel, from 0, integers (H, W).
            height: that score, float32 (H, W).
            truth: class indices uint8 (H, W), 255 is not counted.
        """
        exceeded = np.searchsorted(self.thresholds, height.ravel(), side="left")
        known = truth.ravel() != IGNORE
        k = self.num_classes
        cells = (exceeded * k + truth.ravel()) * k + best.ravel() + 1
        self.counts += np.bincount(cells[known], minlength=self.counts.size).reshape(self.counts.shape)

    def confusions(self) -> np.ndarray:
        """A matrix per threshold, int64 (T, K, K), rows = truth."""
        above = self.counts[::-1].cumsum(0)[::-1]  # exceeding at least so many thresholds
        matrices = above[1:].copy()
        matrices[:, :, 0] = (above[0] - above[1:]).sum(-1)
        return matrices
