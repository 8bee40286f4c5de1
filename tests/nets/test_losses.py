"""Losses against slow references in float64, and the promise about batches without a labelled pixel."""

from statistics import median

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.errors import ConfigError
from segladder.nets.losses import (
    SPREAD,
    CrossEntropy,
    Dice,
    Focal,
    GatedCRF,
    Lovasz,
    Pictures,
    WeightedSum,
    median_frequency,
)
from segladder.ops.gated_crf import Kernel, gated_crf_energy

LOSSES = {
    "cross_entropy": CrossEntropy(),
    "weighted": CrossEntropy(class_weights=[0.5, 1.0, 2.0, 0.0], label_smoothing=0.1),
    "balanced": CrossEntropy(class_weights="balanced"),
    "focal": Focal(),
    "dice": Dice(),
    "lovasz": Lovasz(),
    "lovasz_per_image": Lovasz(per_image=True),
    "sum": WeightedSum([CrossEntropy(), Dice(), Lovasz()], [1.0, 0.5, 2.0]),
}


def example(seed: int = 0, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (2, K, 5, 6) and targets with about a fifth ignored."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, (2, 5, 6))
    target[rng.random(target.shape) < 0.2] = 255
    return torch.tensor(rng.normal(0, 2, (2, classes, 5, 6))), torch.tensor(target)


def labelled(logits: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Logits (P, K) and classes (P,) of the labelled pixels."""
    keep = target.numpy() != 255
    return logits.movedim(1, -1).numpy()[keep], target.numpy()[keep]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def test_cross_entropy_with_weights_and_smoothing():
    logits, target = example()
    weights, smoothing = np.array([0.5, 1.0, 2.0, 3.0]), 0.1
    pixels, classes = labelled(logits, target)
    total = share = 0.0
    for row, c in zip(np.log(softmax(pixels)), classes, strict=True):
        total += -(1 - smoothing) * weights[c] * row[c] - smoothing / 4 * (weights * row).sum()
        share += weights[c]
    loss = CrossEntropy(weights.tolist(), smoothing).double()(logits, target)
    assert loss.item() == pytest.approx(total / share, rel=1e-9)


def test_balanced_classes_of_a_batch_count_the_same():
    logits, target = example()
    target[target == 3] = 0  # a class that the batch lacks
    target[0, 0, 0] = 2
    pixels, classes = labelled(logits, target)
    rows = np.log(softmax(pixels))
    means = [-rows[classes == k, k].mean() for k in range(3)]
    loss = CrossEntropy("balanced").double()(logits, target)
    assert loss.item() == pytest.approx(np.mean(means), rel=1e-6)


def test_smoothed_balanced_classes_leave_out_what_the_batch_lacks():
    logits, target = example()
    target[target == 3] = 0
    pixels, classes = labelled(logits, target)
    rows, smoothing = np.log(softmax(pixels)), 0.1
    weights = np.array([1 / (classes == k).sum() for k in range(3)] + [0.0])
    total = -((1 - smoothing) * weights[classes] * rows[np.arange(len(rows)), classes]).sum()
    total -= smoothing / 4 * (weights * rows).sum()
    loss = CrossEntropy("balanced", smoothing).double()(logits, target)
    assert loss.item() == pytest.approx(total / 3, rel=1e-6)


def test_focal_is_the_mean_over_classes_of_sigmoid_focal_losses():
    logits, target = example(1)
    pixels, classes = labelled(logits, target)
    losses = []
    for k in range(4):
        p = 1 / (1 + np.exp(-pixels[:, k]))
        p_true = np.where(classes == k, p, 1 - p)
        alpha = np.where(classes == k, 0.25, 0.75)
        losses.append((-alpha * (1 - p_true) ** 2 * np.log(p_true)).mean())
    assert Focal(gamma=2.0, alpha=0.25)(logits, target).item() == pytest.approx(np.mean(losses), rel=1e-6)


def test_dice_over_the_batch():
    logits, target = example(2)
    pixels, classes = labelled(logits, target)
    p, t = softmax(pixels), np.eye(4)[classes]
    agreement = (p + t - np.abs(p - t)).sum(0) / 2  # sum of the smaller; equals p * t for 0/1 targets
    expected = (1 - 2 * agreement / (p.sum(0) + t.sum(0))).mean()
    assert Dice()(logits, target).item() == pytest.approx(expected, rel=1e-6)


def lovasz_by_definition(p: np.ndarray, classes: np.ndarray) -> float:
    """Berman et al. 2018, equations 5, 8, 9: errors sorted, each times the growth of its prefix's Jaccard loss."""
    losses = []
    for k in np.unique(classes):
        truth = classes == k
        errors = np.abs(truth - p[:, k])
        order = np.argsort(-errors, kind="stable")
        jaccard = [0.0]
        for i in range(1, len(order) + 1):
            wrong = np.zeros(len(truth), bool)
            wrong[order[:i]] = True
            jaccard.append(wrong.sum() / (truth | wrong).sum())
        losses.append(float((errors[order] * np.diff(jaccard)).sum()))
    return float(np.mean(losses))


def test_lovasz_against_its_definition():
    logits, target = example(3)
    pixels, classes = labelled(logits, target)
    assert Lovasz()(logits, target).item() == pytest.approx(lovasz_by_definition(softmax(pixels), classes), rel=1e-5)


def test_lovasz_per_image_is_the_mean_over_images():
    logits, target = example(4)
    parts = [Lovasz()(logits[i : i + 1], target[i : i + 1]).item() for i in range(2)]
    assert Lovasz(per_image=True)(logits, target).item() == pytest.approx(np.mean(parts))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_lovasz_of_certain_predictions_is_one_minus_the_iou_of_present_classes(seed):
    _, target = example(seed)
    guess = torch.tensor(np.random.default_rng(seed + 1).integers(0, 4, (2, 5, 6)))
    certain = torch.nn.functional.one_hot(guess, 4).movedim(-1, 1).double() * 100
    keep = target != 255
    ious = [
        ((guess == k) & (target == k)).sum() / (((guess == k) | (target == k)) & keep).sum()
        for k in target[keep].unique()
    ]
    assert Lovasz()(certain, target).item() == pytest.approx(1 - float(np.mean(ious)), abs=1e-6)


def test_weighted_sum():
    logits, target = example(5)
    parts = [term(logits, target).item() for term in (CrossEntropy(), Dice(), Lovasz())]
    assert LOSSES["sum"](logits, target).item() == pytest.approx(parts[0] + 0.5 * parts[1] + 2 * parts[2])


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_labelled_pixel_costs_nothing(name):
    logits = example()[0].float().requires_grad_()
    loss = LOSSES[name](logits, torch.full((2, 5, 6), 255))
    loss.backward()
    assert loss.item() == 0 and loss.ndim == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(sorted(LOSSES)), st.integers(0, 1000))
def test_what_stands_on_ignored_pixels_does_not_matter(name, seed):
    logits, target = example(seed)
    logits = logits.float()
    other = logits + 50 * torch.randn_like(logits) * (target == 255)[:, None]
    torch.testing.assert_close(LOSSES[name](logits, target), LOSSES[name](other, target))


def test_number_of_class_weights_is_checked():
    logits, target = example()
    with pytest.raises(ConfigError, match=r"loss\.class_weights: 2 values, expected 4"):
        CrossEntropy([1.0, 2.0])(logits, target)


@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=1, max_size=8))
def test_median_frequency_weights_are_those_of_the_papers(images):
    frequencies = {}
    for k in range(4):
        holding = [image for image in images if image[k]]
        if holding:
            frequencies[k] = sum(image[k] for image in holding) / sum(map(sum, holding))
    expected = [median(frequencies.values()) / frequencies[k] if k in frequencies else 0.0 for k in range(4)]
    found = median_frequency(torch.tensor(images))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_median_frequency_is_counted_once_and_weighs_ever_after():
    logits, target = example()
    logits = logits.float()
    loss, pixels = CrossEntropy("median_frequency"), [[8, 0, 4, 4], [0, 2, 6, 8]]
    with pytest.raises(ConfigError, match=r"loss\.class_weights=median_frequency: no training masks were counted"):
        loss(logits, target)
    loss.learn_frequencies(pixels)
    weights = median_frequency(torch.tensor(pixels)).tolist()
    torch.testing.assert_close(loss(logits, target), CrossEntropy(weights)(logits, target))
    plain = CrossEntropy()
    plain.learn_frequencies(pixels)
    assert plain.class_weights is None


