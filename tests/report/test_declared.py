"""What records say of their scores, and what is known of old ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segladder.errors import DataError
from segladder.report import record as records
from segladder.report.declared import declared
from segladder.report.leaderboard import rank

ROOT = Path(__file__).parents[2]


def committed(study):
    """Records of a study in the repository."""
    return [record for record, _ in records.find_records(ROOT / "experiments" / study)[0]]


def test_a_committed_record_says_nothing_and_is_read_as_before():
    record = next(r for r in committed("few_shot_mobilenetv2") if r.protocol["name"] == "negative")
    assert (record.schema, "scores" in record.protocol) == (1, False)
    says = declared(record)
    assert (says.ranked_by, says["negative_area"].better, says["predicted_share"].better) == (
        "negative_empty",
        "lower",
        "",
    )
    assert [s.name for s in says.shown("table")] == [
        *("predicted_share", "negative_area", "negative_empty", "fb_iou_pooled")
    ]


def test_a_loss_over_time_is_ranked_upwards():
    values = [row.value for row in rank(committed("one_shot_mobilenetv2"), "J_decay")[0].rows]
    assert len(values) > 1 and values == sorted(values)


@pytest.mark.parametrize(("name", "unit"), [("harmonic_mIoU", "share"), ("gamma", "number")])
def test_old_scores_are_shown_and_not_tested(name, unit):
    """Their counts were not kept, or say in another way what was asked."""
    says = declared(committed("zero_shot_shapes")[0])
    assert (says[name].unit, says[name].statistic) == (unit, None)


def test_a_score_nobody_knows_is_a_share_that_is_not_shown():
    record = records.Record(metrics={"mine": {"value": 1.0}})
    assert [s.name for s in declared(record).scores] == ["mine"] and not declared(record)["mine"].shown


def test_a_damaged_declaration_names_the_file(tmp_path):
    file = records.write(records.Record(protocol={"name": "toy", "scores": [{"name": "a"}]}), tmp_path)
    assert declared(records.read(file))["a"].unit == "share"
    text = json.loads(file.read_text())
    text["protocol"]["scores"] = [{"name": "a", "unit": "percent"}]
    file.write_text(json.dumps(text))
    with pytest.raises(DataError, match=r"record\.json: protocol: score a: 'percent', expected one of"):
        records.read(file)
