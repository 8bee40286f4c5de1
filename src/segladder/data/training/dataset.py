"""The map-style data sets that training reads: they hand out what the run's labels show, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, TypedDict

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from segladder.data.reading import of_each
from segladder.data.sources.base import Source
from segladder.data.sources.scene import Sight, size_error, tags_of
from segladder.data.training.augmentation import Places, TrainAugmentation
from segladder.data.training.cache import flows_of, images_of, masks_of
from segladder.errors import ConfigError, DataError
from segladder.mask_values import IGNORE

Augmentation = Callable[[np.ndarray, np.ndarray | None, int], tuple[np.ndarray, np.ndarray | None]]
Key = int | tuple[int, int]

UNLABELLED = 254  # stands for 255 in an image while it is augmented: what augmentation adds is 255 and no pixel of it


class ObjectLabels(TypedDict):
    """The objects of one image, those of N.

    Attributes:
        boxes: left, top, right and bottom in pixels, float32 (N, 4).
        classes: class indices, int64 (N,).
        masks: bool (N, H, W).
        outlined: whether the mask is known, bool (N,); elsewhere it is empty.
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    masks: torch.Tensor
    outlined: torch.Tensor


class Item(TypedDict, total=False):
    """What training is shown at once. Pixels are uint8, masks hold class indices with 255 ignored.

    Attributes:
        id: the image's, or the query's.
        image: (3, H, W).
        mask: (H, W); in an episode 1 = its class.
        inside: which pixels are the image's and not what augmentation filled up or cut out, bool (H, W).
        flow: how the pixels of a video's frame move, relative to the fastest: right and down, float32 (2, H, W).
        objects: on the image, where single objects are shown.
        tags: which foreground classes the image holds, float32 (K - 1,) of 0 and 1.
        support_image: of the S supports of an episode, (S, 3, H, W).
        support_mask: (S, H, W).
        support_inside: bool (S, H, W).
        support_ids: S names.
        class_index: the episode's class.
    """

    id: str
    image: torch.Tensor
    mask: torch.Tensor
    inside: torch.Tensor
    flow: torch.Tensor
    objects: ObjectLabels
    tags: torch.Tensor
    support_image: torch.Tensor
    support_mask: torch.Tensor
    support_inside: torch.Tensor
    support_ids: list[str]
    class_index: int


class TrainingSet(Dataset[Item]):
    """What training reads: items by index, or by (index, seed) augmented with that seed.

    Attributes:
        ids: of the items, in the order of the indices.
    """

    ids: list[str]

    def pixels_of_classes(self) -> np.ndarray | None:
        """Labelled pixels of each class in each item, int64 (N, K); None where items hold no masks of all classes."""
        return None

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def collate(items: Sequence[Item]) -> dict[str, Any]:
        """Items as a batch, their images and masks (B, ...)."""
        return collate(items)


class SegmentationDataset(TrainingSet):
    """Items of some ids of a source, as one kind of label shows them.

    Where labels show pixels an item holds a mask, and its tags are those of the whole mask; `inside` tells a pixel of
    the image without a label from padding, both 255 in the mask. Elsewhere it has none: tags are read once at the
    start, unless labels show images alone, and neither the item nor this object can reach a mask.

    Args:
        source: the data set on disk.
        ids: which images, in the order of the indices.
        labels: of which kind, or what a view shows of them.
        augment: applied to the items of keys (index, seed).
        tables: what each value of each image's mask becomes, uint8 (256,) for each id; None: itself.

    Raises:
        DataError: no ids, too many classes, or at the item: a file that is missing, damaged or does not fit.
    """

    def __init__(
        self,
        source: Source,
        ids: Sequence[str],
        labels: Sight,
        augment: TrainAugmentation | None = None,
        tables: Sequence[np.ndarray] | None = None,
    ) -> None:
        if not ids:
            raise DataError(f"data {source.name}: no image ids, expected at least one")
        if len(source.classes) > UNLABELLED:
            raise DataError(f"data {source.name}: {len(source.classes)} classes, expected at most {UNLABELLED}")
        self.ids = list(ids)
        self.augment = augment
        self.classes = source.classes
        self._tagged = source.foreground_indices
        self._images = images_of(source, ids)
        has_masks = labels.shows == "pixels"
        self._masks = masks_of(source.as_seen(labels), ids) if has_masks else None
        self._label_place = source.label_place if has_masks else None
        self._tables = tables
        has_tags = not has_masks and labels.shows != "images"
        tags = of_each(source.tags, ids, f"tags of {source.name}") if has_tags else None
        self._tags = None if tags is None else np.stack(list(tags))  # (N, K - 1)

    def pixels_of_classes(self) -> np.ndarray | None:
        """Labelled pixels of each class in each item, int64 (N, K), as they are; None where labels show none."""
        if self._masks is None:
            return None
        return np.stack(list(of_each(self._counted, range(len(self)), "masks, to count the pixels of each class")))

    def _counted(self, index: int) -> np.ndarray:
        return np.bincount(self._mask(index).ravel(), minlength=IGNORE + 1)[: len(self.classes)]

    def _mask(self, index: int) -> np.ndarray:
        assert self._masks is not None
        mask = self._masks[index]  # (H, W)
        return mask if self._tables is None else cv2.LUT(mask, self._tables[index])

    def __getitem__(self, key: Key) -> Item:
        """The item at an index as it is, or at (index, seed) augmented with that seed."""
        return self._item(key)

    def __getitems__(self, keys: Sequence[Key]) -> list[Item]:
        """The items of a batch (DataLoader asks so); augmented crops are written into the batch's own memory."""
        crop = self.augment.crop if self.augment else None
        if crop is None or not all(isinstance(key, tuple) for key in keys):
            return [self[key] for key in keys]
        images = empty_batch(len(keys), crop, crop, 3)
        pixels = {"image": images.permute(0, 3, 1, 2)}
        if self._masks is not None:
            pixels["mask"] = empty_batch(len(keys), crop, crop)
        masks = pixels["mask"].numpy() if "mask" in pixels else repeat(None)
        places = zip(images.numpy(), masks, strict=False)
        return Batched([self._item(key, out) for key, out in zip(keys, places, strict=True)], pixels)

    def _item(self, key: Key, out: Places = (None, None)) -> Item:
        index, seed = key if isinstance(key, tuple) else (key, None)
        image, mask, tags = self._read(index)
        mask = None if mask is None else _marked(mask)
        if seed is not None and self.augment is not None:
            image, mask = self.augment(image, mask, seed, out)
        item: Item = {"image": _tensor(image).permute(2, 0, 1), "id": self.ids[index]}
        if tags is not None:
            item["tags"] = torch.from_numpy(tags)
        if mask is not None:
            item["inside"] = torch.from_numpy(mask != IGNORE)  # (H, W)
            mask[mask == UNLABELLED] = IGNORE
            item["mask"] = torch.from_numpy(mask)  # (H, W)
        return item

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        image = self._images[index]  # (H, W, 3)
        if self._masks is None:
            return image, None, None if self._tags is None else self._tags[index]
        mask = self._mask(index)  # (H, W)
        if mask.shape != image.shape[:2]:
            assert self._label_place is not None
            raise size_error(self._label_place(self.ids[index]), mask.shape, image.shape)
        return image, mask, tags_of(mask, self._tagged)