def test_number_of_sum_weights_is_checked():
    with pytest.raises(ConfigError, match=r"loss\.weights: 1 values, expected 2"):
        WeightedSum([Dice(), Lovasz()], [1.0])


def pictures(images: torch.Tensor, inside: torch.Tensor | None = None) -> Pictures:
    """Images that were normalised by their channels' means and deviations in 0..255."""
    return Pictures(images, torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1), torch.full((1, 3, 1, 1), 50.0), inside)


def test_the_gated_crf_loss_is_the_energy_of_pooled_logits_and_colours():
    logits, target = example(6)
    rgb = torch.rand(2, 3, 5, 6, dtype=torch.float64) * 255
    shown = pictures((rgb - torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1)) / 50, torch.rand(2, 5, 6) < 0.8)
    loss = GatedCRF([{"weight": 1.0, "xy": 6, "rgb": 0.1}, {"weight": 0.5, "xy": 2}], radius=2, stride=2)

    def pooled(maps: torch.Tensor) -> torch.Tensor:
        squares = [[maps[..., y : y + 2, x : x + 2].mean((-2, -1)) for x in (0, 2, 4)] for y in (0, 2, 4)]
        return torch.stack([torch.stack(row, -1) for row in squares], -2)

    colours = pooled(rgb / 255 / torch.tensor(SPREAD).view(1, 3, 1, 1))
    kernels = [Kernel(1.0, 6, 0.1), Kernel(0.5, 2)]
    inside = pooled(shown.inside.double()) == 1
    expected = gated_crf_energy(pooled(logits).softmax(1), colours, kernels, 2, sources=inside)
    assert loss(logits, target, shown).item() == pytest.approx(expected.item(), rel=1e-4) and expected.item() > 0


def test_a_sum_shows_its_terms_the_pictures():
    logits, target = example(7)
    shown = pictures(torch.randn(2, 3, 5, 6))
    crf = GatedCRF([{"weight": 1.0, "xy": 6, "rgb": 0.1}])
    both = WeightedSum([CrossEntropy(), crf], [1.0, 0.1])(logits, target, shown)
    assert both.item() == pytest.approx(CrossEntropy()(logits, target).item() + 0.1 * crf(logits, target, shown).item())
    with pytest.raises(ValueError, match="needs the pictures"):
        crf(logits, target)


@pytest.mark.parametrize("kernel", [{"weight": 1, "rgb": 2}, {"weight": 1, "xy": 0}, {"weight": 1, "xy": 1, "hue": 3}])
def test_a_kernel_that_is_none_is_named(kernel):
    with pytest.raises(ConfigError, match=r"loss\.kernels: .*expected"):
        GatedCRF([kernel])
