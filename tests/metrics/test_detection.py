"""Mask AP is the number of the libraries that define it, for all images and for any of them alone."""

import contextlib
import io

import numpy as np
import pytest
import torch

from segladder.errors import DataError
from segladder.metrics.bootstrap import compare, estimate, under_draws
from segladder.metrics.counts import Counts
from segladder.metrics.detection import AREAS, RECALLS, THRESHOLDS, matches
from segladder.metrics.formulas import FORMULAS
from segladder.metrics.scores import FromCounts

pytest.importorskip("pycocotools", reason="mask AP needs the extra `coco`")
SIDE, CLASSES, LIMITS = 48, 4, (40.0, 150.0)


def rectangles(random, count):
    """Masks bool (count, SIDE, SIDE) of random rectangles."""
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask in masks:
        top, left = random.integers(0, SIDE - 16, 2)
        height, width = random.integers(4, 17, 2)
        mask[top : top + height, left : left + width] = True
    return masks


def image(random):
    """Found and true objects of an image: some found as they are, some moved, some invented, some missed."""
    true = rectangles(random, int(random.integers(0, 6)))
    true_classes = random.integers(1, CLASSES, len(true))
    moved = np.array([np.roll(mask, random.integers(0, 4), 1) for mask in true[: len(true) - 1]]).reshape(
        -1, SIDE, SIDE
    )
    found = np.concatenate([moved, rectangles(random, int(random.integers(0, 4)))])
    classes = np.concatenate([true_classes[: len(moved)], random.integers(1, CLASSES, len(found) - len(moved))])
    return found.astype(bool), classes, random.random(len(found), np.float32), true, true_classes


@pytest.fixture(scope="module")
def images():
    random = np.random.default_rng(3)
    return [image(random) for _ in range(25)]


def counts_of(images):
    counts = Counts(CLASSES, {"things": [1, 2, 3], "odd": [1, 3]})
    for number, each in enumerate(images):
        counts.add(f"image{number:02d}", np.eye(CLASSES, dtype=int), matches(*each, LIMITS))
    return counts


def library(images):
    """The same by pycocotools from end to end: precision (thresholds, recalls, classes, areas), -1 for none."""
    from pycocotools import mask as codec
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    true, found = [], []
    for number, (masks, classes, scores, true_masks, true_classes) in enumerate(images):
        for side, entries in ((true, (true_masks, true_classes)), (found, (masks, classes, scores))):
            for mask, k, *sure in zip(*entries, strict=True):
                code = codec.encode(np.asfortranarray(mask, np.uint8))
                entry = {"id": len(side) + 1, "image_id": number, "category_id": int(k), "segmentation": code}
                side.append({**entry, "area": float(mask.sum()), "iscrowd": 0, "score": float(sum(sure))})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        pictures = [{"id": number, "height": SIDE, "width": SIDE} for number in range(len(images))]
        coco.dataset = {"images": pictures, "categories": [{"id": k} for k in range(1, CLASSES)], "annotations": true}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.params.areaRng = [[0, 1e10], [0, LIMITS[0]], list(LIMITS), [LIMITS[1], 1e10]]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1]


def mean(precision):
    return precision[precision > -1].mean()


def score(counts, name, *groups):
    return estimate(counts, FromCounts(name, groups), draws=0).value


def test_ap_is_that_of_pycocotools(images):
    counts, precision = counts_of(images), library(images)
    assert 0.1 < mean(precision) < 0.9
    for name, expected in [
        ("average_precision", precision[..., 0]),
        ("average_precision_50", precision[0, ..., 0]),
        ("average_precision_75", precision[5, ..., 0]),
        *((f"average_precision_{area}", precision[..., place]) for place, area in enumerate(AREAS) if place),
    ]:
        assert score(counts, name) == pytest.approx(mean(expected), abs=1e-12), name
    each = under_draws(counts, FromCounts("class_average_precision"), draws=0)[0]
    assert np.isnan(each[0]) and each[1:] == pytest.approx([mean(precision[..., k, 0]) for k in range(3)], abs=1e-12)


def test_ap_is_that_of_torchmetrics(images):
    """Where each image has something true and something found: torchmetrics 1.9 leaves the others out."""
    from torchmetrics.detection import MeanAveragePrecision

    full = [each for each in images if len(each[0]) and len(each[3])]
    exact = {"iou_thresholds": list(THRESHOLDS), "rec_thresholds": RECALLS.tolist()}  # its own are rounded to float32
    metric = MeanAveragePrecision(iou_type="segm", backend="pycocotools", **exact)
    for found, classes, scores, true, true_classes in full:
        said = {"masks": torch.tensor(found), "labels": torch.tensor(classes), "scores": torch.tensor(scores)}
        metric.update([said], [{"masks": torch.tensor(true), "labels": torch.tensor(true_classes)}])
    expected, counts = metric.compute(), counts_of(full)
    for name, key in (("average_precision", "map"), ("average_precision_50", "map_50")):
        assert score(counts, name) == pytest.approx(float(expected[key]), abs=1e-7)


def test_an_image_that_counts_not_at_all_might_as_well_not_be_there(images):
    counts, kept = counts_of(images), [0, 2, 3, 7, 11, 12, 20]
    rule = FORMULAS["average_precision"]
    weights = np.zeros((2, len(images)))
    weights[0, kept], weights[1] = 1, 1
    scores = rule.under(rule.gathered(counts, np.arange(len(images)), len(images), "pooled"), weights, [], "skip")
    expected = [mean(library([images[i] for i in kept])[..., 0]), mean(library(images)[..., 0])]
    assert scores == pytest.approx(expected, abs=1e-12)


