"""Images and masks in the forms that Python programs have them in, as arrays; what is no raw pixel is refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from segladder.data.sources.decoding import EIGHT_BITS, ORIENTATION, read_image, read_mask, read_upright_image
from segladder.data.sources.support import Annotated
from segladder.errors import DataError

Picture = str | Path | Image.Image | np.ndarray
EXPECTED = "expected a file, a PIL image or raw pixels uint8 (H, W, 3)"
MASK_EXPECTED = "expected a PNG of class values, or class values uint8 (H, W)"


def is_batch(given: Any) -> bool:
    """Whether several images are given: a list or tuple of them, or an array (B, H, W, 3)."""
    return isinstance(given, (list, tuple)) or (isinstance(given, np.ndarray) and given.ndim == 4)


def pixels_of(given: Any, name: str = "image") -> np.ndarray:
    """Raw pixels RGB uint8 (H, W, 3) of one image.

    Args:
        given: a file, a PIL image (any mode of 8 bits, its EXIF orientation is applied) or an array.
        name: for messages.

    Raises:
        DataError: a file that cannot be read, or something else than raw pixels.
    """
    if isinstance(given, (str, Path)):
        return read_image(Path(given))
    if isinstance(given, Image.Image):
        if given.mode.startswith(("I", "F")):  # convert would cut off what is above 255
            raise DataError(f"{name}: mode {given.mode}, {EIGHT_BITS}")
        return np.array(ImageOps.exif_transpose(given).convert("RGB"))
    if not isinstance(given, np.ndarray):
        raise DataError(f"{name}: {type(given).__name__}, {EXPECTED}")
    if given.dtype != np.uint8:
        raise DataError(f"{name}: {described(given)}, {EXPECTED}")
    if given.ndim != 3 or given.shape[2] != 3 or not given.size:
        raise DataError(f"{name}: uint8 {given.shape}, {EXPECTED}")
    return np.ascontiguousarray(given)


def upright_pixels_of(given: Any, name: str) -> np.ndarray:
    """`pixels_of` for an image that has a mask. Raises DataError for an EXIF orientation too."""
    if isinstance(given, (str, Path)):
        return read_upright_image(Path(given))
    if isinstance(given, Image.Image) and (turned := given.getexif().get(ORIENTATION, 1)) != 1:
        raise DataError(
            f"{name}: EXIF orientation {turned}, expected 1: is its mask of the image as stored or as shown?"
        )
    return pixels_of(given, name)


def described(values: np.ndarray) -> str:
    """What an array of another type than uint8 holds, with the remedy where that is known."""
    if np.issubdtype(values.dtype, np.floating) and values.size and values.min() >= 0 and values.max() <= 1:
        return f"{values.dtype} in 0..1 (multiply by 255 and round to uint8)"
    return f"{values.dtype} {values.shape}"


def annotated_of(supports: Iterable[tuple[Any, Any]]) -> list[Annotated]:
    """Pairs of an image and its mask, each in any form. Raises DataError naming the one at fault."""
    found = []
    for number, pair in enumerate(supports):
        place = f"supports[{number}]"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"{place}: {type(pair).__name__}, expected a pair of an image and its mask")
        image, values = upright_pixels_of(pair[0], f"{place} image"), values_of(pair[1], f"{place} mask")
        if values.shape != image.shape[:2]:
            (height, width), (rows, columns) = values.shape, image.shape[:2]
            raise DataError(f"{place} mask: size {width}x{height}, expected {columns}x{rows} as its image")
        found.append(Annotated(place, image, values, f"{place} mask"))
    if not found:
        raise DataError("supports: empty, expected pairs of an image and its mask")
    return found


def values_of(given: Any, name: str) -> np.ndarray:
    """Class values uint8 (H, W) of a mask: a PNG, a PIL image of mode P, L or 1, an array of uint8 or bool.

    Raises DataError for anything else.
    """
    if isinstance(given, (str, Path)):
        return read_mask(Path(given))
    if isinstance(given, Image.Image):
        if given.mode not in ("P", "L", "1"):
            raise DataError(f"{name}: mode {given.mode}, {MASK_EXPECTED}")
        return np.array(given).astype(np.uint8)
    if not isinstance(given, np.ndarray):
        raise DataError(f"{name}: {type(given).__name__}, {MASK_EXPECTED}")
    if given.dtype not in (np.uint8, np.bool_) or given.ndim != 2:
        raise DataError(f"{name}: {given.dtype} {given.shape}, {MASK_EXPECTED}")
    return given.astype(np.uint8)


def of_one_size(images: Sequence[np.ndarray], most: int) -> list[list[int]]:
    """Positions of images in groups of one size, `most` at most, each in its order."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        groups.setdefault(image.shape, []).append(position)
    return [group[i : i + most] for group in groups.values() for i in range(0, len(group), most)]
