"""Reading one file: every fault becomes a DataError that names it."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from segladder.errors import DataError
from segladder.foreign import content

cv2.setNumThreads(0)  # one file at a time; processes are the parallelism
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a DataError says in one line what is wrong

LARGEST = 150_000_000  # pixels; a header can claim more than any memory holds
GRAY_BELOW_8_BITS = (b"\x02\x00", b"\x04\x00")  # bit depth and colour type in the header of a PNG
COLOUR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH  # other depths come as they are, to be refused
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
JPEG_WARNINGS = "Corrupt JPEG data", "Premature end of JPEG"
DEEP = {"F": "32 bits", "I": "32 bits"}  # modes of gray that cv2 does not read -> how deep they are
CONVERT = "segladder data action=convert makes such masks of colours, grays and other annotations"
EIGHT_BITS = "expected 8 bits; scale its range to 0..255 and save it anew"
DAMAGE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, zlib.error)


def read_image(path: Path) -> np.ndarray:
    """Decode an RGB image as it is to be looked at, uint8 (H, W, 3): an EXIF orientation is applied.

    Raises:
        DataError: a missing, truncated or foreign file, more than 8 bits a channel, more than `LARGEST` pixels.
    """
    return _decoded(path, stored(path, "an image"))


def read_upright_image(path: Path) -> np.ndarray:
    """`read_image` for an image that has a mask. Raises DataError for an EXIF orientation too.

    Some programs draw masks on an image as it is stored, others on one that is turned; the mask does not say which.
    """
    data = stored(path, "an image")
    if (turned := orientation(path, data)) != 1:
        raise DataError(
            f"{path}: EXIF orientation {turned}, expected 1: its mask may be of the image as stored or as shown;"
            " save it upright (such as mogrify -auto-orient) and compare with the mask (segladder data action=preview)"
        )
    return _decoded(path, data)


def orientation(path: Path, data: bytes) -> int:
    """The EXIF orientation of a file's image: 1 upright or not known, 2..8 turned or mirrored."""
    if data[:4] == b"\x89PNG" and b"eXIf" not in data:  # Pillow would decode all of it to know
        return 1
    try:
        with _opened(path, data) as header:
            found = header.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        return 1
    return found if found in range(2, 9) else 1


def _decoded(path: Path, data: bytes) -> np.ndarray:
    truncated = data[:2] == b"\xff\xd8" and not _ends(data)
    try:
        with _opened(path, data) as header:
            _require_size(path, *header.size)
            if header.mode in DEEP:
                raise DataError(f"{path}: {DEEP[header.mode]} a channel, {EIGHT_BITS}")
        image = None if truncated else cv2.imdecode(np.frombuffer(data, np.uint8), COLOUR)
    except (*DAMAGE, cv2.error):
        image = None
    if image is None:
        raise DataError(f"{path}: damaged or truncated ({len(data)} bytes), expected a whole JPEG or PNG")
    if image.dtype != np.uint8:
        raise DataError(f"{path}: {image.dtype} a channel, {EIGHT_BITS}")
    return image


def _ends(data: bytes) -> bool:
    """Whether a JPEG goes on to the mark of its end; cv2 fills what a truncated one lacks with gray and says nothing.

    What stands behind that mark, such as a phone's video, counts for nothing, nor does the end of a small picture
    inside a segment before the pixels.
    """
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (b"\xda", b""):
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that an image's header says, as stored. Raises DataError for a file without one."""
    try:
        with Image.open(path) as header:
            return header.size
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: no header of an image ({error}), expected a whole JPEG or PNG") from error


def jpeg_damage(path: Path) -> str | None:
    """What libjpeg says of a JPEG whose damage it bridges with invented pixels, or None; for one thread at a time.

    Neither cv2 nor Pillow hands this on: it stands on the process's standard error alone.
    """
    data = content(path)
    if data[:2] != b"\xff\xd8":
        return None
    before = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        finally:
            os.dup2(before, 2)
            os.close(before)
        caught.seek(0)
        lines = caught.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in lines if line.startswith(JPEG_WARNINGS)), None)


