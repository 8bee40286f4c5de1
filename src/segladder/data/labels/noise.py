"""Careless annotators: what becomes of a drawn mask whose annotator hurries, by a seed.

Four kinds of carelessness, each a pure function of a mask: objects are missed, named wrongly, outlined by few corners,
and outlined beside their boundary. The reference point for how much of it there is: the annotator of ADE20K drew 61
images again after six months, and 82.4 % of the pixels got the same label; 5.7 % differed by the outline, 6.0 % by the
name, 5.9 % because an object was drawn only once. Two other annotators agreed with her on 41.5 and 25 % of the pixels
(Zhou et al.: Semantic Understanding of Scenes through the ADE20K Dataset, IJCV 2019, https://arxiv.org/abs/1608.05442).

An object is what the data set tells apart; where it tells none apart, a connected component of a class. Two things are
simplified: any class is taken for any other, and objects of all sizes are missed equally often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from segladder.data.hashing import hashed_seed
from segladder.data.sources.instances import Instances
from segladder.errors import ConfigError, DataError
from segladder.mask_values import IGNORE
from segladder.settings import AboveZero, Count, NotNegative, Share

Place = tuple[slice, slice]

WAVE = 4.0  # a displaced boundary turns every so many times its displacement,
SHORTEST_WAVE = 8.0  # and not within fewer pixels than this
TOLERANCE = 0.1  # pixels within which the finest polygon is searched
BORDER = 5  # VOC's border of 255 around an object is so wide, in pixels; it goes with an object that is missed


@dataclass(frozen=True)
class Noise:
    """How careless an annotator is; the default is not at all.

    Args:
        seed: the annotator's, not the run's.
        dropped: share of the objects that are missed: they are background. A larger share holds those of a smaller one.
        confused: share of the objects that get the name of another class, any as likely.
        corners: most corners of the polygon around an object, which has no holes then; None: as drawn.
        boundary: how far boundaries are displaced, in pixels at most; about a third of that on average.
        effort: time that an outline takes as a share of a careful one's, over all objects, missed ones too.
        source: where `effort` is from; for the record's cost.

    Raises:
        ConfigError: an effort without a source.
    """

    seed: Count = 0
    dropped: Share = 0.0
    confused: Share = 0.0
    corners: Annotated[int, Field(ge=3)] | None = None
    boundary: NotNegative = 0.0
    effort: AboveZero = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.effort != 1 and not self.source:
            raise ConfigError(
                f"labels.noise.effort={self.effort}: say in labels.noise.source where that is from, or that it is an"
                " assumption"
            )

    @property
    def words(self) -> str:
        """What is careless, for people; empty where nothing is."""
        said = {
            f"{self.dropped:.0%} of objects missed": self.dropped,
            f"{self.confused:.0%} misnamed": self.confused,
            f"{self.corners} corners": self.corners,
            f"boundaries up to {self.boundary:g} px off": self.boundary,
        }
        return ", ".join(words for words, amount in said.items() if amount)

    def of(self, mask: np.ndarray, image_id: str, classes: Sequence[int], told: Instances | None = None) -> np.ndarray:
        """What the annotator makes of a mask, class indices uint8 (H, W) with 255 ignored; the mask stays as it is.

        Args:
            mask: as drawn with care.
            image_id: of the image; each has its own random numbers.
            classes: indices of those among which names are confused.
            told: the objects on it, where the data set tells them apart; pixels that are of none stay as drawn.
        """
        if told is not None:
            numbers, kinds = self.of_objects(told, mask, image_id, classes)
            careless = np.concatenate([[0], kinds, np.full(255 - len(kinds), IGNORE)]).astype(np.uint8)[numbers]
            return np.where((mask > 0) & (mask < IGNORE) & (told.map == 0), mask, careless)
        if self.dropped:
            mask = dropped(mask, self.dropped, self._random("dropped", image_id))
        if self.confused:
            mask = confused(mask, self.confused, classes, self._random("confused", image_id))
        if self.corners is not None:
            mask = outlined(mask, self.corners)
        if self.boundary:
            mask = displaced(mask, self.boundary, self._random("boundary", image_id))
        return mask

    def of_objects(
        self, told: Instances, mask: np.ndarray, image_id: str, classes: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the annotator makes of single objects: the number of each pixel's, uint8 (H, W), and their classes (N,).

        0 is the background, 255 of no known object. Arguments as of `of`. Raises DataError for 255 objects or more.
        """
        try:
            numbers, kinds = told.numbers(mask), told.classes.copy()
        except ValueError as error:
            raise DataError(f"{image_id}: {error}") from error
        if self.dropped:
            numbers = dropped(numbers, self.dropped, self._random("dropped", image_id), whole=True)
        if self.confused:
            kinds[:] = renamed(kinds.tolist(), self.confused, classes, self._random("confused", image_id))
        if self.corners is not None:
            numbers = outlined(numbers, self.corners)
        if self.boundary:
            numbers = displaced(numbers, self.boundary, self._random("boundary", image_id))
        return numbers, kinds

    def _random(self, kind: str, image_id: str) -> np.random.Generator:
        """Numbers of one kind of carelessness in one image: another kind does not change them."""
        return np.random.default_rng(hashed_seed("careless", kind, self.seed, image_id))


