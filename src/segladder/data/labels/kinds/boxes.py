"""Boxes: the bounding box of every object.

Drawn by extreme clicks (Papadopoulos et al. 2017, https://arxiv.org/abs/1708.02750). What a box becomes for training:
filled with its class, or GrabCut (Rother et al. 2004) as OpenCV has it. Rounds of network and boxes in the manner of
BoxSup (Dai, He, Sun, ICCV 2015, https://arxiv.org/abs/1503.01640) are `experiment=box_pipeline`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np

from segladder.data.hashing import hashed_seed
from segladder.data.labels.kinds.base import Labels
from segladder.data.labels.kinds.components import Place, components, regions
from segladder.data.labels.prices import Prices
from segladder.data.sources.base import Source
from segladder.data.sources.scene import Scene

ROUNDS = 5  # of GrabCut
NEARLY_EMPTY = 0.2  # share of a box; our choice
INSIDE = (cv2.GC_FGD, cv2.GC_PR_FGD)


@dataclass(frozen=True)
class Boxes(Labels):
    """A box around each object, by extreme clicks.

    Objects are those that the data set tells apart (`Source.boxes`); else the connected components of each class.
    Everything outside the boxes is background.

    Args:
        becomes: `filled`, the class fills its box, smaller boxes above larger ones; or `grabcut`, what GrabCut cuts out
            of the picture in each box. Neither sees a mask.
    """

    name: Literal["boxes"] = "boxes"
    becomes: Literal["filled", "grabcut"] = "filled"
    singular: ClassVar[str] = "box"
    rank: ClassVar[int] = 50
    shows: ClassVar[str] = "pixels"
    partial: ClassVar[bool] = True
    by_object: ClassVar[bool] = True
    colour: ClassVar[str] = "#009e73"
    marker: ClassVar[str] = "D"

    @property
    def needs_background(self) -> bool:
        """True: it is what lies outside all boxes."""
        return True

    def price(self, prices: Prices, acts: float | None = None) -> float:
        """A box around each object, as many as were counted, or as VOC has on average."""
        return prices.box * (prices.objects_of_class if acts is None else acts)

    def acts(self, held: Sequence[int], objects: Sequence[int] | None) -> tuple[int, ...]:
        """The objects of each class, at least one."""
        return () if objects is None else tuple(max(1, objects.count(k)) for k in held)

    def of_object(self, mask: np.ndarray) -> np.ndarray:
        """The filled bounding box of every component but specks, uint8 (H, W)."""
        drawn = np.zeros_like(mask)
        for place, _ in components(mask):
            drawn[place] = 1
        return drawn

    def of_image(self, scene: Scene) -> np.ndarray:
        """What the boxes become, larger ones beneath, uint8 (H, W); 0 outside."""
        seen = np.zeros_like(scene.mask)
        for number, (k, place) in enumerate(boxes_of(scene)):
            self._draw(seen, scene, number, k, place)
        return seen

    def _draw(self, seen: np.ndarray, scene: Scene, number: int, k: int, place: Place) -> None:
        if self.becomes == "filled":
            seen[place] = k
        else:
            seen[cut_out(scene.image, place, hashed_seed("grabcut", scene.image_id, number))] = k

    def allowed(self, scene: Scene, classes: int) -> np.ndarray:
        """A class is inside its boxes, the background is anywhere."""
        allowed = np.zeros((classes, *scene.mask.shape), bool)
        allowed[0] = True
        for k, place in boxes_of(scene):
            allowed[k][place] = True
        return allowed

    def settled(self, answer: np.ndarray, scene: Scene) -> np.ndarray:
        """The answer; a box that it leaves nearly empty is as in the first round, else its object would be unlearnt."""
        seen = answer.copy()
        for number, (k, place) in enumerate(boxes_of(scene)):
            if (answer[place] == k).mean() < NEARLY_EMPTY:
                self._draw(seen, scene, number, k, place)
        return seen

    def files(self, source: Source, image_id: str) -> tuple[Path, ...]:
        """The mask, what tells objects apart, and for GrabCut the picture."""
        told = source.told_objects(image_id)
        picture = [source.image_path(image_id)] if self.becomes == "grabcut" else []
        return (source.mask_path(image_id), *([] if told is None else [told[1]]), *picture)


def boxes_of(scene: Scene) -> list[tuple[int, Place]]:
    """The class and place of each box, the larger ones first."""
    if scene.boxes is None:
        found = [(k, place) for k, parts in regions(scene.mask, background=False) for place, _ in parts]
    else:
        corners = scene.boxes.places.tolist()
        places = [(slice(top, bottom), slice(left, right)) for left, top, right, bottom in corners]
        found = list(zip(scene.boxes.classes, places, strict=True))
    return sorted(found, key=lambda box: (-_area(box[1]), box[0], box[1][0].start, box[1][1].start))


def cut_out(image: np.ndarray, place: Place, seed: int) -> np.ndarray:
    """What GrabCut takes for the object in a box, bool (H, W); all of the box where it finds nothing to cut.

    Args:
        image: uint8 (H, W, 3).
        place: the box.
        seed: of OpenCV's random numbers.
    """
    filled = np.zeros(image.shape[:2], bool)
    filled[place] = True
    if filled.all():  # no background to learn colours from
        return filled
    cut = np.where(filled, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    cv2.setRNGSeed(seed % 2**31)
    cv2.grabCut(image, cut, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    found: np.ndarray = np.isin(cut, INSIDE) & filled
    return found if found.any() else filled


def _area(place: Place) -> int:
    return int((place[0].stop - place[0].start) * (place[1].stop - place[1].start))
