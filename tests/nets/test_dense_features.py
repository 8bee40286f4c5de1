"""The visual network of zero-shot methods: which levels it reads and what it makes of them."""

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from segladder.errors import ConfigError
from segladder.nets.backbone import FeatureExtractor
from segladder.nets.dense_features import AtrousSum, DenseFeatures
from segladder.nets.tiny import TinyBackbone


class Pyramid(FeatureExtractor):
    """Fixed maps of given strides."""

    def __init__(self, strides):
        super().__init__()
        self.strides, self.channels = strides, [level + 2 for level in range(len(strides))]

    def forward(self, images):
        generator = torch.Generator().manual_seed(0)
        height, width = images.shape[-2:]
        sizes = zip(self.channels, self.strides, strict=True)
        return [torch.randn(len(images), c, -(-height // s), -(-width // s), generator=generator) for c, s in sizes]


def test_levels_are_projected_enlarged_and_summed():
    """Against features that are first enlarged, then concatenated and projected by one matrix."""
    network = DenseFeatures(Pyramid([2, 4, 8, 16]), 6, 4, None).eval()
    images = torch.zeros(2, 3, 65, 97)
    _, *maps = network.backbone(images)
    large = [interpolate(m, (17, 25), mode="bilinear", align_corners=False) for m in maps]
    weights = torch.cat([lateral.weight[:, :, 0, 0] for lateral in network.laterals], 1)  # (D, C4 + C8 + C16)
    expected = torch.einsum("dc,bchw->bdhw", weights, torch.cat(large, 1)).relu() / (1 + network.norm.eps) ** 0.5
    torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("strides", "bounds", "levels"),
    [
        ([2, 4, 8, 16], (4, 8), [1, 2]),
        ([2, 4, 8, 16, 32], (8, None), [2, 3, 4]),
        ([2, 4, 8, 8, 8], (8, 8), [4]),  # a dilated backbone: its last level alone
        ([2, 4, 8, 8, 8], (4, None), [1, 4]),
        ([16, 16, 16, 16], (4, None), [0, 1, 2, 3]),  # a vision transformer
    ],
)
def test_levels_lie_between_the_strides(strides, bounds, levels):
    assert DenseFeatures(Pyramid(strides), 4, *bounds).levels == levels


def test_strides_without_a_level_are_refused():
    with pytest.raises(ConfigError, match=r"finest_stride=4 and coarsest_stride=8; the backbone's strides are 16, 16"):
        DenseFeatures(Pyramid([16, 16]), 4, 4, 8)


def test_atrous_convolutions_reach_as_far_as_their_rates():
    pyramid = AtrousSum(1, 1, [1, 3])
    nn.init.ones_(pyramid.convolutions[0].weight), nn.init.ones_(pyramid.convolutions[1].weight)
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[0, 0, 4, 4] = 1
    expected = torch.zeros(9, 9)
    for rate in (1, 3):
        expected[4 - rate : 5 + rate : rate, 4 - rate : 5 + rate : rate] += 1
    assert torch.equal(pyramid(impulse)[0, 0], expected)


@pytest.mark.parametrize("rates", [(), (1, 2)])
def test_what_only_unused_levels_need_does_not_learn(rates):
    network = DenseFeatures(TinyBackbone(width=4), 8, 4, 8, rates)
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in network.named_parameters() if name.startswith("backbone.stages.3.")}
    network(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad.any() for p in network.parameters() if p.requires_grad)
    assert all(p.requires_grad for p in DenseFeatures(TinyBackbone(width=4), 8, 4, None).parameters())


def test_a_frozen_backbone_stays_frozen():
    backbone = TinyBackbone(width=4).requires_grad_(False)
    network = DenseFeatures(backbone, 8, 4, 8)
    assert {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad} == {"laterals", "norm"}
