"""Where a job works: names that do not meet, runs that are gone on with, and those that are left alone."""

import json

import pytest
from hydra.core import utils

from segladder.report.provenance import GitState
from segladder.runs import recording
from segladder.runs.ownership import owned

pytestmark = pytest.mark.long

TINY = [
    *("data.train_size=24", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("loader.batch_size=4", "trainer.steps=1", "trainer.progress=false", "trainer.panels=0", "logger=none"),
    "protocol.bootstrap=20",
]


def records(runs):
    return {path.parent: json.loads(path.read_text()) for path in sorted(runs.rglob("record.json"))}


def statuses(runs):
    return {folder: record["status"] for folder, record in records(runs).items()}


@pytest.fixture
def unfinished(segladder, tmp_path):
    """Trains into RUNS/NAME and lets it look as if it had been interrupted before it was scored, at a time."""

    def unfinished(name, time, *words):
        folder = tmp_path / "runs" / name
        assert segladder("train", *TINY, f"runs={tmp_path / 'runs'}", *words, f"hydra.run.dir={folder}") == 0
        record = json.loads((folder / "record.json").read_text())
        record |= {"status": "interrupted", "time": time}
        (folder / "record.json").write_text(json.dumps(record))
        return folder

    return unfinished


def test_runs_of_the_same_second_have_folders_of_their_own(segladder, tmp_path, monkeypatch):
    class Frozen(utils.datetime):
        now = classmethod(lambda cls: utils.datetime.min.replace(year=2026))

    monkeypatch.setattr(utils, "datetime", Frozen)
    for dropout in (0.1, 0.2):
        assert segladder("train", *TINY, f"runs={tmp_path}", f"method.dropout={dropout}") == 0
    found = records(tmp_path)
    assert sorted(record["config"]["method"]["dropout"] for record in found.values()) == [0.1, 0.2]
    first, second = sorted(found)
    assert second.name == f"{first.name}-2"


def test_a_folder_that_is_named_holds_one_run(segladder, tmp_path, capsys):
    words = ["train", *TINY, f"hydra.run.dir={tmp_path}"]
    assert segladder(*words) == 0
    before = (tmp_path / "record.json").read_bytes()
    capsys.readouterr()
    assert segladder(*words) == 0
    assert f"{tmp_path}: finished already" in capsys.readouterr().out
    assert segladder(*words, "method.dropout=0.3", "fold=1") == 2
    error = capsys.readouterr().err
    assert "holds a run of other settings (fold, method.dropout)" in error and error.count("\n") == 1, error
    assert segladder("train", f"resume={tmp_path}") == 0
    assert (tmp_path / "record.json").read_bytes() == before


def test_the_folder_of_a_sweeps_job_is_blamed_by_its_own_key(segladder, tmp_path, capsys):
    assert segladder("train", "-m", *TINY, f"runs={tmp_path}", "hydra.sweep.subdir=same", "fold=0,1") == 2
    blamed = f"segladder: hydra.sweep.subdir: {tmp_path}/shapes/same holds a run of other settings (fold); choose"
    assert blamed in capsys.readouterr().err


def test_a_run_that_somebody_works_on_is_left_to_them(segladder, unfinished, capsys):
    folder = unfinished("one", "2026-01-01T00:00:00+00:00")
    with owned(folder, ""):
        for words in ([f"resume={folder}"], [*TINY, f"runs={folder.parent}", f"hydra.run.dir={folder}"]):
            assert segladder("train", *words) == 2
            error = capsys.readouterr().err
            assert f"{folder}: process " in error and f"then: segladder train resume={folder}" in error
            assert error.count("\n") == 1
        assert segladder("train", "resume=auto", f"runs={folder.parent}") == 2
        assert "of 1 unfinished runs" in (error := capsys.readouterr().err) and "1 are being trained" in error
        assert set(statuses(folder.parent).values()) == {"interrupted"}
    assert segladder("train", f"resume={folder}") == 0
    assert statuses(folder.parent) == {folder: "finished"}


@pytest.mark.parametrize("learnt", [False, True])
def test_a_record_names_the_code_that_trained(segladder, unfinished, monkeypatch, learnt):
    folder = unfinished("one", "2026-01-01T00:00:00+00:00")
    if not learnt:
        for path in ("weights.pt", "checkpoints/last.ckpt"):
            (folder / path).unlink(missing_ok=True)
    before = records(folder)[folder]["commit"]
    monkeypatch.setattr(recording, "git_state", lambda: GitState("f" * 40, False))
    assert segladder("train", f"resume={folder}") == 0
    assert records(folder)[folder]["commit"] == (before if learnt else "f" * 40)


def test_bare_auto_goes_on_with_the_newest_whatever_its_method(segladder, unfinished, capsys):
    newest = unfinished("newest", "2026-01-02T00:00:00+00:00", "method=fcn32s", "seed=3")
    older = unfinished("older", "2026-01-01T00:00:00+00:00")
    runs = f"runs={newest.parent}"
    assert segladder("train", "resume=auto", runs) == 0
    assert f"going on with {newest} (fcn32s, started 2026-01-02" in capsys.readouterr().out
    assert segladder("train", "resume=auto", runs) == 0
    assert f"going on with {older}" in capsys.readouterr().out
    assert segladder("train", "resume=auto", runs) == 2
    error = capsys.readouterr().err
    assert "of 0 unfinished runs" in error and "nothing is started" in error and error.count("\n") == 1
    assert statuses(newest.parent) == {newest: "finished", older: "finished"}
    assert sorted(newest.parent.iterdir()) == [newest, older]


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        (["seed=3"], True),
        (["method=fcn32s", "seed=3"], True),
        (["fold=0"], True),  # a default
        (["+loader.augment.extra=[{name: GaussianBlur, p: 0.5}]"], False),
        (["seed=2"], False),
        (["method=fcn8s"], False),
        (["method=fcn32s", "trainer.steps=2"], False),
        (["method.no_such_key=2"], None),
    ],
)
def test_auto_goes_on_with_what_the_given_settings_do_not_contradict(segladder, unfinished, capsys, given, fits):
    folder = unfinished("run", "2026-01-02T00:00:00+00:00", "method=fcn32s", "seed=3")
    code = segladder("train", "resume=auto", f"runs={folder.parent}", *given)
    said = capsys.readouterr()
    assert code == (0 if fits else 2)
    assert statuses(folder.parent) == {folder: "finished" if fits else "interrupted"}
    if fits is False:
        assert "1 have other settings" in said.err and "leave out resume=auto to start a new run" in said.err


def test_jobs_of_a_sweep_start_where_nothing_fits_and_their_commands_repeat_them(segladder, unfinished, capsys):
    other = unfinished("other", "2026-01-02T00:00:00+00:00", "seed=3")
    words = ["train", "-m", *TINY, f"runs={other.parent}", "resume=auto", "seed=0,1,3"]
    assert segladder(*words) == 0
    said = capsys.readouterr().out
    assert said.count("this job of the sweep starts a new run") == 2 and f"going on with {other}" in said
    found = records(other.parent)
    assert sorted(record["seed"] for record in found.values()) == [0, 1, 3]
    for record in found.values():
        assert record["command"].startswith("segladder train data.train_size=24") and record["status"] == "finished"
        assert " resume=" not in record["command"]
