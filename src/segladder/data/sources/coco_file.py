"""One JSON file in COCO's format: images, categories and the objects on them, every fault named by file and id."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import orjson

from segladder.data.sources.decoding import LARGEST
from segladder.errors import ConfigError, DataError
from segladder.foreign import content, is_name, printable, stays_inside, text

Outline = list[list[float]] | dict[str, Any]


class CocoObject(NamedTuple):
    """One entry of `annotations`.

    Attributes:
        number: its id.
        value: the mask value of its category: 1 the category of the lowest id.
        crowd: whether it stands for many objects that nobody outlined one by one.
        outline: polygons [[x, y, x, y, ...], ...], or run lengths {size, counts}.
    """

    number: int
    value: int
    crowd: bool
    outline: Outline


@dataclass(frozen=True)
class CocoImage:
    """One entry of `images` with its objects.

    Attributes:
        number: its id in the file.
        name: `file_name`, below the folder of images.
        height: in pixels, like `width`.
        objects: in the order of the file.
    """

    number: int
    name: str
    height: int
    width: int
    objects: list[CocoObject] = field(default_factory=list)


@dataclass(frozen=True)
class CocoFile:
    """What a file says.

    Attributes:
        path: of the file.
        categories: names, by ascending id.
        images: by the name of the image without its suffix, in the order of the file.
    """

    path: Path
    categories: tuple[str, ...]
    images: dict[str, CocoImage]

    @classmethod
    def read(cls, path: Path) -> CocoFile:
        """Raises DataError for a missing or damaged file, or one whose ids do not fit together."""
        with uncollected():
            return cls._of(path, _json(path))

    @classmethod
    def _of(cls, path: Path, whole: Any) -> CocoFile:
        values, names = _categories(path, _entries(path, whole, "categories"))
        found: dict[str, CocoImage] = {}
        by_number: dict[int, CocoImage] = {}
        for entry in _entries(path, whole, "images"):
            image = _image(path, entry)
            key = PurePosixPath(image.name).with_suffix("").as_posix()
            if image.number in by_number or key in found:
                raise DataError(f"{path}: image {image.number} ({image.name}) stands twice, expected each once")
            found[key] = by_number[image.number] = image
        for entry in _entries(path, whole, "annotations"):
            number, of_image = _whole(path, "annotation", entry, "id"), entry.get("image_id")
            if isinstance(of_image, (list, dict)) or of_image not in by_number:
                fault = f"image {printable(repr(of_image))} is not among the images of the file"
                raise DataError(f"{path}: annotation {number}: {fault}")
            category = entry.get("category_id")
            if isinstance(category, (list, dict)) or category not in values:
                fault = f"category {printable(repr(category))} is not among the categories of the file"
                raise DataError(f"{path}: annotation {number}: {fault}")
            outline, crowd = entry.get("segmentation"), bool(entry.get("iscrowd", 0))
            if not isinstance(outline, (list, dict)):
                fault = "no segmentation, expected polygons or run lengths"
                raise DataError(f"{path}: annotation {number} of image {of_image}: {fault}")
            by_number[of_image].objects.append(CocoObject(number, values[category], crowd, outline))
        return cls(path, names, found)

    def owners(self, image: CocoImage) -> np.ndarray:
        """The object that has each pixel, int32 (H, W): 0 none, 1 the first of `image.objects`.

        Crowds lie below, then objects, the largest first, of equal ones the later in the file. Memory
        holds one decoded object at a time. Raises DataError naming file, object and image.
        """
        pixels = image.height * image.width
        owners = np.zeros((image.height, image.width), np.int32, order="F")  # column by column, like run lengths
        levels = np.zeros_like(owners)  # of what has the pixel; the higher one lies on top
        for k, each in enumerate(image.objects, 1):
            mask = self._mask(image, each)
            level = pixels + 1 - np.count_nonzero(mask) + (0 if each.crowd else pixels + 1)
            mask &= levels <= level
            owners[mask], levels[mask] = k, level
        return np.ascontiguousarray(owners)

    def _mask(self, image: CocoImage, each: CocoObject) -> np.ndarray:
        try:
            return decoded(each.outline, image.height, image.width)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            where = f"{self.path}: annotation {each.number} of image {image.number} ({image.name})"
            raise DataError(f"{where}: {printable(str(error))}") from error


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: of millions of objects that all stay it takes as long as making them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def decoded(outline: Outline, height: int, width: int) -> np.ndarray:
    """Polygons or run lengths as a mask, bool (height, width).

    Raises:
        ValueError: polygons or run lengths that are damaged or do not fit the image.
        ConfigError: pycocotools is not installed.
    """
    rle = codec()
    if isinstance(outline, list):
        runs = rle.merge(rle.frPyObjects(_polygons(outline, height, width), height, width))
        return np.asarray(rle.decode(runs), bool)
    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise ValueError(f"run lengths of size {size}, expected [{height}, {width}] (height, width) like its image")
    if isinstance(counts, list):
        if not all(isinstance(count, int) and 0 <= count <= height * width for count in counts):
            raise ValueError("run lengths that are no whole numbers of pixels of the image")
        runs = rle.frPyObjects(outline, height, width)
    elif isinstance(counts, str):
        runs = {"size": [height, width], "counts": counts.encode()}
    else:
        raise ValueError("no counts, expected a list or COCO's compressed text")
    try:
        mask = np.asarray(rle.decode(runs), bool)
    except ValueError as error:
        raise ValueError(f"broken run lengths: they do not fit {height * width} pixels") from error
    if _fits(rle, runs["counts"], height * width - 1):  # then the decoder leaves the rest to chance
        raise ValueError(f"broken run lengths: they end before the last of {height * width} pixels")
    return mask


def _fits(rle: Any, counts: bytes, pixels: int) -> bool:
    """Whether run lengths cover no more than so many pixels."""
    try:
        rle.decode({"size": [pixels, 1], "counts": counts})
    except ValueError:
        return False
    return True


def codec() -> Any:
    """What reads run lengths and polygons. Raises ConfigError where pycocotools is not installed."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ConfigError("COCO's masks are read with pycocotools: pip install 'segladder[coco]'") from error
    return mask


