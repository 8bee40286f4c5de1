"""A network as it answers on a CPU: each convolution with its BatchNorm and activation as one operation.

`torch.jit.optimize_for_inference` does the same and is deprecated. These are the operations that `torch.compile` comes
down to on a CPU, called without a compiler: there is no trace, so images of every size go through the same network.
Each call orders the weights anew for its kernel. Small images do not win that time back, so they are not fused.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
    nn.SiLU: ("swish", []),
}
NOTHING: tuple[str, list[float]] = ("none", [])
SMALLEST = 160 * 160  # pixels of an image; which of two networks answers follows from the image alone
TOLERANCE = 1e-4  # of the fused network on a random image in float32, as a share of the largest value of a map


@dataclass
class ForInference:
    """The fused copy of a network, made when it is first asked for and anew when weights have changed."""

    made_of: tuple[object, ...] = ()
    network: nn.Module = field(default_factory=nn.Identity)
    tensors: tuple[Tensor, ...] = ()  # weights it was made of, held so that no others come to lie in their place

    def of(self, network: nn.Module, images: Tensor) -> nn.Module:
        """The fused copy where nothing learns and a CPU computes; otherwise the network itself."""
        if torch.compiler.is_compiling():  # for ONNX too
            return network
        if network.training:
            self.made_of, self.network, self.tensors = (), nn.Identity(), ()
        if network.training or torch.is_grad_enabled() or images.device.type != "cpu":
            return network
        if images.shape[-2] * images.shape[-1] < SMALLEST:
            return network
        tensors = (*network.parameters(), *network.buffers())
        if any(tensor.is_inference() for tensor in tensors):  # they count no changes
            return network
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
        made_of = (dtype, *((tensor.data_ptr(), tensor._version) for tensor in tensors))
        if made_of != self.made_of:
            self.made_of, self.network = made_of, fused(network, dtype)
            self.tensors = tuple(tensor.detach() for tensor in tensors)
        return self.network

    def __reduce__(self) -> tuple[type[ForInference], tuple[()]]:
        return ForInference, ()  # copies make their own


class FusedConvolution(nn.Module):
    """A convolution and what follows it.

    Args:
        convolution: with the BatchNorm behind it merged in.
        activation: name and bounds, in oneDNN's words.
        dtype: of the weights, and what inputs are turned into.
    """

    def __init__(self, convolution: nn.Conv2d, activation: tuple[str, list[float]], dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = convolution.weight.detach().to(dtype, memory_format=torch.channels_last)
        self.bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)
        geometry = (convolution.padding, convolution.stride, convolution.dilation)
        self.geometry = (*(list(each) for each in geometry), convolution.groups)
        self.activation = (*activation, "")

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) to the activated map (B, D, h, w)."""
        features = features.to(self.weight.dtype)
        fused_operation: Callable[..., Tensor] = torch.ops.mkldnn._convolution_pointwise
        return fused_operation(features, self.weight, self.bias, *self.geometry, *self.activation)


def fused(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of a network in evaluation mode for inference on a CPU, or the network itself where that cannot be.

    What follows what is seen on a small random image; on another the copy must answer as the network does.
    """
    if dtype not in (torch.float32, torch.bfloat16) or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return network
    with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
        images = torch.randn(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
        try:
            quick = copy.deepcopy(network)
            _fuse(quick, _followed(quick, images[0]), torch.float32)
            same = all(
                torch.allclose(a, b, rtol=0.0, atol=TOLERANCE * float(torch.abs(b).max()))
                for a, b in zip(quick(images[1]), network(images[1]), strict=True)
            )
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError):
            return network  # images of one size, layers that are read rather than called, or no such operation
        if not same:
            return network
        for module in quick.modules():
            if isinstance(module, FusedConvolution) and dtype != torch.float32:
                module.weight = module.weight.to(dtype)
                module.bias = None if module.bias is None else module.bias.to(dtype)
        return quick


def _followed(network: nn.Module, image: Tensor) -> dict[str, str]:
    """Each convolution or BatchNorm whose result goes unchanged into a BatchNorm or activation, and that module."""
    names = {module: name for name, module in network.named_modules() if _is_unit(module)}
    made: dict[int, tuple[nn.Module, int, Tensor]] = {}  # results are kept, so that no two have one id
    calls: Counter[nn.Module] = Counter()
    followed: dict[str, str] = {}

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        found = made.get(id(inputs[0]))
        if found is not None and found[1] == inputs[0]._version:  # nothing was added to it in place
            followed[names[found[0]]] = names[module]

    def after(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        made[id(output)] = (module, output._version, output)

    hooks = [module.register_forward_pre_hook(before) for module in names]
    hooks += [module.register_forward_hook(after) for module in names]
    network(image)
    for hook in hooks:
        hook.remove()
    once = {names[module] for module, count in calls.items() if count == 1}
    return {first: second for first, second in followed.items() if {first, second} <= once}


def _is_unit(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv2d, _BatchNorm)) or type(module) in ACTIVATIONS


def _fuse(network: nn.Module, followed: dict[str, str], dtype: torch.dtype) -> None:
    modules = dict(network.named_modules())
    for name, convolution in modules.items():
        if type(convolution) is not nn.Conv2d or isinstance(convolution.padding, str):
            continue
        if convolution.padding_mode != "zeros":
            continue
        last, activation = name, NOTHING
        batch_norm = modules.get(followed.get(name, ""))
        if isinstance(batch_norm, _BatchNorm):
            convolution, last = fuse_conv_bn_eval(convolution, batch_norm), followed[name]
            rest = [child for child in batch_norm.children() if not isinstance(child, nn.Identity)]  # timm's activation
            if len(rest) == 1 and type(rest[0]) in ACTIVATIONS:
                activation, rest = ACTIVATIONS[type(rest[0])], []
            network.set_submodule(last, nn.Sequential(*rest))
            last = "" if rest or activation is not NOTHING else last
        following = followed.get(last, "")
        if type(modules.get(following)) in ACTIVATIONS:
            activation = ACTIVATIONS[type(modules[following])]
            network.set_submodule(following, nn.Identity())
        network.set_submodule(name, FusedConvolution(convolution, activation, dtype))
