"""CaGNet: features generated from a semantic vector and a code of the place's context.

Gu, Zhou, Niu, Zhao, Zhang: Context-aware Feature Generation for Zero-shot Semantic Segmentation, ACM Multimedia 2020,
https://arxiv.org/abs/2008.06893. Official code: https://github.com/bcmi/CaGNet-Zero-Shot-Semantic-Segmentation (no
licence); written from the paper's formulas.
Published, DeepLabV2 with ResNet-101, VOC 15 seen / 5 unseen: seen 78.4, unseen 26.6, harmonic 39.7 mIoU.

Differences: the paper first trains everything on seen classes, visual network included, and then lets batches of real
and of synthetic features take turns. Here the visual network is frozen (see `generative`), and each step holds both.
Generator and discriminator also step at the same time on one optimiser, each against a copy of the other that stays
fixed, instead of in turns. Where the paper samples the contextual code, prediction takes its mean.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from segladder.methods.base import Batch
from segladder.methods.zero_shot.generative import GenerativeMethod
from segladder.nets.dense_features import DenseFeatures
from segladder.nets.generators import FeatureGenerator
from segladder.ops.gaussian import kl_to_standard_normal, reparametrized_sample
from segladder.ops.regions import IGNORE

DILATIONS = (1, 2, 5)


class ContextModule(nn.Module):
    """Features to a Gaussian over contextual codes, at each place from the scales of context it selects.

    Args:
        channels: D, of the features and the codes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in DILATIONS)
        self.selector = nn.Conv2d(len(DILATIONS) * channels, len(DILATIONS), 3, padding=1)
        self.gaussian = nn.Conv2d(len(DILATIONS) * channels, 2 * channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance, each (B, D, h, w), for features (B, D, h, w)."""
        contexts = [features]
        for scale in self.scales:
            contexts.append(scale(contexts[-1]).relu())  # places see 3, 7 and 17 places across
        stacked = torch.stack(contexts[1:], 1)  # (B, S, D, h, w)
        weights = self.selector(stacked.flatten(1, 2)).softmax(1)  # (B, S, h, w)
        mean, log_variance = self.gaussian((stacked * weights[:, :, None]).flatten(1, 2)).chunk(2, 1)
        return mean, log_variance


class Judge(nn.Module):
    """Classifier and discriminator on a common trunk.

    Args:
        channels: D, of the features.
        hidden_channels: of the trunk.
        num_classes: K.
    """

    def __init__(self, channels: int, hidden_channels: int, num_classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(channels, hidden_channels), nn.LeakyReLU(0.2))
        self.classifier = nn.Linear(hidden_channels, num_classes)
        self.discriminator = nn.Linear(hidden_channels, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits (N, K) and realness (N,), 1 for real and 0 for generated ones, of features (N, D)."""
        shared = self.trunk(features)
        return self.classifier(shared), self.discriminator(shared)[:, 0]


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
        common: the other arguments of `GenerativeMethod`.
    """

    seen_classes: Tensor

    def __init__(
        self,
        features: DenseFeatures,
        embeddings: Tensor,
        seen: Tensor,
        num_classes: int,
        hidden_channels: int,
        trunk_channels: int,
        synthetic: int,
        reconstruction_weight: float,
        adversarial_weight: float,
        kl_weight: float,
        synthetic_weight: float,
        **common: Any,
    ) -> None:
        super().__init__(features, embeddings, seen, **common)
        channels = self.code_channels = features.channels
        self.context = ContextModule(channels)
        self.generator = FeatureGenerator(embeddings.shape[1], channels, hidden_channels, channels, dropout=0.0)
        self.judge = Judge(channels, trunk_channels, num_classes)
        self.register_buffer("seen_classes", self.seen.nonzero()[:, 0], persistent=False)
        self.synthetic = synthetic
        self.weights = {
            "classification": 1.0,
            "reconstruction": reconstruction_weight,
            "generator": adversarial_weight,
            "discriminator": adversarial_weight,
            "kl": kl_weight,
            "synthetic": synthetic_weight,
        }

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """All losses, and `loss`, their weighted sum."""
        features, labels = self.labelled_features(batch)
        mean, log_variance = self.context(features)
        codes = reparametrized_sample(mean, log_variance)  # (B, D, h, w)
        labelled = labels != IGNORE
        classes = labels[labelled]  # (N,)
        real = enhanced(features, codes).movedim(1, -1)[labelled].float()  # (N, D)
        generated = self.generator(self.embeddings[classes], codes.movedim(1, -1)[labelled]).float()
        losses = {
            "classification": self.cross_entropy(self.class_logits(real), classes),
            "reconstruction": average((generated - real.detach()).square().mean(1)),
            "kl": kl_to_standard_normal(mean, log_variance).mean(),
            "generator": average((self.realness_to_fixed_judge(generated) - 1).square()),
            "discriminator": self.discriminator_loss(real.detach(), generated.detach()),
            "synthetic": self.generated_share() * self.synthetic_loss(),
        }
        return {"loss": sum(self.weights[name] * value for name, value in losses.items()), **losses}

    def discriminator_loss(self, real: Tensor, generated: Tensor) -> Tensor:
        """Squared distance of realness from 1 for real and from 0 for generated features, both (N, D)."""
        return average((self.judge(real)[1] - 1).square() + self.judge(generated)[1].square())

    def realness_to_fixed_judge(self, generated: Tensor) -> Tensor:
        """Realness (N,) of features (N, D), whose gradient reaches the features alone."""
        fixed = {name: parameter.detach() for name, parameter in self.judge.named_parameters()}
        realness: Tensor = functional_call(self.judge, fixed, (generated,))[1]
        return realness

    def synthetic_loss(self) -> Tensor:
        """Cross entropy of features made of random codes for random classes, as likely unseen as seen ones."""
        device = self.embeddings.device
        halves = [self.unseen_classes, self.seen_classes]
        counts = [self.synthetic // 2, self.synthetic - self.synthetic // 2]
        drawn = [half[torch.randint(len(half), (n,), device=device)] for half, n in zip(halves, counts, strict=True)]
        classes = torch.cat(drawn)  # (M,)
        codes = torch.randn(len(classes), self.code_channels, device=device)
        generated = self.generator(self.embeddings[classes], codes).detach().float()
        loss: Tensor = self.cross_entropy(self.class_logits(generated), classes)
        return loss

    def class_logits(self, features: Tensor) -> Tensor:
        """Logits (N, K) of enhanced or generated features (N, D)."""
        logits: Tensor = self.judge(features)[0]
        return logits

    def pixel_features(self, images: Tensor) -> Tensor:
        """Features (B, D, h, w) of raw pixels, enhanced with the mean of their codes."""
        features = super().pixel_features(images)
        return enhanced(features, self.context(features)[0])


def enhanced(features: Tensor, codes: Tensor) -> Tensor:
    """F + F sigmoid(z): features that the context of their place makes up to twice as large, all (B, D, h, w)."""
    return features + features * codes.sigmoid()


def average(values: Tensor) -> Tensor:
    """The mean of values (N,); 0 of none."""
    return values.sum() / max(1, len(values))
