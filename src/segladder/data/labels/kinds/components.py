"""Connected components of a mask, which stand for objects where a data set does not tell objects apart."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from segladder.mask_values import IGNORE

SPECK = 0.01  # a component below this share of the object's pixels is not annotated

Place = tuple[slice, slice]  # rows and columns of a bounding box
Component = tuple[Place, np.ndarray]  # where it lies, and the component in that box: 0 and 1, uint8


def components(mask: np.ndarray) -> Iterator[Component]:
    """Where the bounding box of each 8-connected component lies and the component in it, specks left out.

    Args:
        mask: 0 and 1, uint8 (H, W).
    """
    count, labels, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    sizes = found[:, cv2.CC_STAT_AREA]
    for k in range(1, count):
        # the largest stays, however many specks there are
        if sizes[k] >= min(SPECK * sizes[1:].sum(), sizes[1:].max()):
            left, top, width, height = found[k, : cv2.CC_STAT_AREA].tolist()
            place = slice(top, top + height), slice(left, left + width)
            yield place, (labels[place] == k).astype(np.uint8)


def regions(mask: np.ndarray, background: bool) -> Iterator[tuple[int, list[Component]]]:
    """Each class of a mask (class indices, 255 = void) with its components, the largest first.

    Args:
        mask: uint8 (H, W).
        background: whether class 0 is one of them.
    """
    for k in np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1)[:IGNORE]).tolist():
        if k or background:
            yield k, sorted(components((mask == k).astype(np.uint8)), key=lambda found: -int(found[1].sum()))
