"""The formulas of scores: what each row of counts adds up to, and the score as a function of the sums.

One formula gives a score's value (all rows once), its interval (images drawn again and again) and its difference to
another run's (both under the same draws). Most scores are linear in the rows up to their last step (`Formula`).
Average precision is not, since what was found in all images stands in one order (`AveragePrecision`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from segladder.errors import DataError
from segladder.metrics.counts import Counts
from segladder.metrics.detection import AREAS, AveragePrecision

Groups = Sequence[Sequence[int]]  # class indices of each group that a score names


class Weighable(Protocol):
    """One way to compute a score from counts in which each image counts as often as it was drawn.

    Attributes:
        flatters: whether few images make it higher on average, and a draw of them higher once more.
    """

    flatters: ClassVar[bool]

    @property
    def signed(self) -> bool:
        """Whether it may be negative; others are shares from 0 to 1."""

    def gathered(self, counts: Counts, places: np.ndarray, units: int, lists: str) -> Any:
        """What weights are put on.

        Args:
            counts: the rows that count.
            places: the number of the unit that each row belongs to, (N,).
            units: how many units are drawn from.
            lists: `pooled`, or `mean` where each frozen list is scored on its own.
        """

    def under(self, gathered: Any, weights: np.ndarray, groups: Groups, absent: str) -> np.ndarray:
        """The score (D, ...) under each weighting of the units (D, units); the mean over lists kept apart."""


@dataclass(frozen=True)
class Formula:
    """A score that follows from sums over rows.

    Args:
        rows: what each row of counts adds to the sums, (N, ...).
        score: sums (..., *), groups of classes and the rule for absent ones to scores (...).
        signed: as of `Weighable`.
    """

    flatters: ClassVar[bool] = False

    rows: Callable[[Counts], np.ndarray]
    score: Callable[[np.ndarray, Groups, str], np.ndarray]
    signed: bool = False

    def gathered(self, counts: Counts, places: np.ndarray, units: int, lists: str) -> tuple[np.ndarray, bool]:
        """What each unit adds to the sums, (units, ...), and whether lists are kept apart in it."""
        added = self.rows(counts).astype(np.float64)
        if lists == "mean":
            added = by_list(counts, added)
        sums = np.zeros((units, *added.shape[1:]))
        np.add.at(sums, places, added)
        return sums, lists == "mean"

    def under(self, gathered: tuple[np.ndarray, bool], weights: np.ndarray, groups: Groups, absent: str) -> np.ndarray:
        """The score of the weighted sums."""
        sums, apart = gathered
        flat = sums.reshape(len(sums), math.prod(sums.shape[1:]))
        scores = self.score((weights @ flat).reshape(len(weights), *sums.shape[1:]), groups, absent)
        return scores.mean(1) if apart else scores


def class_iou(outcomes: np.ndarray) -> np.ndarray:
    """IoU (..., K) from true positives, false positives, false negatives (..., K, 3); nan where all are 0."""
    return ratio(outcomes[..., 0], outcomes.sum(-1, dtype=np.float64))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """First over second (...), nan where the second is 0."""
    shares: np.ndarray = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return shares


def mean_iou(outcomes: np.ndarray, classes: Sequence[int] | None = None, absent: str = "skip") -> np.ndarray:
    """Mean IoU (...) of outcomes (..., K, 3).

    Args:
        outcomes: true positives, false positives, false negatives.
        classes: which count; all if None.
        absent: a class that is neither true nor predicted is left out (`skip`) or counts 0 (`zero`).

    Returns:
        Shares; nan where no class occurs.
    """
    outcomes = outcomes if classes is None else outcomes[..., list(classes), :]
    shares = class_iou(outcomes)
    if absent == "zero":
        known = ~np.isnan(outcomes).all((-2, -1))  # draws of a single image say nothing
        return np.where(known, np.nan_to_num(shares).mean(-1), np.nan)
    present = ~np.isnan(shares)
    return ratio(np.where(present, shares, 0).sum(-1), present.sum(-1))


def harmonic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Harmonic mean of two shares (...), 0 where both are 0."""
    total = first + second
    return np.where(total == 0, 0, 2 * first * second / np.where(total == 0, 1, total))


def foreground_background_iou(outcomes: np.ndarray) -> np.ndarray:
    """Mean (...) of the background's IoU and that of all classes as one foreground, of outcomes (..., K, 3).

    A pixel given to another foreground class than its own is a hit of the foreground.
    """
    background = outcomes[..., 0, :]
    invented, missed = background[..., 2], background[..., 1]  # the background's misses and inventions
    there = outcomes[..., 1:, 0].sum(-1) + outcomes[..., 1:, 2].sum(-1)
    foreground = np.stack([there - missed, invented, missed], -1)
    means: np.ndarray = class_iou(np.stack([background, foreground], -2)).mean(-1)
    return means


