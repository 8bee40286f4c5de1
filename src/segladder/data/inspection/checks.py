"""Is a data set whole? Cheap checks before training, and every file decoded for `segladder data action=check`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from segladder.data.inspection.palettes import unlike_palettes
from segladder.data.labels.kinds.base import Labels
from segladder.data.reading import of_each
from segladder.data.sources.base import Source
from segladder.data.sources.decoding import image_size, jpeg_damage
from segladder.data.sources.scene import size_error
from segladder.data.sources.tag_file import Tagged
from segladder.errors import ConfigError, DataError, some
from segladder.machine import pool
from segladder.mask_values import IGNORE

FEW = 10  # images to score
SAMPLED = 200  # images whose size is looked at
SMALL = 100  # so few ids are checked before other processes have started


def check_training_ready(source: Source, labels: Labels, scored: str | None = None) -> None:
    """Cheap checks before the first step: splits have ids, those of training are not scored, and all files exist.

    Args:
        source: the data set.
        labels: the kind that training reads.
        scored: a split that is scored and must share no image with training, beside the source's own.

    Raises:
        ConfigError: training reads the split that is scored.
        DataError: naming the first few ids or files at fault and how many there are, or masks that hold 0 and 255 only.
    """
    if scored == source.train_split:
        raise ConfigError(
            f"data.train_split={scored}: that split is scored, so training must not see it; choose another"
            " data.train_split or protocol.split, or for tags protocol=cam_seeds, which scores training images"
        )
    train, val = source.split(source.train_split), source.split(source.val_split)
    _require([source.image_path(i) for i in (*train, *val)], "images")
    if labels.shows != "tags" and isinstance(source, Tagged) and (alone := list(filter(source.has_tags_alone, train))):
        raise DataError(
            f"{source.name}: {some(alone)} of {source.train_split} have tags alone, labels={labels.name} are made of"
            " masks; train method=cam first (docs/guides/tags.md), or list the images with masks in splits/train.txt"
        )
    _require([path for i in train for path in labels.files(source, i)], "training labels")
    _require([source.mask_path(i) for i in val], "masks to score against")
    trains_on_masks = source.mask_path(train[0]) in labels.files(source, train[0])
    masks = [source.mask_path(image_id) for image_id in (*(train if trains_on_masks else ()), *val)]
    for fault in (trains_on_masks and only_ignored(source, train), only_ignored(source, val), unlike_palettes(masks)):
        if fault:
            raise DataError(fault)
    for name in {source.val_split, scored or source.val_split} - {source.train_split}:
        if shared := overlap(train, source.split(name)):
            raise DataError(f"{source.name}: {shared} in both {source.train_split} and {name}; expected none")


@lru_cache(maxsize=4)
def check_scorable(source: Source, split: str) -> None:
    """Decode each image that will be scored and its mask, once: a fault is known before training, not after it.

    Raises:
        DataError: no such split, or naming the first file at fault.
    """

    def decode(image_id: str) -> None:
        source.pair(image_id)

    for _ in of_each(decode, source.split(split), f"images and masks of {source.name} that are scored"):
        pass


def remarks(source: Source, crop: int | None) -> list[str]:
    """What a data set is trained and scored with all the same: few images or none of a class to score, a large crop.

    Args:
        source: the data set.
        crop: of `loader.augment`, or None.
    """
    train, val = source.split(source.train_split), source.split(source.val_split)
    found = []
    if len(val) < FEW:
        offer = "; data.folds_of_images=5 scores each image once, in five runs" if source.deals_images else ""
        found.append(f"{source.val_split} holds {len(val)} images, too few for a score to rely on{offer}")
    if names := not_held(source, val):
        offer = "; give it images of them, in splits/ or by data.val_share" if source.deals_images else ""
        found.append(
            f"{source.val_split} holds no pixel of {some(names)}, so no score says how well they are found{offer}"
        )
    step = -(-len(train) // SAMPLED)
    longest = max(max(image_size(source.image_path(image_id))) for image_id in train[::step])
    if crop is not None and crop > longest:
        found.append(
            f"loader.augment.crop={crop} is larger than the images, {longest} pixels at most: the rest is padding;"
            f" loader.augment.crop={max(32, longest // 32 * 32)} fits"
        )
    return found


def not_held(source: Source, ids: Sequence[str]) -> list[str]:
    """The classes of which some images hold no pixel; ends once all are found. Damaged masks are passed over."""
    names = {index: source.classes[index] for index in source.foreground_indices}
    for image_id in ids:
        with suppress(DataError):
            for index in np.unique(source.mask(image_id)).tolist():
                names.pop(index, None)
        if not names:
            break
    return list(names.values())


def only_ignored(source: Source, ids: Sequence[str]) -> str | None:
    """What is wrong with masks of which some hold 255 and none a class; None once one is found that does.

    Many programs write 255 for the one thing that they were asked to mark. Damaged masks are passed over.
    """
    ignored = None
    for image_id in ids:
        with suppress(DataError):
            mask = source.values(image_id)
            if ((mask >= int(source.background)) & (mask < IGNORE)).any():
                return None
            ignored = ignored or (source.mask_path(image_id) if mask.any() else None)
    if ignored is None:
        return None
    return (
        f"{ignored}: like every mask of its split, it holds no class, only 0 and 255 (ignored in training and scores);"
        " if 255 is the foreground, write 1 instead"
    )


def overlap(first: Sequence[str], second: Sequence[str]) -> str | None:
    """The ids of two splits that lie in both, as a few names and their number, or None."""
    shared = sorted({*first} & {*second})
    return some(shared) if shared else None


def _require(paths: Sequence[Path], what: str) -> None:
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise DataError(f"missing {what}: {some(missing)}; `segladder data action=check` lists every fault")


@dataclass
class Item:
    """What decoding one id found.

    Attributes:
        image_id: the id.
        size: (height, width) of the image, or None if it could not be decoded.
        pixels: pixels per class index, int64 (256,), all zero if there is no mask or it could not be decoded.
        held: class indices that the image holds, bool (256,), by its tags where it has no mask.
        tags_alone: whether it has none.
        faults: one line each, naming the file.
        remarks: likewise, of what is odd but not wrong.
    """

    image_id: str
    size: tuple[int, int] | None = None
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    held: np.ndarray = field(default_factory=lambda: np.zeros(256, bool))
    tags_alone: bool = False
    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check_item(source: Source, image_id: str) -> Item:
    """Decode image and mask of one id and collect what is wrong with them."""
    item = Item(image_id)
    mask = None
    try:
        item.size = source.image(image_id).shape[:2]
        if damage := jpeg_damage(path := source.image_path(image_id)):
            item.faults.append(f"{path}: damaged inside ({damage}), expected a whole JPEG")
    except DataError as error:
        item.faults.append(str(error))
    try:
        if isinstance(source, Tagged) and source.has_tags_alone(image_id):
            item.tags_alone = True
            item.held[list(source.foreground_indices)] = source.tags(image_id) > 0
        else:
            mask = source.mask(image_id)
    except DataError as error:
        item.faults.append(str(error))
    if mask is not None:
        item.pixels = np.bincount(mask.reshape(-1), minlength=256)
        item.held = item.pixels > 0
        _compare(source, item, mask)
    return item


def _compare(source: Source, item: Item, mask: np.ndarray) -> None:
    path = source.label_place(item.image_id)
    if item.size is not None and mask.shape != item.size:
        item.faults.append(str(size_error(path, mask.shape, item.size)))
    if not item.pixels[int(source.background) : IGNORE].any():
        item.remarks.append(f"{path}: no foreground pixel of the classes in use")
    if isinstance(source, Tagged):
        _compare_tags(source, item)


def _compare_tags(source: Tagged, item: Item) -> None:
    try:
        noted = source.noted_tags(item.image_id)
    except DataError as error:
        item.faults.append(str(error))
        return
    if noted is None:
        return
    path, tags = noted
    place = str(path) if path.stem == item.image_id else f"{path}, {item.image_id}"
    tagged, drawn = tags > 0, item.pixels[list(source.foreground_indices)] > 0
    for here, there, what in (
        (tagged, drawn, "among the tags, not in the mask"),
        (drawn, tagged, "in the mask, not among the tags"),
    ):
        names = [name for name, a, b in zip(source.foreground, here, there, strict=True) if a and not b]
        if names:
            item.remarks.append(f"{place}: {', '.join(names)} {what}")


@dataclass
class SplitReport:
    """What decoding a split found.

    Attributes:
        name: the split.
        ids: its ids.
        items: what each holds, in the order of `ids`.
        faults: faults of the split itself.
    """

    name: str
    ids: list[str]
    items: list[Item] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def pixels(self) -> np.ndarray:
        """Pixels per class index, int64 (256,)."""
        return sum((item.pixels for item in self.items), np.zeros(256, np.int64))

    @property
    def images(self) -> np.ndarray:
        """Images that hold each class index, int64 (256,)."""
        return sum((item.held for item in self.items), np.zeros(256, np.int64))


def check_splits(source: Source) -> list[SplitReport]:
    """The ids of both splits and what is wrong with the lists: missing, empty, overlapping, not the expected number."""
    reports = []
    for name in dict.fromkeys((source.train_split, source.val_split)):
        report = SplitReport(name, [])
        try:
            report.ids = source.split(name)
        except DataError as error:
            report.faults.append(str(error))
        expected = source.expected.get(name)
        if report.ids and expected not in (None, len(report.ids)):
            report.faults.append(f"{source.name} {name}: {len(report.ids)} ids, expected {expected} (data.expected)")
        reports.append(report)
    if len(reports) == 2 and (shared := overlap(reports[0].ids, reports[1].ids)):
        reports[1].faults.append(f"{source.name}: {shared} in both {reports[0].name} and {reports[1].name}")
    masks = [source.mask_path(image_id) for report in reports for image_id in report.ids]
    if reports and (fault := unlike_palettes(masks)):
        reports[0].faults.append(fault)
    return reports


_source: Source  # of a checking process


def _start(source: Source) -> None:
    global _source
    _source = source


def _check(image_id: str) -> Item:
    return check_item(_source, image_id)


def check_items(source: Source, ids: Sequence[str], workers: int) -> Iterator[Item]:
    """Decode every id in `workers` processes; what was found comes in the order of `ids`."""
    if workers < 2 or len(ids) < SMALL:
        yield from (check_item(source, image_id) for image_id in ids)
        return
    with pool("spawn", workers, _start, source) as processes:
        yield from processes.imap(_check, ids, chunksize=8)
