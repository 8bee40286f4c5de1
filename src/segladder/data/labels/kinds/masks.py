"""Masks: the class of every pixel, drawn by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.noise import Noise
from segladder.data.labels.prices import Prices
from segladder.data.sources.base import Source
from segladder.data.sources.instances import Instances
from segladder.data.sources.scene import Scene


@dataclass(frozen=True)
class Masks(Labels):
    """Every object outlined, border pixels 255 where the data set has such.

    Args:
        noise: how careless the annotator is.
        classes: indices of those that the annotator names, and so may confuse; `naming` sets them.
    """

    name: Literal["masks"] = "masks"
    singular: ClassVar[str] = "mask"
    rank: ClassVar[int] = 60
    shows: ClassVar[str] = "pixels"
    colour: ClassVar[str] = "#cc79a7"
    marker: ClassVar[str] = "^"

    noise: Noise = field(default_factory=Noise)
    classes: tuple[int, ...] = ()

    def naming(self, classes: Sequence[int]) -> Masks:
        """These labels by an annotator who may confuse some classes, by index."""
        return replace(self, classes=tuple(classes)) if self.noise.confused else self

    @property
    def words(self) -> str:
        """`masks`, or how careless they are."""
        return f"careless masks ({self.noise.words})" if self.noise.words else self.name

    @property
    def effort(self) -> float:
        """The annotator's, as a share of a careful one's."""
        return self.noise.effort

    @property
    def effort_source(self) -> str:
        """Where that is from."""
        return self.noise.source

    @property
    def needs_background(self) -> bool:
        """Of a careless annotator: it is what missed objects and badly drawn outlines leave."""
        return bool(self.noise.words)

    @property
    def key(self) -> str:
        """What the annotator is like; empty for a careful one."""
        return super().key if self.noise.words else ""

    def price(self, prices: Prices, acts: float | None = None) -> float:
        """An outline of each object."""
        return prices.objects_of_class * prices.mask * self.effort

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """The mask itself: supports are drawn with care."""
        return mask.copy()

    def of_image(self, scene: Scene) -> np.ndarray:
        """The mask itself, or what a careless annotator makes of it."""
        if not self.noise.words:
            return scene.mask
        return self.noise.of(scene.mask, scene.image_id, self.classes, scene.instances)

    def objects(self, scene: Scene) -> Instances | None:
        """The objects themselves, or what a careless annotator makes of them."""
        told = scene.instances
        if told is None or not self.noise.words:
            return told
        return Instances.numbered(*self.noise.of_objects(told, scene.mask, scene.image_id, self.classes))

    def files(self, source: Source, image_id: str) -> tuple[Path, ...]:
        """The mask, and for a careless annotator what tells objects apart."""
        told = source.told_objects(image_id) if self.noise.words else None
        return super().files(source, image_id) + (() if told is None else (told[1],))
