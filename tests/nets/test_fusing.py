"""On a CPU a network that only answers is fused, and answers the same."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from segladder.nets import fusing
from segladder.nets.backbone import Backbone
from segladder.nets.fusing import FusedConvolution, fused


def settled(module: nn.Module) -> nn.Module:
    """With statistics as after training, in evaluation mode."""
    torch.manual_seed(0)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d | BatchNormAct2d):
            nn.init.uniform_(each.running_mean, -0.2, 0.2)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.bias, -0.2, 0.2)
    return module.eval()


def images(height: int = 171, width: int = 190) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def backbone(name: str) -> nn.Module:
    return settled(Backbone(name, "none", output_stride=16))


@pytest.mark.parametrize(
    "name",
    [
        *("resnet18", "mobilenetv2_100", "efficientnet_lite0"),
        *(pytest.param(large, marks=pytest.mark.long) for large in ("vgg16_bn", "resnet50")),
    ],
)
def test_a_fused_backbone_gives_the_same_maps(name):
    network = backbone(name)
    plain = network(images())  # autograd is on: as it is trained
    with torch.no_grad():
        quick = network(images())
        assert [m for m in network.for_inference.network.modules() if isinstance(m, FusedConvolution)]
        assert not [m for m in network.for_inference.network.modules() if isinstance(m, nn.BatchNorm2d)]
        with torch.autocast("cpu", torch.bfloat16):
            quick_half = network(images())
    with torch.autocast("cpu", torch.bfloat16):
        half = network(images())
    for exact, fused32, fused16, plain16 in zip(plain, quick, quick_half, half, strict=True):
        assert (exact - fused32).abs().max().item() < 7e-5 * exact.abs().max().item()
        assert (exact.argmax(1) == fused32.argmax(1)).float().mean() > 0.9999
        assert fused16.dtype == torch.bfloat16
        assert (exact - fused16.float()).abs().mean() < 1.5 * (exact - plain16.float()).abs().mean()


def last_scaled(network: nn.Module, by: float) -> nn.Module:
    """Values of the last stage times `by`, the others as they are."""
    with torch.no_grad():
        for name, each in network.named_modules():
            if "layer4" in name and isinstance(each, nn.BatchNorm2d | BatchNormAct2d):
                each.weight.mul_(by)
                each.bias.mul_(by)
    return network


def test_a_network_of_large_values_is_fused_too():
    network = last_scaled(backbone("resnet18"), 1e4)
    with torch.no_grad():
        assert network(images())[-1].abs().max() > 1e4
    assert [m for m in network.for_inference.network.modules() if isinstance(m, FusedConvolution)]


@pytest.mark.parametrize(("off", "is_used"), [(1e-6, True), (3e-4, False)])
def test_a_fused_network_that_is_off_is_not_used(monkeypatch, off, is_used):
    def wrongly(quick: nn.Module, *rest: object) -> None:
        right(quick, *rest)
        quick.register_forward_hook(lambda module, given, found: [m + off * m.abs().max() for m in found])

    right = fusing._fuse
    monkeypatch.setattr(fusing, "_fuse", wrongly)
    network = backbone("resnet18")
    with torch.no_grad():
        network(images())
    assert is_used == any(isinstance(m, FusedConvolution) for m in network.for_inference.network.modules())


def test_a_network_that_takes_images_of_one_size_alone_stays_as_it_is():
    network = Backbone("vit_tiny_patch16_224", "none", options={"depth": 4, "embed_dim": 24, "num_heads": 2}).eval()
    with torch.no_grad():
        assert network(images(224, 224))[-1].shape[-2:] == (14, 14)
    assert not [m for m in network.for_inference.network.modules() if isinstance(m, FusedConvolution)]


def test_a_network_that_reads_what_its_convolutions_hold_stays_as_it_is():
    network = Backbone(
        "davit_tiny", "none", options={"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 8, 8), "num_heads": (1, 1, 1, 1)}
    ).eval()
    with torch.no_grad():
        assert network(images(192, 192))[-1].shape == (2, 8, 6, 6)
    assert not [m for m in network.for_inference.network.modules() if isinstance(m, FusedConvolution)]


def test_a_network_that_keeps_what_it_computed_stays_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network.kept = network[0].weight * 2  # no leaf, which nobody can copy
    assert fused(network.eval(), torch.float32) is network


def test_weights_that_change_are_fused_anew_and_training_never_is():
    network = backbone("resnet18")
    answers = network.for_inference
    with torch.no_grad():
        before = network(images())
        kept = answers.network
        network(images(200, 160))
        assert answers.network is kept
        assert answers.of(network.model, images(64, 64)) is network.model  # nothing to win
        network.model.conv1.weight.mul_(2)
        assert not torch.equal(network(images())[-1], before[-1]) and answers.network is not kept
        state = {key: value + 1 for key, value in network.state_dict().items()}
        after = network(images())
        network.load_state_dict(state, assign=True)
        assert not torch.equal(network(images())[-1], after[-1])
        network.train()(images())
        assert isinstance(answers.network, nn.Identity) and not answers.tensors  # memory is given back
    assert answers.of(network.model.eval(), images()) is network.model  # gradients are wanted


def test_a_copy_and_saved_weights_hold_nothing_of_it():
    network = backbone("resnet18")
    keys = set(network.state_dict())
    with torch.no_grad():
        network(images())
    assert set(network.state_dict()) == keys
    assert network.for_inference.made_of and not copy.deepcopy(network).for_inference.made_of


def test_tracers_see_the_network_as_it_is():
    network = backbone("resnet18")
    with torch.no_grad():
        program = torch.export.export(network, (images(),), strict=False)
        assert not [node for node in program.graph.nodes if "mkldnn" in str(node.target)]
        torch.testing.assert_close(program.module()(images()), network(images()), atol=1e-4, rtol=1e-4)


class Added(nn.Module):
    """An activation that follows a sum in place, an activation that is called twice, and one of its own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU()
        self.second, self.twice = nn.Conv2d(3, 3, 1), nn.ReLU6()
        self.third, self.own = nn.Conv2d(3, 3, 1), nn.Tanh()

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = self.norm(self.first(images))
        features += images
        features = self.act(features)
        features = self.twice(self.twice(self.second(features)) * 3)
        return [features, self.own(self.third(features))]


def test_only_what_follows_a_convolution_is_fused_with_it():
    network = settled(Added())
    with torch.no_grad():
        quick = fused(network, torch.float32)
        assert quick is not network and type(quick.act) is nn.ReLU and type(quick.twice) is nn.ReLU6
        for a, b in zip(quick(images()), network(images()), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_network_that_answers_otherwise_when_fused_stays_as_it_is():
    class Counting(Added):
        calls = 0

        def forward(self, images):
            self.calls += 1
            return [each * self.calls for each in super().forward(images)]

    network = settled(Counting())
    with torch.no_grad():
        assert fused(network, torch.float32) is network
        assert fused(network, torch.float64) is network
