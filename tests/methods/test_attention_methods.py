"""Grad-CAM, GAIN, class-token attention and AdvCAM against their formulas, written slowly in float64."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.image_level.advcam import AdvCAM
from segladder.methods.image_level.attention_cam import AttentionCAM, attention, transformer
from segladder.methods.image_level.base import ClassMapMethod, rescaled
from segladder.methods.image_level.cam import CAM
from segladder.methods.image_level.gain import GAIN
from segladder.methods.image_level.grad_cam import GradCAM
from segladder.nets.backbone import Backbone, FeatureExtractor
from segladder.nets.tiny import TinyBackbone

TAGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])  # (B, C)
SMALL_VIT = {"depth": 3, "embed_dim": 24, "num_heads": 2, "dynamic_img_size": True, "dynamic_img_pad": True}
COMMON: dict[str, Any] = {
    "num_classes": 4,
    "background_score": 0.3,
    "supervision": "image_level",
    "trains": True,
    "optimizer": {"name": "adamw", "lr": 0.1, "weight_decay": 0.0},
    "schedule": {"name": "constant"},
}


class Averages(FeatureExtractor):
    """A backbone whose last level is the image at quarter size, squared so that its slope depends on the image."""

    channels, strides, mean, std = [3], [4], (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [F.avg_pool2d(images + 0.3 * images**2, 4, ceil_mode=True)]


def built(kind: Any, backbone: FeatureExtractor | None = None, **changes: Any) -> Any:
    torch.manual_seed(0)
    known = {} if kind is AdvCAM else {"backbone": backbone or Averages()}
    known |= {"output_stride": None} if issubclass(kind, CAM) else {}
    return kind(**known, **{"name": kind.__name__, **COMMON, **changes}).double().eval()


def grad_cam(**changes: Any) -> GradCAM:
    return built(GradCAM, **{"hidden_channels": 6, "output_stride": None, **changes})


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def test_grad_cam_weighs_features_by_their_mean_slope():
    """The slope of a logit by hand: averaged features, one hidden layer, the classifier; place by place."""
    method, images = grad_cam(), draw(2, 3, 18, 24)
    hidden, _, output = method.classifier
    for image, found in zip(images, method.class_maps(images), strict=True):
        features = method.backbone(image[None])[0][0]  # (D, h, w)
        places = features[0].numel()
        active = hidden.weight @ features.mean((1, 2)) + hidden.bias > 0
        for row, class_map in zip(output.weight, found, strict=True):
            slope = sum(row[h] * hidden.weight[h] for h in range(6) if active[h]) / places
            expected = sum(w * channel for w, channel in zip(slope, features, strict=True))
            torch.testing.assert_close(class_map, expected.float(), atol=1e-6, rtol=1e-5)


def test_grad_cam_under_one_linear_layer_is_cam():
    method, cam, images = grad_cam(hidden_channels=0), built(CAM), draw(2, 3, 18, 24)
    with torch.no_grad():
        cam.classifier.weight.copy_(method.classifier[0].weight[:, :, None, None])
        maps = cam.class_maps(images)
    torch.testing.assert_close(method.class_maps(images) * maps[0, 0].numel(), maps.float(), atol=1e-6, rtol=1e-5)


def test_grad_cam_s_maps_can_be_differentiated_again():
    method, image = grad_cam(), draw(1, 3, 8, 8).requires_grad_()
    seen = method.class_maps(image)[0, 1].double()
    (slope,) = torch.autograd.grad(seen.sum(), image)
    step = 1e-3 * draw(1, 3, 8, 8)
    before, after = (float(method.class_maps(image.detach() + s)[0, 1].sum()) for s in (-step, step))
    assert float((slope * step).sum()) == pytest.approx((after - before) / 2, rel=1e-3)


def known_parent(network: ClassMapMethod) -> SimpleNamespace:
    return SimpleNamespace(method=network)


def advcam(network: ClassMapMethod, **changes: Any) -> AdvCAM:
    settings = {"steps": 4, "step_size": 0.08, "regularization": 7.0, "threshold": 0.5}
    method = built(AdvCAM, **{**settings, **changes})
    method.parent = known_parent(network)
    return method


NETWORKS = {
    "cam": lambda: built(CAM, TinyBackbone(4)),
    "grad_cam": lambda: built(GradCAM, TinyBackbone(4), hidden_channels=6, output_stride=None),
    "attention_cam": lambda: vit_method("vit_tiny_patch16_224", patch_size=8),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_inside_predictions_leave_nothing_behind(network):
    """In inference mode too; parameters keep their gradients, also such as are none."""
    network = NETWORKS[network]()
    weight, *others = network.parameters()
    weight.grad = torch.ones_like(weight)
    images, views = pixels(2, 3, 33, 47), ((1.0, 0.5), True)
    for method in (network, advcam(network)):
        with torch.no_grad():
            expected = method.class_scores((), images, TAGS[:2], *views)
        with torch.inference_mode():
            assert torch.equal(method.class_scores((), images.clone(), TAGS[:2].clone(), *views), expected)
        assert not expected.requires_grad and expected.amax() > 0.9
        assert (weight.grad == 1).all() and all(other.grad is None for other in others)


def slow_mined(method: GAIN, image: Tensor, tags: Tensor) -> Tensor:
    """(3) to (5) for one image, class by class."""
    maps = method.classifier(method.backbone(image[None])[0])[0].clamp_min(0)
    scores = []
    for k in tags.nonzero()[:, 0]:
        unit = (maps[k] - 1e-5).clamp_min(0) / (maps[k].max() + 1e-5)
        seen = F.interpolate(unit[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
        erased = image - image / (1 + torch.exp(-method.omega * (seen - method.sigma)))
        logits = method.classifier(method.backbone(erased[None])[0])[0].mean((1, 2))
        scores.append(1 / (1 + torch.exp(-logits[k])))
    return sum(scores) / max(1, len(scores))


def test_gain_erases_what_each_class_looks_at():
    method, images = built(GAIN, alpha=0.7, sigma=0.4, omega=8.0), draw(3, 3, 18, 24)
    losses = method.loss({"image": images, "tags": TAGS})
    expected = sum(slow_mined(method, image, tags) for image, tags in zip(images, TAGS, strict=True)) / 3
    torch.testing.assert_close(losses["attention_mining"], expected.float(), atol=1e-5, rtol=1e-5)
    cam = built(CAM)
    torch.testing.assert_close(losses["classification"], cam.loss({"image": images, "tags": TAGS})["loss"])
    torch.testing.assert_close(losses["loss"], losses["classification"] + 0.7 * losses["attention_mining"])


def test_gain_without_any_class_is_cam():
    method, images = built(GAIN), draw(2, 3, 16, 16)
    losses = method.loss({"image": images, "tags": torch.zeros(2, 3)})
    assert losses["attention_mining"] == 0 and losses["loss"] == losses["classification"]


def vit_method(name: str, layers: int = 2, refine: bool = True, **options: Any) -> AttentionCAM:
    torch.manual_seed(0)
    backbone = Backbone(name, "none", options={**SMALL_VIT, **options})
    return built(AttentionCAM, backbone, layers=layers, refine=refine)


def test_attention_is_what_timm_s_own_module_pays():
    method, seen = vit_method("vit_tiny_patch16_224"), []
    module = transformer(method.backbone).blocks[1].attn
    module.fused_attn = False
    module.attn_drop.register_forward_hook(lambda _, __, weights: seen.append(weights))
    tokens = draw(2, 7, 24)
    module(tokens)
    torch.testing.assert_close(attention(module, tokens), seen[0].mean(1).float())
    torch.testing.assert_close(attention(module, tokens, 3), seen[0].mean(1).float()[:, :3])


@pytest.mark.parametrize("refine", [False, True])
@torch.no_grad()
def test_class_tokens_maps_are_sums_of_attention(refine):
    """Token by token from what the blocks themselves compute: 3 class tokens, the ViT's own one, 2 x 3 patches."""
    method, images = vit_method("vit_tiny_patch16_224", refine=refine), draw(1, 3, 32, 48)
    vit, paid = transformer(method.backbone), []
    for block in vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _, __, weights: paid.append(weights[0].mean(0)))
    maps, logits = method.maps_and_logits(images)
    for k in range(3):
        expected = sum(weights[k, 4:] for weights in paid[-2:])
        if refine:
            shared = sum(weights[4:, 4:] for weights in paid)
            expected = torch.stack([sum(shared[i, j] * expected[j] for j in range(6)) for i in range(6)])
        torch.testing.assert_close(maps[0, k], expected.view(2, 3).float(), atol=1e-6, rtol=1e-5)
    assert torch.equal(logits, method.tag_logits(images))


