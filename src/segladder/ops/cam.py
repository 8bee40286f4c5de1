"""Class activation maps as evidence in 0..1, and the labels that are sure enough to learn from."""

from __future__ import annotations

import torch
from torch import Tensor

FLOOR = 1e-5  # Puzzle-CAM's: activations below it count as none
IGNORED = 255


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


def seed_labels(cams: Tensor, foreground_above: float, background_below: float) -> Tensor:
    """Labels where the best class is sure or surely absent, 255 between.

    Args:
        cams: normalised maps (B, C, h, w) with the classes absent from the image at zero; C at most 254.
        foreground_above: the best class c becomes c + 1 where it exceeds this.
        background_below: the place becomes 0 where the best class does not exceed this.

    Returns:
        uint8 (B, h, w). Equal thresholds leave no 255 and give the argmax of [threshold, cams].

    Raises:
        ValueError: `background_below` exceeds `foreground_above`.
    """
    if background_below > foreground_above:
        raise ValueError(f"background_below={background_below}: expected at most foreground_above={foreground_above}")
    evidence, best = cams.max(-3)  # (B, h, w) each
    labels = torch.full_like(best, IGNORED, dtype=torch.uint8)
    labels[evidence <= background_below] = 0
    return torch.where(evidence > foreground_above, (best + 1).to(torch.uint8), labels)
