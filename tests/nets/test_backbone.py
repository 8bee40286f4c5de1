"""Backbones: levels, strides, weights, what is frozen."""

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from segladder.errors import ConfigError
from segladder.nets.backbone import Backbone
from segladder.nets.folding import fold_batch_norm
from segladder.nets.tiny import TinyBackbone

SMALL_VGG = {"mlp_ratio": 0.001}  # four channels between fc6 and fc7
SMALL_VIT = {"depth": 4, "embed_dim": 24, "num_heads": 2, "dynamic_img_size": True, "dynamic_img_pad": True}


@pytest.mark.parametrize(
    ("name", "options", "output_stride", "strides", "channels"),
    [
        ("resnet18", {}, None, [2, 4, 8, 16, 32], [64, 64, 128, 256, 512]),
        ("resnet18", {}, 16, [2, 4, 8, 16, 16], [64, 64, 128, 256, 512]),
        ("resnet18", {}, 8, [2, 4, 8, 8, 8], [64, 64, 128, 256, 512]),
        ("mobilenetv2_100", {"pad_type": "same"}, 32, [2, 4, 8, 16, 32], [16, 24, 32, 96, 320]),
        ("mobilenetv2_100", {"pad_type": "same"}, 8, [2, 4, 8, 8, 8], [16, 24, 32, 96, 320]),
        ("vgg11", SMALL_VGG, 32, [2, 4, 8, 16, 32], [64, 128, 256, 512, 512]),
        ("vgg11", SMALL_VGG, 16, [2, 4, 8, 16, 16], [64, 128, 256, 512, 512]),
        ("vgg11", SMALL_VGG, 8, [2, 4, 8, 8, 8], [64, 128, 256, 512, 512]),
        ("vit_tiny_patch16_224", SMALL_VIT, 16, [16] * 4, [24] * 4),
        ("mambaout_femto", {"depths": [1] * 4, "dims": [8, 8, 16, 24]}, None, [4, 8, 16, 32], [8, 8, 16, 24]),  # NHWC
    ],
)
def test_levels_have_the_declared_strides_and_channels(name, options, output_stride, strides, channels):
    backbone = Backbone(name, "none", output_stride=output_stride, options=options).eval()
    assert (backbone.strides, backbone.channels) == (strides, channels)
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 65, 97))
    for feature, stride, count in zip(features, strides, channels, strict=True):
        assert feature.shape[1] == count
        for size, pixels in zip(feature.shape[-2:], (65, 97), strict=True):
            assert size in (pixels // stride, -(-pixels // stride))


def test_tiny_halves_at_each_stage():
    backbone = TinyBackbone(width=4)
    shapes = [tuple(f.shape) for f in backbone(torch.zeros(1, 3, 65, 97))]
    assert shapes == [(1, 4, 33, 49), (1, 8, 17, 25), (1, 16, 9, 13), (1, 24, 5, 7)]
    assert backbone.strides == [2, 4, 8, 16]
    parameters = sum(p.numel() for p in TinyBackbone().parameters())
    assert 0.7e6 < parameters < 0.8e6


def test_dilation_computes_the_same_features_more_densely():
    coarse, dense = Backbone("resnet18", "none").eval(), Backbone("resnet18", "none", output_stride=16).eval()
    dense.load_state_dict(coarse.state_dict())
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(dense(images)[-1][..., ::2, ::2], coarse(images)[-1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "options"), [("mobilenetv2_100", {"pad_type": "same"}), ("vgg11", SMALL_VGG)])
def test_without_dilation_no_convolution_is_dilated(name, options):
    backbone = Backbone(name, "none", output_stride=8, options=options, dilated=False).eval()
    assert {m.dilation for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)} == {(1, 1)}
    assert [feature.shape[-2:] for feature in backbone(torch.zeros(1, 3, 64, 96))][-1] == (8, 12)


def test_without_dilation_the_last_stage_alone_loses_its_stride():
    plain, kept = (
        Backbone("resnet18", "none").eval(),
        Backbone("resnet18", "none", output_stride=16, dilated=False).eval(),
    )
    kept.load_state_dict(plain.state_dict())
    block = plain.model.layer4[0]
    block.conv1.stride = block.downsample[0].stride = (1, 1)
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(kept(images)[-1], plain(images)[-1])


