"""Mask AP: are the objects that a method finds right, the surest first? As COCO measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segladder.errors import ConfigError
from segladder.metrics.bootstrap import per_class, under_draws
from segladder.metrics.counts import Counts
from segladder.metrics.detection import AREAS, matches
from segladder.metrics.scores import FromCounts, Score
from segladder.protocols.base import Result, measured
from segladder.protocols.objects import Judged, ObjectProtocol
from segladder.settings import Positive

THINGS = ("things",)
SCORES = (
    Score("AP", shown=("summary",), statistic=FromCounts("average_precision", THINGS)),
    *(
        Score(f"AP{percent}", shown=("summary", "table"), statistic=FromCounts(f"average_precision_{percent}", THINGS))
        for percent in (50, 75)
    ),
    *(
        Score(f"AP_{area}", shown=("summary",), statistic=FromCounts(f"average_precision_{area}", THINGS))
        for area in AREAS[1:]
    ),
)


@dataclass(frozen=True)
class InstanceProtocol(ObjectProtocol):
    """Average precision of masks (Lin et al. 2014): IoU 0.50 to 0.95, 101 recalls, 100 objects of a class an image.

    pycocotools decides which found object is right. What it decides is kept for each image, so that intervals and
    paired tests draw images as everywhere.

    Args:
        areas: pixels where medium and large objects begin.
    """

    areas: tuple[Positive, Positive]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.areas[0] > self.areas[1]:
            raise ConfigError(f"protocol.areas={list(self.areas)}: expected [medium, large], the smaller one first")

    @property
    def scores(self) -> tuple[Score, ...]:
        """AP over all thresholds, at 0.5, at 0.75, and by size."""
        return SCORES

    @property
    def columns(self) -> tuple[Score, ...]:
        """AP of each class, and at 0.5."""
        return Score("AP"), Score("AP50")

    @property
    def ranked_by(self) -> str:
        """AP."""
        return "AP"

    def counted(self, judged: Judged, counts: Counts) -> dict[str, np.ndarray]:
        """Which found objects are right."""
        found, objects = judged.found, judged.objects
        kept = np.isin(objects.classes, counts.group("things"))
        limits = float(self.areas[0]), float(self.areas[1])
        true, classes = objects.masks[kept], objects.classes[kept].astype(np.int64)
        return matches(found.masks, found.classes, found.scores, true, classes, limits)

    def result(self, counts: Counts, classes: Sequence[str]) -> Result:
        """AP of the counted images, with a row for each class of objects."""
        scores = {
            name: under_draws(counts, FromCounts(f"class_{rule}"), draws=0)[0]
            for name, rule in (("AP", "average_precision"), ("AP50", "average_precision_50"))
        }
        lows, highs = per_class(counts, self.bootstrap, "class_average_precision")
        of_objects = np.concatenate([np.zeros(0, np.uint16), *counts.listed.get("true_class", [])])
        rows = [
            {
                "class": classes[k],
                **{name: float(values[k]) for name, values in scores.items()},
                "low": float(lows[k]),
                "high": float(highs[k]),
                "objects": int((of_objects == k).sum()),
            }
            for k in counts.group("things")
        ]
        return Result(measured(counts, self.scores, self.bootstrap), rows, counts)
