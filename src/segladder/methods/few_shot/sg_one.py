"""SG-One: the cosine between a class's prototype and every place of the query guides a segmentation network.

Zhang, Wei, Yang, Huang: SG-One: Similarity Guidance Network for One-Shot Semantic Segmentation, IEEE Transactions on
Cybernetics 2020, https://arxiv.org/abs/1810.09091. Official code: https://github.com/xiaomengyc/SG-One (no licence; it
does not run as published); written anew here, with its names of parameters: `load_official_state_dict` takes its
checkpoints.
Published, VGG-16, PASCAL-5i: mean IoU 46.3 (1-shot), 47.1 (5-shot); by fold 40.2, 58.4, 48.4, 38.4 and 41.9, 58.6,
48.6, 39.4 (unverified); FB-IoU 63.1 or 63.9 and 65.9 (unverified, sources conflict).

Two forms, both in `segladder.nets.guidance`: `vgg` is the paper's network, `pyramid` is its scheme on any backbone,
where a convolution over a concatenation is the sum of two, the deeper one before enlarging. The yaml's widths are
smaller than the paper's 512 and 128. `method.preset=official backbone=vgg16` has those, and so 18,992,194 parameters.

Quirks of the official code are switches, off by default and all on with `preset: official`. Not reproduced, as they lie
in its data and tests: query and support swap roles between its 1- and 5-shot tests, 255 is background at test, its
5-shot and multi-class tests load weights trained otherwise. Where it enlarges maps, it leaves align_corners to PyTorch:
False since 0.4, which its training needs (`Tensor.item`), and False here. What `guidance` offers besides `multiply` are
our readings of the paper's ablations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods import presets
from segladder.methods.base import Batch
from segladder.methods.few_shot.base import Features, FewShotMethod, State
from segladder.nets.backbone import Backbone, FeatureExtractor
from segladder.nets.guidance import PyramidBranches, VGGBranches
from segladder.nets.losses import CrossEntropy
from segladder.ops.prototypes import cosine_similarity_map, masked_average_pooling
from segladder.ops.upsampling import bilinear
from segladder.settings import OutputStride, Positive

Guidance = Literal["multiply", "none", "concatenate", "mask_input"]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Quirks(presets.Quirks):
    """What the official code does besides the paper's formulas.

    Args:
        exit_padding: the last 1x1 convolution is padded by 1: 43x43 logits from 41x41 features, the ring is its bias.
        batch_mask_sum: prototypes are divided by the mask pixels of the whole batch, with no guard against none.
        bgr_training: images are BGR in training and RGB at test.
        ignored_is_foreground: pixels of 255 belong to the class in training.
        layer_rates: `cls` learns at 10 times the rate, biases at twice that of their weights, and biases decay too.
    """

    exit_padding: bool = False
    batch_mask_sum: bool = False
    bgr_training: bool = False
    ignored_is_foreground: bool = False
    layer_rates: bool = False


OFFICIAL = {"guidance_channels": 512, "side_channels": 128}  # the paper's too


class SGOneNetwork(nn.Module):
    """The two branches and the head that segments guided features; named as in the official checkpoints.

    Args:
        branches: images to guidance and segmentation features.
        extra_channels: what `guidance` puts beside the segmentation features.
        exit_padding: of the last, 1x1, convolution.
    """

    def __init__(self, branches: VGGBranches | PyramidBranches, extra_channels: int = 0, exit_padding: int = 0) -> None:
        super().__init__()
        side_channels = branches.side_channels
        self.netB = branches
        self.classifier_6 = nn.Sequential(
            nn.Conv2d(side_channels + extra_channels, side_channels, 3, padding=1), nn.ReLU(inplace=True)
        )
        self.exit_layer = nn.Conv2d(side_channels, 2, 1, padding=exit_padding)

    def forward(self, guided: Tensor) -> Tensor:
        """Logits (B, 2, h, w) of guided features (B, S + extra, h, w)."""
        logits: Tensor = self.exit_layer(self.classifier_6(guided))
        return logits


class SGOne(FewShotMethod):
    """SG-One on VGG-16 or on any backbone.

    Args:
        backbone: the feature extractor; with the `vgg` form only its weights are used. None: VGG-16, random weights.
        num_classes: of the data set.
        criterion: the loss.
        form: `vgg`, `pyramid`, or `auto`: `vgg` if the backbone is a VGG-16 without BatchNorm.
        guidance: `multiply` (the paper's), `none` (the query alone is segmented), `concatenate` (the prototype beside
            the segmentation features in place of the cosine map) or `mask_input` (the prototype is the plain average
            over the support image with everything but the class at the mean pixel).
        guidance_channels: of the features that are compared.
        side_channels: of the segmentation features.
        finest_stride: of the segmentation features in the `pyramid` form.
        guidance_stride: of the guidance features in the `pyramid` form; None: the backbone's last.
        centre_guidance: whether the `pyramid` form normalises guidance features over the batch before comparing them.
        output_stride: what the backbone's last level must have in the `pyramid` form; None takes any.
        preset: `default`, or `official`: the paper's widths and all quirks, whatever they say; with backbone=vgg16 that
            is the official network.
        quirks: switches of `Quirks`.
        common: the arguments of `Method`.

    Raises:
        ConfigError: an unknown form, guidance, preset or quirk; a backbone that does not fit the form or stride.
    """

    def __init__(
        self,
        backbone: FeatureExtractor | None,
        num_classes: int,
        criterion: nn.Module,
        form: Literal["auto", "vgg", "pyramid"] = "auto",
        guidance: Guidance = "multiply",
        guidance_channels: Positive = 128,
        side_channels: Positive = 64,
        finest_stride: Positive = 4,
        guidance_stride: Positive | None = 4,
        centre_guidance: bool = True,
        output_stride: OutputStride | None = 16,
        preset: presets.Preset = "default",
        quirks: Mapping[str, bool] | None = None,
        **common: Any,
    ) -> None:
        pixels = IMAGENET if backbone is None else {"mean": backbone.mean, "std": backbone.std}
        super().__init__(num_classes, criterion, **pixels, **common)
        self.guidance = guidance
        self.quirks = Quirks.chosen(preset, quirks)
        widths = {"guidance_channels": guidance_channels, "side_channels": side_channels}
        self.resolved = presets.sizes(preset, OFFICIAL, widths)
        guidance_channels, side_channels = self.resolved["guidance_channels"], self.resolved["side_channels"]
        self.reads_support_images = guidance == "mask_input"
        self.reads_support_features = guidance in ("multiply", "concatenate")
        compared = 0 if guidance == "none" else guidance_channels
        branches: VGGBranches | PyramidBranches
        if _is_vgg_form(form, backbone) or backbone is None:
            branches = VGGBranches(compared, side_channels)
            if backbone is not None:
                branches.take_weights(backbone)
        else:
            backbone.check_stride(output_stride)
            branches = PyramidBranches(
                backbone, compared, side_channels, finest_stride, guidance_stride, centre_guidance
            )
        extra = guidance_channels if guidance == "concatenate" else 0
        self.network = SGOneNetwork(branches, extra, int(self.quirks.exit_padding))

    def encode(self, images: Tensor) -> Features:
        """Guidance features (B, G, h, w), if `guidance` uses them, and segmentation features (B, S, h', w')."""
        features: Features = self.network.netB(images)
        return features

    def encode_supports(self, images: Tensor) -> Features:
        """Guidance features (B, G, h, w): nothing else of a support is looked at."""
        return (self.network.netB.compared_features(images),)

    def condition(self, support_images: Tensor | None, support_features: Features, support_masks: Tensor) -> State:
        """The prototype (B, G), or nothing without guidance."""
        if self.guidance == "none":
            return ()
        if self.guidance == "mask_input":
            assert support_images is not None
            masks = _resized(support_masks[:, None], support_images.shape[-2:])  # (B, 1, H, W)
            return (self.encode_supports(support_images * masks.to(support_images.dtype))[0].mean((2, 3)),)
        prototypes = masked_average_pooling(support_features[0], support_masks)  # (B, G)
        if self.quirks.batch_mask_sum:
            pixels = support_masks.sum((1, 2))
            prototypes = prototypes * (pixels / pixels.sum())[:, None]
        return (prototypes,)

    def decode(self, query_features: Features, state: State, size: tuple[int, int]) -> Tensor:
        """Logits of background and class (B, 2, H, W)."""
        return bilinear(self.network(self.guided(query_features, state)), size)

    def guided(self, query_features: Features, state: State) -> Tensor:
        """Segmentation features (B, S or S + G, h', w') with what is known of the class."""
        side = query_features[-1]
        if self.guidance == "none":
            return side
        (prototypes,) = state
        if self.guidance == "concatenate":
            return torch.cat([side, prototypes[:, :, None, None].expand(-1, -1, *side.shape[-2:])], 1)
        similarity = cosine_similarity_map(query_features[0], prototypes)[:, None]  # (B, 1, h, w)
        return side * _resized(similarity, side.shape[-2:])

    def logits(self, query: Tensor, support: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, 2, h', w') before they are enlarged, for one support an episode.

        Args:
            query: normalised images (B, 3, H, W).
            support: normalised images (B, 3, H, W).
            mask: of the supports, (B, H, W) of 0 and 1.
        """
        features = self.encode_supports(support) if self.reads_support_features else ()
        logits: Tensor = self.network(self.guided(self.encode(query), self.condition(support, features, mask)))
        return logits

    def normalize(self, images: Tensor) -> Tensor:
        """Raw pixels to the network's input; channels reversed in training with the quirk `bgr_training`."""
        reverse = self.quirks.bgr_training and self.training
        return super().normalize(images.flip(1) if reverse else images)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion between the queries' logits and masks."""
        if self.quirks.ignored_is_foreground:
            mask, support_mask = batch["mask"].clamp(max=1), batch["support_mask"].clamp(max=1)  # 255 becomes 1
            batch = {**batch, "mask": mask, "support_mask": support_mask}
        return super().loss(batch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups by learning rate and decay; with the quirk `layer_rates` those of the official code."""
        if not self.quirks.layer_rates:
            return super().parameter_groups()
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                factor = (10.0 if ".cls." in name else 1.0) * (2.0 if parameter.ndim == 1 else 1.0)
                groups.setdefault(factor, []).append(parameter)
        rate, decay = self.optimizer_settings["lr"], self.optimizer_settings["weight_decay"]
        return [{"params": p, "lr": rate * factor, "weight_decay": decay} for factor, p in groups.items()]

    def backbones(self) -> Iterator[nn.Module]:
        """VGG-16's blocks or the backbone."""
        yield from self.network.netB.pretrained()


def load_official_state_dict(state_dict: Mapping[str, Any]) -> SGOne:
    """The official network with its trained weights, in evaluation mode.

    All quirks are on, so that its logits are those of the official code under current PyTorch.

    Args:
        state_dict: of the official model, as it is, of a DataParallel (`module.`), or in a checkpoint's `state_dict`.

    Raises:
        ConfigError: keys are missing or unexpected, or tensors of another shape; names them.
    """
    method = SGOne(
        backbone=None,
        num_classes=21,
        criterion=CrossEntropy(),
        preset="official",
        name="sg_one",
        supervision="few_shot",
        trains=True,
        optimizer={"name": "sgd", "lr": 1e-5, "momentum": 0.99, "weight_decay": 5e-4},
        schedule={"name": "constant"},
    )
    given = {key.removeprefix("module."): value for key, value in state_dict.get("state_dict", state_dict).items()}
    wanted = method.network.state_dict()
    faults = {
        "missing": [key for key in wanted if key not in given],
        "unexpected": [key for key in given if key not in wanted],
        "of another shape": [key for key in wanted if key in given and given[key].shape != wanted[key].shape],
    }
    if any(faults.values()):
        told = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in faults.items() if keys)
        raise ConfigError(f"state_dict: not of SG-One's official network, expected its {len(wanted)} keys; {told}")
    method.network.load_state_dict(given)
    return method.eval()


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    return maps if maps.shape[-2:] == size else bilinear(maps, size)


def _is_vgg_form(form: Literal["auto", "vgg", "pyramid"], backbone: FeatureExtractor | None) -> bool:
    is_vgg = backbone is None or (isinstance(backbone, Backbone) and backbone.name.split(".")[0] == "vgg16")
    if form == "vgg" and not is_vgg:
        raise ConfigError("method.form=vgg: expected backbone=vgg16; other backbones take method.form=pyramid")
    if form == "pyramid" and backbone is None:
        raise ConfigError("method.form=pyramid: expected a backbone")
    return is_vgg and form != "pyramid"
