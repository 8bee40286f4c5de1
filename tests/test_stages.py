"""Chains of runs: skipped where nothing has changed, taken up where they were killed, never overwritten."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from segladder.commands.stages import with_folder

CHAIN = [
    *("data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("logger=none", "trainer.progress=false", "trainer.panels=0", "loader.batch_size=4", "trainer.checkpoint_every=1"),
    "stages={cam:['method=cam','protocol=cam_seeds','trainer.epochs=2'],"
    "net:['method=fcn8s','parent=cam','trainer.epochs=3']}",
]


def start(shapes_root, runs, *words):
    environment = {**os.environ, "SEGLADDER_DATA": str(shapes_root.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "segladder.cli", "train", f"runs={runs}", *CHAIN, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    out, error = process.communicate(timeout=600)
    assert process.returncode == 0, error
    return out


def weights(runs, stage):
    (folder,) = runs.glob(f"{stage}-seed0-*")
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_chain_killed_in_its_second_stage_ends_as_if_it_had_not_been(shapes_root, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(shapes_root, whole))
    process = start(shapes_root, broken)
    deadline = time.monotonic() + 500
    while not list(broken.glob("net-*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert json.loads(next(broken.glob("net-*/record.json")).read_text())["status"] == "running"
    out = finish(start(shapes_root, broken))
    assert "cam: " in out and out.count("is there already") == 1
    for stage in ("cam", "net"):
        first, second = weights(whole, stage), weights(broken, stage)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_stages_that_have_not_changed_are_skipped_and_changed_ones_lie_beside(shapes_root, tmp_path, segladder, capsys):
    finish(start(shapes_root, tmp_path))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(times) == 2
    assert segladder("train", f"runs={tmp_path}", *CHAIN) == 0
    assert capsys.readouterr().out.count("is there already") == 2
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}


def test_a_stage_must_name_one_before_it(segladder, tmp_path, capsys):
    words = [*CHAIN[:-1], "stages={net:['method=fcn8s','parent=cam']}"]
    assert segladder("train", f"runs={tmp_path}", *words) == 2
    assert "stages.net: parent=cam names no stage before it (none) and no folder" in capsys.readouterr().err


def test_a_stage_goes_before_a_folder_of_its_name_and_weights_may_be_what_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "floor").mkdir()
    folders = {"floor": tmp_path / "runs" / "floor-seed0-12345678"}
    assert with_folder("backbone.weights=floor", "names", folders) == f"backbone.weights={folders['floor']}"
    assert with_folder("parent=floor", "names", {}) == "parent=floor"
    assert with_folder("backbone.weights=timm", "names", folders) == "backbone.weights=timm"