def objects(mask: np.ndarray, whole: bool = False) -> Iterator[tuple[int, Place, np.ndarray]]:
    """Class, bounding box and pixels in it, bool, of each 8-connected component of a class, class by class.

    Where values are numbers of objects, `whole` leaves these in one.
    """
    for k in np.unique(mask):
        if not 0 < k < IGNORE:
            continue
        if whole:
            left, top, width, height = cv2.boundingRect((mask == k).astype(np.uint8))
            place = slice(top, top + height), slice(left, left + width)
            yield int(k), place, mask[place] == k
        else:
            count, labels, found, _ = cv2.connectedComponentsWithStats((mask == k).astype(np.uint8), connectivity=8)
            for number in range(1, count):
                left, top, width, height = found[number, : cv2.CC_STAT_AREA]
                place = slice(top, top + height), slice(left, left + width)
                yield int(k), place, labels[place] == number


def dropped(mask: np.ndarray, share: float, random: np.random.Generator, whole: bool = False) -> np.ndarray:
    """The mask (H, W) with about a share of its `objects` as background, and what is 255 within 5 pixels of them."""
    careless = mask.copy()
    for _, place, inside in objects(mask, whole):
        if random.random() < share:
            wide = _widened(place, BORDER, mask.shape)
            alone = np.zeros(careless[wide].shape, np.uint8)
            rows, columns = place[0].start - wide[0].start, place[1].start - wide[1].start
            alone[rows : rows + inside.shape[0], columns : columns + inside.shape[1]] = inside
            around = cv2.dilate(alone, np.ones((3, 3), np.uint8), iterations=BORDER) > 0
            careless[wide][(alone > 0) | (around & (mask[wide] == IGNORE))] = 0
    return careless


def confused(mask: np.ndarray, share: float, classes: Sequence[int], random: np.random.Generator) -> np.ndarray:
    """The mask (H, W) with about a share of the objects of some classes named as another of these."""
    careless, found = mask.copy(), list(objects(mask))
    names = renamed([k for k, _, _ in found], share, classes, random)
    for (_, place, inside), name in zip(found, names, strict=True):
        careless[place][inside] = name
    return careless


def renamed(names: Sequence[int], share: float, classes: Sequence[int], random: np.random.Generator) -> list[int]:
    """The classes of objects with about a share of those of some classes as another of these."""
    given = list(names)
    for number, k in enumerate(names):
        others = [other for other in classes if other != k]
        is_wrong, choice = random.random() < share, random.random()  # both, whatever comes of it
        if is_wrong and k in classes and others:
            given[number] = others[int(choice * len(others))]
    return given


def outlined(mask: np.ndarray, corners: int) -> np.ndarray:
    """The mask (H, W) with every object drawn as a polygon, larger ones beneath; 255 stays where none is drawn."""
    careless = np.where(mask == IGNORE, IGNORE, 0).astype(np.uint8)
    for k, place, inside in sorted(objects(mask), key=lambda found: -found[2].sum()):
        corner = np.array([place[1].start, place[0].start])
        cv2.fillPoly(careless, [(polygon(inside, corners) + corner).astype(np.int32)], k)
    return careless


def polygon(inside: np.ndarray, corners: int) -> np.ndarray:
    """A polygon of at most so many corners around one object, bool (H, W): x and y of each, int (N, 2).

    Douglas and Peucker's simplification (1973) of the outer contour, as fine as that many corners allow.
    """
    contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)  # (N, 1, 2)
    fine, coarse = 0.0, float(sum(inside.shape))  # tolerances in pixels: more corners, one corner
    found = contour if len(contour) <= corners else cv2.approxPolyDP(contour, coarse, True)
    while len(contour) > corners and coarse - fine > TOLERANCE:
        middle = (fine + coarse) / 2
        tried = cv2.approxPolyDP(contour, middle, True)
        if len(tried) <= corners:
            found, coarse = tried, middle
        else:
            fine = middle
    return np.asarray(found[:, 0])


def displaced(mask: np.ndarray, pixels: float, random: np.random.Generator) -> np.ndarray:
    """The mask (H, W) read beside each pixel, by a field of smooth random displacements of at most so many pixels.

    A pixel that lies farther than that from any boundary keeps its label.
    """
    height, width = mask.shape
    wave = max(SHORTEST_WAVE, WAVE * pixels)
    knots = tuple(2 + int(side / wave) for side in (height, width))
    angle = random.uniform(0, 2 * np.pi, knots)
    field = pixels * np.stack([np.sin(angle), np.cos(angle)], -1)  # on a circle, so what lies between is inside it
    rows, columns = np.mgrid[:height, :width].astype(np.float32) / np.float32(wave)
    exact = cv2.remap(field.astype(np.float32), columns, rows, cv2.INTER_LINEAR)  # (H, W, 2)
    nearest = np.rint(exact)
    too_far = (nearest**2).sum(-1, keepdims=True) > pixels**2
    shift = np.where(too_far, np.trunc(exact), nearest).astype(np.int64)
    from_row = (np.arange(height)[:, None] + shift[..., 0]).clip(0, height - 1)
    from_column = (np.arange(width) + shift[..., 1]).clip(0, width - 1)
    careless: np.ndarray = mask[from_row, from_column]
    return careless


def _widened(place: Place, by: int, shape: tuple[int, ...]) -> Place:
    """A bounding box with so many pixels more on every side, inside an image (H, W)."""
    rows, columns = (slice(max(0, s.start - by), min(n, s.stop + by)) for s, n in zip(place, shape, strict=True))
    return rows, columns
