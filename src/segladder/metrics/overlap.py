"""The IoU family, each a function of one confusion matrix (K, K) whose rows are the truth.

A class is absent when no pixel is labelled or predicted as it: it has no IoU. `absent="skip"` gives it nan, which
every mean leaves out (as PASCAL VOC scores a whole set); `absent="zero"` gives it 0. A class that is predicted
but never true is not absent: its IoU is 0 under both rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from segladder.errors import ConfigError
from segladder.metrics.scores import Score

Absent = Literal["skip", "zero"]
COLUMNS = (  # of `per_class`
    Score("iou", "IoU"),
    Score("precision"),
    Score("recall"),
    Score("over_activation", better="lower"),
    Score("under_activation", better="lower"),
)


def iou(confusion: Tensor, absent: str = "skip") -> Tensor:
    """Intersection over union per class, float64 (K,)."""
    return _share(true_positives(confusion), union(confusion), absent)


def precision(confusion: Tensor, absent: str = "skip") -> Tensor:
    """True positives over predicted pixels per class, float64 (K,); here absent means never predicted."""
    return _share(true_positives(confusion), confusion.double().sum(0), absent)


def recall(confusion: Tensor, absent: str = "skip") -> Tensor:
    """True positives over true pixels per class, float64 (K,); here absent means never true."""
    return _share(true_positives(confusion), confusion.double().sum(1), absent)


def over_activation(confusion: Tensor, absent: str = "skip") -> Tensor:
    """False positives over the union per class, float64 (K,); with `iou` and `under_activation` it adds up to 1."""
    return _share(confusion.double().sum(0) - true_positives(confusion), union(confusion), absent)


def under_activation(confusion: Tensor, absent: str = "skip") -> Tensor:
    """False negatives over the union per class, float64 (K,)."""
    return _share(confusion.double().sum(1) - true_positives(confusion), union(confusion), absent)


def pixel_accuracy(confusion: Tensor) -> float:
    """Share of counted pixels whose class is right; nan without pixels."""
    counts = confusion.double()
    return float(counts.trace() / counts.sum())


def mean_accuracy(confusion: Tensor, absent: str = "skip") -> float:
    """Mean of `recall` over the classes that are not absent."""
    return float(recall(confusion, absent).nanmean())


def frequency_weighted_iou(confusion: Tensor) -> float:
    """Mean IoU where each class weighs as many pixels as are true of it."""
    frequency = confusion.double().sum(1)
    return float((frequency * iou(confusion, "zero")).sum() / frequency.sum())


def summary(confusion: Tensor, absent: str = "skip", background: int | None = 0) -> dict[str, float]:
    """Every score of the whole set by name; means run over the classes that are not absent.

    Those named `_foreground` leave the background out of the mean. A background pixel painted as a class is still that
    class's false positive. Without a background (None) they are the means over all classes.
    """
    over, under = over_activation(confusion, absent), under_activation(confusion, absent)  # (K,)
    foreground = [k for k in range(len(confusion)) if k != background]
    return {
        "mIoU": float(iou(confusion, absent).nanmean()),
        "mean_precision": float(precision(confusion, absent).nanmean()),
        "mean_accuracy": mean_accuracy(confusion, absent),
        "over_activation": float(over.nanmean()),
        "under_activation": float(under.nanmean()),
        "over_activation_foreground": float(over[foreground].nanmean()),
        "under_activation_foreground": float(under[foreground].nanmean()),
        "pixel_accuracy": pixel_accuracy(confusion),
        "frequency_weighted_iou": frequency_weighted_iou(confusion),
    }


def per_class(confusion: Tensor, classes: Sequence[str], absent: str = "skip") -> list[dict[str, float | int | str]]:
    """One row per class, the `per_class` of a record: its name, scores and number of true pixels."""
    scores = {f.__name__: f(confusion, absent) for f in (iou, precision, recall, over_activation, under_activation)}
    pixels = confusion.sum(1)
    return [
        {"class": name, **{key: float(values[k]) for key, values in scores.items()}, "pixels": int(pixels[k])}
        for k, name in enumerate(classes)
    ]


def true_positives(confusion: Tensor) -> Tensor:
    """Pixels of each class that were predicted right, float64 (K,)."""
    return confusion.double().diagonal()


def union(confusion: Tensor) -> Tensor:
    """Pixels that are true or predicted of each class, float64 (K,)."""
    counts = confusion.double()
    return counts.sum(0) + counts.sum(1) - counts.diagonal()


def _share(part: Tensor, whole: Tensor, absent: str) -> Tensor:
    if absent not in get_args(Absent):
        raise ConfigError(f"absent={absent}: expected skip or zero")
    empty = torch.nan if absent == "skip" else 0.0
    return torch.where(whole > 0, part / whole, empty)
