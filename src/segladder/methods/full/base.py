"""What methods that learn from masks share: a network from images to scores, a criterion, nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from segladder.methods.base import Batch, Method


class DenseMethod(Method):
    """A method whose network maps an image to a score per class and pixel and learns from masks.

    Args:
        backbone: the pretrained part of `network`.
        network: normalised images (B, 3, H, W) to logits (B, K, H, W).
        criterion: logits (B, K, H, W), masks int64 (B, H, W), 255 ignored, and pictures to a scalar.
        common: the arguments of `Method`.
    """

    takes: ClassVar[tuple[str, ...]] = ("masks",)

    def __init__(self, backbone: nn.Module | None, network: nn.Module, criterion: nn.Module, **common: Any) -> None:
        super().__init__(**common)
        self.network = network
        self.criterion = criterion
        self._backbone = [backbone] if backbone is not None else []  # a list: not registered a second time

    def backbones(self) -> Iterator[nn.Module]:
        """The backbone inside `network`."""
        yield from self._backbone

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images."""
        logits: Tensor = self.network(images)
        return logits

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion between logits and masks."""
        logits = self(batch["image"]).float()
        return {"loss": self.criterion(logits, batch["mask"].long(), self.pictures(batch))}

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) float32 at input size."""
        logits: Tensor = self(self.normalize(images)).float()
        return logits
