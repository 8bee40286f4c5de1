"""`segladder search`: what it draws, runs, tells the study and shows; training is replaced but in one slow test."""

import functools
import math
import shlex
import sys
from dataclasses import dataclass

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from segladder.processes import parallel
from segladder.processes.search_space import distributions
from segladder.report import record as records
from segladder.report.pictures.search_history import best_so_far
from segladder.runs import composition
from segladder.runs.composition import composed
from segladder.runs.folder import CONFIG, config_hash_of
from segladder.runs.ownership import owned

pytestmark = pytest.mark.long

optuna = pytest.importorskip("optuna")
LR = "space={method.optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}"
TINY = [
    *("data.train_size=40", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("logger=csv", "trainer.progress=false", "trainer.panels=0", "loader.batch_size=4", "trainer.epochs=1"),
]


def composed_once(overrides, command="train"):
    """`composed`, which takes most of the time of these tests, once for each configuration."""
    return composed_for(*overrides)


@functools.cache
def composed_for(*overrides):
    return composed(list(overrides))


@dataclass
class Training:
    """Stands in for the processes: scores a learning rate by its distance from 1e-3, fails where dropout is 0.9."""

    cut_off_at: int | None = None
    started: int = 0

    def __call__(self, words, environment, log):
        self.started += 1
        if self.started == self.cut_off_at:
            raise KeyboardInterrupt
        overrides = dict(word.split("=", 1) for word in words[1:])
        folder = log.parent.parent / overrides.pop("hydra.run.dir").rsplit("/", 1)[1]
        self.returncode = int(overrides.get("method.dropout") == "0.9")
        config = composed_once([f"{key}={value}" for key, value in overrides.items()])
        score = 1 / (1 + abs(math.log10(config.method.optimizer.lr) + 3))
        status = "failed" if self.returncode else "finished"
        record = records.Record(status=status, method="fcn8s", config_hash=config_hash_of(config))
        record.label_access = {"selection": overrides["selection"], "score": score, "chosen_by": "pixels"}
        records.write(record, folder)
        (folder / CONFIG).touch()
        return self

    def poll(self):
        return self.returncode

    def wait(self):
        return self.returncode


@pytest.fixture
def search(segladder, tmp_path, monkeypatch):
    """Runs `segladder search` with `Training` in place of processes; returns its exit code."""
    monkeypatch.setattr(parallel, "POLL", 0)
    monkeypatch.setattr(composition, "composed", composed_once)

    def run(*words, training=None):
        monkeypatch.setattr(parallel, "start_child", training or Training())
        root = () if any(word.startswith("runs=") for word in words) else (f"runs={tmp_path}",)
        return segladder("search", *root, *words)

    return run


def trials(folder):
    """Number, state, parameters and score of each trial of the one search under a folder of runs."""
    (storage,) = folder.glob("search/*/study.db")
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{storage}")
    return [(t.number, t.state.name, t.params, t.value) for t in study.trials]


def test_the_best_trial_is_shown_with_the_command_that_repeats_it(search, tmp_path, capsys):
    words = [LR.removesuffix("}") + ", method.dropout: [0.1, 0.9]}", "trials=4", "slots=2", "seed=3"]
    assert search(*words) == 0
    found = trials(tmp_path)
    assert [number for number, *_ in found] == [0, 1, 2, 3]
    assert {state for _, state, parameters, _ in found if parameters["method.dropout"] == "0.9"} == {"FAIL"}
    scored = [trial for trial in found if trial[1] == "COMPLETE"]
    assert scored and len(scored) < 4
    best = max(scored, key=lambda trial: trial[3])
    said = capsys.readouterr().out
    assert f"best of 4: trial {best[0]}, {100 * best[3]:.2f} %" in said
    command = shlex.split(said.partition("repeat it: ")[2].splitlines()[0])
    assert command[:2] == ["segladder", "train"] and f"method.optimizer.lr={best[2]['method.optimizer.lr']}" in command
    assert {"seed=3", "selection=held_out", "loader.held_out=0.2"} <= set(command)
    assert not [word for word in command if word.startswith(("space", "trials", "slots"))]
    assert len(list(tmp_path.glob("search/*/search.png"))) == 1


def test_a_search_that_is_cut_off_goes_on_as_if_it_had_not_been(search, tmp_path):
    straight, halting = tmp_path / "straight", tmp_path / "halting"
    assert search(LR, "trials=3", f"runs={straight}") == 0
    assert search(LR, "trials=3", f"runs={halting}", training=Training(cut_off_at=2)) == 130
    assert [state for _, state, *_ in trials(halting)] == ["COMPLETE", "RUNNING"]
    again = Training()
    assert search(LR, "trials=3", f"runs={halting}", training=again) == 0
    assert trials(halting) == trials(straight) and again.started == 2
    assert search(LR, "trials=3", f"runs={halting}", training=again) == 0 and again.started == 2


def test_a_configuration_is_run_once(search, tmp_path):
    first, second = Training(), Training()
    choices = "space={method.optimizer.lr: [1e-4, 1e-3]}"
    assert search(choices, "trials=6", "slots=3", "sampler=random", training=first) == 0
    assert first.started == 2
    found = trials(tmp_path)
    assert {(p["method.optimizer.lr"], round(score, 3)) for _, _, p, score in found} == {("0.0001", 0.5), ("0.001", 1)}
    assert search(choices, "trials=3", "sampler=tpe", training=second) == 0
    assert second.started == 0


def test_a_second_search_is_told_who_is_in_it(search, tmp_path, capsys):
    assert search(LR, "trials=1") == 0
    (folder,) = tmp_path.glob("search/*")
    again = Training()
    with owned(folder, ""):
        assert search(LR, "trials=2", training=again) == 2
    error = capsys.readouterr().err
    assert f"{folder}: process " in error and "start this search again" in error and again.started == 0
    assert search(LR, "trials=2", training=again) == 0 and again.started == 1


@pytest.mark.parametrize("content", [b"no study" * 500, b"SQLite format 3\0" + bytes(2000)])
def test_a_file_that_holds_no_study_is_named(search, tmp_path, capsys, content):
    assert search(LR, "trials=1") == 0
    (storage,) = tmp_path.glob("search/*/study.db")
    storage.write_bytes(content)
    capsys.readouterr()
    assert search(LR, "trials=1") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("segladder: ")]
    assert "study.db: no study" in line and "remove it: finished trials are found again" in line


