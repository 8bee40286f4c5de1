"""`segladder search`: hyper-parameters by Optuna, judged on held-out training images alone.

Every trial is a training run in a fresh process. The study lies in RUNS/search/METHOD-HASH, where HASH stands for the
space and all settings that the trials share. So a search that is started again goes on: a trial that was cut off is
resumed, and if a run of its configuration has finished anywhere under RUNS, that run's record is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from segladder.errors import ConfigError
from segladder.processes.parallel import Slots
from segladder.processes.search import Search
from segladder.processes.search_space import distributions, first_of, overrides
from segladder.processes.sweep import known_runs
from segladder.report import record as records
from segladder.runs.choices import check_choices, check_pool
from segladder.runs.composition import check_keys, composed_or_explained, given_words
from segladder.runs.folder import config_hash_of, plain_config
from segladder.runs.keys import TrainKeys
from segladder.runs.ownership import owned
from segladder.settings import Count, Positive


class Keys(TrainKeys):
    """The keys of `segladder train`, and the keys of a search."""

    space: Mapping[str, Any] | None
    trials: Positive
    sampler: Literal["tpe", "random"]
    slots: Positive
    threads: Positive | None
    gpus: Count


OWN = ("space", "trials", "sampler", "slots", "threads", "gpus")  # keys that `segladder train` does not know


def run(config: DictConfig) -> int:
    """Search until there are as many trials as asked for, and print the best with the command that repeats it.

    Raises:
        ConfigError: choices that do not fit together, or no Optuna.
        Owned: another process is in this search.
        SegLadderError: every trial failed.
    """
    check_keys(config, Keys)
    check(config)
    given, settings = shared_overrides(config), plain_config(config)
    space = distributions(settings["space"])
    first = composed_or_explained([*given, *overrides(first_of(space))])
    what = records.hash_of([config_hash_of(first), settings["space"], config.sampler])
    folder = Path(config.runs) / "search" / f"{config.method.name}-{what}"
    with owned(folder, "start this search again, which goes on"):
        known = reusable(Path(config.runs), folder)
        search = Search(folder, space, given, config.sampler, config.seed, known)
        search.run(config.trials, Slots(config.slots, config.threads, config.gpus))
    return 0


def check(config: DictConfig) -> None:
    """Raise ConfigError where trials could not be judged on held-out images, or would not be runs of their own."""
    if config.selection != "held_out":
        raise ConfigError(
            f"selection={config.selection}: a search is judged on held-out training images, never on the scored split;"
            " leave it out"
        )
    if not config.method.trains:
        raise ConfigError(f"method={config.method.name} is not trained, so no held-out images score it")
    for key in ("stages", "resume"):
        if config[key]:
            raise ConfigError(f"{key}: the trials of a search are single runs from the start; leave it out")
    check_choices(config)
    check_pool(config)


def shared_overrides(config: DictConfig) -> list[str]:
    """The overrides of `segladder train` that all trials share."""
    own = {*OWN, "selection", "loader.held_out"}
    given = [o for o in given_words() if o.lstrip("+~").split("=")[0] not in own]
    return [*given, "selection=held_out", f"loader.held_out={config.loader.held_out}"]


def reusable(root: Path, search: Path) -> dict[str, Path]:
    """Folders by the hash of their configuration: of finished runs under `root`, and of unfinished ones of a search.

    Runs of versions that did not record by which labels weights were chosen are run again.
    """
    known = known_runs(root).items()
    return {
        key: folder
        for key, (status, folder) in known
        if folder.parent == search or (status == "finished" and "chosen_by" in records.read(folder).label_access)
    }
