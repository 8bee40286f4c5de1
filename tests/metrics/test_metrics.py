"""Confusion matrix, IoU family, per-image counts and results by size against slow references."""

import json
import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from segladder.errors import ConfigError, DataError
from segladder.metrics.confusion import ConfusionMatrix, confusion_matrix
from segladder.metrics.counts import Asked, Counts, outcomes
from segladder.metrics.ladder import among_all, binary
from segladder.metrics.overlap import (
    frequency_weighted_iou,
    iou,
    mean_accuracy,
    over_activation,
    per_class,
    pixel_accuracy,
    precision,
    recall,
    summary,
    under_activation,
)
from segladder.metrics.size import iou_by_size, outcomes_by_size

DTYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


def label_maps(seed, classes=5, shape=(2, 7, 9), ignored=0.2):
    """Random predictions and targets, with ignored pixels and often absent classes."""
    random = np.random.default_rng(seed)
    present = random.choice(classes, random.integers(1, classes + 1), replace=False)
    target = random.choice(present, shape)
    target[random.random(shape) < ignored] = 255
    return torch.from_numpy(random.integers(0, classes, shape)), torch.from_numpy(target)


def brute_force(pred, target, classes, ignore_index=255):
    matrix = np.zeros((classes, classes), np.int64)
    for guess, truth in zip(pred.flatten().tolist(), target.flatten().tolist(), strict=True):
        if truth != ignore_index:
            matrix[truth, guess] += 1
    return matrix


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 21), st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_matrix_equals_brute_force_for_every_type(seed, classes, pred_type, target_type):
    pred, target = label_maps(seed, classes)
    matrix = confusion_matrix(pred.to(pred_type), target.to(target_type), classes)
    assert matrix.dtype == torch.int64
    assert np.array_equal(matrix.numpy(), brute_force(pred, target, classes))


@pytest.mark.parametrize("ignore_index", [0, 3, -1, -100, 255, 1000, 2**40, None])
def test_any_value_can_be_ignored(ignore_index):
    pred, target = label_maps(1, ignored=0)
    if ignore_index is not None:
        target[0, :2] = ignore_index
    assert np.array_equal(
        confusion_matrix(pred, target, 5, ignore_index).numpy(), brute_force(pred, target, 5, ignore_index)
    )


@pytest.mark.parametrize("classes", [150, 1000, 5000])
def test_many_classes_do_not_overflow(classes):
    random = torch.Generator().manual_seed(0)
    pred, target = torch.randint(classes, (2, 500), generator=random)
    matrix = confusion_matrix(pred, target, classes, ignore_index=-1)
    where = matrix.nonzero().tolist()
    assert sorted((t, p) for t, p in where) == sorted(set(zip(target.tolist(), pred.tolist(), strict=True)))
    assert matrix.sum() == 500


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (dtype, value)
        for dtype in DTYPES
        for value in (5, 37, 254, 255, 256, -1, 2**31, 2**32 + 3, -(2**40))
        if torch.iinfo(dtype).min <= value <= torch.iinfo(dtype).max
    ],
)
def test_values_without_a_class_are_named(dtype, value):
    good, bad = torch.zeros(40, dtype=dtype), torch.zeros(40, dtype=dtype)
    bad[7] = value
    with pytest.raises(ValueError, match=f"prediction holds class {value}, expected 0..4"):
        confusion_matrix(bad, good, 5)
    if value != 255:
        with pytest.raises(ValueError, match=f"target holds class {value}, expected 0..4"):
            confusion_matrix(good, bad, 5)


def test_predictions_are_checked_under_ignored_pixels_too():
    with pytest.raises(ValueError, match="prediction holds class 9"):
        confusion_matrix(torch.tensor([0, 9]), torch.tensor([0, 255]), 5)


def test_wrong_forms_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\), target \(3,\)"):
        confusion_matrix(torch.zeros(2, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8), 5)
    with pytest.raises(ValueError, match=r"torch.float32: expected classes of an integer type"):
        confusion_matrix(torch.zeros(2), torch.zeros(2, dtype=torch.uint8), 5)


