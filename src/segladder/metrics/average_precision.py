"""Scores without a threshold: average precision and the best threshold, from histograms of probabilities."""

from __future__ import annotations

import numpy as np

BINS = 256


def probability_histogram(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many background and object pixels fall into each bin of probability, int64 (2, BINS).

    Args:
        probability: of the object, float (H, W) in [0, 1].
        truth: 1 = object, 0 = background, anything else is left out, uint8 (H, W).
    """
    bins = np.minimum((probability * BINS).astype(np.int32), BINS - 1)
    known = truth < 2
    joint = bins[known] + BINS * truth[known].astype(np.int32)
    return np.bincount(joint, minlength=2 * BINS).reshape(2, BINS)


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
    """The highest IoU any threshold of the probability reaches, and that threshold; nan, nan without object pixels."""
    negatives, positives = np.cumsum(histogram[:, ::-1], axis=1)
    if not positives[-1]:
        return float("nan"), float("nan")
    iou = positives / (positives[-1] + negatives)
    best = int(iou.argmax())
    return float(iou[best]), 1 - (best + 1) / BINS
