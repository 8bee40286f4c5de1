"""Scores of label maps: what they say of themselves, confusion matrices, the IoU family and their uncertainty."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segladder.metrics.confusion import ConfusionMatrix, confusion_matrix
    from segladder.metrics.overlap import iou

__all__ = ["ConfusionMatrix", "confusion_matrix", "iou"]


def __getattr__(name: str) -> Any:
    """The public names, imported on first use: reports read what scores say of themselves without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'overlap' if name == 'iou' else 'confusion'}"), name)
