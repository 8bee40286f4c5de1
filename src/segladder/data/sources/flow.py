"""Optical flow between two frames of a video."""

from __future__ import annotations

import cv2
import numpy as np

DIS = cv2.DISOPTICAL_FLOW_PRESET_MEDIUM
SMALLEST = 12  # pixels of a side


def dense_flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where each pixel of one frame is in another, by DIS (Kroeger et al., ECCV 2016) as OpenCV has it.

    Args:
        first: RGB uint8 (H, W, 3).
        second: of the same size.

    Returns:
        Pixels to the right and down, float32 (H, W, 2).
    """
    one, other = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, second))
    flow = np.zeros((*one.shape, 2), np.float32)
    return np.asarray(cv2.DISOpticalFlow.create(DIS).calc(one, other, flow))


def relative(flow: np.ndarray) -> np.ndarray:
    """Flow (H, W, 2) over its longest vector; 0 where nothing moves."""
    longest = float(np.linalg.norm(flow, axis=2).max())
    return flow / max(longest, float(np.finfo(np.float32).eps))
