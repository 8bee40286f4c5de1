"""What SEAM adds to class activation maps: refinement by similar pixels, and a mean of the hardest differences."""

from __future__ import annotations

import torch
from torch import Tensor

NORM_FLOOR = 1e-5  # SEAM's, beside lengths and sums it divides by


def pixel_correlation(features: Tensor, cams: Tensor) -> Tensor:
    """Each place's mean of the maps over all places, weighted by relu(cosine) of features (SEAM, Wang et al. 2020).

    cams A / sum(A) with A = relu(f^T f), f of length 1: the pixel correlation module behind its last convolution. Takes
    memory for (h w)^2 values an image.

    Args:
        features: (B, D, h, w); float16 and bfloat16 are summed in float32.
        cams: maps of the same size (B, C, h, w).

    Returns:
        (B, C, h, w) of the type of `cams`.
    """
    dtype = torch.promote_types(cams.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        flat = features.flatten(2).to(dtype)  # (B, D, hw)
        flat = flat / (torch.linalg.vector_norm(flat, dim=1, keepdim=True) + NORM_FLOOR)
        similar = (flat.transpose(1, 2) @ flat).relu()  # (B, hw, hw), symmetric
        sums = similar.sum(1, keepdim=True) + NORM_FLOOR
        refined: Tensor = cams.flatten(2).to(dtype) @ similar / sums  # (B, C, hw)
        return refined.view_as(cams).to(cams.dtype)


def hardest_mean(x: Tensor, share: float) -> Tensor:
    """Mean of each sample's largest values, SEAM's equivariant cross regularisation with a share of 0.2.

    Args:
        x: differences (B, ...).
        share: how much of a sample counts, above 0 and at most 1; never less than one value.

    Returns:
        A scalar.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: expected above 0 and at most 1")
    flat = x.flatten(1)
    return flat.topk(max(1, int(share * flat.shape[1])), dim=1).values.mean()
