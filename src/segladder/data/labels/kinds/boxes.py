"""Boxes: the bounding box of every object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.components import components
from segladder.data.labels.prices import Prices


@dataclass(frozen=True)
class Boxes(Labels):
    """A box around each object, by extreme clicks. A mask does not tell objects apart: its connected components do."""

    name: str = "boxes"
    singular: ClassVar[str] = "box"
    rank: ClassVar[int] = 50
    colour: ClassVar[str] = "#009e73"
    marker: ClassVar[str] = "D"

    def price(self, prices: Prices) -> float:
        """A box around each object."""
        return prices.objects_of_class * prices.box

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """The filled bounding box of every component but specks, uint8 (H, W)."""
        drawn = np.zeros_like(mask)
        for place, _ in components(mask):
            drawn[place] = 1
        return drawn
