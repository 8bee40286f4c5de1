"""A user's data: a folder of images, a folder of masks, the names of the classes."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from segladder.data.sources.lists import read_ids
from segladder.data.sources.tag_file import Tagged, read_tag_list
from segladder.errors import ConfigError, DataError, some
from segladder.foreign import composed, is_name, printable, text
from segladder.settings import Count, Name, ProperShare

NAME = "folder"  # of data that nobody has named
CLASSES = "classes.txt"
LISTS = ("train", "val", "test")
LIKE_LISTS = {*LISTS, "training", "valid", "validation", "testing"}  # in any case
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
FIRST_IMAGE = re.compile(rf"^.*?({'|'.join(map(re.escape, IMAGE_SUFFIXES))})(?=\s|$)", re.IGNORECASE)
NO_NAME = re.compile(r"#|\d+\s*[\s:=,;]\s*\S")  # a comment, or the number of a class before its name


class Folder(Tagged):
    """Pairs root/images/ID.jpg (or png, bmp, tif, webp) and root/masks/ID.png of equal size, any size.

    Masks are palette or gray PNGs whose values are class numbers: 0 the background, 255 ignored. An id is the path
    below `images` without its suffix, so folders inside folders work. Splits are the lists root/splits/NAME.txt (an id
    or the name of its image a line), or else root/NAME.txt, or else the folders images/train, images/val and
    images/test. Without any, `val` is a share of the ids chosen by a hash of the id and `train` the rest, so that an
    image stays in its split when others are added; neither is ever empty. An image without a mask, which tags alone
    tell of, is always in `train`.

    Args:
        root: the folder.
        name: public name of the data set.
        class_names: names of mask values 0, 1, ..., or None to read them from root/classes.txt, one a line.
        val_share: share of the ids in `val`, where there are no lists.
        folds_of_images: cross-validation without lists: into how many parts of equal size the images are dealt.
        fold_of_images: which of them is `val`, from 0; the others are `train`.
        tags: where image-level tags come from: `masks`, or for the images that it lists a CSV file (`read_tag_list`),
            in `root` or else from the working folder on.
        common: the arguments of `Source`.

    Raises:
        DataError: no classes.txt, or fewer than two names.
        ConfigError: a fold that there is not, or tags of another kind.
    """

    deals_images = True

    def __init__(
        self,
        root: str | Path,
        name: Name = NAME,
        class_names: Sequence[str] | None = None,
        val_share: ProperShare = 0.2,
        folds_of_images: Annotated[int, Field(ge=2)] | None = None,
        fold_of_images: Count = 0,
        tags: str = "masks",
        **common: Any,
    ) -> None:
        self.root = Path(root)
        if tags != "masks" and not tags.endswith(".csv"):
            raise ConfigError(f"data.tags={tags}: expected masks or FILE.csv")
        inside = self.root / tags
        self.tag_file = None if tags == "masks" else inside if inside.is_file() else Path(tags)
        self.val_share, self.folds_of_images, self.fold_of_images = val_share, folds_of_images, fold_of_images
        if folds_of_images is not None and fold_of_images >= folds_of_images:
            raise ConfigError(f"data.fold_of_images={fold_of_images}: expected 0..{folds_of_images - 1}")
        super().__init__(name, class_names or read_class_names(self.root / CLASSES), **common)
        if name == NAME:
            self.title = printable(self.root.resolve().name) or NAME

    def split(self, name: str) -> list[str]:
        """Ids of a listed split, or of `train` or `val` where there are no lists.

        Raises:
            DataError: it is empty or unknown, a list stands beside splits/, or images lie beside those of a split.
            ConfigError: folds of images beside lists.
        """
        lists, folders = self._lists, self._split_folders
        if (lists or folders) and self.folds_of_images is not None:
            place = self.root / (lists.name if lists else "images")
            raise ConfigError(f"data.folds_of_images: {place} says already which images are trained on")
        if lists is not None:
            ids = read_ids(lists / f"{name}.txt", self._id_of)
        elif folders:
            ids = [image_id for image_id in self._whole_ids() if image_id.startswith(f"{name}/")]
        elif name in ("train", "val"):
            ids = self._dealt(name == "val")
        else:
            raise DataError(f"{self.root}/splits/{name}.txt: no such list; without lists the splits are train and val")
        if not ids:
            told = f"; images/ has {', '.join(sorted(folders))} (data.val_split=NAME)" if folders else ""
            raise DataError(
                f"{self.root}: split {name} is empty, expected image ids; see splits/ and data.val_share{told}"
            )
        return ids

    @property
    def _lists(self) -> Path | None:
        """The folder of the lists: splits/, or the root where train.txt, val.txt or test.txt lie there."""
        beside = [path for name in LISTS if (path := self.root / f"{name}.txt").is_file()]
        splits = self.root / "splits"
        if beside and splits.is_dir():
            raise DataError(f"{beside[0]}: a list beside {splits}, expected one place of lists; remove one")
        return splits if splits.is_dir() else self.root if beside else None

    @property
    def _split_folders(self) -> set[str]:
        """Folders such as images/train, where there are two or more; without them nothing may lie beside."""
        tops = {image_id.partition("/")[0] for image_id in self._images if "/" in image_id}
        named = tops & {*LISTS}
        alike = sorted(top for top in tops if top.lower() in LIKE_LISTS)
        if self._lists is None and len(alike) > 1 and (odd := next((top for top in alike if top not in named), None)):
            raise DataError(
                f"{self.root / 'images' / odd}: a folder like that of a split, expected {', '.join(LISTS)}; rename it"
                " (in masks/ too), or say in splits/NAME.txt which images a split has"
            )
        if len(named) < 2:
            return set()
        if beside := next((i for i in self._images if i.partition("/")[0] not in named or "/" not in i), None):
            raise DataError(
                f"{self._images[beside]}: neither in {' nor in '.join(f'images/{n}' for n in sorted(named))}; move it,"
                " or say in splits/NAME.txt which images a split has"
            )
        return named

    def _id_of(self, line: str) -> str:
        """A line of a list: an id, or the name of its image with a suffix, also from images/ on."""
        first = FIRST_IMAGE.match(line.replace("\\", "/"))  # of a line such as images/a.jpg masks/a.png
        named = [line, *(_id_below_images(each) for each in (first[0] if first else line, line))]
        return next((found for each in named if (found := self._as_image(each)) in self._images), named[-1])

    def _as_image(self, name: str) -> str:
        """The id of the image of a name whose accents may stand apart from their letters, in one of both alone."""
        return name if name in self._images else self._composed.get(composed(name), name)

    def _dealt(self, val: bool) -> list[str]:
        """Ids of `val`, or of `train`: those that come first by the hash of the id, one at least."""
        ids = self._whole_ids()
        if len(ids) < 2:
            raise DataError(f"{self.root}: {len(ids)} images, expected two or more: one to train on, one to score")
        masked = sorted((image_id for image_id in ids if image_id in self._masks), key=split_share)
        if not masked:
            raise DataError(f"{self.root / 'masks'}: no mask of any image, expected some: a score needs them")
        if self.folds_of_images is None:
            chosen = set(masked[: min(val_count(masked, self.val_share), len(ids) - 1)])
        elif self.folds_of_images > len(masked):
            raise DataError(
                f"{self.root}: {len(masked)} images with masks for data.folds_of_images={self.folds_of_images}"
            )
        else:
            chosen = set(masked[self.fold_of_images :: self.folds_of_images])
        return [image_id for image_id in ids if (image_id in chosen) == val]

    def _whole_ids(self) -> list[str]:
        self._require_pairs()
        for image_id, path in self._images.items():
            require_text(image_id, path)
        return sorted(self._images)

    def image_path(self, image_id: str) -> Path:
        """images/ID with the suffix it has, or .jpg where there is no such image."""
        return self._images.get(image_id, self.root / "images" / f"{image_id}.jpg")

    def drawn_mask_path(self, image_id: str) -> Path:
        """masks/ID.png, its ending in any case."""
        named = self.root / "masks" / f"{image_id}.png"
        return self._masks.get(image_id, named) if (self.root / "masks").is_dir() else named

    def tag_path(self, image_id: str) -> Path:
        """The file of tags, where it lists the image, else its mask."""
        return self.tag_file if self.tag_file is not None and image_id in self._tag_lines else self.mask_path(image_id)

    def told_tags(self, image_id: str) -> np.ndarray | None:
        """The tags in the file of tags; None where it does not list the image."""
        names = self._tag_lines.get(image_id)
        return None if names is None else np.array([name in names for name in self.foreground], np.float32)

    def noted_tags(self, image_id: str) -> tuple[Path, np.ndarray] | None:
        """The file of tags and what it says of the image; None where it does not list the image."""
        told = self.told_tags(image_id)
        return None if told is None or self.tag_file is None else (self.tag_file, told)

    @cached_property
    def _tag_lines(self) -> dict[str, frozenset[str]]:
        if self.tag_file is None:
            return {}
        return read_tag_list(self.tag_file, self.all_classes[int(self.background) :], self._known_id)

    def _known_id(self, line: str) -> str:
        image_id = self._id_of(line)
        if image_id not in self._images:
            raise DataError(f"no image {printable(image_id)} in {self.root / 'images'}")
        return image_id

    @cached_property
    def _images(self) -> dict[str, Path]:
        return by_id(self.root / "images", IMAGE_SUFFIXES)

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {composed(image_id): image_id for image_id in self._images}

    @cached_property
    def _masks(self) -> dict[str, Path]:
        return {self._as_image(name): path for name, path in by_id(self.root / "masks", (".png",)).items()}

    def _require_pairs(self) -> None:
        for have, want, kind, folder in (
            (self._images, self._masks.keys() | self._tag_lines.keys(), "mask", "masks"),
            (self._masks, self._images.keys(), "image", "images"),
        ):
            if alone := sorted(have.keys() - want):
                tags = f", tags in {self.tag_file}" if kind == "mask" and self.tag_file is not None else ""
                raise DataError(
                    f"{self.root / folder}: no {kind} for {some(alone)}; expected one of the same name{tags}, or"
                    " splits/"
                )


def by_id(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files below a folder, also behind links, but no hidden ones, by id (path without suffix).

    Raises:
        DataError: no such folder, or two files share an id.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected images/ and masks/ below data.root")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(files_and_links(folder)):
        if path.suffix.lower() in suffixes and path.is_file():
            found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    for image_id, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise DataError(f"{folder}: {names} are both {image_id}, expected one file per name; rename one")
    return {image_id: paths[0] for image_id, paths in found.items()}


def files_and_links(folder: Path) -> Iterator[Path]:
    """The files below a folder, links followed, but none that is hidden, and none twice by a link beside its folder."""
    root = os.path.realpath(folder)
    seen = {os.path.realpath(at) for at, _, _ in os.walk(folder)}
    for at, folders, names in os.walk(folder, followlinks=True):
        inside = []
        for name in sorted(name for name in folders if not name.startswith(".")):
            place = os.path.join(at, name)
            real = os.path.realpath(place)
            if real == os.path.join(root, os.path.relpath(place, folder)) or real not in seen:
                seen.add(real)
                inside.append(name)
        folders[:] = inside
        yield from (Path(at, name) for name in names if not name.startswith("."))  # such as .NAME.partial.png


def _id_below_images(name: str) -> str:
    path = PurePosixPath(name.removeprefix("./").removeprefix("images/"))
    return path.with_suffix("").as_posix() if path.suffix.lower() in IMAGE_SUFFIXES else path.as_posix()


def require_text(image_id: str, path: Path) -> None:
    """Raise DataError for an id that no list can hold: that of a file whose name another system has written."""
    if not is_name(image_id):
        raise DataError(f"{printable(str(path))}: a name that is no text in UTF-8; rename the file")


def read_class_names(path: Path) -> list[str]:
    """Class names of a text file, one a line, the background first. Raises DataError if it is missing or too short."""
    try:
        names = [printable(line.strip()) for line in text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        at = path.parent
        if not at.is_dir():
            raise DataError(f"{at}: no such folder from {Path.cwd()}; give data.root=DIR, where it lies now") from error
        raise DataError(f"{path}: {fault}, expected class names, or set data.class_names=[background,...]") from error
    if wrong := [name for name in names if name.startswith("#")] or (names if all(map(NO_NAME.match, names)) else []):
        raise DataError(f"{path}: {wrong[0]!r} is no name, expected names alone: the first line is value 0, and so on")
    if len(names) < 2:
        raise DataError(f"{path}: {len(names)} names, expected the background and at least one class, one a line")
    return names


def val_count(ids: Iterable[str], val_share: float) -> int:
    """How many of some ids are `val`, those of the lowest `split_share`: one at least."""
    return max(1, sum(split_share(image_id) < val_share for image_id in ids))


def split_share(image_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(f"split:{image_id}".encode()).digest()[:6], "big") / 2**48
