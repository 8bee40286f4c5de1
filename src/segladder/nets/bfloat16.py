"""bfloat16 on a CPU: who has it, and which convolutions are better off without."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.overrides import TorchFunctionMode


class CpuBfloat16(MixedPrecision):
    """Lightning's `bf16-mixed` for a CPU, with the gradients that bfloat16 makes slow taken in float32."""

    def __init__(self) -> None:
        super().__init__("bf16-mixed", "cpu")

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Autocast, but for those convolutions."""
        with super().forward_context(), DepthwiseInFloat32():
            yield


class DepthwiseInFloat32(TorchFunctionMode):
    """Within the block depthwise convolutions of a stride or of large kernels leave autocast while they learn.

    oneDNN takes their gradients in bfloat16 without vector instructions: 5 to 20 times as long as in float32, and more
    than the rest of the network together (`benchmarks/depthwise.py`). 3x3 kernels of stride 1 are as fast.
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call `function`, in float32 where its gradient would be slow."""
        if function is torch.conv2d and torch.is_grad_enabled() and slow_to_learn(*args, **(kwargs or {})):
            with torch.autocast("cpu", enabled=False):
                return function(args[0].float(), *args[1:], **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def slow_to_learn(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether a convolution, given as to `torch.conv2d`, is depthwise with a stride or a kernel above 3x3."""
    strides = (stride,) if isinstance(stride, int) else stride
    return groups > 1 and weight.shape[1] == 1 and (max(strides) > 1 or max(weight.shape[2:]) > 3)


def has_bfloat16(accelerator: str) -> bool:
    """Whether this processor (`cpu`) or CUDA device (`gpu`) multiplies bfloat16 by instructions of its own."""
    if accelerator == "gpu":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported()
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # ARM
