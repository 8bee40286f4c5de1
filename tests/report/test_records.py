"""Records survive the disk whole, or are named; provenance says what ran."""

import json
import math
import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import segladder
from segladder.errors import DataError
from segladder.report import provenance
from segladder.report.record import (
    FILE_NAME,
    LINES_NAME,
    SCHEMA,
    Record,
    find_records,
    hash_of,
    read,
    read_lines,
    write,
    write_lines,
)


def a_record(**changes):
    fields = {
        "id": "20260101-000000-abcdef",
        "time": "2026-01-01T00:00:00+00:00",
        "status": "finished",
        "commit": "0" * 40,
        "dirty": False,
        "config": {"seed": 0, "data": {"classes": ["cat", "dög"]}},
        "method": "fcn8s",
        "supervision": "full",
        "protocol": {"name": "semantic", "hash": "01234567", "fields": {}},
        "seed": 0,
        "metrics": {"mIoU": {"value": 0.5, "low": 0.4, "high": 0.6}},
        "per_class": [{"class": "cat", "iou": 0.5}],
        "train_seconds": 12,
        "parents": ["other"],
    }
    return Record(**{**fields, **changes})


def test_round_trip(tmp_path):
    record = a_record()
    file = write(record, tmp_path / "run")
    assert file == tmp_path / "run" / FILE_NAME
    assert read(tmp_path / "run") == read(file) == record


def test_a_record_of_a_run_that_failed_at_once_can_be_written(tmp_path):
    record = read(write(Record(error="ConfigError: no"), tmp_path))
    assert (record.schema, record.status, record.error, record.metrics) == (SCHEMA, "failed", "ConfigError: no", {})


def test_json_is_canonical_and_holds_plain_values_only(tmp_path):
    record = a_record(
        metrics={"mIoU": {"value": float("nan"), "low": np.float32(0.25), "high": math.inf}},
        parameters=np.int64(7),
        data={"classes": ("a", "b"), "root": Path("some/where"), "weights": torch.tensor([0.5, float("nan")])},
    )
    text = write(record, tmp_path).read_text()
    value = json.loads(text)
    assert value["metrics"]["mIoU"] == {"value": None, "low": 0.25, "high": None}
    assert value["parameters"] == 7
    assert value["data"] == {"classes": ["a", "b"], "root": "some/where", "weights": [0.5, None]}
    assert list(value) == sorted(asdict(record))
    assert "dög" in text
    assert write(read(tmp_path), tmp_path / "again").read_text() == text


def test_a_write_that_fails_leaves_the_old_record_and_nothing_else(tmp_path, monkeypatch):
    write(a_record(), tmp_path)

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write(a_record(status="failed"), tmp_path)
    assert read(tmp_path).status == "finished"
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"schema": 4}, "schema 4, expected at most 3; update segladder"),
        ({"schema": "1"}, "expected a JSON object with a schema number"),
        ({"colour": "red"}, "unknown field colour"),
        ({"status": "done"}, "status done, expected running, finished, interrupted, diverged, failed"),
        ({"seed": "zero"}, "seed is str, expected int or null"),
        ({"train_seconds": "long"}, "train_seconds is str, expected int or float or null"),
        ({"metrics": []}, "metrics is list, expected dict"),
        ({"metrics": {"mIoU": 0.5}}, "metrics.mIoU has no value"),
        ({"per_class": [1]}, "per_class is no list of objects with a class, expected a row for each class"),
        ({"per_class": [{"iou": 0.5}]}, "per_class is no list of objects with a class"),
        ({"metrics": {"mIoU": {"value": "0.5"}}}, "metrics.mIoU.value is '0.5', expected a finite number or null"),
        ({"metrics": {"mIoU": {"value": True}}}, "metrics.mIoU.value is True, expected a finite number"),
        ({"metrics": {"mIoU": {"value": 0.5, "low": 1e30}}}, r"metrics.mIoU.low is 1e\+30, expected a finite number"),
        ({"train_seconds": 1e30}, "train_seconds is no finite number"),
        ({"curve": [{"threshold": "x"}]}, "curve holds .*, expected finite numbers"),
        ({"protocol": {"name": "a" * 200}}, "is no name, expected one that stays inside"),
        ({"protocol": {"fields": [1]}}, r"protocol.fields is \[1\], expected an object"),
        (
            {"protocol": {"hash": "01234567", "fields": {"split": "val"}}},
            "hash is '01234567', but .* of a5200c42",
        ),
        (
            {"protocol": {"scores": [{"name": "mIoU"}]}, "metrics": {"mIoU": {"value": 7.3}}},
            "metrics.mIoU.value is 7.3, expected a share",
        ),
        ({"method": ""}, "finished, but names no method"),
        ({"config": {"method": None}}, "config.method is None, expected an object"),
        ({"config": {"labels": {"noise": 1}}}, "config.labels.noise is 1, expected an object"),
        ({"config": {"protocol": "voc"}}, "config.protocol is 'voc', expected an object"),
        ({"protocol": {"fields": {"folds": "abc"}}}, "folds is 'abc', expected a list or a number of folds"),
        ({"protocol": {"fields": {"folds": 10**9}}}, "folds is 1000000000, expected a list or a number of folds"),
        ({"annotation_cost": {"seconds": "12"}}, "annotation_cost.seconds is '12', expected seconds or null"),
        ({"annotation_cost": {"novel_seconds": -1}}, "annotation_cost.novel_seconds is -1, expected seconds or null"),
        ({"annotation_cost": {"older": "x"}}, "annotation_cost.older is 'x', expected recomputed or unknown"),
        ({"lineage": [1]}, r"lineage is \[1\], expected text"),
    ],
)
def test_what_is_no_record_is_named(tmp_path, changes, fault):
    file = tmp_path / FILE_NAME
    file.write_text(json.dumps({**asdict(a_record()), **changes}))
    with pytest.raises(DataError, match=fault) as error:
        read(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400])
