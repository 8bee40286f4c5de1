"""Answers to "where is this class?" counted on images that hold it and on images that do not."""

from __future__ import annotations

import numpy as np


def binary(confusion: np.ndarray, k: int, column: int) -> np.ndarray:
    """One image's answers for one class, int64 (2, 2): rows = whether a pixel is its, columns = whether painted.

    Args:
        confusion: rows = truth, columns = prediction, (K, M).
        k: row of the class.
        column: what is painted as the class.
    """
    hits, painted, true = confusion[k, column], confusion[:, column].sum(), confusion[k].sum()
    return np.array([[confusion.sum() - painted - true + hits, painted - hits], [true - hits, hits]], np.int64)


def among_all(binary: np.ndarray, k: int, num_classes: int) -> np.ndarray:
    """A binary matrix as one of all classes, int64 (K, K): what is not class `k` is in the first row and column."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    confusion[np.ix_([0, k], [0, k])] = binary
    return confusion
