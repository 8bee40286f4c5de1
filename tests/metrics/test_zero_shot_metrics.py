"""Scores under every gamma from one pass, against labelling the images anew under each."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.metrics.confusion import confusion_matrix
from segladder.metrics.counts import outcomes
from segladder.metrics.formulas import class_iou, harmonic, mean_iou
from segladder.metrics.zero_shot import GammaSweep, area_under_frontier, split_scores
from segladder.ops.projection import calibrate, contest

CLASSES = 6
UNSEEN = np.array([0, 0, 0, 1, 0, 1], bool)
GAMMAS = (0.0, 0.13, 0.37, 0.6, 1.1)
SEEN_INDICES, UNSEEN_INDICES = torch.tensor([0, 1, 2, 4]), torch.tensor([3, 5])


def picture(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (1, K, H, W) and truth (H, W) with ignored pixels."""
    random = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, CLASSES, (9, 11), generator=random, dtype=torch.uint8)
    truth[torch.rand(9, 11, generator=random) < 0.2] = 255
    return 3 * torch.randn(1, CLASSES, 9, 11, generator=random, dtype=torch.float64), truth


def swept(seeds) -> GammaSweep:
    sweep = GammaSweep(CLASSES, UNSEEN, GAMMAS)
    for seed in seeds:
        logits, truth = picture(seed)
        sweep.add(f"image{seed}", truth, *(part[0] for part in contest(logits, SEEN_INDICES, UNSEEN_INDICES)))
    return sweep


def labelled_anew(seed: int, gamma: float) -> np.ndarray:
    logits, truth = picture(seed)
    prediction = calibrate(logits, ~torch.from_numpy(UNSEEN), gamma).argmax(1)[0]
    return confusion_matrix(prediction, truth, CLASSES).numpy()


@settings(max_examples=15)
@given(st.integers(0, 999))
def test_every_gamma_is_counted_as_if_labelled_with_it(seed):
    sweep = swept([seed, seed + 1])
    for index, gamma in enumerate(GAMMAS):
        expected = [labelled_anew(s, gamma) for s in (seed, seed + 1)]
        assert np.array_equal(sweep.confusions()[1 + index], sum(expected))
        assert np.array_equal(sweep.at(index).dense(), expected)


def test_at_the_ends_one_kind_of_class_wins_everywhere():
    confusions = swept([0, 1]).confusions()
    assert not confusions[0][:, UNSEEN].any() and not confusions[-1][:, ~UNSEEN].any()
    pixels = sum(int((picture(seed)[1] != 255).sum()) for seed in (0, 1))
    assert (confusions.sum((1, 2)) == pixels).all()


def test_unseen_classes_alone():
    logits, truth = picture(0)
    prediction = UNSEEN_INDICES[logits[:, UNSEEN_INDICES].argmax(1)[0]]
    only = torch.where((truth == 3) | (truth == 5), truth, torch.tensor(255, dtype=torch.uint8))
    assert np.array_equal(swept([0]).unseen_only(), confusion_matrix(prediction, only, CLASSES).numpy())


def test_parts_of_several_processes_are_one_sweep_whatever_their_order():
    whole = GammaSweep.merged([swept([2, 0]), swept([1])])
    assert whole.ids == ["image0", "image1", "image2"]
    assert np.array_equal(whole.at(2).dense(), swept([0, 1, 2]).at(2).dense())
    assert np.array_equal(whole.confusions(), swept([0, 1, 2]).confusions())


def test_scores_of_both_groups_by_hand():
    confusion = np.zeros((5, 5), np.int64)  # background, seen a and b, unseen c and d
    confusion[1, 1], confusion[1, 3] = 6, 2  # a: 6 of 8 found, 2 taken for c
    confusion[2, 2] = 5
    confusion[3, 3], confusion[3, 1] = 1, 3
    scores = split_scores(outcomes(confusion), [1, 2], [3, 4])
    a, c = 6 / (8 + 3), 1 / (4 + 2)
    assert scores["seen_mIoU"] == pytest.approx((a + 1) / 2)
    assert scores["unseen_mIoU"] == pytest.approx(c)  # d is in neither truth nor prediction
    assert scores["mIoU"] == pytest.approx((a + 1 + c) / 3)
    assert scores["harmonic_mIoU"] == pytest.approx(2 * c * (a + 1) / 2 / (c + (a + 1) / 2))
    zero = split_scores(outcomes(confusion), [1, 2], [3, 4], absent="zero")
    assert zero["unseen_mIoU"] == pytest.approx(c / 2) and zero["seen_mIoU"] == scores["seen_mIoU"]


def test_many_draws_are_scored_at_once():
    drawn = np.random.default_rng(0).integers(0, 9, (7, CLASSES, 3))
    together = split_scores(drawn, [1, 2, 4], [3, 5])
    for n in range(7):
        assert together["seen_mIoU"][n] == pytest.approx(np.mean(class_iou(drawn[n])[[1, 2, 4]]))
        assert together["harmonic_mIoU"][n] == pytest.approx(split_scores(drawn[n], [1, 2, 4], [3, 5])["harmonic_mIoU"])


def test_no_pixel_of_a_group_has_no_score_rather_than_zero():
    nothing = np.zeros((CLASSES, 3), np.int64)
    assert np.isnan(mean_iou(nothing, [3, 5])) and mean_iou(nothing, [3, 5], "zero") == 0
    assert harmonic(np.float64(0), np.float64(0)) == 0 and np.isnan(harmonic(np.float64(0.5), np.float64(np.nan)))


def test_area_is_that_under_the_frontier():
    """(0, .8), (.3, .6), (.5, .2) and the point (.2, .1), which (.3, .6) beats."""
    unseen, seen = np.array([0, 0.3, 0.2, 0.5]), np.array([0.8, 0.6, 0.1, 0.2])
    assert area_under_frontier(unseen, seen) == pytest.approx(0.3 * 0.6 + 0.2 * 0.2)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8), st.data())
def test_more_points_never_take_area_away(points, data):
    unseen, seen = np.array(points).T
    kept = data.draw(st.lists(st.sampled_from(range(len(points))), min_size=1, unique=True))
    area = area_under_frontier(unseen, seen)
    assert area_under_frontier(unseen[kept], seen[kept]) <= area + 1e-12 and 0 <= area <= 1
