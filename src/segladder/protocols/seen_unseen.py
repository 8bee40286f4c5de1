"""Seen and unseen classes under every handicap gamma: what a protocol says of it, and the scores of one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch

from segladder.mask_values import OtherClasses
from segladder.metrics.class_rows import class_rows
from segladder.metrics.counts import outcomes
from segladder.metrics.formulas import harmonic, mean_iou
from segladder.metrics.overlap import iou, mean_accuracy, pixel_accuracy
from segladder.metrics.scores import FromCounts, Score
from segladder.metrics.zero_shot import GammaSweep, area_under_frontier, split_scores
from segladder.ops.projection import GammaOn
from segladder.protocols.base import Metrics, Protocol, Result, measured, scored
from segladder.protocols.fields import GammaRule
from segladder.settings import Count, Positive, Share

BOTH = ("seen", "unseen")

SCORES = (
    Score("mIoU", shown=("summary", "curve"), statistic=FromCounts("mean_iou", BOTH)),
    Score("seen_mIoU", shown=("summary", "table", "curve"), statistic=FromCounts("mean_iou", ("seen",))),
    Score("unseen_mIoU", shown=("summary", "table", "curve"), statistic=FromCounts("mean_iou", ("unseen",))),
    Score("harmonic_mIoU", shown=("summary", "table", "curve"), statistic=FromCounts("harmonic_mean_iou", BOTH)),
    Score("gamma", unit="number", better="", shown=("summary",)),
    Score("oracle_harmonic_mIoU", shown=("summary", "table")),
    Score("gamma_area", shown=("summary", "table")),
    Score("unseen_only_pixel_accuracy", shown=("summary", "table")),
    Score("majority_rate", better="", shown=("summary", "table")),
    Score("pixel_accuracy", shown=("summary",), statistic=FromCounts("pixel_accuracy")),
    Score("mean_accuracy"),
    Score("uncalibrated_harmonic_mIoU"),
    Score("oracle_gamma", unit="number", better=""),
    Score("unseen_only_mIoU"),
)
WITH_BACKGROUND = (
    Score("foreground_pixel_accuracy"),
    Score("seen_mIoU_with_background"),
    Score("harmonic_mIoU_with_background"),
    Score("mIoU_with_background"),
)


@dataclass(frozen=True)
class Calibrated(Protocol):
    """A protocol that takes a handicap gamma from the classes that training has seen labels of.

    Args:
        classes: foreground classes in the order of their indices; None means all of the data set.
        other_classes: what pixels of the data set's other classes are, `ignore` or `background`.
        folds: class names of each fold.
        fold: the run's fold; no part of the hash, since a score is a mean over folds.
        gamma_on: what gamma is taken from, `probabilities` or `logits`.
        gammas: the grid; 0 joins it, and `gamma` where it is `fixed`.
        gamma_rule: how the reported gamma is chosen: `seen_budget` (the largest at which training images keep
            `seen_kept` of their seen mIoU), `fixed` (`gamma`) or `oracle` (best harmonic mean on the scored labels).
        gamma: of `fixed`.
        seen_kept: share of the seen mIoU at gamma 0 that `seen_budget` keeps.
        gamma_images: how many training images `seen_budget` looks at, those first that `loader.held_out` keeps back.
        input_side: pixels that images are resized to, where `fit` does so.
        bootstrap: resamples over images behind each 95 % interval.
    """

    swept: ClassVar[str] = "gamma"

    classes: tuple[str, ...] | None
    other_classes: OtherClasses
    folds: tuple[tuple[str, ...], ...]
    fold: Count
    gamma_on: GammaOn
    gammas: tuple[float, ...]
    gamma_rule: GammaRule
    gamma: float
    seen_kept: Share
    gamma_images: Positive
    input_side: Positive | None
    bootstrap: Positive


@dataclass(frozen=True)
class SweptScores:
    """What a sweep comes to.

    Args:
        sweep: what was counted under each gamma.
        seen: indices of the seen foreground classes, `unseen` of the unseen ones.
        absent: rule for a class in neither truth nor prediction, `skip` or `zero`.
        bootstrap: resamples over images behind each 95 % interval.
    """

    sweep: GammaSweep
    seen: Sequence[int]
    unseen: Sequence[int]
    absent: str
    bootstrap: int

    @cached_property
    def confusions(self) -> np.ndarray:
        """Of gamma = -inf, each of the grid, and +inf, int64 (G + 2, K, K)."""
        return self.sweep.confusions()

    @cached_property
    def by_gamma(self) -> dict[str, np.ndarray]:
        """`split_scores` under each gamma of the grid, (G,)."""
        return self.of(outcomes(self.confusions[1:-1]))

    def of(self, counted: np.ndarray) -> dict[str, np.ndarray]:
        """`split_scores` (...) of outcomes (..., K, 3)."""
        return split_scores(counted, self.seen, self.unseen, self.absent)

    def curve(self) -> list[dict[str, float]]:
        """A row for each gamma."""
        values = self.by_gamma
        return [
            {"gamma": gamma, **{name: float(scores[i]) for name, scores in values.items()}}
            for i, gamma in enumerate(self.sweep.gammas)
        ]

    def result(self, index: int, classes: Sequence[str], background: bool) -> Result:
        """All scores under one gamma of the grid, with intervals from a bootstrap over images, and the curve of all.

        Args:
            index: of the gamma that counts.
            classes: a name per index.
            background: whether it is a class of its own.
        """
        counts, confusion = self.sweep.at(index), self.confusions[1 + index]
        counts.groups = {"seen": tuple(self.seen), "unseen": tuple(self.unseen)}
        counted = torch.from_numpy(confusion)
        beside = self.of_gammas(index) | self.of_pixels(counted) | self.of_unseen_alone()
        beside |= self.with_background(counted) if background else {}
        metrics: Metrics = {name: scored(float(value)) for name, value in beside.items()}
        metrics |= measured(counts, [score.under(self.absent) for score in SCORES], self.bootstrap)
        rows = class_rows(counts, classes, self.bootstrap, self.absent)
        for k, row in enumerate(rows):
            row["group"] = "background" if k == 0 else "unseen" if k in self.unseen else "seen"
        return Result(metrics, rows if background else rows[1:], counts, curve=self.curve())

    def of_gammas(self, index: int) -> dict[str, float]:
        """The chosen gamma beside none and the best, and the area under the frontier of all, both ends included."""
        whole, harmonics = self.of(outcomes(self.confusions)), self.by_gamma["harmonic_mIoU"]
        oracle, grid = best(harmonics), self.sweep.gammas
        return {
            "gamma": grid[index],
            "uncalibrated_harmonic_mIoU": harmonics[grid.index(0.0)],
            "oracle_gamma": grid[oracle],
            "oracle_harmonic_mIoU": harmonics[oracle],
            "gamma_area": area_under_frontier(whole["unseen_mIoU"], whole["seen_mIoU"]),
        }

    def of_pixels(self, confusion: torch.Tensor) -> dict[str, float]:
        """Accuracies of a confusion matrix (K, K)."""
        return {"pixel_accuracy": pixel_accuracy(confusion), "mean_accuracy": mean_accuracy(confusion, self.absent)}

    def with_background(self, confusion: torch.Tensor) -> dict[str, float]:
        """The scores that count the background as a seen class, and the accuracy without it."""
        counted = outcomes(confusion.numpy())
        seen = mean_iou(counted, [0, *self.seen], self.absent)
        return {
            "foreground_pixel_accuracy": float(confusion.diagonal()[1:].sum() / confusion[1:].sum()),
            "seen_mIoU_with_background": float(seen),
            "harmonic_mIoU_with_background": float(harmonic(seen, mean_iou(counted, self.unseen, self.absent))),
            "mIoU_with_background": float(mean_iou(counted, [0, *self.seen, *self.unseen], self.absent)),
        }

    def of_unseen_alone(self) -> dict[str, float]:
        """Scores on unseen pixels where unseen classes alone compete, beside always guessing the commonest of them."""
        confusion = torch.from_numpy(self.sweep.unseen_only()[np.ix_(self.unseen, self.unseen)])
        return {
            "unseen_only_mIoU": float(iou(confusion, self.absent).nanmean()),
            "unseen_only_pixel_accuracy": pixel_accuracy(confusion),
            "majority_rate": float(confusion.sum(1).max() / confusion.sum()),
        }


def within_budget(seen: np.ndarray, start: int, kept: float) -> int:
    """Position in scores (N,) of the last one before the first, from `start` on, below `kept` times that at `start`."""
    keeps = [*(seen[start:] >= kept * seen[start]), False]
    return start + max(0, keeps.index(False) - 1)


def best(scores: np.ndarray) -> int:
    """Position of the highest score; nan is lowest, the first of equals wins."""
    return int(np.argmax(np.nan_to_num(scores, nan=-1)))
