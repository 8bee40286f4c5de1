"""Panoptic quality: every pixel has one class, and every pixel of an object one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segladder.metrics.bootstrap import per_class
from segladder.metrics.counts import Counts
from segladder.metrics.formulas import panoptic_quality, segment_outcomes
from segladder.metrics.panoptic import outcomes_of_segments
from segladder.metrics.scores import FromCounts, Score
from segladder.protocols.base import Result, measured
from segladder.protocols.objects import Judged, ObjectProtocol

SCORES = (
    *(Score(part, shown=("summary", "table"), statistic=FromCounts(part)) for part in ("PQ", "SQ", "RQ")),
    Score("PQ_things", shown=("summary", "table"), statistic=FromCounts("PQ", ("things",))),
    Score("PQ_stuff", shown=("summary",), statistic=FromCounts("PQ", ("stuff",))),
    Score("mIoU", shown=("summary",), statistic=FromCounts("mean_iou")),
)


@dataclass(frozen=True)
class PanopticProtocol(ObjectProtocol):
    """Panoptic quality (Kirillov et al. 2019) by torchmetrics: PQ = SQ x RQ of each class, then the mean over classes.

    A segment is an object, or all pixels of a class of `stuff` (the background is one). A found segment is right where
    its IoU with a true one of its class is above 0.5. `mIoU` is that of the painted classes.
    """

    @property
    def scores(self) -> tuple[Score, ...]:
        """PQ, its two factors, and PQ of objects and of stuff."""
        return SCORES

    @property
    def columns(self) -> tuple[Score, ...]:
        """PQ of each class, and its factors."""
        return Score("PQ"), Score("SQ"), Score("RQ")

    @property
    def ranked_by(self) -> str:
        """PQ."""
        return "PQ"

    def counted(self, judged: Judged, counts: Counts) -> dict[str, np.ndarray]:
        """Overlap, hits, inventions and misses of each class of the image."""
        outcomes = outcomes_of_segments(
            judged.painted,
            (judged.truth, judged.objects.map),
            counts.group("things"),
            counts.group("stuff"),
            counts.num_classes,
        )
        classes = np.flatnonzero(outcomes.any(1))
        return {"segment_class": classes.astype(np.uint16), "segment_outcomes": outcomes[classes]}

    def result(self, counts: Counts, classes: Sequence[str]) -> Result:
        """PQ of the counted images, with a row for each class."""
        sums = segment_outcomes(counts).sum(0)  # (K, 4)
        parts = {part: panoptic_quality(sums, part) for part in ("PQ", "SQ", "RQ")}
        lows, highs = per_class(counts, self.bootstrap, "class_PQ")
        rows = [
            {
                "class": name,
                **{part: float(values[k]) for part, values in parts.items()},
                "low": float(lows[k]),
                "high": float(highs[k]),
                "segments": int(sums[k, 1] + sums[k, 3]),
            }
            for k, name in enumerate(classes)
        ]
        return Result(measured(counts, self.scores, self.bootstrap), rows, counts)
