"""Chains of runs: skipped where nothing has changed, taken up where they were killed, never overwritten."""

import json
import signal
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from segladder.processes.start import run_child, start
from segladder.report.record import Record, read, write
from segladder.stages import chain as chains

TINY = [
    *("data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("logger=none", "trainer.progress=false", "trainer.panels=0", "loader.batch_size=4", "trainer.checkpoint_every=1"),
    *("protocol.bootstrap=20", "protocol.scales=[1]"),
]


def chain(cam, net):
    """The settings of two stages that train for `cam` and `net`, such as epochs=2."""
    first, second = f"'method=cam','protocol=cam_seeds','trainer.{cam}'", f"'method=fcn8s','parent=cam','trainer.{net}'"
    return [*TINY, f"stages={{cam:[{first}],net:[{second}]}}"]


def finish(process):
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return out


def weights(runs, stage):
    (folder,) = runs.glob(f"{stage}-seed0-*")
    return torch.load(folder / "weights.pt", weights_only=True)


PIPELINE = {
    "seeds": ["method=puzzle_cam", "protocol=cam_seeds"],
    "affinity": ["method=irn", "protocol=cam_seeds", "parent=seeds", "pseudo_masks.foreground_at=0.4"],
    "crf": ["method=dense_crf", "protocol=cam_seeds", "parent=affinity"],
    "network": ["method=fcn8s", "protocol=semantic", "parent=crf"],
}
KILLED = """
import os, signal
from segladder.runs.folder import FOLDER_VARIABLE
from segladder.runs.callbacks import ResumePoints
from segladder.protocols.cam_seeds import CamSeedsProtocol

def killing(work):
    def killed(*arguments):
        work(*arguments)
        if "/{stage}-seed0-" in os.environ[FOLDER_VARIABLE]:
            os.killpg(0, signal.SIGKILL)
    return killed

ResumePoints.save = killing(ResumePoints.save)  # in the middle of training
CamSeedsProtocol.count = killing(CamSeedsProtocol.count)  # or of scoring, where nothing trains
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_pipeline_killed_in_each_of_its_stages_ends_as_if_it_had_not_been(start_segladder, tmp_path):
    listed = ",".join(f"{name}:[{','.join(map(repr, own))}]" for name, own in PIPELINE.items())
    words = ["train", *TINY, "trainer.epochs=2", f"stages={{{listed}}}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start_segladder(*words, f"runs={whole}"))
    for stage in PIPELINE:
        process = start_segladder(*words, f"runs={broken}", first=KILLED.format(stage=stage))
        process.communicate(timeout=600)
        (folder,) = broken.glob(f"{stage}-seed0-*")
        assert process.returncode == -signal.SIGKILL
        assert json.loads((folder / "record.json").read_text())["status"] == "running"
    assert finish(start_segladder(*words, f"runs={broken}")).count("is there already") == len(PIPELINE) - 1
    for stage in ("seeds", "affinity", "network"):
        first, second = weights(whole, stage), weights(broken, stage)
        assert all(torch.equal(first[key], second[key]) for key in first)
    for stage in PIPELINE:
        first, second = (json.loads(next(r.glob(f"{stage}-*/record.json")).read_text()) for r in (whole, broken))
        assert second["status"] == "finished" and second["metrics"] == first["metrics"]


def test_stages_that_have_not_changed_are_skipped_and_changed_ones_lie_beside(segladder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chains, "run_child", lambda words: segladder(*words))

    def records_after(*steps):
        assert segladder("train", f"runs={tmp_path}", *chain(*steps)) == 0
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}

    first = records_after("steps=1", "steps=1")
    assert sorted(path.parent.name.split("-")[0] for path in first) == ["cam", "net"]
    assert "is there already" not in capsys.readouterr().out
    assert not (tmp_path / "shapes").exists()  # where a single run would lie
    assert records_after("steps=1", "steps=1") == first
    assert capsys.readouterr().out.count("is there already") == 2
    changed = records_after("steps=1", "steps=2")
    (beside,) = changed.keys() - first.keys()
    assert changed.items() > first.items() and beside.parent.name.startswith("net-")
    assert capsys.readouterr().out.count("is there already") == 1


@pytest.mark.parametrize("key", ["parent", "start", "backbone.weights"])
def test_a_stage_is_another_where_a_run_that_it_builds_on_has_learnt_anew(tmp_path, key):
    given = [*TINY, "method=fcn8s", "protocol=semantic", f"{key}={tmp_path}"]
    folders = set()
    for sha256 in ("a", "b", "b"):
        learnt = {"status": "finished", "method": "fcn8s", "checkpoint": {"sha256": sha256}}
        write(Record(id="run", supervision="full", **learnt), tmp_path)
        folders.add(chains.stage_folder("net", given))
    assert len(folders) == 2


@pytest.mark.parametrize(
    ("words", "scored"),
    [
        (["protocol=ladder"], False),
        (["shots=5", "protocol=ladder"], True),
        (["protocol=[hard,swap]"], True),
        (["protocol=[hard,negative]"], False),
        ([], False),
    ],
)
def test_a_run_is_scored_again_by_all_of_the_words_and_no_others(tmp_path, monkeypatch, words, scored):
    commands = {"a": "shots=5 protocol=ladder", "b": "protocol=hard", "c": "protocol=swap"}
    for name in commands:
        (tmp_path / "evaluations" / name).mkdir(parents=True)
        (tmp_path / "evaluations" / name / "record.json").touch()
    monkeypatch.setattr(chains, "is_finished", lambda place: True)
    command = "segladder evaluate run=/elsewhere/run "
    monkeypatch.setattr(chains.records, "read", lambda place: SimpleNamespace(command=command + commands[place.name]))
    assert chains.is_scored(tmp_path, words) == scored


def test_a_failing_stage_ends_the_chain(segladder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chains, "run_child", lambda words: 3)
    assert segladder("train", f"runs={tmp_path}", *chain("steps=1", "steps=1")) == 3
    assert capsys.readouterr().out.count("stage ") == 1


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_killed_stage_is_no_success_and_its_record_says_how_it_ended(
    segladder, tmp_path, capsys, monkeypatch, at_once
):
    def killed(words, *_):
        write(Record(status="running"), words[-1].removeprefix("hydra.run.dir="))
        return SimpleNamespace(poll=lambda: -9, wait=lambda: -9)

    monkeypatch.setattr(chains, "start", killed)
    monkeypatch.setattr(chains, "run_child", lambda words: killed(words).wait())
    assert segladder("train", f"runs={tmp_path}", f"at_once={at_once}", *chain("steps=1", "steps=1")) == 128 + 9
    assert capsys.readouterr().err == "segladder: stages.cam: the process ended with signal 9\n"
    (folder,) = tmp_path.glob("cam-*")
    assert (read(folder).status, read(folder).error) == ("failed", "the process ended with signal 9")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["at_once=0", "stages={a: []}"], "at_once=0: expected a whole number at least 1"),
        (["stages=3"], "stages=3: expected a choice or keys with values or null"),
        (["stages={a: 3}"], "stages="),
        (["stages={a/b: []}"], "stages="),
        (["stages={a: [], b: ['method=fcn9s']}"], "stages.b: method=fcn9s: no such choice (did you mean fcn8s?)"),
        (
            ["stages={a: [], b: ['trainer.epoch=2']}"],
            "stages.b: trainer.epoch: no such key in trainer (did you mean epochs?)",
        ),
        (["stages={a: [], b: ['evaluate=a', 'shot=5']}"], "stages.b: shot: no such key (did you mean shots?)"),
        (
            ["stages={a: [], b: ['protocol=ladder','selection=held_out']}"],
            "stages.b: selection=held_out needs held-out training",
        ),
        (
            ["stages={a: [], b: ['method=spnet','protocol=ladder','embeddings.sources=[]']}"],
            "stages.b: embeddings.sources is empty: give files of class vectors for method=spnet",
        ),
        (
            ["stages={a: [], b: ['method=sg_one','protocol=ladder','pool=3','protocol.shots=5']}"],
            "stages.b: class disc_solid: 1 of 3 images of the pool hold it, protocol.shots=5; take a larger pool",
        ),
        (
            ["stages={a: ['method=sg_one','protocol=ladder','pool=10'], b: ['evaluate=a', 'shots=5']}"],
            "stages.b: class disc_solid: 2 of 10 images of the pool hold it, protocol.shots=5; take a larger pool",
        ),
        (
            ["stages={a: [], b: ['evaluate=a', 'protocol=semantic', 'protocol.split=test']}"],
            "ImageSets/Segmentation/test.txt: ",
        ),
        (["stages={a: [], b: ['pool=5000']}"], "stages.b: pool=5000: shapes has "),
        (
            ["stages={a: [], b: ['loader.held_out=0.9999']}"],
            "stages.b: loader.held_out=0.9999 and loader.without leave no training image of train",
        ),
        (
            ["stages={a: [], b: ['method=sg_one','protocol=ladder','loader.held_out=0.97']}"],
            "stages.b: shapes: base class ",
        ),
        (
            ["stages={a: [], b: ['protocol=panoptic','protocol.stuff=[sky]']}"],
            "stages.b: protocol panoptic: no class sky in use, expected some of background, ",
        ),
        (
            ["experiment=ladder", "~stages.seeds"],
            "stages.tags: parent=seeds names no stage before it (floor, ceiling, ",
        ),
    ],
)
def test_a_chain_that_cannot_be_is_refused_before_its_first_stage(
    segladder, tmp_path, capsys, monkeypatch, words, said
):
    monkeypatch.setattr(chains, "run_child", None)
    assert segladder("train", f"runs={tmp_path}", *words) in (1, 2)
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_stage_may_score_the_run_that_another_scored(monkeypatch):
    looked_at = []
    monkeypatch.setattr(chains, "require_data", lambda config, _: looked_at.append(config.protocol.bootstrap))
    found = {"net": [], "again": ["evaluate=net", "protocol=semantic"], "once_more": ["evaluate=again"]}
    stages = [chains.Stage(name, "", tuple(words), frozenset()) for name, words in found.items()]
    chains.require_possible(stages, [*TINY, "method=fcn8s", "protocol=semantic"])
    assert looked_at == [20, 1000, 20]


@pytest.mark.parametrize("word", ["backbone.options.act_layer=relu", "embeddings.words.tube=pipe"])
def test_a_stage_may_set_keys_that_are_the_users_own(word):
    given = [*TINY, "method=fcn8s", "protocol=semantic"]
    assert chains.stage_folder("net", [*given, word]) != chains.stage_folder("net", given)


def test_a_chain_says_which_of_the_commands_words_do_not_count_for_which_stages():
    def stage(name, *words):
        return chains.Stage(name, "", words, frozenset())

    stages = [
        stage("floor", "method=fcn8s", "trainer.epochs=8"),
        stage("seeds", "method=cam", "backbone.weights=floor", "trainer.epochs=3", "seed=1"),
        stage("again", "evaluate=seeds", "protocol.bootstrap=100"),
    ]
    given = ["experiment=demo", "seed=1", "trainer.epochs=1", "backbone.weights=FILE", "protocol.bootstrap=20"]
    assert list(chains.kept_by_stages(stages, given)) == [
        "trainer.epochs=1: stages that set it themselves keep theirs: floor 8, seeds 3"
    ]


def test_a_child_is_a_process_of_its_own(capfd):
    assert run_child(["--version"]) == 0
    assert capfd.readouterr().out.startswith("segladder ")
    assert run_child(["trian"]) == 2


def test_a_stage_must_name_one_before_it(segladder, tmp_path, capsys):
    words = [*TINY, "stages={net:['method=fcn8s','parent=cam']}"]
    assert segladder("train", f"runs={tmp_path}", *words) == 2
    assert "stages.net: parent=cam names no stage before it (none) and no folder" in capsys.readouterr().err


def test_a_stage_goes_before_a_folder_of_its_name_and_weights_may_be_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "floor").mkdir()
    folders = {"floor": tmp_path / "runs" / "floor-seed0-12345678"}
    assert chains.with_folder("backbone.weights=floor", folders) == f"backbone.weights={folders['floor']}"
    assert list(chains.needs("names", ["parent=floor"], ["floor"])) == ["floor"]
    assert list(chains.needs("names", ["parent=floor"], [])) == []
    assert chains.with_folder("parent=floor", {}) == "parent=floor"
    assert chains.with_folder("backbone.weights=timm", folders) == "backbone.weights=timm"


class Child:
    """A stage that ends when it has been looked at a few times."""

    started: ClassVar[list[str]] = []
    running: ClassVar[set[str]] = set()
    most: ClassVar[int] = 0

    def __init__(self, name, looks, code, log):
        self.name, self.looks, self.code = name, looks, code
        log.write_text(f"{name} said this\n")
        Child.started.append(name)
        Child.running.add(name)
        Child.most = max(Child.most, len(Child.running))

    def poll(self):
        self.looks -= 1
        if self.looks > 0:
            return None
        Child.running.discard(self.name)
        return self.code

    def wait(self):
        return self.code


@pytest.fixture
def two_at_once(monkeypatch):
    """Runs stages `a b c d`, where `c` builds on `a`, as children that end after some looks with some codes."""

    def run(looks, codes=None):
        def start(command, threads, log):
            assert threads == 2
            return Child(log.name, looks[log.name], (codes or {}).get(log.name, 0), log)

        Child.started, Child.running, Child.most = [], set(), 0
        monkeypatch.setattr(chains, "start", start)
        monkeypatch.setattr(chains, "POLL", 0)
        monkeypatch.setattr(chains, "cores", lambda: 4)
        needs = {"a": set(), "b": set(), "c": {"a"}, "d": set()}
        stages = [chains.Stage(name, "", (), frozenset(needed)) for name, needed in needs.items()]
        begun = lambda stage: None if looks[stage.name] is None else []  # noqa: E731
        return chains.together(stages, begun, lambda stage, code: code, 2)

    return run


def test_two_stages_run_at_once_and_wait_for_what_they_build_on(two_at_once, capsys):
    assert two_at_once({"a": 5, "b": 2, "c": 1, "d": 1}) == 0
    assert Child.started == ["a", "b", "d", "c"] and Child.most == 2
    assert capsys.readouterr().out == "".join(f"{name} said this\n" for name in "bdac")
    assert two_at_once({"a": None, "b": 3, "c": 1, "d": 1}) == 0
    assert Child.started == ["b", "c", "d"]


def test_after_a_failure_what_runs_is_waited_for_and_nothing_starts(two_at_once, capsys):
    assert two_at_once({"a": 4, "b": 2, "c": 1, "d": 1}, {"b": 3}) == 3
    assert Child.started == ["a", "b"] and not Child.running
    assert capsys.readouterr().out == "b said this\na said this\n"


def test_a_child_prints_to_its_log(tmp_path, capfd):
    with capfd.disabled():
        assert start(["--version"], 1, tmp_path / "log").wait() == 0
    assert (tmp_path / "log").read_text().startswith("segladder ")
