"""SG-One against its formulas written out, its official checkpoint format, its quirks and its ablations."""

from typing import get_args

import numpy as np
import pytest
import timm
import torch
from hydra import compose, initialize_config_module
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from segladder.door.model import Model
from segladder.errors import ConfigError
from segladder.methods.few_shot.sg_one import Guidance, SGOne, SGOneNetwork, load_official_state_dict
from segladder.nets.backbone import Backbone
from segladder.nets.guidance import PyramidBranches, VGGBranches
from segladder.nets.losses import CrossEntropy
from segladder.nets.tiny import TinyBackbone
from segladder.ops.prototypes import cosine_similarity_map, masked_average_pooling
from segladder.ops.upsampling import bilinear
from segladder.runs import build

COMMON = {
    "name": "sg_one",
    "supervision": "few_shot",
    "trains": True,
    "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01, "momentum": 0.9},
    "schedule": {"name": "constant"},
}
VGG_LAYERS = {1: (0, 2), 2: (0, 2), 3: (0, 2, 4), 4: (0, 2, 4), 5: (0, 2, 4)}
VGG_STRIDES = {1: 2, 2: 2, 3: 2, 4: 1, 5: 1}


def sg_one(backbone: nn.Module | None = None, **changes) -> SGOne:
    small = {
        "guidance_channels": 12,
        "side_channels": 8,
        "finest_stride": 8,
        "guidance_stride": None,
        "output_stride": None,
    }
    return SGOne(backbone or TinyBackbone(4), 5, CrossEntropy(), **{**small, **changes}, **COMMON)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def official_state() -> dict[str, torch.Tensor]:
    """Random weights of the official network whose signals neither fade nor grow, biases included."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = SGOneNetwork(VGGBranches()).state_dict()
    state = {}
    for key, tensor in shapes.items():
        spread = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0.3
        state[key] = torch.randn(tensor.shape, generator=generator) * spread
    return state


def official_logits(
    state: dict[str, torch.Tensor], query: torch.Tensor, support: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """The official network's forward pass, step by step in float64."""
    state = {key: value.double() for key, value in state.items()}

    def convolve(maps: torch.Tensor, name: str, padding: int = 1) -> torch.Tensor:
        return F.conv2d(maps, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    def branches(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps, blocks = images.double(), []
        for number, layers in VGG_LAYERS.items():
            for layer in layers:
                maps = F.relu(convolve(maps, f"netB.features_{number}.{layer}"))
            maps = F.max_pool2d(maps, 3, VGG_STRIDES[number], 1)
            blocks.append(maps)
        side = F.relu(convolve(blocks[2], "netB.side3_1.0"))
        side = F.relu(convolve(torch.cat([side, blocks[3]], 1), "netB.side4_1.0"))
        return convolve(blocks[4], "netB.cls.0"), convolve(torch.cat([side, blocks[4]], 1), "netB.side5_1.0")

    large = F.interpolate(branches(support)[0], mask.shape[-2:], mode="bilinear", align_corners=False)
    prototypes = (large * mask.double()[:, None]).sum((2, 3)) / mask.double().sum()
    guidance, side = branches(query)
    similarity = F.cosine_similarity(guidance, prototypes[:, :, None, None], dim=1)
    return convolve(F.relu(convolve(side * similarity[:, None], "classifier_6.0")), "exit_layer")


def test_official_architecture_has_its_names_order_and_size():
    with torch.device("meta"):
        network = SGOneNetwork(VGGBranches())
        logits = network(network.netB(torch.empty(1, 3, 321, 321))[1])
    names = [name.removesuffix(".weight") for name in network.state_dict() if name.endswith("weight")]
    vgg = [f"netB.features_{block}.{layer}" for block, layers in VGG_LAYERS.items() for layer in layers]
    branches = ["netB.cls.0", "netB.side3_1.0", "netB.side4_1.0", "netB.side5_1.0"]
    assert names == [*vgg, *branches, "classifier_6.0", "exit_layer"]
    assert sum(p.numel() for p in network.parameters()) == 18_992_194
    assert logits.shape == (1, 2, 41, 41)


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_official_weights_give_the_official_logits(wrap):
    state = official_state()
    method = load_official_state_dict(wrap(state))
    query, support = draw(2, 3, 65, 81), draw(2, 3, 57, 49, seed=1)
    mask = (draw(2, 57, 49, seed=2) > 0.5).float()
    with torch.no_grad():
        logits = method.logits(query, support, mask)
    assert not method.training and logits.shape == (2, 2, 11, 13)  # 9 x 11 features and the ring
    expected = official_logits(state, query, support, mask)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits.double(), expected, atol=1e-4, rtol=0)


def test_weights_of_another_network_are_named():
    state = official_state()
    state["netB.other.weight"] = state.pop("exit_layer.bias")
    state["netB.cls.0.bias"] = torch.zeros(3)
    told = "missing: exit_layer.bias; unexpected: netB.other.weight; of another shape: netB.cls.0.bias"
    with pytest.raises(ConfigError, match=told):
        load_official_state_dict(state)


def test_a_published_checkpoint_answers_as_a_model():
    """As docs/methods.md shows it."""
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    where = np.zeros((40, 48), np.uint8)
    where[10:30, 10:30] = 1
    model = Model(load_official_state_dict(official_state()), ["background", "the class"])
    answer = model.predict(image, supports=[(image, where)])
    assert answer.mask.shape == (40, 48) and answer.values == (0, 1)


def official(*words: str) -> SGOne:
    with initialize_config_module("segladder.conf", version_base="1.3"):
        chosen = ["method=sg_one", "method.preset=official", "backbone=vgg16", *words]
        return build.method(compose("train", chosen), num_classes=21)


def test_the_official_preset_builds_the_official_network():
    """As composed by `segladder train method=sg_one method.preset=official backbone=vgg16`; widths are not told."""
    with torch.device("meta"):
        names = {name: tensor.shape for name, tensor in SGOneNetwork(VGGBranches()).state_dict().items()}
    method = official("backbone.weights=none")
    assert sum(p.numel() for p in method.parameters()) == 18_992_194
    assert {name: tensor.shape for name, tensor in method.network.state_dict().items()} == names
    assert method.resolved == {"guidance_channels": 512, "side_channels": 128}  # what the record says
    assert all(vars(method.quirks).values()) and method.network.exit_layer.padding == (1, 1)


def test_the_official_preset_starts_from_vgg16_s_weights(tmp_path):
    vgg = timm.create_model("vgg16", mlp_ratio=0.001)
    save_file(vgg.state_dict(), tmp_path / "vgg16.safetensors")
    method = official(f"backbone.weights={tmp_path / 'vgg16.safetensors'}", "+backbone.options.mlp_ratio=0.001")
    ours = [m for block in method.backbones() for m in block if isinstance(m, nn.Conv2d)]
    theirs = [m for m in vgg.features if isinstance(m, nn.Conv2d)]
    assert len(ours) == len(theirs) == 13
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(ours, theirs, strict=True))
    assert sum(p.numel() for p in method.parameters()) == 18_992_194


