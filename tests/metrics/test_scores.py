"""What scores say of themselves: what is printed, what is written, what is merged."""

from __future__ import annotations

import json

import pytest

from segladder.metrics.declaration import Declaration
from segladder.metrics.scores import FromCounts, Score


@pytest.mark.parametrize(
    ("score", "value", "said"),
    [
        (Score("mIoU"), 0.1234, "12.3"),
        (Score("gamma", unit="number"), 0.35, "0.35"),
        (Score("mIoU"), None, "-"),
        (Score("mIoU"), float("nan"), "-"),
    ],
)
def test_shares_are_printed_in_percent_and_numbers_as_they_are(score, value, said):
    assert score.text(value) == said


def test_a_label_replaces_the_name():
    assert (Score("hard_mIoU").heading, Score("iou", "IoU").heading) == ("hard mIoU", "IoU")
    assert (Score("mIoU").axis, Score("seconds", unit="number").axis) == ("mIoU, %", "seconds")


@pytest.mark.parametrize("wrong", [{"unit": "percent"}, {"better": "up"}, {"shown": ("page",)}])
def test_an_unknown_choice_is_refused(wrong):
    with pytest.raises(ValueError, match=r"score x: '.*', expected one of"):
        Score("x", **wrong)


STATISTIC = FromCounts("mean_iou", ("seen",), ("hard",))


def test_a_declaration_survives_json_and_says_no_more_than_it_must():
    scores = (Score("mIoU", shown=("summary", "curve"), statistic=STATISTIC), Score("gamma", "g", "number", ""))
    declared = Declaration(scores, (Score("iou", "IoU"),), "gamma", "episodes", "gamma", ("mIoU",))
    plain = json.loads(json.dumps({"name": "toy", "fields": {"scores": 1}, **declared.plain()}))
    assert Declaration.read(plain) == declared
    statistic = {"formula": "mean_iou", "classes": ["seen"], "kinds": ["hard"]}
    assert plain["scores"][0] == {"name": "mIoU", "shown": ["summary", "curve"], "statistic": statistic}
    plain["scores"][0]["statistic"] = "mean_iou"  # of an older version, whose counts nobody can read
    assert Declaration.read(plain).scores[0].statistic is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"scores": [{"name": "a", "colour": "red"}]},
        {"scores": [{"label": "a"}]},
        {"scores": [{"name": 3}]},
        {"scores": ["mIoU"]},
        {"scores": [{"name": "a", "statistic": {"name": "mean_iou"}}]},
        {"scores": [{"name": "a", "statistic": {"formula": 3}}]},
        {"scores": [{"name": "a", "statistic": 3}]},
        {"scores": 3},
        {"scores": [{"name": "a", "unit": "percent"}]},
        {"ranked_by": None},
        {"ladder": 3},
    ],
)
def test_what_is_no_declaration_is_refused(wrong):
    with pytest.raises(ValueError):
        Declaration.read(wrong)


def test_declarations_of_one_table_keep_their_order():
    dense, episodes = (Declaration(tuple(map(Score, names))) for names in (["a", "b", "c", "d"], ["a", "d", "e"]))
    assert [score.name for score in Declaration.merged([episodes, dense]).scores] == ["a", "b", "c", "d", "e"]
    assert Declaration.merged([Declaration(), Declaration(swept="gamma")]).swept == "gamma"


def test_what_is_not_declared_is_a_share_that_should_be_high():
    assert Declaration((Score("a", better="lower"),))["b"] == Score("b")
