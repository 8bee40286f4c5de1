"""Intervals and paired tests against slow resampling, and cases whose answer is known."""

import math

import numpy as np
import pytest
import torch

from segladder.errors import DataError
from segladder.metrics.bootstrap import (
    bootstrap_interval,
    class_iou,
    images,
    mean_iou,
    paired_bootstrap,
    resampling_weights,
)
from segladder.metrics.counts import ImageCounts
from segladder.metrics.overlap import summary


def random_counts(images=12, classes=4, seed=0, right=20):
    random = np.random.default_rng(seed)
    counts = ImageCounts(classes)
    for i in range(images):
        counts.add(f"{i:03}", random.integers(0, 9, (classes, classes)) + right * np.eye(classes, dtype=int))
    return counts


def slow_scores(counts, weights):
    """mIoU of each draw, by adding up whole confusion matrices."""
    scores = []
    for row in weights:
        total = sum(int(times) * matrix for times, matrix in zip(row, counts.dense(), strict=True))
        scores.append(summary(torch.from_numpy(total))["mIoU"])
    return np.array(scores)


def test_weights_draw_as_many_images_as_there_are_and_follow_the_seed():
    weights = resampling_weights(7, 50, seed=3)
    drawn = np.random.default_rng(3).integers(0, 7, (50, 7))
    assert weights.tolist() == [[(row == i).sum() for i in range(7)] for row in drawn]
    assert (weights.sum(1) == 7).all()
    assert not np.array_equal(weights, resampling_weights(7, 50, seed=4))


def test_interval_equals_slow_resampling():
    counts = random_counts()
    low, high = bootstrap_interval(counts.outcomes(), samples=60, seed=5)
    scores = slow_scores(counts, resampling_weights(12, 60, 5))
    assert (low, high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])))


def test_interval_per_class_equals_slow_resampling():
    counts = random_counts()
    low, high = bootstrap_interval(counts.outcomes(), class_iou, samples=60, seed=5, level=0.8)
    totals = np.tensordot(resampling_weights(12, 60, 5), counts.outcomes(), 1)  # (60, K, 3)
    for k in range(4):
        shares = [hits / (hits + wrong + missed) for hits, wrong, missed in totals[:, k]]
        assert (low[k], high[k]) == pytest.approx(tuple(np.quantile(shares, [0.1, 0.9])))


def test_mean_iou_equals_the_summary_with_absent_classes():
    matrix = np.array([[8, 2, 0], [0, 0, 0], [0, 0, 0]])
    counts = ImageCounts(3)
    counts.add("only", matrix)
    assert mean_iou(counts.outcomes().sum(0)) == pytest.approx(summary(torch.from_numpy(matrix))["mIoU"])
    assert math.isnan(mean_iou(np.zeros((3, 3))))


def test_interval_of_equal_images_is_a_point():
    outcomes = np.tile([[[6, 2, 2]]], (20, 1, 1))
    assert bootstrap_interval(outcomes) == pytest.approx((0.6, 0.6))


def test_interval_has_the_width_of_a_binomial():
    outcomes = np.zeros((400, 1, 3), int)  # an image is all right or all wrong: mIoU is a mean of coin flips
    outcomes[:200, 0, 0] = outcomes[200:, 0, 2] = 10
    low, high = bootstrap_interval(outcomes, samples=4000)
    half = 1.96 * math.sqrt(0.5 * 0.5 / 400)
    assert (low, high) == pytest.approx((0.5 - half, 0.5 + half), abs=0.006)


def test_classes_that_never_occur_have_no_interval():
    outcomes = np.tile([[[6, 2, 2], [0, 0, 0]]], (5, 1, 1))
    low, high = bootstrap_interval(outcomes, class_iou, samples=20)
    assert low[0] == high[0] == pytest.approx(0.6)
    assert math.isnan(low[1])
    assert math.isnan(high[1])
    assert all(math.isnan(end) for end in bootstrap_interval(outcomes[:0]))


def test_a_run_does_not_differ_from_itself():
    counts = random_counts()
    result = paired_bootstrap(images(counts), images(counts))
    assert (result.difference, result.low, result.high, result.p_value) == (0, 0, 0, 1)


def test_comparison_equals_slow_resampling_and_is_antisymmetric():
    first, second = random_counts(right=20), random_counts(seed=1, right=18)
    sides = images(first), images(second)
    result, turned = paired_bootstrap(*sides, samples=80), paired_bootstrap(*sides[::-1], samples=80)
    weights = resampling_weights(12, 80, 0)
    drawn = slow_scores(first, weights) - slow_scores(second, weights)
    whole = np.ones((1, 12))
    assert result.difference == pytest.approx((slow_scores(first, whole) - slow_scores(second, whole))[0])
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert result.p_value == pytest.approx(min(1, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / 81))
    assert (turned.difference, turned.low, turned.p_value) == pytest.approx(
        (-result.difference, -result.high, result.p_value)
    )


def test_a_clear_difference_is_found_and_noise_is_not():
    clear = paired_bootstrap(images(random_counts(60, right=30)), images(random_counts(60, right=20)))
    assert clear.low > 0
    assert clear.p_value == pytest.approx(2 / 1001)
    noise = paired_bootstrap(images(random_counts(60, seed=1)), images(random_counts(60, seed=2)))
    assert noise.low < 0 < noise.high
    assert noise.p_value > 0.05


def test_several_seeds_are_averaged():
    runs = [random_counts(seed=s) for s in range(3)]
    scores = [summary(torch.from_numpy(run.total()))["mIoU"] for run in runs]
    first, second = [images(run) for run in runs[:2]], images(runs[2])
    assert paired_bootstrap(first, second).difference == pytest.approx(np.mean(scores[:2]) - scores[2])


def test_images_are_matched_by_id():
    counts = random_counts()
    result = paired_bootstrap(images(counts), images(counts.select(counts.ids[::-1])))
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    with pytest.raises(DataError, match="011: scored by one run only"):
        paired_bootstrap(images(counts), images(counts.select(counts.ids[:-1])))
