"""Scores of label maps: confusion matrices, the IoU family, boundaries, sizes and their uncertainty."""

from segladder.metrics.confusion import ConfusionMatrix, confusion_matrix
from segladder.metrics.iou import iou

__all__ = ["ConfusionMatrix", "confusion_matrix", "iou"]
