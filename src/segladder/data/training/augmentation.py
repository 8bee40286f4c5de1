"""Training augmentation: random size, crop, flip, colour jitter; uint8 in and out, a pure function of a seed."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import cv2
import numpy as np

from segladder.data.sources.base import IGNORE
from segladder.errors import ConfigError

Range = Sequence[float]
Places = tuple[np.ndarray | None, np.ndarray | None]  # where an image and its mask are to be written


class Axis(NamedTuple):
    """One axis, in pixels: the source window [start, stop), the length of its result and its place in the crop."""

    start: int
    stop: int
    length: int
    place: int


class TrainAugmentation:
    """Random size, crop, horizontal flip and colour jitter of an image and its mask, a pure function of a seed.

    The recipe is that of resizing the whole image, cropping a random window and padding what is smaller at a random
    place, without computing what the crop throws away: a window that begins at a whole source pixel is cut out first
    and resized by exactly the drawn factor, so the sampling grid lies at most half a source pixel off that of the whole
    image. Images are resized bilinearly, masks to the nearest value, both with pixel centres aligned. Colours are
    jittered in that window; padding keeps its value.

    Args:
        scale: [lowest, highest] resize factor, or null.
        long_side: [shortest, longest] longer side after resizing in pixels, or null; not together with `scale`.
        crop: side of the square crop in pixels, or null for the whole image; masks are padded with 255.
        fill: RGB value that pads images smaller than the crop.
        flip: probability of a horizontal flip.
        brightness: the image times 1 +- this, or 0.
        contrast: likewise, around the mean gray.
        saturation: likewise, between gray and colour.
        hue: hue shift in turns, +- this, or 0.

    Raises:
        ConfigError: a range that is none, or both `scale` and `long_side`.
    """

    def __init__(
        self,
        scale: Range | None = None,
        long_side: Range | None = None,
        crop: int | None = None,
        fill: Sequence[int] = (124, 116, 104),
        flip: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        _check_ranges(scale, long_side)
        self.scale, self.long_side, self.crop = scale, long_side, crop
        self.fill, self.flip = tuple(fill), flip
        jitter = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        self.jitter = colour_jitter(jitter) if any(jitter.values()) else None

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, seed: int, out: Places = (None, None)
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Augment a uint8 image (H, W, 3) and its mask (H, W), or None, with the randomness of `seed`.

        With a `crop`, the results are written into the arrays of `out` that are given: (H, W, 3) and (H, W).
        """
        random = Random(seed)
        height, width = image.shape[:2]
        factor = max(
            self._draw_factor(random, max(height, width)), 1 / min(height, width)
        )  # at least one pixel is left
        rows, columns = self._draw_axis(random, height, factor), self._draw_axis(random, width, factor)
        flipped = random.random() < self.flip
        picture = image[rows.start : rows.stop, columns.start : columns.stop]
        if self.jitter is not None:
            self.jitter.set_random_seed(random.getrandbits(32))
            picture = self.jitter(image=picture)["image"]
        picture = self._padded(_bilinear(picture, factor, rows, columns, flipped), rows, columns, self.fill, out[0])
        if mask is None:
            return picture, None
        window = mask[rows.start : rows.stop, columns.start : columns.stop]
        return picture, self._padded(_nearest(window, factor, rows, columns, flipped), rows, columns, (IGNORE,), out[1])

    def _draw_factor(self, random: Random, longer: int) -> float:
        if self.long_side is not None:
            return random.uniform(*self.long_side) / longer
        return 1.0 if self.scale is None else random.uniform(*self.scale)

    def _draw_axis(self, random: Random, length: int, factor: float) -> Axis:
        result = max(1, round(length * factor))
        if self.crop is None:
            return Axis(0, length, result, 0)
        if result <= self.crop:
            return Axis(0, length, result, random.randint(0, self.crop - result))
        window = math.ceil(self.crop / factor)
        start = random.randint(0, length - window)
        return Axis(start, min(length, start + window + 1), self.crop, 0)  # one pixel more: the last one's neighbour

    def _padded(
        self, window: np.ndarray, rows: Axis, columns: Axis, value: Sequence[int], out: np.ndarray | None
    ) -> np.ndarray:
        """A window (h, w) or (h, w, 3) at its place in the crop."""
        if self.crop is None or (out is None and window.shape[:2] == (self.crop, self.crop)):
            return window
        below, right = self.crop - rows.place - rows.length, self.crop - columns.place - columns.length
        place = rows.place, below, columns.place, right
        return cv2.copyMakeBorder(window, *place, cv2.BORDER_CONSTANT, out, tuple(value))


def _bilinear(window: np.ndarray, factor: float, rows: Axis, columns: Axis, flipped: bool) -> np.ndarray:
    if factor != 1.0:
        window = cv2.resize(window, None, fx=factor, fy=factor)
    window = window[: rows.length, : columns.length]
    return cv2.flip(window, 1) if flipped else window


def _nearest(window: np.ndarray, factor: float, rows: Axis, columns: Axis, flipped: bool) -> np.ndarray:
    """The value under each result pixel's centre; cv2's exact mode rounds the factor to whole sizes, this does not."""
    at_row, at_column = (
        np.minimum((np.arange(0.5, axis.length) / factor).astype(np.intp), size - 1)
        for axis, size in zip((rows, columns), window.shape, strict=True)
    )
    at_column = at_column[::-1] if flipped else at_column
    if factor > 1:  # first the axis that leaves less to do
        taken: np.ndarray = _columns(window, at_column).take(at_row, axis=0)
        return taken
    return _columns(window.take(at_row, axis=0), at_column)


def _columns(mask: np.ndarray, at: np.ndarray) -> np.ndarray:
    """mask[:, at] three times as fast: as rows, which are copied whole."""
    return cv2.transpose(cv2.transpose(mask).take(at, axis=0))


def colour_jitter(strengths: Mapping[str, float]) -> Any:
    """albumentations' ColorJitter, imported only where it is used (it takes seconds)."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer version
    import albumentations

    ranges = {key: (-value, value) if key == "hue" else (1 - value, 1 + value) for key, value in strengths.items()}
    return albumentations.ColorJitter(p=1.0, **ranges)


def _check_ranges(scale: Range | None, long_side: Range | None) -> None:
    if scale is not None and long_side is not None:
        raise ConfigError("loader.augment: scale and long_side exclude each other; set one of them to null")
    for key, values in (("scale", scale), ("long_side", long_side)):
        if values is not None and not (len(values) == 2 and 0 < values[0] <= values[1]):
            raise ConfigError(f"loader.augment.{key}={list(values)}: expected [low, high] with 0 < low <= high")
