"""What is particular to each fully supervised method: values, not shapes."""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from segladder.errors import ConfigError
from segladder.methods.full.deeplabv3plus import DeepLabV3PlusNetwork
from segladder.methods.full.fcn import FCNNetwork
from segladder.methods.full.segnet import BackboneSegNetNetwork, SegNet, SegNetNetwork
from segladder.methods.full.unet import UNetNetwork
from segladder.methods.full.unet_original import UNetOriginalNetwork, mirror
from segladder.nets.backbone import Backbone, FeatureExtractor
from segladder.nets.losses import CrossEntropy
from segladder.nets.tiny import TinyBackbone
from segladder.ops.upsampling import bilinear

COMMON = {
    "supervision": "full",
    "trains": True,
    "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.9},
    "schedule": {"name": "constant"},
}


def fcn(skips: int, upsampling: str = "transposed") -> FCNNetwork:
    network = FCNNetwork(TinyBackbone(4), 3, skips, upsampling, True, fully_connected=0, dropout=0.0).eval()
    nn.init.normal_(network.scores[0].weight)
    return network


class Maps(FeatureExtractor):
    """A backbone whose only map is the image itself."""

    channels, strides, mean, std = [4], [32], (0, 0, 0), (1, 1, 1)

    def forward(self, images):
        return [images]


def test_fcn_starts_with_score_zero_everywhere():
    network = FCNNetwork(TinyBackbone(4), 3, 2, "transposed", True, fully_connected=0, dropout=0.0)
    assert not network(torch.randn(1, 3, 65, 97)).any()


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("skips", [0, 1, 2])
def test_fcn_before_its_skips_learn_is_the_coarsest_score_enlarged_step_by_step(skips, upsampling):
    network, images = fcn(skips, upsampling), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = network.backbone(images)
        expected = network.scores[0](features[-1])
        for skip in features[-2 : -2 - skips : -1]:
            expected = bilinear(expected, skip.shape[-2:])
        torch.testing.assert_close(network(images), bilinear(expected, (64, 96)), atol=1e-5, rtol=1e-4)


def test_fcn_adds_the_scores_of_finer_levels():
    network, images = fcn(2), torch.randn(1, 3, 65, 97)
    for score, bias in zip(network.scores, (1.0, 10.0, 100.0), strict=True):
        nn.init.zeros_(score.weight)
        nn.init.constant_(score.bias, bias)
    torch.testing.assert_close(network(images), torch.full((1, 3, 65, 97), 111.0))


def test_fcn_skips_the_levels_a_dilated_backbone_repeats():
    backbone = Backbone("resnet18", "none", output_stride=16)
    assert FCNNetwork(backbone, 3, 2, "transposed", True, 0, 0.0).levels == [4, 2, 1]  # strides 16, 8, 4


def test_fcn_refuses_more_skips_than_levels():
    with pytest.raises(ConfigError, match=r"method\.skips=4: the backbone has 4 levels, so at most 3"):
        FCNNetwork(TinyBackbone(4), 3, 4, "transposed", True, 0, 0.0)


def test_fcn_turns_fully_connected_layers_into_convolutions():
    backbone = Maps()
    fc6, fc7 = nn.Linear(4 * 7 * 7, 6), nn.Linear(6, 6)
    backbone.leftover = {
        "pre_logits.fc1.weight": fc6.weight.detach().view(6, 4, 7, 7),
        "pre_logits.fc1.bias": fc6.bias.detach(),
        "pre_logits.fc2.weight": fc7.weight.detach().view(6, 6, 1, 1),
        "pre_logits.fc2.bias": fc7.bias.detach(),
    }
    head = FCNNetwork(backbone, 3, 0, "transposed", True, fully_connected=6, dropout=0.5).eval().head
    maps = torch.randn(1, 4, 9, 11)
    window = maps[..., 1:8, 2:9].flatten(1)  # what the 7x7 kernel at row 4, column 5 sees
    torch.testing.assert_close(head(maps)[..., 4, 5], fc7(fc6(window).relu()).relu())
    assert head(maps).shape == (1, 6, 9, 11) and not backbone.leftover


def test_fcn_names_fully_connected_weights_of_another_width():
    backbone = Maps()
    backbone.leftover = {"pre_logits.fc1.weight": torch.zeros(4096, 4, 7, 7), "pre_logits.fc1.bias": torch.zeros(4096)}
    with pytest.raises(
        ConfigError, match=r"method\.fully_connected=6: the loaded pre_logits\.fc1 is \(4096, 4, 7, 7\)"
    ):
        FCNNetwork(backbone, 3, 0, "transposed", True, fully_connected=6, dropout=0.5)