class FlowDataset(SegmentationDataset):
    """The data set of videos, where an item also holds how its pixels move.

    Args:
        source: the videos on disk.
        ids: which frames, in the order of the indices.
        labels: as of `SegmentationDataset`.
        augment: applied to the items of keys (index, seed).

    Raises:
        ConfigError: single images, or transforms that move no flow.
        DataError: as `SegmentationDataset`, or a video of one frame.
    """

    def __init__(
        self, source: Source, ids: Sequence[str], labels: Sight, augment: TrainAugmentation | None = None
    ) -> None:
        if augment is not None and augment.extra:
            raise ConfigError("loader.augment.extra: moves no optical flow; leave it empty for methods that read flow")
        super().__init__(source, ids, labels, augment)
        self._flows = flows_of(source, ids)

    def _item(self, key: Key, out: Places = (None, None)) -> Item:
        item = super()._item(key, out)
        index, seed = key if isinstance(key, tuple) else (key, None)
        flow = self._flows[index]  # (H, W, 2)
        if seed is not None and self.augment is not None:
            flow = self.augment.moved_flow(flow, seed)
        item["flow"] = torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1)))
        return item


class Batched(list[Item]):
    """Items whose pixels lie in a batch's memory already.

    Args:
        items: as `SegmentationDataset` gives them.
        pixels: that batch: `image` (B, 3, H, W), channels last, and `mask` (B, H, W) where items have one.
    """

    def __init__(self, items: Sequence[Item], pixels: dict[str, torch.Tensor]) -> None:
        super().__init__(items)
        self.pixels = pixels


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Items as a batch, whose images (B, 3, H, W) keep the memory order of decoded pixels (channels last).

    Raises ConfigError for images of several sizes, as whole ones may have.
    """
    if isinstance(items, Batched):
        rest = default_collate([{k: v for k, v in item.items() if k not in items.pixels} for item in items])
        return {**rest, **items.pixels}
    plain = [{k: v for k, v in item.items() if k != "objects"} for item in items]
    pairs = zip(plain, items, strict=True)
    if len(sizes := sorted({tuple(item["image"].shape[1:]) for item in items})) > 1:
        raise ConfigError(
            f"loader.augment.crop: images of {sizes[0][1]}x{sizes[0][0]} and {sizes[1][1]}x{sizes[1][0]} in one batch,"
            " expected a crop, or loader.batch_size=1"
        )
    batch = default_collate([{**each, "image": item["image"].permute(1, 2, 0)} for each, item in pairs])
    if "objects" in items[0]:
        batch["objects"] = [item["objects"] for item in items]  # as many as each image has
    return {**batch, "image": batch["image"].permute(0, 3, 1, 2)}


def empty_batch(*shape: int) -> torch.Tensor:
    """Memory for uint8 pixels; in a loading process it is shared, so that they need not be copied to leave it."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(math.prod(shape))  # as default_collate does it
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def _marked(mask: np.ndarray) -> np.ndarray:
    """A copy (H, W) in which what has no label is `UNLABELLED`."""
    marked = mask.copy()
    marked[marked == IGNORE] = UNLABELLED
    return marked


def _tensor(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor; read-only memory is copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
