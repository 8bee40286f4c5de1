"""Puzzle-CAM: class maps of an image and of its tiles, put together again, are to agree.

Jo, Yu: Puzzle-CAM: Improved Localization via Matching Partial and Full Features, ICIP 2021,
https://arxiv.org/abs/2101.11253. Official code: https://github.com/shjo-april/PuzzleCAM (no licence); written anew from
its formulas. Published, mIoU on VOC 2012: seeds on train, ResNet-50, 51.5 (CAM 47.8; users of the code got 48.5 and
44.1), ResNeSt-101 61.9 (unverified); segmentation on val / test 66.9 / 67.7 (ResNeSt-101), 71.9 / 72.2 (ResNeSt-269).

    L = L_cl(GAP A, y) + L_pcl(GAP A_re, y) + alpha mean(|A - A_re| y)     alpha rising from 0 over the ramp

A are the raw maps of the image, A_re those of its tiles, merged. L_cl, L_pcl and the reconstruction are all means over
classes, so that alpha means one thing for any number of them (`reduce=selection` takes present classes alone).
Differences: images of any size (edges are repeated to full tiles, merged maps of another size are interpolated to that
of A); `detach` makes one side of the reconstruction a target; the official ResNets have strides 2, 2, 2, 1 without
dilation, timm's of output stride 16 dilate the last stage (see `cam`). Image and tiles are two passes of the network:
with BatchNorm in training mode each is normalised by its own statistics, and both move the running ones, which the maps
at test time use; `backbone.batch_norm=frozen` takes the pretrained statistics for both.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, Literal

from torch import Tensor

from segladder.errors import ConfigError
from segladder.methods.base import Batch
from segladder.methods.image_level.cam import CAM, classification_loss
from segladder.ops.puzzle import Reduction, merge, reconstruction_loss, tile
from segladder.ops.upsampling import bilinear
from segladder.settings import NotNegative, Share

LOG_FLOOR = 1e-5  # beside probabilities in the entropy


class PuzzleCAM(CAM):
    """CAM whose maps also have to agree with those of the image's tiles.

    Args:
        pieces: tiles of an image, a square number from 4.
        reduce: of the reconstruction loss: `masked` (present classes, over all), `none` or `selection`.
        alpha: final weight of the reconstruction loss.
        ramp: share of the training over which it rises linearly from 0; 0 starts at `alpha`.
        detach: the side of the reconstruction that gets no gradient, `full` or `tiles`; None lets both move.
        entropy: add the entropy of the tiles' tag probabilities to the loss.
        common: the arguments of `CAM`.

    Raises:
        ConfigError: what `CAM` refuses; pieces that form no square; an unknown reduction or side.
    """

    def __init__(
        self,
        pieces: int = 4,
        reduce: Reduction = "masked",
        alpha: NotNegative = 4.0,
        ramp: Share = 0.5,
        detach: Literal["full", "tiles"] | None = None,
        entropy: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        if pieces < 4 or isqrt(pieces) ** 2 != pieces:
            raise ConfigError(f"method.pieces={pieces}: expected a square number such as 4, 9 or 16")
        self.pieces = pieces
        self.reduce = reduce
        self.final_alpha = alpha
        self.ramp = ramp
        self.detached = detach
        self.entropy = entropy
        self.progress = 1.0  # share of the training that is done

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Take the trainer's progress, which a resumed run goes on with."""
        self.progress = self.trainer.global_step / self.trainer.estimated_stepping_batches

    @property
    def alpha(self) -> float:
        """The present weight of the reconstruction loss."""
        return self.final_alpha * min(1.0, self.progress / self.ramp if self.ramp else 1.0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Classification of image and tiles, and reconstruction."""
        images, tags = batch["image"], batch["tags"]
        full = self.class_maps(images).float()  # (B, C, h, w)
        pieces = tile(images, self.pieces).contiguous(memory_format=self.input_format)
        tiles = self.class_maps(pieces).float()  # (pieces * B, C, h', w')
        merged = merge(tiles, self.pieces)
        losses = {
            "classification": classification_loss(full, tags),
            "tile_classification": classification_loss(merged, tags),
            "reconstruction": self.reconstruction(full, merged, tags),
        }
        total = losses["classification"] + losses["tile_classification"] + self.alpha * losses["reconstruction"]
        if self.entropy:
            losses["entropy"] = tag_entropy(tiles.mean((2, 3)))
            total = total + losses["entropy"]
        return {"loss": total, **losses, "alpha": total.new_tensor(self.alpha)}

    def reconstruction(self, full: Tensor, merged: Tensor, tags: Tensor) -> Tensor:
        """The reconstruction loss of raw maps (B, C, h, w) and merged ones of about that size."""
        merged = bilinear(merged, full.shape[-2:])
        if self.detached == "full":
            full = full.detach()
        elif self.detached == "tiles":
            merged = merged.detach()
        return reconstruction_loss(full, merged, tags, self.reduce)


def tag_entropy(logits: Tensor) -> Tensor:
    """Mean over samples of -sum p log(p + 1e-5) over classes, p the sigmoid of logits (N, C)."""
    probabilities = logits.sigmoid()
    return -(probabilities * (probabilities + LOG_FLOOR).log()).sum(1).mean()
