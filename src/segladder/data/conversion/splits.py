"""Which split an image is of, where a folder says so: by lists such as train.txt, or by folders such as train/."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segladder.data.conversion.base import Entry
from segladder.data.conversion.listing import PICTURES, Listing
from segladder.data.conversion.pairing import MASK_END
from segladder.data.sources.lists import listed
from segladder.errors import DataError
from segladder.foreign import composed

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
FIRST_PICTURE = re.compile(rf"^.*?({'|'.join(map(re.escape, PICTURES))})(?=\s|$)", re.IGNORECASE)


@dataclass
class Splits:
    """Which images are of which split.

    Attributes:
        ids: by split; empty where the folder does not say.
        words: where it says so.
        left_out: a line for each line of a list that names no image, or several.
    """

    ids: dict[str, list[str]] = field(default_factory=dict)
    words: str = ""
    left_out: list[str] = field(default_factory=list)


def splits_of(listing: Listing, entries: Sequence[Entry]) -> Splits:
    """The splits that a folder tells. Raises DataError for two lists of one split, or one list alone."""
    found = Splits(words="by the lists of the folder")
    paths = [path for path in listing.files if path.suffix.lower() == ".txt" and path.stem.lower() in SPLITS]
    for path in paths:
        if (name := SPLITS[path.stem.lower()]) in found.ids:
            raise DataError(f"{path}: a second list of the split {name}, expected one")
        found.ids[name] = _resolved(path, entries, found.left_out)
    if paths and ("train" not in found.ids or len(found.ids) < 2):
        raise DataError(f"{paths[0]}: the only list, expected train.txt and one to score, val.txt or test.txt")
    return found if paths else _by_folder(listing, entries)


def _by_folder(listing: Listing, entries: Sequence[Entry]) -> Splits:
    """By words in the path of each image or of the file that tells its mask; none unless all have one."""
    ids: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        places = [*listing.name_of(entry.image).parts[:-1], *listing.name_of(entry.told).parts[:-1], entry.told.stem]
        words = [word for place in places for word in re.split(r"[^a-z]+", place.lower())]
        told = next((SPLITS[word] for word in words if word in SPLITS), None)
        if told is None:
            return Splits()
        ids[told].append(entry.image_id)
    return Splits(dict(ids), "by the names of its folders or files") if "train" in ids and len(ids) > 1 else Splits()


def _resolved(path: Path, entries: Sequence[Entry], left_out: list[str]) -> list[str]:
    """The id that each line of a list means: an id, a path of an image, or the last name of one; each once."""
    ids = {entry.image_id for entry in entries}
    by_name: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        by_name[composed(entry.image.stem)].append(entry.image_id)
    found = []
    for line in map(composed, listed(path)):
        picture = FIRST_PICTURE.match(line)
        name = picture[0][: -len(picture[1])] if picture else line
        last = name.replace("\\", "/").rpartition("/")[2]
        several = [name] if name in ids else by_name.get(last) or by_name.get(MASK_END.sub("", last), [])
        if len(several) == 1:
            found.append(several[0])
        else:
            left_out.append(f"{path}: {line} names {len(several) or 'no'} images that have a mask, expected one")
    return list(dict.fromkeys(found))
