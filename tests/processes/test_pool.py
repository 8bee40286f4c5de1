"""The launcher `pool`: a process per job, failed jobs recorded, what is finished not run again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from segladder.report.record import read, write
from segladder.runs.ownership import owned

pytestmark = pytest.mark.long

SWEEP = [
    *("data.train_size=20", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=0"),
    *("logger=none", "trainer.progress=false", "trainer.panels=0", "loader.batch_size=4", "trainer.checkpoint_every=1"),
    *("hydra/launcher=pool", "hydra.launcher.threads=1"),
]


def start(shapes_root, runs, *words):
    environment = {**os.environ, "SEGLADDER_DATA": str(shapes_root.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "segladder.cli", "train", "-m", f"runs={runs}", *SWEEP, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def records(runs):
    return [json.loads(path.read_text()) for path in sorted(runs.rglob("record.json"))]


def test_one_job_fails_alone_and_the_sweep_started_again_runs_only_that(shapes_root, tmp_path, segladder, capfd):
    words = [f"runs={tmp_path}", *SWEEP, "trainer.steps=1", "data.train_split=train,nowhere"]
    assert segladder("train", "-m", *words) == 1
    said = capfd.readouterr()
    assert "1 of 2 jobs failed: job 1 (data.train_split=nowhere)" in said.err
    first = {r["status"]: r["id"] for r in records(tmp_path)}
    assert set(first) == {"finished", "failed"}
    assert segladder("train", "-m", *words) == 1
    assert "2 jobs, 1 finished before" in capfd.readouterr().out
    assert {r["status"]: r["id"] for r in records(tmp_path)} == first


def test_a_second_sweep_is_told_who_works_on_a_job_and_leaves_its_record_alone(tmp_path, segladder, capfd):
    words = [f"runs={tmp_path}", *SWEEP, "trainer.steps=1", "seed=0"]
    assert segladder("train", "-m", *words) == 0
    (folder,) = [path.parent for path in tmp_path.rglob("record.json")]
    record = read(folder)
    assert folder.name == record.config_hash  # where every sweep looks for it
    record.status = "running"
    write(record, folder)
    capfd.readouterr()
    with owned(folder, ""):
        assert segladder("train", "-m", *words) == 1
        error = capfd.readouterr().err
        assert f"{folder}: process {os.getpid()} on" in error and "1 of 1 jobs failed" in error
        assert read(folder) == record
    assert segladder("train", "-m", *words, "resume=auto") == 0
    assert read(folder).status == "finished"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_distributed_sweep_killed_in_the_middle_ends_complete_and_without_duplicates(shapes_root, tmp_path):
    words = ["method=fcn32s,fcn8s", "seed=0,1", "strategy=ddp_cpu", "trainer.epochs=3"]
    process = start(shapes_root, tmp_path, *words)
    deadline = time.monotonic() + 500
    while len([r for r in records(tmp_path) if r["status"] == "finished"]) < 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = start(shapes_root, tmp_path, *words)
    _, error = again.communicate(timeout=600)
    assert again.returncode == 0, error
    found = records(tmp_path)
    assert [r["status"] for r in found] == ["finished"] * 4
    assert len({(r["method"], r["seed"]) for r in found}) == 4
