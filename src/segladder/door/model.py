"""A trained method with its classes, which answers for images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, overload

import numpy as np
import torch
from PIL import Image

from segladder.data.sources.palette import VOC_COLOURS, Colours
from segladder.data.sources.support import supports_of
from segladder.door.images import Picture, annotated_of, is_batch, of_one_size, pixels_of
from segladder.door.packing import opened
from segladder.errors import ConfigError
from segladder.methods.base import Method, evaluating
from segladder.methods.few_shot.base import FewShotMethod
from segladder.protocols.inference import Views, dense_answers
from segladder.report.pictures.few_shot_panel import overlay
from segladder.report.record import Record
from segladder.runs.few_shot_prediction import Segmenter
from segladder.runs.instantiation import choices_of
from segladder.runs.loading import chosen_device, load_run
from segladder.runs.pictures import palette_picture, write_picture
from segladder.settings import Positive, Scales, check

Supports = Iterable[tuple[Picture, Picture]]
AT_ONCE = 8  # images of one size in one pass


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        image: that was asked about, RGB uint8 (H, W, 3).
        mask: the class of each pixel, uint8 (H, W).
        probabilities: float32 (K, H, W). Of a dense model the softmax of its scores. Of a few-shot model each class
            stands against the background alone, and row 0 is what the likeliest of them leaves.
        classes: names of the rows.
        values: what stands for each row in `mask`.
        colours: of the values.
    """

    image: np.ndarray
    mask: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    values: tuple[int, ...]
    colours: Colours = VOC_COLOURS

    def overlay(self) -> Image.Image:
        """The image with the palette's colour over every object."""
        return Image.fromarray(overlay(self.image, self.mask, self.colours))

    def save(self, path: str | Path) -> Path:
        """Write the mask as a PNG in the palette, and return where. Raises ConfigError for another ending."""
        if Path(path).suffix.lower() != ".png":
            raise ConfigError(f"{path}: expected a name that ends in .png, others change the values of a mask")
        write_picture(Path(path), palette_picture(self.mask, self.colours))
        return Path(path)


class ViewKeys(TypedDict, total=False):
    """The settings of `Views`."""

    input_size: Positive | None
    scales: Scales
    flip: bool


class Model:
    """A method with the names of its classes.

    Args:
        method: as `segladder.load` or `segladder.create` gives it, on the device it shall run on.
        classes: names of the method's classes, the background first where there is one.
        aggregate: how K supports of a few-shot method become one answer (docs/protocols.md).
        record: of the run it was loaded from.
    """

    def __init__(
        self, method: Method, classes: Sequence[str], aggregate: str = "mean", record: Record | None = None
    ) -> None:
        self.method, self.classes, self.aggregate, self.record = method, tuple(classes), aggregate, record

    @property
    def palette(self) -> np.ndarray:
        """The colour of each value of a mask, RGB uint8 (256, 3): the data set's, or as in VOC."""
        return self.colours.table

    @property
    def colours(self) -> Colours:
        """How pictures show the classes."""
        return Colours() if self.record is None else self.record.colours

    def to(self, device: str | torch.device) -> Model:
        """Move the model to a device and return it."""
        self.method.to(device)
        return self

    @overload
    def predict(
        self, images: str | Path | Image.Image, supports: Supports | None = None, **views: Any
    ) -> Prediction: ...

    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], supports: Supports | None = None, **views: Any
    ) -> list[Prediction]: ...

    @overload
    def predict(self, images: np.ndarray, supports: Supports | None = None, **views: Any) -> Any: ...

    def predict(self, images: Any, supports: Supports | None = None, **views: Any) -> Any:
        """The prediction of an image, or a list of them of several images.

        Args:
            images: a file, a PIL image or raw pixels uint8 (H, W, 3); or a list of these, or an array (B, H, W, 3).
            supports: for few-shot models, pairs of an image and its mask. Where the masks hold several classes, all
                are found at once, and the answer has the values of the masks.
            views: `input_size`, `scales` and `flip` as on the command line.

        Raises:
            DataError: a file that cannot be read, or something else than raw pixels.
            ConfigError: supports where none are needed, or none where they are, or an unknown setting.
        """
        asked = views_of(views)
        batch = is_batch(images)
        names = (f"images[{i}]" for i in range(len(images))) if batch else iter(["image"])
        pixels = [pixels_of(each, name) for each, name in zip(images if batch else [images], names, strict=True)]
        with evaluating(self.method):
            found = (
                self.few_shot(pixels, supports, asked) if self.asks_supports(supports) else self.dense(pixels, asked)
            )
        return found if batch else found[0]

    def asks_supports(self, supports: Supports | None) -> bool:
        """Whether the method needs supports. Raises ConfigError unless they are given where it does."""
        needs = isinstance(self.method, FewShotMethod)
        if needs != (supports is not None):
            expected = "supports=[(image, mask), ...], got none" if needs else "no supports, it knows its classes"
            raise ConfigError(f"method={self.method.name} is {self.method.supervision}: expected {expected}")
        return needs

    def dense(self, images: Sequence[np.ndarray], views: Views) -> list[Prediction]:
        """Answers of a method that knows its classes, same sizes in one pass.

        Raises ConfigError where it knows another number of classes than there are names, or reads more than images.
        """
        require_images_alone(self.method)
        found: dict[int, Prediction] = {}
        for positions in of_one_size(images, AT_ONCE):
            answers = dense_answers(self.method, [images[i] for i in positions], views)
            if (count := answers.probabilities.shape[1]) != len(self.classes):
                raise ConfigError(f"classes: {len(self.classes)} names, but method={self.method.name} knows {count}")
            for i, mask, probabilities in zip(positions, *answers, strict=True):
                found[i] = Prediction(
                    images[i], mask, probabilities, self.classes, tuple(range(len(self.classes))), self.colours
                )
        return [found[i] for i in range(len(images))]

    def few_shot(self, images: Sequence[np.ndarray], supports: Any, views: Views) -> list[Prediction]:
        """Answers of a method that is shown its classes."""
        assert isinstance(self.method, FewShotMethod)
        segmenter = Segmenter(self.method, supports_of(annotated_of(supports)), self.aggregate, views)
        several = len(segmenter.values) > 1
        names = ("background", *(f"class {value}" if several else "class" for value in segmenter.values))
        found = []
        for image in images:
            mask, each = segmenter.segment(image)
            probabilities = np.concatenate([1 - each.max(0, keepdims=True), each])
            found.append(Prediction(image, mask, probabilities, names, (0, *segmenter.values)))
        return found


def views_of(given: dict[str, Any]) -> Views:
    """How a caller wants images to be looked at. Raises ConfigError for an unknown or impossible setting."""
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    check(ViewKeys, plain, "")
    return Views(**given)


def require_images_alone(method: Method) -> None:
    """Raise ConfigError for a method that no image alone is enough for: it reads how the pixels of videos move."""
    if method.reads_flow:
        raise ConfigError(
            f"method={method.name} reads the optical flow of videos, images alone show none; score it with segladder"
            " evaluate protocol=davis2016_automatic"
        )


def load(run: str | Path, device: str | None = None, choices: str | Path | None = None) -> Model:
    """The model of a run's folder or of a packed run; see `segladder.load`."""
    with opened(Path(run)) as folder, choices_of(choices):
        config, record, method = load_run(folder)
    method.to(chosen_device(device))
    return Model(method, record.data["classes"], config.protocol.get("aggregate", "mean"), record)
