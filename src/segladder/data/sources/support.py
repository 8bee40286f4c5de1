"""A user's own supports: a few images with a mask each that shows classes, in whatever values programs write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segladder.data.sources.decoding import read_mask, read_upright_image
from segladder.data.sources.folder import IMAGE_SUFFIXES, by_id
from segladder.data.sources.scene import size_error
from segladder.errors import ConfigError, DataError
from segladder.mask_values import IGNORE


@dataclass(frozen=True)
class Support:
    """An image and where it shows the class.

    Attributes:
        name: the stem of the image's file.
        image: uint8 (H, W, 3).
        mask: 1 = the class, 0 = anything else, 255 = ignored, uint8 (H, W).
        value: what stands for the class in the mask's file.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    value: int


@dataclass(frozen=True)
class Annotated:
    """An image with a mask as programs write it.

    Attributes:
        name: of the image.
        image: uint8 (H, W, 3).
        values: of the mask, uint8 (H, W).
        place: the mask's file, or what stands for it in messages.
    """

    name: str
    image: np.ndarray
    values: np.ndarray
    place: str

    @property
    def present(self) -> list[int]:
        """The mask's values above 0."""
        return [int(v) for v in np.unique(self.values) if v]


def read_supports(folder: Path, value: int | None = None) -> list[Support]:
    """The pairs FOLDER/images/NAME.* and FOLDER/masks/NAME.png, by name; see `supports_of`.

    Args:
        folder: of any number of pairs, of any sizes.
        value: the class, where masks hold several; None: all of them.

    Raises:
        ConfigError: no pair.
        DataError: an image without a mask, a damaged file, or as `supports_of` raises it.
    """
    images = folder / "images"
    masks = by_id(folder / "masks", (".png",)) if (folder / "masks").is_dir() else {}
    pairs = by_id(images, IMAGE_SUFFIXES) if images.is_dir() else {}
    if not pairs:
        raise ConfigError(f"support={folder}: no pair there, expected images/NAME.jpg with masks/NAME.png")
    named = {name: folder / "masks" / f"{name}.png" for name in pairs}
    return supports_of([read_annotated(path, masks.get(name, named[name])) for name, path in pairs.items()], value)


def read_support(image_path: Path, mask_path: Path, value: int | None = None) -> Support:
    """One annotated image of one class. Raises DataError as `read_annotated`, and errors as `class_mask`."""
    annotated = read_annotated(image_path, mask_path)
    mask, found = class_mask(annotated, value)
    return Support(annotated.name, annotated.image, mask, found)


def read_annotated(image_path: Path, mask_path: Path) -> Annotated:
    """One annotated image. Raises DataError if a file is missing or damaged, or sizes differ."""
    image = read_upright_image(image_path)
    if not mask_path.is_file():
        raise DataError(f"{mask_path}: no such file, expected the mask of {image_path}")
    values = read_mask(mask_path)
    if values.shape != image.shape[:2]:
        raise size_error(mask_path, values.shape, image.shape)
    return Annotated(image_path.stem, image, values, str(mask_path))


def supports_of(annotated: Sequence[Annotated], value: int | None = None) -> list[Support]:
    """What annotated images show, a support for each class of each, by class.

    Where all masks have one value above 0, be it 1, 255 or a palette's, that is the class. Beside another value, in its
    mask or in others, 255 means ignored.

    Args:
        annotated: of any sizes, one at least.
        value: the one class to take; None: all that are there.

    Raises:
        DataError: a mask that shows no class.
    """
    classes = sorted({v for each in annotated for v in each.present if v != IGNORE})
    if value is not None or len(classes) < 2:
        found = [(each, *class_mask(each, value)) for each in annotated]
        one = classes[0] if classes else IGNORE  # 255 in one mask and 1 in another are the same class
        return [Support(each.name, each.image, mask, one if value is None else value) for each, mask, _ in found]
    for each in annotated:
        if not set(each.present) - {IGNORE}:
            told = "empty mask" if not each.present else f"holds {IGNORE} alone, which is ignored beside other classes"
            raise DataError(f"{each.place}: {told}, expected pixels of some of the classes {told_values(classes)}")
    holding = [(k, each) for k in classes for each in annotated if k in each.present]
    return [Support(each.name, each.image, class_mask(each, k)[0], k) for k, each in holding]


def class_mask(annotated: Annotated, value: int | None = None) -> tuple[np.ndarray, int]:
    """Where a mask shows its class, and the value that stands for it.

    The class is `value` or the mask's only value above 0, be it 1, 255 or a palette's. Beside another value, 255 means
    ignored.

    Returns:
        1 = the class, 0 = anything else, 255 = ignored, uint8 (H, W), and the value.

    Raises:
        ConfigError: several classes and no `value`.
        DataError: no pixel of the class.
    """
    values, place, present = annotated.values, annotated.place, annotated.present
    classes = [v for v in present if v != IGNORE] or present
    if not classes:
        raise DataError(f"{place}: empty mask, expected pixels of the class to find")
    if value is None and len(classes) > 1:
        raise ConfigError(
            f"{place}: holds the classes {told_values(classes)}, expected one; choose with support_class=VALUE"
        )
    chosen = classes[0] if value is None else value
    if chosen not in present:
        raise DataError(f"{place}: no pixel of support_class={chosen}, it holds {told_values(present)}")
    mask = (values == chosen).astype(np.uint8)
    if chosen != IGNORE:
        mask[values == IGNORE] = IGNORE
    return mask, chosen


def told_values(values: Sequence[int]) -> str:
    """Values of a mask in words."""
    return ", ".join(map(str, values))
