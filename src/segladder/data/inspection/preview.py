"""A contact sheet: what the network is shown, beside the same picture with its mask drawn over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segladder.data.sources.palette import VOC_COLOURS, Colours
from segladder.mask_values import IGNORE

CELL = 240  # longer side of a picture in pixels
GAP = 8
LINE = 16


def contact_sheet(
    items: Sequence[tuple[str, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    columns: int,
    colours: Colours = VOC_COLOURS,
) -> Image.Image:
    """Pairs picture | picture with mask in `columns` columns, their ids, and a legend of the classes below.

    Args:
        items: (id, image uint8 (H, W, 3), mask uint8 (H, W) of indices into `classes`, 255 ignored).
        classes: names of the mask's values.
        columns: pairs side by side.
        colours: of the classes.
    """
    width, height = 2 * CELL + GAP, CELL + LINE + GAP  # of a pair
    rows = -(-len(items) // columns)
    across = columns * (width + GAP) + GAP
    legend = draw_legend(classes, across, colours)
    sheet = Image.new("RGB", (across, rows * height + GAP + legend.height), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (image_id, image, mask) in enumerate(items):
        left, top = GAP + place % columns * (width + GAP), GAP + place // columns * height
        draw.text((left, top), fitting(f"{image_id}  {image.shape[1]}x{image.shape[0]}", width - GAP), "black", font())
        for offset, picture in ((0, image), (CELL + GAP, overlay(image, mask, colours))):
            sheet.paste(fitted(picture), (left + offset, top + LINE))
    sheet.paste(legend, (0, rows * height + GAP))
    return sheet


@cache
def font() -> ImageFont.FreeTypeFont:
    """Letters of most alphabets; Pillow's own font has those of English alone."""
    import matplotlib  # takes a while

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 11)


def fitting(line: str, width: int) -> str:
    """The end of a line, as much of it as fits into so many pixels."""
    if font().getlength(line) <= width:
        return line
    return next(cut for k in range(1, len(line)) if font().getlength(cut := f"…{line[k:]}") <= width)


def overlay(image: np.ndarray, mask: np.ndarray, colours: Colours = VOC_COLOURS) -> np.ndarray:
    """The image with its mask's colours half over it; the background stays as it is. uint8 (H, W, 3)."""
    mixed = (image.astype(np.uint16) + colours.table[mask]) // 2  # (H, W, 3)
    return np.where(colours.shown(mask)[..., None], mixed, image).astype(np.uint8)


def fitted(picture: np.ndarray) -> Image.Image:
    """The picture, not larger than a cell; a small one enlarged by a whole number, so that its pixels show."""
    image = Image.fromarray(picture)
    image.thumbnail((CELL, CELL))
    factor = CELL // max(image.size)
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)


def draw_legend(classes: Sequence[str], width: int, colours: Colours = VOC_COLOURS) -> Image.Image:
    """A coloured square and a name for each class but the background, and for what is ignored, in lines of `width`."""
    entries = [*list(enumerate(classes))[int(colours.background) :], (IGNORE, "ignored")]
    step = 24 + max(math.ceil(font().getlength(name)) for _, name in entries)
    per_line = max(1, (width - GAP) // step)
    legend = Image.new("RGB", (width, (-(-len(entries) // per_line)) * LINE + GAP), "white")
    draw = ImageDraw.Draw(legend)
    for place, (value, name) in enumerate(entries):
        left, top = GAP + place % per_line * step, place // per_line * LINE
        draw.rectangle((left, top, left + 11, top + 11), fill=tuple(colours.table[value].tolist()), outline="black")
        draw.text((left + 16, top), name, "black", font())
    return legend
