"""Cheaper annotations of a support, made of its mask: what an annotator who draws less would have given.

Each is a pure function of the object's mask, so that mask, box, scribble and point compare on the same supports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from skimage.morphology import skeletonize

from segladder.errors import ConfigError

SPECK = 0.01  # a component below this share of the object's pixels is not annotated
SCRIBBLE_WIDTH = 0.03  # of the longer side of its component
POINT_RADIUS = 0.03  # of the image diagonal


def annotated(mask: np.ndarray, kind: str) -> np.ndarray:
    """What stands for an object's mask when its annotator draws less.

    Args:
        mask: 1 = the object, 0 = anything else, uint8 (H, W).
        kind: `mask`; `box`, the filled bounding box of every connected component; `scribble`, the skeleton of every
            component, drawn with a width of 3 % of the component's longer side; `point`, a disk with a radius of 3 % of
            the image diagonal around the pixel of the largest component that is deepest inside (the first of several
            in reading order). Scribbles and points stay inside the object; components below 1 % of the object's pixels
            get neither box nor scribble.

    Returns:
        1 = annotated as the object, uint8 (H, W); empty only where the mask is.

    Raises:
        ConfigError: no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"support_annotation={kind}: choose from {', '.join(KINDS)}")
    return KINDS[kind](mask)


def boxes(mask: np.ndarray) -> np.ndarray:
    """The filled bounding box of every component, uint8 (H, W)."""
    drawn = np.zeros_like(mask)
    for place, _ in _components(mask):
        drawn[place] = 1
    return drawn


def scribbles(mask: np.ndarray) -> np.ndarray:
    """A line along the middle of every component, inside it, uint8 (H, W)."""
    drawn = np.zeros_like(mask)
    for place, component in _components(mask):
        line = skeletonize(np.pad(component, 1)).astype(np.uint8)[1:-1, 1:-1]
        brush = _disk(SCRIBBLE_WIDTH * max(component.shape) / 2)
        drawn[place] |= cv2.dilate(line, brush) & component
    return drawn


def point(mask: np.ndarray) -> np.ndarray:
    """A disk around the pixel deepest inside the largest component, inside that, uint8 (H, W)."""
    drawn = np.zeros_like(mask)
    if not mask.any():
        return drawn
    place, component = max(_components(mask), key=lambda found: found[1].sum())
    depth = cv2.distanceTransform(np.pad(component, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    radius = POINT_RADIUS * np.hypot(*mask.shape)
    rows, columns = np.ogrid[: depth.shape[0], : depth.shape[1]]
    drawn[place] = ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) & (component > 0)
    return drawn


KINDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mask": np.copy,
    "box": boxes,
    "scribble": scribbles,
    "point": point,
}


def _components(mask: np.ndarray) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Where the bounding box of each 8-connected component lies and the component in it, specks left out."""
    count, labels, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    sizes = found[:, cv2.CC_STAT_AREA]
    for k in range(1, count):
        # the largest stays, however many specks there are
        if sizes[k] >= min(SPECK * sizes[1:].sum(), sizes[1:].max()):
            left, top, width, height = found[k, : cv2.CC_STAT_AREA]
            place = slice(top, top + height), slice(left, left + width)
            yield place, (labels[place] == k).astype(np.uint8)


def _disk(radius: float) -> np.ndarray:
    """1 within the radius of the middle of a square, uint8."""
    reach = np.arange(-int(radius), int(radius) + 1)
    return (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.uint8)
