"""COCO: JSON files of many images, with polygons and run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from segladder.data.conversion.base import Entry, Found, Reading, Watch
from segladder.data.conversion.listing import Listing
from segladder.data.conversion.naming import Naming, in_order
from segladder.data.conversion.pairing import id_of
from segladder.data.sources.coco_file import CocoFile, CocoImage, codec
from segladder.errors import ConfigError


def finds(listing: Listing) -> str | None:
    """JSON files with COCO's keys."""
    count = len(listing.jsons("images", "annotations", "categories"))
    return f"{count} COCO files" if count else None


def read(listing: Listing, naming: Naming, watch: Watch) -> Reading:
    """Every file; categories of one name are one class."""
    if naming.looks is not None:
        raise ConfigError("classes: COCO's categories are named already; give their order alone, [background,...]")
    codec()
    paths = listing.jsons("images", "annotations", "categories")
    files = [CocoFile.read(path) for path in watch(paths, "reading COCO files", len(paths))]
    naming = naming if naming.names else in_order(listing.files)
    if not naming.names:
        found = dict.fromkeys(["background", *(name for file in files for name in file.categories)])
        naming = Naming(tuple(found), place=listing.place_of(paths))
    names = naming.names
    known = {*names[1:], *(name for name in names[:1] if name.lower() == "background")}  # the first class has no object
    if unknown := [(f.path, name) for f in files for name in f.categories if name not in known]:
        path, name = unknown[0]
        raise ConfigError(f"{path}: category {name} is not among {naming.told}")
    values = dict(zip(names, naming.values(), strict=True))
    entries: dict[str, Entry] = {}
    left_out: list[str] = []
    for file in files:
        table = [0, *(values[name] for name in file.categories)]
        for each in file.images.values():
            image = listing.image(each.name, file.path)
            if image is None:
                left_out.append(
                    f"{file.path}: no file {each.name} of image {each.number} below {listing.folder}, or several"
                )
                continue
            image_id = id_of(listing, image)
            if image_id in entries:
                left_out.append(f"{file.path}: image {each.number} ({image}) is that of {entries[image_id].told} too")
                continue
            entries[image_id] = Entry(image_id, image, file.path, partial(_drawn, file, each, table))
    named = {entry.image for entry in entries.values()}
    left_out += [f"{path}: an image that no COCO file names" for path in listing.pictures if path not in named]
    classes = [Found(values[name], name, f"category {name}" if values[name] else "no object") for name in names]
    return Reading(
        "COCO files; of objects that overlap the smaller one has the pixel", classes, list(entries.values()), left_out
    )


def _drawn(file: CocoFile, image: CocoImage, table: Sequence[int]) -> np.ndarray:
    """Class values uint8 (H, W) of an image; `table` has those of the categories."""
    values = np.array([0, *(table[each.value] for each in image.objects)], np.uint8)
    mask: np.ndarray = values[file.owners(image)]
    return mask
