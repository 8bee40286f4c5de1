"""What is counted over episodes, and the scores that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segladder.metrics.average_precision import BINS, average_precision, best_threshold, probability_histogram
from segladder.metrics.bootstrap import Sample, class_iou
from segladder.metrics.counts import ImageCounts
from segladder.metrics.zero_shot import group_iou, harmonic

IGNORE = 255


class EpisodeCounts:
    """Confusions of episodes, one sparse matrix each (what is predicted is background or a class asked for).

    Args:
        num_classes: K of the data set, background included.

    Attributes:
        counts: a (K, K) matrix per episode, rows = truth.
        histograms: background and object pixels per class and bin of probability, int64 (K, 2, BINS).
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = ImageCounts(num_classes)
        self.histograms = np.zeros((num_classes, 2, BINS), np.int64)

    def add(
        self, name: str, prediction: np.ndarray, probabilities: Mapping[int, np.ndarray], truth: np.ndarray
    ) -> None:
        """Count an episode.

        Args:
            name: unique.
            prediction: the index of a class asked for, 0 = background, uint8 (H, W).
            probabilities: of each class asked for, float (H, W).
            truth: class indices, 255 = not scored, uint8 (H, W).
        """
        size = self.counts.num_classes
        known = truth < size
        joint = truth[known].astype(np.intp) * size + prediction[known]
        self.counts.add(name, np.bincount(joint, minlength=size**2))
        for class_index, probability in probabilities.items():
            binary = np.where(known, truth == class_index, np.uint8(IGNORE))
            self.histograms[class_index] += probability_histogram(probability, binary)

    @classmethod
    def merged(cls, parts: Sequence[EpisodeCounts]) -> EpisodeCounts:
        """The counts of several processes in one, ordered by name."""
        whole = cls(parts[0].counts.num_classes)
        counts = ImageCounts.merged(part.counts for part in parts)
        whole.counts = counts.select(sorted(counts.ids))
        whole.histograms = np.sum([part.histograms for part in parts], axis=0)
        return whole

    def of_classes_asked_for(self) -> EpisodeCounts:
        """The same with every class that an episode does not ask for as background."""
        whole = EpisodeCounts(self.counts.num_classes)
        whole.histograms = self.histograms
        for name, matrix in zip(self.counts.ids, self.counts.dense(), strict=True):
            others = [k for k in range(1, len(matrix)) if k not in asked_for(name)]
            matrix[0] += matrix[others].sum(0)
            matrix[others] = 0
            whole.counts.add(name, matrix)
        return whole

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of scored pixels that are predicted and that are the class, float64 (N,) each."""
        matrices = self.counts.dense()
        there = matrices[:, 1:].sum((1, 2)) / np.maximum(matrices.sum((1, 2)), 1)
        return painted_shares(self.counts).sums[:, 0], there

    def precision(self, classes: Sequence[int]) -> float:
        """Average precision over pixels, pooled per class, mean over classes that have object pixels."""
        return nan_mean([average_precision(self.histograms[c]) for c in classes])

    def best_iou(self, classes: Sequence[int]) -> float:
        """IoU at each class's best threshold, chosen on these very episodes; mean over classes."""
        return nan_mean([best_threshold(self.histograms[c])[0] for c in classes])


def asked_for(name: str) -> set[int]:
    """The class indices of an episode named NUMBER|QUERY|CLASS,...|SUPPORT,..."""
    return {int(class_index) for class_index in name.split("|")[2].split(",")}


def swapped(counts: ImageCounts) -> tuple[np.ndarray, np.ndarray]:
    """IoU of answers with the class asked for, and the best with another class asked for on the same query, (N,) each.

    Args:
        counts: of episodes named NUMBER|QUERY|CLASS|..., each query asked for two classes or more, true classes apart.
    """
    names = [(query, int(class_index)) for _, query, class_index, *_ in (name.split("|") for name in counts.ids)]
    asked: dict[str, set[int]] = {}
    for query, class_index in names:
        asked.setdefault(query, set()).add(class_index)
    matrices = counts.dense().astype(np.float64)
    painted, there = matrices.sum(1), matrices.sum(2)  # (N, K)
    right, wrong = np.zeros(len(names)), np.zeros(len(names))
    for n, (query, class_index) in enumerate(names):
        hits = matrices[n, :, class_index]  # (K,) painted pixels by true class
        shares = hits / np.maximum(painted[n, class_index] + there[n] - hits, 1)
        right[n] = shares[class_index]
        wrong[n] = max((shares[other] for other in asked[query] - {class_index}), default=0.0)
    return right, wrong


def following(counts: ImageCounts) -> Sample:
    """Queries of a `swap` test: in how many of their episodes the answer fits the class asked for best, of how many.

    Episodes of one query are drawn together, since they hang on the same picture.
    """
    right, wrong = swapped(counts)
    sums: dict[str, np.ndarray] = {}
    for name, follows in zip(counts.ids, right > wrong, strict=True):
        query = name.split("|")[1]
        sums[query] = sums.get(query, 0) + np.array([follows, 1.0])
    return Sample(list(sums), np.array(list(sums.values())))


def empty_answers(counts: ImageCounts) -> Sample:
    """Episodes: whether nothing is painted, of 1."""
    sums = painted_shares(counts).sums
    return Sample(counts.ids, np.stack([sums[:, 0] == 0, sums[:, 1]], -1))


def painted_shares(counts: ImageCounts) -> Sample:
    """Episodes: the share of scored pixels that is painted, of 1."""
    matrices = counts.dense()
    shares = matrices[:, :, 1:].sum((1, 2)) / np.maximum(matrices.sum((1, 2)), 1)
    return Sample(counts.ids, np.stack([shares, np.ones(len(shares))], -1))


def novel_mean_iou(outcomes: np.ndarray) -> np.ndarray:
    """Mean IoU (...) over the classes that occur, background left out, of outcomes (..., K, 3)."""
    shares = class_iou(outcomes)[..., 1:]
    present = ~np.isnan(shares)
    means: np.ndarray = np.where(present, shares, 0).sum(-1) / np.maximum(present.sum(-1), 1)
    return means


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


def generalised_scores(outcomes: np.ndarray, base: Sequence[int], novel: Sequence[int]) -> dict[str, np.ndarray]:
    """Mean IoU of all classes and the background, of base, of novel classes, and the harmonic mean of these two.

    Each (...), of outcomes (..., K, 3); a class that is neither true nor predicted is left out.
    """
    of_base, of_novel = group_iou(outcomes, base), group_iou(outcomes, novel)
    return {
        "mIoU": group_iou(outcomes, [0, *base, *novel]),
        "base_mIoU": of_base,
        "novel_mIoU": of_novel,
        "harmonic_mIoU": harmonic(of_base, of_novel),
    }


def nan_mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; nan if none is."""
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")
