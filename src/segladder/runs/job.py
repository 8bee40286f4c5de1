"""Where a job works: in a folder of its own, or in the folder of the run that it goes on with. It owns it meanwhile."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segladder.command_line import own_choices
from segladder.errors import ConfigError, SegLadderError
from segladder.files import written
from segladder.machine import tasks
from segladder.report import record as records
from segladder.runs.composition import composed
from segladder.runs.folder import (
    CONFIG,
    EMBEDDINGS,
    FOLDER_VARIABLE,
    config_hash_of,
    has_learnt,
    is_finished,
    is_first_process,
    plain_config,
    resuming,
    stored_config,
)
from segladder.runs.ownership import FILE_NAME as OWNER
from segladder.runs.ownership import GUARD, Owned, owned

OVER = ("finished", "diverged")
HYDRAS_OWN = "hydra"  # overrides of Hydra itself, of which `hydra.searchpath` imports what it names
NOT_THE_RUNS = ("resume=", "runs=")  # overrides that say which run is meant, and nothing of the run itself


@contextmanager
def own_job(config: DictConfig) -> Iterator[tuple[DictConfig, Path] | None]:
    """Configuration and folder of this job, owned while the block runs; None where that run has finished already.

    Raises:
        ConfigError: `resume` names no run or comes with other settings, no run fits `resume=auto`, or the folder given
            holds a run of other settings; none is given to processes that cannot tell each other.
        Owned: another process works in the folder.
    """
    if tasks() > 1 and not is_named(HydraConfig.get()):
        discard_if_empty(fresh_folder(), Path(config.runs))
        raise ConfigError(f"hydra.run.dir: {tasks()} tasks of a cluster train one run, name the folder that they share")
    with ExitStack() as held:
        folder = chosen_folder(config, held) if is_first_process() else further_folder()
        if folder.resolve() != fresh_folder().resolve():
            discard_if_empty(fresh_folder(), Path(config.runs))
        if is_first_process() and is_finished(folder):
            print(f"{folder}: finished already, nothing is left to do", flush=True)
            yield None
        else:
            yield stored_config(folder) if (folder / CONFIG).exists() else config, folder


def further_folder() -> Path:
    """The folder of a further process of a distributed run: that of the first one."""
    return Path(os.environ.get(FOLDER_VARIABLE, fresh_folder()))


def chosen_folder(config: DictConfig, held: ExitStack) -> Path:
    """The folder to work in, with a configuration in it; `held` owns it."""
    try:
        if config.resume == "auto":
            return newest_that_fits(config, held) or new_folder(config, held)
        if config.resume is not None:
            return own(resumed_folder(config.resume), held)
        return new_folder(config, held)
    except ConfigError:
        discard_if_empty(fresh_folder(), Path(str(config.runs)))
        raise


def own(folder: Path, held: ExitStack) -> Path:
    """Own a folder as long as `held` lasts."""
    held.enter_context(owned(folder, resuming(folder)))
    return folder


def new_folder(config: DictConfig, held: ExitStack) -> Path:
    """The folder that was asked for, where a run of the same settings may lie; otherwise one that nobody else has."""
    fresh = fresh_folder()
    if is_named(HydraConfig.get()):
        own(fresh, held)
        if (fresh / CONFIG).exists() and failed_at_once(fresh) and not is_same(config, fresh):
            for name in (records.FILE_NAME, CONFIG, EMBEDDINGS):  # the last is what it was told of its classes
                (fresh / name).unlink(missing_ok=True)
        if (fresh / CONFIG).exists():
            check_same(config, fresh)
        else:
            save_config(config, fresh)
        return fresh
    for number in count(1):  # jobs that start in the same second are given the same name
        folder = fresh if number == 1 else fresh.with_name(f"{fresh.name}-{number}")
        with suppress(Owned), ExitStack() as attempt:
            own(folder, attempt)
            if not (folder / CONFIG).exists():
                save_config(config, folder)
                held.push(attempt.pop_all())
                return folder
    raise AssertionError("numbers do not end")


def is_named(hydra: HydraConf) -> bool:
    """Whether the command line names this job's folder."""
    return any(override.startswith(f"{folder_key(hydra)}=") for override in hydra.overrides.hydra)


def folder_key(hydra: HydraConf) -> str:
    """The key that names a job's folder."""
    return "hydra.sweep.subdir" if hydra.mode == RunMode.MULTIRUN else "hydra.run.dir"


def failed_at_once(folder: Path) -> bool:
    """Whether a folder holds a run that failed before it learnt anything, such as one of a mistyped path."""
    with suppress(SegLadderError):
        return records.read(folder).status == "failed" and not has_learnt(folder)
    return False


def is_same(config: DictConfig, folder: Path) -> bool:
    """Whether a folder holds a run of these settings."""
    return config_hash_of(stored_config(folder)) == config_hash_of(config)


