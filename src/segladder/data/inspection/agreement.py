"""How far careless masks agree with drawn ones, in numbers that published re-annotations give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from segladder.data.labels.kinds.base import Labels
from segladder.data.reading import of_each
from segladder.data.sources.base import Source
from segladder.mask_values import IGNORE


@dataclass(frozen=True)
class Agreement:
    """Pixels of two annotations of the same images, those that both label.

    Args:
        pixels: int64 (K, K), a row for each class of the first annotation, a column for each of the second.
    """

    pixels: np.ndarray

    @property
    def same(self) -> float:
        """Share of the pixels that have the same label; nan without pixels."""
        return _ratio(self.pixels.trace(), self.pixels.sum())

    @property
    def same_of_objects(self) -> float:
        """Share of equal labels among pixels with an object in either annotation: easy background does not count."""
        return _ratio(self.pixels.trace() - self.pixels[0, 0], self.pixels.sum() - self.pixels[0, 0])

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class, float64 (K,); nan where neither annotation has it."""
        both = self.pixels.diagonal()
        either = self.pixels.sum(0) + self.pixels.sum(1) - both
        shares: np.ndarray = np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)
        return shares


def agreement(source: Source, ids: Iterable[str], labels: Labels) -> Agreement:
    """Drawn masks of some images against what labels of a kind show of them. Raises DataError for a damaged mask."""
    count = len(source.classes)
    labels = labels.naming(source.foreground_indices)

    def counted(image_id: str) -> np.ndarray:
        scene = source.scene(image_id)
        drawn, shown = scene.mask, labels.of_image(scene)
        both = (drawn != IGNORE) & (shown != IGNORE)
        joint = drawn[both].astype(np.int64) * count + shown[both]
        pixels: np.ndarray = np.bincount(joint, minlength=count**2).reshape(count, count)
        return pixels

    found = of_each(counted, list(ids), f"masks of {source.name}")
    return Agreement(sum(found, np.zeros((count, count), np.int64)))


def _ratio(part: int, whole: int) -> float:
    return float(part / whole) if whole else float("nan")
