"""Dense CRF: class scores fitted to the image's colours, the last step before pseudo-masks.

Kraehenbuehl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011,
https://arxiv.org/abs/1210.5644. Two published forms: the scores of background and present classes, divided by their
sum, are the pixel's probabilities (jiwoon-ahn/psa, MIT), or every pixel has its best class with one `certainty` (the
last step of irn, MIT, and of Puzzle-CAM). No published number of its own. Scores over their sum are flat, so that
colour decides almost alone: it cuts thin and dim parts off. Standard deviations are in pixels: published ones suit
images of about 500 pixels, smaller images need smaller ones.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from segladder.errors import ConfigError
from segladder.methods.base import Batch
from segladder.methods.image_level.base import Refinement
from segladder.ops.cam import background_power
from segladder.ops.crf import Backend, backend_name, dense_crf_each, label_probabilities
from segladder.ops.upsampling import bilinear
from segladder.settings import AboveZero, Count, NotNegative, ProperShare, Share


class DenseCRF(Refinement):
    """Mean field at the image's full size over the background and the classes that are present.

    Args:
        num_classes: K, background included.
        background_score: the background's score at every pixel, where the parent gives none.
        background_power: (1 - the best class' score)^power as the background's score instead; None: the constant.
        certainty: probability of the best class of background and scores; None: scores over their sum.
        iterations: of mean field.
        gaussian_sxy: standard deviation of place in the smoothness kernel, in pixels.
        gaussian_compat: its weight.
        bilateral_sxy: standard deviation of place in the appearance kernel, in pixels.
        bilateral_srgb: its standard deviation of colour, in 0..255.
        bilateral_compat: its weight.
        backend: of `ops.crf.dense_crf`.
        common: the arguments of `Method`.

    Raises:
        ConfigError: an unknown backend, or one that is not installed; a certainty that is no probability.
    """

    takes = ("class_scores",)
    scores_background = True

    def __init__(
        self,
        num_classes: int,
        background_score: Share,
        background_power: NotNegative | None,
        certainty: ProperShare | None,
        iterations: Count,
        gaussian_sxy: AboveZero,
        gaussian_compat: NotNegative,
        bilateral_sxy: AboveZero,
        bilateral_srgb: AboveZero,
        bilateral_compat: NotNegative,
        backend: Backend,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, background_score, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), **common)
        self.background_power = background_power
        self.certainty = certainty
        self.resolved = {"backend": backend_name(backend)}
        self.crf = partial(
            dense_crf_each,
            iterations=iterations,
            gaussian_sxy=gaussian_sxy,
            gaussian_compat=gaussian_compat,
            bilateral_sxy=bilateral_sxy,
            bilateral_srgb=bilateral_srgb,
            bilateral_compat=bilateral_compat,
            backend=self.resolved["backend"],
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Raise ConfigError: nothing learns."""
        raise ConfigError(f"method.trains=true: method={self.name} has nothing to learn, expected false")

    @torch.no_grad()
    def refine(self, images: Tensor, scores: Tensor, tags: Tensor) -> Tensor:
        """Probabilities (B, K, H, W) of background and classes; their greatest is the answer."""
        scores = bilinear(scores, images.shape[-2:])
        if scores.shape[1] < self.num_classes:
            scores = torch.cat([self._background(scores), scores], 1)  # (B, K, H, W)
        present = torch.cat([torch.ones_like(tags[:, :1]), tags], 1) > 0  # (B, K)
        evidence = [self._evidence(given[classes]) for given, classes in zip(scores, present, strict=True)]
        fitted = torch.zeros_like(scores)
        found = self.crf(list(images.permute(0, 2, 3, 1)), evidence)
        for probabilities, classes, beliefs in zip(fitted, present, found, strict=True):
            probabilities[classes] = beliefs
        return fitted

    def _evidence(self, scores: Tensor) -> Tensor:
        """Probabilities of the classes that are present, background first, by their scores (C, H, W)."""
        if self.certainty is None or len(scores) == 1:
            return scores / scores.sum(0).clamp_min(torch.finfo(scores.dtype).tiny)
        return label_probabilities(scores.argmax(0), len(scores), self.certainty)

    def _background(self, scores: Tensor) -> Tensor:
        if self.background_power is None:
            return torch.full_like(scores[:, :1], self.background_score)
        return background_power(scores, self.background_power)[:, None]