def test_an_image_drawn_twice_counts_twice():
    """One image finds its object, one misses and invents a surer one: AP follows from the weights by hand."""
    one = rectangles(np.random.default_rng(0), 1)
    other = np.roll(one, SIDE // 2, (1, 2))
    right = one, np.array([1]), np.array([0.5], np.float32), one, np.array([1])
    wrong = other, np.array([1]), np.array([0.9], np.float32), one, np.array([1])
    counts, rule = counts_of([right, wrong]), FORMULAS["average_precision_50"]
    weights = np.array([[1.0, 1], [2, 1], [1, 2], [2, 0]])
    found = rule.under(rule.gathered(counts, np.arange(2), 2, "pooled"), weights, [], "skip")
    reached = [51, 67, 34, 101]  # of 101 recalls: 0 to 1/2, to 2/3, to 1/3, to 1
    assert found == pytest.approx(
        [n / 101 * a / (a + b) for n, (a, b) in zip(reached, weights, strict=True)], abs=1e-12
    )


@pytest.mark.parametrize(("invented", "expected"), [(99, 1 / 100), (100, 0)])
def test_only_the_surest_hundred_of_a_class_count(invented, expected):
    true = rectangles(np.random.default_rng(0), 1)
    found = np.concatenate([np.roll(true, SIDE // 2, 1)] * invented + [true])
    scores = np.linspace(0.9, 0.1, invented + 1, dtype=np.float32)
    counts = counts_of([(found, np.ones(invented + 1, int), scores, true, np.array([1]))])
    assert score(counts, "average_precision") == pytest.approx(expected, abs=1e-12)


def weak_detections(random, images, classes=8):
    """Counts of a detector that finds less than half of the objects and invents twice as many."""
    counts = Counts(classes)
    for n in range(images):
        true = np.repeat(np.arange(classes, dtype=np.uint16), random.poisson(0.3, classes))
        found = true[random.random(len(true)) < 0.45]
        invented = np.repeat(np.arange(classes, dtype=np.uint16), random.poisson(0.8, classes))
        surer = np.repeat([0.9, 0], [len(found), len(invented)])
        lists = {
            "found_class": np.concatenate([found, invented]),
            "found_score": (surer + random.normal(size=len(surer))).astype(np.float32),
            "found_right": np.where(surer > 0, (1 << 40) - 1, 0).astype(np.uint64),
            "found_ignored": np.zeros(len(surer), np.uint64),
            "true_class": true,
            "true_area": np.ones(len(true), np.uint8),
        }
        counts.add(f"{n:05}", np.zeros((classes, classes), int), lists)
    return counts


@pytest.mark.slow
def test_intervals_hold_the_average_precision_of_weak_detectors():
    """Few images flatter it, and draws of them do so once more: percentiles of the draws held it in 6 of 10 worlds."""
    random, rule, worlds = np.random.default_rng(0), FromCounts("average_precision_50"), 60
    truth = under_draws(weak_detections(random, 6000), rule, draws=0)[0]
    found = [estimate(weak_detections(random, 60), rule, draws=200) for _ in range(worlds)]
    assert np.mean([one.value for one in found]) > truth + 0.02
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.85


def test_groups_choose_classes(images):
    counts = counts_of(images)
    each = under_draws(counts, FromCounts("class_average_precision"), draws=0)[0]
    assert score(counts, "average_precision", "odd") == pytest.approx(each[[1, 3]].mean())


def test_counts_of_objects_are_kept_whole(images, tmp_path):
    counts = counts_of(images)
    counts.save(tmp_path / "counts.npz")
    loaded = Counts.load(tmp_path / "counts.npz")
    again, value = (estimate(c, FromCounts("average_precision"), draws=200) for c in (loaded, counts))
    assert again == value and value.low < value.value < value.high
    halves = Counts.merged([counts.select(range(0, 25, 2)), counts.select(range(1, 25, 2))])
    assert estimate(halves, FromCounts("average_precision"), draws=200) == value


def test_lists_that_do_not_fit_the_images_are_refused(images, tmp_path):
    counts_of(images).save(tmp_path / "counts.npz")
    with np.load(tmp_path / "counts.npz") as stored:
        arrays = dict(stored)
    arrays["ends_found_class"][-1] += 1
    np.savez(tmp_path / "counts.npz", **arrays)
    with pytest.raises(DataError, match=r"counts.npz: no counts of images \(25 lists for 25 images that do not fit\)"):
        Counts.load(tmp_path / "counts.npz")


def test_a_better_finder_is_better_in_a_paired_test(images):
    perfect = [(true, classes, np.ones(len(true), np.float32), true, classes) for *_, true, classes in images]
    found = compare(counts_of(perfect), counts_of(images), FromCounts("average_precision"), draws=300)
    assert 0 < found.low < found.difference < found.high and found.p_value < 0.05


def test_nothing_true_has_no_score_and_nothing_found_has_none_of_it(images):
    nothing = np.zeros((0, SIDE, SIDE), bool), np.zeros(0, int), np.zeros(0, np.float32)
    found, classes, scores, true, true_classes = next(each for each in images if len(each[0]) and len(each[3]))
    assert np.isnan(score(counts_of([(found, classes, scores, *nothing[:2])]), "average_precision"))
    assert score(counts_of([(*nothing, true, true_classes)]), "average_precision") == 0
    assert np.isnan(score(counts_of([(*nothing, *nothing[:2])]), "average_precision"))


def test_flags_fit_their_numbers():
    assert len(THRESHOLDS) * len(AREAS) <= 64