def test_a_number_that_is_not_finite_is_null(tmp_path, number):
    file = tmp_path / FILE_NAME
    file.write_text(json.dumps(asdict(a_record(metrics={"mIoU": {"value": "@"}}))).replace('"@"', number))
    assert read(file).metrics["mIoU"]["value"] is None


def test_records_of_a_folder_share_what_is_equal_in_them(tmp_path):
    for seed in range(2):
        write(replace(a_record(), id=f"run{seed}", seed=seed), tmp_path / str(seed))
    (first, _), (second, _) = find_records(tmp_path)[0]
    assert (first.seed, second.seed) == (0, 1) and replace(first, id="run1", seed=1) == second
    assert first.protocol is second.protocol and first.data is second.data
    assert all(value is second.config[key] for key, value in first.config.items())
    assert all(a is b for a, b in zip(first.metrics, second.metrics, strict=True))
    assert all(a["class"] is b["class"] for a, b in zip(first.per_class, second.per_class, strict=True))


def test_missing_and_half_written_records_are_named(tmp_path):
    with pytest.raises(DataError, match=r"record\.json: No such file"):
        read(tmp_path)
    whole = write(a_record(), tmp_path).read_bytes()
    for length in range(0, len(whole) - 2, 41):  # without the last brace
        (tmp_path / FILE_NAME).write_bytes(whole[:length])
        with pytest.raises(DataError, match="damaged or half-written"):
            read(tmp_path)


def test_find_records_looks_everywhere_and_names_what_it_skips(tmp_path):
    for name in ("b/run1", "a/run0", "a/run0/evaluations/tta"):
        write(a_record(id=name), tmp_path / name)
    write(a_record(id="copy"), tmp_path / "study" / "fcn8s-seed0.json")
    (tmp_path / "study" / "settings.json").write_text('{"not": "a record"}')
    (tmp_path / "a" / "run0" / "metrics.json").write_text("{ other tools' files beside a record are not looked at")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / FILE_NAME).write_text('{"schema": 1, "id"')
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    found, faults = find_records(tmp_path)
    assert [(record.id, folder.relative_to(tmp_path).as_posix()) for record, folder in found] == [
        ("a/run0", "a/run0"),
        ("a/run0/evaluations/tta", "a/run0/evaluations/tta"),
        ("b/run1", "b/run1"),
        ("copy", "study"),
    ]
    assert len(faults) == 1
    assert str(tmp_path / "torn" / FILE_NAME) in faults[0]
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_records(tmp_path / "nowhere")


