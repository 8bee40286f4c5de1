"""Slots of jobs that run at once: their threads and devices."""

from types import SimpleNamespace

import pytest

from segladder.errors import ConfigError
from segladder.processes import parallel
from segladder.processes.parallel import Job, Slots
from segladder.report.record import FILE_NAME, Record, read, write


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ["0,1", "2,3"]), ("4,5,6,7,8", ["4,5", "6,7"]), ("MIG-a,MIG-b,3,1", ["MIG-a,MIG-b", "3,1"])],
)
def test_a_slot_has_devices_of_those_that_were_given(monkeypatch, given, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    slots = Slots(2, threads=1, gpus=2)
    assert [slots.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == expected
    assert "CUDA_VISIBLE_DEVICES" not in Slots(2).environment(1)


def test_too_few_devices_are_named(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    with pytest.raises(ConfigError, match="slots=2 gpus=1: CUDA_VISIBLE_DEVICES=5 names 1 devices, expected 2"):
        Slots(2, gpus=1)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("slots=0", "hydra.launcher.slots=0: expected a whole number at least 1"),
        ("slots=two", "hydra.launcher.slots=two: expected a whole number at least 1"),
        ("gpus=-1", "hydra.launcher.gpus=-1: expected a whole number at least 0"),
        ("threads=0", "hydra.launcher.threads=0: expected a whole number at least 1 or null"),
        ("nope=2", "hydra.launcher.nope: no such key in hydra/launcher=pool; allowed: slots, threads, gpus"),
    ],
)
def test_a_setting_of_the_pool_that_cannot_be_gets_one_clear_line(segladder, tmp_path, capsys, setting, said):
    words = ["hydra/launcher=pool", f"hydra.launcher.{setting}", f"runs={tmp_path}"]
    assert segladder("train", "-m", *words) == 2
    assert capsys.readouterr().err == f"segladder: {said}\n" and not list(tmp_path.iterdir())


def test_a_job_whose_record_cannot_be_read_fails_alone(monkeypatch, tmp_path):
    codes = {"damaged": -9, "whole": -9, "good": 0}
    jobs = [Job(number, [], name, tmp_path / name) for number, name in enumerate(codes)]
    for job in jobs:
        write(Record(status="running"), job.folder)
    (jobs[0].folder / FILE_NAME).write_text("{")

    def start_child(arguments, environment, log):
        code = codes[arguments[-1].rsplit("/", 1)[1]]
        return SimpleNamespace(poll=lambda: code, returncode=code)

    monkeypatch.setattr(parallel, "start_child", start_child)
    monkeypatch.setattr(parallel, "POLL", 0)
    ended = []
    Slots(1).run(jobs, ended.append)
    assert [(job.name, job.code) for job in ended] == list(codes.items())
    record = read(jobs[1].folder)
    assert (record.status, record.error) == ("failed", "the process ended with signal 9")
