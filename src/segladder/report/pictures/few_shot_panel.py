"""Pictures of few-shot predictions: the supports, the image, the probability of their class and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from segladder.data.inspection.preview import font
from segladder.data.sources.palette import VOC_COLOURS, Colours
from segladder.report.pictures.panels import GAP, IGNORED, INK, LINE, PAPER, shown_size

MOST_SUPPORTS = 9  # in one picture
BAR = 96  # pixels of the colour scale
WHITE, YELLOW = (255, 255, 255), (255, 220, 0)

Annotated = tuple[np.ndarray, np.ndarray]  # image uint8 (H, W, 3) and mask (H, W), 1 = the class


def overlay(image: np.ndarray, prediction: np.ndarray, colours: Colours = VOC_COLOURS) -> np.ndarray:
    """An RGB image uint8 (H, W, 3) with the palette's colour over every predicted object of class indices (H, W)."""
    mixed = cv2.addWeighted(image, 0.5, colours.table[prediction], 0.5, 0)
    return np.where(colours.shown(prediction)[..., None], mixed, image)


def few_shot_panel(
    supports: Sequence[Annotated], image: np.ndarray, probabilities: np.ndarray, prediction: np.ndarray, title: str
) -> np.ndarray:
    """One picture of one prediction, uint8 RGB (h, w, 3): supports, image, probability and prediction side by side.

    The prediction's border is drawn in white on the probability, whose colours a scale beneath explains.

    Args:
        supports: image RGB uint8 (H, W, 3) and mask (H, W), 1 = the class, of any sizes; nine at most are shown.
        image: RGB uint8 (H, W, 3).
        probabilities: of each class, float (N, H, W) in 0..1; the highest at each pixel is shown.
        prediction: 0 = none of them, uint8 (H, W).
        title: a line above.
    """
    probability = probabilities.max(0)
    width, height = cell = shown_size(*image.shape[1::-1])
    shown = cv2.resize(prediction, cell, interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(image, cell, interpolation=cv2.INTER_AREA)
    heat = bordered(heat_map(cv2.resize(probability, cell, interpolation=cv2.INTER_LINEAR)), shown, WHITE)
    pictures = {
        _heading(len(supports)): montage(supports[:MOST_SUPPORTS], cell),
        "image": small,
        f"probability of the {'class' if len(probabilities) == 1 else 'likeliest class'}": heat,
        f"prediction: {100 * (prediction > 0).mean():.1f} % of the image": bordered(
            overlay(small, shown), shown, WHITE
        ),
    }
    top = GAP + 2 * LINE
    sheet = Image.new("RGB", (GAP + len(pictures) * (width + GAP), top + height + GAP + LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP - 2), title, INK, font())
    for i, (heading, picture) in enumerate(pictures.items()):
        left = GAP + i * (width + GAP)
        draw.text((left, top - LINE), heading, INK, font())
        sheet.paste(Image.fromarray(picture), (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=IGNORED)
    _draw_scale(sheet, GAP + 2 * (width + GAP), top + height + GAP, f"highest {probability.max():.2f}")
    return np.asarray(sheet)


def heat_map(values: np.ndarray) -> np.ndarray:
    """Values (H, W) in 0..1 in the colours of viridis, RGB uint8 (H, W, 3)."""
    levels = (255 * np.clip(values, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[..., ::-1])


def bordered(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """A copy of an RGB picture (H, W, 3) with the borders of a mask uint8 (H, W), holes included, as lines."""
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(picture.copy(), contours, -1, colour, 1)


def montage(supports: Sequence[Annotated], size: tuple[int, int]) -> np.ndarray:
    """Supports of any sizes in a square grid, each whole, on paper of `size` = (width, height)."""
    columns = math.ceil(math.sqrt(len(supports)))
    rows = math.ceil(len(supports) / columns)
    width, height = size[0] // columns, size[1] // rows
    sheet = np.full((size[1], size[0], 3), PAPER, np.uint8)
    for i, (image, mask) in enumerate(supports):
        factor = min(width / image.shape[1], height / image.shape[0])
        w, h = (max(1, int(side * factor)) for side in image.shape[1::-1])
        left, top = i % columns * width + (width - w) // 2, i // columns * height + (height - h) // 2
        sheet[top : top + h, left : left + w] = marked(image, mask, (w, h))
    return sheet


def marked(image: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An RGB image (H, W, 3) resized to (width, height): all but the mask darkened, its border yellow."""
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize((mask == 1).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return bordered(np.where(inside[..., None] > 0, small, small // 2), inside, YELLOW)


def _heading(supports: int) -> str:
    if supports == 1:
        return "support"
    return f"{supports} supports" + (f", {MOST_SUPPORTS} shown" if supports > MOST_SUPPORTS else "")


def _draw_scale(sheet: Image.Image, left: int, top: int, note: str) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((left, top), "0", INK, font())
    ramp = heat_map(np.tile(np.linspace(0, 1, BAR), (LINE - 6, 1)))
    sheet.paste(Image.fromarray(ramp), (left + 14, top + 3))
    draw.text((left + 14 + BAR + 6, top), f"1   {note}", INK, font())
