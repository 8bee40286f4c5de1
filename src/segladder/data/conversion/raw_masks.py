"""A mask file as it is: colours or numbers, counted before anything is decided about their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segladder.data.conversion.naming import TRANSPARENT, shown
from segladder.data.sources.decoding import GRAY_BELOW_8_BITS, opened_mask
from segladder.errors import DataError
from segladder.foreign import content

LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
DEEPEST = 65535
MOST_COLOURS = 1024  # in one file; what has more is a photograph or blurred, and would fill the memory with colours


@dataclass(frozen=True)
class RawMask:
    """A decoded mask file.

    Attributes:
        numbers: its values uint8 (H, W), or None where it has colours that are no grays.
        colours: the code of the colour of each pixel, int32 (H, W).
    """

    numbers: np.ndarray | None
    colours: np.ndarray


@dataclass(frozen=True)
class Seen:
    """What a mask file holds.

    Attributes:
        path: of the file.
        numbers: pixels of each number; None where it has colours that are no grays.
        colours: pixels of each colour.
        solid: colours that fill a square of 2x2 pixels somewhere.
        painted: the colour of each number.
    """

    path: Path
    numbers: Mapping[int, int] | None
    colours: Mapping[int, int]
    solid: frozenset[int]
    painted: Mapping[int, int]

    @classmethod
    def of(cls, path: Path) -> Seen:
        """Count a file. Raises DataError for one that is damaged, or that changes values when it is saved."""
        raw = read(path)
        colours = counted(raw.colours)
        if len(colours) > MOST_COLOURS:
            raise DataError(
                f"{path}: {len(colours)} colours, expected {MOST_COLOURS} at most: it is a photograph, was a JPEG once"
                " or has soft edges. Export the masks with hard edges as PNG"
            )
        numbers = None if raw.numbers is None else counted(raw.numbers)
        painted = {} if raw.numbers is None else _painted(raw.numbers, raw.colours)
        return cls(path, numbers, colours, _solid(raw.colours), painted)


def read(path: Path) -> RawMask:
    """Decode a file. Raises DataError like `Seen.of`."""
    data = content(path)
    if data[:2] == b"\xff\xd8":
        raise DataError(
            f"{path}: a JPEG, which stores colours approximately, so that the values of a mask are lost; export the"
            " masks as PNG"
        )
    with opened_mask(path, data, LOSSLESS) as image:
        if image.mode in ("1", "L"):
            numbers = np.array(image.convert("L"), np.uint8)
            if image.format == "PNG" and data[24:26] in GRAY_BELOW_8_BITS:
                numbers //= 255 // (2 ** data[24] - 1)  # the decoder has stretched them
            return RawMask(numbers, numbers * np.int32(0x010101))
        if image.mode.startswith("I"):
            numbers = _shallow(path, np.array(image))
            return RawMask(numbers, numbers * np.int32(0x010101))
        colours = _codes(path, np.array(image.convert("RGBA"), np.uint8))
        if image.mode == "P":
            return RawMask(np.array(image, np.uint8), colours)
        gray = (colours == (colours & 0xFF) * 0x010101).all()
        return RawMask((colours & 0xFF).astype(np.uint8) if gray else None, colours)


def counted(values: np.ndarray) -> dict[int, int]:
    """Number of pixels of each value (H, W); runs of equal values are counted at once, since masks have large areas."""
    flat = values.reshape(-1)
    starts = _starts(flat)
    lengths = np.diff(starts, append=len(flat))
    found, place = np.unique(flat[starts], return_inverse=True)
    return dict(zip(found.tolist(), np.bincount(place, lengths).astype(int).tolist(), strict=True))


def _starts(flat: np.ndarray) -> np.ndarray:
    """Where runs of one value begin."""
    return np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))


def _painted(numbers: np.ndarray, colours: np.ndarray) -> dict[int, int]:
    starts = _starts(numbers.reshape(-1))
    found, first = np.unique(numbers.reshape(-1)[starts], return_index=True)
    return dict(zip(found.tolist(), colours.reshape(-1)[starts[first]].tolist(), strict=True))


def _solid(colours: np.ndarray) -> frozenset[int]:
    corner = colours[:-1, :-1]
    same = (corner == colours[1:, :-1]) & (corner == colours[:-1, 1:]) & (corner == colours[1:, 1:])
    return frozenset(counted(corner[same])) if same.any() else frozenset()


def _codes(path: Path, rgba: np.ndarray) -> np.ndarray:
    """Codes int32 (H, W) of colours uint8 (H, W, 4)."""
    alpha = rgba[..., 3]
    if ((alpha > 0) & (alpha < 255)).any():
        raise DataError(
            f"{path}: half transparent pixels, expected a mask with hard edges: no anti-aliasing, no opacity"
        )
    codes = rgba[..., 0].astype(np.int32)
    for channel in (1, 2):
        codes <<= 8
        codes |= rgba[..., channel]
    codes[alpha == 0] = TRANSPARENT
    return codes


def _shallow(path: Path, deep: np.ndarray) -> np.ndarray:
    """Numbers of 16 bits or more as uint8, where they are few, or 0 and the largest."""
    if not ((deep >= 0) & (deep <= 255)).all():
        if not np.isin(deep, (0, DEEPEST)).all():
            raise DataError(f"{path}: value {int(deep.max())} in 16 bits, expected 0..255, or 0 and {DEEPEST}")
        deep = np.minimum(deep, 255)
    return deep.astype(np.uint8)


def named(look: int, by: str) -> str:
    """A colour or a number, as it is written."""
    return shown(look) if by == "colours" else str(look)
