"""PASCAL-5i (Shaban et al. 2017, https://arxiv.org/abs/1709.03410): the four folds of VOC and the small-object rule."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segladder.data.sources.decoding import read_mask
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


def items(masks_dir: str | Path, image_ids: Iterable[str], fold: int) -> list[tuple[str, int]]:
    """The (image id, class value) pairs of a fold's classes whose objects are large enough: PASCAL-5i's test items.

    Args:
        masks_dir: a folder of masks ID.png with VOC's class values, such as SegmentationClassAug.
        image_ids: which images, in the order of the result; the classes of an image come in ascending order.
        fold: 0..3.

    Raises:
        ConfigError: no such fold.
        DataError: a mask is missing or damaged, named.
    """
    classes, folder = fold_classes(fold), Path(masks_dir)
    masks = ((image_id, read_mask(folder / f"{image_id}.png")) for image_id in image_ids)
    return [(image_id, value) for image_id, mask in masks for value in classes if keeps_object(mask == value)]