@pytest.mark.parametrize("upsampling", ["nearest", "bed_of_nails", "transposed", "bilinear"])
def test_unet_scores_a_border_pixel_from_the_image_around_it(upsampling):
    network = UNetNetwork(TinyBackbone(4), 3, [8, 8, 8, 8], upsampling).eval()
    images = torch.randn(1, 3, 65, 97, requires_grad=True)
    network(images)[0, :, 64, 96].sum().backward()
    influence = images.grad.abs().sum((0, 1))  # (65, 97) of each input pixel on the score of the last one
    assert influence[-24:, -24:].sum() > 0.9 * influence.sum()


def test_unet_needs_a_width_for_each_level():
    with pytest.raises(ConfigError, match=r"method\.decoder_channels: 2 values, the backbone has 4 levels"):
        UNetNetwork(TinyBackbone(4), 3, [8, 8], "nearest")


def original(**changes) -> UNetOriginalNetwork:
    arguments = dict(num_classes=2, width=2, depth=4, padded=False, batch_norm=False, dropout=0.5)
    return UNetOriginalNetwork(**{**arguments, "upsampling": "transposed", **changes}).eval()


def test_unet_original_has_the_sizes_of_the_paper():
    network = original()
    assert network.input_geometry(388) == (92, 572)
    with torch.no_grad():
        assert network.scores(torch.zeros(1, 3, 572, 572)).shape == (1, 2, 388, 388)


def test_unet_original_has_the_parameters_of_the_paper():
    gray, rgb = 31_030_658, 2 * 9 * 64  # the paper's network reads one channel, ours two more
    assert sum(p.numel() for p in original(width=64).parameters()) == gray + rgb


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 2000), st.integers(1, 4), st.booleans())
def test_unet_original_takes_the_smallest_input_that_covers_the_image(size, depth, padded):
    network = original(width=1, depth=depth, padded=padded)
    before, total = network.input_geometry(size)
    margin = 0 if padded else 12 * 2**depth - 8
    assert before == margin // 2
    assert 0 <= total - margin - size < 2**depth
    for _ in range(depth):
        total -= 0 if padded else 4
        assert total % 2 == 0
        total //= 2


def test_unet_original_crops_skips_around_their_centre():
    network = original(width=3, depth=1, num_classes=3)
    identity = torch.zeros(3, 3, 3, 3)
    identity[:, :, 1, 1] = torch.eye(3)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    for layer in (network.contracting[0][0], network.contracting[0][2], network.expansive[0][2]):
        layer.weight.data.copy_(identity)
    network.expansive[0][0].weight.data[:, :3] = identity  # the skip; the rest comes from below
    network.score.weight.data[..., 0, 0] = torch.eye(3)
    images = torch.rand(1, 3, 36, 52)
    torch.testing.assert_close(network.scores(images), images[..., 8:-8, 8:-8])
    images = torch.rand(1, 3, 13, 9)
    torch.testing.assert_close(network(images), images)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
def test_mirror_reflects_as_often_as_needed(size, before, after):
    row = torch.arange(float(size))[None, None, None]
    expected = np.pad(np.arange(float(size)), (before, after), mode="reflect" if size > 1 else "edge")
    np.testing.assert_array_equal(mirror(row, 3, before, after)[0, 0, 0], expected)


def test_segnet_decodes_values_at_the_places_of_their_maxima():
    network = SegNetNetwork(3, [4, 6], [1, 2], "max_unpooling").eval()
    seen = {}
    network.encoder[0].register_forward_hook(lambda module, inputs, output: seen.update(encoded=output))
    network.decoder[0].register_forward_hook(lambda module, inputs, output: seen.update(unpooled=inputs[0]))
    with torch.no_grad():
        assert network(torch.randn(1, 3, 21, 13)).shape == (1, 3, 21, 13)
    _, places = nn.functional.max_pool2d(seen["encoded"], 2, ceil_mode=True, return_indices=True)
    elsewhere = torch.ones_like(seen["encoded"]).flatten(2).scatter(2, places.flatten(2), 0)
    assert seen["unpooled"].any() and not (seen["unpooled"].flatten(2) * elsewhere).any()


class Halves(FeatureExtractor):
    """Levels of one, two and two pixels a step, of which the second lacks what is odd."""

    channels, strides, mean, std = [3, 4, 5], [1, 2, 2], (0, 0, 0), (1, 1, 1)

    def forward(self, images):
        halves = nn.functional.avg_pool2d(images, 2)
        return [images, halves[:, [0, 1, 2, 0]], halves[:, [0, 1, 2, 0, 1]]]


