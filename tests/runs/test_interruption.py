"""A run that is stopped ends as interrupted: whole groups, several signals, distributed runs of which one dies."""

import json
import os
import signal
import subprocess
import sys

import pytest

from segladder.errors import ConfigError
from segladder.runs import interruption as interruptions
from segladder.runs.interruption import Interruption

pytestmark = pytest.mark.long

TINY = [
    *("data.train_size=24", "data.val_size=8", "data.size=64", "backbone.width=8", "loader.workers=1"),
    *("loader.batch_size=4", "trainer.epochs=3", "trainer.progress=false", "trainer.panels=0", "logger=none"),
    *("protocol.bootstrap=20", "trainer.checkpoint_every=1"),
]
AT_STEP_9 = """
import multiprocessing, os, signal
from segladder.runs import interruption
from segladder.runs.callbacks import ResumePoints

save = ResumePoints.save

def stop_group():
    os.killpg(0, signal.{stop})

def workers_first():
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGTERM)
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    interruption.time.sleep = lambda seconds: os.kill(os.getpid(), signal.{stop})
    raise RuntimeError("DataLoader worker is killed by signal: Terminated")

def stop_at_once():
    interruption.TOGETHER = -1
    for _ in range(3):
        os.kill(os.getpid(), signal.{stop})

def save_and_stop(points, trainer):
    save(points, trainer)
    if trainer.global_step == 9:  # of 6 an epoch
        {how}()

ResumePoints.save = save_and_stop
"""
ONE_DIES = """
import os, signal, sys
from segladder import cli
from segladder.runs.callbacks import ResumePoints
save = ResumePoints.save

def save_and_die(points, trainer):
    save(points, trainer)
    if trainer.global_step == 2 and os.environ["LOCAL_RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)

ResumePoints.save = save_and_die
sys.exit(cli.main())
"""


def status_of(folder):
    return json.loads((folder / "record.json").read_text())["status"]


@pytest.mark.parametrize(
    ("how", "stop", "code"),
    [
        ("stop_group", "SIGTERM", 143),
        ("workers_first", "SIGTERM", 143),
        ("stop_at_once", "SIGINT", 130),
        pytest.param("stop_group", "SIGINT", 130, marks=pytest.mark.slow),
        pytest.param("stop_at_once", "SIGTERM", 143, marks=pytest.mark.slow),
    ],
)
def test_whoever_is_stopped_first_and_however_often_the_run_is_interrupted(start_segladder, tmp_path, how, stop, code):
    folder = tmp_path / "run"
    process = start_segladder("train", *TINY, f"hydra.run.dir={folder}", first=AT_STEP_9.format(how=how, stop=stop))
    _, error = process.communicate(timeout=240)
    assert process.returncode == code, error
    assert status_of(folder) == "interrupted" and not (folder / "owner.json").exists()
    assert f"interrupted; go on with: segladder train resume={folder}" in error and "Traceback" not in error


def test_a_distributed_run_of_which_one_process_is_killed_is_interrupted(shapes_root, tmp_path):
    folder, script = tmp_path / "run", tmp_path / "script.py"
    script.write_text(ONE_DIES)
    words = [*TINY, "loader.workers=0", "strategy=ddp_cpu", f"hydra.run.dir={folder}"]
    process = subprocess.run(
        [sys.executable, str(script), "train", *words],
        env={**os.environ, "SEGLADDER_DATA": str(shapes_root.parent)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode == 143, process.stderr
    assert status_of(folder) == "interrupted" and f"segladder train resume={folder}" in process.stderr
    assert "Traceback" not in process.stderr


def test_an_error_is_explained_by_a_signal_that_comes_with_it_and_not_otherwise(monkeypatch):
    with Interruption() as stopped:
        monkeypatch.setattr(interruptions.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
        assert stopped.explains(RuntimeError("a loading process was killed")) and stopped.code == 143
        signal.raise_signal(signal.SIGINT)  # nothing disturbs the record that is written now
    monkeypatch.undo()
    monkeypatch.setattr(interruptions, "TOGETHER", 0.0)
    with Interruption() as undisturbed:
        assert not undisturbed.explains(RuntimeError("a bug")) and not undisturbed.explains(ConfigError("a typo"))


def test_signals_that_come_together_are_one_request_and_a_later_one_stops_at_once(monkeypatch):
    with Interruption() as stopping:
        stopping.wait_for_loop()
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert stopping.asked and stopping.code == 143
        monkeypatch.setattr(interruptions, "TOGETHER", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_as_before_once_a_run_has_ended_by_itself():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
