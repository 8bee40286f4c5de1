"""Few-shot methods in three parts, so that an image is encoded once, however many episodes it takes part in.

`encode` looks at an image alone, `condition` reads off one annotated support what the class looks like, `decode` finds
that in a query. `combine` makes one class state of K supports.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from segladder.methods.base import Batch, Method

Features = tuple[Tensor, ...]  # maps of a batch of images, each (B, C, h, w)
State = tuple[Tensor, ...]  # what supports say about their class, batch first

StateAggregate = Literal["mean", "area_mean"]  # of what K supports say: `combine`, with equal weights or by area
PredictionAggregate = Literal["vote", "relative_vote", "or", "max", "logit_mean"]  # of one prediction per support
Aggregate = Literal[StateAggregate, PredictionAggregate]
STATE_AGGREGATES, PREDICTION_AGGREGATES = get_args(StateAggregate), get_args(PredictionAggregate)


class FewShotMethod(Method):
    """A method that segments a query for the class that K annotated supports show.

    A training batch holds B episodes: `image` (B, 3, H, W) and `mask` (B, H, W) of the queries, `support_image`
    (B, K, 3, H, W) and `support_mask` (B, K, H, W), masks uint8 with 1 = the episode's class, 255 ignored.
    `encode`, `condition`, `combine` and `decode` take images already normalised and masks float32 of 0 and 1.

    Args:
        num_classes: of the data set; an episode has one class and the background.
        criterion: logits (B, 2, H, W), masks int64 (B, H, W), 255 ignored, and pictures to a scalar.
        common: the arguments of `Method`.
    """

    needs_background: ClassVar[bool] = True  # a class stands against it
    answers: ClassVar[str] = "episodes"
    joins: ClassVar[tuple[str, ...]] = (*STATE_AGGREGATES, *PREDICTION_AGGREGATES)  # of K supports, its paper's first

    reads_support_images = False  # whether `condition` looks at the supports' pixels (else it is given None)
    reads_support_features = True  # whether `condition` looks at their `encode`d features (else it is given ())

    def __init__(self, num_classes: int, criterion: nn.Module, **common: Any) -> None:
        super().__init__(**common)
        self.criterion = criterion

    @abstractmethod
    def encode(self, images: Tensor) -> Features:
        """What the method needs of images (B, 3, H, W) in whichever role, the class unknown."""

    def encode_supports(self, images: Tensor) -> Features:
        """What `condition` needs of images that are nothing but supports: all of `encode`, unless less will do."""
        return self.encode(images)

    @abstractmethod
    def condition(self, support_images: Tensor | None, support_features: Features, support_masks: Tensor) -> State:
        """What one support an episode says about its class.

        Args:
            support_images: (B, 3, H, W), or None if `reads_support_images` is false.
            support_features: their `encode`, or () if `reads_support_features` is false.
            support_masks: 1 = the class, 0 = anything else, float32 (B, H, W).
        """

    @abstractmethod
    def decode(self, query_features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits of background and class (B, 2, H, W) at `size` = (H, W)."""

    def combine(self, states: Sequence[State], weights: Tensor) -> State:
        """One state of K supports: their mean with `weights` (B, K), whose rows add up to 1."""
        stacked = [torch.stack(parts, 1) for parts in zip(*states, strict=True)]  # (B, K, ...)
        return tuple(torch.einsum("bk...,bk->b...", parts, weights) for parts in stacked)

    def joined_supports(self, states: Sequence[State], areas: Sequence[int], aggregate: str) -> list[State]:
        """One state of K supports of one class, or one for each where their predictions are joined.

        Args:
            states: of each, of a batch of one.
            areas: annotated pixels of each.
            aggregate: how they become one answer, one of `joins`.
        """
        if aggregate in PREDICTION_AGGREGATES:
            return [self.combine([state], torch.ones(1, 1, device=self.device)) for state in states]
        shares = [float(area) for area in areas] if aggregate == "area_mean" else [1.0] * len(states)
        return [self.combine(states, torch.tensor([shares], device=self.device) / sum(shares))]

    def conditioned(self, images: Tensor, masks: Tensor) -> State:
        """The state of K supports of one size, images (B, K, 3, H, W) and masks (B, K, H, W), each of one weight."""
        shots = images.shape[1]
        first_to_last = images.transpose(0, 1).flatten(0, 1)  # (K B, 3, H, W): chunks keep gradients channels last
        features = self.encode_supports(first_to_last) if self.reads_support_features else ()
        states = []
        for k in range(shots):
            maps = tuple(f.chunk(shots)[k] for f in features)
            pixels = images[:, k] if self.reads_support_images else None
            states.append(self.condition(pixels, maps, masks[:, k]))
        return self.combine(states, torch.full(images.shape[:2], 1 / shots, device=images.device))

    def normalized(self, batch: Batch) -> Batch:
        """A batch whose queries and supports are the backbone's input."""
        supports = batch["support_image"]
        flat = self.normalize(supports.flatten(0, 1)).unflatten(0, supports.shape[:2])
        return {**super().normalized(batch), "support_image": flat}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion between the queries' logits and masks."""
        state = self.conditioned(batch["support_image"], (batch["support_mask"] == 1).float())
        logits = self.decode(self.encode(batch["image"]), state, (batch["mask"].shape[-2], batch["mask"].shape[-1]))
        return {"loss": self.criterion(logits.float(), batch["mask"].long(), self.pictures(batch))}

    def predict(self, images: Tensor, support_images: Tensor, support_masks: Tensor) -> Tensor:
        """Logits (B, 2, H, W) float32 for raw pixels (B, 3, H, W), supports (B, K, 3, h, w) and masks (B, K, h, w)."""
        pixels = self.normalize(support_images.flatten(0, 1)).unflatten(0, support_images.shape[:2])
        state = self.conditioned(pixels, (support_masks == 1).float())
        size = (images.shape[-2], images.shape[-1])
        return self.decode(self.encode(self.normalize(images)), state, size).float()
