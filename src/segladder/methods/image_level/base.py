"""What methods that learn from image-level tags share: class scores of an image, of which seeds are made.

`ClassMapMethod` (CAM and its kin) computes them from the image; a `LaterStage` computes better ones from what its
parent run knows: a `Refinement` (random walks, CRFs) from the parent's scores, AdvCAM from its network. All of them are
scored by `protocol=cam_seeds`, and all can be the parent of a further stage.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, multilabel_soft_margin_loss

from segladder.errors import ConfigError
from segladder.methods.base import Batch, Method
from segladder.nets.answering import in_float32
from segladder.ops.cam import normalize_cam
from segladder.settings import Share

SCORE_STRIDE = 4  # class scores are kept at a quarter of the image's size, as the official codes keep them


class TagMethod(Method):
    """A method that gives class scores to the pixels of an image whose tags may be known.

    Args:
        background_score: what `predict` takes for the background's score where the scores have none.
        common: the arguments of `Method`.
    """

    learns_from: ClassVar[str] = "tags"
    scores_tags: ClassVar[bool] = True
    needs_background: ClassVar[bool] = True
    scores_background: ClassVar[bool] = False  # whether `class_scores` begin with the background

    def __init__(self, background_score: Share, **common: Any) -> None:
        super().__init__(**common)
        self.background_score = background_score

    @abstractmethod
    def class_scores(
        self, ids: Sequence[str], images: Tensor, tags: Tensor | None, scales: Sequence[float], flip: bool
    ) -> Tensor:
        """Scores in 0..1 of each class at each pixel, 0 for classes that the tags leave out.

        Args:
            ids: names of the images; empty for images of no data set.
            images: raw pixels uint8 (B, 3, H, W) of one size.
            tags: which foreground classes each image holds, (B, C) of 0 and 1; None takes the network's own answer.
            scales: factors on the image's size whose maps are summed.
            flip: add the maps of the mirrored image.

        Returns:
            float32 (B, C, h, w), or (B, K, h, w) with the background first where `scores_background`; h and w as the
            method likes.
        """

    def predict(self, images: Tensor) -> Tensor:
        """Scores (B, K, H, W) without tags, at one scale."""
        scores = self.class_scores((), images, None, (1.0,), False)
        scores = interpolate(scores, size=images.shape[-2:], mode="bilinear", align_corners=False)
        if self.scores_background:
            return scores
        background = torch.full_like(scores[:, :1], self.background_score)
        return torch.cat([background, scores], 1)


class ClassMapMethod(TagMethod):
    """A classification network whose class maps, averaged over the image, are the logits of the tags.

    A network whose logits come about otherwise says how in `maps_and_logits`.

    Args:
        backbone: the feature extractor.
        background_score: see `TagMethod`.
        common: the arguments of `Method` but mean and std, which are the backbone's.
    """

    tells_tags: ClassVar[bool] = True

    def __init__(self, backbone: nn.Module, background_score: Share, **common: Any) -> None:
        super().__init__(background_score, mean=backbone.mean, std=backbone.std, **common)
        self.backbone = backbone

    @abstractmethod
    def class_maps(self, images: Tensor) -> Tensor:
        """Raw, signed class maps (B, C, h, w) of the foreground classes for normalised images (B, 3, H, W)."""

    def score_maps(self, images: Tensor) -> Tensor:
        """The maps (B, C, h, w) that `class_scores` sums: the class maps, where a method has no refined ones."""
        return self.class_maps(images)

    def unit_scores(self, maps: Tensor) -> Tensor:
        """Summed maps (B, C, h, w) as scores in 0..1: divided by each class's maximum."""
        return normalize_cam(maps)

    def maps_and_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class maps (B, C, h, w) and logits of the tags (B, C) for normalised images, in one pass."""
        maps = self.class_maps(images).float()
        return maps, maps.mean((2, 3))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Multi-label soft margin between logits and tags, a mean over images and classes."""
        return {"loss": multilabel_soft_margin_loss(self.tag_logits(batch["image"]), batch["tags"])}

    def tag_logits(self, images: Tensor) -> Tensor:
        """Logits (B, C) of the tags for normalised images."""
        return self.maps_and_logits(images)[1]

    def class_scores(
        self, ids: Sequence[str], images: Tensor, tags: Tensor | None, scales: Sequence[float], flip: bool
    ) -> Tensor:
        """Positive parts of the maps, summed over views on a grid of stride 4, as `unit_scores` brings them to 0..1."""
        if tags is None:
            tags = (self.tag_logits(self.normalize(images)) > 0).float()
        total = summed_views(images, scales, flip, lambda pixels: self.score_maps(self.normalize(pixels)))
        return self.unit_scores(total * tags[:, :, None, None])