def test_a_search_whose_trials_all_fail_says_so(search, capsys):
    assert search("space={method.dropout: [0.9]}", "trials=1") == 1
    assert "all 1 trials failed" in capsys.readouterr().err


def test_a_choice_that_does_not_compose_is_a_failed_trial(search, tmp_path, capsys):
    assert search("space={loss: [dice, dise]}", "trials=3", "sampler=random") == 0
    assert {state for _, state, *_ in trials(tmp_path)} == {"COMPLETE", "FAIL"}
    assert "loss=dise: no such choice (did you mean dice?)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([LR, "selection=fixed"], "selection=fixed: a search is judged on held-out training images"),
        ([LR, "selection=oracle"], "never on the scored split"),
        ([LR, "loader.held_out=0"], "set loader.held_out"),
        (["space={fold: [0, 1]}", "method=prototype", "protocol=strict"], "method=prototype is not trained"),
        ([LR, "stages={a: []}"], "stages: the trials of a search are single runs"),
        ([LR, "resume=auto"], "resume: the trials of a search"),
        ([LR, "sampler=grid"], "sampler=grid: expected one of tpe, random"),
        ([], "space=None: nothing to search"),
        (["space={method.optimizer.lr: 3}"], "space.method.optimizer.lr=3: expected [choices] or {low: A, high: B}"),
        (["space={seed: {low: 3, high: 1}}"], "space.seed: `low <= high`"),
        (["space={method.optimizer.lrr: [1, 2]}"], "method.optimizer.lrr: no such key in method.optimizer (did you"),
    ],
)
def test_what_cannot_be_searched_gets_one_clear_line(search, words, said, capsys, tmp_path):
    assert search(*words) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


def test_without_optuna_one_line_says_what_to_install(search, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert search(LR) == 2
    assert "pip install 'segladder[search]'" in capsys.readouterr().err


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=30)  # Hydra's parser is slow
@given(SCALARS | st.lists(SCALARS, max_size=3))
def test_a_choice_is_read_back_by_hydra_as_it_was_given(choice):
    (kept,) = distributions({"key": [choice]})["key"].choices
    read = OverridesParser.create().parse_override(f"key={kept}").value()
    assert read == choice and type(read) is type(choice)


def test_ranges_of_whole_numbers_stay_whole():
    space = {
        "a": {"low": 2, "high": 8, "step": 2},
        "b": {"low": 1, "high": 64, "log": True},
        "c": {"low": 0, "high": 0.5},
    }
    study = optuna.create_study()
    drawn = [study.ask(distributions(space)).params for _ in range(20)]
    assert {trial["a"] for trial in drawn} <= {2, 4, 6, 8}
    assert all(isinstance(trial["b"], int) and 1 <= trial["b"] <= 64 for trial in drawn)
    assert all(0 <= trial["c"] <= 0.5 for trial in drawn) and any(trial["c"] not in (0, 0.5) for trial in drawn)


def test_the_best_so_far_never_falls_and_passes_over_failed_trials():
    assert best_so_far([None, 0.2, None, 0.1, 0.5, 0.3]) == [None, 0.2, 0.2, 0.2, 0.5, 0.5]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_trials_are_judged_by_the_score_that_their_runs_logged(segladder, shapes_root, tmp_path):
    assert segladder("search", f"runs={tmp_path}", *TINY, "space={method.optimizer.lr: [1e-3, 1e-2]}", "trials=2") == 0
    for number, _, _, score in trials(tmp_path):
        (log,) = tmp_path.glob(f"search/*/trial-{number:03d}/logs/**/metrics.csv")
        header, *rows = (line.split(",") for line in log.read_text().splitlines())
        logged = [float(row[header.index("held_out/mIoU")] or 0) for row in rows]
        assert max(logged) == pytest.approx(score, abs=1e-5)
