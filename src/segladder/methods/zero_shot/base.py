"""What zero-shot methods share: class vectors, which classes are seen, and dense features.

A zero-shot network learns from masks in which pixels of unseen classes (and, where the protocol says so, of the
background) are 255. It answers with a score for every class, seen or not.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import Method
from segladder.nets.answering import in_float32
from segladder.nets.losses import CrossEntropy
from segladder.ops.upsampling import bilinear


class SemanticVectorMethod(Method):
    """Scores for all classes, of which only the seen ones have labels, by way of vectors that describe them.

    `feature_scores` gives logits (B, K, h, w) of all K classes, the background at 0, and `predict` enlarges them; the
    protocol decides whether the background counts, and calibrates seen against unseen classes.

    Args:
        features: the visual network, normalised images (B, 3, H, W) to features (B, D, h, w); it has a `backbone`.
        embeddings: a vector per class, float32 (K, E), the background first (zeros if it has none).
        seen: which classes have labels, bool (K,); the background's entry says whether its pixels are labelled.
        few_labels: training also has a few labels of unseen classes.
        common: the arguments of `Method` but mean and std, which are the backbone's.

    Raises:
        ConfigError: few labels for a method that does not learn from them.
    """

    learns_from: ClassVar[str] = "nothing"
    reads_class_vectors: ClassVar[bool] = True
    scores_features: ClassVar[bool] = True

    embeddings: Tensor
    seen: Tensor

    def __init__(
        self, features: nn.Module, embeddings: Tensor, seen: Tensor, few_labels: bool = False, **common: Any
    ) -> None:
        backbone: Any = features.backbone
        super().__init__(mean=backbone.mean, std=backbone.std, **common)
        if few_labels and not self.learns_unseen:
            raise ConfigError(
                f"pool: method={self.name} does not learn from masks of unseen classes; leave it out or choose another"
                " method, such as spnet"
            )
        self.features = features
        self.register_buffer("embeddings", embeddings.float())
        self.register_buffer("seen", seen.bool())

    @abstractmethod
    def feature_scores(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) at the size of the features, for raw pixels (B, 3, H, W)."""

    def predict(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) float32 at input size."""
        scores = self.feature_scores(images).float()
        with in_float32(scores.device):
            return bilinear(scores, images.shape[-2:])

    def backbones(self) -> Any:
        """The backbone inside `features`."""
        yield self.features.backbone

    def cross_entropy_among(self, classes: Tensor, logits: Tensor, masks: Tensor) -> Tensor:
        """Cross entropy of a softmax over some classes alone, averaged over the pixels labelled as one of them.

        Args:
            classes: bool (K,).
            logits: (B, K, h, w) of all classes; enlarged to the masks' size.
            masks: class indices (B, H, W), 255 ignored, as is every class left out.

        Returns:
            A scalar, 0 if no pixel is labelled so.
        """
        positions = (classes.cumsum(0) - 1).where(classes, IGNORE)  # (K,)
        targets = F.pad(positions, (0, IGNORE + 1 - len(classes)), value=IGNORE)[masks.long()]
        kept = bilinear(logits[:, classes].float(), masks.shape[-2:])
        loss: Tensor = CrossEntropy()(kept, targets)
        return loss

    def inherit(self, parent: Method) -> None:
        """Start from the visual network of a parent run. Raises ConfigError if that has another shape."""
        if not isinstance(parent, SemanticVectorMethod):
            raise ConfigError(f"parent: method={parent.name} has no features that method={self.name} could take")
        try:
            self.features.load_state_dict(parent.features.state_dict())
        except RuntimeError as error:
            raise ConfigError(f"parent: its features do not fit method={self.name}: {error}") from error
