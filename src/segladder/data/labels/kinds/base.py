"""What a kind of label is: its place on the ladder, what it shows of a drawn mask, its price, its looks in reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from segladder.data.labels.prices import Prices
from segladder.data.sources.base import Source
from segladder.errors import ConfigError


class Labels(ABC):
    """A kind of label: a file in this room, and conf/labels/NAME.yaml where training reads it (`labels=NAME`).

    Attributes:
        name: what records, prices and the configuration call it.
        singular: what one such label is called, in `protocol.support_annotation`; empty where supports cannot have it.
        rank: place on the ladder, from the least annotation to the most.
        shows: what training items hold: `images` alone, `nothing` of the classes asked about, `tags` or `pixels`; empty
            where training does not read it.
        colour: in charts, of Okabe and Ito's set, which colour-blind readers tell apart.
        marker: in charts, matplotlib's name.
    """

    name: str
    singular: ClassVar[str] = ""
    rank: ClassVar[int]
    shows: ClassVar[str] = ""
    colour: ClassVar[str]
    marker: ClassVar[str]

    def naming(self, classes: Sequence[int]) -> Labels:
        """The same of an annotator who is asked for these classes, by index."""
        return self

    @property
    def words(self) -> str:
        """What such labels are, for records: the name, unless there is more to say."""
        return self.name

    @property
    def effort(self) -> float:
        """Seconds of such a label over those of the kind's `price` by default."""
        return 1.0

    @property
    def effort_source(self) -> str:
        """Where `effort` is from; empty where it is 1."""
        return ""

    @abstractmethod
    def price(self, prices: Prices) -> float:
        """Seconds to label one class of an image that holds it, all its objects."""

    def seconds(self, prices: Prices, images: int, classes: int, held: float) -> float:
        """Seconds for some images: a presence check of each class that is not there, a label of each that is.

        Args:
            prices: of each act.
            images: how many.
            classes: how many classes each is searched for.
            held: (image, class) pairs found.
        """
        return prices.presence * (images * classes - held) + held * self.price(prices)

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """What a support shows of its object: 1 = annotated, uint8 (H, W), of a mask of 0 and 1, uint8 (H, W).

        Empty only where the mask is.
        """
        raise ConfigError(f"labels of kind {self.name} cannot annotate a support")

    def of_image(self, mask: np.ndarray, image_id: str) -> np.ndarray:
        """What training sees of a drawn mask: class indices uint8 (H, W), 255 where it is told nothing.

        A pure function of the mask, the id and the fields of the kind (such as an annotator's seed). Read where `shows`
        is `pixels`.
        """
        return mask

    def file(self, source: Source, image_id: str) -> Path:
        """The file of a training image that this kind is read from."""
        return source.mask_path(image_id)