def test_lines_round_trip_and_equal_records_give_equal_bytes(tmp_path):
    early, late = a_record(id="b", tag="one\u2028line\n"), a_record(id="a", time="2026-01-02T00:00:00+00:00")
    other = a_record(id="b", protocol={"name": "semantic", "hash": "89abcdef"})
    file = write_lines([late, other, early], tmp_path / "made" / LINES_NAME)
    assert read_lines(file) == ([early, other, late], [])
    content = file.read_bytes()
    assert write_lines([early, late, other], file).read_bytes() == content
    assert content.count(b"\n") == 3
    assert content.endswith(b"}\n")
    assert b"\r" not in content
    assert "dög" in content.decode()
    first = content.decode().split("\n")[0]
    assert first == json.dumps(asdict(early), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert [path.name for path in file.parent.iterdir()] == [LINES_NAME]


def test_lines_that_fail_to_be_written_leave_the_old_ones(tmp_path):
    file = write_lines([a_record()], tmp_path / LINES_NAME)
    with pytest.raises(UnicodeEncodeError):
        write_lines([a_record(id="a"), a_record(tag="\ud800")], file)
    assert read_lines(file) == ([a_record()], [])
    assert [path.name for path in tmp_path.iterdir()] == [LINES_NAME]


def test_a_line_at_fault_is_named_and_costs_no_other(tmp_path):
    records = [a_record(id=name) for name in "abc"]
    first, second, third = write_lines(records, tmp_path / LINES_NAME).read_bytes().splitlines(keepends=True)
    newer, nothing = json.dumps({**asdict(a_record()), "schema": 4}).encode(), b'{"not": "a record"}'
    file = tmp_path / LINES_NAME
    file.write_bytes(
        b"".join([first, second[:200], b"\n\r\n", newer, b"\n", third, nothing, b"\n\xff\n", second[:-20]])
    )
    found, faults = find_records(tmp_path)
    assert found == [(records[0], tmp_path), (records[2], tmp_path)]
    for fault, line, text in zip(
        faults,
        (2, 4, 6, 7, 8),
        ("damaged or half-written", "schema 4, expected at most 3; update", "no record", "damaged", "damaged"),
        strict=True,
    ):
        assert fault.startswith(f"{file}:{line}: {text}")
    assert read_lines(file) == ([records[0], records[2]], faults)
    with pytest.raises(DataError, match=r"nowhere\.jsonl: No such file"):
        read_lines(tmp_path / "nowhere.jsonl")


def test_lines_lie_beside_runs_and_copies_of_older_versions(tmp_path):
    study = tmp_path / "study"
    write(a_record(id="run"), study / "run")
    write(a_record(id="old copy"), study / "fcn8s-seed0.json")
    write(a_record(id="line", tag="copied twice"), study / "fcn8s-seed1.json")
    write_lines([a_record(id="line")], study / LINES_NAME)
    (study / f"other_{LINES_NAME}").write_text("of another tool")
    found, faults = find_records(tmp_path)
    assert faults == []
    assert [(record.id, folder) for record, folder in found] == [
        ("line", study),
        ("old copy", study),
        ("run", study / "run"),
    ]
    assert found[0][0] == a_record(id="line")


def test_hash_ignores_order_and_form_but_no_value():
    assert hash_of({"a": (1, 2), "b": None}) == hash_of({"b": None, "a": [1, 2]})
    assert hash_of({"a": 1}) != hash_of({"a": 2})
    assert hash_of({"a": 1}) == "015abd7f"  # sha256 of {"a":1}


def test_versions_and_device_are_those_installed():
    versions = provenance.versions()
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert versions["segladder"] == segladder.__version__
    assert provenance.device_name()
    assert provenance.peak_memory_mb() > 10


def test_parameters_count_once_when_shared():
    first = torch.nn.Linear(3, 2)
    assert provenance.parameter_count(torch.nn.Sequential(first, torch.nn.ReLU(), first)) == 3 * 2 + 2


def git(folder, *words):
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_git_state_follows_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "src" / "segladder"
    (package / "report").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(package / "report" / "provenance.py"))
    assert provenance.git_state() == (None, None)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    state = provenance.git_state()
    assert len(state.commit) == 40
    assert state.dirty is False
    (tmp_path / "notes.txt").write_text("not code")
    assert provenance.git_state().dirty is False
    (package / "__init__.py").write_text("changed = True")
    assert provenance.git_state() == (state.commit, True)
