"""Diagonal Gaussians as networks give them: a mean and the logarithm of a variance for each channel."""

from __future__ import annotations

import torch
from torch import Tensor


def reparametrized_sample(mean: Tensor, log_variance: Tensor) -> Tensor:
    """mean + eps exp(log_variance / 2), eps ~ N(0, I), of any shape (Kingma and Welling 2014, eq. 10).

    eps comes from torch's global generator; gradients reach both arguments.
    """
    return mean + torch.randn_like(mean) * (log_variance / 2).exp()


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor, dim: int = 1) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)), summed over `dim` (Kingma and Welling 2014, appendix B).

    1/2 sum(mean^2 + exp(log_variance) - log_variance - 1), in nats, in at least float32. (B, C, ...) becomes (B, ...).
    """
    mean, log_variance = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (mean, log_variance))
    return (mean.square() + log_variance.expm1() - log_variance).sum(dim) / 2
