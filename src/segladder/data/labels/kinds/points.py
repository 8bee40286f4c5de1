"""Points: a click on every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.components import components
from segladder.data.labels.prices import Prices

RADIUS = 0.03  # of the image diagonal


@dataclass(frozen=True)
class Points(Labels):
    """A click deep inside the largest connected component."""

    name: str = "points"
    singular: ClassVar[str] = "point"
    rank: ClassVar[int] = 30
    colour: ClassVar[str] = "#56b4e9"
    marker: ClassVar[str] = "P"

    def price(self, prices: Prices) -> float:
        """A click on the class."""
        return prices.point

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """A disk around the pixel deepest inside the largest component (the first in reading order), inside that.

        Its radius is 3 % of the image diagonal, uint8 (H, W).
        """
        drawn = np.zeros_like(mask)
        if not mask.any():
            return drawn
        place, component = max(components(mask), key=lambda found: found[1].sum())
        depth = cv2.distanceTransform(np.pad(component, 1), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        row, column = np.unravel_index(depth.argmax(), depth.shape)
        radius = RADIUS * np.hypot(*mask.shape)
        rows, columns = np.ogrid[: depth.shape[0], : depth.shape[1]]
        drawn[place] = ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) & (component > 0)
        return drawn
