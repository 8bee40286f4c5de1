"""The baselines of few-shot segmentation against their definitions, on features that can be read off the image."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from segladder.errors import ConfigError
from segladder.methods.few_shot.co_fcn import CoFCN, widen_input
from segladder.methods.few_shot.fine_tune import FineTune
from segladder.methods.few_shot.logistic_regression import LogisticRegression
from segladder.methods.few_shot.nearest_neighbour import NearestNeighbour
from segladder.methods.few_shot.oslsm import OSLSM, WeightHashing
from segladder.methods.few_shot.pixel_classifier import cell_labels, chosen_pixels
from segladder.nets.backbone import FeatureExtractor
from segladder.nets.losses import CrossEntropy
from segladder.nets.tiny import TinyBackbone


class Pixels(FeatureExtractor):
    """Features that are the image itself."""

    channels, strides, mean, std = [3], [1], (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def forward(self, images):
        return [images]


LEARNERS = {
    OSLSM: {"width": 10, "channels": 6, "kernel": 1, "dropout": 0.0, "support_size": None, "hash_seed": 3},
    CoFCN: {"fusion": "early", "channels": 6, "kernel": 3, "dropout": 0.0},
}
CLASSIFIERS = {
    NearestNeighbour: {"temperature": 20.0},
    LogisticRegression: {"penalty": 1e-3, "iterations": 200},
    FineTune: {"temperature": 20.0, "steps": 30, "lr": 0.05},
}


def built(kind, backbone=None, **changes):
    torch.manual_seed(0)
    common = {"name": "m", "supervision": "few_shot", "trains": True, "optimizer": {}, "schedule": {}}
    own = LEARNERS[kind] if kind in LEARNERS else {"level": -1, "pixels": 1024, **CLASSIFIERS[kind]}
    backbone = TinyBackbone(4) if backbone is None else backbone
    return kind(backbone=backbone, num_classes=3, criterion=CrossEntropy(), **{**common, **own, **changes}).eval()


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def squares(*sides, size=32):
    """Masks (B, size, size) of centred squares."""
    masks = torch.zeros(len(sides), size, size)
    for mask, side in zip(masks, sides, strict=True):
        start = (size - side) // 2
        mask[start : start + side, start : start + side] = 1
    return masks


def episode(shots=1, sides=(12, 20), size=32):
    """Raw pixels of queries (B, 3, H, W) and supports (B, K, 3, H, W) whose class is red on blue, and masks."""
    masks = squares(*sides, size=size)
    noise = 20 * random(len(sides), shots + 1, 3, size, size)
    colour = torch.where(
        masks[:, None] > 0, *(torch.tensor(c).view(1, 3, 1, 1) for c in ((220, 60, 60), (40, 60, 200)))
    )
    images = (colour[:, None] + noise).clamp(0, 255).round().to(torch.uint8)
    return images[:, 0], images[:, 1:], masks[:, None].expand(-1, shots, -1, -1), masks


# OSLSM


def test_weight_hashing_is_the_sum_over_its_fixed_signed_choice():
    hashing = WeightHashing(5, 40, seed=1)
    z = random(2, 5).double()
    theta = hashing.double()(z)
    for b, j in product(range(2), range(40)):
        assert theta[b, j].item() == hashing.signs[j].item() * z[b, hashing.places[j]].item()
    assert set(hashing.places.tolist()) == set(range(5)) and set(hashing.signs.tolist()) == {-1, 1}
    assert not list(hashing.parameters())
    again, other = WeightHashing(5, 40, seed=1), WeightHashing(5, 40, seed=2)
    assert torch.equal(again.places, hashing.places) and not torch.equal(other.places, hashing.places)


def test_oslsm_scores_each_pixel_by_the_predicted_classifier():
    method = built(OSLSM).double()
    features, state = random(2, 6, 3, 4).double(), random(2, 7, seed=1).double()
    logits = method.decode((features,), (state,), (3, 4))
    for b, y, x in product(range(2), range(3), range(4)):
        expected = sum(features[b, c, y, x] * state[b, c] for c in range(6)) + state[b, 6]
        assert logits[b, 0, y, x] == 0 and logits[b, 1, y, x].item() == pytest.approx(expected.item(), abs=1e-12)


def test_oslsm_sees_the_object_of_the_support_and_nothing_else():
    method = built(OSLSM)
    query, supports, masks, _ = episode()
    outside, inside = supports.clone(), supports.clone()
    outside[..., 0, :] = 255 - outside[..., 0, :]
    inside[..., 16, 16] = 255 - inside[..., 16, 16]
    with torch.no_grad():
        before = method.predict(query, supports, masks)
        assert torch.equal(method.predict(query, outside, masks), before)
        assert not torch.equal(method.predict(query, inside, masks), before)


def test_oslsm_resizes_the_blanked_support():
    method, resizing = built(OSLSM), built(OSLSM, support_size=48)
    images, masks = random(2, 3, 32, 40), squares(12, 20)[..., :1].expand(-1, -1, 40)
    small = F.interpolate(images * masks[:, None], (48, 48), mode="bilinear")
    with torch.no_grad():
        (expected,) = method.condition(small, (), torch.ones(2, 48, 48))
        torch.testing.assert_close(resizing.condition(images, (), masks)[0], expected)


def test_oslsm_starts_both_branches_from_the_classifier_that_was_loaded():
    backbone, sizes = (
        TinyBackbone(4),
        {"pre_logits.fc1": (6, 24, 3, 3), "pre_logits.fc2": (6, 6, 1, 1), "head.fc": (10, 6)},
    )
    for name, shape in sizes.items():
        backbone.leftover |= {f"{name}.weight": random(*shape), f"{name}.bias": random(shape[0])}
    loaded = copy.deepcopy(backbone.leftover)
    method = built(OSLSM, backbone, kernel=3)
    state = method.state_dict()
    places = {"pre_logits.fc1": ("classifier.0", "support_classifier.1"), "head.fc": ("fc8",)}
    places["pre_logits.fc2"] = ("classifier.3", "support_classifier.4")
    for name, (part, copies) in product(("weight", "bias"), places.items()):
        assert all(torch.equal(state[f"{place}.{name}"], loaded[f"{part}.{name}"]) for place in copies)
    assert not backbone.leftover and not method.support_backbone.leftover


# co-FCN


def test_widened_input_keeps_the_colours_and_adds_their_mean():
    backbone = TinyBackbone(4).eval()
    original = copy.deepcopy(backbone)
    widen_input(backbone, 2)
    images, extra = random(1, 3, 32, 32), random(1, 2, 32, 32, seed=1)
    with torch.no_grad():
        before, same = original(images)[-1], backbone(torch.cat([images, 0 * extra], 1))[-1]
        spread = original(images + extra.sum(1, keepdim=True) / 3)[-1]
        torch.testing.assert_close(same, before)
        torch.testing.assert_close(backbone(torch.cat([images, extra], 1))[-1], spread)


def test_widening_needs_a_convolution_of_the_colours():
    with pytest.raises(ConfigError, match=r"method.fusion=early.*use late"):
        widen_input(nn.Sequential(nn.Conv2d(8, 4, 1)), 2)


@pytest.mark.parametrize("frozen", [False, True])
def test_early_fusion_hears_the_annotation_from_the_first_step_on(frozen):
    """It starts deaf: equal kernels on complementary channels add up to a constant."""
    method = built(CoFCN, TinyBackbone(4).requires_grad_(not frozen))
    query, supports, masks, truth = episode()
    batch = {"image": query, "support_image": supports, "support_mask": masks.byte(), "mask": truth.byte()}
    batch = method.normalized(batch)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.03)
    differences = []
    for _ in range(2):
        states = [method.conditioned(batch["support_image"], annotation)[0] for annotation in (masks, 1 - masks)]
        differences.append((states[0] - states[1]).abs().amax().item())
        method.loss(batch)["loss"].backward()
        optimizer.step()
    assert differences[0] < 1e-6 and differences[1] > 1e-3


def test_late_fusion_averages_features_over_positive_and_negative_pixels():
    method = built(CoFCN, fusion="late").double()
    features, masks = random(2, 6, 4, 5).double(), squares(12, 20)[..., :30].double()
    (state,) = method.condition(None, (features,), masks)
    large = F.interpolate(features, masks.shape[-2:], mode="bilinear")
    for b, (half, mask) in product(range(2), enumerate((masks, 1 - masks))):
        expected = large[b, :, mask[b] > 0].mean(1)
        torch.testing.assert_close(state[b, 6 * half : 6 * half + 6], expected)


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_training_co_fcn_reaches_every_parameter(fusion):
    method = built(CoFCN, fusion=fusion).train()
    query, supports, masks, truth = episode(shots=2)
    batch = {"image": query, "support_image": supports, "support_mask": masks.byte(), "mask": truth.byte()}
    method.loss(method.normalized(batch))["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in method.parameters())


@pytest.mark.parametrize(
    ("kind", "changes", "key"),
    [
        (OSLSM, {"kernel": 2}, "method.kernel=2"),
        (CoFCN, {"kernel": 2}, "method.kernel=2"),
        (NearestNeighbour, {"level": 4}, r"method.level=4: expected -4..3"),
    ],
)
def test_a_wrong_choice_is_named(kind, changes, key):
    with pytest.raises(ConfigError, match=key):
        built(kind, **changes)


@pytest.mark.parametrize("kind", [*LEARNERS, *CLASSIFIERS])
def test_a_support_given_twice_says_what_it_says_once(kind):
    method = built(kind)
    query, supports, masks, _ = episode()
    with torch.no_grad():
        once = method.predict(query, supports, masks)
        twice = method.predict(query, supports.repeat(1, 2, 1, 1, 1), masks.repeat(1, 2, 1, 1))
    torch.testing.assert_close(twice, once, atol=2e-3, rtol=1e-3)


# classifiers of frozen features


def test_cells_belong_to_what_covers_half_of_them_or_else_the_fullest_do():
    masks = torch.zeros(4, 8, 8)
    masks[0, :4, :6] = 1  # whole cells and half cells
    masks[1, 5, 5] = masks[1, 4, 1] = masks[1, 5, 1] = 1  # 1 / 16 and 2 / 16 of a cell
    masks[3] = 1
    labels = cell_labels(masks, (2, 2))
    assert labels.tolist() == [
        [[True, True], [False, False]],
        [[False, False], [True, False]],
        [[False, False], [False, False]],
        [[True, True], [True, True]],
    ]


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(2, 50))
def test_chosen_pixels_are_distinct_and_share_the_room(labels, pixels):
    labels = torch.tensor(labels)
    places = chosen_pixels(labels, pixels).tolist()
    total, foreground = min(pixels, len(labels)), int(labels.sum())
    assert len(set(places)) == len(places) == total
    kept = sum(bool(labels[place]) for place in places)
    half = total // 2
    if foreground <= half:
        assert kept == foreground
    elif len(labels) - foreground >= total - half:
        assert kept == half
    else:
        assert total - kept == len(labels) - foreground


def unit_rows(*shape, seed=0):
    return F.normalize(random(*shape, seed=seed).double(), dim=-1)


def test_nearest_neighbour_equals_the_search_over_all_pairs():
    method = built(NearestNeighbour)
    support, query, labels = unit_rows(1, 30, 8), unit_rows(1, 12, 8, seed=1), random(1, 30, seed=2).sign().add(1) / 2
    state = method.combine([(support, labels.double())], torch.ones(1, 1))
    for m in range(12):
        best = {
            side: max(float(query[0, m] @ support[0, p]) for p in range(30) if labels[0, p] == side) for side in (0, 1)
        }
        assert method.score(query, state)[0, m].item() == pytest.approx(20 * (best[1] - best[0]), abs=1e-12)


def test_logistic_regression_is_the_minimum_of_its_objective():
    method = built(LogisticRegression)
    support, labels = unit_rows(1, 60, 5), (torch.arange(60)[None] % 3 == 0).double()
    (state,) = method.combine([(support, labels)], torch.ones(1, 1))
    found = state[0].clone().requires_grad_()
    margins = (support[0] @ found[:-1] + found[-1]) * (2 * labels[0] - 1)
    losses = F.softplus(-margins)
    sides = [losses[labels[0] == side].mean() for side in (0, 1)]
    (sum(sides) + method.penalty / 2 * found[:-1].square().sum()).backward()
    assert found.grad.abs().max() < 1e-3


def test_fine_tuning_starts_from_the_prototypes_and_fits_the_supports_better():
    support, labels = unit_rows(1, 60, 5), (torch.arange(60)[None] % 3 == 0).double()
    losses = []
    for steps in (0, 5, 40):
        head, bias = built(FineTune, steps=steps).combine([(support, labels)], torch.ones(1, 1))
        if steps == 0:
            means = torch.stack([support[0][labels[0] == side].mean(0) for side in (0, 1)])
            torch.testing.assert_close(head[0], 20 * means / means.norm(dim=1, keepdim=True))
            assert not bias.any()
        costs = F.cross_entropy(support[0] @ head[0].T + bias[0], labels[0].long(), reduction="none")
        losses.append(sum(costs[labels[0] == side].mean().item() for side in (0, 1)))
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_finds_a_class_that_its_colour_tells(kind):
    method = built(kind, Pixels(), pixels=300)
    query, supports, masks, truth = episode(shots=2)
    with torch.inference_mode():  # as evaluation does
        logits = method.predict(query, supports, masks)
    assert torch.equal(logits.argmax(1), truth.long())


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("side", [0, 1, 32])
def test_a_mask_of_nothing_a_pixel_or_everything_gives_finite_scores(kind, side):
    method = built(kind)
    query, supports, _, _ = episode()
    with torch.inference_mode():
        logits = method.predict(query, supports, squares(side, side)[:, None])
    assert logits.isfinite().all()
    if side != 1:
        assert (logits.argmax(1) == side // 32).all()


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_support_that_weighs_nothing_is_not_heard(kind):
    method = built(kind)
    supports = [(unit_rows(1, 20, 5, seed=k).float(), (torch.arange(20)[None] % (k + 2) == 0).float()) for k in (0, 1)]
    query = unit_rows(1, 9, 5, seed=2).float()
    alone = method.score(query, method.combine(supports[:1], torch.ones(1, 1)))
    together = method.score(query, method.combine(supports, torch.tensor([[1.0, 0.0]])))
    torch.testing.assert_close(together, alone, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_nothing_learns(kind):
    assert not any(parameter.requires_grad for parameter in built(kind).parameters())


def test_supports_of_several_sizes_are_joined():
    method = built(NearestNeighbour, pixels=8)
    states = []
    for size in (32, 48, 96):
        features = method.encode(random(1, 3, size, size))
        states.append(method.condition(None, features, squares(size // 2, size=size)))
    features, memberships = method.combine(states, torch.full((1, 3), 1 / 3))
    assert features.shape[1] == 4 + 8 + 8  # a map of 2 x 2 has 4 pixels
    assert np.allclose(memberships.sum(2), 1)
