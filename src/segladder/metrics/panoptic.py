"""Segments of one image, found and true, matched by torchmetrics' panoptic quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.detection import PanopticQuality

Segments = tuple[np.ndarray, np.ndarray]  # class index (H, W), 255 void, and number of the object (H, W)


def outcomes_of_segments(
    found: Segments, true: Segments, things: Sequence[int], stuff: Sequence[int], num_classes: int
) -> np.ndarray:
    """Sum of IoU of the matched segments, their number, and unmatched segments said and true, float64 (K, 4).

    Void pixels count nowhere; a found segment with more than half of its pixels there is left out.

    Args:
        found: a class and an object for each pixel.
        true: likewise, 255 where a pixel is void.
        things: class indices of objects.
        stuff: class indices whose pixels are one segment, whatever their number.
        num_classes: K.
    """
    metric = PanopticQuality(set(things), set(stuff), allow_unknown_preds_category=True)
    said, there = (
        torch.from_numpy(np.stack([part.astype(np.int64) for part in segments], -1))[None] for segments in (found, true)
    )
    metric.update(said, there)  # (1, H, W, 2)
    states = (metric.iou_sum, metric.true_positives, metric.false_positives, metric.false_negatives)
    outcomes = np.zeros((num_classes, 4))
    outcomes[[*sorted(things), *sorted(stuff)]] = torch.stack([state.double() for state in states], -1).numpy()
    return outcomes
