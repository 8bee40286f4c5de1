"""None: nobody says anything of any image, not even what its classes are called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.prices import Prices
from segladder.data.sources.base import Source


@dataclass(frozen=True)
class Nothing(Labels):
    """Images alone. Who wants classes of such a run must have its clusters named afterwards, by an oracle."""

    name: Literal["none"] = "none"
    rank: ClassVar[int] = 0
    shows: ClassVar[str] = "images"
    colour: ClassVar[str] = "#666666"
    marker: ClassVar[str] = "*"

    def price(self, prices: Prices, acts: float | None = None) -> float:
        """Nothing."""
        return 0.0

    def seconds(self, prices: Prices, images: int, classes: int, held: float) -> float:
        """Nothing: nobody looks at an image."""
        return 0.0

    def files(self, source: Source, image_id: str) -> tuple[Path, ...]:
        """The image itself."""
        return (source.image_path(image_id),)
