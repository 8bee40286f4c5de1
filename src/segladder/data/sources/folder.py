"""Anyone's data: a folder of images, a folder of masks, the names of the classes."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from segladder.data.sources.base import Source
from segladder.data.sources.lists import read_ids
from segladder.errors import DataError
from segladder.foreign import printable, text
from segladder.settings import Name, ProperShare

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class Folder(Source):
    """Pairs root/images/ID.jpg (or png, bmp, tif, webp) and root/masks/ID.png of equal size, any size.

    Masks are palette or gray PNGs whose values are class numbers: 0 the background, 255 ignored. An id is the path
    below `images` without its suffix, so folders inside folders work. Splits are the lists root/splits/NAME.txt (one id
    a line); without such a folder, `val` is a share of the ids chosen by a hash of the id and `train` the rest, so that
    an image stays in its split when others are added.

    Args:
        root: the folder.
        name: public name of the data set.
        class_names: names of mask values 0, 1, ..., or None to read them from root/classes.txt, one a line.
        val_share: share of the ids in `val`, where there are no lists.
        common: the arguments of `Source`.

    Raises:
        DataError: no classes.txt, or fewer than two names.
    """

    def __init__(
        self,
        root: str | Path,
        name: Name = "folder",
        class_names: Sequence[str] | None = None,
        val_share: ProperShare = 0.2,
        **common: Any,
    ) -> None:
        self.root = Path(root)
        self.val_share = val_share
        super().__init__(name, class_names or read_class_names(self.root / "classes.txt"), **common)

    def split(self, name: str) -> list[str]:
        """Ids of a listed split, or of `train` or `val` where there are no lists. Raises DataError if it is empty."""
        folder = self.root / "splits"
        if folder.is_dir():
            ids = read_ids(folder / f"{name}.txt")
        elif name in ("train", "val"):
            self._require_pairs()
            ids = [i for i in sorted(self._images) if (split_share(i) < self.val_share) == (name == "val")]
        else:
            raise DataError(f"{folder}/{name}.txt: no such list; without lists the splits are train and val")
        if not ids:
            raise DataError(f"{self.root}: split {name} is empty, expected image ids; see splits/ and data.val_share")
        return ids

    def image_path(self, image_id: str) -> Path:
        """images/ID with the suffix it has, or .jpg where there is no such image."""
        return self._images.get(image_id, self.root / "images" / f"{image_id}.jpg")

    def drawn_mask_path(self, image_id: str) -> Path:
        """masks/ID.png."""
        return self.root / "masks" / f"{image_id}.png"

    @cached_property
    def _images(self) -> dict[str, Path]:
        return by_id(self.root / "images", IMAGE_SUFFIXES)

    def _require_pairs(self) -> None:
        masks = by_id(self.root / "masks", (".png",))
        for have, want, kind, folder in (
            (self._images, masks, "mask", "masks"),
            (masks, self._images, "image", "images"),
        ):
            if alone := sorted(have.keys() - want.keys()):
                shown = ", ".join(alone[:3]) + (f" ... ({len(alone)} in all)" if len(alone) > 3 else "")
                raise DataError(
                    f"{self.root / folder}: no {kind} for {shown}; expected one of the same name, or splits/"
                )


def by_id(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Files below a folder, but hidden ones, by id (path without suffix).

    Raises:
        DataError: no such folder, or two files share an id.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected images/ and masks/ below data.root")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith("."):  # .NAME.partial.png
            found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    for image_id, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise DataError(f"{folder}: {names} are both {image_id}, expected one file per name; rename one")
    return {image_id: paths[0] for image_id, paths in found.items()}


def read_class_names(path: Path) -> list[str]:
    """Class names of a text file, one a line, the background first. Raises DataError if it is missing or too short."""
    try:
        names = [printable(line.strip()) for line in text(path).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        fault = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        raise DataError(f"{path}: {fault}, expected class names, or set data.class_names=[background,...]") from error
    if len(names) < 2:
        raise DataError(f"{path}: {len(names)} names, expected the background and at least one class, one a line")
    return names


def split_share(image_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(f"split:{image_id}".encode()).digest()[:6], "big") / 2**48
