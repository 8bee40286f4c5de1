"""PASCAL-5i (Shaban et al. 2017, https://arxiv.org/abs/1709.03410): the four folds of VOC and the small-object rule."""

from __future__ import annotations

import numpy as np

from segladder.errors import ConfigError

FOLDS = 4
CLASSES_PER_FOLD = 5
GRID_POINTS = 3  # an object must cover as many


def fold_classes(fold: int) -> list[int]:
    """VOC's class values that are novel in a fold: 5i + 1 to 5i + 5. Raises ConfigError for a fold outside 0..3."""
    if fold not in range(FOLDS):
        raise ConfigError(f"fold={fold}: PASCAL-5i has folds 0..{FOLDS - 1}")
    first = CLASSES_PER_FOLD * fold + 1
    return list(range(first, first + CLASSES_PER_FOLD))


def grid(mask: np.ndarray) -> np.ndarray:
    """Every 32nd pixel of a mask (H, W), beginning with the second: where the small-object rule looks."""
    return mask[1::32, 1::32]


def keeps_object(mask: np.ndarray) -> bool:
    """Whether an object is large enough to be an item.

    Args:
        mask: 1 or True where the object is, (H, W) at native size.
    """
    return bool(np.count_nonzero(grid(np.asarray(mask))) >= GRID_POINTS)
