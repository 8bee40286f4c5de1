"""Convert a folder as other programs leave it into one that `data=folder` reads; started again, it goes on."""

from __future__ import annotations

import filecmp
import importlib
import json
import pkgutil
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from segladder.data.conversion import formats
from segladder.data.conversion.base import Entry, Format, Reading, Watch, threaded
from segladder.data.conversion.listing import Listing
from segladder.data.conversion.naming import Naming
from segladder.data.conversion.pairing import EXPECTED, paired
from segladder.data.conversion.raw_masks import counted
from segladder.data.conversion.splits import Splits, splits_of
from segladder.data.inspection.prepare import write_mask
from segladder.data.inspection.preview import contact_sheet
from segladder.data.sources.decoding import read_mask, read_upright_image
from segladder.data.sources.folder import CLASSES, IMAGE_SUFFIXES, LISTS, Folder, require_text
from segladder.data.sources.scene import size_error
from segladder.errors import ConfigError, DataError
from segladder.files import write_text, written
from segladder.foreign import content
from segladder.mask_values import IGNORE

NOTE = "conversion.json"  # in the folder that is written: what it was made from
PICTURE = "check.png"
CROP = 512  # of `data=folder`, unless it is told another


@dataclass
class Done:
    """What came of a conversion so far.

    Attributes:
        ids: of the images whose mask is written, by now or before.
        written: how many this time.
        pixels: of each class value, int64 (256,), in all masks.
        images: that hold each value, likewise.
        widest: the longest side of any image, in pixels.
        left_out: a line for each image that could not be converted, naming the file.
    """

    ids: list[str] = field(default_factory=list)
    written: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    images: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    widest: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Conversion:
    """A folder that has been looked at, and where it goes.

    Attributes:
        source: the folder; nothing in it is changed.
        out: the folder that is written.
        format: the name of the format that was found.
        listing: the files of `source`.
        reading: what they hold.
    """

    source: Path
    out: Path
    format: str
    listing: Listing
    reading: Reading

    @classmethod
    def of(cls, source: Path, out: Path, form: str | None, naming: Naming, watch: Watch) -> Conversion:
        """Look at a folder.

        Raises:
            ConfigError: folders that lie in one another, a format there is not, or several.
            DataError: nothing to convert, or masks whose meaning cannot be told.
        """
        _require_apart(source, out)
        listing = Listing(source)
        name, module = _format(listing, form)
        return cls(source, out, name, listing, module.read(listing, naming, watch))

    @property
    def names(self) -> list[str]:
        """Class names by value, the background first."""
        return [" ".join(found.name.split()) for found in self.reading.classes if found.value != IGNORE]

    @cached_property
    def splits(self) -> Splits:
        """See `splits_of`."""
        return splits_of(self.listing, self.reading.entries)

    def write(self) -> Iterator[Done]:
        """Write image by image, each whole or not at all; what is there already stays.

        Yields the same `Done`, one image further. Raises ConfigError if `out` holds anything else.
        """
        done = Done(left_out=[*self.reading.left_out, *self.splits.left_out])
        if not self.reading.entries:
            yield done
            return
        self._claim()
        for entry, came in zip(self.reading.entries, threaded(self._written, self.reading.entries), strict=True):
            if isinstance(came, str):
                done.left_out.append(came)
            else:
                fresh, size, counts = came
                done.ids.append(entry.image_id)
                done.written += fresh
                done.widest = max(done.widest, *size)
                done.pixels += counts
                done.images += counts > 0
            yield done
        if done.ids:
            self._finish(set(done.ids))

    def picture(self, ids: Sequence[str], count: int, columns: int) -> Path:
        """Write `check.png`: some images with their masks over them, as `data=folder` reads them."""
        folder = Folder(self.out)
        chosen = ids[:: max(1, len(ids) // count)][:count]
        items = [(image_id, *folder.pair(image_id)) for image_id in chosen]
        place = self.out / PICTURE
        with written(place) as part:
            contact_sheet(items, folder.classes, min(columns, len(items))).save(part)
        return place

    def next_steps(self, done: Done, count: int, columns: int) -> list[str]:
        """Lines for who has converted: splits, the picture to check by, names still missing, the command that trains.

        Args:
            done: what came of it.
            count: pictures on the sheet, which is written here.
            columns: of the sheet.
        """
        root = override("data.root", str(self.out))
        words = [root]
        kept = {name: len({*ids} & {*done.ids}) for name, ids in self.splits.ids.items()}
        lines = [f"look at it: {self.picture(done.ids, count, columns)}"]
        if kept:
            lines.append(f"splits {self.splits.words}: {', '.join(f'{name} {n}' for name, n in kept.items())}")
            words += [] if kept.get("val") else ["data.val_split=test"]
        if self.reading.unnamed:
            lines.append(f"name the classes, `ignore` what is none (into another out=): {self.reading.unnamed}")
        if done.widest < CROP:
            words.append(f"loader.augment.crop={max(32, done.widest // 32 * 32)}")
        lines.append(f"check every file: segladder data action=check data=folder {root}")
        return [*lines, f"train: segladder train data=folder {' '.join(words)}"]

    def _written(self, entry: Entry) -> str | tuple[bool, tuple[int, ...], np.ndarray]:
        """Write an image and its mask: whether that was needed, their size, the pixels of each value; or a fault."""
        image, mask = self._places(entry)
        try:
            require_text(entry.image_id, entry.image)
            size, values = read_upright_image(entry.image).shape[:2], entry.draw()
            if entry.image.suffix.lower() not in IMAGE_SUFFIXES:
                raise DataError(f"{entry.image}: expected an image that ends in {' '.join(IMAGE_SUFFIXES)}")
            if size != values.shape:
                raise size_error(entry.told, values.shape, size)
        except DataError as error:
            for stale in (mask, image):
                stale.unlink(missing_ok=True)
            return str(error)
        fresh = not (image.is_file() and filecmp.cmp(image, entry.image, shallow=False) and _holds(mask, values))
        if fresh:
            with written(image) as part:
                shutil.copyfile(entry.image, part)
            write_mask(mask, values)
        counts, found = np.zeros(256, np.int64), counted(values)
        counts[list(found)] = list(found.values())
        return fresh, values.shape, counts

    def _places(self, entry: Entry) -> tuple[Path, Path]:
        name = f"{entry.image_id}{entry.image.suffix.lower()}"
        return self.out / "images" / name, self.out / "masks" / f"{entry.image_id}.png"

    def _claim(self) -> None:
        """Note in `out` what it is made from. Raises ConfigError if it holds something else."""
        note = {"from": str(self.source.resolve()), "format": self.format, "classes": self.names}
        note["was"] = [found.looks for found in self.reading.classes]
        told, place = json.dumps(note, indent=1, ensure_ascii=False), self.out / NOTE
        there = Listing(self.out).files if self.out.is_dir() else []
        expected = {path for entry in self.reading.entries for path in self._places(entry)}
        expected |= {place, self.out / PICTURE, self.out / CLASSES}
        expected |= {self.out / "splits" / f"{name}.txt" for name in LISTS}
        if other := [path for path in there if path not in expected]:
            raise ConfigError(f"out={self.out}: holds {other[0]}, expected an empty folder or none")
        if there and (not place.is_file() or content(place) != told.encode()):
            raise ConfigError(f"out={self.out}: holds another conversion, expected an empty folder or none")
        for partial in self.out.rglob(".*.partial.*"):  # of a process that was killed
            partial.unlink()
        write_text(place, told)

    def _finish(self, ids: set[str]) -> None:
        """What makes the folder one that can be trained on comes last."""
        for name, listed in self.splits.ids.items():
            if kept := [image_id for image_id in listed if image_id in ids]:
                write_text(self.out / "splits" / f"{name}.txt", "".join(f"{image_id}\n" for image_id in kept))
        write_text(self.out / CLASSES, "".join(f"{name}\n" for name in self.names))


def _holds(path: Path, values: np.ndarray) -> bool:
    """Whether a mask is there, whole, and of these values."""
    try:
        return np.array_equal(read_mask(path), values)
    except DataError:
        return False


def names_of_formats() -> list[str]:
    """The formats there are."""
    return [module.name for module in pkgutil.iter_modules(formats.__path__)]


def _format(listing: Listing, name: str | None) -> tuple[str, Format]:
    """The format of a folder, and its module."""
    known = names_of_formats()
    if name is not None and name not in known:
        raise ConfigError(f"format={name}: no such format; choose from {', '.join(known)}")
    modules = {each: cast(Format, importlib.import_module(f"{formats.__name__}.{each}")) for each in known}
    if name is not None:
        modules = {name: modules[name]}
    found = {each: words for each, module in modules.items() if (words := module.finds(listing))}
    if len(found) > 1:
        told = " and ".join(f"{words} (format={each})" for each, words in found.items())
        raise ConfigError(f"from={listing.folder}: holds {told}; choose one")
    if not found:
        kind = f" of format={name}" if name else ""
        alone = paired(listing).alone
        unlike = f" ({alone[0]}; {alone[-1]})" if alone and alone[0] != alone[-1] else ""
        raise DataError(
            f"{listing.folder}: {len(listing.pictures)} pictures and no annotations{kind}{unlike}"
            f"; expected LabelMe or COCO JSON, or {EXPECTED}"
        )
    return next((each, modules[each]) for each in found)


def _require_apart(source: Path, out: Path) -> None:
    if not source.is_dir():
        raise ConfigError(f"from={source}: no such folder, expected one with annotated images")
    first, second = source.resolve(), out.resolve()
    if first == second or second.is_relative_to(first) or first.is_relative_to(second):
        raise ConfigError(f"out={out}: expected a folder apart from from={source}, neither inside the other")


def override(key: str, value: str) -> str:
    """`key=value` for a shell and for Hydra, whatever characters the value has."""
    if re.fullmatch(r"[A-Za-z0-9_./-]+", value):
        return f"{key}={value}"
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return shlex.quote(f"{key}='{quoted}'")
