"""What an annotator works from (the picture, its mask, its single objects), and what a run then sees of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from segladder.data.sources.instances import Instances
from segladder.errors import DataError
from segladder.mask_values import IGNORE

if TYPE_CHECKING:
    from segladder.data.sources.base import Source


@dataclass(frozen=True)
class ObjectBoxes:
    """The boxes of an image's objects, where a data set tells objects apart.

    Attributes:
        classes: the class index of each object.
        places: left, top, and right and bottom one pixel beyond, int64 (N, 4).
        path: the file that tells them.
    """

    classes: tuple[int, ...]
    places: np.ndarray
    path: Path

    def of(self, classes: Collection[int]) -> ObjectBoxes:
        """The boxes of some classes."""
        kept = [n for n, k in enumerate(self.classes) if k in classes]
        return replace(self, classes=tuple(self.classes[n] for n in kept), places=self.places[kept])


@dataclass(frozen=True)
class Scene:
    """One image as an annotator has it before them. Its picture and objects are read when they are asked for.

    Attributes:
        image_id: its id.
        mask: where each class is: class indices uint8 (H, W), 255 = void.
        read_image: gives the picture, uint8 (H, W, 3).
        read_boxes: gives the boxes of its objects; None where nothing tells objects apart.
        read_instances: gives its objects; None where nothing tells where each of them lies.
        path: of the mask, for messages.
        background: whether class 0 is the background and no class like the others.
    """

    image_id: str
    mask: np.ndarray
    read_image: Callable[[], np.ndarray]
    read_boxes: Callable[[], ObjectBoxes | None] = lambda: None
    read_instances: Callable[[], Instances | None] = lambda: None
    path: Path = Path("mask")
    background: bool = True

    @cached_property
    def image(self) -> np.ndarray:
        """The picture, uint8 (H, W, 3). Raises DataError naming the mask if that has another size."""
        image = self.read_image()
        if image.shape[:2] != self.mask.shape:
            raise size_error(self.path, self.mask.shape, image.shape)
        return image

    @cached_property
    def boxes(self) -> ObjectBoxes | None:
        """The boxes of its objects, if something tells these apart. Raises DataError for one outside the image."""
        boxes = self.read_boxes()
        height, width = self.mask.shape
        for place in () if boxes is None else boxes.places.tolist():
            left, top, right, bottom = place
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                assert boxes is not None
                raise DataError(
                    f"{boxes.path}: {self.image_id} has a box from ({left}, {top}) to ({right}, {bottom}), expected"
                    f" one inside its {width}x{height} pixels"
                )
        return boxes

    @cached_property
    def instances(self) -> Instances | None:
        """The single objects of the image; None where nothing tells them apart."""
        return self.read_instances()

    def only(self, classes: Collection[int]) -> Scene:
        """This scene with objects of some classes; pixels of the other objects are void."""
        kept = np.isin(self.mask, [0, IGNORE, *classes])
        mask = np.where(kept, self.mask, np.uint8(IGNORE))
        return replace(
            self,
            mask=mask,
            read_boxes=lambda: self.boxes and self.boxes.of(classes),
            read_instances=lambda: None if self.instances is None else self.instances.of(classes),
        )


class Sight(Protocol):
    """What is seen of images; a kind of label is one."""

    @property
    def shows(self) -> str:
        """`pixels`, `tags`, `images` or `nothing`."""

    @property
    def key(self) -> str:
        """What decides what `of_image` makes of a scene; empty where that is the drawn mask."""

    def of_image(self, scene: Scene) -> np.ndarray:
        """Class indices uint8 (H, W), 255 where nothing is told."""

    def objects(self, scene: Scene) -> Instances | None:
        """The single objects of a scene; None where they are not outlined, or nothing tells them apart."""

    def files(self, source: Source, image_id: str) -> tuple[Path, ...]:
        """The files that it is made from."""


def size_error(place: Path | str, mask: tuple[int, ...], image: tuple[int, ...]) -> DataError:
    """The error for a mask file of another size (H, W) than its image (H, W, 3)."""
    return DataError(
        f"{place}: size {mask[1]}x{mask[0]}, expected {image[1]}x{image[0]} (width x height) like its image"
    )


def tags_of(mask: np.ndarray, indices: Iterable[int]) -> np.ndarray:
    """Which of some classes are present in a mask of class indices, float32 (len(indices),)."""
    values = mask.tobytes()  # searching bytes is faster than counting them
    return np.array([bytes((value,)) in values for value in indices], np.float32)