def test_nothing_and_only_ignored_pixels_count_nothing():
    empty = torch.zeros(0, dtype=torch.uint8)
    assert not confusion_matrix(empty, empty, 3).any()
    assert not confusion_matrix(torch.ones(4, dtype=torch.uint8), torch.full((4,), 255), 3).any()


def test_metric_sums_updates_and_starts_again_after_reset():
    pred, target = label_maps(2)
    metric = ConfusionMatrix(5)
    for part in (0, 1):
        metric.update(pred[part], target[part])
    assert torch.equal(metric.compute(), confusion_matrix(pred, target, 5))
    metric.reset()
    metric.update(pred[:1], target[:1])
    assert torch.equal(metric.compute(), confusion_matrix(pred[:1], target[:1], 5))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_iou_equals_scikit_learn_and_sets_of_pixels(seed, classes):
    pred, target = label_maps(seed, classes)
    scores = iou(confusion_matrix(pred, target, classes)).numpy()
    counted = (target != 255).numpy()
    truth, guess = target.numpy()[counted], pred.numpy()[counted]
    reference = jaccard_score(truth, guess, labels=range(classes), average=None, zero_division=0)
    for k in range(classes):
        union = ((truth == k) | (guess == k)).sum()
        assert math.isnan(scores[k]) if union == 0 else scores[k] == pytest.approx(reference[k], abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_family_equals_its_definitions(seed):
    pred, target = label_maps(seed)
    matrix = confusion_matrix(pred, target, 5)
    counted = target != 255
    pred, target = pred[counted], target[counted]
    for k in range(5):
        truth, guess = target == k, pred == k
        hits, union = int((truth & guess).sum()), int((truth | guess).sum())
        assert_share(precision(matrix)[k], hits, int(guess.sum()))
        assert_share(recall(matrix)[k], hits, int(truth.sum()))
        assert_share(over_activation(matrix)[k], int((guess & ~truth).sum()), union)
        assert_share(under_activation(matrix)[k], int((truth & ~guess).sum()), union)
    assert_share(pixel_accuracy(matrix), int((pred == target).sum()), len(target))
    present = [k for k in range(5) if (target == k).any()]
    recalls = [((pred == k) & (target == k)).sum() / (target == k).sum() for k in present]
    assert mean_accuracy(matrix) == pytest.approx(float(np.mean(recalls)), rel=1e-6)
    shares = iou(matrix)
    weighted = sum(float(shares[k]) * int((target == k).sum()) for k in present) / len(target)
    assert frequency_weighted_iou(matrix) == pytest.approx(weighted)


def assert_share(value, part, whole):
    assert math.isnan(value) if whole == 0 else float(value) == pytest.approx(part / whole, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_iou_and_both_activations_share_the_union(seed):
    matrix = confusion_matrix(*label_maps(seed), 5)
    total = iou(matrix) + over_activation(matrix) + under_activation(matrix)
    assert torch.allclose(total[~total.isnan()], torch.ones(1, dtype=torch.float64))


def test_absent_rules():
    matrix = torch.tensor([[8, 2, 0], [0, 0, 0], [0, 0, 0]])  # class 1 only predicted, class 2 absent
    assert iou(matrix).tolist()[:2] == [0.8, 0.0]
    assert math.isnan(iou(matrix)[2])
    assert iou(matrix, "zero").tolist() == [0.8, 0.0, 0.0]
    assert summary(matrix)["mIoU"] == pytest.approx(0.4)
    assert summary(matrix, "zero")["mIoU"] == pytest.approx(0.8 / 3)
    with pytest.raises(ConfigError, match="absent=never: expected skip or zero"):
        iou(matrix, "never")


def test_scores_without_pixels_are_nan():
    scores = summary(torch.zeros(3, 3, dtype=torch.int64))
    assert all(math.isnan(value) for value in scores.values())


def test_per_class_rows():
    rows = per_class(torch.tensor([[6, 2], [1, 3]]), ["background", "cat"])
    assert [row["class"] for row in rows] == ["background", "cat"]
    assert rows[1] == {
        "class": "cat",
        "iou": 3 / 6,
        "precision": 3 / 5,
        "recall": 3 / 4,
        "over_activation": 2 / 6,
        "under_activation": 1 / 6,
        "pixels": 4,
    }


def counted_images(number=6, classes=4, seed=0):
    counts, matrices = Counts(classes), []
    for i in range(number):
        pred, target = label_maps(seed + i, classes)
        matrices.append(confusion_matrix(pred, target, classes))
        counts.add(f"image/{i}", matrices[-1])
    return counts, torch.stack(matrices).numpy()


def test_image_counts_hold_every_matrix_and_their_sum():
    counts, matrices = counted_images()
    assert np.array_equal(counts.dense(), matrices)
    assert np.array_equal(counts.total(), matrices.sum(0))
    expected = [float(iou(torch.from_numpy(matrix)).nanmean()) for matrix in matrices]
    assert counts.image_iou() == pytest.approx(expected)
    hits = np.einsum("nkk->nk", matrices)
    assert np.array_equal(outcomes(matrices)[..., 1], matrices.sum(1) - hits)  # false positives: the rest of a column
    assert np.array_equal(outcomes(matrices)[..., 2], matrices.sum(2) - hits)


def test_image_counts_survive_the_disk(tmp_path):
    counts, _ = counted_images()
    counts.add("blank", torch.zeros(4, 4, dtype=torch.int64))
    counts.save(tmp_path / "deep" / "counts.npz")
    again = Counts.load(tmp_path / "deep" / "counts.npz")
    assert again.asked == counts.asked
    assert np.array_equal(again.dense(), counts.dense())
    assert math.isnan(again.image_iou()[-1])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["counts.npz"]
    Counts(3).save(tmp_path / "none.npz")
    assert Counts.load(tmp_path / "none.npz").total().tolist() == [[0] * 3] * 3


@pytest.mark.parametrize(("classes", "pixels"), [(4, 200_000), (300, 7)])
def test_large_images_and_many_classes_survive_the_disk(tmp_path, classes, pixels):
    counts, matrix = Counts(classes), np.zeros((classes, classes), np.int64)
    matrix[0, 1], matrix[-1, -1] = 3, pixels
    counts.add("image", matrix)
    counts.save(tmp_path / "counts.npz")
    assert np.array_equal(Counts.load(tmp_path / "counts.npz").total(), matrix)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off", b"no archive"])
def test_damaged_image_counts_are_named(tmp_path, content):
    path = tmp_path / "counts.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"counts\.npz: no counts of images"):
        Counts.load(path)


@pytest.mark.parametrize(
    "about", [{"num_classes": 10**9}, {"num_classes": "3"}, {"fold": [1]}, {"seed": {}}, {"measured_F": [["a"]]}]
)
def test_image_counts_of_what_nobody_counts_are_named(tmp_path, about):
    counts, _ = counted_images()
    counts.save(tmp_path / "counts.npz")
    with np.load(tmp_path / "counts.npz") as stored:
        arrays = dict(stored)
    measured = {name: about.pop(name) for name in list(about) if name.startswith("measured")}
    arrays["about"] = np.array(json.dumps(json.loads(str(arrays["about"])) | about))
    np.savez(tmp_path / "counts.npz", **arrays, **measured)
    with pytest.raises(DataError, match=r"counts\.npz: no counts of images"):
        Counts.load(tmp_path / "counts.npz")


def test_image_counts_cut_off_anywhere_are_named(tmp_path):
    counts, _ = counted_images()
    counts.save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "part.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"part\.npz"):
            Counts.load(tmp_path / "part.npz")


def test_merging_the_counts_of_processes_equals_counting_in_one():
    counts, matrices = counted_images()
    parts = [counts.select([1, 3, 5]), counts.select([0, 2, 4])]
    merged = Counts.merged(parts)
    assert np.array_equal(merged.total(), matrices.sum(0))
    assert np.array_equal(merged.dense(), matrices) and merged.images == counts.images
    with pytest.raises(DataError, match="image/1: counted twice"):
        Counts.merged([parts[0], parts[0]])


def test_parts_of_counts_know_fold_seed_and_groups():
    counts, _ = counted_images()
    counts.fold, counts.seed, counts.groups = 2, 5, {"novel": (2, 3)}
    parts = counts.select([0, 1]), counts.select([2, 3])
    for part in (*parts, Counts.merged(parts), counts.of_kinds(), counts.sorted(), counts.bare()):
        assert (part.fold, part.seed, part.groups) == (2, 5, {"novel": (2, 3)})


def test_counts_say_what_was_asked_in_fields(tmp_path):
    """Nothing is parsed back: names may hold what separates names elsewhere."""
    rows = [
        Asked("cat, front|1", (2, 3), "hard", 7, ("a|b", "c,d", "e", "f"), "video"),
        Asked("cat, front|1", (2,), "", 0, ("a|b",)),
        Asked("plain"),
    ]
    counts = Counts(4, {"novel": (2, 3), "base": (1,)})
    counts.fold, counts.seed = 2, 5
    for n, row in enumerate(rows):
        counts.add(row, np.eye(4, dtype=int) * n, contours=n / 3)
    counts.save(tmp_path / "counts.npz")
    again = Counts.load(tmp_path / "counts.npz")
    assert again.asked == rows and (again.fold, again.seed) == (2, 5)
    assert again.groups == {"novel": (2, 3), "base": (1,)} and again.measured == {"contours": [0, 1 / 3, 2 / 3]}
    assert [row.drawn for row in again.asked] == ["video", "cat, front|1", "plain"]
    assert again.of_kinds("hard").asked == rows[:1] and again.of_kinds().asked == rows
    assert [row.supports for row in again.bare().asked] == [()] * 3 and again.bare().images == counts.images
    assert np.array_equal(again.outcomes(), outcomes(again.dense()))


def test_counts_of_older_versions_are_told_apart(tmp_path):
    np.savez(tmp_path / "counts.npz", num_classes=3, ids=["a"], ends=[0], cells=[], pixels=[])
    with pytest.raises(DataError, match="counts of an older version; score the run again"):
        Counts.load(tmp_path / "counts.npz")


def test_size_is_the_share_of_counted_pixels():
    confusions = np.array([
        [[96, 0], [1, 3]],  # 4 % of the image: small
        [[90, 0], [5, 5]],  # 10 %: medium
        [[40, 20], [10, 30]],  # 40 %: large, with 20 false positives
        [[90, 10], [0, 0]],  # no item: its false positives have no size
    ])  # fmt: skip
    pooled = outcomes_by_size(outcomes(confusions))
    assert pooled[1].tolist() == [[3, 0, 1], [5, 0, 5], [30, 20, 10]]
    assert iou_by_size(outcomes(confusions)) == {"small": 3 / 4, "medium": 5 / 10, "large": 30 / 60}
    assert math.isnan(iou_by_size(outcomes(confusions[2:]))["small"])


def test_sizes_are_pooled_over_images_then_averaged_over_classes():
    confusions = np.zeros((3, 3, 3), np.int64)
    confusions[:, 0, 0] = 98
    confusions[0, 1] = [1, 1, 0]  # class 1: 1 of 2
    confusions[1, 1] = [0, 2, 0]  # class 1: 2 of 2, so 3 of 4
    confusions[2, 2] = [2, 0, 0]  # class 2: 0 of 2
    assert iou_by_size(outcomes(confusions))["small"] == pytest.approx((3 / 4 + 0) / 2)


def test_sums_of_each_image_hold_no_matrix_of_all_classes_for_each():
    counts = Counts(200)
    for n in range(100):
        matrix = np.zeros((200, 200), np.int64)
        matrix[n, n] = matrix[n, 0] = 5
        for kind in "ab":
            counts.add(Asked(f"{n}", (1,), kind), matrix)
    tracemalloc.start()
    whole, (_, peak) = counts.by_image(), tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(whole.dense(), counts.dense().reshape(100, 2, 200, 200).sum(1))
    assert peak < 10 * 200**2 * 8


def test_answers_for_one_class_are_four_numbers():
    confusion = np.arange(9).reshape(3, 3)
    assert binary(confusion, 1, 1).tolist() == [[0 + 2 + 6 + 8, 1 + 7], [3 + 5, 4]]
    painted = np.stack([confusion[:, [0, 2]].sum(1), confusion[:, 1]], 1)  # (K, 2)
    assert np.array_equal(binary(painted, 1, column=1), binary(confusion, 1, 1))
    assert among_all(binary(confusion, 1, 1), 1, 3).tolist() == [[16, 8, 0], [8, 4, 0], [0, 0, 0]]
