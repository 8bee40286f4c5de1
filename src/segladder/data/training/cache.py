"""Pixels by index, decoded from the files or read from memory-mapped files of everything already decoded.

Each image or mask has a key and is stored once, whichever lists of ids it is in. A list that asks for more than the
cache files of its data set hold adds a file of the rest; no file changes once it is there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from filelock import FileLock

from segladder.data.sources.base import Source
from segladder.data.sources.decoding import read_upright_image
from segladder.errors import ConfigError
from segladder.files import written
from segladder.machine import cache_folder

log = logging.getLogger(__name__)
MAGIC = b"SEGLCAC3"
ROW = np.dtype([("key", "S16"), ("shape", "<i8", 3)])  # of each array: height, width, channels
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
    """Read-only arrays by position, out of cache files; the operating system keeps what is read often in memory.

    Args:
        files: written by `pack`.
        keys: one per position, each held by one of the files.

    Raises:
        ConfigError: a file that is not whole.
    """

    def __init__(self, files: Sequence[Path], keys: Sequence[str]) -> None:
        self.files, self.keys = list(files), list(keys)
        self._open()

    def _open(self) -> None:
        held: dict[str, tuple[np.ndarray, int, list[int]]] = {}
        for path in self.files:
            table = _whole(path)
            if table is None:
                raise ConfigError(f"{path}: not a whole cache file; delete it and start again")
            pixels = np.memmap(path, np.uint8, "r").view(np.ndarray)
            ends = np.cumsum(table["shape"].prod(axis=1)).tolist()
            held |= {key: (pixels, *row) for key, *row in zip(_keys(table), ends, table["shape"].tolist(), strict=True)}
        self._places = [held[key] for key in self.keys]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> np.ndarray:
        """A read-only view, uint8 (H, W, 3) for images or (H, W) for masks, without copying."""
        pixels, end, (height, width, channels) = self._places[index]
        array = pixels[end - height * width * channels : end]
        return array.reshape((height, width, channels) if channels > 1 else (height, width))

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "keys": self.keys}  # another process maps the files itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.files, self.keys = state["files"], state["keys"]
        self._open()


def images_of(source: Source, ids: Sequence[str]) -> Pixels:
    """The source's images by position in `ids`, from files or from the cache, as `source.cache` says."""
    files = ImageFiles([source.image_path(image_id) for image_id in ids])
    if source.cache == "none":
        return files
    return packed(source, "images", [image_key(source, image_id) for image_id in ids], files)


def masks_of(source: Source, ids: Sequence[str]) -> Pixels:
    """The masks of class indices by position in `ids`, as the source shows them, from files or from the cache."""
    files = MaskFiles(source, ids)
    return files if source.cache == "none" else packed(source, "masks", mask_keys(source, ids), files)


def flows_of(source: Source, ids: Sequence[str]) -> Flows:
    """The source's optical flow by position in `ids`, from files or from the cache. Raises as `Source.next_frame`."""
    pairs, files = [(frame, source.next_frame(frame)) for frame in ids], FlowFiles(source, ids)
    if source.cache == "none":
        return Flows(files)
    return Flows(packed(source, "flow", [image_key(source, *pair) for pair in pairs], files))


def mask_keys(source: Source, ids: Sequence[str]) -> list[str]:
    """16 hex digits for each mask, over it and over what makes something else of it: settings, the files it reads."""
    sight, drawn = source.sight, [source.fingerprint([image_id]) for image_id in ids]
    if sight is None or not sight.key:
        return drawn
    contents: dict[Path, bytes] = {}  # one file may hold the labels of all images

    def content(path: Path) -> bytes:
        if path not in contents:
            contents[path] = hashlib.sha256(path.read_bytes()).digest()
        return contents[path]

    files = [b"".join(map(content, sight.files(source, image_id))) for image_id in ids]
    texts = [f"{mask}\0{sight.key}".encode() for mask in drawn]
    return [hashlib.sha256(text + read).hexdigest()[:16] for text, read in zip(texts, files, strict=True)]


