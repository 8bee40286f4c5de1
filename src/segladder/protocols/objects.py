"""What protocols of single objects share: every method answers with objects, and each image is counted on its own.

A method that tells objects apart is asked for them. Of any other the answer is split: each connected component
(8 neighbours) of a class is an object, as sure as its pixels are on average. That is the floor of every table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import cv2
import numpy as np
import torch

from segladder.data.reading import of_each
from segladder.data.sources.base import Source
from segladder.data.sources.instances import Instances
from segladder.data.sources.palette import voc_palette
from segladder.errors import DataError
from segladder.mask_values import IGNORE, OtherClasses
from segladder.methods.base import Method, Objects, evaluating
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import Asked, Counts
from segladder.protocols.base import Picture, Protocol, Result, Scoring
from segladder.protocols.fields import check_classes
from segladder.protocols.inference import answered, gathered, resized, to_pixels
from segladder.settings import Positive, Share

WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Found:
    """What a method says of one image.

    Attributes:
        masks: of the objects, bool (N, H, W).
        classes: their class indices, int64 (N,).
        scores: how sure each is, float32 (N,).
        rest: the class of a pixel that is of no object, uint8 (H, W).
    """

    masks: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    rest: np.ndarray

    def without(self, void: np.ndarray) -> Found:
        """The objects that lie at most half on void (bool (H, W)), each without its void pixels."""
        areas = self.masks.sum((1, 2))
        masks = self.masks & ~void
        kept = (2 * masks.sum((1, 2)) >= areas) & (areas > 0)
        return Found(masks[kept], self.classes[kept], self.scores[kept], self.rest)

    def painted(self, sure: float, least_left: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """One class and one object for each pixel: the surest object that holds it (Kirillov et al. 2019).

        Args:
            sure: objects of lower scores are left out.
            least_left: an object of which surer ones leave a smaller share is left out too.

        Returns:
            Class indices uint8 (H, W), and numbers of objects from 1, 0 none, uint16 (H, W).
        """
        classes, numbers = self.rest.copy(), np.zeros(self.rest.shape, np.uint16)
        for k in np.argsort(-self.scores, kind="stable"):
            left = self.masks[k] & (numbers == 0)
            if self.scores[k] >= sure and left.sum() >= max(1, least_left * self.masks[k].sum()):
                classes[left], numbers[left] = self.classes[k], k + 1
        return classes, numbers


class Judged(NamedTuple):
    """What a method says of one image beside the truth.

    Attributes:
        found: the objects, without void pixels.
        painted: one class and one object for each pixel.
        objects: the true objects.
        truth: true classes uint8 (H, W), 255 void.
    """

    found: Found
    painted: tuple[np.ndarray, np.ndarray]
    objects: Instances
    truth: np.ndarray


def found_by(objects: Objects) -> Found:
    """What a method that tells objects apart says; all else is background."""
    masks, classes, scores = (part.cpu().numpy() for part in objects)
    return Found(masks, classes, scores, np.zeros(masks.shape[1:], np.uint8))


def components(probabilities: np.ndarray, stuff: Sequence[int], least: int) -> Found:
    """A dense answer (K, H, W) split into components of at least so many pixels, without the classes of `stuff`."""
    classes = probabilities.argmax(0).astype(np.uint8)
    rest = np.where(np.isin(classes, stuff), classes, np.uint8(0))
    masks, kinds, scores = [], [], []
    for k in (int(value) for value in np.unique(classes) if value not in stuff):
        count, labels, stats, _ = cv2.connectedComponentsWithStats((classes == k).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            if stats[number, cv2.CC_STAT_AREA] >= least:
                masks.append(labels == number)
                kinds.append(k)
                scores.append(probabilities[k][masks[-1]].mean())
    stacked = np.stack(masks) if masks else np.zeros((0, *classes.shape), bool)
    return Found(stacked, np.array(kinds, np.int64), np.array(scores, np.float32), rest)


@dataclass(frozen=True)
class ObjectProtocol(Protocol):
    """The objects of every image of a split, against those that a method finds.

    A pixel is void where the mask is 255, and where it has a class of objects but no object holds it. What is found
    there does not count; an object that is found with more than half of its pixels there is left out.

    Args:
        classes: foreground classes in the order of their indices; None means all of the data set.
        other_classes: what pixels of the data set's other classes are, `ignore` or `background`.
        stuff: classes that are no objects.
        input_size: long side of the network's input, None for native.
        smallest: of a dense answer: components that cover a smaller share of the image are no objects, rounded to
            whole pixels.
        sure: where each pixel has one object: those that a method finds with a lower score are left out there.
        bootstrap: resamples over images behind each 95 % interval.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("full", "image_level")

    classes: tuple[str, ...] | None
    other_classes: OtherClasses
    stuff: tuple[str, ...]
    input_size: Positive | None
    smallest: Share
    sure: Share
    bootstrap: Positive

    def check_source(self, source: Source) -> None:
        """Raise ConfigError as every protocol does, or if the source does not hold the protocol's classes."""
        super().check_source(source)
        check_classes(self.name, self.classes, source, self.stuff)

    def check_items(self, source: Source) -> None:
        """Raise DataError if nothing tells the objects of an image apart, or a file that does does not fit."""

        def look(image_id: str) -> None:
            self.objects(source, image_id)

        for _ in of_each(look, source.split(self.split), f"objects of {source.name}"):
            pass

    def measure(self, scoring: Scoring) -> Result:
        """Counts of all images, and the scores that follow."""
        source = scoring.source
        counts = Counts(len(source.classes), self.groups(source))
        predict_seconds = answered(
            scoring,
            scoring.among(self.split),
            lambda _, images, masks: self.found(scoring.method, source, images, masks[0].shape),
            lambda image_id, found, mask: self.count(counts, scoring.method, source, image_id, found, mask),
            f"{self.name} {self.split}",
        )
        result = self.result(Counts.merged(gathered(counts)), source.classes)
        result.predict_seconds = predict_seconds
        return result

    def groups(self, source: Source) -> dict[str, list[int]]:
        """Indices of the classes of objects (`things`) and of the others (`stuff`)."""
        stuff = self.stuff_of(source)
        return {"things": [k for k in range(len(source.classes)) if k not in stuff], "stuff": stuff}

    def stuff_of(self, source: Source) -> list[int]:
        """Indices of the classes that are no objects, the background among them."""
        return sorted({0, *(source.classes.index(name) for name in self.stuff)})

    def found(
        self, method: Method, source: Source, images: Sequence[np.ndarray], shape: tuple[int, ...]
    ) -> list[Found]:
        """What a method says of images of one size, at label size."""
        pixels, size = to_pixels(images, self.input_size, method.device), (shape[0], shape[1])
        if method.tells_objects:
            return [found_by(objects) for objects in method.objects(pixels, size)]
        probabilities = resized(method.predict(pixels), size).softmax(1).cpu().numpy()
        least = max(1, round(self.smallest * size[0] * size[1]))
        return [components(each, self.stuff_of(source), least) for each in probabilities]

    def painted(self, method: Method, found: Found) -> tuple[np.ndarray, np.ndarray]:
        """One class and one object for each pixel; components, which cannot overlap, stay whatever their scores."""
        return found.painted(self.sure if method.tells_objects else 0.0)

    def objects(self, source: Source, image_id: str) -> Instances:
        """The true objects of an image. Raises DataError if the data set does not tell them apart."""
        objects = source.instances(image_id)
        if objects is None:
            raise DataError(
                f"{source.name}: nothing tells the objects of {image_id} apart, and protocol={self.name} scores"
                " objects; see docs/data.md, Objects"
            )
        return objects

    def true(self, source: Source, image_id: str, mask: np.ndarray) -> tuple[Instances, np.ndarray]:
        """The true objects of an image, and where it is void, bool (H, W). Raises DataError as `objects`."""
        objects = self.objects(source, image_id)
        things = (mask > 0) & ~np.isin(mask, self.stuff_of(source))
        return objects, (mask == IGNORE) | (things & (objects.map == 0))

    def count(
        self, counts: Counts, method: Method, source: Source, image_id: str, found: Found, mask: np.ndarray
    ) -> None:
        """Add one image: the confusion matrix of the painted classes, and what the protocol counts of objects."""
        objects, void = self.true(source, image_id, mask)
        classes, numbers = self.painted(method, found)
        matrix = confusion_matrix(torch.from_numpy(classes), torch.from_numpy(mask), counts.num_classes)
        truth = np.where(void, np.uint8(IGNORE), mask)
        judged = Judged(found.without(void), (classes, numbers), objects, truth)
        counts.add(image_id, matrix, self.counted(judged, counts))

    @abstractmethod
    def counted(self, judged: Judged, counts: Counts) -> dict[str, np.ndarray]:
        """What is kept of one image, for `Counts.listed` of the counts that it will be added to."""

    @abstractmethod
    def result(self, counts: Counts, classes: Sequence[str]) -> Result:
        """All scores of the counted images."""

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """An image with its true and found objects, and their classes."""
        image, mask = source.pair(item.image)
        objects, _ = self.true(source, item.image, mask)
        with evaluating(method), torch.inference_mode():
            (found,) = self.found(method, source, [image], mask.shape)
        classes, numbers = self.painted(method, found)
        beside = {"true objects": coloured(image, objects.map), "found objects": coloured(image, numbers)}
        return Picture(image, mask, classes, beside)


def coloured(image: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """An image uint8 (H, W, 3) with each object (numbers (H, W), 0 none) in a colour of its own, outlined in white."""
    colours = voc_palette()[1 + (numbers.astype(np.int64) - 1) % (IGNORE - 1)]
    inside = (numbers > 0)[..., None]
    mixed = np.where(inside, (image.astype(np.uint16) + colours) // 2, image).astype(np.uint8)
    edge = np.zeros(numbers.shape, bool)
    edge[1:] |= numbers[1:] != numbers[:-1]
    edge[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    mixed[edge] = WHITE
    return mixed
