"""A sweep: every job in a fresh process of its own, several at once.

A fresh process per job keeps Lightning's distributed runs apart (a relaunched rank would start the sweep again), frees
memory for certain, and lets one job crash alone. A sweep that is started again runs what has no finished record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from segladder.command_line import own_choices
from segladder.errors import ConfigError, SegLadderError, some
from segladder.processes.parallel import Job, Slots
from segladder.report import record as records
from segladder.runs.folder import CONFIG, config_hash_of
from segladder.runs.job import is_named
from segladder.settings import check


class Sweep:
    """Runs the jobs of a sweep in slots.

    Args:
        context: Hydra's, composes the configuration of a job.
        config: of the sweep.
        settings: those of `Slots`.

    Raises:
        ConfigError: settings that are none of `Slots`.
    """

    def __init__(self, context: HydraContext, config: DictConfig, **settings: Any) -> None:
        self.context = context
        self.config = config
        check(Slots, settings, "hydra.launcher")
        self.slots = Slots(**settings)

    def launch(self, job_overrides: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        """Run the jobs, numbered from `first`, that have no finished record.

        Raises:
            ConfigError: `hydra.sweep.subdir` names one folder for several jobs.
            SegLadderError: some job failed; the others have been run.
        """
        setup_globals()
        jobs = list(self.jobs(job_overrides, first))
        if is_named(self.config.hydra):
            require_apart([job for job, _ in jobs])
        todo = [job for job, finished in jobs if not finished]
        print(f"{len(jobs)} jobs, {len(jobs) - len(todo)} finished before, {self.slots.slots} at once", flush=True)
        failed: list[Job] = []
        self.slots.run(announced(todo), lambda job: failed.append(job) if job.code else None)
        if failed:
            names = "; ".join(f"job {job.number} ({job.name}), {job.folder}" for job in failed)
            raise SegLadderError(f"{len(failed)} of {len(jobs)} jobs failed: {names}")
        return [self.answer(job) for job, _ in jobs]

    def jobs(self, job_overrides: Sequence[Sequence[str]], first: int) -> Iterator[tuple[Job, bool]]:
        """Each job, in the folder of its unfinished run if there is one, and whether it has a finished one.

        A new folder is named by a hash of the settings, so that sweeps that run at once meet there. Jobs of the same
        settings, such as those of `tag=a,b`, are one.
        """
        met: set[Path] = set()
        known = known_runs(Path(self.config.runs))
        shared = set.intersection(*map(set, job_overrides))
        for number, overrides in enumerate(job_overrides, start=first):
            whole = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(whole):
                whole.hydra.job.id = whole.hydra.job.num = number
            config = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
            what = config_hash_of(config)
            subdir = whole.hydra.sweep.subdir if is_named(whole.hydra) else f"{config.method.name}/{what}"
            status, folder = known.get(what, ("", Path(whole.hydra.sweep.dir) / subdir))
            own, finished = [o for o in overrides if o not in shared], status == "finished" and not config.stages
            told = [*own_choices(self.config.hydra.overrides.hydra), *filter_overrides(overrides)]
            if folder in met and not config.stages and not is_named(whole.hydra):
                print(f"job {number}: the same run as another job's, left out ({' '.join(own)})", flush=True)
                continue
            met.add(folder)
            yield Job(number, told, " ".join(own), folder), finished

    def answer(self, job: Job) -> JobReturn:
        """What Hydra is told of a job."""
        answer = JobReturn(overrides=job.overrides, working_dir=str(job.folder), status=JobStatus.COMPLETED)
        answer.return_value = job.code
        return answer


def require_apart(jobs: Sequence[Job]) -> None:
    """Raise ConfigError where jobs share a folder."""
    for job in jobs:
        if len(same := [other.name for other in jobs if other.folder == job.folder]) > 1:
            raise ConfigError(
                f"hydra.sweep.subdir: {job.folder} is the folder of several jobs ({some(same)}); tell them apart, as by"
                " ${hydra.job.num}"
            )


def announced(jobs: Sequence[Job]) -> Iterator[Job]:
    """Jobs, each named on the screen when it is taken."""
    for job in jobs:
        print(f"job {job.number}: {job.name}", flush=True)
        yield job


def known_runs(folder: Path) -> dict[str, tuple[str, Path]]:
    """Status and folder of the best run of each configuration: a finished one, or else the latest."""
    if not folder.is_dir():
        return {}
    found, _ = records.find_records(folder)
    own = [(record, place) for record, place in found if (place / CONFIG).exists()]  # no evaluations
    ranked = sorted(own, key=lambda pair: (pair[0].status == "finished", pair[0].time))
    return {record.config_hash: (record.status, place) for record, place in ranked}
