"""CAM: the class maps of a network that classifies images, as evidence of where each class is.

Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative Localization, CVPR 2016,
https://arxiv.org/abs/1512.04150. The form is that of the weak segmentation codes jiwoon-ahn/irn (MIT) and
shjo-april/PuzzleCAM (no licence), written anew: a 1x1 convolution without bias on the last features, whose maps
averaged over the image are the tags' logits. Published as a baseline, ResNet-50 at output stride 16, mIoU of seeds on
VOC 2012 train: 48.3 (as quoted beside IRNet), 47.8 (as quoted beside Puzzle-CAM; its users got 44.1).

Any backbone serves; the map that is scored is that of its last level, of a vision transformer the last map of tokens.
Differences: the paper puts a 3x3 convolution of 1024 channels on shortened networks for one label an image, and its
classifier has a bias. At output stride 16 the codes' ResNets have strides 2, 2, 2, 1 without dilation, which
`backbone.dilated=false` has too; timm's dilate the last stage by 2 but for its first block. In IRNet's code BatchNorm
keeps ImageNet's statistics (here `backbone.batch_norm=frozen`) and no gradient passes below the third stage
(`backbone.freeze=3`); in Puzzle-CAM's everything learns. Maps are summed on a grid of stride 4, in Puzzle-CAM's and
IRNet's codes at full size too.

What the official codes do besides the papers is behind switches, off by default and all on with `preset: official`.
Not reproduced: checkpoints chosen by masks of the training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import multilabel_soft_margin_loss

from segladder.errors import ConfigError
from segladder.methods import presets
from segladder.methods.image_level.base import ClassMapMethod
from segladder.nets.backbone import FeatureExtractor
from segladder.settings import OutputStride, Share


@dataclass(frozen=True)
class Quirks(presets.Quirks):
    """What the official codes of AffinityNet, IRNet, Puzzle-CAM and SEAM do besides the papers.

    Args:
        decay_is_momentum: weight decay is also passed in the place of SGD's momentum, which so becomes 1e-4.
        layer_rates: new layers learn at 10 times the rate, biases at twice that of their weights and without decay;
            norms' weights learn and decay as other weights do.
    """

    decay_is_momentum: bool = False
    layer_rates: bool = False


class CAM(ClassMapMethod):
    """Class activation maps of any backbone.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included; there are K - 1 maps.
        background_score: the background's score in `predict`.
        output_stride: what the backbone's last level must have; None takes any.
        preset: `default`, or `official`: all quirks.
        quirks: switches of `Quirks`.
        common: the arguments of `Method`.

    Raises:
        ConfigError: a backbone of another stride, an unknown preset or quirk, a quirk that needs another optimiser.
    """

    backbone: FeatureExtractor

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        background_score: Share,
        output_stride: OutputStride | None = 16,
        preset: presets.Preset = "default",
        quirks: Mapping[str, bool] | None = None,
        **common: Any,
    ) -> None:
        chosen = Quirks.chosen(preset, quirks)
        if chosen.decay_is_momentum:
            common["optimizer"] = _decay_as_momentum(common["optimizer"])
        super().__init__(backbone, background_score, **common)
        backbone.check_stride(output_stride)
        self.quirks = chosen
        self.classifier = nn.Conv2d(backbone.channels[-1], num_classes - 1, 1, bias=False)
        nn.init.kaiming_normal_(self.classifier.weight)

    def class_maps(self, images: Tensor) -> Tensor:
        """Raw class maps (B, C, h, w) at the backbone's last stride."""
        maps: Tensor = self.classifier(self.backbone(images)[-1])
        return maps

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups by learning rate and decay; with the quirk `layer_rates` those of the official codes."""
        if not self.quirks.layer_rates:
            return super().parameter_groups()
        pretrained = {id(p) for p in self.backbone.parameters()}
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_bias = name.endswith("bias")
                factor = (1.0 if id(parameter) in pretrained else 10.0) * (2.0 if is_bias else 1.0)
                groups.setdefault((factor, is_bias), []).append(parameter)
        rate, decay = self.optimizer_settings["lr"], self.optimizer_settings["weight_decay"]
        return [
            {"params": parameters, "lr": rate * factor, "weight_decay": 0.0 if is_bias else decay}
            for (factor, is_bias), parameters in groups.items()
        ]


def classification_loss(maps: Tensor, tags: Tensor) -> Tensor:
    """Multi-label soft margin, a mean over images and classes, between averaged maps (B, C, h, w) and tags (B, C)."""
    return multilabel_soft_margin_loss(maps.float().mean((2, 3)), tags)


def _decay_as_momentum(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    if optimizer["name"] != "sgd":
        raise ConfigError(
            f"method.optimizer.name={optimizer['name']}: the quirk decay_is_momentum (preset=official) expects sgd"
        )
    return {**optimizer, "momentum": optimizer["weight_decay"]}
