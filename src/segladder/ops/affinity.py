"""Affinities between neighbouring places: their labels, their losses, and the random walk over them.

AffinityNet (Ahn and Kwak 2018) and IRNet (Ahn, Cho and Kwak 2019). A pair is a place and one of its neighbours at an
offset of `pair_offsets`, so values of all pairs are maps (B, P, h, w): at [p, y, x] the pair of (y, x) with
(y, x) + offset p. A pair whose neighbour lies outside the map has affinity 0 and no label.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segladder.mask_values import IGNORE
from segladder.ops.sparse import sparse_rows

Offset = tuple[int, int]  # (dy, dx)

EPSILON = 1e-5  # of the official codes, inside logarithms and beside counts
TAIL = 1e-8  # what a random walk may leave out of its series


class PairLabels(NamedTuple):
    """Which pairs are both background, both of one foreground class, or of different classes: bool (B, P, h, w)."""

    background: Tensor
    foreground: Tensor
    negative: Tensor


def pair_offsets(radius: int) -> list[Offset]:
    """Half of the offsets shorter than the radius, so that each pair counts once: 34 for radius 5.

    Args:
        radius: in places of the map, at least 2.

    Returns:
        (dy, dx) with dy > 0, or dy = 0 and dx > 0, and dy^2 + dx^2 < radius^2, in reading order.

    Raises:
        ValueError: a radius within which there is no neighbour.
    """
    if radius < 2:
        raise ValueError(f"radius={radius}: expected at least 2, the least with a neighbour inside")
    reach = range(1 - radius, radius)
    return [(dy, dx) for dy in reach for dx in reach if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius]


def path_offsets(offset: Offset) -> list[Offset]:
    """Places on the straight way from (0, 0) to an offset, both ends included.

    They are the places of the bounding box closer than 1 to the line through both ends (IRNet).
    """
    dy, dx = offset
    rows, columns = (range(min(0, n), max(0, n) + 1) for n in offset)
    return [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]


def affinity_labels(labels: Tensor, radius: int) -> PairLabels:
    """What labels say of each pair; a pair with a place of 255 has no label.

    The official codes take only places whose whole neighbourhood lies inside the map, here every pair inside counts.

    Args:
        labels: class ids (B, h, w), background 0, 255 unknown.
        radius: of `pair_offsets`.
    """
    here = labels[:, None]  # (B, 1, h, w)
    at = _shifted(labels, radius, IGNORE)
    there = torch.stack([at(offset) for offset in pair_offsets(radius)], 1)  # (B, P, h, w)
    known = (here != IGNORE) & (there != IGNORE)
    same = known & (here == there)
    return PairLabels(same & (here == 0), same & (here != 0), known & (here != there))


def affinity_from_features(features: Tensor, radius: int) -> Tensor:
    """exp(-mean over channels of |f_i - f_j|) for each pair (AffinityNet, equation 3).

    Args:
        features: (B, D, h, w).
        radius: of `pair_offsets`.

    Returns:
        (B, P, h, w) in 0..1.
    """
    there = _shifted(features, radius, 0)
    inside = _shifted(torch.ones_like(features[:, 0]), radius, 0)
    affinities = [
        (features - there(offset)).abs().mean(1).neg().exp() * inside(offset)  # (B, h, w)
        for offset in pair_offsets(radius)
    ]
    return torch.stack(affinities, 1)


def affinity_from_edges(edge: Tensor, radius: int) -> Tensor:
    """1 - the strongest edge on the straight way between the two places of each pair (IRNet, equation 5).

    Args:
        edge: probabilities of a class boundary (B, h, w) in 0..1.
        radius: of `pair_offsets`.

    Returns:
        (B, P, h, w) in 0..1; 0 where the neighbour lies outside the map, behind a wall of ones.
    """
    there = _shifted(edge, radius, 1)
    ways = (torch.stack([there(place) for place in path_offsets(offset)]) for offset in pair_offsets(radius))
    strongest = [way.max(0).values for way in ways]  # max keeps indices for the backward pass, amax the whole stack
    return 1 - torch.stack(strongest, 1)


def affinity_loss(affinity: Tensor, pairs: PairLabels) -> Tensor:
    """Cross-entropy of affinities, background / 4 + foreground / 4 + negative / 2, each a mean over its pairs.

    Args:
        affinity: (B, P, h, w) in 0..1.
        pairs: labels of the same pairs; a kind without pairs adds 0.
    """
    affinity = affinity.to(torch.promote_types(affinity.dtype, torch.float32))  # half precision has no 1 + EPSILON
    positive = -(affinity + EPSILON).log()
    negative = -(1 + EPSILON - affinity).log()
    background, foreground = (_mean_under(positive, mask) for mask in (pairs.background, pairs.foreground))
    return background / 4 + foreground / 4 + _mean_under(negative, pairs.negative) / 2


def displacement_losses(field: Tensor, labels: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """IRNet's losses of a field that points from each place to its object's centre (equations 7 and 8).

    Args:
        field: displacements (B, 2, h, w), rows first, in places of the map.
        labels: class ids (B, h, w), background 0, 255 unknown.
        radius: of `pair_offsets`.

    Returns:
        Mean |D_i - D_j - (j - i)| over pairs of one foreground class, mean |D_i - D_j| over pairs of background.
    """
    pairs = affinity_labels(labels, radius)
    field = field.to(torch.promote_types(field.dtype, torch.float32))
    offsets = torch.tensor(pair_offsets(radius), dtype=field.dtype, device=field.device)  # (P, 2)
    there = _shifted(field, radius, 0)
    differences = torch.stack([field - there(offset) for offset in pair_offsets(radius)], 1)  # (B, P, 2, h, w)
    pointing = (differences - offsets[:, :, None, None]).abs().mean(2)  # (B, P, h, w)
    return _mean_under(pointing, pairs.foreground), _mean_under(differences.abs().mean(2), pairs.background)


@torch.no_grad()
def random_walk(scores: Tensor, edge: Tensor, radius: int = 5, beta: float = 10, steps: int = 256) -> Tensor:
    """Class maps spread by IRNet's random walk, which edges hold back: (scores (1 - edge)) T^steps.

    Args:
        scores: class maps (C, h, w).
        edge: probabilities of a class boundary (h, w) in 0..1.
        radius: of `pair_offsets`; IRNet's 5.
        beta: exponent on affinities; IRNet's 10.
        steps: of the walk; IRNet's 2^8.

    Returns:
        (C, h, w) of the type of `scores`.
    """
    wide = edge.double()
    affinities = affinity_from_edges(wide[None], radius)[0]  # (P, h, w)
    return propagate(scores * (1 - wide), affinities, radius, beta, steps).to(scores.dtype)


@torch.no_grad()
def propagate(scores: Tensor, affinities: Tensor, radius: int = 5, beta: float = 10, steps: int = 256) -> Tensor:
    """Class maps after `steps` steps of a walk whose transitions are affinities^beta over their sum at each place.

    scores T^steps, T = A^beta with columns divided by their sums, A symmetric with A_ii = 1 (AffinityNet, IRNet).
    T is never squared: on [-1, 1], where its eigenvalues lie, x^n is a short sum of Chebyshev polynomials, so that
    about 6 sqrt(n) products with the sparse T do (90 for 256 steps). Memory is linear in the map's size. The walk runs
    in float64: in float32 the rounding of so many products reaches 5e-5.

    Args:
        scores: class maps (C, h, w).
        affinities: of pairs (P, h, w) in 0..1.
        radius: of `pair_offsets`, whose offsets the P pairs are.
        beta: exponent on affinities; AffinityNet's 8, IRNet's 10.
        steps: of the walk.

    Returns:
        (C, h, w) of the type of `scores`.
    """
    with torch.autocast(scores.device.type, enabled=False):
        transitions = _transitions(affinities.double() ** beta, radius)
        current = scores.flatten(1).T.double().contiguous()  # (hw, C)
        series = _power_series(steps)
        spread, previous = series[0] * current, current
        for degree, coefficient in enumerate(series[1:]):
            following = transitions @ current
            if degree:
                following = following.mul_(2).sub_(previous)
            previous, current = current, following
            spread.add_(current, alpha=coefficient)
        return spread.T.reshape(scores.shape).to(scores.dtype)


def _shifted(x: Tensor, radius: int, outside: float) -> Callable[[Offset], Tensor]:
    """What lies at an offset from each place, as a function of the offset; `outside` beyond the border of `x`."""
    height, width = x.shape[-2:]
    reach = radius - 1
    padded = F.pad(x, (reach, reach, 0, reach), value=outside)

    def at(offset: Offset) -> Tensor:
        dy, dx = offset
        return padded[..., dy : dy + height, reach + dx : reach + dx + width]

    return at


def _mean_under(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / (mask.sum() + EPSILON)


def _transitions(weights: Tensor, radius: int) -> Tensor:
    """Sparse (hw, hw) of pair weights (P, h, w): both directions of each pair, 1 on the diagonal, rows of sum 1."""
    height, width = weights.shape[-2:]
    offsets = pair_offsets(radius)
    there = _shifted(torch.ones_like(weights[0], dtype=torch.bool), radius, 0)
    inside = _both_ways(torch.stack([there(offset) for offset in offsets]), radius)  # (hw, 2P + 1)
    values = _both_ways(weights, radius) * inside
    values /= values.sum(1, keepdim=True)
    ahead = [dy * width + dx for dy, dx in offsets]
    shifts = torch.tensor([*(-shift for shift in reversed(ahead)), 0, *ahead], dtype=torch.int32, device=weights.device)
    places = torch.arange(height * width, dtype=torch.int32, device=weights.device)
    columns = (places[:, None] + shifts)[inside]
    return sparse_rows(inside.sum(1), columns, values[inside], height * width)


def _both_ways(weights: Tensor, radius: int) -> Tensor:
    """Weights (hw, 2P + 1) of the pairs each place is second in, of itself, and of the pairs it is first in."""
    height, width = weights.shape[-2:]
    reach = radius - 1
    padded = F.pad(weights, (reach, reach, reach, 0))
    behind = [
        pair[reach - dy : reach - dy + height, reach - dx : reach - dx + width]
        for pair, (dy, dx) in zip(padded, pair_offsets(radius), strict=True)
    ]
    return torch.stack([*reversed(behind), torch.ones_like(weights[0]), *weights]).flatten(1).T.contiguous()


def _power_series(power: int) -> list[float]:
    """Coefficients c with x^power = sum c_k T_k(x) on [-1, 1], up to TAIL (Sachdeva and Vishnoi 2013, theorem 3.3)."""
    series: list[float] = []
    while 1 - sum(series) > TAIL:
        degree = len(series)
        paths = 0 if (power - degree) % 2 else comb(power, (power - degree) // 2)
        series.append(paths / 2 ** (power - (degree > 0)))
    return series
