"""Networks of CaGNet (Gu et al. 2020): the code of a place's context, and what judges real and generated features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DILATIONS = (1, 2, 5)


class ContextModule(nn.Module):
    """Features to a Gaussian over contextual codes, at each place from the scales of context it selects.

    Args:
        channels: D, of the features and the codes.
        compete: whether the scales' weights at a place add up to 1, by a softmax, or are sigmoids of rectified scores.
    """

    def __init__(self, channels: int, compete: bool = True) -> None:
        super().__init__()
        self.compete = compete
        self.scales = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in DILATIONS)
        self.selector = nn.Conv2d(len(DILATIONS) * channels, len(DILATIONS), 3, padding=1)
        self.gaussian = nn.Conv2d(len(DILATIONS) * channels, 2 * channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (B, D, h, w), for features (B, D, h, w)."""
        contexts = [features]
        for scale in self.scales:
            contexts.append(scale(contexts[-1]).relu())  # places see 3, 7 and 17 places across
        stacked = torch.stack(contexts[1:], 1)  # (B, S, D, h, w)
        scores = self.selector(stacked.flatten(1, 2))  # (B, S, h, w)
        weights = scores.softmax(1) if self.compete else scores.relu().sigmoid()
        mean, log_variance = self.gaussian((stacked * weights[:, :, None]).flatten(1, 2)).chunk(2, 1)
        return mean, log_variance


class Judge(nn.Module):
    """Classifier and discriminator on a common trunk.

    Args:
        channels: D, of the features.
        hidden_channels: of the trunk.
        num_classes: K.
        slope: of the trunk's LeakyReLU.
        dropout: behind it.
    """

    def __init__(
        self, channels: int, hidden_channels: int, num_classes: int, slope: float = 0.2, dropout: float = 0.0
    ) -> None:
        super().__init__()
        last = nn.Dropout(dropout) if dropout else nn.Identity()
        self.trunk = nn.Sequential(nn.Linear(channels, hidden_channels), nn.LeakyReLU(slope), last)
        self.classifier = nn.Linear(hidden_channels, num_classes)
        self.discriminator = nn.Linear(hidden_channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (N, K) and realness (N,), 1 for real and 0 for generated ones, of features (N, D)."""
        shared = self.trunk(features)
        return self.classifier(shared), self.discriminator(shared)[:, 0]
