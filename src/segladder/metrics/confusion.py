"""Counting which class was predicted where which class is true."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import Tensor

from segladder.mask_values import IGNORE

WIDEST_JOINT = 1 << 24  # bins; an ignored value beyond is filtered out instead of given a row of its own


def confusion_matrix(pred: Tensor, target: Tensor, num_classes: int, ignore_index: int | None = IGNORE) -> Tensor:
    """Pixel counts, int64 (K, K): row = true class, column = predicted class.

    Args:
        pred: predicted classes 0..K-1, any integer type and shape.
        target: true classes 0..K-1 or `ignore_index`, any integer type, the shape of `pred`.
        num_classes: K.
        ignore_index: true value of pixels that do not count, whatever is predicted there; None counts every pixel.

    Raises:
        ValueError: shapes differ, a type is not integer, or a value has no class (predictions are checked on ignored
            pixels too).
    """
    pred, target = _labels("prediction", pred), _labels("target", target)
    if pred.shape != target.shape:
        raise ValueError(f"prediction has shape {tuple(pred.shape)}, target {tuple(target.shape)}: expected the same")
    pred, target = pred.reshape(-1), target.reshape(-1)
    if not pred.numel():
        return torch.zeros(num_classes, num_classes, dtype=torch.int64, device=pred.device)
    _check_range("prediction", pred, num_classes)
    if ignore_index is not None and not 0 <= ignore_index < WIDEST_JOINT // num_classes:
        kept = target != ignore_index
        return confusion_matrix(pred[kept], target[kept], num_classes, None)
    rows = num_classes if ignore_index is None else max(num_classes, ignore_index + 1)
    _check_range("target", target, rows, shown=num_classes)
    counts = _joint_counts(target, pred, rows, num_classes)  # (rows, K)
    if ignore_index is not None:
        counts[ignore_index] = 0
    if rows > num_classes and (stray := counts[num_classes:].any(1)).any():
        raise ValueError(_fault("target", num_classes + int(stray.nonzero()[0]), num_classes))
    return counts[:num_classes]


def _labels(name: str, labels: Tensor) -> Tensor:
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(f"{name} is {labels.dtype}: expected classes of an integer type (argmax scores first)")
    if labels.dtype == torch.bool:
        return labels.to(torch.uint8)
    return labels.long() if labels.dtype in (torch.uint16, torch.uint32, torch.uint64) else labels


def _check_range(name: str, labels: Tensor, values: int, shown: int | None = None) -> None:
    low, high = torch.stack(torch.aminmax(labels)).tolist()
    if low < 0 or high >= values:
        raise ValueError(_fault(name, low if low < 0 else high, shown or values))


def _fault(name: str, value: int, num_classes: int) -> str:
    ignored = " or the ignored value" if name == "target" else ""
    return f"{name} holds class {value}, expected 0..{num_classes - 1}{ignored}"


def _joint_counts(rows: Tensor, columns: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Histogram (num_rows, num_columns) over one joint index in the narrowest type that holds it."""
    bins = num_rows * num_columns
    narrow = torch.int16 if bins <= 1 << 15 else torch.int32 if bins <= 1 << 31 else torch.int64
    joint = torch.add(columns.to(narrow), rows.to(narrow), alpha=num_columns)  # (N,)
    return torch.bincount(joint, minlength=bins).view(num_rows, num_columns)


class ConfusionMatrix(torchmetrics.Metric):
    """`confusion_matrix` summed over updates and processes.

    Args:
        num_classes: K.
        ignore_index: true value of pixels that do not count.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = None
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int | None = IGNORE, **metric: Any) -> None:
        super().__init__(**metric)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.add_state("matrix", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add label maps of one shape, any integer type. Raises ValueError for a value without a class."""
        self.matrix += confusion_matrix(pred, target, self.num_classes, self.ignore_index)

    def compute(self) -> Tensor:
        """Pixel counts so far, int64 (K, K): row = true class, column = predicted class."""
        return self.matrix
