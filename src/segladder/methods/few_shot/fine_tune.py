"""Fine-tuning: a 1x1 head that starts from the class prototypes and is fitted to the supports by a few gradient steps.

The plain form of what many few-shot methods are compared with: the fine-tuned classifier among the baselines of Shaban
et al., BMVC 2017, https://arxiv.org/abs/1709.03410, and the support loss of RePRI (Boudiaf et al., CVPR 2021,
https://arxiv.org/abs/2012.06166; official code https://github.com/mboudiaf/RePRI-for-Few-Shot-Segmentation, MIT)
without its transductive terms; written anew. No published number fits.

Tapped is one level of the backbone, the last by default, at its own stride; RePRI's is a PSPNet bottleneck of 512
channels, trained on base classes. Differences from Shaban et al.: features stay frozen, they also tune the last layers.
Differences from RePRI: the head has two prototypes and a softmax, RePRI's one prototype, a sigmoid and a bias that
starts at the mean logit of the query; its logits stay cosines times 20, here the head is free after its start; Adam at
.01 in place of SGD at .025, 50 steps each; both classes weigh the same, there all pixels do; a support contributes a
limited number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segladder.methods.base import differentiating
from segladder.methods.few_shot.base import State
from segladder.methods.few_shot.pixel_classifier import PixelClassifier
from segladder.settings import AboveZero, Count


class FineTune(PixelClassifier):
    """A linear head of background and class on unit-length features, fitted with Adam for each episode.

    Args:
        temperature: length of the prototypes that the head starts from, so that its scores are cosines times this.
        steps: of Adam; 0 leaves the prototypes.
        lr: of Adam.
        common: the arguments of `PixelClassifier`.
    """

    def __init__(self, temperature: AboveZero, steps: Count, lr: AboveZero, **common: Any) -> None:
        super().__init__(**common)
        self.temperature = temperature
        self.steps = steps
        self.lr = lr

    def combine(self, states: Sequence[State], weights: Tensor) -> State:
        """Head weights (B, 2, C) and biases (B, 2) fitted to the pixels of all supports."""
        features, memberships = super().combine(states, weights)
        head = self.temperature * F.normalize(memberships @ features, dim=2)  # (B, 2, C)
        with differentiating():
            return self.fit(head.clone(), features.clone(), memberships.clone())

    def fit(self, head: Tensor, features: Tensor, memberships: Tensor) -> State:
        """Minimise the cross entropy of pixels (B, P, C), weighted by memberships (B, 2, P)."""
        head = head.detach().requires_grad_()
        bias = head.new_zeros(head.shape[:2]).requires_grad_()
        optimizer = torch.optim.Adam([head, bias], lr=self.lr)
        for _ in range(self.steps):
            logits = head @ features.detach().transpose(1, 2) + bias[..., None]  # (B, 2, P)
            loss = -(memberships.detach() * logits.log_softmax(1)).sum()  # a sum: episodes do not mix
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return head.detach(), bias.detach()

    def score(self, pixels: Tensor, state: State) -> Tensor:
        """The class's logit minus the background's, (B, M), for pixels (B, M, C)."""
        head, bias = state
        logits = pixels @ head.transpose(1, 2) + bias[:, None]  # (B, M, 2)
        return logits[..., 1] - logits[..., 0]
