"""Costs of records of older versions: labels behind parents are added where records tell, else the cost is unknown."""

from pathlib import Path

import pytest

from segladder.data.labels.annotation_cost import SCHEME
from segladder.report.costs import flagged, with_costs_of_today
from segladder.report.means import mean_annotation
from segladder.report.record import Record, find_records

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def a_run(name, seconds, parents=(), labels="tags", split="train_aug", trains=True, ids=30, **more):
    novel = more.pop("novel", 0.0)
    config = {"method": {"trains": trains}, "data": {"train_split": split}, "pool": None}
    config["loader"] = {"held_out": more.pop("held_out", 0.0), "without": []}
    cost = {"seconds": seconds, "novel_seconds": novel, "labels": labels}
    data = {"name": "voc", "train_ids": ids}
    return Record(id=name, parents=list(parents), config=config, data=data, annotation_cost=cost, **more)


def seconds(*records):
    return {record.id: record.annotation_cost["seconds"] for record in with_costs_of_today(records)}


CAM = a_run("cam", 600.0)


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        (a_run("crf", 0.0, ["cam"], split="train", trains=False, ids=4), 600.0),
        (a_run("irn", 80.0, ["cam"], split="train", ids=4), 600.0),
        (a_run("net", 600.0, ["cam"]), 600.0),
        (a_run("masks", 900.0, ["cam"], labels="masks"), 900.0),
        (a_run("some masks", 500.0, ["cam"], labels="masks", split="train", ids=4), None),
        (a_run("other images", 80.0, ["cam"], split="half", ids=4), None),
        (a_run("fewer images", 500.0, ["cam"], ids=25, held_out=0.2), None),
        (a_run("few shots", 250.0, ["cam"], trains=False, novel=250.0), 850.0),
        (a_run("cam-12345678", 600.0, ["cam"]), 600.0),
        (a_run("orphan", 80.0, ["gone"]), None),
    ],
)
def test_labels_behind_a_parent_count_once_or_the_cost_is_unknown(child, expected):
    found = seconds(child, CAM)
    assert found == {child.id: expected, "cam": 600.0}
    flags = flagged(with_costs_of_today([child, CAM]))
    unchanged = expected == child.annotation_cost["seconds"]
    assert flags == ({} if unchanged else {"unknown" if expected is None else "recomputed": [child.id]})


def test_what_is_behind_a_parent_reaches_its_children():
    chain = [CAM, a_run("irn", 80.0, ["cam"], split="train", ids=4)]
    chain.append(a_run("crf", 0.0, ["irn"], split="train", trains=False, ids=4))
    chain.append(a_run("net", 80.0, ["crf"], split="train", ids=4))
    assert seconds(*reversed(chain)) == {"net": 600.0, "crf": 600.0, "irn": 600.0, "cam": 600.0}
    assert seconds(*chain[1:]) == {"irn": None, "crf": None, "net": None}


def test_costs_of_today_stand_and_those_of_means_are_unknown():
    today = a_run("today", 10.0, ["gone"])
    today.annotation_cost["scheme"] = SCHEME
    oldest = a_run("oldest", 10.0)
    del oldest.annotation_cost["novel_seconds"]
    assert seconds(today, oldest) == {"today": 10.0, "oldest": None}
    assert mean_annotation(with_costs_of_today([oldest])) is None
    assert mean_annotation(with_costs_of_today([oldest]), "novel_seconds") is None


@pytest.mark.parametrize("unknown", [None, {"novel_seconds": 5.0}, {"seconds": None, "at_least": 3.0}])
def test_runs_of_which_one_has_an_unknown_cost_have_no_mean(unknown):
    other = a_run("other", 30.0)
    assert mean_annotation([CAM, other]) == 315
    other.annotation_cost = unknown
    assert mean_annotation([CAM, other]) is mean_annotation([other, CAM]) is mean_annotation([]) is None


def test_the_weak_study_costs_what_its_first_tags_cost():
    found = with_costs_of_today(record for record, _ in find_records(EXPERIMENTS / "weak_mobilenetv2")[0])
    assert {r.annotation_cost["seconds"] for r in found if "cam" in "".join([r.method, *r.lineage])} == {18786.0}
    assert len(flagged(found)["recomputed"]) == 28 and "unknown" not in flagged(found)
