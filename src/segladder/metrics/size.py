"""Results by object size: is it the small objects that a method misses?

An item is a class in an image where it is true. Its size is the share of the image's counted pixels that it covers.
Limits: below 5 % is small, below 20 % medium, the rest large.
"""

from __future__ import annotations

import numpy as np

from segladder.metrics.formulas import class_iou

SIZES = ("small", "medium", "large")
LIMITS = (0.05, 0.20)


def outcomes_by_size(outcomes: np.ndarray, limits: tuple[float, float] = LIMITS) -> np.ndarray:
    """True positives, false positives and false negatives pooled per class and size, int64 (K, 3 sizes, 3).

    Everything predicted as a class in an image belongs to that image's item of the class; where a class is not true at
    all its false positives have no size and are left out.

    Args:
        outcomes: true positives, false positives and false negatives of each image, (N, K, 3).
        limits: shares of the image where medium and large begin.
    """
    area = outcomes[..., 0] + outcomes[..., 2]  # (N, K) true pixels
    pixels = np.maximum(area.sum(-1, keepdims=True), 1)  # (N, 1)
    size = np.digitize(area / pixels, limits)  # (N, K) 0, 1, 2
    return np.stack([(outcomes * ((size == s) & (area > 0))[..., None]).sum(0) for s in range(len(SIZES))], 1)


def iou_by_size(
    outcomes: np.ndarray, limits: tuple[float, float] = LIMITS, background: int | None = 0
) -> dict[str, float]:
    """Mean IoU of the items of each size over the classes that have such items; nan where none has.

    Args:
        outcomes: true positives, false positives and false negatives of each image, (N, K, 3).
        limits: shares of the image where medium and large begin.
        background: a class that has no objects and is left out; None keeps all.
    """
    shares = class_iou(outcomes_by_size(outcomes, limits))  # (K, 3)
    if background is not None:
        shares = np.delete(shares, background, axis=0)
    return {
        name: float(column[~np.isnan(column)].mean()) if (~np.isnan(column)).any() else float("nan")
        for name, column in zip(SIZES, shares.T, strict=True)
    }
