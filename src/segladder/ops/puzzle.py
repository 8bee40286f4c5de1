"""Images cut into a square of tiles and maps put together again (Puzzle-CAM, Jo and Yu 2021)."""

from __future__ import annotations

from math import isqrt
from typing import Literal, get_args

import torch
from torch import Tensor

Reduction = Literal["masked", "none", "selection"]


def tile(x: Tensor, pieces: int) -> Tensor:
    """Cut maps into sqrt(pieces) x sqrt(pieces) tiles, row by row.

    A height or width that sqrt(pieces) does not divide is first filled up by repeating the last row or column, at most
    sqrt(pieces) - 1 times; what `merge` makes of the tiles then has that size, and is to be cropped or resized.

    Args:
        x: maps (B, C, H, W) of any type.
        pieces: a square number.

    Returns:
        (pieces * B, C, ceil(H / side), ceil(W / side)), side = sqrt(pieces), the B images of the first tile first.

    Raises:
        ValueError: `pieces` is no square number.
    """
    side = _side(pieces)
    x = _filled(x, side).unflatten(-1, (side, -1)).unflatten(-3, (side, -1))  # (B, C, side, h, side, w)
    return x.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def merge(tiles: Tensor, pieces: int) -> Tensor:
    """Put tiles together in the order of `tile`, whose inverse it is where sizes divide.

    Args:
        tiles: maps (pieces * B, C, h, w).
        pieces: a square number.

    Returns:
        (B, C, side * h, side * w), side = sqrt(pieces).

    Raises:
        ValueError: `pieces` is no square number or does not divide the batch.
    """
    side = _side(pieces)
    if len(tiles) % pieces:
        raise ValueError(f"pieces={pieces}: expected to divide the {len(tiles)} tiles")
    x = tiles.unflatten(0, (side, side, -1)).permute(2, 3, 0, 4, 1, 5)  # (B, C, side, h, side, w)
    merged: Tensor = x.flatten(4, 5).flatten(2, 3)
    return merged


def reconstruction_loss(full: Tensor, merged: Tensor, labels: Tensor, reduce: str = "masked") -> Tensor:
    """The mean of |full - merged| over raw class maps, the reconstruction loss of Puzzle-CAM (equation 5).

    Args:
        full: class maps of the whole image (B, C, h, w).
        merged: class maps put together from the tiles, of the same size.
        labels: the images' tags (B, C), 0 or 1.
        reduce: `masked` sets absent classes to 0 and takes the mean over all B C h w places; `none` counts all classes;
            `selection` takes the mean over an image's present classes (0 without one), then over images.

    Returns:
        A scalar with gradients to both maps.

    Raises:
        ValueError: an unknown `reduce`, or maps of different size.
    """
    if reduce not in get_args(Reduction):
        raise ValueError(f"reduce={reduce}: expected one of {', '.join(get_args(Reduction))}")
    if full.shape != merged.shape:
        raise ValueError(f"merged: expected the shape of full, {tuple(full.shape)}; got {tuple(merged.shape)}")
    differences = (full - merged).abs().mean((2, 3))  # (B, C)
    if reduce == "none":
        return differences.mean()
    present = differences * labels
    if reduce == "masked":
        return present.mean()
    return (present.sum(1) / labels.sum(1).clamp_min(1)).mean()


def _side(pieces: int) -> int:
    if pieces < 1 or isqrt(pieces) ** 2 != pieces:
        raise ValueError(f"pieces={pieces}: expected a square number such as 4, 9 or 16")
    return isqrt(pieces)


def _filled(x: Tensor, side: int) -> Tensor:
    """`x` with its last row and column repeated up to multiples of `side`."""
    height, width = x.shape[-2:]
    if height % side == width % side == 0:
        return x
    rows, columns = (torch.arange(n + -n % side, device=x.device).clamp_max(n - 1) for n in (height, width))
    return x[..., rows[:, None], columns]
