"""Dense semantic scoring: one confusion matrix over all pixels of a split, at native label size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch.nn.functional import interpolate

from segladder.data.labels.pool import drawn
from segladder.data.sources.base import Source
from segladder.data.training.views import Images, TrainingView
from segladder.errors import ConfigError
from segladder.mask_values import OtherClasses
from segladder.methods.base import Method, evaluating
from segladder.metrics.bootstrap import estimate
from segladder.metrics.boundary import boundary_counts
from segladder.metrics.class_rows import class_rows
from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.overlap import COLUMNS, Absent, summary
from segladder.metrics.scores import FromCounts, Score
from segladder.metrics.size import SIZES, iou_by_size
from segladder.metrics.superpixels import majority_answer
from segladder.protocols.base import Picture, Protocol, Result, Scoring, measured, scored
from segladder.protocols.fields import check_classes
from segladder.protocols.inference import answered, class_maps, gathered, to_pixels
from segladder.settings import Positive, Scales, Seed, Share

SCORES = (
    Score("mIoU", shown=("summary", "curve"), statistic=FromCounts("mean_iou")),
    Score("pixel_accuracy", shown=("summary",), statistic=FromCounts("pixel_accuracy")),
    Score("boundary_iou", shown=("summary",)),
    Score("superpixel_bound", shown=("summary", "table")),  # of methods that cut images into segments
    *(Score(f"iou_{size}", shown=("summary",)) for size in SIZES),
    Score("over_activation", better="lower", shown=("summary", "curve")),
    Score("under_activation", better="lower", shown=("summary", "curve")),
    Score("over_activation_foreground", better="lower", shown=("summary",)),  # the published form
    Score("under_activation_foreground", better="lower", shown=("summary",)),
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
        pool: how many training images have labels; None for all. Like `pool_seed` no part of the hash.
        pool_seed: which images these are.
    """

    supervisions: ClassVar[tuple[str, ...]] = ("full", "image_level", "none")
    needs_background: ClassVar[bool] = False

    classes: tuple[str, ...] | None
    other_classes: OtherClasses
    input_size: Positive | None
    scales: Scales
    flip: bool
    absent: Absent
    boundary_width: Share
    bootstrap: Positive
    pool: Positive | None = field(default=None, kw_only=True)
    pool_seed: Seed = field(default=0, kw_only=True)

    def training(self, source: Source) -> TrainingView:
        """All training images, or the pool: the first in an order that no label decides.

        Raises:
            ConfigError: a pool larger than the training split.
        """
        if self.pool is None:
            return Images()
        ids = source.split(source.train_split)
        if len(ids) < self.pool:
            raise ConfigError(f"pool={self.pool}: {source.name} has {len(ids)} training images; take a smaller pool")
        return Images(tuple(sorted(drawn(ids, self.pool_seed)[: self.pool])))

    @property
    def scores(self) -> tuple[Score, ...]:
        """The IoU family, of boundaries and of sizes too."""
        return tuple(score.under(self.absent) for score in SCORES)

    @property
    def columns(self) -> tuple[Score, ...]:
        """The IoU family of each class, and of its boundary."""
        return (*COLUMNS, Score("boundary_iou"))

    def measure(self, scoring: Scoring) -> Result:
        """Counts of all images, and the scores that follow."""
        source = scoring.source
        counts, boundary = Counts(len(source.classes)), np.zeros((len(source.classes), 2), np.int64)
        bound = Counts(len(source.classes))

        def count(image_id: str, prediction: np.ndarray, mask: np.ndarray) -> None:
            self.count(counts, boundary, image_id, prediction, mask)
            if scoring.method.cuts:
                self.count_bound(bound, image_id, self.segments(scoring.method, source.image(image_id), mask), mask)

        predict_seconds = answered(
            scoring,
            scoring.among(self.split),
            lambda _, images, masks: self.predictions(scoring.method, images, masks[0].shape),
            count,
            f"{self.name} {self.split}",
        )
        parts = gathered((counts, boundary, bound))
        whole = Counts.merged(part for part, _, _ in parts)
        result = self.result(whole, np.sum([part for _, part, _ in parts], axis=0), source)
        if scoring.method.cuts:
            best = Counts.merged(part for _, _, part in parts)
            rule = FromCounts("mean_iou", absent=self.absent)
            result.metrics["superpixel_bound"] = scored(*estimate(best, rule, self.bootstrap))
        result.predict_seconds = predict_seconds
        return result

    def check_source(self, source: Source) -> None:
        """Raise ConfigError as every protocol does, or if the source does not hold the protocol's classes."""
        super().check_source(source)
        check_classes(self.name, self.classes, source)

    def predictions(self, method: Method, images: Sequence[np.ndarray], size: tuple[int, ...]) -> np.ndarray:
        """Class indices uint8 (B, H, W) at label size for images of one size."""
        pixels = to_pixels(images, self.input_size, method.device)
        return class_maps(method.predict, pixels, (size[0], size[1]), self.scales, self.flip).cpu().numpy()

    def segments(self, method: Method, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The segment of each pixel of a mask (H, W), of a method that cuts its image (H, W, 3)."""
        found = method.segments(to_pixels([image], self.input_size, method.device))[:, None].double()  # (1, 1, h, w)
        segments: np.ndarray = interpolate(found, mask.shape, mode="nearest")[0, 0].long().cpu().numpy()
        return segments

    def shown(self, method: Method, source: Source, item: Asked, result: Result) -> Picture:
        """An image with its truth and prediction."""
        image, truth = source.pair(item.image)
        with evaluating(method), torch.inference_mode():
            return Picture(image, truth, self.predictions(method, [image], truth.shape)[0], {})

    def count(
        self, counts: Counts, boundary: np.ndarray, image_id: str, prediction: np.ndarray, mask: np.ndarray
    ) -> None:
        """Add one image's confusion matrix to `counts` and its boundary pixels to `boundary` (K, 2)."""
        matrix = confusion_matrix(torch.from_numpy(prediction), torch.from_numpy(mask), counts.num_classes)
        counts.add(image_id, matrix)
        boundary += boundary_counts(prediction, mask, counts.num_classes, width=self.boundary_width)

    def count_bound(self, bound: Counts, image_id: str, segments: np.ndarray, mask: np.ndarray) -> None:
        """Add what the best answer that follows segments (H, W) makes of one image."""
        best = majority_answer(segments, mask, bound.num_classes)
        bound.add(image_id, confusion_matrix(torch.from_numpy(best), torch.from_numpy(mask), bound.num_classes))

    def result(self, counts: Counts, boundary: np.ndarray, source: Source) -> Result:
        """All scores of the counted images, with intervals of those that follow from the counts."""
        confusion = torch.from_numpy(counts.total())
        background = 0 if source.background else None
        values = summary(confusion, self.absent, background)
        edges = np.where(boundary[:, 1] > 0, boundary[:, 0] / np.maximum(boundary[:, 1], 1), np.nan)  # (K,)
        shares = self.filled(edges)
        values["boundary_iou"] = float(np.nanmean(shares))
        of_sizes = iou_by_size(counts.outcomes(), background=background)
        values |= {f"iou_{size}": value for size, value in of_sizes.items()}
        metrics = {name: scored(value) for name, value in values.items()}
        metrics |= measured(counts, self.scores, self.bootstrap)
        rows = class_rows(counts, source.classes, self.bootstrap, self.absent)
        for k, row in enumerate(rows):
            row["boundary_iou"] = float(shares[k])
        return Result(metrics, rows, counts)

    def filled(self, shares: np.ndarray) -> np.ndarray:
        """Scores per class (..., K) with nan of absent classes replaced as the absent rule says."""
        return np.nan_to_num(shares) if self.absent == "zero" else shares