def test_vgg_surgery_dilates_what_lies_behind_a_pool_of_stride_one():
    backbone = Backbone("vgg16", "none", output_stride=8, options=SMALL_VGG)
    layers = [m for m in backbone.model.children() if isinstance(m, torch.nn.Conv2d | torch.nn.MaxPool2d)]
    dilations = [m.dilation[0] for m in layers if isinstance(m, torch.nn.Conv2d)]
    pools = [(m.kernel_size, m.stride) for m in layers if isinstance(m, torch.nn.MaxPool2d)]
    assert dilations == [1] * 10 + [2] * 3
    assert pools == [(2, 2)] * 3 + [(3, 1)] * 2


def test_unknown_model_is_answered_with_close_names():
    with pytest.raises(ConfigError, match=r"backbone\.name=resnet5o: no such timm model; did you mean .*resnet50"):
        Backbone("resnet5o", "none")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"options": {"wings": 2}}, r"timm cannot build it with wings=2"),
        ({"freeze": 6}, r"backbone\.freeze=6: resnet18 has levels 0\.\.5"),
        ({"weights": "missing.safetensors"}, r"backbone\.weights=missing\.safetensors: cannot be read"),
        ({"weights": "weights.pth"}, r"expected none, timm, a \.safetensors file or the folder"),
    ],
)
def test_impossible_arguments_are_named(arguments, told):
    with pytest.raises(ConfigError, match=told):
        Backbone("resnet18", **{"weights": "none", **arguments})


@pytest.mark.parametrize(
    ("name", "options"), [("resnet18", {}), ("vgg11", SMALL_VGG), ("vit_tiny_patch16_224", SMALL_VIT)]
)
def test_weights_of_the_whole_model_load_and_compute_what_it_computes(tmp_path, name, options):
    whole = timm.create_model(name, **options).eval()
    file = tmp_path / "whole.safetensors"
    save_file({k: v.contiguous() for k, v in whole.state_dict().items()}, file)
    backbone = Backbone(name, weights=str(file), options=options).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(images, indices=1)[1][0]
        torch.testing.assert_close(backbone(images)[-1], expected)
    classifier = whole.pretrained_cfg["classifier"]
    assert torch.equal(backbone.leftover[f"{classifier}.weight"], whole.get_classifier().weight)


