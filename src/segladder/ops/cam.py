"""Class activation maps as evidence in 0..1."""

from __future__ import annotations

from torch import Tensor

FLOOR = 1e-5  # Puzzle-CAM's: activations below it count as none


def normalize_cam(scores: Tensor) -> Tensor:
    """Each class's positive scores over their maximum: relu(x - 1e-5) / (max x + 1e-5) with x = relu(scores).

    Args:
        scores: class maps (B, C, h, w) of any sign.

    Returns:
        (B, C, h, w) in 0..1; zeros for a class without a positive score.
    """
    positive = scores.relu()
    maxima = positive.amax((-2, -1), keepdim=True)  # (B, C, 1, 1)
    return (positive - FLOOR).relu() / (maxima + FLOOR)


def unit_range(scores: Tensor) -> Tensor:
    """Each class's positive scores from their minimum to their maximum (SEAM's official code).

    relu(x - min x - 1e-5) / (max x - min x + 1e-5) with x = relu(scores).

    Args:
        scores: class maps (B, C, h, w) of any sign.

    Returns:
        (B, C, h, w) in 0..1; zeros for a class whose positive scores are all equal.
    """
    positive = scores.relu()
    lowest, highest = positive.amin((-2, -1), keepdim=True), positive.amax((-2, -1), keepdim=True)  # (B, C, 1, 1)
    return (positive - lowest - FLOOR).relu() / (highest - lowest + FLOOR)


def background_power(cams: Tensor, power: float) -> Tensor:
    """The background's evidence (1 - max over classes)^power (AffinityNet, Ahn and Kwak 2018, equation 2).

    A low power sees background widely (4 there), a high one only where no class fires (24 or 32).

    Args:
        cams: normalised maps (..., C, h, w); values above 1 count as 1.
        power: the exponent.

    Returns:
        (..., h, w) in 0..1.
    """
    return (1 - cams.amax(-3)).clamp_min(0) ** power
