"""AdvCAM: class maps of an image while it is changed step by step so that its class is ever easier to tell.

Lee, Kim, Yoon: Anti-Adversarially Manipulated Attributions for Weakly and Semi-Supervised Semantic Segmentation, CVPR
2021, https://arxiv.org/abs/2103.08896. Official code: https://github.com/jbeomlee93/AdvCAM (MIT); written anew.
Published, ResNet-50, mIoU on VOC 2012: seeds on train 55.6 where CAM gives 48.3, pseudo-masks with IRNet 69.9,
segmentation on val / test 68.1 (unverified) / 68.0 (abstract).

    x_t = x_{t-1} + step_size g / max |g|,  g the gradient of                      (anti-adversarial climbing)
    L   = y_c - sum over k != c of y_k - regularization sum M |A(x_{t-1}) - A(x_0)|
    M   = A(x_{t-1}) > threshold max A(x_{t-1})

y are the parent's logits, A the positive part of its map of class c, M what is already told well. The sum of A over all
steps is the new map. Only the parent's network is used, which stays as it is; nothing learns. Every class of an image
climbs by itself, from the image.
Differences: y are logits, those of other classes where they are above 0; in the code they are the positive parts of
maps, averaged. Each view climbs by itself; there an image and its mirror image climb together. At half the size the
code takes half the steps and counts them twice; here all sizes take all steps. The pixels' range is the image's own at
every step. The step is the code's .08 of the normalised image's unit, the paper prints .008.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from segladder.errors import ConfigError
from segladder.methods.base import Batch, differentiating, evaluating
from segladder.methods.image_level.base import ClassMapMethod, LaterStage, summed_views
from segladder.settings import AboveZero, NotNegative, Positive, Share

SMALLEST = 1e-12  # official code's, beside the greatest slope


class AdvCAM(LaterStage):
    """Anti-adversarial climbing on the network of the parent run.

    Args:
        num_classes: K, background included.
        background_score: the background's score in `predict`.
        steps: images looked at, the first one included.
        step_size: the greatest change of a value of the normalised image in a step.
        regularization: weight of what keeps high scores from rising further.
        threshold: share of the map's maximum above which a score is high.
        common: the arguments of `Method`.
    """

    takes: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        num_classes: int,
        background_score: Share,
        steps: Positive,
        step_size: AboveZero,
        regularization: NotNegative,
        threshold: Share,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, background_score, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), **common)
        self.steps = steps
        self.step_size = step_size
        self.regularization = regularization
        self.threshold = threshold

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Raise ConfigError: nothing learns."""
        raise ConfigError(f"method.trains=true: method={self.name} has nothing to learn, expected false")

    def class_scores(
        self, ids: Sequence[str], images: Tensor, tags: Tensor | None, scales: Sequence[float], flip: bool
    ) -> Tensor:
        """Maps summed over steps and views on a grid of stride 4, brought to 0..1 as the parent does it."""
        network = self.network(images.device)
        with evaluating(network):
            if tags is None:
                tags = (network.tag_logits(network.normalize(images)) > 0).float()
            known = tags.repeat(1 + flip, 1)  # mirror images hold the same classes
            maps = summed_views(images, scales, flip, lambda view: self.climbed(network, view, known))
        return network.unit_scores(maps)

    def network(self, device: torch.device) -> ClassMapMethod:
        """The parent's method. Raises ConfigError if it has no class maps."""
        network = self.known_parent().method
        if not isinstance(network, ClassMapMethod):
            raise ConfigError(
                f"parent: method={self.name} climbs on the network of a run such as method=cam, which the parent is not"
            )
        with torch.inference_mode(False):
            return network.to(device)

    def climbed(self, network: ClassMapMethod, pixels: Tensor, tags: Tensor) -> Tensor:
        """Maps (B, C, h, w) summed over the steps, 0 for absent classes, of raw pixels (B, 3, H, W), tags (B, C)."""
        with differentiating():
            image, k = tags.nonzero(as_tuple=True)  # P pairs of an image and a class that it holds
            if len(k) == 0:
                return torch.zeros(*tags.shape, 1, 1, device=pixels.device)
            images, size = network.normalize(pixels.clone()), len(pixels)
            chunks = zip(image.split(size), k.split(size), strict=True)
            climbs = [self._climb(network, images[which], of_class) for which, of_class in chunks]
        found = torch.cat(climbs)  # (P, h, w)
        maps = found.new_zeros(*tags.shape, *found.shape[1:])
        maps[image, k] = found
        return maps

    def _climb(self, network: ClassMapMethod, images: Tensor, k: Tensor) -> Tensor:
        """Maps (P, h, w) of a class each (P,), summed over the steps from normalised images (P, 3, H, W)."""
        lowest, highest = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        first, total = None, torch.zeros((), device=images.device)
        for step in range(self.steps):
            images = images.detach().requires_grad_()
            maps, logits = network.maps_and_logits(images)
            cam = maps[torch.arange(len(k), device=k.device), k].relu()  # (P, h, w)
            first = cam.detach() if first is None else first
            total = total + cam.detach()
            if step + 1 < self.steps:
                (slope,) = torch.autograd.grad(self.objective(cam, first, logits, k).sum(), images)
                greatest = slope.abs().amax((1, 2, 3), keepdim=True) + SMALLEST
                images = (images.detach() + self.step_size * slope / greatest).clamp(lowest, highest)
        return total

    def objective(self, cam: Tensor, first: Tensor, logits: Tensor, k: Tensor) -> Tensor:
        """L (P,) of class maps (P, h, w), those of the first step, logits (P, C) and classes (P,)."""
        own = logits.gather(1, k[:, None])[:, 0]
        others = logits.relu().sum(1) - own.relu()
        high = cam > self.threshold * cam.amax((1, 2), keepdim=True)  # M
        risen = ((cam - first).abs() * high).sum((1, 2))
        return own - others - self.regularization * risen
