"""The training data of few-shot methods: episodes of base classes, in which novel classes have no label."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Literal, cast

import cv2
import numpy as np
import torch

from segladder.data.sources.base import Source
from segladder.data.sources.items import Items
from segladder.data.sources.scene import size_error
from segladder.data.training.cache import images_of, masks_of
from segladder.data.training.dataset import UNLABELLED, Augmentation, Item, Key, TrainingSet, collate
from segladder.data.training.episodes import pick, sample
from segladder.errors import ConfigError, DataError
from segladder.mask_values import IGNORE
from segladder.settings import check_value

NovelPixels = Literal["ignore", "background", "drop"]
TrainImages = Literal["all", "single_class"]
ClassDraw = Literal["image", "image_any_size", "class"]
CROPS = 8  # tries to find a crop that shows the class


class EpisodeDataset(TrainingSet):
    """Training episodes, one of a base class for each key.

    All that is random in an item (class, supports, augmentation) comes from the seed of its key. A mask is read through
    a table that keeps one base class: which novel class a pixel is of reaches no item. That it is of some novel class
    shows as 255 with `ignore` and not at all with `background`; `drop` uses image-level knowledge, which images hold
    novel classes, and shows none of their pixels.

    Args:
        source: the data set on disk.
        ids: the training images.
        novel: names of the classes that are not trained; the other foreground classes in use are base classes.
        shots: supports an episode, other images than the query.
        augment: called as augment(image, mask, seed) for keys (index, seed), up to 8 times until the class is in view.
        novel_pixels: what pixels of novel classes are: `ignore` (255), `background` (0) or `drop` (images that hold
            one are not used).
        images: `all`, or `single_class` (only images that hold one base class; with `drop`, one class).
        class_draw: `image` (the query is the image at the index, its class one of its base classes), `image_any_size`
            (the class may be too small to be an item once another one is) or `class` (a base class, then one of its
            images; the index counts for nothing).
        min_object: which objects are items, as in `Items.read`.
        min_area: likewise.
        multi_object: share of episodes whose query is drawn anew among the images with several base classes; without
            such images there are none.

    Attributes:
        ids: the images that can be queries, in the order of the indices.
        base: indices of the base classes.

    Raises:
        ConfigError: an unknown choice or novel class, no base class, or at the item: images of different sizes.
        DataError: a base class with too few images, named, or at the item: a file that is damaged or does not fit.
    """

    def __init__(
        self,
        source: Source,
        ids: Sequence[str],
        novel: Sequence[str],
        shots: int,
        augment: Augmentation | None = None,
        novel_pixels: str = "ignore",
        images: str = "all",
        class_draw: str = "image",
        min_object: str = "grid",
        min_area: int = 2048,
        multi_object: float = 0.0,
    ) -> None:
        check_value(NovelPixels, novel_pixels, "episodes.novel_pixels")
        check_value(TrainImages, images, "episodes.images")
        check_value(ClassDraw, class_draw, "episodes.class_draw")
        if shots < 1 or not 0 <= multi_object <= 1:
            raise ConfigError(f"episodes: shots={shots}, multi_object={multi_object}; expected >= 1 and a share 0..1")
        hidden = novel_indices(source, novel)
        self.classes, self.shots, self.augment = source.classes, shots, augment
        self.class_draw, self.multi_object = class_draw, multi_object
        self.base = tuple(k for k in range(1, len(source.classes)) if k not in hidden)
        self._tables = _tables(self.base, hidden, 0 if novel_pixels == "background" else UNLABELLED)
        self._all_ids = list(ids)  # positions count here: all folds share one cache of pixels
        self._images, self._masks = images_of(source, ids), masks_of(source, ids)
        self._label_place = source.label_place
        items = Items.read(source, ids, min_object, min_area)
        self._kept = [
            tuple(k for k in kept if k not in hidden) if _usable(present, hidden, novel_pixels, images) else ()
            for kept, present in zip(items.kept, items.present, strict=True)
        ]
        self._asked = self._kept
        if class_draw == "image_any_size":
            held = zip(self._kept, items.present, strict=True)
            self._asked = [tuple(k for k in present if k not in hidden) if kept else () for kept, present in held]
        self._queries = [position for position, kept in enumerate(self._kept) if kept]
        self._several = [position for position in self._queries if len(self._kept[position]) > 1]
        self._holders = {k: [p for p in self._queries if k in self._kept[p]] for k in self.base}
        self.ids = [self._all_ids[position] for position in self._queries]
        self._check_supply(items)

    def __getitem__(self, key: Key) -> Item:
        """The episode at (index, seed), or at an index alone: not augmented, drawn with the index as seed.

        Returns:
            `Item` of an episode: masks are 1 = the class, 0 = anything else, 255 = ignored; `class_index` counts in the
            source's classes, `id` is the query's.
        """
        index, seed = key if isinstance(key, tuple) else (key, None)
        random = Random(index if seed is None else seed)
        query, class_index = self._draw(index, random)
        positions = [query, *sample(random, [p for p in self._holders[class_index] if p != query], self.shots)]
        pairs = [self._read(position, class_index) for position in positions]
        if seed is not None and self.augment is not None:
            pairs = [self._augmented(image, mask, random) for image, mask in pairs]
        self._check_sizes(positions, pairs)
        images = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)  # (1 + K, 3, H, W)
        masks = torch.from_numpy(np.stack([mask for _, mask in pairs]))  # (1 + K, H, W)
        inside = masks != IGNORE
        masks[masks == UNLABELLED] = IGNORE
        return {
            "image": images[0],
            "mask": masks[0],
            "inside": inside[0],
            "support_image": images[1:],
            "support_mask": masks[1:],
            "support_inside": inside[1:],
            "class_index": class_index,
            "id": self._all_ids[query],
            "support_ids": [self._all_ids[position] for position in positions[1:]],
        }

    @staticmethod
    def collate(items: Sequence[Item]) -> dict[str, Any]:
        """Episodes as a batch, see `collate_episodes`."""
        return collate_episodes(items)

    def _draw(self, index: int, random: Random) -> tuple[int, int]:
        """The query's position and the class."""
        several = bool(self._several) and random.random() < self.multi_object
        if self.class_draw == "class":
            class_index = pick(random, self.base)
            holders = self._holders[class_index]
            crowded = [p for p in holders if len(self._kept[p]) > 1] if several else []
            return pick(random, crowded or holders), class_index
        query = pick(random, self._several) if several else self._queries[index]
        return query, pick(random, self._asked[query])

    def _read(self, position: int, class_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and mask (H, W) of one class, in which what is ignored is `UNLABELLED`."""
        image, mask = self._images[position], self._masks[position]
        if mask.shape != image.shape[:2]:
            raise size_error(self._label_place(self._all_ids[position]), mask.shape, image.shape)
        return image, cv2.LUT(mask, self._tables[class_index])

    def _augmented(self, image: np.ndarray, mask: np.ndarray, random: Random) -> tuple[np.ndarray, np.ndarray]:
        """The first augmented view of up to `CROPS` that shows the class, else the last."""
        assert self.augment is not None
        for _ in range(CROPS):
            picture, shown = self.augment(image, mask, int(random.random() * 2**31))
            if shown is not None and (shown == 1).any():
                break
        assert shown is not None, "a mask goes in, so one comes out"
        return picture, shown

    def _check_sizes(self, positions: Sequence[int], pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        for position, (image, _) in zip(positions, pairs, strict=True):
            if image.shape != pairs[0][0].shape:
                (height, width), (first_height, first_width) = image.shape[:2], pairs[0][0].shape[:2]
                raise ConfigError(
                    f"{self._all_ids[position]} is {width}x{height} and {self._all_ids[positions[0]]} is"
                    f" {first_width}x{first_height}, but an episode needs one size; set loader.augment.crop"
                )

    def _check_supply(self, items: Items) -> None:
        for k in self.base:
            if len(self._holders[k]) <= self.shots:
                raise DataError(
                    f"{items.name}: base class {self.classes[k]} has {len(self._holders[k])} of {len(self._all_ids)}"
                    f" training images, {self.shots}-shot episodes need {self.shots + 1};"
                    f" {items.remedy(k, self.shots)}"
                )


def collate_episodes(items: Sequence[Item]) -> dict[str, Any]:
    """Episodes as a batch: `support_image` (B, K, 3, H, W), channels last in memory; `support_ids` B lists of K."""
    rest = [{k: v for k, v in item.items() if k not in ("support_image", "support_ids")} for item in items]
    supports = torch.stack([item["support_image"].permute(0, 2, 3, 1) for item in items])  # (B, K, H, W, 3)
    return {
        **collate(cast(Sequence[Item], rest)),
        "support_image": supports.permute(0, 1, 4, 2, 3),
        "support_ids": [item["support_ids"] for item in items],
    }


def novel_indices(source: Source, novel: Sequence[str]) -> frozenset[int]:
    """Indices of the novel classes. Raises ConfigError for an unknown name or if no base class is left."""
    unknown = [name for name in novel if name not in source.classes[1:]]
    if unknown:
        raise ConfigError(f"novel classes {', '.join(unknown)}: expected some of {', '.join(source.classes[1:])}")
    if set(novel) == set(source.classes[1:]):
        raise ConfigError(f"novel classes {', '.join(novel)}: no base class of {source.name} is left to train")
    return frozenset(source.classes.index(name) for name in novel)


def _tables(base: Sequence[int], novel: frozenset[int], novel_value: int) -> dict[int, np.ndarray]:
    """For each base class the episode mask's value for each class index, uint8 (256,)."""
    tables = {}
    for k in base:
        table = np.zeros(256, np.uint8)
        table[[IGNORE, k]] = UNLABELLED, 1
        table[list(novel)] = novel_value
        tables[k] = table
    return tables


def _usable(present: Sequence[int], novel: frozenset[int], novel_pixels: str, images: str) -> bool:
    """Whether an image that holds these classes may be used."""
    if novel_pixels == "drop" and not novel.isdisjoint(present):
        return False
    return images == "all" or len(set(present) - novel) == 1
