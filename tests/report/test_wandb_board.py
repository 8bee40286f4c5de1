"""The leaderboard in Weights & Biases: what an offline run holds, read back from its own log."""

import json

import pytest
from wandb_logs import of_kind

from segladder.report.leaderboard import rank
from segladder.report.record import Record, write
from segladder.report.wandb_board import boards, push

wandb = pytest.importorskip("wandb")


def a_record(method, seed, value, **changes):
    fields = {
        "id": f"{method}-{seed}",
        "time": "2026-01-01T00:00:00+00:00",
        "status": "finished",
        "method": method,
        "supervision": "image_level",
        "backbone": {"name": "tiny"},
        "protocol": {"name": "cam_seeds", "hash": "01234567"},
        "data": {"name": "shapes", "classes": ["background", "disc"], "val_fingerprint": "feedfeedfeed"},
        "seed": seed,
        "metrics": {"mIoU": {"value": value, "low": None, "high": None}},
        "per_class": [{"class": "background", "iou": 0.75}, {"class": "disc", "iou": value}],
        "curve": [{"threshold": 0.25, "mIoU": value / 2}, {"threshold": 0.5, "mIoU": value}],
        "annotation_cost": {"seconds": 36000.0},
    }
    return Record(**{**fields, **changes})


def some():
    return [a_record("cam", 0, 0.25), a_record("cam", 1, 0.75), a_record("seam", 0, 0.625, annotation_cost=None)]


def read_back(folder):
    """Run id, tables and exit code of the one offline run in a folder."""
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    (history,) = of_kind(log, "history")
    paths = {i.nested_key[0]: json.loads(i.value_json) for i in history.item if list(i.nested_key[1:]) == ["path"]}
    files = {name: json.loads((log.parent / "files" / path).read_text()) for name, path in paths.items()}
    (run,) = of_kind(log, "run")
    (end,) = of_kind(log, "exit")
    return run.run_id, files, end.exit_code


def test_an_offline_run_holds_the_tables_once(tmp_path):
    said = push(rank(some()), some(), "ladder", tmp_path)
    run_id, tables, exit_code = read_back(tmp_path)
    assert run_id in said and "wandb sync" in said and exit_code == 0
    name = "cam_seeds-01234567-feedfeed"
    board = tables[f"{name}/leaderboard"]
    rows = [dict(zip(board["columns"], row, strict=True)) for row in board["data"]]
    assert [(row["method"], row["mIoU"], row["annotation_hours"], row["runs"]) for row in rows] == [
        ("seam", 0.625, None, "seam-0"),
        ("cam", 0.5, 10.0, "cam-0 cam-1"),
    ]
    assert rows[1]["log10_annotation_hours"] == 1.0
    assert ["cam", "tiny", "disc", 0.5] in tables[f"{name}/per_class"]["data"]
    assert ["cam", 0.5, 0.25] in tables[f"{name}/threshold"]["data"]
    assert {f"{name}/leaderboard_cost_table", f"{name}/threshold_curve_table"} <= tables.keys()  # of the plots
    assert push(rank(some()[::-1]), some()[::-1], "ladder", tmp_path).endswith("already")
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1
    assert "already" not in push(rank(some()), some(), "another", tmp_path)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2


def test_other_records_show_something_else_and_their_order_nothing():
    shown = boards(rank(some()), some())
    assert boards(rank(some()[:2]), some()[:2]) != shown
    assert boards(rank(some()[::-1]), some()[::-1]) == shown


def test_hours_of_a_ladder_are_those_of_its_novel_classes():
    (record,) = some()[:1]
    record.protocol |= {"scores": [{"name": "mIoU"}], "ladder": []}
    record.annotation_cost = {"seconds": 36000.0, "novel_seconds": 3600.0}
    board = boards(rank([record]), [record])["cam_seeds-01234567-feedfeed/leaderboard"]
    assert board.rows[0][board.columns.index("annotation_hours")] == 1.0


def test_places_of_a_sweep_that_are_not_known_are_left_out():
    (record,) = some()[:1]
    record.curve = [{"threshold": None, "mIoU": 0.1}, {"mIoU": 0.2}, *record.curve]
    record.curve[1], record.curve[2] = record.curve[2], record.curve[1]
    assert boards(rank([record]), [record]) == boards(rank(some()[:1]), some()[:1])


def test_a_push_that_failed_is_no_finished_run(tmp_path, monkeypatch):
    monkeypatch.setattr("segladder.report.wandb_board._logged", lambda shown: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        push(rank(some()), some(), "ladder", tmp_path)
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    (end,) = of_kind(log, "exit")
    assert end.exit_code == 1
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not push(rank(some()), some(), "ladder", tmp_path).endswith("already")


def test_the_command_pushes(tmp_path, segladder, capsys, monkeypatch):
    for record in some():
        write(record, tmp_path / "runs" / record.id)
    monkeypatch.chdir(tmp_path)
    assert segladder("leaderboard", "runs=runs", "wandb=ladder") == 0
    assert read_back(tmp_path)[0] in capsys.readouterr().err


def test_a_leaderboard_that_cannot_be_sent_is_one_line(tmp_path, segladder, capsys, monkeypatch):
    def unreachable(**settings):
        raise wandb.errors.CommError("Run initialization has timed out\nafter 90 sec")

    for record in some():
        write(record, tmp_path / "runs" / record.id)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(wandb, "init", unreachable)
    assert segladder("leaderboard", "runs=runs", "wandb=ladder") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("segladder: wandb=ladder: Run initialization has timed out after 90 sec; WANDB_MODE=offline")


def test_a_project_that_cannot_be_is_told_before_anything_is_read(segladder, capsys):
    assert segladder("leaderboard", "runs=nowhere", "wandb=a/b") == 2
    assert "wandb=a/b: expected a name without /" in capsys.readouterr().err
