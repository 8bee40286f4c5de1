"""A chain of runs, `stages` of an experiment: each a run of its own that builds on an earlier one, or scores it again.

A stage's folder is named by a hash of all that goes into it: its configuration, the content of its parent and the data.
So a chain that is started again skips what has not changed, goes on with what was interrupted, and never overwrites.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from segladder.errors import ConfigError
from segladder.processes.start import run_child
from segladder.report import record as records
from segladder.runs import build
from segladder.runs.composition import composed
from segladder.runs.folder import NOT_WHAT_IS_LEARNT, content_of, is_finished, plain_config

NAMES_A_STAGE = ("parent", "start", "backbone.weights")  # keys whose value may be the name of an earlier stage
SCORES_AGAIN = (
    "evaluate="  # first word of a stage that is no run: `evaluate=STAGE`, then overrides of segladder evaluate
)


def run_stages(config: DictConfig) -> int:
    """Run the stages of a configuration one after the other; returns the first exit code that is not 0.

    Raises:
        ConfigError: a stage that does not compose or names a stage that is not before it.
    """
    given = [o for o in HydraConfig.get().overrides.task if not o.startswith(("stages", "hydra.", "resume=auto"))]
    folders: dict[str, Path] = {}
    for number, (name, own) in enumerate(config.stages.items(), start=1):
        print(f"stage {number} of {len(config.stages)}, {name}: ", end="", flush=True)
        words = [str(word) for word in own]
        if words and words[0].startswith(SCORES_AGAIN):
            folders[name] = folder = earlier(words[0].removeprefix(SCORES_AGAIN), name, folders)
            command, is_there = ["evaluate", f"run={folder}", *words[1:]], is_scored(folder, words[1:])
        else:
            overrides = [*given, *(with_folder(word, name, folders) for word in words), "stages=null"]
            folders[name] = folder = stage_folder(str(name), overrides)
            command, is_there = ["train", *overrides, f"hydra.run.dir={folder}"], is_finished(folder)
        print(f"{folder}{' is there already' if is_there else ''}", flush=True)
        if not is_there and (code := run_child(command)):
            return code
    print(f"compare the stages: segladder leaderboard runs={config.runs}")
    return 0


def earlier(wanted: str, stage: str, folders: dict[str, Path]) -> Path:
    """The folder of an earlier stage. Raises ConfigError where there is none of that name."""
    if wanted not in folders:
        before = ", ".join(folders) or "none"
        raise ConfigError(f"stages.{stage}: {SCORES_AGAIN}{wanted} names no stage before it ({before})")
    return folders[wanted]


def is_scored(folder: Path, words: list[str]) -> bool:
    """Whether a run has been evaluated with these overrides, wherever it lay then."""
    asked = " ".join(map(shlex.quote, words))
    places = [path.parent for path in folder.glob(f"evaluations/*/{records.FILE_NAME}")]
    return any(is_finished(place) and records.read(place).command.endswith(asked) for place in places)


def with_folder(override: str, stage: str, folders: dict[str, Path]) -> str:
    """An override of a stage with the folder of the earlier stage that it names."""
    key, _, value = override.partition("=")
    if key in NAMES_A_STAGE and value in folders:  # before a folder that happens to be called so
        return f"{key}={folders[value]}"
    if key in ("parent", "start") and not Path(value).exists():
        before = ", ".join(folders) or "none"
        raise ConfigError(f"stages.{stage}: {override} names no stage before it ({before}) and no folder")
    return override


def stage_folder(name: str, overrides: list[str]) -> Path:
    """Where a stage's run lies: RUNS/NAME-seedSEED-HASH, the hash over all that goes into the stage."""
    config = composed(overrides)
    source = build.source(config)
    learnt = {key: value for key, value in plain_config(config).items() if key not in NOT_WHAT_IS_LEARNT}
    inputs = {
        **learnt,
        **{key: content_of(Path(config[key]), named=key) for key in ("parent", "start") if config[key] is not None},
        "data": [
            learnt["data"],
            *(source.fingerprint(source.split(s)) for s in (source.train_split, source.val_split)),
        ],
    }
    return Path(config.runs) / f"{name}-seed{config.seed}-{records.hash_of(inputs)}"
