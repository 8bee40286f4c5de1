"""A sweep as a pool: every job in a fresh process of its own, several at once.

A fresh process per job keeps Lightning's distributed runs apart (a relaunched rank would start the sweep again), frees
memory for certain, and lets one job crash alone. A sweep that is started again runs what has no finished record.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from segladder.commands import runs
from segladder.commands.children import Child, start_child, waited_for
from segladder.errors import SegLadderError
from segladder.report import record as records

POLL = 0.2  # seconds between looks at the running jobs


@dataclass
class Job:
    """A job of a sweep: its number, overrides (those of it alone as `name`), folder, and whether it was done before."""

    number: int
    overrides: list[str]
    name: str
    folder: Path
    finished: bool = False
    code: int = 0


class Pool:
    """Runs the jobs of a sweep in slots.

    Args:
        context: Hydra's, composes the configuration of a job.
        config: of the sweep.
        slots: jobs at once.
        threads: CPU threads of a job; None shares the cores out among the slots.
        gpus: CUDA devices of a job, the next ones for each slot.
    """

    def __init__(
        self, context: HydraContext, config: DictConfig, slots: int = 1, threads: int | None = None, gpus: int = 0
    ) -> None:
        self.context = context
        self.config = config
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.slots = slots
        self.threads = threads or max(1, cores // slots)
        self.gpus = gpus

    def launch(self, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        """Run the jobs, numbered from `first`, that have no finished record.

        Raises:
            SegLadderError: some job failed; the others have been run.
        """
        setup_globals()
        jobs = list(self.jobs(job_overrides, first))
        todo = [job for job in jobs if not job.finished]
        print(f"{len(jobs)} jobs, {len(jobs) - len(todo)} finished before, {self.slots} at once", flush=True)
        self.run(todo)
        if failed := [job for job in todo if job.code]:
            names = "; ".join(f"job {job.number} ({job.name}), {job.folder}" for job in failed)
            raise SegLadderError(f"{len(failed)} of {len(jobs)} jobs failed: {names}")
        return [self.answer(job) for job in jobs]

    def jobs(self, job_overrides: Sequence[Sequence[str]], first: int) -> Iterator[Job]:
        """Each job with its folder: that of its unfinished run, if there is one, or a new one."""
        known = known_runs(Path(self.config.runs))
        shared = set.intersection(*map(set, job_overrides))
        for number, overrides in enumerate(job_overrides, start=first):
            whole = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(whole):
                whole.hydra.job.id = whole.hydra.job.num = number
            fresh = Path(whole.hydra.sweep.dir) / whole.hydra.sweep.subdir
            config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
            status, folder = known.get(runs.hash_of(config), ("", fresh))
            own, finished = [o for o in overrides if o not in shared], status == "finished" and not config.stages
            yield Job(number, list(filter_overrides(overrides)), " ".join(own), folder, finished)

    def run(self, jobs: list[Job]) -> None:
        """Run jobs, as many at once as there are slots."""
        waiting, slots = list(jobs), list(range(self.slots))
        running: dict[int, tuple[Child, Job]] = {}
        children: list[Child] = []
        with waited_for(children):
            while waiting or running:
                for slot in [s for s in slots if s not in running][: len(waiting)]:
                    job = waiting.pop(0)
                    print(f"job {job.number}: {job.name}", flush=True)
                    words = ["train", *job.overrides, f"hydra.run.dir={job.folder}"]
                    running[slot] = start_child(words, self.environment(slot)), job
                    children.append(running[slot][0])
                time.sleep(POLL)
                for slot, (child, job) in list(running.items()):
                    if child.poll() is not None:
                        job.code = child.returncode
                        record_death(job)
                        del running[slot]

    def environment(self, slot: int) -> dict[str, str]:
        """Variables that give a slot its threads and devices."""
        variables = {"OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            devices = range(slot * self.gpus, (slot + 1) * self.gpus)
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, devices))
        return variables

    def answer(self, job: Job) -> JobReturn:
        """What Hydra is told of a job."""
        answer: Any = JobReturn(overrides=job.overrides, working_dir=str(job.folder))
        answer.status, answer.return_value = JobStatus.COMPLETED, job.code
        return answer


def known_runs(folder: Path) -> dict[str, tuple[str, Path]]:
    """Status and folder of the best run of each configuration: a finished one, or else the latest."""
    if not folder.is_dir():
        return {}
    found, _ = records.find_records(folder)
    own = [(record, place) for record, place in found if (place / runs.CONFIG).exists()]  # no evaluations
    ranked = sorted(own, key=lambda pair: (pair[0].status == "finished", pair[0].time))
    return {record.config_hash: (record.status, place) for record, place in ranked}


def record_death(job: Job) -> None:
    """Write into the record of a job that died without a word that it failed."""
    if job.code and (job.folder / records.FILE_NAME).exists():
        record = records.read(job.folder)
        if record.status == "running":
            how = f"signal {-job.code}" if job.code < 0 else f"exit code {job.code}"
            record.status, record.error = "failed", f"the process ended with {how}"
            records.write(record, job.folder)
