"""`segladder train`: optimise a method, score it, write its record."""

from __future__ import annotations

import traceback
from pathlib import Path

from omegaconf import DictConfig

from segladder.errors import ConfigError, Diverged, SegLadderError
from segladder.processes.relaunch import relaunchable
from segladder.runs import build
from segladder.runs.choices import check_run
from segladder.runs.composition import one_line
from segladder.runs.fitting import carry_out
from segladder.runs.folder import has_learnt, is_finished
from segladder.runs.interruption import Interruption
from segladder.runs.job import discard, discard_if_empty, fresh_folder, holds_nothing_else, own_job
from segladder.runs.recording import start_record, write_status
from segladder.runs.watching.log import note, warnings_noted
from segladder.runs.watching.mirrors import Mirror, close
from segladder.stages.chain import run_stages
from segladder.stages.preparation import prepare


def run(config: DictConfig) -> int:
    """Train and score one run, or a chain of them; returns 0 when finished, 130 or 143 when interrupted.

    Faults raise once they are recorded.
    """
    if config.stages:
        discard_if_empty(fresh_folder(), Path(config.runs))
        return run_stages(config)
    try:
        check_run(config)
    except ConfigError:
        discard_if_empty(fresh_folder(), Path(str(config.runs)))
        raise
    with own_job(config) as job:
        return 0 if job is None else carry_through(*job)


def carry_through(config: DictConfig, folder: Path) -> int:
    """Train and score in a folder that this process owns, and record how that ends; returns the exit code."""
    new = holds_nothing_else(folder)
    record = start_record(config, folder)
    mirrors: list[Mirror] = []
    with Interruption() as interruption, relaunchable(folder), warnings_noted(folder):
        try:
            write_status(record, folder, "running")
            known = ", ".join(f"{name} {version}" for name, version in record.versions.items())
            note(folder, f"{'started' if new else 'goes on'}: {record.command}\n{known}")
            mirrors += build.mirrors(config, folder)
            run = prepare(config, folder, record, interruption)
            run.mirrors = mirrors
            write_status(record, folder, "running")  # with the data that it learns from
            carry_out(run)
        except BaseException as error:
            if is_finished(folder):  # such as a pipe that nobody reads any more
                raise
            if new and isinstance(error, ConfigError) and not has_learnt(folder):
                close(mirrors, "failed")
                discard(folder, Path(config.runs))
                raise
            if not interruption.explains(error):
                record.error = "".join(traceback.format_exception(error))[-4000:]
                write_status(record, folder, "diverged" if isinstance(error, Diverged) else "failed")
                note(
                    folder, f"{record.status}: {one_line(error) if isinstance(error, SegLadderError) else repr(error)}"
                )
                raise
            write_status(record, folder, "interrupted")
            return interruption.end()
        finally:
            close(mirrors, record.status)
    return 0
