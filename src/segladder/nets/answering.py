"""How a network lies in memory while it answers.

cuDNN builds a plan for each layer and each input size. Training has one size, a data set's images have dozens. For
convolutions in channels_last a plan takes up to 26 times as long to build as in the plain format (docs/guides/gpu.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

Strides = tuple[int, ...]


def wants_plain(device: torch.device) -> bool:
    """Whether networks on a device answer in the plain format (NCHW), whatever they are trained in."""
    return device.type == "cuda"


def lay_out(module: nn.Module) -> list[tuple[Tensor, Strides]]:
    """Bring the weights of a network into the format that it answers in; the tensors stay the same objects.

    Returns:
        What was changed, with the strides that it had: for `restore`.
    """
    changed = []
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4 and wants_plain(tensor.device) and tensor.stride() != (plain := plain_strides(tensor)):
            changed.append((tensor, tensor.stride()))
            _move(tensor, plain)
    return changed


def restore(changed: Iterable[tuple[Tensor, Strides]]) -> None:
    """Undo `lay_out`."""
    for tensor, strides in changed:
        _move(tensor, strides)


def plain_strides(tensor: Tensor) -> Strides:
    """Those of the plain format. A 1x1 kernel is contiguous in both; cuDNN goes by its strides all the same."""
    _, channels, height, width = tensor.shape
    return channels * height * width, height * width, width, 1


def _move(tensor: Tensor, strides: Strides) -> None:
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        moved = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
        tensor.data = moved.copy_(tensor)
