"""Names: nobody looks at an image; all that is known of a class is its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.prices import Prices


@dataclass(frozen=True)
class Names(Labels):
    """Class names and the semantic vectors that stand for them; the seen classes of such a run have masks."""

    name: Literal["names"] = "names"
    rank: ClassVar[int] = 10
    shows: ClassVar[str] = "nothing"
    colour: ClassVar[str] = "#0072b2"
    marker: ClassVar[str] = "o"

    def price(self, prices: Prices, acts: float | None = None) -> float:
        """Nothing."""
        return 0.0

    def seconds(self, prices: Prices, images: int, classes: int, held: float) -> float:
        """Nothing: no image is looked at."""
        return 0.0
