"""Which picture is an image, which is its mask: by folders, by the ends of names, or by PNG beside JPEG."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from segladder.data.conversion.listing import Listing

SPLIT = r"((?P<split>train(ing)?|val(id(ation)?)?|test(ing)?)[ _-])?"  # as in train_labels
MASK_FOLDERS = re.compile(
    SPLIT + r"(masks?|labels?|annotations?|anns?|segmentations?|segmentationclass|seg|gt|ground[_-]?truth|targets?)",
    re.IGNORECASE,
)
IMAGE_FOLDERS = re.compile(SPLIT + r"(images?|imgs?|jpegimages|photos?|pictures?|inputs?|rgb)", re.IGNORECASE)
MASK_END = re.compile(
    r"[ ._-](masks?|labels?|seg|segmentation|gt|annotation|l|labelids|matte)$"
    r"|(^|(?<=/))(masks?|labels?|seg|segmentation|gt|annotation)[ ._-](?=[^/]+$)",
    re.IGNORECASE,
)
IMAGE_END = re.compile(
    r"[ ._-](image|img|rgb|sat|leftimg8bit)$|(^|(?<=/))(image|img|photo)[ ._-](?=[^/]+$)", re.IGNORECASE
)
JPEG = (".jpg", ".jpeg")
EXPECTED = "masks in a folder such as masks/, or named NAME_mask.png, or NAME.png beside NAME.jpg"


@dataclass
class Pairs:
    """What belongs together.

    Attributes:
        pairs: image and mask by the id of the image.
        alone: a line for each image without a mask, mask without an image, and files that share an id.
        ways: how masks were told from images, in words.
    """

    pairs: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    alone: list[str] = field(default_factory=list)
    ways: list[str] = field(default_factory=list)


def paired(listing: Listing) -> Pairs:
    """Images and masks of a folder."""
    images, masks, ways = _told_apart(listing)
    found = Pairs(ways=ways)
    by_id, bare = _grouped(images, found), _bare(images, IMAGE_END)
    wanted: dict[str, list[Path]] = defaultdict(list)
    lone: list[tuple[str, Path]] = []
    for key, path in masks:
        names = (key, MASK_END.sub("", key))
        image_id = next((n for n in names if n in by_id), None) or next((bare[n] for n in names if n in bare), None)
        if image_id is None:
            lone.append((names[1], path))
        else:
            wanted[image_id].append(path)
    _by_last_name(by_id, wanted, lone)
    for image_id, paths in wanted.items():
        if len(paths) > 1:
            found.alone.append(f"{_both(paths)} are both masks of {by_id[image_id]}, expected one")
        else:
            found.pairs[image_id] = by_id[image_id], paths[0]
    found.alone += [f"{path}: an image without a mask" for key, path in by_id.items() if key not in wanted]
    found.alone += [f"{path}: a mask without an image" for _, path in lone]
    return found


def _told_apart(listing: Listing) -> tuple[list[tuple[str, Path]], list[tuple[str, Path]], list[str]]:
    """Images and masks, each with its name without the folders that say which it is, and what told them apart."""
    named = [(id_of(listing, path), path) for path in listing.pictures]
    in_folder = {path for path in listing.pictures if _within(listing, path, MASK_FOLDERS)}
    known = {key for key, path in named if path not in in_folder}
    known |= {IMAGE_END.sub("", key) for key in known}
    by_end = {p for key, p in named if p not in in_folder and MASK_END.search(key) and MASK_END.sub("", key) in known}
    groups: dict[str, list[Path]] = defaultdict(list)
    for key, path in named:
        if path not in in_folder | by_end:
            groups[key].append(path)
    masked = {MASK_END.sub("", key) for key, path in named if path in in_folder | by_end} | {
        key for key, path in named if path in in_folder
    }
    beside = {mask for key, paths in groups.items() if key not in masked and (mask := _mask_beside(paths))}
    masks = in_folder | by_end | beside
    ways = [
        words
        for words, told in (
            ("by their folder", in_folder),
            ("by the end of their names", by_end),
            ("as PNG beside JPEG", beside),
        )
        if told
    ]
    return [n for n in named if n[1] not in masks], [n for n in named if n[1] in masks], ways


def _mask_beside(paths: list[Path]) -> Path | None:
    """The picture that is no JPEG, of two of one name."""
    plain = [path for path in paths if path.suffix.lower() not in JPEG]
    return plain[0] if len(paths) == 2 and len(plain) == 1 else None


def id_of(listing: Listing, path: Path) -> str:
    """A picture's place without its ending and the folders that say what it is, such as images/."""
    name = listing.name_of(path).with_suffix("")
    kept: list[str] = []
    for part in name.parts[:-1]:
        role = MASK_FOLDERS.fullmatch(part) or IMAGE_FOLDERS.fullmatch(part)
        kept += [part] if role is None else [role["split"]] if role["split"] else []
    return "/".join([*kept, name.name])


def _within(listing: Listing, path: Path, role: re.Pattern[str]) -> bool:
    return any(role.fullmatch(part) for part in listing.name_of(path).parts[:-1])


def _grouped(images: list[tuple[str, Path]], found: Pairs) -> dict[str, Path]:
    """Images by id; those that share one are left out, in a line."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for key, path in images:
        groups[key].append(path)
    for key, paths in groups.items():
        if len(paths) > 1:
            found.alone.append(f"{_both(paths)} are both {key}, expected one image per name; rename one")
    return {key: paths[0] for key, paths in groups.items() if len(paths) == 1}


def _bare(images: list[tuple[str, Path]], end: re.Pattern[str]) -> dict[str, str]:
    """Ids by what is left of them without a word such as _image, where that is left of one alone."""
    left = [(end.sub("", key), key) for key, _ in images if end.search(key)]
    times = Counter(name for name, _ in left)
    return {name: key for name, key in left if times[name] == 1}


def _by_last_name(by_id: dict[str, Path], wanted: dict[str, list[Path]], lone: list[tuple[str, Path]]) -> None:
    """Pair what is left where its last name is the only one on both sides, whatever the folders."""
    free: dict[str, list[str]] = defaultdict(list)
    for image_id in by_id:
        if image_id not in wanted:
            free[image_id.rpartition("/")[2]].append(image_id)
    last = [key.rpartition("/")[2] for key, _ in lone]
    matched = [k for k, name in enumerate(last) if len(free.get(name, ())) == 1 and last.count(name) == 1]
    for k in matched:
        wanted[free[last[k]][0]].append(lone[k][1])
    lone[:] = [each for k, each in enumerate(lone) if k not in matched]


def _both(paths: list[Path]) -> str:
    return " and ".join(str(path) for path in paths)
