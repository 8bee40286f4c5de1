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

from segladder.mask_values import IGNORE


def boundary_width(height: int, width: int, share: float = 0.02) -> int:
    """d in pixels: a share of the image diagonal (the paper's 2 %), at least 1."""
    return max(1, round(share * math.hypot(height, width)))


def boundary_counts(
    pred: np.ndarray, target: np.ndarray, num_classes: int, ignore_index: int = IGNORE, width: float = 0.02
) -> np.ndarray:
    """Pixels in the intersection and in the union of the boundary regions, int64 (K, 2).

    Summed over images, the first column over the second is the boundary IoU of the set.

    Args:
        pred: predicted classes, integers (H, W).
        target: true classes or `ignore_index`, integers (H, W).
        num_classes: K.
        ignore_index: true value of pixels that do not count.
        width: of the boundary region, as a share of the image diagonal.
    """
    counts = np.zeros((num_classes, 2), np.int64)
    distance = boundary_width(target.shape[0], target.shape[1], width)
    counted = target != ignore_index
    both = [_narrowed(labels, counted, num_classes) for labels in (target, pred)]
    pixels = [cv2.calcHist([labels], [0], None, [num_classes], [0, num_classes]) for labels in both]
    for k in np.flatnonzero(pixels[0] + pixels[1]):
        truth, guess = ((labels == k).view(np.uint8) for labels in both)
        left, top, columns, rows = cv2.boundingRect(truth | guess)
        box = slice(top, top + rows), slice(left, left + columns)
        strips = [_boundary(mask[box], distance) for mask in (truth, guess)]
        counts[k] = np.count_nonzero(strips[0] & strips[1]), np.count_nonzero(strips[0] | strips[1])
    return counts


def _narrowed(labels: np.ndarray, counted: np.ndarray, num_classes: int) -> np.ndarray:
    """Labels in the narrowest type, K where they do not count or are no class."""
    known = counted & (labels >= 0) & (labels < num_classes)
    return np.where(known, labels, num_classes).astype(np.min_scalar_type(num_classes))


def _boundary(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of a mask uint8 (h, w) of 0 and 1 within `distance` of one outside it; beyond the edges is outside."""
    side = 2 * distance + 1
    inner = cv2.erode(mask, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return mask > inner
