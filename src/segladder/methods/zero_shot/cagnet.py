"""CaGNet: features generated from a semantic vector and a code of the place's context.

Gu, Zhou, Niu, Zhao, Zhang: Context-aware Feature Generation for Zero-shot Semantic Segmentation, ACM Multimedia 2020,
https://arxiv.org/abs/2008.06893. Official code: https://github.com/bcmi/CaGNet-Zero-Shot-Semantic-Segmentation (no
licence); written from the paper's formulas.
Published, DeepLabV2 with ResNet-101, VOC 15 seen / 5 unseen: seen 78.4, unseen 26.6, harmonic 39.7 mIoU.

Differences: the paper first trains everything on seen classes, visual network included, and then lets batches of real
and of synthetic features take turns, 100 steps each in the official code. Here the visual network is frozen (see
`generative`), and each step holds both. Generator and discriminator also step at the same time on one optimiser, each
against a copy of the other that stays fixed, instead of in turns. The context module keeps the features' channels (256
in the code) and ends in one 1x1 convolution, where the code has a 1x1 and two 3x3 ones and rectifies the log variance.
The code's features are the greatest of three image scales. While it fine-tunes, its classifier also learns from
imitations of the labelled places (real .75, imitations .25, synthetic .125); here from real and synthetic ones.
Its context module sees half of the classification loss (1 to 200 of KL); here all of it (1 to 100 with `official`).

`preset: official` takes the official code's sizes and weights (`OFFICIAL`) and its quirks, switches that are off by
default. It needs features of 600 channels (`method.features.channels`) and vectors of 600 dimensions to be the
published generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from segladder.mask_values import IGNORE
from segladder.methods import presets
from segladder.methods.base import Batch
from segladder.methods.zero_shot.generative import GenerativeMethod
from segladder.nets.context import ContextModule, Judge
from segladder.nets.dense_features import DenseFeatures
from segladder.nets.generators import DeepGenerator, FeatureGenerator
from segladder.ops.gaussian import kl_to_standard_normal, reparametrized_sample
from segladder.ops.mmd import maximum_mean_discrepancy
from segladder.settings import NotNegative, Positive

OFFICIAL = {
    "trunk_channels": 1024,
    "reconstruction_weight": 50.0,
    "adversarial_weight": 1.0,
    "kl_weight": 100.0,
    "synthetic_weight": 0.125,
}
DEEP_WIDTHS, DEEP_DROPOUTS = (1024, 960, 864, 784, 720), (0.1, 0.1, 0.3, 0.5, 0.5)  # of `deep_generator`
TRUNK_DROPOUT = 0.5  # of `dropped_trunk`
SIGMAS = (2, 5, 10, 20, 40, 60)  # of `discrepancy`, not squared
DISCREPANCY_PIXELS = 512  # of a class that are compared in a step, at most; the official code has no limit
UNSEEN_RATE = 10.0  # of `unseen_draws`


@dataclass(frozen=True)
class Quirks(presets.Quirks):
    """What the official code does besides the paper.

    Args:
        deep_generator: it has five hidden layers of 1024, 960, 864, 784 and 720 channels with dropout;
            `hidden_channels` then has no part in it.
        unit_features: features pass a sigmoid, real ones (also before the context module) and generated ones.
        sigmoid_selector: each scale of context is weighed by the sigmoid of a rectified score; scales do not compete.
        discrepancy: generated features are compared with real ones by maximum mean discrepancy, a mean over the
            classes of a batch, not place by place. As in the official code it is the root of half the squared
            discrepancy. That code takes each run of one class in reading order for a class of its own.
        mean_kl: the KL is a mean over channels and labelled places, not a sum over channels and a mean over all places.
        absolute_realness: realness is a sigmoid and its distance from 0 and 1 absolute, not squared.
        dropped_trunk: the trunk of classifier and discriminator is rectified without a slope, with dropout of .5.
        detached_codes: the generator's losses do not reach the context module.
        unseen_draws: synthetic features are as many as there are places, and each unseen class is drawn ten times as
            often as each seen one; `synthetic` then has no part in it.
    """

    deep_generator: bool = False
    unit_features: bool = False
    sigmoid_selector: bool = False
    discrepancy: bool = False
    mean_kl: bool = False
    absolute_realness: bool = False
    dropped_trunk: bool = False
    detached_codes: bool = False
    unseen_draws: bool = False


class CaGNet(GenerativeMethod):
    """Classification, reconstruction, adversarial and KL losses, and classification of synthetic features.

    Args:
        features: see `GenerativeMethod`.
        embeddings: see `GenerativeMethod`.
        seen: see `GenerativeMethod`.
        num_classes: K.
        hidden_channels: of the generator.
        trunk_channels: of the trunk that classifier and discriminator share.
        synthetic: features made up a step, half of them of unseen classes.
        reconstruction_weight: of the mean squared difference of real and generated features.
        adversarial_weight: of the generator's and of the discriminator's loss.
        kl_weight: of the codes' distance from a standard normal.
        synthetic_weight: of synthetic against real features in the classifier's loss.
        preset: `default`, or `official`: the sizes and weights of `OFFICIAL` and all quirks, whatever they say.
        quirks: switches of `Quirks`.
        common: the other arguments of `GenerativeMethod`.

    Raises:
        ConfigError: an unknown preset or quirk.
    """

    seen_classes: Tensor

    def __init__(
        self,
        features: DenseFeatures,
        embeddings: Tensor,
        seen: Tensor,
        num_classes: int,
        hidden_channels: Positive,
        trunk_channels: Positive,
        synthetic: Positive,
        reconstruction_weight: NotNegative,
        adversarial_weight: NotNegative,
        kl_weight: NotNegative,
        synthetic_weight: NotNegative,
        preset: presets.Preset = "default",
        quirks: Mapping[str, bool] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(features, embeddings, seen, **common)
        self.quirks = Quirks.chosen(preset, quirks)
        given = {"trunk_channels": trunk_channels, "synthetic_weight": synthetic_weight, "kl_weight": kl_weight}
        given |= {"reconstruction_weight": reconstruction_weight, "adversarial_weight": adversarial_weight}
        self.resolved = chosen = presets.sizes(preset, OFFICIAL, given)
        channels = self.code_channels = features.channels
        self.context = ContextModule(channels, compete=not self.quirks.sigmoid_selector)
        self.generator = self.new_generator(embeddings.shape[1], channels, hidden_channels)
        trunk = (0.0, TRUNK_DROPOUT) if self.quirks.dropped_trunk else (0.2, 0.0)
        self.judge = Judge(channels, int(chosen["trunk_channels"]), num_classes, *trunk)
        self.register_buffer("seen_classes", self.seen.nonzero()[:, 0], persistent=False)
        self.synthetic = synthetic
        self.weights = {
            "classification": 1.0,
            "reconstruction": chosen["reconstruction_weight"],
            "generator": chosen["adversarial_weight"],
            "discriminator": chosen["adversarial_weight"],
            "kl": chosen["kl_weight"],
            "synthetic": chosen["synthetic_weight"],
        }

    def new_generator(self, embedding_channels: int, channels: int, hidden_channels: Positive) -> nn.Module:
        """The network that makes features (N, D) of semantic vectors and codes."""
        if self.quirks.deep_generator:
            return DeepGenerator(embedding_channels, channels, DEEP_WIDTHS, channels, DEEP_DROPOUTS)
        return FeatureGenerator(embedding_channels, channels, hidden_channels, channels, dropout=0.0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """All losses, and `loss`, their weighted sum."""
        features, labels = self.labelled_features(batch)
        mean, log_variance = self.context(self.in_range(features))
        codes = reparametrized_sample(mean, log_variance)  # (B, D, h, w)
        labelled = labels != IGNORE
        classes = labels[labelled]  # (N,)
        real = self.in_range(enhanced(features, codes)).movedim(1, -1)[labelled].to(features.dtype)  # (N, D)
        given = codes.detach() if self.quirks.detached_codes else codes
        generated = self.generate(classes, given.movedim(1, -1)[labelled])
        losses = {
            "classification": self.cross_entropy(self.class_logits(real), classes),
            "reconstruction": self.reconstruction(generated, real.detach(), classes),
            "kl": self.divergence(mean, log_variance, labelled),
            "generator": average(self.distance(self.realness_to_fixed_judge(generated), 1)),
            "discriminator": self.discriminator_loss(real.detach(), generated.detach()),
            "synthetic": self.generated_share() * self.synthetic_loss(labels.numel()),
        }
        return {"loss": sum(self.weights[name] * value for name, value in losses.items()), **losses}

    def in_range(self, features: Tensor) -> Tensor:
        """Features as they are, or between 0 and 1 with the quirk `unit_features`."""
        return features.sigmoid() if self.quirks.unit_features else features

    def generate(self, classes: Tensor, codes: Tensor) -> Tensor:
        """Features (N, D) of classes (N,) and codes (N, D)."""
        return self.in_range(self.generator(self.embeddings[classes], codes).to(self.embeddings.dtype))

    def reconstruction(self, generated: Tensor, real: Tensor, classes: Tensor) -> Tensor:
        """How far generated features are from real ones, both (N, D) of classes (N,)."""
        if not self.quirks.discrepancy or not len(classes):
            return average((generated - real).square().mean(1))
        found = []
        for k in classes.unique():
            places = (classes == k).nonzero()[:, 0]
            kept = places[torch.randperm(len(places), device=places.device)[:DISCREPANCY_PIXELS]]
            found.append(maximum_mean_discrepancy(generated[kept], real[kept], SIGMAS))
        return torch.stack(found).mean() / 2**0.5

    def divergence(self, mean: Tensor, log_variance: Tensor, labelled: Tensor) -> Tensor:
        """KL to a standard normal of mean and log variance (B, D, h, w)."""
        kl = kl_to_standard_normal(mean, log_variance)  # (B, h, w)
        return average(kl[labelled]) / mean.shape[1] if self.quirks.mean_kl else kl.mean()

    def discriminator_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        """Distance of realness from 1 for real and from 0 for generated features, both (N, D)."""
        return average(self.distance(self.judge(real)[1], 1) + self.distance(self.judge(generated)[1], 0))

    def distance(self, realness: Tensor, wanted: float) -> Tensor:
        """Squared distance (N,) of realness from what it should be, or the absolute one of its sigmoid."""
        if self.quirks.absolute_realness:
            return (realness.sigmoid() - wanted).abs()
        return (realness - wanted).square()

    def realness_to_fixed_judge(self, generated: Tensor) -> Tensor:
        """Realness (N,) of features (N, D), whose gradient reaches the features alone."""
        fixed = {name: parameter.detach() for name, parameter in self.judge.named_parameters()}
        realness: Tensor = functional_call(self.judge, fixed, (generated,))[1]
        return realness

    def synthetic_loss(self, places: int) -> Tensor:
        """Cross entropy of features made of random codes for random classes; `places` are those of the batch."""
        classes = self.drawn_classes(places)  # (M,)
        codes = torch.randn(len(classes), self.code_channels, device=classes.device)
        generated = self.generate(classes, codes).detach()
        loss: Tensor = self.cross_entropy(self.class_logits(generated), classes)
        return loss

    def drawn_classes(self, places: int) -> Tensor:
        """Random classes (M,): as often unseen as seen ones; with `unseen_draws` each unseen one ten times as often."""
        if self.quirks.unseen_draws:
            classes = torch.cat([self.unseen_classes, self.seen_classes])
            rates = torch.ones(len(classes), device=classes.device)
            rates[: len(self.unseen_classes)] = UNSEEN_RATE
            return classes[rates.multinomial(places, replacement=True)]
        halves = [self.unseen_classes, self.seen_classes]
        counts = [self.synthetic // 2, self.synthetic - self.synthetic // 2]
        return torch.cat(
            [half[torch.randint(len(half), (n,), device=half.device)] for half, n in zip(halves, counts, strict=True)]
        )

    def class_logits(self, features: Tensor) -> Tensor:
        """Logits (N, K) of enhanced or generated features (N, D)."""
        logits: Tensor = self.judge(features)[0]
        return logits

    def pixel_features(self, images: Tensor) -> Tensor:
        """Features (B, D, h, w) of raw pixels, enhanced with the mean of their codes."""
        features = super().pixel_features(images)
        return self.in_range(enhanced(features, self.context(self.in_range(features))[0]))


def enhanced(features: Tensor, codes: Tensor) -> Tensor:
    """F + F sigmoid(z): features that the context of their place makes up to twice as large, all (B, D, h, w)."""
    return features + features * codes.sigmoid()


def average(values: Tensor) -> Tensor:
    """The mean of values (N,); 0 of none."""
    return values.sum() / max(1, len(values))
