"""Ways to enlarge a map, as pure functions; a layer for each is in `segladder.nets.upsampling`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def nearest(x: Tensor, factor: int) -> Tensor:
    """Repeat each value in a factor x factor square: (B, C, h, w) to (B, C, factor h, factor w)."""
    return F.interpolate(x, scale_factor=factor, mode="nearest")


def bed_of_nails(x: Tensor, factor: int) -> Tensor:
    """Each value at the top left of a factor x factor square of zeros: (B, C, h, w) to (B, C, factor h, factor w)."""
    nails = x.new_zeros(*x.shape[:-2], x.shape[-2] * factor, x.shape[-1] * factor)
    nails[..., ::factor, ::factor] = x
    return nails


def max_unpool(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    """Each value back at the place its maximum came from, zeros elsewhere (Zeiler et al. 2014; SegNet).

    Args:
        x: values (B, C, h, w).
        indices: int64 (B, C, h, w), flat places in the map before pooling, as max_pool2d returns them.
        size: height and width before pooling, odd sizes included.

    Returns:
        (B, C, *size); where pooling windows overlap and share a maximum, one of the values.
    """
    flat = x.new_zeros(*x.shape[:2], size[0] * size[1])
    unpooled: Tensor = flat.scatter(2, indices.flatten(2), x.flatten(2)).unflatten(2, tuple(size))
    return unpooled


def bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear interpolation between pixel centres (align_corners=False): (B, C, h, w) to (B, C, *size).

    As a product with one matrix for each axis: the values of torch's interpolation, whose backward pass has no
    deterministic kernel on CUDA and takes several times as long on a CPU. The result is channels last in memory where
    `x` is, and so is its gradient. It has the type of `x`, under autocast too, which would multiply float32 as less.
    """
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return bilinear(x, size)
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    rows, columns = (interpolation_matrix(n, m, x) for n, m in zip(x.shape[-2:], size, strict=True))
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        wide = columns @ x.permute(0, 2, 3, 1)  # (W, w) (B, h, w, C)
        enlarged = rows @ wide.flatten(2)  # (H, h) (B, h, W C)
        return enlarged.view(*enlarged.shape[:2], *wide.shape[2:]).permute(0, 3, 1, 2)
    return rows @ x.contiguous() @ columns.T  # (H, h) (h, w) (w, W)


def interpolation_matrix(length: int, size: int, like: Tensor) -> Tensor:
    """The matrix (size, length) that interpolates `length` values linearly at `size` places, of the type of `like`."""
    unit = torch.eye(length, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)[None]
    return F.interpolate(unit, size=size, mode="linear", align_corners=False)[0].T.to(like.dtype)


def bilinear_kernel(factor: int) -> Tensor:
    """Weights (k, k), k = 2 factor - factor % 2, with which a transposed convolution of stride `factor` is bilinear.

    The outer product of the triangle 1 - |i - (k - 1) / 2| / factor (Long et al. 2015, section 3.3).
    """
    size = 2 * factor - factor % 2
    triangle = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    return triangle[:, None] * triangle


def transposed_convolution(x: Tensor, weight: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """Transposed convolution of stride `factor` over a map whose border is repeated outwards.

    With the repeated border, `bilinear_kernel` weights give bilinear interpolation up to the very edge, and an output
    size that is no multiple of the factor is filled, as it arises when a pooling layer dropped an odd row.

    Args:
        x: values (B, C, h, w).
        weight: (C, D, k, k).
        factor: output pixels per input step.
        size: output height and width, at most factor (h + 1), factor (w + 1).

    Returns:
        (B, D, *size), its first pixel aligned with the first of `x`.
    """
    bordered = F.pad(x, (1, 2, 1, 2), mode="replicate")  # (B, C, h + 3, w + 3)
    grown = F.conv_transpose2d(bordered, weight, stride=factor)
    start = factor + (weight.shape[-1] - factor) // 2
    return grown[..., start : start + size[0], start : start + size[1]]
