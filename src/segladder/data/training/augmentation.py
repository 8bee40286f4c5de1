"""Training augmentation: random size, crop, flip, colour jitter, then any of albumentations; a pure function of a seed.

uint8 in and out. This is the one file that imports albumentations, and only where it is used: that takes seconds.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
from pydantic import Field

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.settings import Byte, Positive, Share

NEIGHBOURING = "Morphological"  # the transform that computes with class numbers as if they were brightness
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
    jittered in that window; padding keeps its value. The transforms of `extra` see the padded crop.

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
        extra: transforms of albumentations, applied in order: `{name: GaussianBlur, p: 0.3}`. See `Extra`.

    Raises:
        ConfigError: a range that is none, both `scale` and `long_side`, or an unknown transform or argument in `extra`.
    """

    def __init__(
        self,
        scale: Range | None = None,
        long_side: Range | None = None,
        crop: Positive | None = None,
        fill: tuple[Byte, Byte, Byte] = (124, 116, 104),
        flip: Share = 0.0,
        brightness: Share = 0.0,
        contrast: Share = 0.0,
        saturation: Share = 0.0,
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
        extra: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        _check_ranges(scale, long_side)
        self.scale, self.long_side, self.crop = scale, long_side, crop
        self.fill, self.flip = tuple(fill), flip
        jitter = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        self.jitter = colour_jitter(jitter) if any(jitter.values()) else None
        self.extra = [Extra(item) for item in extra]

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, seed: int, out: Places = (None, None)
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Augment a uint8 image (H, W, 3) and its mask (H, W), or None, with the randomness of `seed`.

        With a `crop`, the results are written into the arrays of `out` that are given: (H, W, 3) and (H, W).
        """
        random = Random(seed)
        if not self.extra:
            return self._cropped(image, mask, random, out)
        picture, shown = self._cropped(image, mask, random, (None, None))
        for transform in self.extra:
            picture, shown = transform(picture, shown, random.getrandbits(32))
        return _placed(picture, out[0]), None if shown is None else _placed(shown, out[1])

    def moved(self, boxes: np.ndarray, shape: tuple[int, int], seed: int) -> np.ndarray:
        """Where boxes of an image of this shape (H, W) lie after it is augmented with a seed, float64 (N, 4).

        Boxes are left, top, right, bottom in pixels; what lies outside the result is cut off.
        """
        factor, rows, columns, flipped = self._drawn(Random(seed), shape)
        moved = boxes.astype(np.float64)
        for axis, sides in ((columns, (0, 2)), (rows, (1, 3))):
            moved[:, sides] = np.clip((moved[:, sides] - axis.start) * factor, 0, axis.length)
        if flipped:
            moved[:, [0, 2]] = columns.length - moved[:, [2, 0]]
        moved += np.array([columns.place, rows.place] * 2)
        return moved

    def moved_flow(self, flow: np.ndarray, seed: int) -> np.ndarray:
        """Relative flow float32 (H, W, 2) of an image as it is after that is augmented with a seed; padding stays.

        In a mirrored image what went right goes left. Vectors are relative, so that no size changes them.
        """
        factor, rows, columns, flipped = self._drawn(Random(seed), (flow.shape[0], flow.shape[1]))
        window = flow[rows.start : rows.stop, columns.start : columns.stop]
        moved = self._padded(_bilinear(window, factor, rows, columns, flipped), rows, columns, (0, 0), None)
        return moved * np.array([-1, 1], np.float32) if flipped else moved

    def _drawn(self, random: Random, shape: tuple[int, int]) -> tuple[float, Axis, Axis, bool]:
        """Factor, rows, columns and flip of an image of this shape (H, W); at least one pixel is left."""
        factor = max(self._draw_factor(random, max(shape)), 1 / min(shape))
        rows, columns = self._draw_axis(random, shape[0], factor), self._draw_axis(random, shape[1], factor)
        return factor, rows, columns, random.random() < self.flip

    def _cropped(
        self, image: np.ndarray, mask: np.ndarray | None, random: Random, out: Places
    ) -> tuple[np.ndarray, np.ndarray | None]:
        factor, rows, columns, flipped = self._drawn(random, (image.shape[0], image.shape[1]))
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


class Extra:
    """One transform of albumentations, chosen by name and arguments, that keeps size and type of image and mask.

    Masks hold class numbers: they are read at the nearest pixel. What a transform cuts out or brings in from outside is
    255, ignored, unless `fill_mask` says otherwise.

    Args:
        item: `name`, the class in albumentations, and its arguments.

    Raises:
        ConfigError: no such transform, one that computes with class numbers, or arguments that it does not take.
    """

    def __init__(self, item: Mapping[str, Any]) -> None:
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            raise ConfigError(f"loader.augment.extra: {item}: expected {{name: TRANSFORM, ARGUMENT: VALUE, ...}}")
        self.name = item["name"]
        arguments = {key: value for key, value in item.items() if key != "name"}
        transforms = image_transforms()
        if self.name not in transforms:
            raise ConfigError(
                f"loader.augment.extra: no transform {self.name} in albumentations{_hint(self.name, transforms)}"
            )
        if self.name == NEIGHBOURING:
            raise self._error("takes the least or greatest class number around a pixel, which means nothing in masks")
        allowed = inspect.signature(transforms[self.name].__init__).parameters.keys() - {"self"}
        for key in sorted(arguments.keys() - allowed):  # albumentations itself warns and goes on without it
            raise self._error(f"no argument {key}{_hint(key, allowed)}; allowed: {', '.join(sorted(allowed))}")
        if arguments.get("mask_interpolation", cv2.INTER_NEAREST) != cv2.INTER_NEAREST:
            raise self._error(f"masks hold class numbers, expected mask_interpolation={cv2.INTER_NEAREST} (nearest)")
        if "fill_mask" in allowed:
            arguments.setdefault("fill_mask", IGNORE)
        try:
            self.transform = transforms[self.name](**arguments)
        except (TypeError, ValueError) as error:
            raise self._error(_brief(error)) from error

    def __call__(self, image: np.ndarray, mask: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The image (H, W, 3) and its mask (H, W), or None, transformed with the randomness of `seed`."""
        given = {"image": image} if mask is None else {"image": image, "mask": mask}
        given = {key: pixels.copy() for key, pixels in given.items()}  # some transforms write into what they get
        self.transform.set_random_seed(seed)
        try:
            result = self.transform(**given)
        except (ValueError, KeyError, TypeError, NotImplementedError) as error:  # such as one that needs boxes
            raise self._error(_brief(error)) from error
        for key, before in given.items():
            after = result[key]
            if tuple(after.shape) != before.shape or after.dtype != before.dtype:
                raise self._error(
                    f"makes the {key} {tuple(after.shape)} {after.dtype}, expected {before.shape} {before.dtype} as it"
                    " was: loader.augment.crop, scale and long_side decide on its size"
                )
        return result["image"], result.get("mask")

    def _error(self, text: str) -> ConfigError:
        return ConfigError(f"loader.augment.extra: {self.name}: {text}")


def _hint(word: str, options: Iterable[str]) -> str:
    """` (did you mean X or Y?)` for the closest options, or nothing."""
    close = difflib.get_close_matches(word, options, n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _brief(error: Exception) -> str:
    """What albumentations refuses, in one line; its checks of arguments are pydantic's."""
    from pydantic import ValidationError

    if isinstance(error.__cause__, ValidationError):
        faults = error.__cause__.errors()
        return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}".removeprefix(": ") for fault in faults)
    return " ".join(str(error).split())


def _placed(pixels: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return pixels
    np.copyto(out, pixels)
    return out


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


def albumentations() -> Any:
    """The package, imported on first use."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import asks the network for a newer version
    import albumentations as package

    return package


def image_transforms() -> dict[str, Any]:
    """albumentations' transforms of images, by name."""
    package = albumentations()
    kinds = {name: value for name, value in vars(package).items() if inspect.isclass(value)}
    return {
        name: kind
        for name, kind in kinds.items()
        if issubclass(kind, package.BasicTransform) and kind is not package.ImageOnlyTransform and _changes_images(kind)
    }


def _changes_images(transform: Any) -> bool:
    targets = getattr(transform, "_targets", ())  # one or several; none in base classes
    return "Image" in {target.value for target in (targets if isinstance(targets, tuple) else (targets,))}


def colour_jitter(strengths: Mapping[str, float]) -> Any:
    """albumentations' ColorJitter with these strengths."""
    ranges = {key: (-value, value) if key == "hue" else (1 - value, 1 + value) for key, value in strengths.items()}
    return albumentations().ColorJitter(p=1.0, **ranges)


def _check_ranges(scale: Range | None, long_side: Range | None) -> None:
    if scale is not None and long_side is not None:
        raise ConfigError("loader.augment: scale and long_side exclude each other; set one of them to null")
    for key, values in (("scale", scale), ("long_side", long_side)):
        if values is not None and not (len(values) == 2 and 0 < values[0] <= values[1]):
            raise ConfigError(f"loader.augment.{key}={list(values)}: expected [low, high] with 0 < low <= high")
