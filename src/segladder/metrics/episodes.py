"""What is counted over episodes: confusions, and histograms of probabilities for scores without a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segladder.metrics.average_precision import BINS, average_precision, best_threshold, probability_histogram
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.formulas import painted_shares

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
        self.counts = Counts(num_classes)
        self.histograms = np.zeros((num_classes, 2, BINS), np.int64)

    def add(
        self, asked: Asked, prediction: np.ndarray, probabilities: Mapping[int, np.ndarray], truth: np.ndarray
    ) -> None:
        """Count an episode.

        Args:
            asked: the query and the classes it is asked for.
            prediction: the index of a class asked for, 0 = background, uint8 (H, W).
            probabilities: of each class asked for, float (H, W).
            truth: class indices, 255 = not scored, uint8 (H, W).
        """
        size = self.counts.num_classes
        known = truth < size
        joint = truth[known].astype(np.intp) * size + prediction[known]
        self.counts.add(asked, np.bincount(joint, minlength=size**2))
        for class_index, probability in probabilities.items():
            binary = np.where(known, truth == class_index, np.uint8(IGNORE))
            self.histograms[class_index] += probability_histogram(probability, binary)

    @classmethod
    def merged(cls, parts: Sequence[EpisodeCounts]) -> EpisodeCounts:
        """The counts of several processes in one, ordered by what was asked."""
        whole = cls(parts[0].counts.num_classes)
        whole.counts = Counts.merged(part.counts for part in parts)
        whole.histograms = np.sum([part.histograms for part in parts], axis=0)
        return whole

    def of_classes_asked_for(self, kind: str) -> EpisodeCounts:
        """The same, called another kind, with every class that an episode does not ask for as background."""
        whole = EpisodeCounts(self.counts.num_classes)
        whole.histograms = self.histograms
        for asked, matrix in self.counts.rows():
            others = [k for k in range(1, len(matrix)) if k not in asked.classes]
            matrix[0] += matrix[others].sum(0)
            matrix[others] = 0
            whole.counts.add(asked._replace(kind=kind), matrix)
        return whole

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of scored pixels that are predicted and that are the class, float64 (N,) each."""
        matrices = self.counts.dense()
        there = matrices[:, 1:].sum((1, 2)) / np.maximum(matrices.sum((1, 2)), 1)
        return painted_shares(self.counts), there

    def precision(self, classes: Sequence[int]) -> float:
        """Average precision over pixels, pooled per class, mean over classes that have object pixels."""
        return nan_mean([average_precision(self.histograms[c]) for c in classes])

    def best_iou(self, classes: Sequence[int]) -> float:
        """IoU at each class's best threshold, chosen on these very episodes; mean over classes."""
        return nan_mean([best_threshold(self.histograms[c])[0] for c in classes])


def nan_mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; nan if none is."""
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")
