"""Scores of a segmented video (Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation", CVPR 2016): region similarity J and contour accuracy F of a frame, and what sums up a sequence.

Official code: https://github.com/fperazzi/davis (BSD); written anew. Masks count as the object where they are not zero.
Difference: F dilates contours and does not pair their pixels one to one, as the official Python code does too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np


class Statistics(NamedTuple):
    """What sums up a sequence.

    Attributes:
        mean: over its frames.
        recall: share of frames above 0.5.
        decay: mean of the first quarter minus mean of the last; negative where the score grows.
    """

    mean: float
    recall: float
    decay: float


def region_similarity(prediction: np.ndarray, truth: np.ndarray) -> float:
    """J: IoU of two masks (H, W); 1 where both are empty."""
    first, second = _same_size(prediction, truth)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


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


def statistics(values: Sequence[float] | np.ndarray) -> Statistics:
    """Mean, recall and decay of a score in the order of the frames, at least one.

    Quarters share the frames they meet at, as in the official code.
    """
    scores = np.asarray(values, np.float64)
    ends = np.floor(np.linspace(0, len(scores) - 1, 5) + 0.5).astype(np.int64)
    first, last = scores[: ends[1] + 1], scores[ends[3] :]
    return Statistics(float(scores.mean()), float((scores > 0.5).mean()), float(first.mean() - last.mean()))


def _same_size(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction of shape {prediction.shape}, expected {truth.shape} like the truth")
    return prediction != 0, truth != 0


def _disk(radius: int) -> np.ndarray:
    reach = np.arange(-radius, radius + 1) ** 2
    return (reach[:, None] + reach <= radius**2).astype(np.uint8)
