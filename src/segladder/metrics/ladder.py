"""Answers to "where is this class?" counted on images that hold it and on images that do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def asked(confusion: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """One image's answers for some classes as one matrix: the sum of a binary matrix for each.

    The binary matrix of class c has pixels of c in row c, all others in row 0, and likewise for what is predicted. So
    in the sum a class keeps its true positives, false positives and false negatives apart from those of the others.

    Args:
        confusion: rows = truth, columns = prediction, (K, K).
        classes: indices, none the background.

    Returns:
        int64 (K, K), non-zero on the diagonal and in the first row and column.
    """
    answers = np.zeros_like(confusion, np.int64)
    for c in classes:
        hits = confusion[c, c]
        invented, missed = confusion[:, c].sum() - hits, confusion[c].sum() - hits
        answers[c, c], answers[0, c], answers[c, 0] = hits, invented, missed
        answers[0, 0] += confusion.sum() - hits - invented - missed
    return answers