def test_without_the_preset_widths_are_the_configured_ones():
    assert sg_one(side_channels=8).network.classifier_6[0].out_channels == 8
    assert sg_one(side_channels=8, preset="official").network.classifier_6[0].out_channels == 128


def test_vgg_form_starts_from_the_backbones_convolutions(tmp_path):
    vgg = timm.create_model("vgg16", mlp_ratio=0.001)
    save_file(vgg.state_dict(), tmp_path / "vgg16.safetensors")
    backbone = Backbone("vgg16", weights=str(tmp_path / "vgg16.safetensors"), options={"mlp_ratio": 0.001}, freeze=2)
    method = sg_one(backbone)
    convolutions = [m for m in vgg.features if isinstance(m, nn.Conv2d)]
    ours = [m for block in method.backbones() for m in block if isinstance(m, nn.Conv2d)]
    assert len(ours) == 13 and not backbone.leftover
    assert all(
        torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias) for a, b in zip(ours, convolutions, strict=True)
    )
    assert [m.weight.requires_grad for m in ours] == [False] * 4 + [True] * 9


def test_pyramid_at_one_stride_is_the_papers_scheme():
    """Convolutions over concatenations, with the kernels of the two summands side by side."""

    class Flat(TinyBackbone):
        def __init__(self):
            super().__init__(4)
            self.strides = [8, 8, 8, 8]

        def forward(self, images):
            return [F.interpolate(m, (5, 6)) for m in super().forward(images)]

    method, images = sg_one(Flat()).eval(), draw(1, 3, 33, 47)
    branches = method.network.netB
    with torch.no_grad():
        maps = branches.backbone(images)
        expected = branches.laterals[0](maps[0])
        for carry, lateral, level in zip(branches.carries, branches.laterals[1:], maps[1:], strict=True):
            kernel = torch.cat([carry.weight, lateral.weight], 1)
            expected = F.conv2d(torch.cat([expected.relu(), level], 1), kernel, lateral.bias, padding=1)
        guidance, side = method.encode(images)
        torch.testing.assert_close(side, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(guidance, branches.cls(maps[-1]))


@pytest.mark.parametrize(("finest_stride", "levels"), [(2, [0, 1, 2, 3]), (8, [2, 3]), (16, [3])])
def test_pyramid_takes_levels_from_the_finest_stride_on(finest_stride, levels):
    branches = sg_one(finest_stride=finest_stride).network.netB
    assert branches.levels == levels
    assert branches(draw(1, 3, 64, 64))[-1].shape[-1] == 64 // finest_stride


def test_dilated_backbones_give_the_deepest_level_of_each_stride():
    assert sg_one(Backbone("resnet18", "none", output_stride=8)).network.netB.levels == [4]
    assert sg_one(Backbone("resnet18", "none", output_stride=8), finest_stride=4).network.netB.levels == [1, 4]


def expected_guided(method: SGOne, query, support, mask) -> torch.Tensor:
    """What the head sees under each kind of guidance."""
    guidance = method.guidance
    if guidance == "none":
        return method.encode(query)[0]
    features, side = method.encode(query)
    if guidance == "mask_input":
        prototypes = method.encode(support * mask[:, None])[0].mean((2, 3))
    else:
        prototypes = masked_average_pooling(method.encode(support)[0], mask)
    if guidance == "concatenate":
        return torch.cat([side, prototypes[:, :, None, None] + 0 * side[:, :1]], 1)
    return side * bilinear(cosine_similarity_map(features, prototypes)[:, None], side.shape[-2:])


@pytest.mark.parametrize("guidance", get_args(Guidance))
def test_guidance_is_what_it_says(guidance):
    method = sg_one(guidance=guidance).eval()
    query, support, mask = draw(2, 3, 65, 49), draw(2, 3, 65, 49, seed=1), (draw(2, 65, 49) > 0).float()
    with torch.no_grad():
        expected = method.network(expected_guided(method, query, support, mask))
        torch.testing.assert_close(method.logits(query, support, mask), expected, atol=1e-5, rtol=1e-4)
        state = method.conditioned(support[:, None], mask[:, None])
        decoded = method.decode(method.encode(query), state, (65, 49))
    torch.testing.assert_close(decoded, bilinear(expected, (65, 49)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("guidance", get_args(Guidance))
def test_every_kind_of_guidance_trains_all_its_parameters(guidance):
    method = sg_one(guidance=guidance).train()
    batch = {"image": draw(2, 3, 64, 64), "support_image": draw(2, 2, 3, 64, 64)}
    batch |= {"mask": (draw(2, 64, 64) > 0).byte(), "support_mask": (draw(2, 2, 64, 64) > 0).byte()}
    method.loss(batch)["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())


def test_several_shots_are_the_mean_prototype():
    method = sg_one().eval()
    supports, masks = draw(1, 3, 3, 64, 64), (draw(1, 3, 64, 64) > 0).float()
    with torch.no_grad():
        (prototype,) = method.conditioned(supports, masks)
        single = [method.conditioned(supports[:, [k]], masks[:, [k]])[0] for k in range(3)]
    torch.testing.assert_close(prototype, torch.stack(single).mean(0))


def test_preset_official_turns_every_quirk_on():
    default, official = sg_one().quirks, sg_one(preset="official").quirks
    assert not any(vars(default).values()) and all(vars(official).values())


def test_exit_padding_rings_the_logits_with_the_bias():
    plain, padded = sg_one().eval(), sg_one(quirks={"exit_padding": True}).eval()
    padded.load_state_dict(plain.state_dict())
    arguments = draw(1, 3, 64, 64), draw(1, 3, 64, 64, seed=1), torch.ones(1, 64, 64)
    with torch.no_grad():
        inner, ringed = plain.logits(*arguments), padded.logits(*arguments)
    torch.testing.assert_close(ringed[:, :, 1:-1, 1:-1], inner)
    assert (ringed[0, :, 0] == padded.network.exit_layer.bias[:, None]).all()


def test_batch_mask_sum_divides_by_all_mask_pixels():
    features, masks = (draw(2, 12, 8, 8), draw(2, 8, 16, 16)), torch.zeros(2, 64, 64)
    masks[0, :4], masks[1, :12] = 1, 1  # a quarter and three quarters of all
    (own,) = sg_one().condition(None, features, masks)
    (whole,) = sg_one(quirks={"batch_mask_sum": True}).condition(None, features, masks)
    torch.testing.assert_close(whole, own * torch.tensor([[0.25], [0.75]]))


def test_bgr_training_reverses_channels_in_training_only():
    method, pixels = sg_one(quirks={"bgr_training": True}), torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(method.train().normalize(pixels), sg_one().normalize(pixels.flip(1)))
    assert torch.equal(method.eval().normalize(pixels), sg_one().normalize(pixels))


def test_ignored_is_foreground_reads_255_as_the_class():
    method = sg_one(quirks={"ignored_is_foreground": True}).eval()
    batch = {"image": draw(1, 3, 64, 64), "support_image": draw(1, 1, 3, 64, 64)}
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 8:40, 8:40], masks[:, 12:36, 12:36] = 255, 1
    bordered = {**batch, "mask": masks, "support_mask": masks[:, None]}
    filled = {**batch, "mask": (masks > 0).byte(), "support_mask": (masks > 0).byte()[:, None]}
    with torch.no_grad():
        assert torch.equal(method.loss(bordered)["loss"], method.loss(filled)["loss"])
        assert not torch.equal(sg_one().eval().loss(bordered)["loss"], sg_one().eval().loss(filled)["loss"])


def test_layer_rates_are_the_official_ones():
    method = sg_one(quirks={"layer_rates": True})
    groups = {id(p): (round(g["lr"], 6), g["weight_decay"]) for g in method.parameter_groups() for p in g["params"]}
    assert len(groups) == len(list(method.parameters()))
    network = method.network
    assert groups[id(network.netB.cls[0].weight)] == (1.0, 0.01) and groups[id(network.netB.cls[0].bias)] == (2.0, 0.01)
    assert groups[id(network.exit_layer.weight)] == (0.1, 0.01) and groups[id(network.exit_layer.bias)] == (0.2, 0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": "vgg"}, r"method\.form=vgg: expected backbone=vgg16"),
        ({"quirks": {"bgr": True}}, r"method\.quirks: no such switch bgr; expected exit_padding"),
        ({"finest_stride": 32}, r"method\.finest_stride=32: the backbone's last level has 16"),
        ({"output_stride": 8}, r"method\.output_stride=8: expected the backbone's, which is 16, or null"),
    ],
)
def test_impossible_choices_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        sg_one(**changes)


def test_bfloat16_training_stays_close_to_float32():
    method, batch = sg_one().eval(), {"image": draw(1, 3, 64, 64), "support_image": draw(1, 1, 3, 64, 64, seed=1)}
    batch |= {"mask": (draw(1, 64, 64) > 0).byte(), "support_mask": (draw(1, 1, 64, 64) > 0).byte()}
    with torch.no_grad():
        exact = method.loss(batch)["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = method.loss(batch)["loss"]
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0)


def test_guidance_compares_levels_from_its_stride_on():
    backbone = TinyBackbone(width=4).eval()
    branches = PyramidBranches(backbone, 8, 8, finest_stride=4, guidance_stride=8).eval()
    images = torch.randn(2, 3, 64, 96)
    guidance, side = branches(images)
    *_, eighth, sixteenth = backbone(images)
    enlarged = torch.nn.functional.interpolate(sixteenth, (8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(guidance, branches.cls(torch.cat([eighth, enlarged], 1)), atol=1e-5, rtol=1e-5)
    assert side.shape[-2:] == (16, 24)
    with pytest.raises(ConfigError, match=r"method\.guidance_stride=32: the backbone's last level has 16"):
        PyramidBranches(backbone, 8, 8, finest_stride=4, guidance_stride=32)


def test_centred_guidance_tells_supports_apart_where_features_share_a_mean():
    torch.manual_seed(0)
    backbone = TinyBackbone(width=4).train()
    images = torch.rand(8, 3, 64, 64)
    means = {}
    for centred in (False, True):
        branches = PyramidBranches(backbone, 16, 8, finest_stride=4, guidance_stride=8, centre_guidance=centred).train()
        features = branches(images)[0]
        others = masked_average_pooling(features, torch.ones(8, 64, 64)).flip(0)
        means[centred] = float(cosine_similarity_map(features, others).detach().mean())
    assert abs(means[True]) < 0.1 and means[False] > 0.5
