"""Patch CNN: a classifier of the pixel in the middle of a window, slid over the image.

Ciresan, Giusti, Gambardella, Schmidhuber: Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy
Images, NIPS 2012, https://papers.nips.cc/paper_files/paper/2012/hash/459a4ddcb586f24efd9395aa7662bc7c-Abstract.html.
No official code. Published, four networks averaged, ISBI 2012 challenge: warping error 4.2e-4, Rand error .050, pixel
error .061 (as quoted by the U-Net paper; unverified).

Valid convolutions, each with a 2x2 max-pooling behind it, bring a window of P x P pixels down to one place, where two
fully connected layers tell the class of the centre. Sliding it computes the same features again for each of the P x P
windows that share them. The fully convolutional form (Giusti et al.: Fast Image Scanning with Deep Max-Pooling
Convolutional Neural Networks, ICIP 2013, https://arxiv.org/abs/1302.1700; the case of dense prediction that Long et al.
2015 start from) computes each of them once: pooling moves by one pixel, and what stands behind it is dilated instead.
Scores are equal. The cited papers cut maps into fragments where this file dilates; the arithmetic is the same.

Differences: several images a batch, some pixels of each; the paper goes through all membrane pixels and as many others,
averages four networks and corrects their calibration on held-out images; there are no deformations of the input but
those of `loader.augment`. Images are mirrored outwards, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.mask_values import IGNORE
from segladder.methods.base import Batch
from segladder.methods.full.base import DenseMethod
from segladder.methods.full.unet_original import mirror
from segladder.nets.losses import GatedCRF
from segladder.settings import RGB, Positive, Positives


class PatchNetwork(nn.Module):
    """A classifier of windows, and the same weights as a network over whole images.

    Args:
        num_classes: K.
        channels: of each convolution that a pooling follows.
        kernels: their sides.
        top_kernel: side of the map that the first fully connected layer sees.
        hidden_channels: of that layer.

    Raises:
        ConfigError: kernels that are not one for each of the channels, or give the window no centre pixel.
    """

    def __init__(
        self, num_classes: int, channels: Sequence[int], kernels: Sequence[int], top_kernel: int, hidden_channels: int
    ) -> None:
        super().__init__()
        if len(kernels) != len(channels):
            raise ConfigError(
                f"method.kernels: {len(kernels)} values, method.channels has {len(channels)}: give one each"
            )
        self.window = top_kernel  # side of the window in pixels, P
        for kernel in reversed(kernels):
            self.window = 2 * self.window + kernel - 1
        if self.window % 2 == 0:
            raise ConfigError(
                f"method.kernels[0]={kernels[0]}: windows of {self.window} pixels have no centre, expected an even one"
            )
        widths = [3, *channels]
        self.stages = nn.ModuleList(
            nn.Conv2d(before, after, kernel) for before, after, kernel in zip(widths, channels, kernels, strict=False)
        )
        self.top = nn.Conv2d(widths[-1], hidden_channels, top_kernel)
        self.score = nn.Conv2d(hidden_channels, num_classes, 1)
        for layer in (*self.stages, self.top):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def classify(self, windows: Tensor) -> Tensor:
        """Logits (N, K) of the centre pixels of windows (N, 3, P, P)."""
        for stage in self.stages:
            windows = F.max_pool2d(stage(windows).relu(), 2)  # (N, C, p, p), half the side
        logits: Tensor = self.score(self.top(windows).relu())  # (N, K, 1, 1)
        return logits.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) of every pixel of images (B, 3, H, W), each feature computed once."""
        features, dilation = self.mirrored(images), 1
        for stage in self.stages:
            assert isinstance(stage, nn.Conv2d)
            features = F.conv2d(features, stage.weight, stage.bias, dilation=dilation).relu()
            features = F.max_pool2d(features, 2, stride=1, dilation=dilation)
            dilation *= 2
        features = F.conv2d(features, self.top.weight, self.top.bias, dilation=dilation).relu()  # (B, C, H, W)
        logits: Tensor = self.score(features)
        return logits

    def slide(self, images: Tensor) -> Tensor:
        """The logits (B, K, H, W) of `forward`, window after window; a row of pixels is one batch."""
        windows = self.windows(images)  # (B, 3, H, W, P, P)
        rows = []
        for row in windows.unbind(2):  # (B, 3, W, P, P)
            logits = self.classify(row.transpose(1, 2).flatten(0, 1))  # (B W, K)
            rows.append(logits.unflatten(0, (len(images), -1)).transpose(1, 2))
        return torch.stack(rows, 2)

    def at(self, images: Tensor, places: Tensor) -> Tensor:
        """Logits (B, K, N) of some pixels of each image (B, 3, H, W), by their flat places (B, N)."""
        rows, columns = places // images.shape[-1], places % images.shape[-1]
        image = torch.arange(len(images), device=places.device)[:, None]
        windows = self.windows(images)[image, :, rows, columns]  # (B, N, 3, P, P)
        logits: Tensor = self.classify(windows.flatten(0, 1)).unflatten(0, places.shape)
        return logits.transpose(1, 2)

    def windows(self, images: Tensor) -> Tensor:
        """The window around every pixel (B, 3, H, W, P, P), a view of the mirrored images."""
        return self.mirrored(images).unfold(2, self.window, 1).unfold(3, self.window, 1)

    def mirrored(self, images: Tensor) -> Tensor:
        """Images (B, 3, H + P - 1, W + P - 1), reflected at their borders."""
        for dimension in (2, 3):
            images = mirror(images, dimension, self.window // 2, self.window // 2)
        return images


class PatchCNN(DenseMethod):
    """The sliding-window classifier, in its published form or fully convolutional.

    Args:
        num_classes: K, background included.
        criterion: the loss.
        channels: of each convolution that a pooling follows; the paper's four times 48.
        kernels: their sides; the paper's 4, 5, 4, 4.
        top_kernel: side of the map that the first fully connected layer sees; the paper's 3.
        hidden_channels: of that layer; the paper's 200.
        pixels: drawn from each image of a batch, with replacement.
        balanced: whether the classes of an image are drawn equally often; if not, its labelled pixels are.
        form: of prediction, `convolutional` or `sliding`; scores are equal.
        mean: input mean per channel, in 0..1.
        std: input standard deviation per channel, in 0..1.
        common: the arguments of `Method`.

    Raises:
        ConfigError: kernels that do not fit the channels or give the window no centre, or a loss of whole images.
    """

    network: PatchNetwork

    def __init__(
        self,
        num_classes: int,
        criterion: nn.Module,
        channels: Positives,
        kernels: Positives,
        top_kernel: Positive,
        hidden_channels: Positive,
        pixels: Positive,
        balanced: bool,
        form: Literal["convolutional", "sliding"],
        mean: RGB,
        std: RGB,
        **common: Any,
    ) -> None:
        if any(isinstance(part, GatedCRF) for part in criterion.modules()):
            raise ConfigError("loss: the Gated CRF loss compares neighbours, method=patch_cnn draws single pixels")
        network = PatchNetwork(num_classes, channels, kernels, top_kernel, hidden_channels)
        super().__init__(None, network, criterion, mean=mean, std=std, **common)
        self.pixels = pixels
        self.balanced = balanced
        self.form = form

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K, H, W) for normalised images."""
        return self.network.slide(images) if self.form == "sliding" else self.network(images)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The criterion on some pixels of each image."""
        masks = batch["mask"].flatten(1).long()  # (B, H W)
        places = drawn_pixels(masks, self.pixels, self.balanced)
        logits = self.network.at(batch["image"], places).float()  # (B, K, N)
        return {"loss": self.criterion(logits[..., None], masks.gather(1, places)[..., None])}


def drawn_pixels(masks: Tensor, count: int, balanced: bool) -> Tensor:
    """Places (B, `count`) of labelled pixels, drawn with replacement from masks int64 (B, H W), 255 ignored.

    With `balanced` each class that an image shows is as likely as any other. An image without labels gives any pixels.
    """
    labelled = (masks != IGNORE).float()
    if balanced:
        sizes = labelled.new_zeros(len(masks), IGNORE + 1).scatter_add_(1, masks, torch.ones_like(labelled))
        labelled = labelled / sizes.gather(1, masks)
    nothing = labelled.sum(1, keepdim=True) == 0
    return torch.multinomial(labelled + nothing.float(), count, replacement=True)
