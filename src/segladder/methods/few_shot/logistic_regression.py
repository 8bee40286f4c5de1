"""Logistic regression of the support's pixels, fitted anew for every episode.

A baseline of Shaban et al.: One-Shot Learning for Semantic Segmentation, BMVC 2017, https://arxiv.org/abs/1709.03410,
on fc7 of an FCN-32s trained on the base classes; no official code of it known. Published, PASCAL-5i, 1 shot: mean IoU
31.4, unverified. Here scikit-learn's (BSD-3-Clause). Differences: any level of any backbone, with the weights it comes
with; features of unit length; both classes weigh the same; a support contributes a limited number of pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Regression
from torch import Tensor

from segladder.methods.few_shot.base import State
from segladder.methods.few_shot.pixel_classifier import PixelClassifier
from segladder.settings import AboveZero, Positive


class LogisticRegression(PixelClassifier):
    """The decision function of an L2-penalised logistic regression, fitted on the CPU in float64.

    Args:
        penalty: of half the squared weights, against the sum of the two classes' mean losses.
        iterations: of L-BFGS at most.
        common: the arguments of `PixelClassifier`.
    """

    def __init__(self, penalty: AboveZero, iterations: Positive, **common: Any) -> None:
        super().__init__(**common)
        self.penalty = penalty
        self.iterations = iterations

    def combine(self, states: Sequence[State], weights: Tensor) -> State:
        """Weights and bias (B, C + 1) fitted to the pixels of all supports."""
        pixels = super().combine(states, weights)
        episodes = zip(*(part.double().cpu().numpy() for part in pixels), strict=True)
        fitted = np.stack([self.fit(*episode) for episode in episodes])
        return (torch.from_numpy(fitted).to(pixels[0]),)

    def fit(self, features: np.ndarray, memberships: np.ndarray) -> np.ndarray:
        """Weights and bias (C + 1,) for pixels (P, C) and memberships (2, P); of one class alone, a bias of +-1."""
        background, foreground = memberships.sum(1) > 0
        if not (background and foreground):
            return np.append(np.zeros(features.shape[1]), 1.0 if foreground else -1.0)
        regression = Regression(C=1 / self.penalty, max_iter=self.iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is a knob
            regression.fit(features, memberships[1] > 0, sample_weight=memberships.sum(0))
        return np.append(regression.coef_[0], regression.intercept_)

    def score(self, pixels: Tensor, state: State) -> Tensor:
        """The decision function (B, M) of pixels (B, M, C)."""
        weights, bias = state[0][:, :-1, None], state[0][:, -1:]
        return (pixels @ weights)[..., 0] + bias
