"""In-network upsampling as one choice for all decoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from segladder.ops import upsampling as op

UpsamplingKind = Literal["nearest", "bed_of_nails", "transposed", "bilinear"]


class Upsampling(nn.Module):
    """Enlarge a map by a factor to a given size.

    Args:
        kind: `nearest`, `bed_of_nails`, `bilinear`, or `transposed`: a convolution that starts as bilinear and learns.
        channels: channels of the map.
        factor: output pixels per input step; 1 (a dilated backbone) only fits the size.

    """

    def __init__(self, kind: UpsamplingKind, channels: int, factor: int) -> None:
        super().__init__()
        self.kind = kind
        self.factor = factor
        if kind == "transposed" and factor > 1:
            kernel = op.bilinear_kernel(factor)
            self.weight = nn.Parameter(torch.eye(channels)[..., None, None] * kernel)  # (C, C, k, k)

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """(B, C, h, w) to (B, C, *size), within one input step of factor * (h, w), which is the default."""
        size = tuple(size or (x.shape[-2] * self.factor, x.shape[-1] * self.factor))
        if self.factor == 1 or self.kind == "bilinear":
            return x if x.shape[-2:] == size else op.bilinear(x, size)
        if self.kind == "transposed":
            return op.transposed_convolution(x, self.weight, self.factor, size)
        if size[0] > x.shape[-2] * self.factor or size[1] > x.shape[-1] * self.factor:
            x = nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")
        grown = op.nearest(x, self.factor) if self.kind == "nearest" else op.bed_of_nails(x, self.factor)
        return grown[..., : size[0], : size[1]]
