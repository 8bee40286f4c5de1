"""DAVIS-2016: videos of one moving object each, a mask for every frame (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from segladder.data.sources.base import Source
from segladder.data.sources.decoding import opened_mask
from segladder.data.sources.lists import listed
from segladder.errors import ConfigError, DataError
from segladder.settings import Count, Name

DAVIS_CLASSES = ("background", "object")
EVERYTHING = "all"  # the split of every sequence there is
PART, REST = "part", "rest"  # those of one part of them, and of the others


class Davis(Source):
    """A folder with JPEGImages/RESOLUTION/SEQUENCE/00000.jpg and Annotations/RESOLUTION/SEQUENCE/00000.png.

    A frame's id is `SEQUENCE/00000`. Every annotated object counts as the one class, so multi-object annotations
    (DAVIS-2017) read as DAVIS-2016's. A split is ImageSets/RESOLUTION/SPLIT.txt (a line per frame, as in DAVIS-2016) or
    ImageSets/2016/SPLIT.txt (a line per sequence, as in DAVIS-2017). `all` needs no list. With `parts`, the
    folds of a cross-validation, `part` and `rest` need none either: sequences are dealt to the parts in turn, by name.

    Args:
        root: the folder.
        name: public name of the data set.
        resolution: name of the folders inside JPEGImages and Annotations.
        parts: into how many all sequences are dealt, if they are.
        part: which of these is `part`, from 0; the others are `rest`.
        common: the arguments of `Source`.

    Raises:
        ConfigError: a part that there is not.
    """

    def __init__(
        self,
        root: str | Path,
        name: Name = "davis",
        resolution: str = "480p",
        parts: Annotated[int, Field(ge=2)] | None = None,
        part: Count = 0,
        **common: Any,
    ) -> None:
        super().__init__(name, DAVIS_CLASSES, **common)
        self.root = Path(root)
        self.resolution = resolution
        self.parts, self.part = parts, part
        if parts is not None and part >= parts:
            raise ConfigError(f"data.part={part}: {name} is dealt into data.parts={parts}, expected 0..{parts - 1}")

    def sequences(self, split: str | None = None) -> list[str]:
        """Names of a split's sequences, by default of the split that is scored, in the order of its list.

        Raises:
            DataError: there is no list of the split or it is empty, or for `all`, no folder or no sequence in it.
        """
        split = split or self.val_split
        if split == EVERYTHING:
            return self._every()
        if self.parts is None or split not in (PART, REST):
            return self._listed(split)
        every = self._every()
        found = [each for place, each in enumerate(every) if (place % self.parts == self.part) == (split == PART)]
        if not found:
            raise DataError(
                f"{self.root}: {len(every)} sequences, expected at least one for each of {self.parts} parts"
            )
        return found

    def _every(self) -> list[str]:
        folder = self.root / "JPEGImages" / self.resolution
        names = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir()) if folder.is_dir() else []
        if not names:
            raise DataError(f"{folder}: no sequences, expected a folder each; check data.root and data.resolution")
        return names

    def frames(self, sequence: str) -> list[str]:
        """Ids of a sequence's frames in time. Raises DataError if it has none."""
        folder = self.root / "JPEGImages" / self.resolution / sequence
        ids = [f"{sequence}/{path.stem}" for path in sorted(folder.glob("[!.]*.jpg"))]
        if not ids:
            raise DataError(f"{folder}: no frames, expected 00000.jpg and so on")
        return ids

    def split(self, name: str) -> list[str]:
        """Ids of all frames of a split, sequence after sequence. Raises DataError like `sequences` and `frames`."""
        return [frame for sequence in self.sequences(name) for frame in self.frames(sequence)]

    def next_frame(self, image_id: str) -> str:
        """The next frame; of the last the one before (FusionSeg's code). Raises DataError for a video of one frame."""
        frames = self.frames(image_id.rpartition("/")[0])
        place = frames.index(image_id)
        if len(frames) < 2:
            raise DataError(
                f"{self.image_path(image_id)}: {image_id} is the only frame of its video, expected two or more: without"
                " another nothing tells what moves"
            )
        return frames[place + 1] if place + 1 < len(frames) else frames[place - 1]

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
                f"{lists[0]}: no such list, expected frames or sequences; {EVERYTHING} reads every sequence, and with"
                f" data.parts {PART} and {REST} some"
            )
        names = list(dict.fromkeys(listed(path, sequence_of)))
        if not names:
            raise DataError(f"{path}: empty list, expected frames or sequences, one per line")
        return names


def sequence_of(line: str) -> str:
    """The sequence that a line names, or whose frame it names."""
    word = line.split()[0]
    return Path(word).parent.name if "/" in word else word
