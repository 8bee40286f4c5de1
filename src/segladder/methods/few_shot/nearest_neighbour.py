"""1-NN: a query pixel takes the label of the most similar support pixel.

A baseline of Shaban et al.: One-Shot Learning for Semantic Segmentation, BMVC 2017, https://arxiv.org/abs/1709.03410,
on fc7 of an FCN-32s trained on the base classes; no official code of it known. Published, PASCAL-5i, 1 shot: mean IoU
32.6, unverified. Differences: any level of any backbone, with the weights it comes with; likeness is the cosine; a
support contributes a limited number of pixels; the score is a margin, so that it can be enlarged and calibrated.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from segladder.methods.few_shot.base import PREDICTION_AGGREGATES, State
from segladder.methods.few_shot.pixel_classifier import PixelClassifier
from segladder.settings import AboveZero


class NearestNeighbour(PixelClassifier):
    """The cosine to the nearest pixel of the class minus that to the nearest of the background, times a factor.

    Where the supports have no pixel of a side, that side's cosine is -1. Pixels count alike, whatever their support
    weighs, unless that is nothing.

    Args:
        temperature: the factor; it changes probabilities, not labels at the map's resolution.
        common: the arguments of `PixelClassifier`.
    """

    joins: ClassVar[tuple[str, ...]] = ("mean", *PREDICTION_AGGREGATES)  # `mean` is the pixels of all supports

    def __init__(self, temperature: AboveZero, **common: Any) -> None:
        super().__init__(**common)
        self.temperature = temperature

    def score(self, pixels: Tensor, state: State) -> Tensor:
        """The margin (B, M) for pixels (B, M, C)."""
        features, memberships = state
        cosines = pixels @ features.transpose(1, 2)  # (B, M, P)
        background, foreground = (cosines.masked_fill(side[:, None] == 0, -1).amax(2) for side in memberships.unbind(1))
        return self.temperature * (foreground - background)
