"""Pictures of results: image, truth, prediction and error map side by side.

Shown are the best, median and worst images of a run, and a few that are the same for every run on the same items.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from segladder.data.inspection.preview import font
from segladder.data.sources.palette import VOC_COLOURS, Colours
from segladder.files import written
from segladder.mask_values import IGNORE

if TYPE_CHECKING:
    from segladder.metrics.counts import Asked, Counts

PAPER, INK, IGNORED = (255, 255, 255), (30, 30, 30), (224, 224, 224)
ERRORS = {  # Okabe and Ito's colours, told apart by colour-blind readers, and of different lightness
    "correct": (0, 158, 115),
    "missed": (230, 159, 0),
    "invented": (0, 114, 178),
    "confused": (204, 121, 167),
}
HEADINGS = ("image", "truth", "prediction", "errors")
LONGEST = 512  # pixels of a picture's long side
SHORTEST = 200  # so that headings fit
GAP, LINE, SWATCH = 6, 18, 11
MOST_NAMED = 3  # classes in a title
SAME = "same"  # kind of the images that every run on the same items shows
PLACES = "segladder pictures"  # text of a panel's PNG: JSON, heading to left, top, right and bottom of its picture

Entry = tuple[str, tuple[int, ...]]  # a legend's name and colour
Load = Callable[["Asked"], tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]]


def error_map(truth: np.ndarray, prediction: np.ndarray, background: bool = True) -> np.ndarray:
    """What kind of error each pixel is, uint8 RGB (H, W, 3).

    White: background and found as such. `correct`: an object of its class; `missed`: an object predicted as
    background; `invented`: background predicted as an object; `confused`: an object of another class. Gray: ignored.

    Args:
        truth: class indices (H, W), 0 = background, 255 = ignored.
        prediction: class indices (H, W).
        background: whether index 0 is the background; without one all pixels are of objects.
    """
    pixels = np.full((*truth.shape, 3), PAPER, np.uint8)
    lowest = int(background)
    object_there, object_said, same = truth >= lowest, prediction >= lowest, truth == prediction
    pixels[object_there & same] = ERRORS["correct"]
    pixels[object_there & ~object_said] = ERRORS["missed"]
    pixels[~object_there & object_said] = ERRORS["invented"]
    pixels[object_there & object_said & ~same] = ERRORS["confused"]
    pixels[truth == IGNORE] = IGNORED
    return pixels


def panel(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    classes: Sequence[str],
    title: str = "",
    beside: Mapping[str, np.ndarray] | None = None,
    colours: Colours = VOC_COLOURS,
) -> np.ndarray:
    """One picture of one result, uint8 RGB (h, w, 3): image, truth, prediction and errors over a legend.

    Args:
        image: RGB uint8 (H, W, 3).
        truth: class indices (H, W), 255 = ignored.
        prediction: class indices (H, W), at the size of `truth`.
        classes: a name per class index; those in truth or prediction go to the legend.
        title: a line above, such as the image's id and score.
        beside: further pictures RGB uint8 (H, W, 3) by heading, put in front.
        colours: of the classes.
    """
    beside = beside or {}
    palette = colours.table
    palette[IGNORE] = IGNORED
    errors = error_map(truth, prediction, colours.background)
    pictures = [*beside.values(), image, palette[truth], palette[prediction], errors]
    width, height = shown_size(*image.shape[1::-1])
    resampling = [Image.Resampling.BILINEAR] * (len(beside) + 1) + [Image.Resampling.NEAREST] * 3
    shown = [Image.fromarray(p).resize((width, height), r) for p, r in zip(pictures, resampling, strict=True)]
    sheet_width = GAP + len(shown) * (width + GAP)
    legends = _class_legend(classes, truth, prediction, palette), _error_legend(errors)
    rows = [row for legend in legends for row in _wrapped(legend, sheet_width)]
    top = GAP + LINE * (2 if title else 1)
    sheet = Image.new("RGB", (sheet_width, top + height + GAP + LINE * len(rows) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((GAP, GAP - 2), title, INK, font())
    for i, (heading, picture) in enumerate(zip((*beside, *HEADINGS), shown, strict=True)):
        left = GAP + i * (width + GAP)
        draw.text((left, top - LINE), heading, INK, font())
        sheet.paste(picture, (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=IGNORED)
    for i, row in enumerate(rows):
        _draw_legend(draw, row, top + height + GAP + i * LINE)
    return np.asarray(sheet)


def chosen(counts: Counts, each: int) -> list[tuple[str, Asked, float]]:
    """The best, median and worst rows by their own mean IoU: kind, what was asked and IoU; no row twice."""
    scores = counts.image_iou()
    order = sorted((-scores[i], counts.asked[i], i) for i in np.flatnonzero(~np.isnan(scores)))
    ranked = [(asked, float(-negative)) for negative, asked, _ in order]
    best, rest = ranked[:each], ranked[each:]
    worst, rest = rest[::-1][:each], rest[: max(0, len(rest) - each)]
    middle = max(0, (len(rest) - each) // 2)
    kinds = {"best": best, "median": rest[middle : middle + each], "worst": worst}
    return [(kind, *image) for kind, images in kinds.items() for image in images]


def shared(counts: Counts, each: int, background: bool = True) -> list[tuple[str, Asked, float]]:
    """Rows that follow from what was asked and from the truth alone: equal for whoever answers; of kind `same`.

    Args:
        counts: of a run.
        each: how many rows at most, of images that hold a class.
        background: whether index 0 is none.
    """
    holds = [bool(matrix[int(background) :].sum()) for _, matrix in counts.rows()]
    scores = counts.image_iou()
    rows = sorted(
        (hashlib.sha256(f"{asked.image} {asked.classes}".encode()).digest(), i)
        for i, asked in enumerate(counts.asked)
        if holds[i] and not np.isnan(scores[i])
    )
    return [(SAME, counts.asked[i], float(scores[i])) for _, i in rows[:each]]


def places(image: np.ndarray, beside: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
    """Where in a titled panel of an image (H, W, 3) each picture lies: left, top, right, bottom by heading."""
    width, height = shown_size(*image.shape[1::-1])
    top = GAP + 2 * LINE
    lefts = {heading: GAP + i * (width + GAP) for i, heading in enumerate((*beside, *HEADINGS))}
    return {heading: (left, top, left + width, top + height) for heading, left in lefts.items()}


def save_panels(
    folder: str | Path, counts: Counts, each: int, load: Load, classes: Sequence[str], colours: Colours = VOC_COLOURS
) -> list[Path]:
    """Write `best-1-ID.png`, ..., `median-1-ID.png`, ..., `worst-1-ID.png` (worst first), `same-1-ID.png`, ...

    Returns the files. Each says in its text where its pictures lie (`PLACES`).

    Args:
        folder: created if missing.
        counts: of the scored images; ranks them.
        each: how many of each kind.
        load: what was asked to image uint8 (H, W, 3), truth (H, W), prediction (H, W) and further pictures by heading.
        classes: a name per class index.
        colours: of the classes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    place: dict[str, int] = {}
    for kind, asked, score in [*chosen(counts, each), *shared(counts, each, colours.background)]:
        place[kind] = place.get(kind, 0) + 1
        name = " ".join([asked.image, *(classes[k] for k in asked.classes[:MOST_NAMED])])
        title = f"{name}: mean IoU {100 * score:.1f} ({kind} {place[kind]})"
        file = folder / f"{kind}-{place[kind]}-{re.sub(r'[^A-Za-z0-9_.]+', '_', name)[:80]}.png"
        image, truth, prediction, beside = load(asked)
        about = PngInfo()
        about.add_itxt(PLACES, json.dumps(places(image, list(beside))))
        with written(file) as partial:
            sheet = Image.fromarray(panel(image, truth, prediction, classes, title, beside, colours))
            sheet.save(partial, format="PNG", pnginfo=about)
        files.append(file)
    return files


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Enlarged or reduced so that headings fit and sheets stay readable."""
    factor = min(LONGEST / max(width, height), max(1.0, SHORTEST / width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _class_legend(
    classes: Sequence[str], truth: np.ndarray, prediction: np.ndarray, palette: np.ndarray
) -> list[Entry]:
    """Classes present, and the ignored value if present."""
    present = np.union1d(np.unique(truth), np.unique(prediction))
    entries = [(name, tuple(map(int, palette[k]))) for k, name in enumerate(classes) if k in present]
    return entries + ([("ignored", IGNORED)] if IGNORE in present else [])


def _error_legend(errors: np.ndarray) -> list[Entry]:
    """Kinds of error present in an error map."""
    return [(name, colour) for name, colour in ERRORS.items() if (errors == colour).all(-1).any()]


def _wrapped(legend: Sequence[Entry], width: int) -> list[list[Entry]]:
    """Legend entries in rows that fit the width."""
    rows: list[list[Entry]] = [[]]
    right = GAP
    for entry in legend:
        needed = _entry_width(entry[0])
        if rows[-1] and right + needed > width:
            rows.append([])
            right = GAP
        rows[-1].append(entry)
        right += needed
    return rows


def _entry_width(name: str) -> int:
    return SWATCH + 4 + round(font().getlength(name)) + 14


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    row: Sequence[Entry],
    top: int,
) -> None:
    left = GAP
    for name, colour in row:
        draw.rectangle((left, top + 3, left + SWATCH, top + 3 + SWATCH), fill=colour, outline=INK)
        draw.text((left + SWATCH + 4, top), name, INK, font())
        left += _entry_width(name)
