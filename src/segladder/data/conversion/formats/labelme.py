"""LabelMe: a JSON file for each image, with polygons, rectangles, circles and masks."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.draw import polygon

from segladder.data.conversion.base import Entry, Found, Reading, Watch
from segladder.data.conversion.listing import Listing
from segladder.data.conversion.naming import IGNORED, Naming, in_order
from segladder.data.conversion.pairing import id_of
from segladder.data.sources.decoding import DAMAGE, LARGEST
from segladder.errors import ConfigError, DataError
from segladder.foreign import is_name, printable, text
from segladder.mask_values import IGNORE

BACKGROUND = ("background", "_background_", "__background__")
POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}  # of a shape with an area
THIN = ("point", "points", "line", "linestrip")


def finds(listing: Listing) -> str | None:
    """JSON files with LabelMe's keys."""
    count = len(listing.jsons("shapes", "imagePath"))
    return f"{count} LabelMe files" if count else None


def read(listing: Listing, naming: Naming, watch: Watch) -> Reading:
    """Every file, and the labels in them as classes in the order of the alphabet."""
    if naming.looks is not None:
        raise ConfigError("classes: LabelMe's labels are names already; give their order alone, [background,...]")
    naming = naming if naming.names else in_order(listing.files)
    paths = listing.jsons("shapes", "imagePath")
    left_out: list[str] = []
    labels, images = set(naming.names[1:]), dict[str, tuple[Path, Path]]()
    for path in watch(paths, "reading LabelMe files", len(paths)):
        try:
            file = _read(path)
            image = listing.image(file["imagePath"], path)
            if image is None:
                raise DataError(f"{path}: no image {printable(file['imagePath'])} below {listing.folder}, or several")
            image_id = id_of(listing, image)
            if image_id in images:
                raise DataError(f"{path}: of {image}, like {images[image_id][1]}, expected one file per image")
            _require_known(path, file, naming)
        except DataError as error:
            left_out.append(str(error))
            continue
        labels |= {shape["label"] for shape in file["shapes"]}
        images[image_id] = image, path
    known = {image for image, _ in images.values()} | {*paths}
    left_out += [
        f"{path}: an image without a LabelMe file"
        for path in listing.pictures
        if not {path, path.with_suffix(".json")} & known
    ]
    if not naming.names:
        found = sorted(labels - {*BACKGROUND, *IGNORED})
        naming = Naming(("background", *found), place=listing.place_of(paths))
    names = naming.names
    if len(names) < 2:
        empty = f"{paths[0]}: like every LabelMe file below {listing.folder}, no shape of a class"
        raise DataError(empty if images else left_out[0])
    values = dict(zip(names, naming.values(), strict=True))
    values |= dict.fromkeys(BACKGROUND, 0) | dict.fromkeys(IGNORED, IGNORE)
    entries = [Entry(i, image, path, partial(_drawn, path, values)) for i, (image, path) in images.items()]
    ignored = [Found(IGNORE, "ignore", " ".join(sorted(labels & {*IGNORED})))] if labels & {*IGNORED} else []
    classes = [Found(values[name], name, f"label {name}" if values[name] else "no shape") for name in names]
    return Reading("LabelMe files; a later shape lies on earlier ones", [*classes, *ignored], entries, left_out)


def _require_known(path: Path, file: Mapping[str, Any], naming: Naming) -> None:
    known = {*naming.names[1:], *BACKGROUND, *IGNORED}  # the first class has no shape
    unknown = [shape["label"] for shape in file["shapes"] if naming.names and shape["label"] not in known]
    if unknown:
        raise DataError(f"{path}: label {unknown[0]} is not among {naming.told}")


def _read(path: Path) -> Any:
    """A file's content, checked as far as drawing needs it."""
    try:
        file = json.loads(text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}), expected a LabelMe file") from error
    shapes = file.get("shapes") if isinstance(file, dict) else None
    if not isinstance(shapes, list) or not is_name(file.get("imagePath")):
        raise DataError(f"{path}: no list of shapes or no imagePath, expected a LabelMe file")
    for key in ("imageHeight", "imageWidth"):
        if not isinstance(file.get(key), int) or file[key] < 1:
            raise DataError(f"{path}: {key} {printable(repr(file.get(key)))}, expected a number of pixels")
    height, width = file["imageHeight"], file["imageWidth"]
    if height * width > LARGEST:
        raise DataError(f"{path}: {width}x{height} pixels, expected 1 to {LARGEST:,}")
    for number, shape in enumerate(shapes):
        place = f"{path}: shape {number}"
        if not isinstance(shape, dict) or not is_name(shape.get("label")):
            raise DataError(f"{place}: no label, expected the name of a class")
        shape["label"] = printable(shape["label"].strip())
        kind = shape.setdefault("shape_type", "polygon")
        if kind in THIN:
            raise DataError(f"{place} ({shape['label']}): a {kind} has no area; remove it or draw a polygon")
        if not isinstance(kind, str) or kind not in POINTS:
            raise DataError(f"{place} ({shape['label']}): shape_type {kind!r}, expected {', '.join(POINTS)}")
        if not _are_points(shape.get("points"), POINTS[kind]):
            raise DataError(f"{place} ({shape['label']}): {kind} with points that are none")
    return file


def _are_points(points: Any, fewest: int) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= fewest
        and all(isinstance(p, list) and len(p) == 2 and all(map(_is_place, p)) for p in points)
    )


def _is_place(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e6  # neither is NaN


def _drawn(path: Path, values: Mapping[str, int]) -> np.ndarray:
    """Class values uint8 (H, W) of a file."""
    file = _read(path)
    mask = np.zeros((file["imageHeight"], file["imageWidth"]), np.uint8)
    for number, shape in enumerate(file["shapes"]):
        try:
            mask[_area(shape, *mask.shape)] = values[shape["label"]]
        except (*DAMAGE, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: shape {number} ({shape['label']}): {error}") from error
    return mask


def _area(shape: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """The pixels of a shape, bool (height, width): those whose middle lies in it."""
    points = np.array(shape["points"], np.float64)
    area = np.zeros((height, width), np.uint8)
    kind = shape["shape_type"]
    if kind == "mask":
        return _stamped(shape, area)
    if kind == "circle":
        middle, rim = points[:2]
        rows, columns = np.ogrid[:height, :width]
        inside: np.ndarray = np.hypot(columns + 0.5 - middle[0], rows + 0.5 - middle[1]) <= np.hypot(*(rim - middle))
        return inside
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)  # two corners, or four as some programs write
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    area[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, area.shape)] = 1  # LabelMe counts from a pixel's edge
    return area > 0


def _stamped(shape: Mapping[str, Any], area: np.ndarray) -> np.ndarray:
    """A shape that is a small picture in base64 at its place."""
    (left, top) = np.rint(np.min(shape["points"], axis=0)).astype(int).tolist()
    with Image.open(io.BytesIO(base64.b64decode(str(shape.get("mask", ""))))) as picture:
        width, height = picture.size
        if top < 0 or left < 0 or top + height > area.shape[0] or left + width > area.shape[1]:
            raise ValueError(f"a mask of {width}x{height} at ({left}, {top}), outside the image")
        area[top : top + height, left : left + width] = np.array(picture.convert("L")) > 0
    return area > 0
