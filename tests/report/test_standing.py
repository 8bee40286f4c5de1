"""Where runs stand on the ladder, and that every chart shows a kind of label as the kind says."""

import re
from importlib.resources import files

from segladder.data.labels.kinds import kinds
from segladder.report.record import Record
from segladder.report.standing import standing_of
from segladder.stages.inheritance import labels_of


def test_the_page_has_the_colours_of_the_kinds_of_label():
    css = files("segladder.report").joinpath("templates/page.css").read_text(encoding="utf-8")
    hues = re.findall(r"^\.s\d \{ --hue: (#\w+);", css, re.MULTILINE)
    colours = [kind.colour for kind in kinds().values()]
    assert hues[: len(colours)] == colours and len(hues) > len(colours)


def test_runs_of_older_versions_stand_where_their_supervision_says():
    older = [Record(supervision=name) for name in ("zero_shot", "image_level", "full")]
    few = Record(supervision="few_shot", shots=1)
    ladder = sorted([*older, few], key=standing_of)
    assert [record.supervision for record in ladder] == ["zero_shot", "image_level", "few_shot", "full"]


def test_supports_stand_where_their_own_labels_do():
    shown = Record(supervision="few_shot", shots=5, protocol={"fields": {"support_annotation": "box"}})
    assert (standing_of(shown).labels, standing_of(shown).singular) == ("boxes", "box")
    assert standing_of(Record(supervision="few_shot", shots=5)).labels == "masks"


def test_a_kind_of_label_that_nobody_knows_stands_last():
    unknown = standing_of(Record(supervision="full", label_access={"kind": "polygons"}))
    assert unknown > standing_of(Record(supervision="full"))
    assert unknown.singular == "polygons" and unknown.style == len(kinds()) and unknown.colour and unknown.marker


def test_older_records_have_one_kind_of_label_for_tables_and_for_runs_that_build_on_them():
    paid = {"labels": "masks"}  # of base classes
    for supervision, kind in (("image_level", "tags"), ("zero_shot", "names"), ("few_shot", "masks")):
        record = Record(supervision=supervision, annotation_cost=paid)
        assert (standing_of(record).labels, labels_of(record).name) == (kind, kind)
    assert Record(supervision="full", label_access={"kind": "points"}, annotation_cost=paid).label_kind == "points"
