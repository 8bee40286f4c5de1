"""Pixels by index, decoded from the files or read from one memory-mapped file of everything already decoded."""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from filelock import FileLock

from segladder.data.sources.base import Source
from segladder.data.sources.decoding import read_upright_image
from segladder.errors import ConfigError
from segladder.files import remove_partials, written
from segladder.machine import cache_folder

log = logging.getLogger(__name__)
MAGIC = b"SEGLCAC2"
FOOTER = struct.Struct("<q16s8s")  # number of arrays, fingerprint of them, magic
ENDS = (
    2**16
)  # bytes at either end of the pixels that the fingerprint is over: reading all would cost what a cache saves


class Pixels(Protocol):
    """Decoded arrays of some ids, by position."""

    def __getitem__(self, index: int) -> np.ndarray: ...


class ImageFiles:
    """Images decoded when they are asked for; knows image files only, no mask.

    Args:
        paths: one image file per position.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """RGB image, uint8 (H, W, 3). Raises DataError naming the file."""
        return read_upright_image(self.paths[index])


class MaskFiles:
    """Masks of class indices decoded when they are asked for.

    Args:
        source: decodes them.
        ids: one id per position.
    """

    def __init__(self, source: Source, ids: Sequence[str]) -> None:
        self.source = source
        self.ids = list(ids)

    def __getitem__(self, index: int) -> np.ndarray:
        """Class indices, uint8 (H, W). Raises DataError naming the file."""
        return self.source.mask(self.ids[index])


class FlowFiles:
    """Optical flow computed when it is asked for, as bytes.

    Args:
        source: computes it.
        ids: one frame per position.
    """

    def __init__(self, source: Source, ids: Sequence[str]) -> None:
        self.source = source
        self.ids = list(ids)

    def __getitem__(self, index: int) -> np.ndarray:
        """Relative flow in half precision, uint8 (H, W, 4). Raises DataError naming the file."""
        return self.source.flow(self.ids[index]).astype(np.float16).view(np.uint8)


class Flows:
    """Optical flow by position.

    Args:
        stored: its bytes.
    """

    def __init__(self, stored: Pixels) -> None:
        self.stored = stored

    def __getitem__(self, index: int) -> np.ndarray:
        """Relative flow, float32 (H, W, 2), the same from files and from the cache."""
        return self.stored[index].view(np.float16).astype(np.float32)


class Packed:
    """Read-only arrays of one cache file; the operating system keeps what is read often in memory.

    Args:
        path: a file written by `pack`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()

    def _open(self) -> None:
        shapes = _whole(self.path)
        if shapes is None:
            raise ConfigError(f"{self.path}: not a whole cache file; delete it and start again")
        self.shapes = shapes
        self.ends = np.cumsum(self.shapes.prod(axis=1))
        self.buffer = np.memmap(self.path, np.uint8, "r").view(np.ndarray)

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> np.ndarray:
        """A read-only view, uint8 (H, W, 3) for images or (H, W) for masks, without copying."""
        height, width, channels = self.shapes[index].tolist()
        end = int(self.ends[index])
        pixels = self.buffer[end - height * width * channels : end]
        return pixels.reshape((height, width, channels) if channels > 1 else (height, width))

    def __getstate__(self) -> dict[str, Path]:
        return {"path": self.path}  # another process maps the file itself

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.path = state["path"]
        self._open()


def images_of(source: Source, ids: Sequence[str]) -> Pixels:
    """The source's images by position in `ids`, from files or from the cache, as `source.cache` says."""
    files = ImageFiles([source.image_path(image_id) for image_id in ids])
    if source.cache == "none":
        return files
    return packed(source, "images", image_key(source, ids), (files[i] for i in range(len(ids))))


def masks_of(source: Source, ids: Sequence[str]) -> Pixels:
    """The masks of class indices by position in `ids`, as the source shows them, from files or from the cache."""
    files = MaskFiles(source, ids)
    if source.cache == "none":
        return files
    return packed(source, "masks", mask_key(source, ids), (files[i] for i in range(len(ids))))


def flows_of(source: Source, ids: Sequence[str]) -> Flows:
    """The source's optical flow by position in `ids`, from files or from the cache. Raises as `Source.next_frame`."""
    ends, files = [source.next_frame(frame) for frame in ids], FlowFiles(source, ids)
    if source.cache == "none":
        return Flows(files)
    return Flows(packed(source, "flow", image_key(source, [*ids, *ends]), (files[i] for i in range(len(ids)))))


def mask_key(source: Source, ids: Sequence[str]) -> str:
    """16 hex digits over the masks, and over what makes something else of them: its settings, the files it reads."""
    sight, drawn = source.sight, source.fingerprint(ids)
    if sight is None or not sight.key:
        return drawn
    digest = hashlib.sha256(f"{drawn}\0{sight.key}".encode())
    for path in {path: None for image_id in ids for path in sight.files(source, image_id)}:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def image_key(source: Source, ids: Sequence[str]) -> str:
    """16 hex digits over ids, places, sizes and times of the image files: another file is another key."""
    digest = hashlib.sha256()
    for image_id in ids:
        path = source.image_path(image_id)
        stat = path.stat() if path.is_file() else None
        digest.update(f"{image_id}\0{path.resolve()}\0{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


def packed(source: Source, part: str, key: str, arrays: Iterable[np.ndarray]) -> Packed:
    """The cache file of one part of a data set; built by the first process that asks, while others wait."""
    folder = cache_folder(source.cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.name}-{part}-{key}.u8"
    with FileLock(f"{path}.lock"):  # the operating system releases it when its holder is killed
        if _whole(path) is None:
            remove_partials(path)
            log.info("caching %s of %s in %s", part, source.name, path)
            pack(path, arrays)
    return Packed(path)


def pack(path: Path, arrays: Iterable[np.ndarray]) -> None:
    """Write uint8 arrays (H, W) or (H, W, 3) as one contiguous file, shapes last; it appears only when it is whole."""
    shapes = []
    with written(path, durable=True) as partial, partial.open("w+b") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)
            shapes.append((*array.shape[:2], array.shape[2] if array.ndim == 3 else 1))
        pixels, table = file.tell(), np.array(shapes, "<i8").tobytes()
        footer = FOOTER.pack(len(shapes), _fingerprint(file, pixels, table), MAGIC)
        file.seek(0, os.SEEK_END)
        file.write(table + footer)


def _fingerprint(file: BinaryIO, pixels: int, table: bytes) -> bytes:
    """A hash over the shapes and both ends of so many bytes of pixels."""
    file.seek(0)
    digest = hashlib.blake2b(table + file.read(min(ENDS, pixels)), digest_size=16)
    file.seek(max(0, pixels - ENDS))
    digest.update(file.read(min(ENDS, pixels)))
    return digest.digest()


def _whole(path: Path) -> np.ndarray | None:
    """Shapes int64 (N, 3) of the arrays in a cache file; None if it is missing, cut, or another at its ends."""
    size = path.stat().st_size if path.is_file() else 0
    if size < FOOTER.size:
        return None
    with path.open("rb") as file:
        file.seek(-FOOTER.size, os.SEEK_END)
        count, fingerprint, magic = FOOTER.unpack(file.read())
        pixels = size - FOOTER.size - count * 24
        if magic != MAGIC or count < 0 or pixels < 0:
            return None
        file.seek(pixels)
        table = file.read(count * 24)
        shapes = np.frombuffer(table, "<i8").reshape(count, 3)
        fits = (shapes >= 0).all() and int(shapes.prod(axis=1).sum()) == pixels
        return shapes if fits and _fingerprint(file, pixels, table) == fingerprint else None
