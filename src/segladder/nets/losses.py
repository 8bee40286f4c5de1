"""Losses of dense prediction: logits (B, K, H, W), targets int64 (B, H, W), 255 ignored, and pictures, to a scalar.

Each is called as `loss(logits, target, pictures)`; few look at the pictures. If only some pixels have labels, such as
clicks, all others are 255, so the loss is partial. A batch whose pixels are all ignored costs 0 and sends back zero
gradients, never NaN; only `GatedCRF` teaches pixels without a label.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.ops.gated_crf import Kernel, gated_crf_energy
from segladder.settings import NotNegative, Positive, Share

SPREAD = (0.229, 0.224, 0.225)  # ImageNet's standard deviations of RGB in 0..1


class Pictures(NamedTuple):
    """What a loss may know of the images of a batch.

    Attributes:
        images: the network's input (B, 3, H, W).
        mean: of their channels before they were normalised, in 0..255, (1, 3, 1, 1).
        std: the standard deviations, in the same form.
        inside: false where augmentation filled up or cut out what is no pixel of the image, bool (B, H, W); None: all
            are.
    """

    images: Tensor
    mean: Tensor
    std: Tensor
    inside: Tensor | None = None

    @property
    def colours(self) -> Tensor:
        """RGB in 0..1, float32 (B, 3, H, W)."""
        return (self.images.float() * self.std + self.mean) / 255


class Loss(nn.Module, ABC):
    """What every loss is."""

    @abstractmethod
    def forward(self, logits: Tensor, target: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Scalar loss of logits (B, K, H, W) against targets int64 (B, H, W), 255 ignored."""


class CrossEntropy(Loss):
    """Cross entropy, averaged over labelled pixels by the weight of their class.

    Args:
        class_weights: one factor per class, in their order; `balanced`, so that the classes of a batch count the same
            however many pixels they have; `median_frequency`, the median of the classes' frequencies over a class's own
            (Eigen and Fergus 2015), counted once on training masks, see `learn_frequencies`; None: no weights.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).

    Raises:
        ConfigError: on the first batch, if the number of weights is not the number of classes, or nobody has counted.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        class_weights: Sequence[NotNegative] | Literal["balanced", "median_frequency"] | None = None,
        label_smoothing: Share = 0.0,
    ) -> None:
        super().__init__()
        self.balanced = class_weights == "balanced"
        self.counts = class_weights == "median_frequency"
        given = None if class_weights is None or isinstance(class_weights, str) else list(class_weights)
        weights = None if given is None else torch.tensor(given, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing = label_smoothing

    def learn_frequencies(self, pixels: Sequence[Sequence[int]]) -> None:
        """Weigh classes by how frequent they are, where `class_weights` asks for that.

        Args:
            pixels: labelled pixels of each class (K) in each training image (N).
        """
        if self.counts:
            self.class_weights = median_frequency(torch.tensor(pixels)).to(torch.float32)

    def forward(self, logits: Tensor, target: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Scalar loss. Raises ConfigError for class weights that were never counted, or are not one for each class."""
        if self.counts and self.class_weights is None:
            raise ConfigError(
                "loss.class_weights=median_frequency: no training masks were counted; segladder train counts them, else"
                " give the loss `learn_frequencies`"
            )
        weights = _balanced(logits, target) if self.balanced else self.class_weights
        if weights is not None and len(weights) != logits.shape[1]:
            raise ConfigError(f"loss.class_weights: {len(weights)} values, expected {logits.shape[1]}, one per class")
        total = F.cross_entropy(
            logits, target, weights, ignore_index=IGNORE, reduction="sum", label_smoothing=self.label_smoothing
        )
        labelled = target != IGNORE  # (B, H, W)
        share = labelled.sum() if weights is None else (weights[target.where(labelled, 0)] * labelled).sum()
        return total / share.clamp_min(torch.finfo(torch.float32).tiny)


def median_frequency(pixels: Tensor) -> Tensor:
    """Weights float64 (K,): the median of all classes' frequencies over a class's own; 0 for one that nothing holds.

    A class's frequency is its pixels over all labelled pixels of the images that hold it (Eigen and Fergus, ICCV 2015,
    https://arxiv.org/abs/1411.4734; Badrinarayanan et al. 2017). The median of an even number is the middle two's mean.

    Args:
        pixels: of each class in each image, int64 (N, K).
    """
    whole = pixels.sum(1, keepdim=True) * (pixels > 0)  # (N, K) pixels of the image, where it holds the class
    frequency = pixels.sum(0).double() / whole.sum(0).clamp_min(1)  # (K,)
    held = frequency > 0
    if not held.any():
        return torch.zeros_like(frequency)
    return torch.where(held, frequency[held].quantile(0.5) / frequency.where(held, 1), 0)


def _balanced(logits: Tensor, target: Tensor) -> Tensor:
    """Weights (K,) under which each class that a batch holds has a sum of 1; 0 for others, which smoothing counts."""
    counts = torch.bincount(target[target != IGNORE], minlength=logits.shape[1])
    return (counts > 0) / counts.clamp_min(1).to(torch.promote_types(logits.dtype, torch.float32))


