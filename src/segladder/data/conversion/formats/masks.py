"""Masks as pictures: colours, class numbers, or black and white."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from segladder.data.conversion.base import Entry, Reading, Watch, threaded
from segladder.data.conversion.listing import Listing
from segladder.data.conversion.naming import Naming, in_order
from segladder.data.conversion.pairing import EXPECTED, paired
from segladder.data.conversion.palette import palette_of
from segladder.data.conversion.raw_masks import Seen
from segladder.errors import DataError


def finds(listing: Listing) -> str | None:
    """Pairs of an image and a mask."""
    count = len(paired(listing).pairs)
    return f"{count} images with masks" if count else None


def read(listing: Listing, naming: Naming, watch: Watch) -> Reading:
    """The masks, once all of them have been looked at."""
    found = paired(listing)
    if not found.pairs:
        raise DataError(f"{listing.folder}: no image with a mask, expected {EXPECTED}")
    left_out, seen = list(found.alone), {}
    masks = [(image_id, mask) for image_id, (_, mask) in found.pairs.items()]
    for image_id, held in watch(threaded(_seen, masks), "looking at masks", len(masks)):
        if isinstance(held, str):
            left_out.append(held)
        else:
            seen[image_id] = held
    if not seen:
        raise DataError(left_out[len(found.alone)])
    palette = palette_of(list(seen.values()), naming, listing.files)
    entries = [Entry(i, found.pairs[i][0], seen[i].path, partial(palette.mask, seen[i])) for i in seen]
    words = f"{palette.words}; told from images {' and '.join(found.ways)}"
    if palette.guessed and (listed := in_order(listing.files)).names:
        words += f"; {listed.place} does not say which name is of which colour"
    return Reading(words, palette.classes(), entries, left_out, palette.asking())


def _seen(mask: tuple[str, Path]) -> tuple[str, Seen | str]:
    try:
        return mask[0], Seen.of(mask[1])
    except DataError as error:
        return mask[0], str(error)
