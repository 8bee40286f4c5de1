"""Scores of a segmented video (Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016): contour accuracy F of a frame.

Region similarity J follows from counts (`segladder.metrics.formulas`).

Official code: https://github.com/fperazzi/davis (BSD); written anew. Masks count as the object where they are not zero.
Difference: F dilates contours and does not pair their pixels one to one, as the official Python code does too.
"""

from __future__ import annotations

import math

import cv2
import numpy as np


def contour_accuracy(prediction: np.ndarray, truth: np.ndarray, bound: float = 0.008) -> float:
    """F: harmonic mean of the precision and recall of contour pixels.

    Args:
        prediction: mask (H, W).
        truth: mask (H, W).
        bound: how far apart contours may lie, as a share of the image diagonal, rounded up to pixels.

    Returns:
        A share; 1 where neither mask has a contour (both empty or full), 0 where one alone has.
    """
    contours = [contour(mask) for mask in _same_size(prediction, truth)]
    radius = math.ceil(bound * math.hypot(*truth.shape))
    near = [cv2.dilate(edge.astype(np.uint8), _disk(radius)) > 0 for edge in contours]
    lengths = [np.count_nonzero(edge) for edge in contours]
    if not all(lengths):
        return float(not any(lengths))
    precision = np.count_nonzero(contours[0] & near[1]) / lengths[0]
    recall = np.count_nonzero(contours[1] & near[0]) / lengths[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask (H, W) that differ from the one to the right, below or diagonally below both, bool (H, W).

    The image's own border is no contour.
    """
    inside = mask != 0
    framed = np.pad(inside, ((0, 1), (0, 1)), mode="edge")
    edge: np.ndarray = (inside != framed[:-1, 1:]) | (inside != framed[1:, :-1]) | (inside != framed[1:, 1:])
    return edge


def _same_size(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction of shape {prediction.shape}, expected {truth.shape} like the truth")
    return prediction != 0, truth != 0


def _disk(radius: int) -> np.ndarray:
    reach = np.arange(-radius, radius + 1) ** 2
    return (reach[:, None] + reach <= radius**2).astype(np.uint8)
