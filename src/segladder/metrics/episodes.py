"""What is counted over episodes: confusions, and histograms of probabilities for scores without a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segladder.metrics.average_precision import BINS, average_precision, best_threshold
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.formulas import painted_shares


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

    def add(self, asked: Sequence[Asked], predictions: Tensor, probabilities: Tensor, truth: Tensor) -> None:
        """Count N queries of one size, each asked for M classes, on the device that the tensors are on.

        Args:
            asked: the queries and the classes.
            predictions: which of a query's classes a pixel is, from 1, 0 = background, uint8 (N, H, W).
            probabilities: of each class, float32 (N, M, H, W).
            truth: class indices, 255 = not scored, uint8 (N, H, W).
        """
        size, ways = self.counts.num_classes, probabilities.shape[1]
        truth = truth.clamp(max=size)  # the last row is not scored
        cells = joint_counts(truth, size + 1, predictions, ways + 1)  # (N, K + 1, M + 1)
        for each, what in zip(cells, asked, strict=True):
            matrix = np.zeros((size, size), np.int64)
            matrix[:, [0, *what.classes]] = each[:size]
            self.counts.add(what, matrix)
        classes = np.array([what.classes for what in asked], np.uint8)  # (N, M)
        bins = (probabilities * BINS).int().clamp_(max=BINS - 1).flatten(0, 1)
        objects = truth[:, None] == torch.from_numpy(classes).to(truth.device)[:, :, None, None]
        sides = (objects.to(torch.uint8) + 2 * (truth == size).to(torch.uint8)[:, None]).flatten(0, 1)  # (N M, H, W)
        np.add.at(self.histograms, classes.ravel(), joint_counts(sides, 3, bins, BINS)[:, :2])

    @classmethod
    def merged(cls, parts: Sequence[EpisodeCounts]) -> EpisodeCounts:
        """The counts of several processes in one, ordered by what was asked."""
        whole = cls(parts[0].counts.num_classes)
        whole.counts = Counts.merged(part.counts for part in parts)
        whole.histograms = np.sum([part.histograms for part in parts], axis=0)
        return whole

    def of_classes_asked_for(self, kind: str) -> EpisodeCounts:
        """These counts under another kind, with every class that an episode does not ask for as background."""
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
        outcomes = self.counts.outcomes()
        true = outcomes[..., 0] + outcomes[..., 2]  # (N, K)
        there = true[:, 1:].sum(1) / np.maximum(true.sum(1), 1)
        return painted_shares(self.counts), there

    def precision(self, classes: Sequence[int]) -> float:
        """Average precision over pixels, pooled per class, mean over classes that have object pixels."""
        return nan_mean([average_precision(self.histograms[c]) for c in classes])

    def best_iou(self, classes: Sequence[int]) -> float:
        """IoU at each class's best threshold, chosen on these very episodes; mean over classes."""
        return nan_mean([best_threshold(self.histograms[c])[0] for c in classes])


def joint_counts(rows: Tensor, num_rows: int, columns: Tensor, num_columns: int) -> np.ndarray:
    """How often each value of `rows` meets each of `columns`, both (N, H, W): int64 (N, num_rows, num_columns)."""
    starts = torch.arange(len(rows), dtype=torch.int32, device=rows.device) * (num_rows * num_columns)
    joint = (
        rows.int().mul_(num_columns).add_(columns.int()).add_(starts[:, None, None])
    )  # of one type all along: faster
    found = torch.bincount(joint.flatten(), minlength=len(rows) * num_rows * num_columns)
    return found.view(len(rows), num_rows, num_columns).cpu().numpy()


def nan_mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; nan if none is."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
