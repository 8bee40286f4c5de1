"""Training augmentation: random size, crop, flip, colour jitter; uint8 in and out, a pure function of a seed."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer version
import albumentations as A

from segladder.data.source import IGNORE
from segladder.errors import ConfigError

Range = Sequence[float]


class ScaleCrop(A.DualTransform):
    """Resize by a random factor and crop a random window, padded at a random place where the result is smaller.

    The same recipe as resizing the whole image and cropping it, without computing what the crop throws away: a window
    that begins at a whole source pixel is cut out first and resized by exactly the drawn factor (the sampling grid lies
    at most half a source pixel off the grid of the whole image's resize). Images bilinear, masks nearest, both with
    pixel centres aligned.

    Args:
        scale: range of the factor, or None.
        long_side: range of the longer side in pixels, or None.
        crop: side of the square crop in pixels, or None to keep the whole resized image.
        fill: RGB value of padding; masks are padded with 255.
    """

    def __init__(self, scale: Range | None, long_side: Range | None, crop: int | None, fill: Sequence[float]) -> None:
        super().__init__(p=1.0)
        self.scale = scale
        self.long_side = long_side
        self.crop = crop
        self.fill = tuple(fill)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the factor and, per axis, the source window and the place of its result in the crop."""
        height, width = params["shape"][:2]
        factor = max(self._draw_factor(max(height, width)), 1 / min(height, width))  # nothing shrinks to nothing
        return {"factor": factor, "rows": self._draw_axis(height, factor), "columns": self._draw_axis(width, factor)}

    def apply(self, img: np.ndarray, factor: float, rows: Axis, columns: Axis, **params: Any) -> np.ndarray:
        """Image (H, W, 3) to (crop, crop, 3)."""
        return self._window(img, factor, rows, columns, cv2.INTER_LINEAR, self.fill)

    def apply_to_mask(self, mask: np.ndarray, factor: float, rows: Axis, columns: Axis, **params: Any) -> np.ndarray:
        """Mask (H, W) to (crop, crop)."""
        return self._window(mask, factor, rows, columns, cv2.INTER_NEAREST_EXACT, IGNORE)

    def _draw_factor(self, longer: int) -> float:
        if self.long_side is not None:
            return self.py_random.uniform(*self.long_side) / longer
        return 1.0 if self.scale is None else self.py_random.uniform(*self.scale)

    def _draw_axis(self, length: int, factor: float) -> Axis:
        result = max(1, round(length * factor))
        if self.crop is None:
            return 0, length, result, 0, result
        if result <= self.crop:
            return 0, length, result, self.py_random.randint(0, self.crop - result), self.crop
        window = math.ceil(self.crop / factor)
        start = self.py_random.randint(0, length - window)
        return (
            start,
            min(length, start + window + 1),
            self.crop,
            0,
            self.crop,
        )  # one pixel more: the last one's neighbour

    def _window(self, array: np.ndarray, factor: float, rows: Axis, columns: Axis, how: int, fill: Any) -> np.ndarray:
        (top, bottom, height, above, total), (left, right, width, before, across) = rows, columns
        window = array[top:bottom, left:right]
        if factor != 1.0:
            window = cv2.resize(window, None, fx=factor, fy=factor, interpolation=how)
        window = window[:height, :width]
        if window.shape[:2] == (total, across):
            return window
        height, width = window.shape[:2]
        below, after = total - above - height, across - before - width
        return cv2.copyMakeBorder(window, above, below, before, after, cv2.BORDER_CONSTANT, value=fill)


Axis = tuple[int, int, int, int, int]  # source window [start, end), length of its result, its place, output length


class TrainAugmentation:
    """Random size, crop, horizontal flip and colour jitter of an image and its mask, a pure function of a seed.

    In this order: the jitter sees the crop with its padding, which is much cheaper than jittering large photographs.

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
        fill: Sequence[float] = (124, 116, 104),
        flip: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ) -> None:
        _check_ranges(scale, long_side)
        jitter = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        transforms: list[A.BasicTransform] = [ScaleCrop(scale, long_side, crop, fill)]
        if flip:
            transforms.append(A.HorizontalFlip(p=flip))
        if any(jitter.values()):
            ranges = {key: (-value, value) if key == "hue" else (1 - value, 1 + value) for key, value in jitter.items()}
            transforms.append(A.ColorJitter(p=1.0, **ranges))
        self.pipeline = A.Compose(transforms)

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Augment a uint8 image (H, W, 3) and its mask (H, W), or None, with the randomness of `seed`."""
        for position, transform in enumerate(self.pipeline.transforms):
            transform.set_random_seed((seed * 8 + position) % 2**63)  # Compose would give each the same random numbers
        if mask is None:
            return self.pipeline(image=image)["image"], None
        result = self.pipeline(image=image, mask=mask)
        return result["image"], result["mask"]


def _check_ranges(scale: Range | None, long_side: Range | None) -> None:
    if scale is not None and long_side is not None:
        raise ConfigError("loader.augment: scale and long_side exclude each other; set one of them to null")
    for key, values in (("scale", scale), ("long_side", long_side)):
        if values is not None and not (len(values) == 2 and 0 < values[0] <= values[1]):
            raise ConfigError(f"loader.augment.{key}={list(values)}: expected [low, high] with 0 < low <= high")
