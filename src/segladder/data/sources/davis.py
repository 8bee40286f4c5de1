"""DAVIS-2016: videos of one moving object each, a mask for every frame (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segladder.data.sources.base import Source
from segladder.data.sources.decoding import opened_mask
from segladder.data.sources.lists import listed
from segladder.errors import DataError
from segladder.settings import Name

DAVIS_CLASSES = ("background", "object")
EVERYTHING = "all"  # the split of every sequence there is


class Davis(Source):
    """A folder with JPEGImages/RESOLUTION/SEQUENCE/00000.jpg and Annotations/RESOLUTION/SEQUENCE/00000.png.

    A frame's id is `SEQUENCE/00000`. Every annotated object counts as the one class, so multi-object annotations
    (DAVIS-2017) read as DAVIS-2016's. A split is ImageSets/RESOLUTION/SPLIT.txt (a line per frame, as in DAVIS-2016) or
    ImageSets/2016/SPLIT.txt (a line per sequence, as in DAVIS-2017); `all` needs no list.

    Args:
        root: the folder.
        name: public name of the data set.
        resolution: name of the folders inside JPEGImages and Annotations.
        expected: number of frames per split when the data set is complete; `segladder data action=check` compares.
        common: the arguments of `Source`.
    """

    def __init__(
        self,
        root: str | Path,
        name: Name = "davis",
        resolution: str = "480p",
        expected: dict[str, int] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(name, DAVIS_CLASSES, **common)
        self.root = Path(root)
        self.resolution = resolution
        self.expected = dict(expected or {})

    def sequences(self, split: str | None = None) -> list[str]:
        """Names of a split's sequences, by default of the split that is scored, in the order of its list.

        Raises:
            DataError: there is no list of the split or it is empty, or for `all`, no folder or no sequence in it.
        """
        split = split or self.val_split
        if split != EVERYTHING:
            return self._listed(split)
        folder = self.root / "JPEGImages" / self.resolution
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if not names:
            raise DataError(f"{folder}: no sequences, expected a folder each; check data.root and data.resolution")
        return names

    def frames(self, sequence: str) -> list[str]:
        """Ids of a sequence's frames in time. Raises DataError if it has none."""
        folder = self.root / "JPEGImages" / self.resolution / sequence
        ids = [f"{sequence}/{path.stem}" for path in sorted(folder.glob("*.jpg"))]
        if not ids:
            raise DataError(f"{folder}: no frames, expected 00000.jpg and so on")
        return ids

    def split(self, name: str) -> list[str]:
        """Ids of all frames of a split, sequence after sequence. Raises DataError like `sequences` and `frames`."""
        return [frame for sequence in self.sequences(name) for frame in self.frames(sequence)]

    def image_path(self, image_id: str) -> Path:
        """JPEGImages/RESOLUTION/ID.jpg."""
        return self.root / "JPEGImages" / self.resolution / f"{image_id}.jpg"

    def drawn_mask_path(self, image_id: str) -> Path:
        """Annotations/RESOLUTION/ID.png."""
        return self.root / "Annotations" / self.resolution / f"{image_id}.png"

    def decode_mask(self, path: Path) -> np.ndarray:
        """1 where any channel of a PNG of any kind is above 0, uint8 (H, W). Raises DataError naming the file."""
        with opened_mask(path) as image:
            plain = image.mode in ("1", "L", "P")
            values = np.array(image if plain else image.convert("RGB"))
        mask: np.ndarray = (np.atleast_3d(values).max(axis=2) > 0).astype(np.uint8)
        return mask

    def _listed(self, split: str) -> list[str]:
        lists = [self.root / "ImageSets" / folder / f"{split}.txt" for folder in (self.resolution, "2016")]
        path = next((path for path in lists if path.is_file()), None)
        if path is None:
            raise DataError(
                f"{lists[0]}: no such list, expected frames or sequences; {EVERYTHING} reads every sequence"
            )
        names = list(dict.fromkeys(listed(path, sequence_of)))
        if not names:
            raise DataError(f"{path}: empty list, expected frames or sequences, one per line")
        return names


def sequence_of(line: str) -> str:
    """The sequence that a line names, or whose frame it names."""
    word = line.split()[0]
    return Path(word).parent.name if "/" in word else word
