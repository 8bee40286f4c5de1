"""A class as one vector: pooled from the pixels of a mask, and compared with every place of a map by cosine."""

from __future__ import annotations

import torch
from torch import Tensor

from segladder.ops.upsampling import interpolation_matrix

NORM_FLOOR = 1e-12  # product of two lengths; below it one of the vectors counts as zero


def masked_average_pooling(features: Tensor, masks: Tensor) -> Tensor:
    """Mean feature under a mask, the masked average pooling of SG-One (Zhang et al. 2020).

    sum(upsampled features * mask) / sum(mask), with bilinear upsampling U (align_corners=False) to the mask's size. The
    features are never enlarged: <U f, m> = <f, U^T m>, and U^T m are two small matrix products for all channels.

    Args:
        features: maps (B, C, h, w); float16 and bfloat16 are summed in float32.
        masks: weights (B, H, W) of any size, 0 and 1 or soft.

    Returns:
        (B, C) of the features' type; zeros where the mask is empty.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        wide, masks = features.to(dtype), masks.to(dtype)
        lengths = zip(features.shape[-2:], masks.shape[-2:], strict=True)
        rows, columns = (interpolation_matrix(n, m, masks) for n, m in lengths)  # (H, h), (W, w)
        weights = rows.T @ masks @ columns  # (B, h, w)
        total = masks.sum((1, 2)).clamp_min(torch.finfo(dtype).tiny)  # (B,)
        sums = weights.flatten(1)[:, None] @ places(wide)  # (B, 1, C)
        return (sums[:, 0] / total[:, None]).to(features.dtype)


def places(features: Tensor) -> Tensor:
    """Maps (B, C, h, w) as a vector for each place (B, h w, C); products with it have gradients channels last.

    A BatchNorm before a product takes ten times as long on a CPU with a gradient of another layout than its own.
    """
    return features.flatten(2).transpose(1, 2)


def cosine_similarity_map(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine between the feature at every place and the prototype, the guidance of SG-One (Zhang et al. 2020).

    Args:
        features: maps (B, C, h, w); float16 and bfloat16 are summed in float32.
        prototypes: (B, C).

    Returns:
        (B, h, w) in [-1, 1], of the features' type; 0 where either vector is zero.
    """
    dtype = torch.promote_types(features.dtype, torch.float32)
    with torch.autocast(features.device.type, enabled=False):
        wide, prototypes = features.to(dtype), prototypes.to(dtype)
        products = (places(wide) @ prototypes[:, :, None]).view(len(wide), *wide.shape[2:])  # (B, h, w)
        lengths = torch.linalg.vector_norm(wide, dim=1)  # (B, h, w)
        lengths = lengths * torch.linalg.vector_norm(prototypes, dim=1)[:, None, None]
        nonzero = lengths > NORM_FLOOR  # elsewhere a division would send back a gradient of 1 / NORM_FLOOR
        cosines: Tensor = products.where(nonzero, 0) / lengths.where(nonzero, 1)
        return cosines.clamp(-1, 1).to(features.dtype)
