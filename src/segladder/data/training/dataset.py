"""The map-style data set that training reads: it hands out what the run's supervision may see, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from segladder.data.labels.seen_labels import SeenLabels
from segladder.data.sources.base import Source, size_error, tags_of
from segladder.data.training.augmentation import Places, TrainAugmentation
from segladder.data.training.cache import images_of, masks_of
from segladder.errors import ConfigError, DataError

Augmentation = Callable[[np.ndarray, np.ndarray | None, int], tuple[np.ndarray, np.ndarray | None]]
Key = int | tuple[int, int]


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Items of some ids of a source, as one kind of supervision may see them.

    With `full` supervision an item holds a mask, and its tags are those of the whole mask; with `zero_shot` likewise,
    but every mask is read through its table of `labels`; otherwise it has no mask: then tags are read once at the
    start, and neither the item nor this object can reach a mask.

    Args:
        source: the data set on disk.
        ids: which images, in the order of the indices.
        supervision: `full` and `zero_shot` hand out masks, any other kind does not.
        augment: applied to the items of keys (index, seed).
        labels: what `zero_shot` may see of them.

    Raises:
        ConfigError: `zero_shot` without `labels`.
        DataError: no ids, or at the item: a file that is missing, damaged or does not fit.
    """

    def __init__(
        self,
        source: Source,
        ids: Sequence[str],
        supervision: str,
        augment: TrainAugmentation | None = None,
        labels: SeenLabels | None = None,
    ) -> None:
        if not ids:
            raise DataError(f"data {source.name}: no image ids, expected at least one")
        self.ids = list(ids)
        self.augment = augment
        self.classes = source.classes
        self._images = images_of(source, ids)
        if supervision == "zero_shot" and labels is None:
            raise ConfigError("zero_shot training must know its unseen classes: choose protocol=zero_shot")
        has_masks = supervision in ("full", "zero_shot")
        self._masks = masks_of(source, ids) if has_masks else None
        self._mask_path = source.mask_path if has_masks else None
        visible = labels if supervision == "zero_shot" else None
        self._tables = [visible.table(source.classes, image_id) for image_id in ids] if visible else None  # N x (256,)
        self._tags = None if self._masks else np.stack([source.tags(image_id) for image_id in ids])  # (N, K - 1)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        """The item at an index as it is, or at (index, seed) augmented with that seed."""
        return self._item(key)

    def __getitems__(self, keys: Sequence[Key]) -> list[dict[str, Any]]:
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

    def _item(self, key: Key, out: Places = (None, None)) -> dict[str, Any]:
        index, seed = key if isinstance(key, tuple) else (key, None)
        image, mask, tags = self._read(index)
        if seed is not None and self.augment is not None:
            image, mask = self.augment(image, mask, seed, out)
        item = {"image": _tensor(image).permute(2, 0, 1), "tags": torch.from_numpy(tags), "id": self.ids[index]}
        if mask is not None:
            item["mask"] = _tensor(mask)  # (H, W)
        return item

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        image = self._images[index]  # (H, W, 3)
        if self._masks is None:
            assert self._tags is not None
            return image, None, self._tags[index]
        mask = self._masks[index]  # (H, W)
        if mask.shape != image.shape[:2]:
            assert self._mask_path is not None
            raise size_error(self._mask_path(self.ids[index]), mask.shape, image.shape)
        if self._tables is not None:
            mask = cv2.LUT(mask, self._tables[index])
        return image, mask, tags_of(mask, len(self.classes))


class Batched(list[dict[str, Any]]):
    """Items whose pixels lie in a batch's memory already.

    Args:
        items: as `SegmentationDataset` gives them.
        pixels: that batch: `image` (B, 3, H, W), channels last, and `mask` (B, H, W) where items have one.
    """

    def __init__(self, items: Sequence[dict[str, Any]], pixels: dict[str, torch.Tensor]) -> None:
        super().__init__(items)
        self.pixels = pixels


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items as a batch, whose images (B, 3, H, W) keep the memory order of decoded pixels (channels last)."""
    if isinstance(items, Batched):
        rest = default_collate([{k: v for k, v in item.items() if k not in items.pixels} for item in items])
        return {**rest, **items.pixels}
    batch = default_collate([{**item, "image": item["image"].permute(1, 2, 0)} for item in items])
    return {**batch, "image": batch["image"].permute(0, 3, 1, 2)}


def empty_batch(*shape: int) -> torch.Tensor:
    """Memory for uint8 pixels; in a loading process it is shared, so that they need not be copied to leave it."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(math.prod(shape))  # as default_collate does it
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def _tensor(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor; read-only memory is copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
