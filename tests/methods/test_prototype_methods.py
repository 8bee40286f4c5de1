"""Prototypes and PANet against their formulas; what the alignment loss asks for."""

import pytest
import timm
import torch
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.few_shot.base import FewShotMethod
from segladder.methods.few_shot.panet import PANet
from segladder.methods.few_shot.prototype import Prototype
from segladder.nets.backbone import Backbone, FeatureExtractor
from segladder.nets.losses import CrossEntropy
from segladder.nets.tiny import TinyBackbone

COMMON = {
    "name": "prototype",
    "supervision": "few_shot",
    "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0, "momentum": 0.9},
    "schedule": {"name": "constant"},
}


class Pixels(FeatureExtractor):
    """A backbone whose levels are the image, and the image at half its size."""

    channels, strides, mean, std = [3, 3], [1, 2], (0, 0, 0), (1, 1, 1)

    def forward(self, images):
        return [images, F.avg_pool2d(images, 2)]


def prototype(backbone: FeatureExtractor | None = None, **changes) -> Prototype:
    return Prototype(backbone or TinyBackbone(4), 5, CrossEntropy(), trains=False, **changes, **COMMON)


def panet(backbone: FeatureExtractor | None = None, **changes) -> PANet:
    return PANet(backbone or TinyBackbone(4), 5, CrossEntropy(), trains=True, **changes, **COMMON)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blocks(*shape: int, seed: int = 0) -> torch.Tensor:
    """Masks of 0 and 1 in squares of 8 pixels."""
    coarse = draw(*shape[:-2], shape[-2] // 8, shape[-1] // 8, seed=seed) > 0
    return coarse.repeat_interleave(8, -2).repeat_interleave(8, -1).byte()


def pooled(maps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of a map (C, h, w) under a mask (H, W), the map enlarged first."""
    large = F.interpolate(maps[None], mask.shape, mode="bilinear", align_corners=False)[0]
    return (large * mask).sum((1, 2)) / mask.sum()


def two_logits(maps: torch.Tensor, foreground: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """20 times the cosines to both prototypes, (2, h, w)."""
    return torch.stack([20 * F.cosine_similarity(maps, p[:, None, None], dim=0) for p in (background, foreground)])


def enlarged(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("make", [prototype, panet])
def test_logits_are_scaled_cosines_to_mean_prototypes_of_all_shots(make):
    method = make().eval()
    query, supports, masks = draw(1, 3, 64, 48), draw(1, 2, 3, 64, 48, seed=1), blocks(1, 2, 64, 48).float()
    with torch.no_grad():
        logits = method.decode(method.encode(query), method.conditioned(supports, masks), (64, 48))
        maps = method.encode(supports[0])[0]
        foreground = sum(pooled(maps[k], masks[0, k]) for k in range(2)) / 2
        background = sum(pooled(maps[k], 1 - masks[0, k]) for k in range(2)) / 2
        expected = enlarged(two_logits(method.encode(query)[0][0], foreground, background), (64, 48))
    torch.testing.assert_close(logits[0], expected, atol=1e-4, rtol=1e-4)


def test_an_object_is_found_by_its_colour_in_another_image():
    """Red object on blue as support; in the query it lies elsewhere."""

    def picture(top, left):
        image = torch.zeros(3, 32, 32, dtype=torch.uint8)
        image[2], mask = 200, torch.zeros(32, 32)
        mask[top : top + 8, left : left + 8] = 1
        image[0][mask == 1], image[2][mask == 1] = 200, 0
        return image, mask

    (support, support_mask), (query, query_mask) = picture(2, 20), picture(18, 4)
    scores = prototype(Pixels(), level=0).predict(query[None], support[None, None], support_mask[None, None])
    assert torch.equal(scores[0].argmax(0), query_mask.long())


def test_without_a_background_prototype_a_threshold_decides():
    method = prototype(background_prototype=False, threshold=0.25, temperature=10.0).eval()
    images, masks = draw(1, 3, 64, 64), blocks(1, 64, 64).float()
    with torch.no_grad():
        (state,) = method.condition(None, method.encode(images), masks)
        logits = method.similarities(method.encode(images), (state,))[0]
        cosines = F.cosine_similarity(method.encode(images)[0][0], state[0][:, None, None], dim=0)
    torch.testing.assert_close(logits[1], 10 * cosines, atol=1e-5, rtol=1e-4)
    assert (logits[0] == 2.5).all()


@pytest.mark.parametrize(
    ("backbone", "level"),
    [
        (lambda: Backbone("resnet18", "none"), 3),  # strides 2 4 8 16 32
        (lambda: Backbone("resnet18", "none", output_stride=8), 4),
        (lambda: Backbone("vgg11", "none", options={"mlp_ratio": 0.001}), 3),  # 2 4 8 16 32
        (TinyBackbone, 3),  # 2 4 8 16
        (lambda: Backbone("vit_tiny_patch16_224", "none", options={"dynamic_img_size": True}), 3),  # four of 16
    ],
)
def test_any_backbone_serves_with_its_deepest_level_of_at_most_16_pixels(backbone, level):
    method = prototype(backbone())
    assert method.level == level
    assert not any(p.requires_grad for p in method.parameters())


def test_levels_that_do_not_exist_are_named():
    with pytest.raises(ConfigError, match=r"method\.level=4: expected -4\.\.3, the backbone has 4 maps"):
        prototype(level=4)
    with pytest.raises(ConfigError, match=r"method\.output_stride=8: expected the backbone's, which is 16, or null"):
        panet(output_stride=8)


def episodes(seed: int = 0) -> dict[str, torch.Tensor]:
    """Two queries with two supports each; the supports' first rows are ignored."""
    support_masks = blocks(2, 2, 48, 64, seed=seed + 1)
    support_masks[..., :3, :] = 255
    pictures = {"image": draw(2, 3, 48, 64, seed=seed), "support_image": draw(2, 2, 3, 48, 64, seed=seed + 2)}
    shown = {"inside": torch.ones(2, 48, 64, dtype=torch.bool), "support_inside": torch.ones_like(support_masks).bool()}
    return {**pictures, **shown, "mask": blocks(2, 48, 64, seed=seed + 3), "support_mask": support_masks}


def test_alignment_segments_supports_with_prototypes_of_the_prediction():
    method, batch = panet().eval(), episodes()
    with torch.no_grad():
        losses = method.loss(batch)
        queries, supports = method.encode(batch["image"]), method.encode(batch["support_image"].flatten(0, 1))
        state = method.conditioned(batch["support_image"], (batch["support_mask"] == 1).float())
        predictions = method.similarities(queries, state).argmax(1)
        logits = []
        for b in range(2):
            prototypes = [pooled(queries[0][b], (predictions[b] == value).float()) for value in (1, 0)]
            logits += [enlarged(two_logits(supports[0][2 * b + k], *prototypes), (48, 64)) for k in range(2)]
        targets = batch["support_mask"].flatten(0, 1).long()
        expected = F.cross_entropy(torch.stack(logits), targets, ignore_index=255)
        segmentation = F.cross_entropy(method.decode(queries, state, (48, 64)), batch["mask"].long())
    assert 0 < predictions.float().mean() < 1
    torch.testing.assert_close(losses["alignment"], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(losses["segmentation"], segmentation, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(losses["loss"], losses["segmentation"] + losses["alignment"])


def test_episodes_without_a_predicted_class_add_nothing():
    method, batch = panet().eval(), episodes()
    queries, supports = method.encode(batch["image"]), method.encode(batch["support_image"].flatten(0, 1))
    predictions = torch.zeros(2, *queries[0].shape[-2:], dtype=torch.long)
    nothing = method.alignment_loss(queries, predictions, supports, batch["support_mask"])
    assert nothing == 0
    nothing.backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in method.parameters())
    predictions[0, 0] = 1
    with torch.no_grad():
        half = method.alignment_loss(queries, predictions, supports, batch["support_mask"])
        first = [tuple(maps[:n] for maps in features) for features, n in ((queries, 1), (supports, 2))]
        alone = method.alignment_loss(first[0], predictions[:1], first[1], batch["support_mask"][:1])
    torch.testing.assert_close(half, alone / 2)


def test_the_criterion_is_told_what_is_padding_in_queries_and_supports(monkeypatch):
    method, batch, told = panet().eval(), episodes(), []
    batch["inside"][:, :5] = False
    batch["support_inside"][:, 1, :, :9] = False
    monkeypatch.setattr(
        method.criterion, "forward", lambda logits, target, pictures: told.append(pictures.inside) or logits.sum()
    )
    method.loss(batch)
    assert torch.equal(told[0], batch["inside"]) and torch.equal(told[1], batch["support_inside"].flatten(0, 1))


def test_batches_that_do_not_mark_padding_have_none():
    method, batch = panet().eval(), episodes()
    expected = method.loss(batch)
    del batch["inside"], batch["support_inside"]
    assert torch.equal(method.loss(batch)["loss"], expected["loss"])


def test_weight_zero_leaves_the_alignment_out():
    method, batch = panet(alignment=0.0).eval(), episodes()
    with torch.no_grad():
        losses = method.loss(batch)
        torch.testing.assert_close(losses["loss"], FewShotMethod.loss(method, batch)["loss"])
    assert set(losses) == {"loss"}


@pytest.mark.parametrize(("stride", "pooled_last"), [(8, False), (16, False), (32, True)])
def test_vgg_ends_in_its_last_convolution(stride, pooled_last):
    """Signed features; beyond a last pool of stride 2 that stays."""
    backbone = Backbone("vgg11", "none", output_stride=stride, options={"mlp_ratio": 0.001})
    images = draw(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(images)[-1]
        method = panet(backbone, output_stride=stride).eval()
        features = method.encode(images)[0]
    assert features.min() < 0 and features.shape == before.shape
    smoothed = features.relu() if pooled_last else F.max_pool2d(features.relu(), 3, 1, 1)
    torch.testing.assert_close(smoothed, before)


def test_dinov2_finds_the_masked_half_of_its_support_again():
    """Patches of 14 pixels, random weights: the class side is bright."""
    name = next(iter(timm.list_models("vit_small_patch14_dinov2*")))
    options = {"dynamic_img_size": True, "dynamic_img_pad": True, "depth": 4}
    method = prototype(Backbone(name, "none", options=options)).eval()
    image, mask = torch.zeros(1, 3, 42, 56), torch.zeros(1, 42, 56)
    image[..., 28:], mask[..., 28:] = 255, 1
    with torch.no_grad():
        scores = method.predict(image, image[:, None], mask[:, None])
    margin = scores[0, 1] - scores[0, 0]
    assert margin[mask[0] == 1].mean() > margin[mask[0] == 0].mean()
    assert not method.parameter_groups()
