"""Optical flow drawn as colour: the hue is where a pixel goes, the saturation how far.

The wheel is that of the Middlebury benchmark (Baker et al., IJCV 2011), which FusionSeg's `flowToColor` draws with:
55 hues, unequal steps from red over yellow, green, cyan, blue and magenta back to red. What stays is white.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STEPS = (15, 6, 4, 11, 13, 6)  # of each side of the wheel
CORNERS = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1))


def colour_wheel() -> Tensor:
    """RGB in 0..1 of all hues, float32 (55, 3)."""
    sides = []
    for number, steps in enumerate(STEPS):
        start, end = (torch.tensor(CORNERS[at % 6], dtype=torch.float32) for at in (number, number + 1))
        shares = torch.arange(steps)[:, None] / steps  # (S, 1)
        sides.append(start + shares * (end - start))
    return torch.cat(sides)


def flow_colours(flow: Tensor) -> Tensor:
    """RGB in 0..255, float32 (B, 3, H, W), of flow (B, 2, H, W), right and down, whose vectors are at most 1 long."""
    wheel = colour_wheel().to(flow.device)
    right, down = flow.float().unbind(1)  # (B, H, W)
    place = (torch.atan2(-down, -right) / math.pi + 1) / 2 * (len(wheel) - 1)
    below = place.long().clamp(max=len(wheel) - 1)
    hue = torch.lerp(wheel[below], wheel[(below + 1) % len(wheel)], (place - below)[..., None])  # (B, H, W, 3)
    length = torch.hypot(right, down).clamp(max=1)[..., None]
    return 255 * (1 - length * (1 - hue)).movedim(-1, 1)
