"""Gaussian filtering of points in a feature space of a few dimensions, in time linear in the points.

Adams, Baek and Davis 2010, "Fast high-dimensional filtering using the permutohedral lattice". The lattice tiles d
dimensions with simplices of d + 1 vertices. Values of points go to the vertices of the simplex around each (splat), are
blurred along the lattice's d + 1 directions, and come back with the same weights (slice): three sparse matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt

import torch
from torch import Tensor

from segladder.ops.sparse import sparse_rows

Filter = Callable[[Tensor], Tensor]


def lattice_filter(features: Tensor) -> Filter:
    """The approximate sum over all points j of exp(-|f_i - f_j|^2 / 2) v_j at each i, up to one factor for all.

    Args:
        features: points (N, d) in units of the Gaussian's standard deviation.

    Returns:
        A function from values (N, K) of the features' type to the filtered values (N, K).

    Raises:
        ValueError: points so far apart that lattice places do not fit into int64.
    """
    base, ranks, weights = _simplices(features)
    codes, strides = _vertex_codes(base, ranks)
    known, vertices = codes.unique(return_inverse=True)  # (M,), (N, d + 1)
    splat, slicing = _between(vertices, weights, len(known))
    blurs = [_blur(known, shift, weights.dtype) for shift in _direction_shifts(strides)]

    def filtered(values: Tensor) -> Tensor:
        values = splat @ values  # (M, K)
        for blur in blurs:
            values = blur @ values
        return slicing @ values

    return filtered


def _simplices(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each point's simplex: its vertex 0 and the order of its coordinates, int64, and vertex weights (N, d + 1).

    In d + 1 coordinates of sum 0 the vertices have integer coordinates that are all equal modulo d + 1.
    """
    around = features.shape[1] + 1
    elevated = features @ _elevation(features)  # (N, d + 1)
    base = around * (elevated / around).round().long()
    ranks = (elevated - base).argsort(dim=1, descending=True).argsort(dim=1)  # 0 for the largest
    ranks += base.sum(1, keepdim=True) // around
    wrap = around * ((ranks < 0).long() - (ranks >= around).long())  # brings the base's sum back to 0
    base, ranks = base + wrap, ranks + wrap
    falling = (elevated - base).sort(1, descending=True).values / around
    weights = (falling - falling.roll(-1, 1)).flip(1)  # vertex k: y_(d-k) - y_(d+1-k)
    weights[:, 0] += 1  # vertex 0: 1 + y_d - y_0
    return base, ranks, weights


def _elevation(features: Tensor) -> Tensor:
    """Orthogonal map (d, d + 1) onto the plane of coordinates with sum 0, scaled so that the blur has variance 1."""
    dimensions = features.shape[1]
    rows = torch.ones(dimensions, dimensions + 1, dtype=features.dtype, device=features.device).tril()
    for row in range(dimensions):
        rows[row, row + 1] = -(row + 1)
    scale = (dimensions + 1) * sqrt(2 / 3)
    elevation: Tensor = scale * rows / rows.norm(dim=1, keepdim=True)
    return elevation


def _vertex_codes(base: Tensor, ranks: Tensor) -> tuple[Tensor, list[int]]:
    """One number for each vertex (N, d + 1), linear in its first d coordinates, and what a step in each adds to it."""
    around = base.shape[1]
    corner = torch.arange(around, device=base.device)  # k
    steps = corner - around * (ranks[:, :-1, None] >= around - corner).long()
    vertices = base[:, :-1, None] + steps  # (N, d, d + 1)
    least = vertices.amin((0, 2)) - around  # a margin for neighbours
    extents = (vertices.amax((0, 2)) + around + 1 - least).tolist()
    if prod(extents) >= 2**62:
        raise ValueError(f"features span {extents} lattice steps, too many to number; use larger standard deviations")
    strides = [prod(extents[axis + 1 :]) for axis in range(len(extents))]
    weights = torch.tensor(strides, device=base.device)[:, None]
    return ((vertices - least[:, None]) * weights).sum(1), strides


def _direction_shifts(strides: list[int]) -> list[int]:
    """What a vertex's number gains along each of the d + 1 directions: -d in one coordinate, 1 in the others."""
    around = len(strides) + 1
    return [sum(strides) - around * stride for stride in [*strides, 0]]


def _between(vertices: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sparse matrices from points to vertices (M, N) and back (N, M)."""
    points, corners = vertices.shape
    order = vertices.flatten().argsort(stable=True)
    filled = vertices.flatten().bincount(minlength=count)
    splat = sparse_rows(filled, order // corners, weights.flatten()[order], points)
    ascending, places = vertices.sort(1)
    every = torch.full((points,), corners, device=vertices.device)
    return splat, sparse_rows(every, ascending.flatten(), weights.gather(1, places).flatten(), count)


def _blur(known: Tensor, shift: int, dtype: torch.dtype) -> Tensor:
    """Sparse (M, M) with weights 1/4, 1/2, 1/4 along one direction; vertices near no point count as 0."""
    sought = known[:, None] + abs(shift) * torch.tensor([-1, 0, 1], device=known.device)  # (M, 3)
    found = torch.searchsorted(known, sought).clamp_max(len(known) - 1)
    there = known[found] == sought
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=dtype, device=known.device).expand(len(known), 3)
    return sparse_rows(there.sum(1), found[there], weights[there], len(known))
