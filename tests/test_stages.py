"""Chains of runs: skipped where nothing has changed, taken up where they were killed, never overwritten."""

import json
import os
import signal
import time

import pytest
import torch

from segladder.commands import stages
from segladder.commands.children import run_child

TINY = [
    *("data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("logger=none", "trainer.progress=false", "trainer.panels=0", "loader.batch_size=4", "trainer.checkpoint_every=1"),
    *("protocol.scales=[1]", "protocol.bootstrap=20"),
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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_chain_killed_in_its_second_stage_ends_as_if_it_had_not_been(start_segladder, tmp_path):
    words = chain("epochs=2", "epochs=3")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start_segladder("train", f"runs={whole}", *words))
    process = start_segladder("train", f"runs={broken}", *words)
    deadline = time.monotonic() + 500
    while not list(broken.glob("net-*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert json.loads(next(broken.glob("net-*/record.json")).read_text())["status"] == "running"
    out = finish(start_segladder("train", f"runs={broken}", *words))
    assert "cam: " in out and out.count("is there already") == 1
    for stage in ("cam", "net"):
        first, second = weights(whole, stage), weights(broken, stage)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_stages_that_have_not_changed_are_skipped_and_changed_ones_lie_beside(segladder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stages, "run_child", lambda words: segladder(*words))

    def records_after(*steps):
        assert segladder("train", f"runs={tmp_path}", *chain(*steps)) == 0
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}

    first = records_after("steps=1", "steps=1")
    assert sorted(path.parent.name.split("-")[0] for path in first) == ["cam", "net"]
    assert "is there already" not in capsys.readouterr().out
    assert records_after("steps=1", "steps=1") == first
    assert capsys.readouterr().out.count("is there already") == 2
    changed = records_after("steps=1", "steps=2")
    (beside,) = changed.keys() - first.keys()
    assert changed.items() > first.items() and beside.parent.name.startswith("net-")
    assert capsys.readouterr().out.count("is there already") == 1


def test_a_failing_stage_ends_the_chain(segladder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(stages, "run_child", lambda words: 3)
    assert segladder("train", f"runs={tmp_path}", *chain("steps=1", "steps=1")) == 3
    assert capsys.readouterr().out.count("stage ") == 1


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
    assert stages.with_folder("backbone.weights=floor", "names", folders) == f"backbone.weights={folders['floor']}"
    assert stages.with_folder("parent=floor", "names", {}) == "parent=floor"
    assert stages.with_folder("backbone.weights=timm", "names", folders) == "backbone.weights=timm"
