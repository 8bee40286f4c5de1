"""Masks: the class of every pixel, drawn by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.prices import Prices


@dataclass(frozen=True)
class Masks(Labels):
    """Every object outlined, border pixels 255 where the data set has such."""

    name: str = "masks"
    singular: ClassVar[str] = "mask"
    rank: ClassVar[int] = 60
    shows: ClassVar[str] = "pixels"
    colour: ClassVar[str] = "#cc79a7"
    marker: ClassVar[str] = "^"

    def price(self, prices: Prices, acts: float | None = None) -> float:
        """An outline of each object."""
        return prices.objects_of_class * prices.mask

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """The mask itself."""
        return mask.copy()
