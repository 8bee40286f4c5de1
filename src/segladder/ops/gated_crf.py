"""The energy of the Gated CRF loss: similar pixels near each other should have the same class.

Obukhov, Georgoulis, Dai, Van Gool: Gated CRF Loss for Weakly Supervised Semantic Image Segmentation, 2019,
https://arxiv.org/abs/1906.04651; official code (MIT): https://github.com/toshas/GatedCRFLoss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Kernel(NamedTuple):
    """A Gaussian of the distance between two pixels.

    Attributes:
        weight: in the sum of all kernels.
        xy: bandwidth of places, in pixels.
        rgb: bandwidth of colours, in the colours' own unit; None: of places alone.
    """

    weight: float
    xy: float
    rgb: float | None = None


def gated_crf_energy(
    probabilities: Tensor,
    colours: Tensor,
    kernels: Sequence[Kernel],
    radius: int = 5,
    sources: Tensor | None = None,
    destinations: Tensor | None = None,
) -> Tensor:
    """Mean over open pixels a of sum_b K(a, b) (1 - sum_k p_a(k) p_b(k)), b != a in the square of `radius` around a.

    This is the paper's energy with Potts' compatibility. K(a, b) is a sum of Gaussians w exp(-|f_a - f_b|^2 / 2), f
    being place over `xy`, beside colour over `rgb`. One pass per offset keeps memory at that of the probabilities.

    Args:
        probabilities: of each class, float (B, K, H, W).
        colours: float (B, C, H, W).
        kernels: the Gaussians.
        radius: of the square, in pixels, at least 1.
        sources: gate of b: pixels that may tell others something, bool (B, H, W); None: all.
        destinations: gate of a: pixels that are told something, bool (B, H, W); None: all.

    Returns:
        Scalar, over the number of open destinations, without `destinations` over that of open sources, as in the
        official code; 0 where there is none. Gradients reach the probabilities.

    Raises:
        ValueError: a radius below 1.
    """
    if radius < 1:
        raise ValueError(f"radius={radius}: expected at least 1")
    places = probabilities[:, 0]
    open_b = torch.ones_like(places) if sources is None else sources.to(places.dtype)  # (B, H, W)
    open_a = torch.ones_like(places) if destinations is None else destinations.to(places.dtype)
    total = probabilities.new_zeros(())
    height, width = places.shape[-2:]
    for dy in range(radius + 1):  # each pair once, for both of its directions
        for dx in range(-radius if dy else 1, radius + 1):
            if dy >= height or abs(dx) >= width:
                continue
            here, there = _pair(dy, dx, height, width)
            gate = open_a[here] * open_b[there] + open_a[there] * open_b[here]
            with torch.no_grad():
                alike = _affinity(colours[here], colours[there], dy * dy + dx * dx, kernels)
            agreement = (probabilities[here] * probabilities[there]).sum(1)
            total = total + (gate * alike * (1 - agreement)).sum()
    return total / (open_b if destinations is None else open_a).sum().clamp_min(1)


def _pair(dy: int, dx: int, height: int, width: int) -> tuple[Any, Any]:
    """Where the pixels a and b = a + (dy, dx) of an image lie, as indices into (..., H, W)."""
    left, right = max(0, -dx), max(0, dx)
    here = (..., slice(0, height - dy), slice(left, width - right))
    there = (..., slice(dy, height), slice(left + dx, width - right + dx))
    return here, there


def _affinity(first: Tensor, second: Tensor, squared_distance: int, kernels: Sequence[Kernel]) -> Tensor:
    """K of pairs of colours (B, C, h, w) at one distance, (B, h, w)."""
    difference = (first - second).square().sum(1)
    found = torch.zeros_like(difference)
    for weight, xy, rgb in kernels:
        exponent = squared_distance / xy**2 + (0.0 if rgb is None else difference / rgb**2)
        found += weight * torch.exp(torch.as_tensor(-0.5 * exponent, dtype=found.dtype, device=found.device))
    return found
