"""Marks: what points and scribbles share. An annotator marks each class of an image, and its background, some times."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from segladder.data.labels.kinds.base import Labels, as_told
from segladder.data.labels.kinds.components import Component, regions
from segladder.data.labels.prices import Prices
from segladder.data.sources.scene import Scene
from segladder.settings import Positive


@dataclass(frozen=True)
class Marks(Labels):
    """Marks on each class; all else is 255.

    Args:
        amount: marks on each class of an image, the first in its largest component, the second in the next, in turn.
        background: whether the background is marked too, where a data set has one.
        seed: of the annotator.
    """

    amount: Positive = 1
    background: bool = True
    seed: int = 0
    shows: ClassVar[str] = "pixels"
    partial: ClassVar[bool] = True

    def marked(self, scene: Scene) -> Iterator[tuple[int, list[Component]]]:
        """The classes of a scene that the annotator marks, each with its components, the largest first."""
        return regions(scene.mask, self.background or not scene.background)

    @abstractmethod
    def price_of_one(self, prices: Prices) -> float:
        """Seconds that a mark takes."""

    def price(self, prices: Prices, acts: float | None = None) -> float:
        """A mark, or as many as were counted."""
        return self.price_of_one(prices) * (1 if acts is None else acts)

    def acts(self, held: Sequence[int], objects: Sequence[int] | None) -> tuple[int, ...]:
        """`amount` marks a class."""
        return (self.amount,) * len(held)

    @property
    def background_acts(self) -> int:
        """`amount` marks, if the background has any."""
        return self.amount if self.background else 0

    def allowed(self, scene: Scene, classes: int) -> np.ndarray:
        """What is marked keeps its class."""
        return as_told(self.of_image(scene), classes)
