"""A user's own supports: a few images with a mask each that shows one class, in whatever values programs write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segladder.data.sources.base import IGNORE
from segladder.data.sources.decoding import read_mask, read_upright_image
from segladder.data.sources.folder import IMAGE_SUFFIXES
from segladder.data.sources.scene import size_error
from segladder.errors import ConfigError, DataError


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


def read_supports(folder: Path, value: int | None = None) -> list[Support]:
    """The pairs FOLDER/images/NAME.* and FOLDER/masks/NAME.png, by name.

    Args:
        folder: of any number of pairs, of any sizes.
        value: the class, where masks hold several; see `class_mask`.

    Raises:
        ConfigError: no pair, a mask of several classes without a `value`, masks that show different classes.
        DataError: an image without a mask, a damaged file, or as `read_support` raises it.
    """
    images = folder / "images"
    paths = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if images.is_dir() else []
    if not paths:
        raise ConfigError(f"support={folder}: no pair there, expected images/NAME.jpg with masks/NAME.png")
    supports = [read_support(path, folder / "masks" / f"{path.stem}.png", value) for path in paths]
    shown = {support.value: support.name for support in supports if support.value != IGNORE}
    if len(shown) > 1:
        told = ", ".join(f"{class_value} in {name}" for class_value, name in sorted(shown.items()))
        raise ConfigError(f"support={folder}: masks show different classes ({told}), expected the same in each")
    return supports


def read_support(image_path: Path, mask_path: Path, value: int | None = None) -> Support:
    """One annotated image. Raises DataError if a file is missing or damaged, or sizes differ, and as `class_mask`."""
    image = read_upright_image(image_path)
    if not mask_path.is_file():
        raise DataError(f"{mask_path}: no such file, expected the mask of {image_path}")
    values = read_mask(mask_path)
    if values.shape != image.shape[:2]:
        raise size_error(mask_path, values.shape, image.shape)
    mask, found = class_mask(values, mask_path, value)
    return Support(image_path.stem, image, mask, found)


def class_mask(values: np.ndarray, path: Path, value: int | None = None) -> tuple[np.ndarray, int]:
    """Where a mask shows its class, and the value that stands for it.

    The class is `value` or the mask's only value above 0, be it 1, 255 or a palette's. Beside another value, 255 means
    ignored.

    Args:
        values: uint8 (H, W).
        path: the mask's file, for messages.
        value: the class, where there are several.

    Returns:
        1 = the class, 0 = anything else, 255 = ignored, uint8 (H, W), and the value.

    Raises:
        ConfigError: several classes and no `value`.
        DataError: no pixel of the class.
    """
    present = [int(v) for v in np.unique(values) if v]
    classes = [v for v in present if v != IGNORE] or present
    if not classes:
        raise DataError(f"{path}: empty mask, expected pixels of the class to find")
    if value is None and len(classes) > 1:
        listed = ", ".join(map(str, classes))
        raise ConfigError(f"{path}: holds the classes {listed}, expected one; choose with support_class=VALUE")
    chosen = classes[0] if value is None else value
    if chosen not in present:
        raise DataError(f"{path}: no pixel of support_class={chosen}, it holds {', '.join(map(str, present))}")
    mask = (values == chosen).astype(np.uint8)
    if chosen != IGNORE:
        mask[values == IGNORE] = IGNORE
    return mask, chosen
