"""Merging frozen BatchNorm into the convolution before it: the same function with fewer passes over memory."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from segladder.errors import ConfigError


def fold_batch_norm(model: nn.Module, name: str) -> None:
    """Merge every BatchNorm of `model` into the convolution registered right before it, in place.

    What the BatchNorm layer did besides normalising (timm's hold their activation) stays in its place. The result is
    compared with the original on a small random image.

    Args:
        model: images (B, 3, H, W) to feature maps, with loaded running statistics.
        name: the model's name, for the error.

    Raises:
        ConfigError: a BatchNorm follows no convolution, or the merged model computes something else.
    """
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    training = model.training
    model.eval()
    with torch.no_grad():
        before = model(image)
        _fold_children(model)
        after = model(image)
    model.train(training)
    left = [key for key, module in model.named_modules() if isinstance(module, _BatchNorm)]
    differs = any(not torch.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(before, after, strict=True))
    if left or differs:
        raise ConfigError(
            f"backbone.batch_norm=folded: {name} has BatchNorm that no convolution right before it can take"
            f"{f' ({left[0]})' if left else ''}; use batch_norm=frozen"
        )


def _fold_children(module: nn.Module) -> None:
    before: nn.Module | None = None  # the module called right before, if modules run in the order of their names
    for name, child in list(module.named_children()):
        if isinstance(child, _BatchNorm) and isinstance(before, nn.Conv2d):
            folded = fuse_conv_bn_eval(before, child)
            assert folded.bias is not None
            before.weight.data, before.bias = folded.weight.data, nn.Parameter(folded.bias.data)
            setattr(module, name, _rest(child))
        else:
            _fold_children(child)
        before = child[-1] if isinstance(child, nn.Sequential) and len(child) else child


def _rest(batch_norm: nn.Module) -> nn.Module:
    """What a BatchNorm layer does besides normalising: nothing, or timm's drop and activation."""
    rest = [child for child in batch_norm.children() if not isinstance(child, nn.Identity)]
    return nn.Sequential(*rest) if rest else nn.Identity()
