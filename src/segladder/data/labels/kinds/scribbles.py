"""Scribbles: a stroke along every object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.components import components
from segladder.data.labels.prices import Prices

WIDTH = 0.03  # of the longer side of a component


@dataclass(frozen=True)
class Scribbles(Labels):
    """A line along the middle of every connected component."""

    name: str = "scribbles"
    singular: ClassVar[str] = "scribble"
    rank: ClassVar[int] = 40
    colour: ClassVar[str] = "#e69f00"
    marker: ClassVar[str] = "v"

    def price(self, prices: Prices) -> float:
        """A stroke along the class."""
        return prices.scribble

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """The skeleton of every component but specks, inside it, 3 % of its longer side wide, uint8 (H, W)."""
        from skimage.morphology import skeletonize  # a second, and only where something is scribbled

        drawn = np.zeros_like(mask)
        for place, component in components(mask):
            line = skeletonize(np.pad(component, 1)).astype(np.uint8)[1:-1, 1:-1]
            drawn[place] |= cv2.dilate(line, _disk(WIDTH * max(component.shape) / 2)) & component
        return drawn


def _disk(radius: float) -> np.ndarray:
    """1 within the radius of the middle of a square, uint8."""
    reach = np.arange(-int(radius), int(radius) + 1)
    return (reach[:, None] ** 2 + reach**2 <= radius**2).astype(np.uint8)
