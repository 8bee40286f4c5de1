"""What a kind of label is: its place on the ladder, what it shows of an image, its price, its looks in reports."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from segladder.data.labels.prices import Prices
from segladder.data.sources.base import Source
from segladder.data.sources.instances import Instances
from segladder.data.sources.scene import Scene
from segladder.errors import ConfigError
from segladder.mask_values import IGNORE


class Labels(ABC):
    """A kind of label: a file in this room, and conf/labels/NAME.yaml where training reads it (`labels=NAME`).

    Attributes:
        name: what records, prices and the configuration call it.
        singular: what one such label is called, in `protocol.support_annotation`; empty where supports cannot have it.
        rank: place on the ladder, from the least annotation to the most.
        shows: what training items hold: `images` alone, `nothing` of the classes asked about, `tags` or `pixels`; empty
            where training does not read it.
        partial: whether it shows less than a drawn mask where it shows pixels.
        by_object: whether each object has a label of its own, so that a data set's boxes of objects are read.
        colour: in charts, of Okabe and Ito's set, which colour-blind readers tell apart.
        marker: in charts, matplotlib's name.
    """

    name: str
    singular: ClassVar[str] = ""
    rank: ClassVar[int]
    shows: ClassVar[str] = ""
    partial: ClassVar[bool] = False
    by_object: ClassVar[bool] = False
    colour: ClassVar[str]
    marker: ClassVar[str]

    def naming(self, classes: Sequence[int]) -> Labels:
        """These labels by an annotator who is asked for some classes, by index."""
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
    def price(self, prices: Prices, acts: float | None = None) -> float:
        """Seconds to label one class of an image that holds it, all its objects.

        Args:
            prices: of each act.
            acts: how many clicks, strokes, boxes or outlines that takes; None: nobody has counted.
        """

    def seconds(self, prices: Prices, images: int, classes: int, held: float) -> float:
        """Seconds for some images: a presence check of each class that is not there, a label of each that is.

        Args:
            prices: of each act.
            images: how many.
            classes: how many classes each is searched for.
            held: (image, class) pairs found.
        """
        return prices.presence * (images * classes - held) + held * self.price(prices)

    def acts(self, held: Sequence[int], objects: Sequence[int] | None) -> tuple[int, ...]:
        """How many acts the label of each class of an image takes; empty where nobody has counted.

        Args:
            held: the classes that it holds.
            objects: the class of each of its objects; None where nothing tells objects apart.
        """
        return ()

    @property
    def needs_background(self) -> bool:
        """Whether it says something of an image only where what is no object is background."""
        return False

    @property
    def background_acts(self) -> int:
        """How many acts the background of an image takes, beside those of its classes."""
        return 0

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """What a support shows of its object: 1 = annotated, uint8 (H, W), of a mask of 0 and 1, uint8 (H, W).

        Empty only where the mask is. Raises ConfigError for a kind that supports cannot have.
        """
        raise ConfigError(f"labels of kind {self.name} cannot annotate a support")

    def of_image(self, scene: Scene) -> np.ndarray:
        """What training sees of an image: class indices uint8 (H, W), 255 where it is told nothing.

        A pure function of what the annotator sees (drawn mask, boxes of objects, picture), of the image's id and of the
        fields of the kind (such as an annotator's seed). Read where `shows` is `pixels`.
        """
        return scene.mask

    def objects(self, scene: Scene) -> Instances | None:
        """The single objects that training sees; None where the label outlines none, or nothing tells them apart."""
        return None if self.key else scene.instances

    @property
    def outlines(self) -> bool:
        """Whether training sees where each single object lies."""
        return self.shows == "pixels" and (not self.key or type(self).objects is not Labels.objects)

    def allowed(self, scene: Scene, classes: int) -> np.ndarray | None:
        """Which classes each pixel may be of by this label, bool (K, H, W); None where the label rules nothing out.

        A network's answers that become labels of another run keep to it. `classes` is K.
        """
        return None

    def settled(self, answer: np.ndarray, scene: Scene) -> np.ndarray:
        """A network's answer, already of allowed classes, as a label of another run: class indices uint8 (H, W)."""
        return answer

    @property
    def key(self) -> str:
        """What decides what `of_image` makes of a scene; empty where that is the drawn mask."""
        if type(self).of_image is Labels.of_image:
            return ""
        return json.dumps({"kind": type(self).__name__, **asdict(cast(Any, self))}, sort_keys=True)

    def files(self, source: Source, image_id: str) -> tuple[Path, ...]:
        """The files that the label of a training image is made from."""
        return (source.mask_path(image_id),)


def as_told(seen: np.ndarray, classes: int) -> np.ndarray:
    """Every class where nothing is told (255), else the one that is, bool (K, H, W)."""
    allowed: np.ndarray = (seen == np.arange(classes, dtype=np.uint8)[:, None, None]) | (seen == IGNORE)
    return allowed
