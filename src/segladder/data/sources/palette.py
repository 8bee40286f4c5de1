"""PASCAL VOC's colours for class indices, and PNG files whose bytes depend on no compression library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from segladder.errors import DataError


def voc_palette() -> np.ndarray:
    """RGB of the values 0..255 as in VOC's own masks (bits of the value, spread over the channels), uint8 (256, 3)."""
    values = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            palette[:, channel] |= ((values >> channel & 1) << (7 - place)).astype(np.uint8)
        values >>= 3
    return palette


class Colours(NamedTuple):
    """How pictures show classes.

    Attributes:
        of: RGB of the classes by index, those that have a colour of their own; the others have VOC's.
        background: whether index 0 is the background, which pictures leave as it is.
    """

    of: tuple[tuple[int, int, int], ...] = ()
    background: bool = True

    @classmethod
    def stored(cls, data: Mapping[str, Any], place: str) -> Colours:
        """The colours that a record says its data has. Raises DataError naming `place` for colours that are none."""
        try:
            table = tuple((int(red), int(green), int(blue)) for red, green, blue in data.get("colours", ()))
        except (TypeError, ValueError):
            table = ((-1, -1, -1),)
        if len(table) > 255 or not all(0 <= value <= 255 for colour in table for value in colour):
            raise DataError(f"{place}: data.colours are no colours, expected three values 0..255 for each class")
        return cls(table, data.get("background") is not False)

    def foreground(self, classes: Sequence[str]) -> list[str]:
        """Names of classes but the background."""
        return list(classes[int(self.background) :])

    @property
    def table(self) -> np.ndarray:
        """RGB of the values 0..255, uint8 (256, 3)."""
        table = voc_palette()
        if self.of:
            table[: len(self.of)] = self.of
        return table

    def shown(self, mask: np.ndarray) -> np.ndarray:
        """Which pixels of a mask (H, W) have a colour in pictures, 255 among them, bool (H, W)."""
        return np.asarray(mask >= int(self.background))


VOC_COLOURS = Colours()  # of indices, with a background


def stored_png(pixels: np.ndarray, table: np.ndarray | None = None) -> bytes:
    """A PNG without compression: the same bytes on every machine, and the fastest to decode.

    Args:
        pixels: an RGB image uint8 (H, W, 3), or class values uint8 (H, W).
        table: RGB of the values 0..255, uint8 (256, 3); None: VOC's.
    """
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()  # filter 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 3, 0, 0, 0)
    palette = b"" if pixels.ndim == 3 else chunk(b"PLTE", (voc_palette() if table is None else table).tobytes())
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", stored(raw)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks (RFC 1951, 3.2.4)."""
    blocks = [data[i : i + 65535] for i in range(0, len(data), 65535)]
    heads = (struct.pack("<BHH", i + 1 == len(blocks), len(b), 65535 - len(b)) for i, b in enumerate(blocks))
    body = b"".join(head + block for head, block in zip(heads, blocks, strict=True))
    return b"\x78\x01" + body + struct.pack(">I", zlib.adler32(data))
