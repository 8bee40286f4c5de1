"""Dense semantic scoring: one confusion matrix over all pixels of a split, at native label size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from segladder.data.sources.base import Source
from segladder.errors import ConfigError
from segladder.methods.base import Method
from segladder.metrics.bootstrap import bootstrap_interval, class_iou, mean_iou
from segladder.metrics.boundary import boundary_counts
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import ImageCounts
from segladder.metrics.overlap import COLUMNS, per_class, summary
from segladder.metrics.scores import Score
from segladder.metrics.size import SIZES, iou_by_size
from segladder.protocols.base import Picture, Protocol, Result, Scoring
from segladder.protocols.fields import Absent, OtherClasses, Positive, Share
from segladder.protocols.inference import answered, class_maps, gathered, to_pixels

SCORES = (
    Score("mIoU", shown=("summary", "curve"), statistic="mean_iou"),
    Score("pixel_accuracy", shown=("summary",)),
    Score("boundary_iou", shown=("summary",)),
    *(Score(f"iou_{size}", shown=("summary",)) for size in SIZES),
    Score("over_activation", better="lower", shown=("summary", "curve")),
    Score("under_activation", better="lower", shown=("summary", "curve")),
    Score("mean_precision"),
    Score("mean_accuracy"),
    Score("frequency_weighted_iou"),
)


@dataclass(frozen=True)
class SemanticProtocol(Protocol):
    """Every pixel of every image of a split, 255 ignored, against the prediction resized to label size.

    Args:
        classes: foreground classes in the order of their indices; None means all of the data set.
        other_classes: what pixels of the data set's other classes are, `ignore` or `background`.
        input_size: long side of the network's input, None for native.
        scales: test-time scales whose probabilities are averaged.
        flip: average with the mirrored image.
        absent: rule for a class in neither truth nor prediction, `skip` or `zero`.
        boundary_width: of the boundary IoU, as a share of the image diagonal.
        bootstrap: resamples over images behind each 95 % interval.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("full", "image_level")

    classes: tuple[str, ...] | None
    other_classes: OtherClasses
    input_size: Positive | None
    scales: tuple[float, ...]
    flip: bool
    absent: Absent
    boundary_width: Share
    bootstrap: Positive

    @property
    def scores(self) -> tuple[Score, ...]:
        """The IoU family, of boundaries and of sizes too."""
        return SCORES

    @property
    def columns(self) -> tuple[Score, ...]:
        """The IoU family of each class, and of its boundary."""
        return (*COLUMNS, Score("boundary_iou"))

    def measure(self, scoring: Scoring) -> Result:
        """Counts of all images, and the scores that follow."""
        source = scoring.source
        self.check(source)
        counts, boundary = ImageCounts(len(source.classes)), np.zeros((len(source.classes), 2), np.int64)
        predict_seconds = answered(
            scoring,
            scoring.among(self.split),
            lambda _, images, masks: self.predictions(scoring.method, images, masks[0].shape),
            lambda image_id, prediction, mask: self.count(counts, boundary, image_id, prediction, mask),
            f"{self.name} {self.split}",
        )
        parts = gathered((counts, boundary))
        whole = ImageCounts.merged(part for part, _ in parts)
        whole = whole.select(sorted(whole.ids))  # the order must not depend on the number of processes
        result = self.result(whole, np.sum([part for _, part in parts], axis=0), source.classes)
        result.predict_seconds = predict_seconds
        return result

    def check(self, source: Source) -> None:
        """Raise ConfigError if the source does not hold the protocol's classes."""
        wanted = source.all_classes[1:] if self.classes is None else self.classes
        if tuple(wanted) != tuple(source.classes[1:]):
            raise ConfigError(
                f"protocol {self.name} scores the classes {', '.join(wanted)}, "
                f"but data.classes gives {', '.join(source.classes[1:])}"
            )

    def predictions(self, method: Method, images: Sequence[np.ndarray], size: tuple[int, ...]) -> np.ndarray:
        """Class indices uint8 (B, H, W) at label size for images of one size."""
        pixels = to_pixels(images, self.input_size, method.device)
        return class_maps(method.predict, pixels, (size[0], size[1]), self.scales, self.flip).cpu().numpy()

    def shown(self, method: Method, source: Source, item: str, result: Result) -> Picture:
        """An image with its truth and prediction."""
        image, truth = source.pair(item)
        with torch.inference_mode():
            return Picture(image, truth, self.predictions(method.eval(), [image], truth.shape)[0], {})

    def count(
        self, counts: ImageCounts, boundary: np.ndarray, image_id: str, prediction: np.ndarray, mask: np.ndarray
    ) -> None:
        """Add one image's confusion matrix to `counts` and its boundary pixels to `boundary` (K, 2)."""
        matrix = confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(mask), counts.num_classes)
        counts.add(image_id, matrix)
        boundary += boundary_counts(prediction, mask, counts.num_classes, width=self.boundary_width)

    def result(self, counts: ImageCounts, boundary: np.ndarray, classes: Sequence[str]) -> Result:
        """All scores of the counted images, with intervals where a bootstrap over images gives one."""
        confusion = torch.from_numpy(counts.total())
        outcomes = counts.outcomes()  # (N, K, 3)
        metrics: dict[str, dict[str, float | None]] = {
            name: {"value": value, "low": None, "high": None} for name, value in summary(confusion, self.absent).items()
        }
        low, high = bootstrap_interval(outcomes, self.mean, self.bootstrap)
        metrics["mIoU"].update(low=float(low), high=float(high))
        edges = np.where(boundary[:, 1] > 0, boundary[:, 0] / np.maximum(boundary[:, 1], 1), np.nan)  # (K,)
        shares = self.filled(edges)
        metrics["boundary_iou"] = {"value": float(np.nanmean(shares)), "low": None, "high": None}
        for size, value in iou_by_size(counts.dense()).items():
            metrics[f"iou_{size}"] = {"value": value, "low": None, "high": None}
        rows = per_class(confusion, classes, self.absent)
        lows, highs = bootstrap_interval(outcomes, class_iou, self.bootstrap)
        for k, row in enumerate(rows):
            row.update(low=float(lows[k]), high=float(highs[k]), boundary_iou=float(shares[k]))
        return Result(metrics, rows, counts)

    def filled(self, shares: np.ndarray) -> np.ndarray:
        """Scores per class (..., K) with nan of absent classes replaced as the absent rule says."""
        return np.nan_to_num(shares) if self.absent == "zero" else shares

    def mean(self, outcomes: np.ndarray) -> np.ndarray:
        """Mean IoU (...) of outcomes (..., K, 3) under the absent rule."""
        return mean_iou(outcomes) if self.absent == "skip" else self.filled(class_iou(outcomes)).mean(-1)
