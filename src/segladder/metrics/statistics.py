"""How scores follow from what was counted: what each sampled unit adds up to, and the score as a function of the sums.

A paired test weighs the units of both sides alike, adds up, and takes the difference of the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segladder.metrics.bootstrap import Sample, images, mean_iou, ratio
from segladder.metrics.counts import ImageCounts
from segladder.metrics.episodes import empty_answers, following, novel_mean_iou, painted_shares
from segladder.metrics.zero_shot import split_scores

Groups = Mapping[str, Sequence[int]]  # class indices by the name of a group


@dataclass(frozen=True)
class FromCounts:
    """One way to compute a score from counts.

    Args:
        units: counts to what each sampled unit adds, names and sums (N, ...).
        score: sums (..., *) to scores (...); with `groups` also the groups of classes of the run's fold.
        groups: whether classes fall into groups, which differ from fold to fold: then each fold is scored by itself
            and the score is their mean.
    """

    units: Callable[[ImageCounts], Sample]
    score: Callable[..., np.ndarray]
    groups: bool = False


def harmonic_mean_iou(sums: np.ndarray, groups: Groups) -> np.ndarray:
    """Harmonic mean (...) of the mean IoU of the groups `seen` and `unseen`, of outcomes (..., K, 3)."""
    return split_scores(sums, groups["seen"], groups["unseen"])["harmonic_mIoU"]


STATISTICS = {
    "follows_support": FromCounts(following, ratio),
    "empty_answers": FromCounts(empty_answers, ratio),
    "painted_share": FromCounts(painted_shares, ratio),
    "harmonic_mean_iou": FromCounts(images, harmonic_mean_iou, groups=True),
    "mean_iou": FromCounts(images, mean_iou),
    "foreground_mean_iou": FromCounts(images, novel_mean_iou),
}