def painted_background(outcomes: np.ndarray) -> np.ndarray:
    """Share (...) of the background's pixels that are painted, of outcomes (..., K, 3); nan without pixels."""
    kept, painted = outcomes[..., 0, 0], outcomes[..., 0, 2]
    return ratio(painted, kept + painted)


def painted_shares(counts: Counts) -> np.ndarray:
    """Share of each row's counted pixels that are painted, float64 (N,)."""
    outcomes = counts.outcomes()
    pixels = outcomes[..., 0].sum(-1) + outcomes[..., 2].sum(-1)  # of every true class
    painted = outcomes[:, 1:, :2].sum((1, 2))
    return np.asarray(painted / np.maximum(pixels, 1))


def swapped(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """IoU of answers with the class asked for, and the best with another class asked for on the same image, (N,) each.

    Args:
        counts: of questions for one class each, every image asked for two classes or more, true classes kept apart.
    """
    rivals: dict[str, set[int]] = {}
    for asked in counts.asked:
        rivals.setdefault(asked.image, set()).add(asked.classes[0])
    right, wrong = np.zeros(len(counts)), np.zeros(len(counts))
    for n, (asked, matrix) in enumerate(counts.rows()):
        k = asked.classes[0]
        hits = matrix[:, k]  # painted pixels by true class
        shares = hits / np.maximum(hits.sum() + matrix.sum(1) - hits, 1)
        right[n] = shares[k]
        wrong[n] = max((shares[other] for other in rivals[asked.image] - {k}), default=0.0)
    return right, wrong


def of_frames(value: Callable[[Counts], np.ndarray], kind: str, last: bool) -> Callable[[Counts], np.ndarray]:
    """What each frame of a video adds so that a video adds up to its mean, recall or decay, and to 1: rows (N, 2).

    Args:
        value: counts to a number for each frame.
        kind: `mean`, `recall` (share above 0.5) or `decay` (mean of the first quarter minus mean of the last).
        last: whether the last frame of each video counts.
    """

    def rows(counts: Counts) -> np.ndarray:
        values = value(counts)
        added = np.zeros((len(counts), 2))
        for frames in _by_video(counts):
            counted = frames if last else frames[:-1]
            if not counted:  # one frame alone, where some are held out
                continue
            shares = np.full(len(counted), 1 / len(counted))
            added[counted, 1] = shares
            scores = values[counted] > 0.5 if kind == "recall" else values[counted]
            added[counted, 0] = scores * (quarters(len(counted)) if kind == "decay" else shares)
        return added

    return rows


def quarters(frames: int) -> np.ndarray:
    """What each of so many scores counts in the mean of the first quarter minus that of the last, (frames,).

    Quarters share the frames they meet at, as in the official code of DAVIS.
    """
    ends = np.floor(np.linspace(0, frames - 1, 5) + 0.5).astype(np.int64)
    weights = np.zeros(frames)
    weights[: ends[1] + 1] += 1 / (ends[1] + 1)
    weights[ends[3] :] -= 1 / (frames - ends[3])
    return weights


def _by_video(counts: Counts) -> list[list[int]]:
    """Rows of each video, in the order of the frames."""
    videos: dict[str, list[int]] = {}
    for row in sorted(range(len(counts)), key=lambda i: counts.asked[i].image):
        videos.setdefault(counts.asked[row].drawn, []).append(row)
    return list(videos.values())


def region_similarities(counts: Counts) -> np.ndarray:
    """J of each frame (N,): the object's IoU, 1 where neither truth nor prediction has it."""
    return np.asarray(np.nan_to_num(class_iou(counts.outcomes())[:, 1], nan=1.0))


def _of_outcomes(score: Callable[..., np.ndarray]) -> Formula:
    return Formula(Counts.outcomes, score)


def _share(value: Callable[[Counts], np.ndarray]) -> Formula:
    """The mean of a number over rows."""
    return Formula(lambda counts: np.stack([value(counts), np.ones(len(counts))], -1), _mean)


def _mean(sums: np.ndarray, groups: Groups, absent: str) -> np.ndarray:
    return ratio(sums[..., 0], sums[..., 1])


def _mean_iou(sums: np.ndarray, groups: Groups, absent: str) -> np.ndarray:
    return mean_iou(sums, [k for group in groups for k in group] if groups else None, absent)


def _harmonic_mean_iou(sums: np.ndarray, groups: Groups, absent: str) -> np.ndarray:
    first, second = (mean_iou(sums, group, absent) for group in groups)
    return harmonic(first, second)


def _follows(counts: Counts) -> np.ndarray:
    right, wrong = swapped(counts)
    return right > wrong


def _accuracy(sums: np.ndarray, groups: Groups, absent: str) -> np.ndarray:
    hits = sums[..., 0].sum(-1)
    return ratio(hits, hits + sums[..., 2].sum(-1))


def _contours(counts: Counts) -> np.ndarray:
    return np.array(counts.measured.get("contours", []))


def segment_outcomes(counts: Counts) -> np.ndarray:
    """Sum of IoU of the matched segments, their number, and unmatched segments said and true, float64 (N, K, 4)."""
    found = np.zeros((len(counts), counts.num_classes, 4))
    for n, (classes, values) in enumerate(
        zip(counts.listed["segment_class"], counts.listed["segment_outcomes"], strict=True)
    ):
        found[n, classes] = values
    return found


def panoptic_quality(outcomes: np.ndarray, part: str = "PQ") -> np.ndarray:
    """Panoptic quality (..., K) of segment outcomes (..., K, 4): PQ = SQ x RQ; nan of a class neither said nor true.

    Args:
        outcomes: as `segment_outcomes` gives them.
        part: `PQ`, `SQ` (mean IoU of the matched segments, 0 without one) or `RQ` (F1 of segments).
    """
    overlap, matched, said, missed = np.moveaxis(outcomes, -1, 0)
    recognition = ratio(matched, matched + said / 2 + missed / 2)
    quality = np.where(np.isnan(recognition), np.nan, np.nan_to_num(ratio(overlap, matched)))
    return np.asarray({"PQ": quality * recognition, "SQ": quality, "RQ": recognition}[part])


def _panoptic(part: str) -> Formula:
    def score(sums: np.ndarray, groups: Groups, absent: str) -> np.ndarray:
        shares = panoptic_quality(sums, part)
        chosen = shares[..., [k for group in groups for k in group]] if groups else shares
        present = ~np.isnan(chosen)
        return ratio(np.where(present, chosen, 0).sum(-1), present.sum(-1))

    return Formula(segment_outcomes, score)


FORMULAS: dict[str, Weighable] = {
    "mean_iou": _of_outcomes(_mean_iou),
    "harmonic_mean_iou": _of_outcomes(_harmonic_mean_iou),  # of two groups
    "class_iou": _of_outcomes(lambda sums, groups, absent: class_iou(sums)),  # (..., K)
    "foreground_background_iou": _of_outcomes(lambda sums, groups, absent: foreground_background_iou(sums)),
    "pixel_accuracy": _of_outcomes(_accuracy),
    "painted_background": _of_outcomes(lambda sums, groups, absent: painted_background(sums)),
    "painted_share": _share(painted_shares),
    "empty_answers": _share(lambda counts: painted_shares(counts) == 0),
    "follows_support": _share(_follows),
    **{part: _panoptic(part) for part in ("PQ", "SQ", "RQ")},
    "class_PQ": Formula(segment_outcomes, lambda sums, groups, absent: panoptic_quality(sums)),  # (..., K)
    "average_precision": AveragePrecision(),
    **{f"average_precision_{percent}": AveragePrecision((percent / 100,)) for percent in (50, 75)},
    **{f"average_precision_{area}": AveragePrecision(area=area) for area in AREAS[1:]},
    "class_average_precision": AveragePrecision(each_class=True),  # (..., K)
    "class_average_precision_50": AveragePrecision((0.5,), each_class=True),
    "right_iou": _share(lambda counts: swapped(counts)[0]),
    "wrong_iou": _share(lambda counts: swapped(counts)[1]),
    **{
        f"{name}_{kind}{'' if last else '_without_last'}": Formula(of_frames(value, kind, last), _mean, kind == "decay")
        for name, value in (("J", region_similarities), ("F", _contours))
        for kind in ("mean", "recall", "decay")
        for last in (True, False)
    },
}


def formula(name: str) -> Weighable:
    """The formula of a name. Raises DataError for a name there is not: records of other versions may have others."""
    if name not in FORMULAS:
        raise DataError(f"formula {name}: unknown, expected one of {', '.join(FORMULAS)}")
    return FORMULAS[name]


def by_list(counts: Counts, added: np.ndarray) -> np.ndarray:
    """What rows add (N, ...), kept apart by the frozen list they stand in, (N, lists, ...)."""
    lists = sorted({asked.list for asked in counts.asked})
    apart: Any = np.zeros((len(added), len(lists), *added.shape[1:]))
    apart[np.arange(len(added)), [lists.index(asked.list) for asked in counts.asked]] = added
    return np.asarray(apart)
