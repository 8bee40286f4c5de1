"""Mask^X R-CNN: masks of classes of which training shows boxes alone.

Hu, Dollár, He, Darrell, Girshick: Learning to Segment Every Thing, CVPR 2018, https://arxiv.org/abs/1711.10370.
Official code: https://github.com/ronghanghu/seg_every_thing, on Detectron (Apache-2.0); written anew here on
torchvision's parts.
Published: table 2 of the paper (ResNet-50-FPN on COCO, masks of VOC's 20 classes or of the other 60).

Differences: as in `mask_rcnn`. The perceptron of the fusion has one hidden layer. Box and mask heads learn together, as
in the paper's end-to-end training, with the gradient stopped at the box head's weights.
"""

from __future__ import annotations

from typing import Any

from segladder.methods.full.mask_rcnn import MaskRCNN
from segladder.nets.regions import TransferredMasks
from segladder.settings import Positive


class MaskXRCNN(MaskRCNN):
    """Mask R-CNN whose mask of a class follows from how the box head tells the class.

    Args:
        transfer: whether it does; otherwise one mask serves all classes, the class-agnostic baseline.
        fusion: whether a perceptron's class-agnostic mask is added.
        fusion_width: channels of that perceptron.
    """

    def __init__(
        self,
        box_width: Positive,
        mask_width: Positive,
        transfer: bool,
        fusion: bool,
        fusion_width: Positive,
        **common: Any,
    ) -> None:
        masks = TransferredMasks(mask_width, box_width, transfer=transfer, fusion=fusion, fusion_width=fusion_width)
        super().__init__(box_width=box_width, mask_width=mask_width, masks=masks, **common)
