"""FusionSeg: what looks like an object and what moves like one, each a network, fused pixel by pixel.

Jain, Xiong, Grauman: FusionSeg, CVPR 2017, https://arxiv.org/abs/1701.05384. Official code:
https://github.com/suyogduttjain/fusionseg ("free for research and academic purposes", patent pending): trained Caffe
models and how they are run, nothing that trains. Published for DAVIS-2016: mean J 70.7 (unverified).

Three runs, each with the one before as its parent, whose weights it carries:

1. `fusionseg_appearance`, DeepLabv2's shape: a backbone, and the sum of four dilated convolutions that score classes.
2. `fusionseg_motion`, the same shape, whose input is optical flow drawn as colour. Where the appearance run had boxes,
   its answers within the boxes are the masks that motion learns from, in frames that pass two tests (`pseudo_masks.
   agreement`, `pseudo_masks.motion`); where it had masks, motion learns from masks.
3. `fusionseg`, which freezes both and learns the fusion from drawn masks.

Paper and code fuse differently. The paper (read in second-hand accounts; that the product has convolutions of its own
is unverified): an element-wise maximum of three branches, appearance, motion and their product, each stream through a
1x1 convolution and ReLU first. The code (joint_davis_val/deploy.prototxt): 3x3 convolutions to four channels and ReLU
on appearance, on motion and on both stacked; their sum; one more 3x3 convolution. `method.fusion` chooses.

Differences: any backbone (theirs: ResNet-101 at output stride 8); both streams start from the same weights; flow is
OpenCV's DIS (theirs: Liu's Coarse2Fine). Flow goes to the next frame, of the last frame to the one before, as there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from segladder.errors import ConfigError
from segladder.methods.base import Batch, Method
from segladder.methods.full.base import DenseMethod
from segladder.nets.backbone import FeatureExtractor
from segladder.nets.dense_features import AtrousSum
from segladder.ops.flow import flow_colours
from segladder.ops.upsampling import bilinear
from segladder.settings import Positives


class Stream(nn.Module):
    """The last level of a backbone, scored by dilated convolutions, enlarged.

    Args:
        backbone: the feature extractor.
        num_classes: K.
        output_stride: of the backbone.
        rates: dilations of the 3x3 convolutions that are summed.

    Raises:
        ConfigError: a backbone of another output stride.
    """

    def __init__(
        self, backbone: FeatureExtractor, num_classes: int, output_stride: Literal[8, 16], rates: Positives
    ) -> None:
        super().__init__()
        if backbone.strides[-1] != output_stride:
            raise ConfigError(
                f"method.output_stride={output_stride}: the backbone's is {backbone.strides[-1]}; leave"
                " backbone.output_stride to the method"
            )
        self.backbone = backbone
        self.score = AtrousSum(backbone.channels[-1], num_classes, rates)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised pictures (B, 3, H, W)."""
        return bilinear(self.score(self.backbone(images)[-1]), images.shape[-2:])


class AppearanceStream(DenseMethod):
    """What an object looks like, from frames alone.

    Args:
        backbone: the feature extractor.
        num_classes: K, background included.
        criterion: the loss.
        output_stride: of the backbone.
        rates: dilations of the 3x3 convolutions that are summed.
        common: the arguments of `Method`.
    """

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        output_stride: Literal[8, 16],
        rates: Positives,
        **common: Any,
    ) -> None:
        network = Stream(backbone, num_classes, output_stride, rates)
        super().__init__(backbone, network, criterion, mean=backbone.mean, std=backbone.std, **common)


