"""Annotation cost: published seconds an image from single acts, supports, and what the novel classes take of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segladder.data.labels.annotation_cost import Labelling, annotation_cost, supports
from segladder.data.labels.kinds import kinds
from segladder.data.labels.prices import Prices
from segladder.errors import ConfigError


@pytest.mark.parametrize(
    ("labels", "published"),
    [("names", 0), ("tags", 20.0), ("points", 22.1), ("scribbles", 34.9), ("boxes", 38.1), ("masks", 239.7)],
)
def test_an_image_of_voc_costs_what_was_published(labels, published):
    assert Labelling(kinds()[labels], images=1).seconds() == pytest.approx(published, abs=0.051)
    cost = annotation_cost(kinds()[labels], 1000)
    assert cost["seconds"] == pytest.approx(1000 * published, abs=51)
    assert cost["seconds_per_image"] == pytest.approx(published, abs=0.11)
    assert (cost["novel_seconds"], cost["labels"], cost["novel_labels"]) == (0, labels, [])


def test_boxes_drawn_from_corner_to_corner_cost_three_times_as_much():
    assert Labelling(kinds()["boxes"], images=1).seconds(Prices(box=34.5)) == pytest.approx(115.1, abs=0.05)


def test_counted_classes_replace_the_mean():
    """100 images, 15 classes, 120 (image, class) pairs: 1380 checks and 120 classes of 2.8 / 1.5 objects."""
    assert Labelling(kinds()["masks"], 100, classes=15, held=120).seconds() == pytest.approx(
        1380 + 120 * 79 * 2.8 / 1.5
    )
    assert Labelling(kinds()["tags"], 100, classes=15, held=120).seconds() == 1500
    assert Labelling(kinds()["points"], 100, classes=15, held=120).seconds(Prices(presence=2, point=3)) == 2760 + 360


@pytest.mark.parametrize(("annotation", "each"), [("mask", 147.5), ("box", 13.1), ("scribble", 10.9), ("point", 2.4)])
def test_a_support_is_found_already(annotation, each):
    assert supports(5, 4, annotation).seconds() == pytest.approx(20 * each, abs=1)


def test_supports_are_the_novel_part_of_a_few_shot_run():
    base = annotation_cost(kinds()["masks"], 200, classes=15)
    cost = annotation_cost(kinds()["masks"], 200, classes=15, novel=[supports(1, 5), supports(2, 5, "point")])
    assert cost["novel_seconds"] == pytest.approx(5 * 147.47 + 10 * 2.4, abs=0.1)
    assert cost["seconds"] == pytest.approx(base["seconds"] + cost["novel_seconds"], abs=0.11)
    assert cost["seconds_per_image"] == base["seconds_per_image"] == pytest.approx(13.5 + 2.8 * 79)
    assert cost["novel_labels"] == ["masks", "points"]


def test_a_method_that_does_not_learn_pays_for_supports_alone():
    cost = annotation_cost(kinds()["masks"], 0, novel=[supports(1, 1, "scribble")])
    assert cost["seconds"] == cost["novel_seconds"] == 10.9 and cost["seconds_per_image"] == 0


@given(st.integers(1, 500), st.integers(1, 30), st.floats(0, 1))
def test_more_detailed_labels_cost_more(images, classes, share):
    held = share * images * classes
    seconds = [Labelling(labels, images, classes, held).seconds() for labels in kinds().values()]
    assert seconds == sorted(seconds)


def test_an_unknown_annotation_of_supports_is_named():
    with pytest.raises(ConfigError, match="support_annotation=tag: choose from point, scribble, box, mask"):
        supports(1, 5, "tag")
