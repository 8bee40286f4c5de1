"""How good an answer can be that gives each of some segments one class."""

from __future__ import annotations

import numpy as np

from segladder.mask_values import IGNORE


def majority_answer(
    segments: np.ndarray, truth: np.ndarray, num_classes: int, ignore_index: int = IGNORE
) -> np.ndarray:
    """Every segment as the class that most of its pixels truly have, uint8 (H, W).

    Args:
        segments: number of each pixel's segment, from 0, int (H, W).
        truth: classes uint8 (H, W).
        num_classes: K.
        ignore_index: truth of pixels that do not count; a segment of such pixels alone is class 0.
    """
    labelled = truth != ignore_index
    joint = segments[labelled].astype(np.int64) * num_classes + truth[labelled]
    counts = np.bincount(joint, minlength=(int(segments.max()) + 1) * num_classes).reshape(-1, num_classes)
    answer: np.ndarray = counts.argmax(1).astype(np.uint8)[segments]
    return answer
