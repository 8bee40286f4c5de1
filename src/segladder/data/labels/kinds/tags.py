"""Tags: which classes an image holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.prices import Prices
from segladder.data.sources.base import Source


@dataclass(frozen=True)
class Tags(Labels):
    """One answer for each class of an image: there or not. What sees tags cannot reach a mask."""

    name: Literal["tags"] = "tags"
    rank: ClassVar[int] = 20
    shows: ClassVar[str] = "tags"
    colour: ClassVar[str] = "#d55e00"
    marker: ClassVar[str] = "s"

    def price(self, prices: Prices, acts: float | None = None) -> float:
        """The presence check, which finds it there."""
        return prices.presence

    def files(self, source: Source, image_id: str) -> tuple[Path, ...]:
        """The file that tags are read from."""
        return (source.tag_path(image_id),)
