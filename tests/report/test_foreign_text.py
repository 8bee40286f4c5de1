"""What a record says is shown and never obeyed: by a terminal, a spreadsheet, a Markdown reader."""

import csv
import io
import json

import pytest
from rich.console import Console

from segladder.report import record as records
from segladder.report.leaderboard import rank
from segladder.report.record import Record, find_records
from segladder.report.rendering import csv_text, inert, markdown, markdown_table, show
from segladder.runs.scoring import print_scores

ESCAPE, LINK = "\x1b]0;owned\x07", "[link=file:///etc/passwd]here[/link]"


def a_record(**changes):
    fields = {
        "id": "one",
        "time": "2026-01-01T00:00:00+00:00",
        "status": "finished",
        "method": "fcn8s",
        "supervision": "full",
        "protocol": {"name": "semantic", "hash": "01234567"},
        "data": {"name": "shapes", "classes": ["background", "disc"], "val_fingerprint": "feed"},
        "config": {"method": {"name": "fcn8s", "trains": True}},
        "seed": 0,
        "metrics": {"mIoU": {"value": 0.5, "low": None, "high": None}},
        "per_class": [{"class": "disc", "iou": 0.5}],
    }
    return Record(**{**fields, **changes})


def test_a_record_that_is_read_holds_no_control_character(tmp_path):
    folder = records.write(a_record(method=f"a{ESCAPE}", per_class=[{"class": ESCAPE, "iou": 0.5}]), tmp_path)
    (record,) = [record for record, _ in find_records(folder.parent)[0]]
    assert record.method == "a\\x1b]0;owned\\x07" and record.per_class[0]["class"] == "\\x1b]0;owned\\x07"


def test_the_faults_of_records_reach_the_terminal_as_text(segladder, tmp_path, capsys):
    folder = tmp_path / f"run{ESCAPE}"
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps({"schema": 3, "status": "finished", ESCAPE: 1}))
    records.write(a_record(method=f"a{ESCAPE}"), tmp_path / "other")
    assert segladder("leaderboard", f"runs={tmp_path}") == 0
    said = capsys.readouterr()
    assert "\x1b]" not in said.out + said.err and "\x07" not in said.out + said.err
    assert "unknown field \\x1b]0;owned\\x07" in said.err


def test_an_error_reaches_the_terminal_as_text(segladder, tmp_path, capsys):
    assert segladder("evaluate", f"run='{tmp_path}/{ESCAPE}'") == 2
    assert "\x1b" not in capsys.readouterr().err


def test_tables_of_a_run_and_of_a_leaderboard_follow_no_link(tmp_path, capsys):
    record = a_record(per_class=[{"class": f"{LINK}{ESCAPE}", "iou": 0.5}])
    print_scores(record, tmp_path)
    printed = capsys.readouterr().out
    assert LINK[:6] in printed and "\x1b" not in printed and "\x07" not in printed
    console = Console(file=io.StringIO(), width=300, force_terminal=True)
    show(rank([a_record(data={**record.data, "name": LINK})]), console)
    assert LINK in console.file.getvalue()


FORMULAS = ("=1+1", "+1+1", "-1+1", "@SUM(A1)", "\tx", "=cmd|' /C calc'!A0")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_a_csv_is_computed(text):
    (row,) = csv.DictReader(io.StringIO(csv_text(rank([a_record(supervision=text)]))))
    assert row["supervision"] == f"'{text}"


def test_numbers_of_a_csv_stay_numbers():
    scores = {"mIoU": {"value": -0.25, "low": None, "high": None}}
    (row,) = csv.DictReader(io.StringIO(csv_text(rank([a_record(metrics=scores)]))))
    assert float(row["value"]) == -0.25 and row["scores"] == "-0.25"


def test_cells_of_markdown_are_one_line_without_html_or_links():
    cells = ["a\n| b", "<img src=x onerror=alert(1)>", "</td>", "[x](javascript:alert(1))", "< 0.001", "a <- b"]
    line = markdown_table(["x"] * 6, [cells]).splitlines()[2]
    expected = ["a \\| b", "&lt;img src=x onerror=alert(1)>", "&lt;/td>", "[x]\\(javascript:alert(1))", *cells[4:]]
    assert line == f"| {' | '.join(expected)} |"
    assert inert("a\r\nb\n\n# c") == "a b # c"


def test_headings_of_markdown_are_inert():
    text = markdown(rank([a_record(data={**a_record().data, "name": "a\n<script>"})]))
    assert "<script>" not in text and "a &lt;script>" in text.splitlines()[0]