def check_same(config: DictConfig, folder: Path) -> None:
    """Raise ConfigError where a folder holds a run of other settings."""
    if not is_same(config, folder):
        stored = stored_config(folder)
        differing = ", ".join(differences(plain_config(stored), plain_config(config))[:3])
        raise ConfigError(
            f"{folder_key(HydraConfig.get())}: {folder} holds a run of other settings ({differing}); choose another"
            f" folder, or go on with that run: {resuming(folder)}"
        )


def differences(one: Any, other: Any, key: str = "") -> list[str]:
    """Keys whose values differ."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return [] if one == other else [key]
    names = sorted({*one, *other}, key=str)
    return [d for n in names for d in differences(one.get(n), other.get(n), f"{key}.{n}" if key else str(n))]


def save_config(config: DictConfig, folder: Path) -> None:
    """Write a run's configuration, resolved."""
    with written(folder / CONFIG) as partial:
        OmegaConf.save(OmegaConf.create(plain_config(config)), partial)


def fresh_folder() -> Path:
    """The folder Hydra made for this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def holds_nothing_else(folder: Path) -> bool:
    """Whether a folder is as a new run finds it; whatever else lies there is somebody's, and stays."""
    return {path.name for path in folder.iterdir()} <= {CONFIG, OWNER, GUARD}


def discard(folder: Path, runs: Path) -> None:
    """Remove the folder of a run that did not begin."""
    if is_first_process():
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        discard_if_empty(folder, runs)


def discard_if_empty(folder: Path, runs: Path) -> None:
    """Remove a folder that nothing was written to, and the folders between `runs` and it that this leaves empty."""
    with suppress(OSError):  # not empty
        folder.rmdir()
        for above in folder.resolve().parents:
            if runs.resolve() not in above.parents:
                return
            above.rmdir()


def resumed_folder(resume: str) -> Path:
    """The folder `resume=DIR` names, checked."""
    given = [o for o in HydraConfig.get().overrides.task if not o.startswith(("resume=", "hydra."))]
    if given:
        raise ConfigError(f"resume={resume} goes on with that run's own configuration: leave out {' '.join(given)}")
    if not (Path(resume) / CONFIG).exists():
        raise ConfigError(f"resume={resume}: no {CONFIG} there, expected the folder of a run")
    return Path(resume)


def newest_that_fits(config: DictConfig, held: ExitStack) -> Path | None:
    """The latest unfinished run that the given settings do not contradict and nobody works on.

    Where there is none, a job of a sweep is told so and starts; a single job starts nothing.

    Raises:
        ConfigError: none fits a single job.
    """
    given = [o for o in HydraConfig.get().overrides.task if not o.startswith(NOT_THE_RUNS)]
    unfinished = unfinished_runs(Path(config.runs))
    fitting = [(record, folder) for record, folder in unfinished if fits(record, given)]
    for record, folder in fitting:
        with suppress(Owned), ExitStack() as attempt:
            own(folder, attempt)
            if not is_finished(folder):  # by now
                print(f"going on with {folder} ({record.method}, started {record.time}, {record.status})", flush=True)
                held.push(attempt.pop_all())
                return folder
    found = (
        f"resume=auto: of {len(unfinished)} unfinished runs below {config.runs}, {len(unfinished) - len(fitting)} have"
        f" other settings and {len(fitting)} are being trained"
    )
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        raise ConfigError(f"{found}; nothing is started: leave out resume=auto to start a new run")
    print(f"{found}; this job of the sweep starts a new run", flush=True)
    return None


def unfinished_runs(runs: Path) -> list[tuple[records.Record, Path]]:
    """Records and folders of the unfinished runs under `runs`, the latest first.

    What diverged would do so again; what failed at once has nothing to go on with.
    """
    found = records.find_records(runs)[0] if runs.is_dir() else []
    unfinished = [
        (r, at) for r, at in found if r.status not in OVER and (at / CONFIG).exists() and not failed_at_once(at)
    ]
    return sorted(unfinished, key=lambda pair: (pair[0].time, pair[1]), reverse=True)


def fits(record: records.Record, given: Sequence[str]) -> bool:
    """Whether the settings given are those of a run: given beside the run's own ones, they change nothing."""
    try:
        words = shlex.split(record.command)
    except ValueError:  # a stranger's
        return False
    if not given or words[:2] != ["segladder", "train"]:
        return not given
    own_words = [word for word in words[2:] if not word.lstrip("+~").startswith((*NOT_THE_RUNS, HYDRAS_OWN))]
    found = own_choices(HydraConfig.get().overrides.hydra)
    further = [o for o in given if not (o in own_words and o.startswith(("+", "~")))]  # these cannot be given twice
    try:
        configs = [plain_config(composed([*found, *each])) for each in (own_words, [*own_words, *further])]
    except (HydraException, OmegaConfBaseException):
        return False
    return configs[0] == configs[1]
