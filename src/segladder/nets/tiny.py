"""A backbone that learns the embedded `shapes` data from random weights in seconds on a CPU."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.nets.backbone import FeatureExtractor, is_run, load_from_run
from segladder.settings import Positive


class TinyBackbone(FeatureExtractor):
    """Four stages at strides 2, 4, 8, 16, each behind the stem with one residual block; BatchNorm throughout.

    Args:
        width: channels of the first stage; the others have 2, 4 and 6 times as many (0.76 M parameters at 24).
        weights: `none`, or the folder of a run with this backbone.

    Raises:
        ConfigError: other weights, or a run that has another backbone.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self, width: Positive = 24, weights: str = "none") -> None:
        super().__init__()
        self.channels = [width, 2 * width, 4 * width, 6 * width]
        self.strides = [2, 4, 8, 16]
        self.stages = nn.ModuleList([_halving(3, width)])
        for before, after in zip(self.channels, self.channels[1:], strict=False):
            self.stages.append(nn.Sequential(_halving(before, after), ResidualBlock(after)))
        if is_run(weights):
            load_from_run(self, Path(weights))
        elif weights != "none":
            raise ConfigError(f"backbone.weights={weights}: tiny takes none or the folder of a run")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, channels[i], H / strides[i], W / strides[i]), sizes rounded up."""
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return features


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) to the same."""
        residual = self.first_norm(self.first(features)).relu()
        joined: Tensor = (features + self.second_norm(self.second(residual))).relu()
        return joined


def _halving(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
