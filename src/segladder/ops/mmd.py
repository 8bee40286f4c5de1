"""Maximum mean discrepancy: how far two sets of vectors are from being drawn from one distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def maximum_mean_discrepancy(x: Tensor, y: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Root of the biased squared MMD (Gretton et al. 2012, eq. 5) under a sum of Gaussian kernels.

    sqrt(mean k(x, x') + mean k(y, y') - 2 mean k(x, y)) with k(a, b) = sum over s of exp(-|a - b|^2 / (2 s)): the
    generator's loss in ZS3Net (Bucher et al. 2019), whose s are not squared. Means run over M^2, N^2 and M N pairs.

    Args:
        x: vectors (M, D).
        y: vectors (N, D); N may differ from M.
        sigmas: s of each kernel.

    Returns:
        A scalar of at least float32. Below rounding error it is 0, with gradient 0 (a root's would be infinite).

    Raises:
        ValueError: one of the sets is empty.
    """
    if not len(x) or not len(y):
        raise ValueError(f"{len(x)} and {len(y)} vectors: expected at least one of each")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        both = torch.cat([x.to(dtype), y.to(dtype)])  # (M + N, D)
        distances = _squared_distances(both)
        kernel = torch.stack([torch.exp(-distances / (2 * s)) for s in sigmas]).sum(0)  # (M + N, M + N)
        signs = torch.cat([both.new_full((len(x),), 1 / len(x)), both.new_full((len(y),), -1 / len(y))])
        squared = signs @ kernel @ signs
        positive = squared > 4 * len(sigmas) * torch.finfo(dtype).eps
        return squared.where(positive, 1).sqrt().where(positive, 0)


def _squared_distances(vectors: Tensor) -> Tensor:
    """|a - b|^2 of all pairs (N, N), from inner products: no (N, N, D) in memory; exactly 0 on the diagonal."""
    centered = vectors - vectors.mean(0).detach()  # shorter vectors lose fewer digits
    products = centered @ centered.T
    lengths = products.diagonal()
    return (lengths[:, None] + lengths - 2 * products).clamp_min(0)