def summed_views(images: Tensor, scales: Sequence[float], flip: bool, maps_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Positive parts of the maps of several views of images, summed on a grid of stride 4.

    Args:
        images: raw pixels uint8 (B, 3, H, W).
        scales: factors on the image's size.
        flip: whether each image stands beside its mirror image, in one pass.
        maps_of: raw pixels float32 (B or 2 B, 3, h, w) to class maps (B or 2 B, C, h', w').

    Returns:
        float32 (B, C, H / 4, W / 4), sizes rounded up.
    """
    height, width = images.shape[-2:]
    grid = -(-height // SCORE_STRIDE), -(-width // SCORE_STRIDE)
    total = images.new_zeros((), dtype=torch.float32)
    for scale in scales:
        size = max(1, round(height * scale)), max(1, round(width * scale))
        pixels = images.float() if size == (height, width) else rescaled(images, size)
        if flip:
            pixels = torch.cat([pixels, pixels.flip(-1)])
        maps = maps_of(pixels).float().relu()
        if flip:
            upright, mirrored = maps.chunk(2)
            maps = upright + mirrored.flip(-1)
        total = total + interpolate(maps, size=grid, mode="bilinear", align_corners=False)
    return total


def rescaled(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Raw pixels (B, 3, H, W) at another size, whole numbers in float32, by PIL's bicubic filter.

    It is what the codes of AffinityNet, IRNet, SEAM, Puzzle-CAM, AdvCAM and MCTformer resize views with: where it
    shrinks an image it averages over what falls together.
    """
    return interpolate(images.float(), size=size, mode="bicubic", antialias=True).round().clamp(0, 255)


class Parent(Protocol):
    """What a later stage knows of its parent run: its class scores, as of `TagMethod.class_scores`, and its method."""

    @property
    def method(self) -> object:
        """The trained method, in evaluation mode, or what makes class scores of its answers."""

    def __call__(
        self, ids: Sequence[str], images: Tensor, tags: Tensor | None, scales: Sequence[float], flip: bool
    ) -> Tensor:
        """The parent's class scores."""


class LaterStage(TagMethod):
    """A method that makes better class scores of what a parent run knows.

    `parent` is set by whoever knows the run (`segladder train parent=RUN`).

    Args:
        num_classes: K, background included.
        background_score: see `TagMethod`.
        common: the arguments of `Method`.
    """

    needs_parent = True

    parent: Parent | None = None

    def __init__(self, num_classes: int, background_score: Share, **common: Any) -> None:
        super().__init__(background_score, **common)
        self.num_classes = num_classes

    def known_parent(self) -> Parent:
        """The parent. Raises ConfigError if there is none."""
        if self.parent is None:
            raise ConfigError(f"method={self.name} makes class scores of another run's: give parent=RUN")
        return self.parent


class Refinement(LaterStage):
    """Class scores of a parent run, improved image by image.

    A refinement that trains learns from the parent's pseudo-masks: its batches hold `mask` (B, H, W), with 255 where
    the parent is not confident, and never a mask that a person drew.
    """

    takes: ClassVar[tuple[str, ...]] = ("class_scores", "masks")

    @abstractmethod
    def refine(self, images: Tensor, scores: Tensor, tags: Tensor) -> Tensor:
        """Better scores for images (B, 3, H, W) uint8 and scores (B, C, h, w) of which those of absent classes are 0.

        `tags` (B, C) say which classes are present. The result is as in `class_scores`.
        """

    def class_scores(
        self, ids: Sequence[str], images: Tensor, tags: Tensor | None, scales: Sequence[float], flip: bool
    ) -> Tensor:
        """The parent's scores, refined."""
        scores = self.known_parent()(ids, images, tags, scales, flip)
        if tags is None:
            tags = (scores.amax((2, 3)) > 0).float()[:, 1 - self.num_classes :]
        with in_float32(images.device):
            return self.refine(images, scores, tags)