def test_weights_without_the_classifier_load(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    save_file({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "headless.safetensors")
    backbone = Backbone("resnet18", weights=str(tmp_path / "headless.safetensors"))
    assert torch.equal(backbone.model.conv1.weight, state["conv1.weight"])
    assert backbone.leftover == {}


def test_weights_that_the_hub_gave_once_are_read_without_it(tmp_path, monkeypatch):
    state = timm.create_model("resnet18").state_dict()
    place = tmp_path / f"models--{timm.get_pretrained_cfg('resnet18').hf_hub_id.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("abc")
    (place / "snapshots/abc").mkdir(parents=True)
    save_file(state, place / "snapshots/abc/model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", None)
    assert torch.equal(Backbone("resnet18", weights="timm").model.conv1.weight, state["conv1.weight"])


def test_weights_that_do_not_fit_are_listed(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    state["stem.weight"] = state.pop("conv1.weight")
    state["bn1.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "wrong.safetensors")
    told = r"missing \(conv1\.weight\); 1 keys unexpected \(stem\.weight\); 1 keys of another shape \(bn1\.bias\)"
    with pytest.raises(ConfigError, match=told):
        Backbone("resnet18", weights=str(tmp_path / "wrong.safetensors"))


def test_frozen_batch_norm_stays_as_loaded_in_training():
    backbone = Backbone("resnet18", "none", batch_norm="frozen").train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.randn(2, 3, 32, 32))[-1].mean().backward()
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    norms = {n for n, m in backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (name.rpartition(".")[0] not in norms)


def test_batch_norm_learns_by_default():
    backbone = Backbone("resnet18", "none").train()
    backbone(torch.randn(2, 3, 32, 32) + 1)
    assert backbone.model.bn1.num_batches_tracked == 1 and backbone.model.bn1.weight.requires_grad


@pytest.mark.parametrize(
    ("name", "options", "frozen"),
    [
        ("resnet18", {}, ("model.conv1.", "model.bn1.", "model.layer1.")),
        ("mobilenetv2_100", {}, ("model.conv_stem.", "model.bn1.", "model.blocks.0.", "model.blocks.1.")),
        ("vgg11", SMALL_VGG, ("model.features_0.", "model.features_3.")),
    ],
)
def test_freezing_two_levels_fixes_everything_up_to_the_second_map(name, options, frozen):
    backbone = Backbone(name, "none", freeze=2, options=options)
    fixed = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    assert fixed == {n for n, _ in backbone.named_parameters() if n.startswith(frozen)} and fixed
    norms = [(n, m) for n, m in backbone.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all(m.training != f"{n}.".startswith(frozen) for n, m in norms)  # as built: Lightning leaves it so
    backbone.train()
    assert all(m.training != f"{n}.".startswith(frozen) for n, m in norms)


def test_input_statistics_come_from_the_model_or_the_user():
    assert Backbone("resnet18", "none").mean == (0.485, 0.456, 0.406)
    chosen = Backbone("resnet18", "none", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])
    assert chosen.mean == chosen.std == (0.5, 0.5, 0.5)


@pytest.mark.real_data
def test_mobilenetv2_weights_with_tensorflow_padding_load(real_data):
    file = real_data("../weights/mobilenetv2_100.safetensors")
    backbone = Backbone("mobilenetv2_100", weights=str(file), options={"pad_type": "same"}, batch_norm="frozen")
    assert {key.split(".")[0] for key in backbone.leftover} == {"conv_head", "bn2", "classifier"}
    whole = timm.create_model("mobilenetv2_100", pad_type="same").eval()
    whole.load_state_dict(load_file(file), strict=True)
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected = whole.forward_intermediates(images, indices=1)[1][0]
        torch.testing.assert_close(backbone.train()(images)[-1], expected)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "resnet18", "vgg11_bn", "resnest14d"])
def test_folding_computes_the_same_with_no_batch_norm_left(name):
    plain = Backbone(name, "none").eval()
    with torch.no_grad():
        for module in plain.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    folded = Backbone(name, "none").eval()
    folded.load_state_dict(plain.state_dict())
    fold_batch_norm(folded.model, name)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(folded(images), plain(images), atol=1e-4, rtol=1e-4)


def test_folded_weights_learn_behind_the_frozen_levels():
    backbone = Backbone("mobilenetv2_100", "none", batch_norm="folded", freeze=3).train()
    sum(f.sum() for f in backbone(torch.randn(1, 3, 64, 64))).backward()
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert frozen and all(name.split(".")[1] == "conv_stem" or name.split(".")[2] in "012" for name in frozen)
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


def test_a_network_that_normalises_before_convolving_cannot_be_folded():
    with pytest.raises(ConfigError, match=r"batch_norm=folded: densenet121 has BatchNorm that no convolution"):
        Backbone("densenet121", "none", batch_norm="folded")


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: TinyBackbone(width=4, weights=weights),
        lambda weights: Backbone("resnet18", weights=weights),
        lambda weights: Backbone("mobilenetv2_100", weights=weights, batch_norm="folded"),
    ],
)
def test_weights_of_a_run_are_its_backbone_s(tmp_path, make):
    torch.manual_seed(0)
    trained = make("none")
    whole = {f"network.backbone.{key}": value for key, value in trained.state_dict().items()}
    torch.save({**whole, "network.scores.0.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    torch.manual_seed(1)
    loaded = make(str(tmp_path))
    assert all(map(torch.equal, loaded.state_dict().values(), trained.state_dict().values()))


def test_a_run_with_another_backbone_or_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no weights\.pt there"):
        TinyBackbone(weights=str(tmp_path))
    torch.save(
        {"backbone." + key: value for key, value in TinyBackbone(4).state_dict().items()}, tmp_path / "weights.pt"
    )
    with pytest.raises(ConfigError, match="that run has another backbone"):
        TinyBackbone(width=8, weights=str(tmp_path))
    with pytest.raises(ConfigError, match="tiny takes none or the folder of a run"):
        TinyBackbone(weights="timm")


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"])
def test_options_load_no_files(option):
    with pytest.raises(ConfigError, match=f"^backbone.options.{option}: no option of a network"):
        Backbone("mobilenetv2_100", "none", options={option: "x"})
