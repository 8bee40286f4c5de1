"""The single objects of an image: where each lies and of which class it is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segladder.errors import DataError
from segladder.mask_values import IGNORE


@dataclass(frozen=True)
class Instances:
    """The objects of one image.

    A pixel belongs to one object at most. A pixel of no object is 0: background, void, or of a class that is not in
    use. Which of the three it is stands in the mask, where void is 255.

    Attributes:
        map: which object a pixel belongs to, uint16 (H, W): 1 the first of `classes`, 0 none.
        classes: the class index of each object, into the source's `classes`, uint8 (N,).
    """

    map: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def masks(self) -> np.ndarray:
        """Each object alone, bool (N, H, W)."""
        return np.asarray(self.map == np.arange(1, len(self) + 1, dtype=np.uint16)[:, None, None])

    @property
    def boxes(self) -> np.ndarray:
        """The box around the pixels of each object, int64 (N, 4): left, top, and right and bottom one pixel beyond."""
        boxes = np.zeros((len(self), 4), np.int64)
        for k, mask in enumerate(self.masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes[k] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes

    def numbers(self, mask: np.ndarray, void: int = IGNORE) -> np.ndarray:
        """The object of each pixel, uint8 (H, W): 0 background, `void` where the mask has no background and no object.

        Raises ValueError for more objects than that leaves numbers for.
        """
        if len(self) >= void:
            raise ValueError(f"{len(self)} objects, expected less than {void}")
        numbers = self.map.astype(np.uint8)
        numbers[(numbers == 0) & (mask > 0)] = void
        return numbers

    @classmethod
    def numbered(cls, numbers: np.ndarray, classes: np.ndarray) -> Instances:
        """The objects that have a pixel left in `numbers`, uint8 (H, W), of which 1 is the first of `classes`."""
        left = np.isin(np.arange(1, len(classes) + 1), numbers)
        order = np.zeros(256, np.uint16)
        order[1 + np.flatnonzero(left)] = np.arange(1, np.count_nonzero(left) + 1)
        return cls(order[numbers], classes[left])

    def of(self, classes: Collection[int]) -> Instances:
        """The objects of some classes."""
        kept = np.isin(self.classes, [*classes])
        order = np.concatenate([[0], np.cumsum(kept) * kept]).astype(np.uint16)
        return Instances(order[self.map], self.classes[kept])

    @classmethod
    def of_classes(cls, mask: np.ndarray) -> Instances:
        """One object for each class of a mask (class indices uint8 (H, W), 255 = void), by class index."""
        classes = np.array([value for value in np.unique(mask) if 0 < value < IGNORE], np.uint8)
        order = np.zeros(256, np.uint16)
        order[classes] = np.arange(1, len(classes) + 1)
        return cls(order[mask], classes)


def instances_of(objects: np.ndarray, mask: np.ndarray, lookup: np.ndarray, path: Path, image_id: str) -> Instances:
    """The objects of a stored map, whose classes are those of the stored mask.

    A pixel that either file calls void (255) belongs to no object. Objects keep the order of their numbers.

    Args:
        objects: number of the object at each pixel, 0 none, 255 void, uint8 (H, W).
        mask: class values as stored, uint8 (H, W).
        lookup: class index of each class value, 0 or 255 of a class that is not in use, uint8 (256,).
        path: of the map, for errors.
        image_id: the image.

    Raises:
        DataError: the map has another size than the mask, an object on the background or of two classes, or a pixel
            of a class without an object; file, image id and place are named.
    """
    where = f"{path}: disagrees with the mask of {image_id}"
    if objects.shape != mask.shape:
        sizes = (f"{width}x{height}" for height, width in (objects.shape, mask.shape))
        raise DataError(f"{where}: {' against '.join(sizes)} pixels (width x height)")
    solid = (objects != IGNORE) & (mask != IGNORE)
    if (odd := solid & ((objects > 0) != (mask > 0))).any():
        row, column = np.argwhere(odd)[0]
        pair = f"object {objects[row, column]} on mask value {mask[row, column]}"
        raise DataError(f"{where}: {pair} at row {row}, column {column} ({np.count_nonzero(odd)} such pixels)")
    held = solid & (objects > 0)
    pairs = np.unique(objects[held].astype(np.uint16) * np.uint16(256) + mask[held])
    numbers, values = pairs // 256, pairs % 256
    if len(twice := numbers[1:][numbers[1:] == numbers[:-1]]):
        named = _listed(values[numbers == twice[0]].tolist())
        raise DataError(f"{where}: object {twice[0]} holds mask values {named}, expected one class")
    classes = lookup[values]
    used = (classes > 0) & (classes < IGNORE)
    order = np.zeros(256, np.uint16)
    order[numbers[used]] = np.arange(1, np.count_nonzero(used) + 1)
    return Instances(np.where(held, order[objects], np.uint16(0)), classes[used])


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:-1])) + f" and {values[-1]}"
