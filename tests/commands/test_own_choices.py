"""The user's own choices, in a folder of `hydra.searchpath` or `--config-dir`, reach every process of a command."""

import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from segladder.command_line import for_hydra, quoted
from segladder.errors import ConfigError
from segladder.guide import candidates
from segladder.processes import parallel
from segladder.report.record import Record, read
from segladder.runs.fitting import give_up
from segladder.runs.folder import resuming
from segladder.stages import chain

TINY = [
    *("data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("logger=none", "trainer.progress=false", "trainer.panels=0", "loader.batch_size=4", "trainer.steps=1"),
]
CHAIN = "# @package _global_\nstages:\n  first: [method=mine]\n  again: [evaluate=first, protocol=semantic_tta]\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of choices of one's own, by its name in the working folder."""
    for group, name, text in (("method", "mine", "defaults: [fcn8s]\nname: mine\n"), ("experiment", "two", CHAIN)):
        (tmp_path / "own" / group).mkdir(parents=True)
        (tmp_path / "own" / group / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "own"


@pytest.fixture
def told(monkeypatch):
    """The words that child processes are started with; nothing runs."""
    words = []

    def start_child(arguments, environment, log):
        words.append(arguments)
        return SimpleNamespace(poll=lambda: 0, returncode=0)

    monkeypatch.setattr(parallel, "start_child", start_child)
    monkeypatch.setattr(parallel, "POLL", 0)
    return words


def test_a_folder_is_named_once_and_absolute(own):
    whole = f"hydra.searchpath=[file://{own}]"
    assert for_hydra(["hydra.searchpath=[file://own]", "seed=1"]) == ["seed=1", whole]
    assert for_hydra(["hydra.searchpath=[own]", "-m"]) == ["-m", whole]
    assert for_hydra(["--config-dir", "own", "seed=1"]) == ["seed=1", whole]
    assert for_hydra(["--config-dir=own", "hydra.searchpath=[pkg://mine]"])[0] == f"{whole[:-1]},pkg://mine]"
    (own.parent / "a, b").mkdir()
    assert for_hydra(["hydra.searchpath=['a, b']"]) == [f'hydra.searchpath=["file://{own.parent / "a, b"}"]']
    assert for_hydra(for_hydra(["-cd", "a, b"])) == for_hydra(["-cd", "a, b"])
    assert for_hydra(["seed=1"]) == ["seed=1"]


@pytest.mark.parametrize("words", [["--config-dir", "nowhere"], ["hydra.searchpath=[file://nowhere]"]])
def test_a_folder_that_is_not_there_is_refused(own, words):
    with pytest.raises(ConfigError, match=r"(--config-dir|hydra.searchpath).* expected one of choices"):
        for_hydra(words)


def test_a_choice_that_conf_hides_is_refused(own):
    (own / "method" / "fcn8s.yaml").write_text("name: other\n")
    with pytest.raises(ConfigError, match=r"method/fcn8s.yaml: conf/ has another file of that name"):
        for_hydra(["--config-dir", "own"])


ODD = ["läufe", "seed=1,method=cam", "it's (new)", 'a "b" #3', "back\\", "{x}", "$HOME"]


@pytest.mark.parametrize("name", ODD)
def test_a_folder_of_any_name_is_read_back(name):
    override = OverridesParser.create().parse_override(f"hydra.run.dir={quoted(Path('runs') / name)}")
    assert override.value() == f"runs/{name}" and not override.is_sweep_override()
    assert chain.with_folder("parent=cam", {"cam": Path(name)}) == f"parent={quoted(name)}"
    *command, word = shlex.split(resuming(Path("runs") / name))
    assert command == ["segladder", "train"]
    assert OverridesParser.create().parse_override(word).value() == f"runs/{name}"


def test_jobs_of_a_sweep_have_folders_of_any_name_and_the_same_run_is_one_job(own, segladder, told, capsys):
    words = ["hydra/launcher=pool", 'runs="läufe, neu"', "seed=0,1,1"]
    assert segladder("train", "-m", *words) == 0
    assert "job 2: the same run as another job's, left out (seed=1)" in capsys.readouterr().out
    values = [OverridesParser.create().parse_override(arguments[-1]).value() for arguments in told]
    assert len(set(values)) == 2 and all(value.startswith("läufe, neu/") for value in values)


@pytest.mark.parametrize("words", [["--config-dir", "own"], ["hydra.searchpath=[file://own]"]])
def test_jobs_of_a_sweep_and_trials_of_a_search_are_told(own, segladder, told, words):
    assert segladder("train", "-m", *words, "hydra/launcher=pool", "method=mine", "seed=0,1") == 0
    pytest.importorskip("optuna")
    segladder("search", *words, "method=mine", "space={method.optimizer.lr: [0.1]}", "trials=1", *TINY)
    assert [f"hydra.searchpath=[file://{own}]" in arguments for arguments in told] == [True] * 3


def test_stages_are_told_and_skipped_as_others_are(own, segladder, monkeypatch, capsys):
    monkeypatch.setattr(chain, "run_child", lambda words: segladder(*words))
    for _ in range(2):
        assert segladder("train", "--config-dir", "own", "experiment=two", *TINY) == 0
    assert capsys.readouterr().out.count("is there already") == 2
    (record,) = own.parent.glob("runs/first-*/record.json")
    assert json.loads(record.read_text())["command"].startswith(f"segladder train 'hydra.searchpath=[file://{own}]'")


def test_further_processes_of_a_distributed_run_are_told(own, segladder, monkeypatch):
    seen = []

    def carry_out(run):
        seen.extend(sys.argv)
        raise ConfigError("enough")

    monkeypatch.setattr("segladder.commands.train.carry_out", carry_out)
    assert segladder("train", "hydra.searchpath=[file://own]", "method=mine", *TINY) == 2
    assert seen[1:3] == ["train", f"hydra.searchpath=[file://{own}]"] and "method=mine" in seen


def test_auto_finds_an_unfinished_run_of_an_own_choice(own, segladder, capsys):
    words = ["--config-dir", "own", "method=mine", *TINY]
    assert segladder("train", *words) == 0
    (path,) = own.parent.rglob("record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "interrupted"}))
    assert segladder("train", *words, "resume=auto") == 0
    assert f"going on with runs/{path.parent.relative_to(own.parent / 'runs')}" in capsys.readouterr().out


def test_a_wrong_key_of_an_own_choice_is_told(own, segladder, capsys):
    assert segladder("train", "--config-dir", "own", "method=mine", "method.optimiser=3") == 2
    assert "method.optimiser: no such key in method=mine (did you mean optimizer?)" in capsys.readouterr().err


def test_a_further_process_that_does_not_compose_says_why_where_the_first_one_did(segladder, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert segladder("train", "method=mine") == 2 and not capsys.readouterr().err  # the first one says it
    monkeypatch.setenv("SEGLADDER_RUN_FOLDER", "runs/first")
    assert segladder("train", "method=mine") == 2
    assert "method=mine: no such choice" in capsys.readouterr().err


def test_a_run_that_another_process_leaves_hanging_is_recorded_with_a_reason(tmp_path, capsys):
    run = SimpleNamespace(record=Record(), folder=tmp_path)
    give_up(run, "failed")
    assert read(tmp_path).status == "failed" and "another process of the run failed" in read(tmp_path).error
    assert "segladder: another process of the run failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["--config-dir own", "-cd=own", "hydra.searchpath=[file://own]", "'hydra.searchpath=[own]'"]
)
def test_own_choices_and_their_keys_are_completed(own, words):
    assert candidates(f"segladder train {words} method=mi") == ["method=mine"]
    (own / "method" / "mine.yaml").write_text("defaults: [mine, fcn8s]\nname: mine\nlimit: 3\n")
    assert candidates(f"segladder train {words} method=mine method.li") == ["method.limit="]
    assert "method.optimizer.lr=" in candidates(f"segladder train {words} method=mine method.")
    assert candidates("segladder train method=mi") == candidates("segladder train --nonsense method=mi") == []