class Focal(Loss):
    """Focal loss (Lin et al. 2017) of segmentation-models-pytorch: one-versus-rest sigmoids, averaged over classes.

    Args:
        gamma: how strongly easy pixels are played down; the paper's 2.
        alpha: weight of the positive side, 1 - alpha that of the negative; the paper's .25; None: no weights.
    """

    def __init__(self, gamma: NotNegative = 2.0, alpha: Share | None = None) -> None:
        super().__init__()
        self.loss = smp.losses.FocalLoss("multiclass", alpha=alpha, gamma=gamma, ignore_index=IGNORE)

    def forward(self, logits: Tensor, target: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Scalar loss."""
        return self.loss(logits, target) if (target != IGNORE).any() else _nothing(logits)


class Dice(Loss):
    """Soft Dice loss (Milletari et al. 2016) of segmentation-models-pytorch over the batch, averaged over all classes.

    Args:
        smooth: added to numerator and denominator.
    """

    def __init__(self, smooth: NotNegative = 0.0) -> None:
        super().__init__()
        self.loss = smp.losses.DiceLoss("multiclass", smooth=smooth, ignore_index=IGNORE)

    def forward(self, logits: Tensor, target: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Scalar loss; classes absent from the batch add nothing."""
        loss: Tensor = self.loss(logits, target)
        return loss


class Lovasz(Loss):
    """Lovasz-Softmax (Berman et al. 2018) of segmentation-models-pytorch over the classes present.

    Args:
        per_image: average over images instead of over the batch as one.
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image
        self.loss = smp.losses.LovaszLoss("multiclass", ignore_index=IGNORE)

    def forward(self, logits: Tensor, target: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Scalar loss."""
        logits = logits.float()  # the library's Jaccard weights are float32
        parts = zip(logits.split(1), target.split(1), strict=True) if self.per_image else [(logits, target)]
        losses = [self.loss(x, y) for x, y in parts if (y != IGNORE).any()]
        return torch.stack(losses).mean() if losses else _nothing(logits)


class GatedCRF(Loss):
    """Energy of the Gated CRF loss (Obukhov et al. 2019), a term beside partial cross entropy.

    Padding tells nothing to pixels of the image; every pixel, labelled or not, is told something, and the sum is over
    the number of the image's own, as in official code. That differs in three places: it takes logits before they are
    enlarged to the image's size (here the enlarged ones are averaged), leaves this loss out of the first 0.5 % of
    training, and weighs classes of the cross entropy where labels are clicks (here `loss.terms.0.class_weights`).

    Args:
        kernels: Gaussians, each with `weight`, `xy` in pixels, and `rgb` in standard deviations of ImageNet's colours
            (none: of places alone). Official training: one, weight 1, xy 6, rgb .1.
        radius: of the square around a pixel that others are looked at in; official: 5.
        stride: logits and pictures are averaged over squares of so many pixels first; official: crops of 256 at 64.
    """

    def __init__(
        self,
        kernels: Sequence[Mapping[str, float | None]],
        radius: Positive = 5,
        stride: Positive = 4,
    ) -> None:
        super().__init__()
        self.kernels = [_kernel(settings) for settings in kernels]
        self.radius, self.stride = radius, stride

    def forward(self, logits: Tensor, target: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Scalar loss. Raises ValueError without pictures."""
        if pictures is None:
            raise ValueError("the Gated CRF loss needs the pictures")
        inside = None if pictures.inside is None else self._pooled(pictures.inside[:, None].float())[:, 0] == 1
        spread = logits.new_tensor(SPREAD).view(1, 3, 1, 1)
        probabilities = self._pooled(logits).softmax(1)  # (B, K, h, w)
        return gated_crf_energy(
            probabilities, self._pooled(pictures.colours / spread), self.kernels, self.radius, sources=inside
        )

    def _pooled(self, maps: Tensor) -> Tensor:
        return maps if self.stride == 1 else F.avg_pool2d(maps, self.stride, ceil_mode=True)


def _kernel(settings: Mapping[str, float | None]) -> Kernel:
    """A kernel of the configuration. Raises ConfigError for a key there is not, or a bandwidth of 0 or less."""
    if not {"weight", "xy"} <= set(settings) <= {"weight", "xy", "rgb"}:
        raise ConfigError(f"loss.kernels: {dict(settings)}: expected weight, xy and perhaps rgb")
    weight, xy, rgb = (settings.get(key) for key in ("weight", "xy", "rgb"))
    if weight is None or xy is None or xy <= 0 or (rgb is not None and rgb <= 0):
        raise ConfigError(f"loss.kernels: {dict(settings)}: expected a weight, and bandwidths above 0")
    return Kernel(weight, xy, rgb)


class WeightedSum(Loss):
    """A sum of losses.

    Args:
        terms: the losses.
        weights: a factor for each.
    """

    def __init__(self, terms: Sequence[nn.Module], weights: Sequence[NotNegative]) -> None:
        super().__init__()
        if len(terms) != len(weights):
            raise ConfigError(f"loss.weights: {len(weights)} values, expected {len(terms)}, one per term")
        self.terms = nn.ModuleList(terms)
        self.weights = list(weights)

    def forward(self, logits: Tensor, target: Tensor, pictures: Pictures | None = None) -> Tensor:
        """Scalar loss."""
        return sum(
            (w * term(logits, target, pictures) for w, term in zip(self.weights, self.terms, strict=True)),
            logits.new_zeros(()),
        )


def _nothing(logits: Tensor) -> Tensor:
    return logits[:0].sum()  # 0, with zero gradients
