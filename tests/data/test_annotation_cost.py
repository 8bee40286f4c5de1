"""Annotation cost: published seconds an image from single acts, supports, and what the novel classes take of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segladder.data.labels.annotation_cost import SCHEME, Labelling, annotation_cost, supports
from segladder.data.labels.kinds import kinds
from segladder.data.labels.kinds.boxes import Boxes
from segladder.data.labels.kinds.masks import Masks
from segladder.data.labels.kinds.points import Points
from segladder.data.labels.labelled import Labelled, joined, seconds_of
from segladder.data.labels.prices import VOC_PRICES, Prices
from segladder.data.sources.shapes import Shapes
from segladder.errors import ConfigError
from segladder.runs.composition import composed
from segladder.runs.instantiation import instantiated

OUTLINE = VOC_PRICES.objects_of_class * VOC_PRICES.mask


@pytest.mark.parametrize(
    ("labels", "published"),
    [("names", 0), ("tags", 20.0), ("points", 22.1), ("scribbles", 34.9), ("boxes", 38.1), ("masks", 239.7)],
)
def test_an_image_of_voc_costs_what_was_published(labels, published):
    assert Labelling(kinds()[labels], images=1).seconds() == pytest.approx(published, abs=0.051)


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


def labelled(kind, classes="abc", data="voc", searched=True, **held):
    return Labelled(data, kind, tuple(classes), {i: tuple(names) for i, names in held.items()}, searched)


def test_supports_are_the_novel_part_of_a_few_shot_run():
    base = [labelled("masks", one="a", two="ab")]
    cost = annotation_cost(Masks(), base, novel="de", supports=[supports(1, 5), supports(2, 5, "point")])
    assert cost["novel_seconds"] == pytest.approx(5 * OUTLINE + 10 * 2.4, abs=0.1)
    assert cost["seconds"] == pytest.approx(3 * OUTLINE + 3 + cost["novel_seconds"], abs=0.1)
    assert cost["seconds_per_image"] == pytest.approx(1.5 * OUTLINE + 1.5, abs=0.1)
    assert cost["novel_labels"] == ["points", "masks"] and cost["scheme"] == SCHEME


def test_a_method_that_does_not_learn_pays_for_supports_alone():
    cost = annotation_cost(Masks(), [], novel="a", supports=[supports(1, 1, "scribble")])
    assert cost["seconds"] == cost["novel_seconds"] == 10.9 and cost["seconds_per_image"] == 0


def test_labels_that_two_runs_share_count_once_and_a_mask_tells_the_tag():
    tags, masks = labelled("tags", one="a", two="", three="c"), labelled("masks", "ab", two="", three="", four="ab")
    assert seconds_of([tags], VOC_PRICES) == seconds_of([tags, tags], VOC_PRICES) == 9
    assert seconds_of([tags, masks], VOC_PRICES) == pytest.approx(9 + 2 * OUTLINE)
    assert seconds_of([tags, masks], VOC_PRICES, "b") == pytest.approx(3 + OUTLINE)
    assert seconds_of([labelled("masks", one="a")], VOC_PRICES) == pytest.approx(OUTLINE + 2)
    assert seconds_of([labelled("masks", one="a"), tags], VOC_PRICES) == pytest.approx(OUTLINE + 2 + 6)
    assert seconds_of([tags, labelled("tags", data="else", one="a")], VOC_PRICES) == 12
    few = labelled("masks", searched=False, one="a", five="b")
    assert seconds_of([few], VOC_PRICES) == pytest.approx(2 * OUTLINE)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["tags", "points", "masks"])), max_size=5))
def test_a_union_costs_no_more_than_its_parts_and_no_less_than_any(parts):
    blocks = [labelled(kind, held, one=held, two="") for held, kind in parts]
    each, whole = [seconds_of([block], VOC_PRICES) for block in blocks], seconds_of(joined(blocks), VOC_PRICES)
    assert max(each, default=0) - 1e-9 <= whole <= sum(each) + 1e-9
    assert whole == pytest.approx(seconds_of(blocks, VOC_PRICES))


def test_clicks_and_boxes_that_were_counted_are_paid_for():
    """Three classes looked for in two images; `one` holds a and c."""
    clicks = replace(labelled("points", one="ac", two=""), acts={"one": (3, 3)}, background=3)
    assert seconds_of([clicks], VOC_PRICES) == pytest.approx(4 * 1 + 2 * 3 * 2.4 + 2 * 3 * 2.4)
    assert seconds_of([clicks], VOC_PRICES, "c") == pytest.approx(1 + 3 * 2.4 + 2 * 3 * 2.4)
    assert seconds_of([clicks], VOC_PRICES, "x") == 0
    boxes = replace(labelled("boxes", one="ac", two="b"), acts={"one": (1, 4)})
    assert seconds_of([boxes], VOC_PRICES) == pytest.approx(3 * 1 + 5 * 7 + 7 * 2.8 / 1.5)
    fewer = replace(clicks, acts={"one": (1, 1)}, background=1)
    for parts in ([clicks, fewer], [fewer, clicks]):
        assert seconds_of(joined(parts), VOC_PRICES) == seconds_of([clicks], VOC_PRICES)


def test_what_a_source_tells_of_objects_is_counted(shapes_root):
    source = Shapes(shapes_root, train_size=24, val_size=10, size=64)
    ids, names = source.split("train")[:5], source.classes[1:]
    boxes, points = (Labelled.of(source, labels, ids, names) for labels in (Boxes(), Points(amount=2)))
    held = {i: sum(source.tags(i)) for i in ids}
    assert {i: sum(found) for i, found in boxes.acts.items()} == held  # one creature of a class
    assert {i: sum(found) for i, found in points.acts.items()} == {i: 2 * found for i, found in held.items()}
    assert (boxes.background, points.background) == (0, 2)
    assert Labelled.of(source, Masks(), ids, names).acts == {}


def test_labels_come_back_as_they_were_kept():
    block = labelled("masks", one="ac", two="")
    counted = replace(block, acts={"one": (1, 2)}, background=3)
    assert Labelled.from_plain(json.loads(json.dumps(counted.plain()))) == counted
    assert Labelled.from_plain(json.loads(json.dumps(block.plain()))) == block


@pytest.mark.parametrize(
    "wrong",
    [
        {"classes": "ab"},
        {"held": {"one": [3]}},
        {"held": {"one": [-1]}},
        {"held": ["one"]},
        {"kind": "wishes"},
        {"acts": {"one": [1]}},
        {"effort": None},
    ],
)
def test_labels_that_nobody_kept_so_are_refused(wrong):
    kept = json.loads(json.dumps(labelled("masks", one="ac").plain()))
    with pytest.raises(ValueError, match=r" is |holds"):
        Labelled.from_plain({**kept, **wrong})


@given(st.integers(1, 500), st.integers(1, 30), st.floats(0, 1))
def test_more_detailed_labels_cost_more(images, classes, share):
    held = share * images * classes
    seconds = [Labelling(labels, images, classes, held).seconds() for labels in kinds().values()]
    assert seconds == sorted(seconds)


def test_an_unknown_annotation_of_supports_is_named():
    with pytest.raises(ConfigError, match="support_annotation=tag: choose from point, scribble, box, mask"):
        supports(1, 5, "tag")


def test_the_default_prices_are_those_of_the_file():
    assert instantiated(composed([]).prices, "prices") == VOC_PRICES