@pytest.mark.parametrize(
    ("name", "own"),
    [("deit_tiny_distilled_patch16_224", 2), ("vit_small_patch14_reg4_dinov2", 5), ("vit_base_patch16_siglip_224", 0)],
)
@torch.no_grad()
def test_any_plain_transformer_of_timm_serves(name, own):
    """Tokens of its own, registers or none; patches are what is left of the attention that sums to 1 for each block."""
    method = vit_method(name, layers=1, refine=False, **({"img_size": 56} if "dinov2" in name else {}))
    vit = transformer(method.backbone)
    patch, _ = vit.patch_embed.patch_size
    maps = method.class_maps(draw(2, 3, 4 * patch - 3, 6 * patch))
    assert vit.num_prefix_tokens == own and maps.shape == (2, 3, 4, 6)
    assert (maps.sum((2, 3)) < 1).all() and (maps.sum((2, 3)) > 0.5).all()


def test_class_tokens_start_near_the_transformer_s_own():
    method = vit_method("vit_tiny_patch16_224")
    vit = transformer(method.backbone)
    difference = method.class_tokens - vit.cls_token - vit.pos_embed[:, :1]
    assert 0.01 < difference.std() < 0.03 and not torch.equal(difference[0, 0], difference[0, 1])


def test_other_backbones_are_refused():
    with pytest.raises(ConfigError, match=r"backbone=tiny: method=attention_cam reads the attention of a plain vision"):
        built(AttentionCAM, TinyBackbone(4), layers=3, refine=True)


