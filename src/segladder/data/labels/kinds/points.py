"""Points: clicks on every class (Bearman et al., "What's the Point", ECCV 2016, https://arxiv.org/abs/1506.02106)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import ClassVar, Literal

import cv2
import numpy as np

from segladder.data.hashing import hashed_seed
from segladder.data.labels.kinds.components import components
from segladder.data.labels.kinds.marks import Marks
from segladder.data.labels.prices import Prices
from segladder.data.sources.scene import Scene
from segladder.mask_values import IGNORE
from segladder.settings import Share

RADIUS = 0.03  # of the image diagonal, of a support's point
DEEP = 0.5  # a click lies at least at this share of a component's largest depth: nobody clicks on the edge


@dataclass(frozen=True)
class Points(Marks):
    """Clicks deep inside the largest connected components of each class.

    Args:
        radius: of the disk that a click labels, as a share of the image diagonal; it never leaves its component.
    """

    name: Literal["points"] = "points"
    radius: Share = 0.01
    singular: ClassVar[str] = "point"
    rank: ClassVar[int] = 30
    colour: ClassVar[str] = "#56b4e9"
    marker: ClassVar[str] = "P"

    def price_of_one(self, prices: Prices) -> float:
        """A click."""
        return prices.point

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """A disk around the pixel deepest inside the largest component (the first in reading order), inside that.

        Its radius is 3 % of the image diagonal, uint8 (H, W).
        """
        drawn = np.zeros_like(mask)
        if not mask.any():
            return drawn
        place, component = max(components(mask), key=lambda found: found[1].sum())
        row, column = np.unravel_index(depth_of(component).argmax(), component.shape)
        drawn[place] = disk(component, int(row), int(column), RADIUS * np.hypot(*mask.shape))
        return drawn

    def of_image(self, scene: Scene) -> np.ndarray:
        """Disks around the clicks, of their class, uint8 (H, W); 255 elsewhere."""
        seen = np.full_like(scene.mask, IGNORE)
        radius = self.radius * np.hypot(*scene.mask.shape)
        for k, found in self.marked(scene):
            for click in range(self.amount):
                place, component = found[click % len(found)]
                row, column = self._clicked(component, hashed_seed("points", self.seed, scene.image_id, k, click))
                seen[place][disk(component, row, column, radius) > 0] = k
        return seen

    def _clicked(self, component: np.ndarray, seed: int) -> tuple[int, int]:
        depth = depth_of(component)
        rows, columns = np.nonzero(depth >= DEEP**2 * depth.max())
        chosen = Random(seed).randrange(len(rows))
        return int(rows[chosen]), int(columns[chosen])


def depth_of(component: np.ndarray) -> np.ndarray:
    """How far each pixel of a component (0 and 1, uint8 (h, w)) lies from what is not of it, squared, int64 (h, w).

    Whole numbers, since the last bits of OpenCV's distances change from call to call; exact up to 1500 pixels.
    """
    depth = cv2.distanceTransform(np.pad(component, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    squared: np.ndarray = np.rint(np.square(depth, dtype=np.float64)).astype(np.int64)
    return squared


def disk(component: np.ndarray, row: int, column: int, radius: float) -> np.ndarray:
    """A disk inside a component, uint8 (h, w) of 0 and 1."""
    rows, columns = np.ogrid[: component.shape[0], : component.shape[1]]
    inside: np.ndarray = ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) & (component > 0)
    return inside.astype(np.uint8)
