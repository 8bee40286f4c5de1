"""Published lists of test items, which stand in for a small-object rule.

A rule reproduces the published items except a few; only the published list is exact. Lines of two forms are read.
A line of HSNet, `2007_000033__01`, names an image and a class, which counts the data set's foreground classes from 1.
A line of PFENet, `JPEGImages/2007_000033.jpg SegmentationClassAug/2007_000033.png`, names an image. A rule keeps its
classes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segladder.data.sources.base import Source
from segladder.data.sources.items import Items
from segladder.errors import ConfigError, DataError
from segladder.foreign import content

PAIR = re.compile(r"(\S+)__(\d+)")
IMAGE = re.compile(r"\S+ \S+")
EXPECTED = "expected ID__CLASS, such as 2007_000033__01, or the paths of an image and its mask"
SHOWN = 60  # characters of a line that is at fault


@dataclass(frozen=True)
class Line:
    """An item of a list.

    Attributes:
        place: `FILE:LINE`, for errors.
        image_id: the image.
        value: number of the class among the data set's foreground classes, from 1; None where a rule keeps classes.
    """

    place: str
    image_id: str
    value: int | None


@dataclass(frozen=True)
class ItemList:
    """The lines of a list, in its order; all of one form."""

    lines: tuple[Line, ...]

    @classmethod
    def read(cls, path: Path) -> ItemList:
        """Read a file.

        Raises:
            ConfigError: there is no such file.
            DataError: no line, a line of neither form or of another form than the first, or one that stands twice.
        """
        if not path.is_file():
            raise ConfigError(f"protocol.items={path}: no such file, expected a list of ID__CLASS lines")
        texts = content(path).decode("utf-8-sig", errors="replace").splitlines()
        lines = [_line(f"{path}:{n}", text.strip()) for n, text in enumerate(texts, start=1) if text.strip()]
        if not lines:
            raise DataError(f"{path}: no line, {EXPECTED}")
        first: dict[tuple[str, int | None], str] = {}
        for line in lines:
            if (line.value is None) != (lines[0].value is None):
                raise DataError(f"{line.place}: another form of line than {lines[0].place}, expected one in a file")
            if (before := first.setdefault((line.image_id, line.value), line.place)) != line.place:
                raise DataError(f"{line.place}: the item of {before} again, expected each once")
        return cls(tuple(lines))

    def items(self, source: Source, ids: Collection[str], min_object: str, min_area: int) -> Items:
        """The listed ones of some images, in the order of the list.

        Args:
            source: the data set.
            ids: the images that may be asked; the others of the list are left out.
            min_object: which objects of an image listed alone are items, as in `Items.read`.
            min_area: of the rule `area`.

        Raises:
            DataError: an image that the split lacks, a class that the data set or the image lacks, or a damaged mask.
        """
        allowed = set(ids)
        lines = [line for line in self.lines if line.image_id in allowed]
        found = Items.read(source, dict.fromkeys(line.image_id for line in lines), min_object, min_area)
        if self.lines[0].value is None:
            return found
        present = dict(zip(found.ids, found.present, strict=True))
        kept: dict[str, list[int]] = {image_id: [] for image_id in found.ids}
        for line in lines:
            k = _index(line, source)
            if k is not None and k not in present[line.image_id]:
                raise DataError(f"{line.place}: {line.image_id} holds no {source.classes[k]}")
            kept[line.image_id] += [] if k is None else [k]
        return replace(found, kept=tuple(tuple(sorted(classes)) for classes in kept.values()))

    def check_images(self, known: Collection[str], split: str) -> None:
        """Raise DataError for an image that a split lacks."""
        for line in self.lines:
            if line.image_id not in known:
                raise DataError(f"{line.place}: the split {split} has no image {line.image_id}")


def files_of(path: str, folds: int) -> list[Path]:
    """The list of each fold: `fold0.txt`, `fold1.txt`, ... of a folder, or one file for all.

    Args:
        path: a folder or a file.
        folds: how many there are.
    """
    place = Path(path)
    return [place / f"fold{fold}.txt" if place.is_dir() else place for fold in range(folds)]


def digest_of(files: Sequence[Path]) -> str:
    """First 16 hex digits of a sha256 over the items of files, wherever they lie.

    Raises:
        ConfigError: there is no such file.
        DataError: a file that `ItemList.read` refuses.
    """
    whole = hashlib.sha256()
    for lines in (ItemList.read(path).lines for path in files):
        whole.update(b"\n".join(f"{line.image_id} {line.value}".encode() for line in lines) + b"\n\n")
    return whole.hexdigest()[:16]


def _line(place: str, text: str) -> Line:
    if pair := PAIR.fullmatch(text):
        return Line(place, pair[1], int(pair[2]))
    if IMAGE.fullmatch(text):
        return Line(place, Path(text.split()[0]).stem, None)
    raise DataError(f"{place}: {text[:SHOWN]!r}, {EXPECTED}")


def _index(line: Line, source: Source) -> int | None:
    """The class's index; None where the data set has the class, but the run does not use it."""
    assert line.value is not None
    if not 1 <= line.value < len(source.all_classes):
        last = len(source.all_classes) - 1
        raise DataError(f"{line.place}: class {line.value}, expected 1..{last}: {source.name} has {last} classes")
    name = source.all_classes[line.value]
    return source.classes.index(name) if name in source.classes else None