def read_mask(path: Path) -> np.ndarray:
    """Decode a palette or gray PNG as class values, uint8 (H, W). Raises DataError for any other kind of file."""
    try:
        values = plain_png(path, data := stored(path, "a mask"))
    except zlib.error as error:
        raise DataError(f"{path}: damaged or truncated mask ({error})") from error
    if values is not None:
        return values
    with opened_mask(path, data) as image:
        if data[24:26] in GRAY_BELOW_8_BITS:
            raise DataError(f"{path}: gray of {data[24]} bits, which decoders stretch to 0..255; save it in 8 bits")
        if image.mode not in ("P", "L"):
            raise DataError(
                f"{path}: mode {image.mode}, expected a palette (P) or gray (L) PNG of class values: {CONVERT}"
            )
        return np.array(image, np.uint8)


def stored(path: Path, kind: str) -> bytes:
    """The bytes of a file; `kind` says of what. Raises DataError where there is no such file, or no way to read it."""
    try:
        return content(path)
    except OSError as error:
        fault = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise DataError(f"{path}: {fault}, expected {kind}") from error


@contextmanager
def opened_mask(path: Path, data: bytes | None = None, formats: Sequence[str] = ("PNG",)) -> Iterator[Image.Image]:
    """A mask of any mode. Raises DataError, also out of the block, for anything but an upright, whole file."""
    data = stored(path, "a mask") if data is None else data
    try:
        with _opened(path, data) as image:
            if image.format not in formats:
                raise DataError(f"{path}: {image.format} data, expected a PNG: others change the values of a mask")
            _require_size(path, *image.size)
            if (turned := orientation(path, data)) != 1:
                raise DataError(f"{path}: EXIF orientation {turned}, expected 1; save the mask as it is to be read")
            yield image
    except DAMAGE as error:
        raise DataError(f"{path}: damaged or truncated mask ({error})") from error


@contextmanager
def _opened(path: Path, data: bytes) -> Iterator[Image.Image]:
    try:
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:  # before `_require_size` can ask
        raise DataError(f"{path}: {error} Cut it into tiles") from error
    with image:
        yield image


def _require_size(path: Path, width: int, height: int) -> None:
    if not 0 < width * height <= LARGEST:
        raise DataError(f"{path}: {width}x{height} pixels, expected 1 to {LARGEST:,}; cut it into tiles")


def png_palette(path: Path) -> bytes | None:
    """Red, green and blue of each value of a PNG's palette, None for any other file; no pixel is decoded."""
    with suppress(OSError, struct.error), path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return None
        while (kind := (head := file.read(8))[4:]) not in (b"IDAT", b""):
            (length,) = struct.unpack(">I", head[:4])
            if kind == b"PLTE":
                return file.read(length)
            file.seek(length + 4, 1)
    return None


def plain_png(path: Path, data: bytes) -> np.ndarray | None:
    """Values of the PNG that masks commonly are: 8 bit, palette or gray, rows not filtered, no EXIF; None for others.

    Four times as fast as the general decoder, which converts row by row. Damage shows in the checksums of the packed
    pixels; that of the unpacked ones, which takes longer than unpacking, is left out. No more is unpacked than
    the header asks for. Raises zlib.error, and DataError for more than `LARGEST` pixels.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[24:29] not in (b"\x08\x03\0\0\0", b"\x08\0\0\0\0"):
        return None
    if b"eXIf" in data:
        return None
    width, height = struct.unpack(">II", data[16:24])
    _require_size(path, width, height)
    packed, at = b"", 8
    while data[at + 4 : at + 8] not in (b"IEND", b""):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            if zlib.crc32(data[at + 4 : end]).to_bytes(4, "big") != data[end : end + 4]:
                raise zlib.error("wrong checksum")
            packed += data[at + 8 : end]
        at = end + 4
    size = height * (width + 1)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    rows = np.frombuffer(stream.decompress(packed[2:], size + 1), np.uint8)
    if not stream.eof and rows.size <= size:
        raise zlib.error("it ends before its last pixel")
    if rows.size != size or rows[:: width + 1].any():  # each row begins with its filter
        return None
    return np.ascontiguousarray(rows.reshape(height, width + 1)[:, 1:])
