"""Networks that make up visual features of a class from the vector that describes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class FeatureGenerator(nn.Module):
    """Semantic vector and code to a visual feature: the two-layer generator of ZS3Net (Bucher et al. 2019).

    Linear, LeakyReLU(.2), dropout, Linear; between the nodes of a graph each layer is a graph convolution.

    Args:
        embedding_channels: E, of the semantic vectors.
        code_channels: Z, of the noise or the contextual code.
        hidden_channels: between the layers.
        feature_channels: D, of the features.
        dropout: behind the first layer.
    """

    def __init__(
        self, embedding_channels: int, code_channels: int, hidden_channels: int, feature_channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.first = nn.Linear(embedding_channels + code_channels, hidden_channels)
        self.activation = nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout(dropout))
        self.second = nn.Linear(hidden_channels, feature_channels)

    def forward(self, embeddings: Tensor, codes: Tensor, propagation: Tensor | None = None) -> Tensor:
        """Features (N, D) for embeddings (N, E) and codes (N, Z).

        `propagation` (N, N), as `ops.regions.region_graph` gives it, mixes what the N nodes know of each other.
        """
        inputs = torch.cat([embeddings, codes], 1)  # (N, E + Z)
        if propagation is None:
            features: Tensor = self.second(self.activation(self.first(inputs)))
            return features
        propagated: Tensor = propagation @ self.second(self.activation(propagation @ self.first(inputs)))
        return propagated


class DeepGenerator(nn.Module):
    """Semantic vector and code to a visual feature through several layers, as in CaGNet's code (Gu et al. 2020).

    Each hidden layer is Linear, LeakyReLU(.2), dropout; the last one is Linear. Weights start Kaiming normal, biases 0.

    Args:
        embedding_channels: E, of the semantic vectors.
        code_channels: Z, of the contextual code.
        hidden_channels: of the hidden layers.
        feature_channels: D, of the features.
        dropouts: behind each hidden layer.
    """

    def __init__(
        self,
        embedding_channels: int,
        code_channels: int,
        hidden_channels: Sequence[int],
        feature_channels: int,
        dropouts: Sequence[float],
    ) -> None:
        super().__init__()
        widths = [embedding_channels + code_channels, *hidden_channels]
        self.hidden = nn.Sequential()
        for (before, after), dropout in zip(pairwise(widths), dropouts, strict=True):
            self.hidden.extend([nn.Linear(before, after), nn.LeakyReLU(0.2), nn.Dropout(dropout)])
        self.last = nn.Linear(widths[-1], feature_channels)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, embeddings: Tensor, codes: Tensor) -> Tensor:
        """Features (N, D) for embeddings (N, E) and codes (N, Z)."""
        features: Tensor = self.last(self.hidden(torch.cat([embeddings, codes], 1)))
        return features
