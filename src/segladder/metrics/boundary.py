"""Boundary IoU (Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021).

The boundary region of a mask is the mask minus its erosion by d pixels: what lies within d (in the maximum norm) of a
pixel outside it. Boundary IoU is the IoU of the two masks' boundary regions: the interior, which is the easy majority
of a large object, does not count.

Image border: pixels beyond it count as outside, so a mask that touches the border has boundary there (as in the paper's
code). Ignored pixels belong to neither mask and are taken out before erosion: a prediction that is right on
every counted pixel scores 1, whatever it says inside an ignored band.
"""

from __future__ import annotations

import math

import cv2
import numpy as np


def boundary_width(height: int, width: int, share: float = 0.02) -> int:
    """d in pixels: a share of the image diagonal (the paper's 2 %), at least 1."""
    return max(1, round(share * math.hypot(height, width)))


def boundary_counts(
    pred: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int = 255, width: float = 0.02
) -> np.ndarray:
    """Pixels in the intersection and in the union of the boundary regions, int64 (K, 2).

    Args:
        pred: predicted classes, integers (H, W).
        target: true classes or `ignore_index`, integers (H, W).
        num_classes: K.
        ignore_index: true value of pixels that do not count.
        width: of the boundary region, as a share of the image diagonal.

    Sum over images, then divide the columns: the boundary IoU of the set.
    """
    counts = np.zeros((num_classes, 2), np.int64)
    distance = boundary_width(target.shape[0], target.shape[1], width)
    counted = target != ignore_index
    for k in range(num_classes):
        truth, guess = (target == k) & counted, (pred == k) & counted
        rows, columns = (np.flatnonzero((truth | guess).any(axis)) for axis in (1, 0))
        if not rows.size:
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        strips = [_boundary(mask[box], distance) for mask in (truth, guess)]
        counts[k] = (strips[0] & strips[1]).sum(), (strips[0] | strips[1]).sum()
    return counts


def _boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask (h, w) within `distance` of a pixel outside it; beyond the edges is outside."""
    side = 2 * distance + 1
    pixels = mask.astype(np.uint8)
    inner = cv2.erode(pixels, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return (pixels > inner).astype(bool)