def test_segnet_on_a_backbone_puts_values_where_each_level_has_its_maxima():
    network, images = BackboneSegNetNetwork(Halves(), 2, 5, 1, "max_unpooling").eval(), torch.randn(1, 3, 7, 12)
    seen = {}
    network.decoder[0].register_forward_hook(lambda module, inputs, output: seen.update(unpooled=inputs[0]))
    with torch.no_grad():
        assert network(images).shape == (1, 2, 7, 12)
    windows = images[:, [0, 1, 2, 0, 1], :6].unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)  # (1, 5, 3, 6, 4)
    unpooled = seen["unpooled"][..., :6, :].unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    filled = unpooled != 0
    assert filled.any() and not seen["unpooled"][..., 6, :].any()
    assert torch.equal(windows.argmax(-1)[filled.any(-1)], unpooled.abs().argmax(-1)[filled.any(-1)])
    assert filled.sum(-1).max() == 1


def test_segnet_needs_levels_to_mirror():
    with pytest.raises(ConfigError, match="mirrors a backbone of several levels, this one has one"):
        BackboneSegNetNetwork(Maps(), 2, 1, 1, "max_unpooling")


def segnet(**changes) -> SegNet:
    arguments = dict(channels=[64, 128, 256, 512, 512], convolutions=[2, 2, 3, 3, 3], upsampling="max_unpooling")
    arguments |= dict(weights="none", mean=(0.5,) * 3, std=(0.5,) * 3, name="segnet", criterion=CrossEntropy())
    return SegNet(num_classes=3, **{**arguments, **changes}, **COMMON)


def test_segnet_starts_from_vgg16(tmp_path):
    vgg = timm.create_model("vgg16_bn", mlp_ratio=0.001).eval()
    for module in vgg.features:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    save_file(vgg.state_dict(), tmp_path / "vgg16_bn.safetensors")
    encoder = segnet(weights=str(tmp_path / "vgg16_bn.safetensors")).network.encoder.eval()
    features = images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        for stage in encoder:
            features = nn.functional.max_pool2d(stage(features), 2)
        torch.testing.assert_close(features, vgg.features(images))


def test_segnet_names_weights_of_another_form(tmp_path):
    save_file({"features.0.weight": torch.zeros(2, 3, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"method\.weights=.*other\.safetensors: not of this encoder's form"):
        segnet(weights=str(tmp_path / "other.safetensors"))


def test_segnet_wants_a_number_of_convolutions_for_each_stage():
    with pytest.raises(ConfigError, match=r"method\.convolutions: 5 values, method\.channels has 2: give one each"):
        segnet(channels=[8, 8])


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
def test_deeplab_doubles_its_rates_at_output_stride_8(output_stride, rates):
    backbone = Backbone("resnet18", "none", output_stride=output_stride)
    network = DeepLabV3PlusNetwork(backbone, 3, output_stride, 8, [6, 12, 18], False, 0.1, "bilinear")
    dilations = [m.dilation[0] for m in network.aspp.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert dilations == [*rates, 1]
    assert backbone.strides[network.low] == 4


def test_deeplab_refuses_a_backbone_of_another_stride():
    with pytest.raises(
        ConfigError, match=r"method\.output_stride=16: expected 16 or 8, and the backbone's, which is 32"
    ):
        DeepLabV3PlusNetwork(Backbone("resnet18", "none"), 3, 16, 8, [6, 12, 18], True, 0.1, "bilinear")


def test_deeplab_learns_from_a_batch_of_one_and_normalises_larger_ones_as_before():
    network = DeepLabV3PlusNetwork(
        Backbone("resnet18", "none", output_stride=16), 3, 16, 8, [6, 12, 18], True, 0.0, "bilinear"
    )
    norm = network.aspp[0].convs[-1][2]
    network.train()(torch.randn(1, 3, 64, 64)).sum().backward()
    assert norm.weight.grad.any() and norm.num_batches_tracked == 0
    averages = torch.randn(1, 8, 1, 1)
    assert torch.equal(norm.train()(averages), norm.eval()(averages))
    plain, averages = nn.BatchNorm2d(8), torch.randn(2, 8, 1, 1)
    assert torch.equal(norm.train()(averages), plain(averages))
    assert torch.equal(norm.running_mean, plain.running_mean)


def test_the_backbone_learns_at_the_base_rate_and_all_else_at_the_head_rate():
    settings = {**COMMON["optimizer"], "head_lr": 5.0, "bias_lr": 2.0, "weight_decay": 0.01}
    method = segnet(channels=[4, 6], convolutions=[1, 1])
    method.optimizer_settings = settings
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in method.parameter_groups() for p in g["params"]}
    network = method.network
    assert rates[id(network.encoder[0][0].weight)] == (0.1, 0.01)
    assert rates[id(network.encoder[0][0].bias)] == (0.2, 0.0)
    assert rates[id(network.score.weight)] == (0.5, 0.01)
    assert rates[id(network.score.bias)] == (1.0, 0.0)
    assert len(rates) == len(list(method.parameters()))