def image_key(source: Source, *ids: str) -> str:
    """16 hex digits over ids, places, sizes and times of image files: another file is another key."""
    digest = hashlib.sha256()
    for image_id in ids:
        path = source.image_path(image_id)
        stat = path.stat() if path.is_file() else None
        digest.update(f"{image_id}\0{path.resolve()}\0{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:16]


def packed(source: Source, part: str, keys: Sequence[str], arrays: Pixels) -> Packed:
    """One part of a data set by position, out of its cache files.

    What none of them holds yet becomes one more; the first process that asks decodes it, while others wait.

    Args:
        source: the data set.
        part: names the folder of its files.
        keys: of the arrays; those of one key are the same.
        arrays: decoded where they are missing.
    """
    folder = cache_folder(source.cache_dir) / f"{source.name}-{part}"
    folder.mkdir(parents=True, exist_ok=True)
    files, missing = _held(folder, keys)
    if missing:
        with FileLock(f"{folder}.lock"):  # the operating system releases it when its holder is killed
            files, missing = _held(folder, keys)
            if missing:
                for left in folder.glob(".*.partial.u8"):
                    left.unlink()
                path = folder / f"{hashlib.sha256(''.join(missing).encode()).hexdigest()[:16]}.u8"
                log.info("caching %s of %s in %s: %s", part, source.name, path, f"{len(missing):,}")
                pack(path, list(missing), (arrays[position] for position in missing.values()))
                files.append(path)
    return Packed(files, keys)


def _held(folder: Path, keys: Sequence[str]) -> tuple[list[Path], dict[str, int]]:
    """The cache files that hold some of the keys, and the position of each key that none holds."""
    files, missing = [], {key: position for position, key in enumerate(keys)}
    for path in sorted(folder.glob("[!.]*.u8")):
        table = _whole(path) if missing else None
        found = [] if table is None else [key for key in _keys(table) if key in missing]
        for key in found:
            del missing[key]
        files += [path] if found else []
    return files, missing


def pack(path: Path, keys: Sequence[str], arrays: Iterable[np.ndarray]) -> None:
    """Write uint8 arrays (H, W) or (H, W, 3) as one contiguous file, keys and shapes last; it appears when it is whole.

    Args:
        path: the file.
        keys: 16 characters for each array.
        arrays: in their order.
    """
    shapes = []
    with written(path, durable=True) as partial, partial.open("w+b") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)
            shapes.append((*array.shape[:2], array.shape[2] if array.ndim == 3 else 1))
        pixels, table = file.tell(), np.array(list(zip(keys, shapes, strict=True)), ROW).tobytes()
        footer = FOOTER.pack(len(shapes), _fingerprint(file, pixels, table), MAGIC)
        file.seek(0, os.SEEK_END)
        file.write(table + footer)


def _fingerprint(file: BinaryIO, pixels: int, table: bytes) -> bytes:
    """A hash over keys and shapes and both ends of so many bytes of pixels."""
    file.seek(0)
    digest = hashlib.blake2b(table + file.read(min(ENDS, pixels)), digest_size=16)
    file.seek(max(0, pixels - ENDS))
    digest.update(file.read(min(ENDS, pixels)))
    return digest.digest()


def _whole(path: Path) -> np.ndarray | None:
    """Keys and shapes (`ROW`) of the arrays in a cache file; None if it is missing, cut, or another at its ends."""
    size = path.stat().st_size if path.is_file() else 0
    if size < FOOTER.size:
        return None
    with path.open("rb") as file:
        file.seek(-FOOTER.size, os.SEEK_END)
        count, fingerprint, magic = FOOTER.unpack(file.read())
        pixels = size - FOOTER.size - count * ROW.itemsize
        if magic != MAGIC or count < 0 or pixels < 0:
            return None
        file.seek(pixels)
        text = file.read(count * ROW.itemsize)
        table = np.frombuffer(text, ROW)
        shapes = table["shape"]
        fits = (shapes >= 0).all() and int(shapes.prod(axis=1).sum()) == pixels
        return table if fits and _fingerprint(file, pixels, text) == fingerprint else None


def _keys(table: np.ndarray) -> list[str]:
    keys: list[str] = table["key"].astype(str).tolist()
    return keys
