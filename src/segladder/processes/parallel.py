"""Runs in fresh processes, several at once: the engine of the launcher `pool` and of `segladder search`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segladder.command_line import quoted
from segladder.errors import ConfigError, SegLadderError
from segladder.machine import cores
from segladder.processes.start import Child, start_child, waited_for
from segladder.report import record as records
from segladder.runs.ownership import owner_of
from segladder.settings import Count, Positive

POLL = 0.2  # seconds between looks at the running jobs


@dataclass
class Job:
    """A training run: its number, overrides, name (the overrides that are its own), folder, log file and exit code."""

    number: int
    overrides: list[str]
    name: str
    folder: Path
    log: Path | None = None  # where what it prints goes; None: to the screen
    code: int = 0


class Slots:
    """Places for jobs.

    Args:
        slots: jobs at once.
        threads: CPU threads of a job; None shares the cores out among the slots.
        gpus: CUDA devices of a job, the next ones for each slot, among those of `CUDA_VISIBLE_DEVICES` if it is set.

    Raises:
        ConfigError: it names fewer devices than the slots need.
    """

    def __init__(self, slots: Positive = 1, threads: Positive | None = None, gpus: Count = 0) -> None:
        self.slots = slots
        self.threads = threads or max(1, cores() // slots)
        self.gpus = gpus
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.devices = [str(n) for n in range(slots * gpus)] if named is None else [n for n in named.split(",") if n]
        if len(self.devices) < slots * gpus:
            raise ConfigError(
                f"slots={slots} gpus={gpus}: CUDA_VISIBLE_DEVICES={named} names {len(self.devices)} devices, expected"
                f" {slots * gpus}"
            )

    def run(self, jobs: Iterable[Job], ended: Callable[[Job], None]) -> None:
        """Run jobs, each taken when a slot is free for it; `ended` gets it when its exit code is known."""
        waiting, free = iter(jobs), list(range(self.slots))
        running: dict[int, tuple[Child, Job]] = {}
        children: list[Child] = []
        with waited_for(children):
            while True:
                while free and (job := next(waiting, None)) is not None:
                    slot = free.pop(0)
                    given = [o for o in job.overrides if o != "resume=auto"]  # the folder says which run it is
                    words = ["train", *given, f"hydra.run.dir={quoted(job.folder)}"]
                    running[slot] = start_child(words, self.environment(slot), job.log), job
                    children.append(running[slot][0])
                if not running:
                    return
                time.sleep(POLL)
                for slot in [slot for slot, (child, _) in running.items() if child.poll() is not None]:
                    child, job = running.pop(slot)
                    free.append(slot)
                    job.code = child.returncode
                    record_death(job.folder, job.code)
                    ended(job)

    def environment(self, slot: int) -> dict[str, str]:
        """Variables that give a slot its threads and devices."""
        variables = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices[slot * self.gpus : (slot + 1) * self.gpus])
        return variables


def record_death(folder: Path, code: int) -> None:
    """Write into the record of a run that died without a word that it failed, where it can be read and written."""
    if not code or owner_of(folder) is not None:
        return
    with suppress(SegLadderError, OSError):  # those that still run go on
        record = records.read(folder)
        if record.status == "running":
            record.status, record.error = "failed", f"the process ended with {how_ended(code)}"
            records.write(record, folder)


def how_ended(code: int) -> str:
    """The exit code of a child in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