def slow_advcam(method: AdvCAM, cam: CAM, image: Tensor, tags: Tensor, scales: tuple[float, ...]) -> Tensor:
    """One class, one view and one step at a time; slopes of L by autograd on maps computed with `einsum`."""
    weights = cam.classifier.weight[:, :, 0, 0].detach()
    size = [-(-length // 4) for length in image.shape[-2:]]
    total = torch.zeros(len(tags), *size, dtype=torch.float64)
    for scale in scales:
        height, width = (round(n * scale) for n in image.shape[-2:])
        scaled = (image[None] if scale == 1 else rescaled(image[None], (height, width)))[0].double()
        for mirror in (False, True):
            for k in tags.nonzero()[:, 0]:
                view = (scaled.flip(-1) if mirror else scaled) / 255 * 4 - 2
                low, high, first, climbed = view.min(), view.max(), None, 0
                for _ in range(method.steps):
                    view = view.detach().requires_grad_()
                    maps = torch.einsum("kc,chw->khw", weights, cam.backbone(view[None])[0][0])
                    evidence, seen = maps.mean((1, 2)), maps[k].clamp_min(0)
                    first = seen.detach() if first is None else first
                    climbed = climbed + seen.detach()
                    told = (seen > method.threshold * seen.max()).double()
                    others = sum(evidence[other].clamp_min(0) for other in range(len(tags)) if other != k)
                    goal = evidence[k] - others - method.regularization * ((seen - first).abs() * told).sum()
                    (slope,) = torch.autograd.grad(goal, view)
                    view = (view + method.step_size * slope / slope.abs().max()).clamp(low, high)
                climbed = climbed.flip(-1) if mirror else climbed
                total[k] += F.interpolate(climbed[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    maxima = total.amax((1, 2), keepdim=True)
    return (total - 1e-5).clamp_min(0) / (maxima + 1e-5)


@pytest.mark.parametrize("regularization", [0.0, 0.05])
def test_advcam_climbs_class_by_class_from_the_image(regularization):
    cam, images = built(CAM), pixels(3, 3, 17, 25)
    method = advcam(cam, regularization=regularization)
    found = method.class_scores((), images, TAGS, (1.0, 0.5), True)
    expected = [slow_advcam(method, cam, *each, (1.0, 0.5)) for each in zip(images, TAGS, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected).float(), atol=1e-4, rtol=0)


def test_advcam_that_takes_no_step_gives_its_parent_s_scores():
    network, images = NETWORKS["cam"](), pixels(3, 3, 33, 47)
    for tags in (TAGS, None):
        asked = ((), images, tags, (1.0, 0.5), True)
        with torch.no_grad():
            expected = network.class_scores(*asked)
        torch.testing.assert_close(advcam(network, steps=1).class_scores(*asked), expected)


def test_advcam_finds_nothing_where_no_class_is():
    scores = advcam(NETWORKS["cam"]()).class_scores((), pixels(2, 3, 17, 25), torch.zeros(2, 3), (1.0, 0.5), True)
    assert scores.shape == (2, 3, 5, 7) and not scores.any()


def climbed(regularization: float) -> tuple[Tensor, Tensor]:
    """How much maps of a class grew in eight steps, where they were high and elsewhere, as shares of the maximum."""
    network, images, tags = NETWORKS["cam"](), pixels(2, 3, 64, 96), torch.tensor([[0.0, 1.0, 0.0]] * 2)
    one, many = (
        advcam(network, steps=steps, regularization=regularization).climbed(network, images.double(), tags)[:, 1]
        for steps in (1, 8)
    )
    greatest = one.amax((1, 2), keepdim=True)
    grown, high = (many / 8 - one) / greatest, one > 0.5 * greatest
    return grown[high].mean(), grown[~high].mean()


def test_the_regulariser_holds_high_scores_back_and_the_others_rise():
    (free, _), (held, others) = climbed(0.0), climbed(7.0)
    assert free > 0.05 and held.abs() < free / 2
    assert others > -0.02


def test_advcam_refuses_a_parent_without_class_maps():
    refinement = advcam(NETWORKS["cam"]())
    with pytest.raises(ConfigError, match="climbs on the network of a run such as method=cam, which the parent is not"):
        advcam(refinement).predict(pixels(1, 3, 16, 16))
    refinement.parent = None
    with pytest.raises(ConfigError, match="give parent=RUN"):
        refinement.predict(pixels(1, 3, 16, 16))
