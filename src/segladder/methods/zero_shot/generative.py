"""What generative zero-shot methods share: a frozen visual network, and a classifier that also sees made-up features.

The papers train visual network, generator and classifier one after the other. Here the visual network is that of a
parent run (`parent=RUN` of `seen_classifier`, say), and one run trains the rest: for the first share of its steps the
generator learns to imitate features of labelled pixels, then the classifier learns from its features as well. A
further run whose parent is of the same method starts from all of its weights: with `pseudo_masks.surest` it is the
papers' self-training, in which the parent's surest answers are labels of unseen classes.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from segladder.errors import ConfigError
from segladder.methods.base import Batch, Method
from segladder.methods.zero_shot.base import SemanticVectorMethod
from segladder.nets.dense_features import DenseFeatures
from segladder.nets.losses import CrossEntropy
from segladder.ops.regions import labels_at
from segladder.settings import Share


class GenerativeMethod(SemanticVectorMethod):
    """A method that trains a classifier of pixels on real features of seen and generated ones of unseen classes.

    Args:
        features: the visual network, normalised images (B, 3, H, W) to features (B, D, h, w); it stays as it is, in
            evaluation mode.
        embeddings: a vector per class (K, E), the background first.
        seen: which classes have labels, bool (K,). Features are made up for all others but the background.
        generator_share: of the steps, in which generated features do not reach the classifier yet.
        common: the arguments of `Method` but mean and std.

    Raises:
        ConfigError: no unseen class.
    """

    takes = ("features",)
    needs_parent = True
    learns_unseen = True

    unseen_classes: Tensor

    def __init__(
        self, features: DenseFeatures, embeddings: Tensor, seen: Tensor, generator_share: Share, **common: Any
    ) -> None:
        super().__init__(features, embeddings, seen, **common)
        unseen = (~self.seen[1:]).nonzero()[:, 0] + 1  # (U,)
        if not len(unseen):
            raise ConfigError(f"method={self.name}: every class is seen, expected unseen ones to make up features of")
        self.register_buffer("unseen_classes", unseen, persistent=False)
        self.features.requires_grad_(False).eval()
        self.cross_entropy = CrossEntropy()
        self.generator_share = generator_share
        self.generator_steps = 0  # known once training starts

    @abstractmethod
    def class_logits(self, features: Tensor) -> Tensor:
        """Logits (N, K) of features (N, D)."""

    def train(self, mode: bool = True) -> Self:
        """Like any module's, but the visual network stays in evaluation mode."""
        super().train(mode)
        self.features.eval()
        return self

    def inherit(self, parent: Method) -> None:
        """Start from the parent's visual network, or from all its weights if it is of the same method."""
        super().inherit(parent)
        if type(parent) is type(self):
            try:
                self.load_state_dict(dict(parent.named_parameters()), strict=False)  # not its embeddings
            except RuntimeError as error:
                raise ConfigError(f"parent: its weights do not fit method={self.name}: {error}") from error

    def on_train_start(self) -> None:
        """Work out for how many steps the generator learns alone."""
        self.generator_steps = round(self.generator_share * float(self.trainer.estimated_stepping_batches))

    def generated_share(self) -> float:
        """Factor on the loss of generated features: 0 while the generator learns alone, then 1."""
        return float(self.global_step >= self.generator_steps)

    def labelled_features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Frozen features (B, D, h, w) of normalised images, of the weights' type, and labels int64 (B, h, w) there."""
        with torch.no_grad():
            features = self.features(batch["image"]).to(self.embeddings.dtype)
        return features, labels_at(batch["mask"], features.shape[-2:])

    def pixel_features(self, images: Tensor) -> Tensor:
        """What the classifier sees of raw pixels (B, 3, H, W): features (B, D, h, w)."""
        features: Tensor = self.features(self.normalize(images))
        return features

    def feature_scores(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) of raw pixels (B, 3, H, W)."""
        features = self.pixel_features(images).movedim(1, -1)  # (B, h, w, D)
        logits = self.class_logits(features.flatten(0, 2)).unflatten(0, features.shape[:3])
        maps: Tensor = logits.movedim(-1, 1)
        return maps
