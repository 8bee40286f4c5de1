"""Training items with single objects: each has a class and a box, and a mask unless its class is shown by boxes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np
import torch

from segladder.data.labels.kinds.base import Labels
from segladder.data.sources.base import Source
from segladder.data.sources.scene import size_error
from segladder.data.training.augmentation import TrainAugmentation
from segladder.data.training.cache import images_of
from segladder.data.training.dataset import UNLABELLED, Item, Key, ObjectLabels, TrainingSet
from segladder.errors import ConfigError, DataError
from segladder.mask_values import IGNORE

SMALLEST = 2  # pixels of a side: a box that a crop leaves less of is no object


class ObjectDataset(TrainingSet):
    """Items of some ids of a source with the objects on them.

    An object that is shown by its box has no pixel of its own in the item: what its box holds and no outlined object
    covers is 255 in the mask. A box is moved as a box, so that a crop does not tell where in it the object lies. A
    careless annotator's boxes are those around careless outlines.

    Args:
        source: the data set on disk.
        ids: which images, in the order of the indices.
        labels: of which kind; one that outlines each object.
        augment: applied to the items of keys (index, seed).
        boxes_only: names of the classes whose objects are shown by boxes.

    Raises:
        ConfigError: labels of another kind, or transforms that move no boxes.
        DataError: no ids, or at the item: an image whose objects nobody knows, or too many of them.
    """

    def __init__(
        self,
        source: Source,
        ids: Sequence[str],
        labels: Labels,
        augment: TrainAugmentation | None = None,
        boxes_only: Collection[str] = (),
    ) -> None:
        if not ids:
            raise DataError(f"data {source.name}: no image ids, expected at least one")
        if not labels.outlines:
            raise ConfigError(f"labels: {labels.words} do not outline single objects; choose labels=masks")
        if augment is not None and augment.extra:
            raise ConfigError("loader.augment.extra: moves no boxes; leave it empty for methods of single objects")
        self.ids, self.augment, self.classes = list(ids), augment, source.classes
        self._source, self._images = source.as_seen(labels), images_of(source, ids)
        self._boxed = [source.classes.index(name) for name in boxes_only]

    def __getitem__(self, key: Key) -> Item:
        """The item at an index as it is, or at (index, seed) augmented with that seed."""
        index, seed = key if isinstance(key, tuple) else (key, None)
        image = self._images[index]  # (H, W, 3)
        numbers, boxes, classes = self._labels(index, image.shape)
        if seed is not None and self.augment is not None:
            shape = image.shape[:2]
            image, moved = self.augment(image, numbers, seed)
            assert moved is not None
            numbers, boxes = moved, self.augment.moved(boxes, (shape[0], shape[1]), seed)
        kept = np.flatnonzero((boxes[:, 2:] - boxes[:, :2] >= SMALLEST).all(1))
        table = np.full(256, IGNORE, np.uint8)
        table[: len(classes) + 1] = [0, *classes]
        pixels = np.ascontiguousarray(image)
        objects: ObjectLabels = {
            "boxes": torch.from_numpy(boxes[kept].astype(np.float32)),
            "classes": torch.from_numpy(classes[kept].astype(np.int64)),
            "masks": torch.from_numpy(numbers == (kept + 1)[:, None, None]),
            "outlined": torch.from_numpy(~np.isin(classes[kept], self._boxed)),
        }
        return {
            "image": torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1),
            "mask": torch.from_numpy(cv2.LUT(numbers, table)),
            "inside": torch.from_numpy(numbers != IGNORE),
            "objects": objects,
            "id": self.ids[index],
        }

    def _labels(self, index: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Number of the object at each pixel uint8 (H, W), boxes (N, 4) and classes (N,) of the objects."""
        image_id = self.ids[index]
        mask, found = self._source.mask(image_id), self._source.instances(image_id)
        if found is None:
            raise DataError(
                f"{self._source.name}: nothing tells the objects of {image_id} apart; see docs/data.md, Objects"
            )
        if mask.shape != shape[:2]:
            raise size_error(self._source.label_place(image_id), mask.shape, shape)
        try:
            numbers, boxes = found.numbers(mask, void=UNLABELLED), found.boxes
        except ValueError as error:
            raise DataError(f"{self._source.name}: {image_id}: {error}") from error
        for number in np.flatnonzero(np.isin(found.classes, self._boxed)):
            left, top, right, bottom = boxes[number]
            numbers[numbers == number + 1] = 0
            hidden = numbers[top:bottom, left:right]
            hidden[hidden == 0] = UNLABELLED
        return numbers, boxes, found.classes
