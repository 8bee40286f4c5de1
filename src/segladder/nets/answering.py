"""How a network computes while it answers, and how it lies in memory.

cuDNN builds a plan for each layer and each input size. Training has one size, a data set's images have dozens. For
convolutions in channels_last a plan takes up to 26 times as long to build as in the plain format (docs/guides/gpu.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Strides = tuple[int, ...]
Precision = Literal["32-true", "bf16-mixed"]  # of answers, in Lightning's words


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
    """Strides of the plain format. A 1x1 kernel is contiguous in both formats, but cuDNN goes by its strides."""
    _, channels, height, width = tensor.shape
    return channels * height * width, height * width, width, 1


def _move(tensor: Tensor, strides: Strides) -> None:
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        moved = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
        tensor.data = moved.copy_(tensor)


@contextmanager
def computing(device: torch.device, tf32: bool | None, precision: Precision, compiled: bool) -> Iterator[None]:
    """How answers are computed within the block.

    Args:
        device: that the network is on.
        tf32: as of `float32_products`.
        precision: `bf16-mixed` is bfloat16 where autocast allows it; else what the caller has, which is float32.
        compiled: whether the network is; it answers without, or each image size would be compiled.
    """
    with ExitStack() as held:
        held.enter_context(float32_products(tf32))
        if precision == "bf16-mixed":
            held.enter_context(torch.autocast(device.type, torch.bfloat16))
        if compiled:
            held.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def in_float32(device: torch.device) -> Iterator[None]:
    """Float32 and nothing less within the block: for distances, walks, enlarged scores, what is kept."""
    with torch.autocast(device.type, enabled=False), float32_products(False):
        yield


@contextmanager
def float32_products(tf32: bool | None) -> Iterator[None]:
    """Within the block CUDA multiplies float32 as TF32 (a mantissa of 10 bits instead of 23), or not; None: as before.

    Matrix products and convolutions alike, which torch by itself treats differently: it starts with TF32 for the latter
    alone.
    """
    if tf32 is None:
        yield
        return
    before = _allowed()
    _allow(tf32, tf32)
    try:
        yield
    finally:
        _allow(*before)


def _allowed() -> tuple[bool, bool]:
    """Whether matrix products and convolutions take TF32; torch >= 2.9 can be set so that `allow_tf32` fails."""
    backends: Any = torch.backends
    matmul, cudnn = backends.cuda.matmul, backends.cudnn
    if hasattr(matmul, "fp32_precision"):
        return matmul.fp32_precision == "tf32", cudnn.conv.fp32_precision == "tf32"
    return matmul.allow_tf32, cudnn.allow_tf32


def _allow(products: bool, convolutions: bool) -> None:
    """Set what torch >= 2.6 has, and Lightning reads: the newer names follow it, the other way round they may not."""
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