class FlowMethod(Method):
    """Two streams, of which some are another run's and stay as they are.

    Args:
        backbone: the feature extractor; each stream has one of its own that starts so.
        num_classes: K, background included.
        criterion: the loss.
        output_stride: of the backbone.
        rates: dilations of the 3x3 convolutions that are summed.
        common: the arguments of `Method`.
    """

    reads_flow: ClassVar[bool] = True
    needs_parent: ClassVar[bool] = True
    frozen: ClassVar[tuple[str, ...]]  # the streams that the parent has taught

    def __init__(
        self,
        backbone: FeatureExtractor,
        num_classes: int,
        criterion: nn.Module,
        output_stride: Literal[8, 16],
        rates: Positives,
        **common: Any,
    ) -> None:
        super().__init__(mean=backbone.mean, std=backbone.std, **common)
        self.appearance = Stream(deepcopy(backbone), num_classes, output_stride, rates)
        self.motion = Stream(backbone, num_classes, output_stride, rates)
        self.criterion = criterion
        for stream in self.taught():
            stream.requires_grad_(False).eval()

    def taught(self) -> list[nn.Module]:
        """The streams that do not learn."""
        return [self.get_submodule(name) for name in self.frozen]

    def train(self, mode: bool = True) -> Self:
        """Like any module's, but streams that do not learn stay in evaluation mode."""
        super().train(mode)
        for stream in self.taught():
            stream.eval()
        return self

    def backbones(self) -> Iterator[nn.Module]:
        """The backbones of both streams."""
        yield from (self.appearance.backbone, self.motion.backbone)

    @abstractmethod
    def forward(self, images: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images and relative flow (B, 2, H, W)."""

    def moving(self, flow: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the motion stream."""
        logits: Tensor = self.motion(self.normalize(flow_colours(flow)))
        return logits

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion between logits and masks."""
        logits = self(batch["image"], batch["flow"]).float()
        return {"loss": self.criterion(logits, batch["mask"].long(), self.pictures(batch))}

    def predict(self, images: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, K, H, W) float32 at input size."""
        logits: Tensor = self(self.normalize(images), flow).float()
        return logits

    def take(self, stream: nn.Module, taught: nn.Module) -> None:
        """Give a stream the weights of the parent's. Raises ConfigError where they have other shapes."""
        try:
            stream.load_state_dict(taught.state_dict())
        except RuntimeError as error:
            told = " ".join(str(error).split())[:200]
            raise ConfigError(f"parent: its weights do not fit method={self.name}: {told}") from error


class MotionStream(FlowMethod):
    """How an object moves, from colour-coded flow alone; the appearance stream is only carried along."""

    takes: ClassVar[tuple[str, ...]] = ("features", "masks")
    frozen: ClassVar[tuple[str, ...]] = ("appearance",)

    def forward(self, images: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, K, H, W) of the motion stream; images are not looked at."""
        return self.moving(flow)

    def inherit(self, parent: Method) -> None:
        """Carry the parent's appearance stream along."""
        if not isinstance(parent, AppearanceStream):
            raise ConfigError(f"parent: method={self.name} builds on fusionseg_appearance, but got {parent.name}")
        self.take(self.appearance, parent.network)


class FusionSeg(FlowMethod):
    """Both streams, fused.

    Args:
        fusion: `paper`, a maximum of appearance, motion and their product; or `code`, sums of 3x3 convolutions.
        streams: the arguments of `FlowMethod`.
    """

    takes: ClassVar[tuple[str, ...]] = ("features",)
    frozen: ClassVar[tuple[str, ...]] = ("appearance", "motion")

    def __init__(self, num_classes: int, fusion: Literal["paper", "code"], **streams: Any) -> None:
        super().__init__(num_classes=num_classes, **streams)
        self.fusion = {"paper": MaximumFusion, "code": SumFusion}[fusion](num_classes)

    def forward(self, images: Tensor, flow: Tensor) -> Tensor:
        """Fused scores (B, K, H, W)."""
        with torch.no_grad():
            appearance, motion = self.appearance(images), self.moving(flow)
        scores: Tensor = self.fusion(appearance, motion)
        return scores

    def inherit(self, parent: Method) -> None:
        """Take over both streams of the parent."""
        if not isinstance(parent, MotionStream):
            raise ConfigError(f"parent: method={self.name} builds on fusionseg_motion, but got {parent.name}")
        self.take(self.appearance, parent.appearance)
        self.take(self.motion, parent.motion)


class MaximumFusion(nn.Module):
    """max(A(a), M(m), A'(a) * M'(m)) of the streams' scores a and m, each letter a 1x1 convolution and ReLU.

    The convolutions start as identities, those of the product raised by a tenth, so that each branch wins
    somewhere (ours).
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.appearance, self.motion = identity(num_classes, 0.0), identity(num_classes, 0.0)
        self.appearance_of_both, self.motion_of_both = identity(num_classes, 0.1), identity(num_classes, 0.1)

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """Scores (B, K, H, W) of scores (B, K, H, W)."""
        both = self.appearance_of_both(appearance).relu() * self.motion_of_both(motion).relu()
        either = torch.maximum(self.appearance(appearance).relu(), self.motion(motion).relu())
        return torch.maximum(either, both)


class SumFusion(nn.Module):
    """The fusion of the official code."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        hidden = 2 * num_classes  # four of two classes
        self.both = nn.Conv2d(2 * num_classes, hidden, 3, padding=1)
        self.appearance = nn.Conv2d(num_classes, hidden, 3, padding=1)
        self.motion = nn.Conv2d(num_classes, hidden, 3, padding=1)
        self.score = nn.Conv2d(hidden, num_classes, 3, padding=1)

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """Scores (B, K, H, W) of scores (B, K, H, W)."""
        both = self.both(torch.cat([appearance, motion], 1)).relu()
        scores: Tensor = self.score(both + self.appearance(appearance).relu() + self.motion(motion).relu())
        return scores


def identity(channels: int, bias: float) -> nn.Conv2d:
    """A 1x1 convolution that adds `bias` and changes nothing else."""
    convolution = nn.Conv2d(channels, channels, 1)
    nn.init.dirac_(convolution.weight)
    nn.init.constant_(convolution.bias, bias)  # type: ignore[arg-type]
    return convolution
