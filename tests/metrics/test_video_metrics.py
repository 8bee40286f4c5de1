"""J, F and their statistics against the definitions, pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.metrics.bootstrap import estimate
from segladder.metrics.counts import Asked, Counts
from segladder.metrics.formulas import region_similarities
from segladder.metrics.scores import FromCounts
from segladder.metrics.video import contour, contour_accuracy

SEEDS = st.integers(0, 10**6)


def blob(seed, size=(18, 25)):
    """A few overlapping rectangles, some seeds empty or full."""
    random = np.random.default_rng(seed)
    mask = np.full(size, seed % 7 == 0, np.uint8)
    for _ in range(random.integers(0, 4)):
        y, x = (random.integers(0, n) for n in size)
        mask[y : y + random.integers(1, 14), x : x + random.integers(1, 14)] ^= 1
    return mask


def counted(*frames):
    """Counts of frames, each a prediction and its truth."""
    counts = Counts(2)
    for number, (prediction, truth) in enumerate(frames):
        matrix = np.bincount(2 * truth.ravel().astype(int) + prediction.ravel(), minlength=4)
        counts.add(Asked(f"video/{number:05}", unit="video"), matrix)
    return counts


def of_video(values, kind, suffix=""):
    """What J comes to over frames that have these values."""
    counts = Counts(2)
    for number, value in enumerate(values):
        hits = round(value * 10**9)
        counts.add(Asked(f"video/{number:05}", unit="video"), [[0, 0], [10**9 - hits, hits]])
    return estimate(counts, FromCounts(f"J_{kind}{suffix}"), draws=0).value


def slow_contour(mask):
    height, width = mask.shape
    points = set()
    for y in range(height):
        for x in range(width):
            others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(mask[min(j, height - 1), min(i, width - 1)] != mask[y, x] for j, i in others):
                points.add((y, x))
    return points


def share_near(points, others, radius):
    near = sum(any((y - j) ** 2 + (x - i) ** 2 <= radius**2 for j, i in others) for y, x in points)
    return near / len(points)


def slow_contour_accuracy(prediction, truth, bound):
    first, second = slow_contour(prediction), slow_contour(truth)
    radius = math.ceil(bound * math.sqrt(truth.shape[0] ** 2 + truth.shape[1] ** 2))
    precision = share_near(first, second, radius) if first else 1.0
    recall = share_near(second, first, radius) if second else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(max_examples=40, deadline=None)
@given(SEEDS, SEEDS)
def test_region_similarity_is_the_iou_of_pixel_sets(first, second):
    prediction, truth = blob(first), blob(second)
    a, b = ({*zip(*np.nonzero(mask), strict=True)} for mask in (prediction, truth))
    expected = len(a & b) / len(a | b) if a | b else 1.0
    assert region_similarities(counted((prediction, truth))).tolist() == [expected]


@settings(max_examples=40, deadline=None)
@given(SEEDS, SEEDS, st.sampled_from([0.008, 0.03, 0.1]))
def test_contour_accuracy_equals_the_definition(first, second, bound):
    prediction, truth = blob(first), blob(second)
    found = contour_accuracy(prediction, truth, bound)
    assert found == pytest.approx(slow_contour_accuracy(prediction, truth, bound), abs=1e-12)
    assert found == pytest.approx(contour_accuracy(truth, prediction, bound), abs=1e-12)


def test_the_contour_is_where_the_mask_changes_and_not_the_border():
    mask = np.zeros((5, 6), np.uint8)
    mask[2:, 3:] = 1
    assert {*zip(*np.nonzero(contour(mask)), strict=True)} == {(1, 2), (1, 3), (1, 4), (1, 5), (2, 2), (3, 2), (4, 2)}
    assert not contour(np.ones((5, 6), np.uint8)).any()


def test_empty_masks():
    empty, square = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    square[5:10, 5:10] = 1
    assert region_similarities(counted((empty, empty))) == contour_accuracy(empty, empty) == 1
    for pair in ((empty, square), (square, empty)):
        assert region_similarities(counted(pair)) == contour_accuracy(*pair) == 0


def test_a_shift_within_the_bound_costs_no_contour_accuracy():
    truth, shifted = np.zeros((240, 320), np.uint8), np.zeros((240, 320), np.uint8)  # a diagonal of 400: 4 pixels
    truth[50:150, 80:200] = 1
    shifted[50:150, 84:204] = 1
    assert contour_accuracy(shifted, truth) == 1
    assert contour_accuracy(np.roll(shifted, 1, 1), truth) < 1


def test_masks_of_different_size_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 5\), expected \(5, 4\)"):
        contour_accuracy(np.zeros((4, 5)), np.zeros((5, 4)))


@pytest.mark.parametrize(
    ("frames", "first", "last"),
    [
        (1, [0], [0]),
        (2, [0], [1]),
        (9, [0, 1, 2], [6, 7, 8]),
        (10, [0, 1, 2], [7, 8, 9]),
        (11, [0, 1, 2, 3], [8, 9, 10]),
    ],
)
def test_decay_compares_the_outer_quarters(frames, first, last):
    """Ends at 0, (n - 1) / 4 ... rounded half up, both included."""
    values = np.random.default_rng(frames).random(frames)
    mean, recall, decay = (of_video(values, kind) for kind in ("mean", "recall", "decay"))
    assert mean == pytest.approx(sum(values) / frames)
    assert recall == pytest.approx(len([v for v in values if v > 0.5]) / frames)
    assert decay == pytest.approx(sum(values[first]) / len(first) - sum(values[last]) / len(last))


def test_a_score_of_one_half_is_no_recall_and_long_videos_have_quarters():
    assert of_video([0.5, 0.5], "recall") == 0
    assert of_video(np.linspace(1, 0, 1001), "decay") == pytest.approx(0.75)
    assert of_video([1, 0.5, 0], "mean", "_without_last") == 0.75


def test_a_video_counts_as_much_as_another_however_long():
    counts = Counts(2)
    for video, frames, hits in (("long", 9, 10), ("short", 2, 0)):
        for number in range(frames):
            counts.add(Asked(f"{video}/{number}", unit=video), [[0, 0], [10 - hits, hits]])
    assert estimate(counts, FromCounts("J_mean"), draws=0).value == pytest.approx(0.5)
