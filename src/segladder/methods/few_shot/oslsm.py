"""OSLSM: a network that reads the weights of a pixel classifier off the support.

Shaban, Bansal, Liu, Essa, Boots: One-Shot Learning for Semantic Segmentation, BMVC 2017,
https://arxiv.org/abs/1709.03410. Official code: https://github.com/lzzcd001/OSLSM (BSD-2-Clause, as Caffe); here anew.
Its support branch learns at a tenth of the query branch's rate, here at the same. It pads the query by 121 pixels and
fc6 by none, fc6 pads here. Tapped is fc7 at stride 32 without dilation; other backbones give their last level.
Published, VGG-16, PASCAL-5i under its own protocol: mean IoU 40.8 (1 shot), 43.9 (5 shots); both unverified.

The query becomes features F; the support, with all but the object blanked out, becomes a vector z that weight hashing
(Chen et al. 2015) spreads over w and b; the class's score at a pixel is sigmoid(w F + b). Any backbone serves: with
vgg16, `channels` 4096 and `kernel` 7, both branches are whole VGG-16s and take the fc weights that the backbone loaded.
Differences: the support is blanked after normalisation, so outside the object it has the mean colour; the loss is
averaged over pixels (there summed, at a rate of 1e-10); maps keep their size by padding inside fc6; k supports are
joined as the protocol says: `or` is the paper's union of k predictions, `mean` the mean of their classifiers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods.few_shot.base import Features, FewShotMethod, State
from segladder.nets.backbone import FeatureExtractor
from segladder.ops.upsampling import bilinear
from segladder.settings import Positive, Seed, Share


class WeightHashing(nn.Module):
    """Spreads a vector z over more weights than it has values: theta_j = sign_j z_h(j), h and sign fixed by a seed.

    Args:
        width: values of z.
        outputs: weights.
        seed: of h and sign, which are kept with the network's weights and never learn.
    """

    places: Tensor
    signs: Tensor

    def __init__(self, width: Positive, outputs: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("places", torch.randint(width, (outputs,), generator=generator))
        self.register_buffer("signs", 2.0 * torch.randint(2, (outputs,), generator=generator) - 1)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, width) to (B, outputs)."""
        return vectors[:, self.places] * self.signs


class OSLSM(FewShotMethod):
    """A support branch that predicts the classifier of the query branch's features.

    Args:
        backbone: the feature extractor of the query branch; the support branch has a copy of its own.
        num_classes: of the data set.
        criterion: the loss; the background's logit is 0, so softmax is the paper's sigmoid.
        width: values that the support branch gives; the paper's 1000.
        channels: of F, as of fc6 in both branches; the paper's 4096.
        kernel: of fc6, odd; the paper's 7.
        dropout: behind fc6 and fc7; the paper's .5.
        support_size: side of the square the supports are resized to; the paper's 224; None keeps their size.
        hash_seed: of the weight hashing.
        common: the arguments of `Method`.
    """

    joins: ClassVar[tuple[str, ...]] = ("or", "mean", "area_mean", "vote", "relative_vote", "max", "logit_mean")

    reads_support_images = True
    reads_support_features = False

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        width: Positive,
        channels: Positive,
        kernel: Positive,
        dropout: Share,
        support_size: Positive | None,
        hash_seed: Seed,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, criterion, mean=backbone.mean, std=backbone.std, **common)
        if kernel % 2 == 0:
            raise ConfigError(f"method.kernel={kernel}: expected an odd number")
        pretrained = dict(backbone.leftover)
        backbone.leftover.clear()  # 400 MB, not to be copied
        sizes = backbone.channels[-1], channels, kernel
        self.backbone = backbone
        self.classifier = _fully_connected(*sizes, kernel // 2, dropout, pretrained)
        self.support_backbone = copy.deepcopy(backbone)
        self.support_classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(kernel), *_fully_connected(*sizes, 0, dropout, pretrained), nn.Flatten()
        )
        self.fc8 = nn.Linear(channels, width)
        _take_weights(self.fc8, pretrained, "head.fc")
        self.hashing = WeightHashing(width, channels + 1, hash_seed)
        self.support_size = support_size

    def backbones(self) -> Iterator[nn.Module]:
        """The backbones of both branches."""
        yield self.backbone
        yield self.support_backbone

    def encode(self, images: Tensor) -> Features:
        """F (B, channels, h, w) of images (B, 3, H, W)."""
        return (self.classifier(self.backbone(images)[-1]),)

    def condition(self, support_images: Tensor | None, support_features: Features, support_masks: Tensor) -> State:
        """w and b (B, channels + 1) of supports (B, 3, H, W) and masks (B, H, W)."""
        assert support_images is not None
        objects = support_images * support_masks[:, None].to(support_images.dtype)
        if self.support_size is not None:
            objects = bilinear(objects, (self.support_size, self.support_size))
        vectors = self.fc8(self.support_classifier(self.support_backbone(objects)[-1]))  # (B, width)
        return (self.hashing(vectors),)

    def decode(self, query_features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits (B, 2, H, W): 0 and w F + b."""
        weights, bias = state[0][:, :-1], state[0][:, -1]
        scores = torch.einsum("bchw,bc->bhw", query_features[0], weights) + bias[:, None, None]
        return bilinear(torch.stack([torch.zeros_like(scores), scores], 1), size)


def _fully_connected(
    before: int, channels: Positive, kernel: Positive, padding: int, dropout: Share, pretrained: Mapping[str, Tensor]
) -> nn.Sequential:
    """fc6 and fc7 as convolutions."""
    fc6 = nn.Conv2d(before, channels, kernel, padding=padding)
    fc7 = nn.Conv2d(channels, channels, 1)
    for layer, name in ((fc6, "pre_logits.fc1"), (fc7, "pre_logits.fc2")):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        _take_weights(layer, pretrained, name)
    return nn.Sequential(fc6, nn.ReLU(), nn.Dropout(dropout), fc7, nn.ReLU(), nn.Dropout(dropout))


def _take_weights(layer: nn.Conv2d | nn.Linear, pretrained: Mapping[str, Tensor], name: str) -> None:
    """Start from the pretrained layer of that name if there is one of this shape."""
    weight = pretrained.get(f"{name}.weight")
    if weight is not None and weight.shape == layer.weight.shape:
        layer.load_state_dict({"weight": weight, "bias": pretrained[f"{name}.bias"]})
