"""ZS3Net: a generator imitates the features of seen classes, and a classifier learns unseen ones from its features.

Bucher, Vu, Cord, Perez: Zero-Shot Semantic Segmentation, NeurIPS 2019, https://arxiv.org/abs/1906.00817.
Official code: https://github.com/valeoai/ZS3 (Apache-2.0); written anew here.
Published, DeepLabv3+ with ResNet-101, VOC, background seen, harmonic mIoU for 2, 4, 6, 8, 10 unseen classes: 47.5,
34.4, 32.0, 25.7, 23.6 (unverified).

Differences: one run trains generator and classifier (see `generative`); the generator meets a random choice of pixels
of each class, not all, and steps once for all classes of a batch, where the official code steps for each class of each
image. Unseen features lie where seen ones were drawn from: a share of those pixels, or regions, takes an unseen class
at random. The official code makes them up in the true places of unseen objects, which nobody may know, and there
replaces the seen features of such an image too. Its classifier's loss is at image size and divided once more by the
number of images; here it is at the features' size. `context=graph` compares regions' mean features with the generated
features of the graph's nodes. ZS5, the paper's self-training, is a further run (`parent=RUN pseudo_masks.surest=0.25`).

`preset: official` takes the official code's sizes (hidden 256, z 300, dropout .5, 128 pixels of a class, last sigma
80) and its quirks, switches that are off by default. It needs features of 256 channels (`method.features.channels`)
and word vectors of 300 dimensions to be the published network. The rates stand in the yaml's head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.mask_values import IGNORE
from segladder.methods import presets
from segladder.methods.base import Batch, Method
from segladder.methods.zero_shot.generative import GenerativeMethod
from segladder.nets.dense_features import DenseFeatures
from segladder.nets.generators import FeatureGenerator
from segladder.ops.mmd import maximum_mean_discrepancy
from segladder.ops.regions import connected_regions, region_graph
from segladder.settings import AboveZero, NotNegative, Positive, Share

OFFICIAL = {
    "hidden_channels": 256,
    "noise_channels": 300,
    "dropout": 0.5,
    "sigmas": [2, 5, 10, 20, 40, 80],
    "pixels_per_class": 128,
}
UNSEEN_WEIGHT = 100.0  # of `heavy_unseen`

Examples = tuple[Tensor, Tensor, Tensor | None]  # features (N, D), classes (N,), propagation (N, N) between them


@dataclass(frozen=True)
class Quirks(presets.Quirks):
    """What the official code does besides the paper.

    Args:
        uniform_noise: z is uniform in 0..1, not normal.
        new_classifier: the classifier does not start from the parent's, but from numbers that are uniform in 0..1.
        heavy_unseen: the classifier's loss is one weighted mean over real and generated features, in which unseen
            classes weigh 100 and seen ones 1; `generated_weight` then has no part in it.
        xavier_generator: the generator's weights start Xavier uniform, its biases at .01.
    """

    uniform_noise: bool = False
    new_classifier: bool = False
    heavy_unseen: bool = False
    xavier_generator: bool = False


class ZS3Net(GenerativeMethod):
    """Maximum mean discrepancy for the generator, cross entropy on real and generated features for the classifier.

    Args:
        features: see `GenerativeMethod`.
        embeddings: see `GenerativeMethod`.
        seen: see `GenerativeMethod`.
        num_classes: K.
        hidden_channels: of the generator.
        noise_channels: of z; the paper's is as long as a semantic vector.
        dropout: of the generator.
        sigmas: squared widths of the kernels.
        context: `none`, each pixel for itself, or `graph`, connected regions that know their neighbours.
        pixels_per_class: how many pixels of a class a step compares, at most; without a graph.
        replaced: the share of objects' pixels or regions that take an unseen class.
        generated_weight: of generated against real features in the classifier's loss.
        preset: `default`, or `official`: the sizes of `OFFICIAL` and all quirks, whatever they say.
        quirks: switches of `Quirks`.
        common: the other arguments of `GenerativeMethod`.

    Raises:
        ConfigError: another `context`, an unknown preset or quirk.
    """

    class_weights: Tensor

    def __init__(
        self,
        features: DenseFeatures,
        embeddings: Tensor,
        seen: Tensor,
        num_classes: int,
        hidden_channels: Positive,
        noise_channels: Positive,
        dropout: Share,
        sigmas: Annotated[Sequence[AboveZero], Field(min_length=1)],
        context: Literal["none", "graph"],
        pixels_per_class: Positive,
        replaced: Share,
        generated_weight: NotNegative,
        preset: presets.Preset = "default",
        quirks: Mapping[str, bool] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(features, embeddings, seen, **common)
        self.quirks = Quirks.chosen(preset, quirks)
        given: dict[str, Any] = {"hidden_channels": hidden_channels, "noise_channels": noise_channels}
        given |= {"dropout": dropout, "sigmas": list(sigmas), "pixels_per_class": pixels_per_class}
        self.resolved = chosen = presets.sizes(preset, OFFICIAL, given)
        shape = chosen["noise_channels"], chosen["hidden_channels"], features.channels, chosen["dropout"]
        self.generator = FeatureGenerator(embeddings.shape[1], *shape)
        self.classifier = nn.Linear(features.channels, num_classes)
        self.num_classes = num_classes
        self.noise_channels = chosen["noise_channels"]
        self.sigmas = chosen["sigmas"]
        self.context = context
        self.pixels_per_class = chosen["pixels_per_class"]
        self.replaced = replaced
        self.generated_weight = generated_weight
        weights = torch.ones(num_classes).index_fill(0, self.unseen_classes, UNSEEN_WEIGHT)
        self.register_buffer("class_weights", weights, persistent=False)
        self.start_as_official()

    def start_as_official(self) -> None:
        """Draw the weights that the quirks ask for."""
        if self.quirks.xavier_generator:
            for layer in (self.generator.first, self.generator.second):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.constant_(layer.bias, 0.01)
        if self.quirks.new_classifier:
            for parameter in self.classifier.parameters():
                nn.init.uniform_(parameter)

    def backbones(self) -> Any:
        """The classifier, which is pretrained here: the generator learns at `head_lr` times its rate."""
        yield self.classifier

    def inherit(self, parent: Method) -> None:
        """Take the visual network and, where it has the same classes, the 1x1 classifier on top of it."""
        super().inherit(parent)
        if self.quirks.new_classifier:
            return
        classifier = getattr(parent, "classifier", None)
        if isinstance(classifier, nn.Conv2d) and classifier.weight.shape[:2] == self.classifier.weight.shape:
            self.classifier.load_state_dict({"weight": classifier.weight[..., 0, 0], "bias": classifier.bias})

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The generator's and the classifier's loss, which share no parameters."""
        features, labels = self.labelled_features(batch)
        examples = self.regions if self.context == "graph" else self.pixels
        real, classes, propagation = examples(features, labels)
        discrepancy = self.discrepancy(self.generate(classes, propagation), real, classes)
        logits, targets = self.class_logits(features.movedim(1, -1).flatten(0, 2)), labels.flatten()
        seen = self.cross_entropy(logits, targets)
        layout = self.sampled_layout(classes)
        generated = self.generate(layout, propagation).detach()
        replaced = layout != classes
        made_up, wanted = self.class_logits(generated[replaced]), layout[replaced]
        unseen = self.cross_entropy(made_up, wanted)
        classification = seen + self.generated_share() * self.generated_weight * unseen
        if self.quirks.heavy_unseen and self.generated_share():
            classification = self.weighted_loss(torch.cat([logits, made_up]), torch.cat([targets, wanted]))
        return {"loss": discrepancy + classification, "discrepancy": discrepancy, "seen": seen, "generated": unseen}

    def weighted_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy of logits (N, K) and classes (N,), 255 ignored, in which unseen classes weigh 100."""
        total = F.cross_entropy(logits.float(), targets, self.class_weights, ignore_index=IGNORE, reduction="sum")
        return total / self.class_weights[targets[targets != IGNORE]].sum().clamp_min(1)

    def class_logits(self, features: Tensor) -> Tensor:
        """Logits (N, K) of features (N, D)."""
        logits: Tensor = self.classifier(features)
        return logits

    def generate(self, classes: Tensor, propagation: Tensor | None = None) -> Tensor:
        """Features (N, D) of classes (N,), with new noise."""
        draw = torch.rand if self.quirks.uniform_noise else torch.randn
        noise = draw(len(classes), self.noise_channels, device=classes.device)
        features: Tensor = self.generator(self.embeddings[classes], noise, propagation).to(self.embeddings.dtype)
        return features

    def discrepancy(self, generated: Tensor, real: Tensor, classes: Tensor) -> Tensor:
        """Maximum mean discrepancy of generated and real features (N, D), averaged over the classes among them."""
        members = [classes == k for k in classes.unique()]
        if not members:
            return generated.sum()  # 0, and all parameters have a gradient
        return torch.stack([maximum_mean_discrepancy(generated[m], real[m], self.sigmas) for m in members]).mean()

    def sampled_layout(self, classes: Tensor) -> Tensor:
        """The classes (N,) of examples after some objects, never the background, took an unseen class."""
        drawn = self.unseen_classes[torch.randint(len(self.unseen_classes), classes.shape, device=classes.device)]
        chosen = (torch.rand(classes.shape, device=classes.device) < self.replaced) & (classes > 0)
        return drawn.where(chosen, classes)

    def pixels(self, features: Tensor, labels: Tensor) -> Examples:
        """A random choice of the labelled places of features (B, D, h, w), no class more often than allowed."""
        labelled = labels != IGNORE
        vectors, classes = features.movedim(1, -1)[labelled], labels[labelled]
        order = torch.randperm(len(classes), device=classes.device)
        shuffled = classes[order]
        rank = F.one_hot(shuffled, self.num_classes).cumsum(0).gather(1, shuffled[:, None])[:, 0]  # 1: a class's first
        kept = order[rank <= self.pixels_per_class]
        return vectors[kept], classes[kept], None

    def regions(self, features: Tensor, labels: Tensor) -> Examples:
        """The mean features of the connected regions of one class, and who neighbours whom."""
        regions = connected_regions(labels)  # (B, h, w)
        labelled = labels != IGNORE
        members, propagation = regions[labelled], region_graph(regions)
        count = len(propagation)
        area = torch.bincount(members, minlength=count)
        total = features.new_zeros(count, features.shape[1]).index_add(0, members, features.movedim(1, -1)[labelled])
        classes = members.new_zeros(count).scatter(0, members, labels[labelled])
        return total / area[:, None], classes, propagation