def _polygons(outline: Sequence[Any], height: int, width: int) -> list[list[float]]:
    far = max(height, width)
    if not outline:
        raise ValueError("no outline (a box alone), expected polygons or run lengths; leave it out, or draw it")
    for polygon in outline:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon without three points or more, expected [x, y, x, y, x, y, ...]")
        for value in polygon:
            if not isinstance(value, (int, float)) or not math.isfinite(value) or not -far <= value <= 2 * far:
                raise ValueError(f"a polygon through {value!r}, far outside the {width}x{height} pixels of its image")
    return list(outline)


def _json(path: Path) -> Any:
    """The value of a JSON file; what orjson refuses (NaN, a mark of byte order) Python's own reader may know."""
    try:
        data = content(path)
        try:
            return orjson.loads(data)
        except ValueError:
            return json.loads(text(path))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}, expected a file in COCO's format") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}), expected JSON in COCO's format") from error


def _entries(path: Path, whole: Any, key: str) -> list[Mapping[str, Any]]:
    entries = whole.get(key) if isinstance(whole, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: no list of {key}, expected COCO's images, categories and annotations")
    return entries


def _categories(path: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[dict[int, int], tuple[str, ...]]:
    """Mask value of each category id, and their names in that order."""
    names = {_whole(path, "category", entry, "id"): entry.get("name") for entry in entries}
    if not names or len(names) != len(entries) or len({*map(str, names.values())}) != len(names):
        raise DataError(f"{path}: categories without names and ids of their own, expected one or more")
    if wrong := [number for number, name in names.items() if not is_name(name)]:
        raise DataError(f"{path}: category {wrong[0]} has no name, got {names[wrong[0]]!r}")
    ordered = sorted(names)
    return {number: k for k, number in enumerate(ordered, 1)}, tuple(printable(str(names[n]).strip()) for n in ordered)


def _image(path: Path, entry: Mapping[str, Any]) -> CocoImage:
    number, name = _whole(path, "image", entry, "id"), entry.get("file_name")
    if not is_name(name) or not stays_inside(name):
        raise DataError(f"{path}: image {number}: file_name {name!r}, expected a path below the folder of images")
    height, width = (_whole(path, f"image {number}", entry, side) for side in ("height", "width"))
    if min(height, width) < 1 or height * width > LARGEST:
        raise DataError(f"{path}: image {number} ({name}): {width}x{height} pixels, expected 1 to {LARGEST:,}")
    return CocoImage(number, name, height, width)


def _whole(path: Path, kind: str, entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{path}: {kind}: {key} {printable(repr(value))}, expected a whole number")
    return value
