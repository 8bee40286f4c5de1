"""Networks that make up visual features of a class from the vector that describes it."""

from __future__ import annotations

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
