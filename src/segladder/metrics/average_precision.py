"""Scores without a threshold: average precision and the best threshold, from histograms of probabilities."""

from __future__ import annotations

import numpy as np

BINS = 256


def average_precision(histogram: np.ndarray) -> float:
    """Area under the precision-recall curve, sum of (recall step x precision) over descending thresholds.

    Args:
        histogram: background and object pixels per bin, (2, BINS).

    Returns:
        The average precision; nan without object pixels.
    """
    negatives, positives = np.cumsum(histogram[:, ::-1], axis=1)  # at or above each threshold
    if not positives[-1]:
        return float("nan")
    precision = positives / np.maximum(positives + negatives, 1)
    return float((np.diff(positives, prepend=0) * precision).sum() / positives[-1])


def best_threshold(histogram: np.ndarray) -> tuple[float, float]:
    """The highest IoU of any threshold and that threshold, of a histogram (2, BINS); nan, nan without object pixels."""
    negatives, positives = np.cumsum(histogram[:, ::-1], axis=1)
    if not positives[-1]:
        return float("nan"), float("nan")
    iou = positives / (positives[-1] + negatives)
    best = int(iou.argmax())
    return float(iou[best]), 1 - (best + 1) / BINS
