"""Which of a data set's images hold which classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from segladder.data.pascal5i import GRID_POINTS, grid
from segladder.data.reading import of_each
from segladder.data.sources.base import Source
from segladder.settings import check_value

MinObject = Literal["grid", "area", "none"]
MOST_THREADS = 8

Pair = tuple[str, int]  # image id, class index


@dataclass(frozen=True)
class Items:
    """Which foreground classes each of some images holds.

    Attributes:
        name: the data set's.
        classes: the source's class names, the background first where there is one.
        ids: the images.
        kept: for each image the class indices whose objects are large enough to be items, ascending.
        present: for each image the class indices of which it holds a single pixel, ascending.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    kept: tuple[tuple[int, ...], ...]
    present: tuple[tuple[int, ...], ...]

    @classmethod
    def read(
        cls, source: Source, ids: Iterable[str], min_object: str = "grid", min_area: int = 2048, progress: bool = False
    ) -> Items:
        """Decode every mask once, in threads.

        Args:
            source: the data set.
            ids: which images.
            min_object: what makes an object an item: `grid` (the rule of `pascal5i.keeps_object`), `area` (at least
                `min_area` pixels at native size) or `none` (one pixel).
            min_area: of the rule `area`.
            progress: show a progress bar.

        Raises:
            ConfigError: no such rule.
            DataError: a mask is missing or damaged, named.
        """
        check_value(MinObject, min_object, "min_object")
        least = {"grid": GRID_POINTS, "area": min_area, "none": 1}[min_object]
        indices = source.foreground_indices
        ids = tuple(ids)

        def held(image_id: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
            mask = source.mask(image_id)
            pixels = _counts(mask)
            sizes = _counts(grid(mask)) if min_object == "grid" else pixels
            return tuple(k for k in indices if sizes[k] >= least), tuple(k for k in indices if pixels[k])

        found = of_each(held, ids, f"masks of {source.name}", MOST_THREADS, progress)
        kept, present = zip(*found, strict=True) if ids else ((), ())
        return cls(source.name, source.classes, ids, kept, present)

    def without(self, classes: Iterable[int]) -> Items:
        """The images without a pixel of some classes."""
        rows = [row for row in zip(self.ids, self.kept, self.present, strict=True) if not set(row[2]) & set(classes)]
        ids, kept, present = zip(*rows, strict=True) if rows else ((), (), ())
        return Items(self.name, self.classes, ids, kept, present)

    def holders(self, class_index: int) -> list[str]:
        """The images that hold a kept object of a class, in the order of `ids`."""
        return [image_id for image_id, kept in zip(self.ids, self.kept, strict=True) if class_index in kept]

    def remedy(self, class_index: int, shots: int) -> str:
        """What to do where too few images hold a class for episodes of so many shots: the words to add."""
        small = sum(class_index in set(has) - set(kept) for has, kept in zip(self.present, self.kept, strict=True))
        if small:
            return f"{small} more hold objects too small for protocol.min_object; add protocol.min_object=none"
        return "leave it out with data.classes" + (" or take fewer shots" if shots > 1 else "")

    def pairs(self, classes: Iterable[int]) -> list[Pair]:
        """The kept (image id, class index) pairs of some classes, by image, then by class index."""
        chosen = set(classes)
        return [(i, k) for i, kept in zip(self.ids, self.kept, strict=True) for k in kept if k in chosen]


@lru_cache(maxsize=4)
def split_items(source: Source, split: str, min_object: str, min_area: int) -> Items:
    """What a split's images hold, read once; arguments and errors as of `Items.read`."""
    return Items.read(source, source.split(split), min_object, min_area)


def items_of(source: Source, split: str, ids: Iterable[str] | None, min_object: str, min_area: int) -> Items:
    """What some images hold, or those of a split, which are read once; arguments and errors as of `Items.read`."""
    if ids is None:
        return split_items(source, split, min_object, min_area)
    return Items.read(source, ids, min_object, min_area)


def _counts(mask: np.ndarray) -> np.ndarray:
    """Pixels of each value, int64 (256,)."""
    return np.bincount(mask.reshape(-1), minlength=256)
