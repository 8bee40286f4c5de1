"""Every timm model through one small interface: images to feature maps at known strides.

VGG-16 is tapped behind its max-pools (pool1 .. pool5), as FCN (Long et al. 2015) names them, and gets its output stride
by own surgery, since timm's VGG takes none. A plain vision transformer is tapped at four depths of one stride.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import timm
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import FeatureListNet
from timm.models.vgg import VGG
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segladder.errors import ConfigError
from segladder.nets.folding import fold_batch_norm
from segladder.nets.fusing import ForInference
from segladder.nets.stored import unpacked
from segladder.settings import RGB, Count, OutputStride

BUILDING = frozenset(inspect.signature(timm.create_model).parameters) - {"kwargs"}  # among them files to load


class FeatureExtractor(nn.Module):
    """Normalised images (B, 3, H, W) to a list of feature maps, shallow to deep.

    Attributes:
        channels: channels of each map.
        strides: input pixels per step of each map; dilated levels repeat a stride.
        mean: input mean per channel, in 0..1.
        std: input standard deviation per channel, in 0..1.
        leftover: loaded weights of layers behind the last map, by their timm name (a classifier's, VGG's fc6 and fc7).
    """

    channels: list[int]
    strides: list[int]
    mean: RGB
    std: RGB

    def __init__(self) -> None:
        super().__init__()
        self.leftover: dict[str, Tensor] = {}
        self.for_inference = ForInference()

    def check_stride(self, output_stride: int | None) -> None:
        """Raise ConfigError where a method expects another stride of the last map."""
        if output_stride not in (None, self.strides[-1]):
            raise ConfigError(
                f"method.output_stride={output_stride}: expected the backbone's, which is {self.strides[-1]}, or null"
            )

    def check_level(self, level: int | None) -> None:
        """Raise ConfigError unless `level` is the index of a map, from the first or from the last."""
        levels = len(self.channels)
        if level is None or not -levels <= level < levels:
            raise ConfigError(f"method.level={level}: expected {-levels}..{levels - 1}, the backbone has {levels} maps")


def deepest_of_each(strides: Sequence[int]) -> list[int]:
    """The deepest level of each stride, shallow to deep."""
    return [i for i in range(len(strides)) if i + 1 == len(strides) or strides[i + 1] != strides[i]]


class Backbone(FeatureExtractor):
    """A timm model as feature extractor.

    Args:
        name: timm's model name.
        weights: `none`, `timm` (pretrained, from the hub or its cache), a `.safetensors` file of the model, or the
            folder of a run with the same backbone.
        output_stride: 8, 16 or 32 input pixels per step of the last map; None: the architecture's own.
        dilated: whether convolutions behind a stride that is left out for it look as far as they did with it. The CAMs
            of IRNet and Puzzle-CAM have ResNets that do not (strides 2, 2, 2, 1).
        batch_norm: `train`; `frozen`: running statistics and affine weights stay as loaded, in training too; or
            `folded`: frozen and merged into the convolutions, which is faster and keeps no BatchNorm in the weights.
        freeze: number of leading levels (stem and first blocks, up to that feature map) that do not learn.
        options: further arguments of the timm model, for example `pad_type: same`.
        mean: input mean per channel in 0..1; None takes the pretrained model's.
        std: input standard deviation per channel; None takes the pretrained model's.

    Raises:
        ConfigError: an unknown model (with close names), an option or stride it does not take, weights that do not fit.
    """

    def __init__(
        self,
        name: str,
        weights: str,
        output_stride: OutputStride | None = None,
        dilated: bool = True,
        batch_norm: Literal["train", "frozen", "folded"] = "train",
        freeze: Count = 0,
        options: Mapping[str, Any] | None = None,
        mean: RGB | None = None,
        std: RGB | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.model = _feature_model(name, output_stride, dict(options or {}))
        if not dilated:
            _undilate(self.model)
        self._channels_behind = getattr(self.model, "output_fmt", "NCHW") == "NHWC"  # as Swin has them
        self.channels = list(self.model.feature_info.channels())
        self.strides = list(self.model.feature_info.reduction())
        self.mean = _rgb(mean or self.model.pretrained_cfg["mean"])
        self.std = _rgb(std or self.model.pretrained_cfg["std"])
        from_run = is_run(weights)
        if weights != "none" and not from_run:
            self.leftover = _load(self.model, name, dict(options or {}), weights)
        if batch_norm == "folded":
            fold_batch_norm(self.model, name)
        if from_run:
            load_from_run(self, Path(weights))
        self._frozen_modules = list(self._leading_modules(freeze))
        if batch_norm == "frozen":
            self._frozen_modules += [m for m in self.model.modules() if isinstance(m, _BatchNorm)]
        for module in self._frozen_modules:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
            module.training = False  # what it holds may learn

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, channels[i], H / strides[i], W / strides[i]) of normalised images (B, 3, H, W)."""
        maps = list(self.for_inference.of(self.model, images)(images))
        return [each.movedim(-1, 1) for each in maps] if self._channels_behind else maps

    def train(self, mode: bool = True) -> Backbone:
        """Like any module's, but frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules:
            module.training = False
        return self

    def _leading_modules(self, levels: int) -> Iterator[nn.Module]:
        if levels > len(self.channels):
            raise ConfigError(f"backbone.freeze={levels}: {self.name} has levels 0..{len(self.channels)}")
        if levels:
            modules = dict(self.model.named_modules())
            tap = self.model.feature_info.module_name()[levels - 1]
            taps = _names_inside(tap)
            end = max(i for i, name in enumerate(modules) if any(f"{name}.".startswith(f"{t}.") for t in taps))
            yield from list(modules.values())[: end + 1]


def _rgb(values: Sequence[float]) -> RGB:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _names_inside(name: str) -> tuple[str, str, str]:
    return name, name.replace(".", "_", 1), f"model.{name}"  # as it is, flattened, or wrapped by timm's feature classes


def _create(name: str, options: Mapping[str, Any], **more: Any) -> Any:
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise ConfigError(f"backbone.name={name}: no such timm model; did you mean {', '.join(close) or 'another'}?")
    if foreign := sorted(options.keys() & BUILDING):
        raise ConfigError(f"backbone.options.{foreign[0]}: no option of a network; weights come by backbone.weights")
    try:
        return timm.create_model(name, **options, **more)
    except (TypeError, RuntimeError, AssertionError, NotImplementedError) as error:
        asked = ", ".join(f"{key}={value}" for key, value in {**options, **more}.items())
        raise ConfigError(
            f"backbone.name={name}: timm cannot build it with {asked or 'no options'} ({error})"
        ) from error


def _feature_model(name: str, output_stride: OutputStride | None, options: dict[str, Any]) -> Any:
    if name.startswith("vgg") and timm.is_model(name):
        return _vgg(_create(name, options), output_stride or 32)
    model = _create(name, options, features_only=True)
    if output_stride not in (None, model.feature_info.reduction()[-1]):
        model = _create(name, options, features_only=True, output_stride=output_stride)
    if len(set(model.feature_info.reduction())) == 1:  # a plain transformer: tap a quarter, half, three quarters, all
        depth = len(model.feature_info.info)
        model = _create(name, options, features_only=True, out_indices=[depth * q // 4 - 1 for q in (1, 2, 3, 4)])
    return model


def _undilate(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and not isinstance(layer.padding, str):
            layer.padding = tuple(p // d for p, d in zip(layer.padding, layer.dilation, strict=True))
            layer.dilation = (1, 1)


def _vgg(model: VGG, output_stride: int) -> FeatureListNet:
    """Taps behind the pools; pools beyond the output stride become 3x3, stride 1, convolutions behind them dilated."""
    stride, dilation, channels, info = 1, 1, 3, []
    for index, layer in enumerate(model.features):
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
            layer.dilation = layer.padding = (dilation, dilation)
        elif isinstance(layer, nn.MaxPool2d):
            if stride == output_stride:
                dilation *= 2
                model.features[index] = nn.MaxPool2d(kernel_size=3, stride=1, padding=1)
            else:
                stride *= 2
            info.append({"num_chs": channels, "reduction": stride, "module": f"features.{index}"})
    model.feature_info = info
    net = FeatureListNet(model, out_indices=tuple(range(len(info))), flatten_sequential=True)
    net.pretrained_cfg = model.pretrained_cfg
    return net


def _load(model: nn.Module, name: str, options: dict[str, Any], weights: str) -> dict[str, Tensor]:
    """Load the feature model strictly; returns the weights of the layers behind it."""
    state = pretrained_weights(name, options, weights)
    whole = set(_create(name, options).state_dict())
    source_of = {inside: key for key in whole for inside in _names_inside(key)}
    wanted = {inside: source_of[inside] for inside in model.state_dict()}
    missing = [k for k in wanted.values() if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in whole]
    shapes = {inside: tensor.shape for inside, tensor in model.state_dict().items()}
    other = [k for inside, k in wanted.items() if k in state and state[k].shape != shapes[inside]]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    if any(faults.values()):
        told = "; ".join(f"{len(k)} keys {what} ({', '.join(sorted(k)[:3])})" for what, k in faults.items() if k)
        raise ConfigError(f"backbone.weights={weights}: does not fit {name}: {told}; give weights saved from {name}")
    model.load_state_dict({inside: state[k] for inside, k in wanted.items() if k in state}, strict=False)
    return {k: state[k] for k in state if k not in set(wanted.values())}


def pretrained_weights(name: str, options: Mapping[str, Any], weights: str) -> dict[str, Tensor]:
    """Weights of a whole timm model from the hub (`timm`) or a file. Raises ConfigError if there are none."""
    return _download(name, options) if weights == "timm" else _read(Path(weights))


def _download(name: str, options: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        config = timm.get_pretrained_cfg(name)
        kept = config and config.hf_hub_id and try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
        overlay = {"file": kept} if isinstance(kept, str) else None  # the hub itself is not asked, and may be away
        return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options).state_dict()
    except Exception as error:  # the hub's client raises errors of several libraries
        raise ConfigError(
            f"backbone.weights=timm: no weights for {name} ({error}); give a .safetensors file or weights=none"
        ) from error


def is_run(weights: str) -> bool:
    """Whether `weights` names the folder of a run."""
    return weights not in ("none", "timm") and Path(weights).is_dir()


def load_from_run(backbone: nn.Module, folder: Path) -> None:
    """Load the weights of a run's backbone, strictly.

    Raises:
        ConfigError: the run has no weights yet, or its network has no such backbone.
        DataError: the weights are damaged.
    """
    file = folder / "weights.pt"
    if not file.is_file():
        raise ConfigError(f"backbone.weights={folder}: no weights.pt there, expected the folder of a finished run")
    state = unpacked(file, "the weights that a run wrote")
    own = backbone.state_dict()
    first = next(iter(own))
    for prefix in (key.removesuffix(first) for key in state if key.endswith(first)):
        if all(prefix + key in state and state[prefix + key].shape == value.shape for key, value in own.items()):
            backbone.load_state_dict({key: state[prefix + key] for key in own})
            return
    raise ConfigError(f"backbone.weights={folder}: that run has another backbone; train it with the same backbone=...")


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        raise ConfigError(f"backbone.weights={path}: expected none, timm, a .safetensors file or the folder of a run")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"backbone.weights={path}: cannot be read ({error}), expected a .safetensors file") from error
