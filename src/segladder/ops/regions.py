"""Label maps on a feature map's grid: reduced to it, cut into connected regions, joined to a graph of neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from segladder.mask_values import IGNORE


def labels_at(masks: Tensor, size: Sequence[int]) -> Tensor:
    """The label nearest to each place of a grid: (B, H, W) of any type to int64 (B, *size)."""
    return F.interpolate(masks[:, None].float(), size=tuple(size), mode="nearest-exact")[:, 0].long()


def connected_regions(labels: Tensor) -> Tensor:
    """A number for each 4-connected set of pixels of one label in one image.

    Args:
        labels: class indices (B, h, w), 255 ignored.

    Returns:
        int64 (B, h, w): 0 .. N - 1, counted over the whole batch; -1 where ignored.
    """
    right, down = labels[:, :, 1:] == labels[:, :, :-1], labels[:, 1:] == labels[:, :-1]
    last = torch.arange(labels.numel(), device=labels.device).view_as(labels)  # a pixel its region is known to hold
    while True:
        reached = last.clone()
        for same, here, there in (
            (right, reached[:, :, 1:], reached[:, :, :-1]),
            (down, reached[:, 1:], reached[:, :-1]),
        ):
            furthest = torch.maximum(here, there) * same
            here.copy_(torch.maximum(here, furthest))
            there.copy_(torch.maximum(there, furthest))
        reached = reached.flatten()[reached]  # that pixel may know one further on: long regions take few rounds
        if torch.equal(reached, last):
            break
        last = reached
    regions = torch.full_like(last, -1)
    regions[labels != IGNORE] = last[labels != IGNORE].unique(return_inverse=True)[1]
    return regions


def region_graph(regions: Tensor, reach: int = 2) -> Tensor:
    """The propagation matrix of a graph convolution over neighbouring regions (Kipf and Welling 2017, eq. 2).

    D^-1/2 (A + I) D^-1/2, A = 1 for regions that come within `reach` steps of each other along a row or a column: more
    than one step, since a band of ignored pixels parts objects from what surrounds them.

    Args:
        regions: numbers (B, h, w) as `connected_regions` gives them.
        reach: steps.

    Returns:
        float32 (N, N), symmetric; regions of different images are never neighbours.
    """
    count = int(regions.max()) + 1 if regions.numel() else 0
    linked = torch.eye(count, dtype=torch.bool, device=regions.device)
    for step in range(1, reach + 1):
        for one, other in ((regions[:, :, step:], regions[:, :, :-step]), (regions[:, step:], regions[:, :-step])):
            known = (one >= 0) & (other >= 0)
            linked[one[known], other[known]] = linked[other[known], one[known]] = True
    scale = linked.sum(1).rsqrt()
    return linked * scale[:, None] * scale
